"""What reviewers look at, and the audit log."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_noop

from annotation.models.comparisons import Comparison
from annotation.models.projects import Project


class ReviewCase(models.Model):
    """A comparison that a reviewer looks at: why, and what was decided.

    The decision itself is a judgment like any other, of an assignment with `is_ruling`.
    """

    class State(models.TextChoices):
        OPEN = "open"
        DECIDED = "decided"
        SETTLED = "settled", "settled by itself"

    REASONS: ClassVar[dict[str, str]] = {
        "conflict": gettext_noop("Preferred but unsafe"),
        "unsafe": gettext_noop("Flagged unsafe"),
        "disagreement": gettext_noop("Annotators disagree"),
        "asked": gettext_noop("Escalated"),
    }
    GROUNDS: ClassVar[dict[str, str]] = {
        "guidelines": gettext_noop("The guidelines decide it"),
        "facts": gettext_noop("One response is factually wrong"),
        "overlooked": gettext_noop("Something was overlooked"),
        "unclear": gettext_noop("The guidelines are unclear here"),
        "equal": gettext_noop("They are equally good"),
        "other": gettext_noop("Something else"),
    }

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="review_cases")
    comparison = models.OneToOneField(Comparison, on_delete=models.CASCADE, related_name="review")
    reasons = models.JSONField(default=list)
    weight = models.FloatField(default=0.0, help_text="Higher is looked at sooner.")
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    ground = models.CharField(max_length=12, blank=True)
    note = models.TextField(blank=True, help_text="The reviewer's own words.")
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The reviewer who is to decide it; anybody else still may.",
    )

    class Meta:
        ordering = ["-weight", "id"]
        indexes = [models.Index(fields=["project", "state", "-weight", "id"])]

    def __str__(self) -> str:
        return f"review of {self.comparison_id}"


class Event(models.Model):
    """Who did what, when. Written in the transaction of the act itself; never edited."""

    project = models.ForeignKey(Project, null=True, on_delete=models.CASCADE, related_name="events")
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    verb = models.CharField(max_length=60)
    target = models.CharField(max_length=200, blank=True)
    data = models.JSONField(default=dict, blank=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-at", "-id"]
        indexes = [models.Index(fields=["project", "-at"])]

    def __str__(self) -> str:
        return f"{self.actor or 'the system'} {self.verb} {self.target}"

    @staticmethod
    def record(
        project: Project | None, actor: Any, verb: str, target: object = "", **data: Any
    ) -> "Event":
        """Write one line of the audit log; `actor` is None for an action of the system."""
        return Event.objects.create(
            project=project, actor=actor, verb=verb, target=str(target)[:200], data=data
        )
