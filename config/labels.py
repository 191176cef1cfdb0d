"""The labels of form fields, for a form that comes back because its sender was signed out."""

from django.forms import BaseForm
from django.forms.utils import pretty_name
from django.http import HttpRequest
from django.utils.translation import gettext, gettext_noop

from annotation.pages.account_forms import PreferencesForm, TokenForm
from annotation.pages.batch_forms import CampaignForm as BatchCampaignForm
from annotation.pages.data_forms import FreezeForm, ImportForm
from annotation.pages.gold import GoldForm
from annotation.pages.project_forms import MemberForm, NewProjectForm, ProjectForm
from annotation.pages.quality import PayForm
from annotation.projects.assignment_settings import (
    BatchAssignmentForm,
    MemberAssignmentForm,
    ProjectAssignmentForm,
)
from rlhf.pages.campaign_form import CampaignForm as DialogueCampaignForm

FORMS: dict[str, tuple[type[BaseForm], ...]] = {
    "assignment_rules": (ProjectAssignmentForm, MemberAssignmentForm, BatchAssignmentForm),
    "batch_new": (BatchCampaignForm,),
    "campaigns": (DialogueCampaignForm,),
    "gold_items": (GoldForm,),
    "preferences": (PreferencesForm,),
    "project_new": (NewProjectForm,),
    "project_settings": (ProjectForm, MemberForm),
    "prompt_import": (ImportForm,),
    "quality": (PayForm,),
    "snapshots": (FreezeForm,),
    "tokens": (TokenForm,),
}
"""The forms of each page, by the name of its URL."""

IN_TEMPLATES = {
    "give_verdict:note": gettext_noop("Reason"),
    "licence": gettext_noop("License"),
    "note": gettext_noop("Why"),
    "quality_person:reason": gettext_noop("Reason"),
    "reason": gettext_noop("Why?"),
    "review_case:note": gettext_noop("Comment"),
    "rewrite": gettext_noop("A better answer"),
    "rows": gettext_noop("or rows as text"),
    "skip_other": gettext_noop("Another reason"),
    "text": gettext_noop("Your message"),
}
"""Labels of fields that a template writes itself; `page:field` where pages differ."""


def label_of(request: HttpRequest, name: str) -> str:
    """The label that the field had on the page from which it was sent."""
    field = name.rsplit("-", 1)[-1]  # without the prefix of one form among several
    page = request.resolver_match.view_name if request.resolver_match else ""
    for form in FORMS.get(page, ()):
        if field in form.base_fields:  # type: ignore[attr-defined]
            return str(form.base_fields[field].label or pretty_name(field))  # type: ignore[attr-defined]
    if label := IN_TEMPLATES.get(f"{page}:{field}", IN_TEMPLATES.get(field)):
        return gettext(label)
    return pretty_name(name)
