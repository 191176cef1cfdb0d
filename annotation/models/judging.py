"""Assignments of comparisons to people, and their judgments."""

import uuid
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from annotation.models.comparisons import Comparison, Response
from annotation.models.projects import Project

LETTERS = "ABCDEFGHI"


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def open_for(self, user: Any) -> "AssignmentQuerySet":
        """The assignments that this person has not answered, newest first."""
        return self.filter(annotator=user, state=Assignment.State.LEASED).order_by("-leased_at")

    def overdue(self) -> "AssignmentQuerySet":
        """Leases that ran out."""
        return self.filter(state=Assignment.State.LEASED, lease_until__lt=timezone.now())


class Assignment(models.Model):
    """One comparison handed to one person: lease, the order in which it was shown, draft, state."""

    class State(models.TextChoices):
        LEASED = "leased"
        JUDGED = "judged"
        SKIPPED = "skipped"
        EXPIRED = "expired"

    class Drawn(models.TextChoices):
        RANKED = "ranked", "by priority and score"
        RANDOM = "random", "at random"

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="assignments")
    annotator = models.ForeignKey(
        # If the row were deleted, its place in the comparison would stay taken.
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="assignments",
    )
    state = models.CharField(max_length=8, choices=State.choices, default=State.LEASED)
    shown_order = models.JSONField(help_text="Response ids in the order they were shown: A, B, C …")
    drawn = models.CharField(
        max_length=8,
        choices=Drawn.choices,
        default=Drawn.RANKED,
        help_text="How it was chosen for this person.",
    )
    leased_at = models.DateTimeField(default=timezone.now)
    lease_until = models.DateTimeField()
    is_extra = models.BooleanField(
        default=False,
        help_text="Answered after its place had gone to somebody else; kept all the same.",
    )
    is_ruling = models.BooleanField(
        default=False, help_text="A reviewer's decision: it takes no place of the overlap."
    )
    draft = models.JSONField(default=dict, blank=True)
    draft_saved_at = models.DateTimeField(null=True, blank=True)
    skip_reason = models.CharField(max_length=200, blank=True)
    bookmarked_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="This person's own mark, to find it again; nobody else sees it.",
    )
    judgment = models.OneToOneField(
        "annotation.Judgment",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="current_for",
        help_text="The revision that counts; empty when it was taken back.",
    )

    objects = AssignmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["comparison", "annotator"], name="one_assignment_per_person"
            )
        ]
        indexes = [
            models.Index(fields=["annotator", "state", "-leased_at"]),
            models.Index(
                fields=["lease_until"], condition=Q(state="leased"), name="assignment_overdue"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.comparison_id} for {self.annotator}"

    @property
    def letters(self) -> dict[str, str]:
        """Response id (as a string) to the letter under which this person saw it."""
        return {str(pk): LETTERS[place] for place, pk in enumerate(self.shown_order)}

    @property
    def is_overdue(self) -> bool:
        return self.state == self.State.LEASED and self.lease_until < timezone.now()


class Question(models.Model):
    """What a person asks about a comparison that they judge, and the answer of an admin or reviewer."""

    assignment = models.ForeignKey(Assignment, on_delete=models.CASCADE, related_name="questions")
    text = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    answer = models.TextField(blank=True)
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    answered_at = models.DateTimeField(null=True, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True, help_text="By who asked.")

    class Meta:
        ordering = ["created_at", "id"]
        indexes = [
            models.Index(
                fields=["created_at"], condition=Q(answered_at=None), name="question_to_answer"
            )
        ]

    def __str__(self) -> str:
        return f"question about {self.assignment_id}"


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def current(self) -> "JudgmentQuerySet":
        """The revision that counts of each judgment, without those taken back or excluded."""
        return self.filter(current_for__isnull=False, excluded_at__isnull=True)

    def of_project(self, project: Project) -> "JudgmentQuerySet":
        return self.filter(assignment__comparison__batch__project=project)

    def votes(self) -> "JudgmentQuerySet":
        """Judgments of annotators: no gold, no reviewer's ruling."""
        return self.filter(assignment__comparison__gold__isnull=True, assignment__is_ruling=False)


class Judgment(models.Model):
    """What one person said about one comparison. Append-only: a correction is a new revision.

    `ranks` is `{axis: {response id: rank}}`; 1 is best, equal numbers are ties, a response that is
    missing was not ranked, which with `rest_below` says that it is below all that are. JSON keys are
    strings. `flags` is `{response id: [{"kind", "category"}]}`.

    What else a protocol may ask: `strength` is `{axis: {"level", "of", "label", "margin"}}`, level 0
    being a tie; `all_bad` lists the axes on which not one response is good enough; `ratings` is
    `{response id: {attribute: number}}`; `safety` is `{response id: {"safe", "harms"}}`. `conflicts`
    says where parts of the answer contradict each other (annotation/judge/requirements.py); a reviewer
    decides then.
    """

    FLAGS: ClassVar[dict[str, str]] = {
        "unsafe": gettext_noop("Unsafe"),
        "wrong": gettext_noop("Wrong"),
        "off_topic": gettext_noop("Off-topic"),
        "rude": gettext_noop("Rude"),
    }
    HARM_CATEGORIES: ClassVar[dict[str, str]] = {
        "violence": gettext_noop("Violence or threats"),
        "theft": gettext_noop("Theft or damage"),
        "deception": gettext_noop("Deception or fraud"),
        "privacy": gettext_noop("Privacy or spying"),
        "hate": gettext_noop("Hate or harassment"),
        "self_harm": gettext_noop("Self-harm"),
        "sexual": gettext_noop("Sexual content"),
        "illegal": gettext_noop("Other illegal acts"),
        "other": gettext_noop("Something else"),
    }

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    assignment = models.ForeignKey(Assignment, on_delete=models.PROTECT, related_name="judgments")
    revision = models.PositiveSmallIntegerField(default=1)
    key = models.UUIDField(unique=True, help_text="The client's idempotency key.")
    answer_sha256 = models.CharField(max_length=64)
    ranks = models.JSONField()
    flags = models.JSONField(default=dict, blank=True)
    rest_below = models.BooleanField(
        default=False, help_text="A top-k ranking: what is not ranked is below, in no order."
    )
    strength = models.JSONField(default=dict, blank=True)
    all_bad = models.JSONField(default=list, blank=True)
    ratings = models.JSONField(default=dict, blank=True)
    safety = models.JSONField(default=dict, blank=True)
    rewrite = models.TextField(
        blank=True, help_text="An answer written by the annotator: a demonstration."
    )
    based_on = models.ForeignKey(
        Response,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The response that the written answer corrects.",
    )
    conflicts = models.JSONField(default=list, blank=True)
    needs_review = models.BooleanField(
        default=False, help_text="It has conflicts that no reviewer has decided yet."
    )
    reason = models.TextField(blank=True)
    seconds = models.FloatField(
        null=True, blank=True, help_text="Seconds from shown to sent, as the page measured."
    )
    guideline_version = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(default=timezone.now)
    excluded_at = models.DateTimeField(null=True, blank=True)
    excluded_reason = models.CharField(max_length=200, blank=True)

    objects = JudgmentQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["assignment", "revision"], name="one_row_per_revision")
        ]
        indexes = [
            models.Index(
                fields=["created_at"], condition=Q(needs_review=True), name="judgment_to_review"
            )
        ]

    def __str__(self) -> str:
        return f"judgment {self.uid} (revision {self.revision})"
