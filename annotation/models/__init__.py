"""The models of annotation, by the nouns of docs/walk.md, each with its queryset.

They do not depend on rounds, weights or torch: `Response.source` is a plain label.
"""

from annotation.models.bulk_acts import BulkAct
from annotation.models.comparisons import Batch, Comparison, GoldItem, Response, Upload
from annotation.models.content import (
    Message,
    Prompt,
    PromptQuerySet,
    Source,
    SourceQuerySet,
    SourceSignature,
    content_hash,
)
from annotation.models.datasets import Freezing, Snapshot, Withdrawal
from annotation.models.dialogue import Dialogue, DialogueCampaign, Turn
from annotation.models.exports import Export, Push
from annotation.models.filtering import FilterLabel, FilterSetting, Flag
from annotation.models.judging import (
    Assignment,
    AssignmentQuerySet,
    Judgment,
    JudgmentQuerySet,
    Question,
)
from annotation.models.people import AccountNotice, ApiToken, ErasureRequest, Invitation, User
from annotation.models.projects import (
    MAX_RESPONSES,
    MIN_RESPONSES,
    Axis,
    GuidelineVersion,
    Interface,
    Membership,
    Project,
    ProjectQuerySet,
    default_axes,
)
from annotation.models.quality import Event, ReviewCase
from annotation.models.tagging import SavedView, Tag, Tagging

__all__ = [
    "MAX_RESPONSES",
    "MIN_RESPONSES",
    "AccountNotice",
    "ApiToken",
    "Assignment",
    "AssignmentQuerySet",
    "Axis",
    "Batch",
    "BulkAct",
    "Comparison",
    "Dialogue",
    "DialogueCampaign",
    "ErasureRequest",
    "Event",
    "Export",
    "FilterLabel",
    "FilterSetting",
    "Flag",
    "Freezing",
    "GoldItem",
    "GuidelineVersion",
    "Interface",
    "Invitation",
    "Judgment",
    "JudgmentQuerySet",
    "Membership",
    "Message",
    "Project",
    "ProjectQuerySet",
    "Prompt",
    "PromptQuerySet",
    "Push",
    "Question",
    "Response",
    "ReviewCase",
    "SavedView",
    "Snapshot",
    "Source",
    "SourceQuerySet",
    "SourceSignature",
    "Tag",
    "Tagging",
    "Turn",
    "Upload",
    "User",
    "Withdrawal",
    "content_hash",
    "default_axes",
]
