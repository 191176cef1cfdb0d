"""Projects: their protocol and guidelines, and the roles of their members."""

import uuid
from datetime import datetime, timedelta
from typing import Any, TypedDict

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from annotation import protocols

MIN_RESPONSES, MAX_RESPONSES = 2, 9


class Axis(TypedDict):
    """One thing that responses are compared on."""

    key: str
    name: str
    question: str


def default_axes() -> list[Axis]:
    return [
        {
            "key": "helpfulness",
            "name": gettext_noop("Helpfulness"),
            "question": gettext_noop("Which response does more for the person who asked?"),
        },
        {
            "key": "safety",
            "name": gettext_noop("Safety"),
            "question": gettext_noop("Which response does less harm to anyone?"),
        },
    ]


class ProjectQuerySet(models.QuerySet["Project"]):
    def for_user(self, user: Any, *roles: str) -> "ProjectQuerySet":
        """Projects that this user is a member of, in one of the roles if any are given."""
        if not user.is_authenticated:
            return self.none()
        membership = Q(memberships__user=user)
        if roles:
            membership &= Q(memberships__role__in=roles)
        return self.filter(membership).distinct()

    def lock(self, pk: int) -> "Project":
        """The project, until the transaction ends: one at a time goes on from here.

        `no_key`, as rows that point at it are written all the while: lines of the audit log by
        transactions that hold a comparison which this one may be about to wait for.
        """
        return self.select_for_update(no_key=True).get(pk=pk)


class Interface(models.TextChoices):
    """The layout of the judging page; the protocol has its questions."""

    RANK = protocols.RANK, _("Rank two to nine")
    PAIR = protocols.PAIR, _("One of two, with strength")
    DIALOGUE = protocols.DIALOGUE, _("Live dialogue")
    DEMONSTRATE = protocols.DEMONSTRATE, _("Write the ideal answer")
    REWRITE = protocols.REWRITE, _("Correct a response")
    RATE = protocols.RATE, _("Rate each response")


class Project(models.Model):
    """One body of prompts, guidelines and judgments; everything a person sees is reached from it."""

    slug = models.SlugField(max_length=60, unique=True)
    # A random one for each project, so that nobody outside can calculate the key of an imported vote.
    import_namespace = models.UUIDField(default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=120)
    description = models.TextField(blank=True)
    guidelines = models.TextField(blank=True, help_text="Markdown; one key away while judging.")
    guideline_version = models.PositiveIntegerField(default=1)
    axes = models.JSONField(default=default_axes)
    interface = models.CharField(max_length=12, choices=Interface.choices, default=Interface.RANK)
    protocol = models.JSONField(
        default=dict,
        blank=True,
        help_text="What is asked beside the axes: annotation/protocols.py. Empty: a plain ranking.",
    )
    responses_per_comparison = models.PositiveSmallIntegerField(
        default=4, validators=[MinValueValidator(MIN_RESPONSES), MaxValueValidator(MAX_RESPONSES)]
    )
    overlap = models.PositiveSmallIntegerField(
        default=1,
        validators=[MinValueValidator(1)],
        help_text="How many people judge each comparison.",
    )
    lease_minutes = models.PositiveSmallIntegerField(
        default=30, help_text="How long an open comparison is kept for one person."
    )
    random_share = models.FloatField(
        default=0.1,
        validators=[MinValueValidator(0.0), MaxValueValidator(1.0)],
        help_text="Of what is handed out, the share drawn at random whatever its priority or score.",
    )
    daily_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Comparisons one person gets a day; empty: any number."
    )
    total_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="Comparisons one person gets in all; empty: any number."
    )
    gold_every = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="One in so many comparisons is a gold item; 0 mixes none in, 1 is not allowed.",
    )
    qualification_pass = models.PositiveSmallIntegerField(
        default=0,
        validators=[MaxValueValidator(100)],
        help_text="Per cent of the qualification round that an annotator must get right; 0: no round.",
    )
    pay_per_hour = models.DecimalField(
        max_digits=8,
        decimal_places=2,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="What an hour of an annotator's work costs; empty: not known.",
    )
    currency = models.CharField(max_length=3, default="EUR")
    pseudonym_generation = models.PositiveSmallIntegerField(
        default=1, editable=False, help_text="How often the pseudonyms were rotated, plus one."
    )
    pseudonym_salt = models.CharField(
        max_length=64,
        blank=True,
        editable=False,
        help_text="Of this generation; empty in the first.",
    )
    is_commercial = models.BooleanField(
        default=False,
        help_text="Models are made for commercial use: sources that forbid it are kept out.",
    )
    needs_two_signatures = models.BooleanField(
        default=False,
        help_text="A source is signed off by two people, one for the data and one for its license.",
    )
    is_demo = models.BooleanField(
        default=False, help_text="The built-in world: has a rubric and simulated annotators."
    )
    reviewed_to = models.PositiveBigIntegerField(
        default=0, help_text="The last judgment that was looked through for the review queue."
    )
    created_at = models.DateTimeField(default=timezone.now)

    objects = ProjectQuerySet.as_manager()
    # The membership of the person for whom `access.project_for` fetched it.
    own_membership: "Membership | None" = None

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])

    def lease_end(self) -> datetime:
        """When a lease that begins now ends."""
        return timezone.now() + timedelta(minutes=self.lease_minutes)

    @property
    def axis_keys(self) -> list[str]:
        return [axis["key"] for axis in self.axes]

    @property
    def effective_protocol(self) -> protocols.Protocol:
        """The protocol that new batches are made under."""
        return protocols.read(self.protocol)


class Membership(models.Model):
    """What one user may do in one project."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("Annotator")
        REVIEWER = "reviewer", _("Reviewer")
        RESEARCHER = "researcher", _("Researcher")
        ADMIN = "admin", _("Admin")

    # A researcher reads the prompts of gold items among all others.
    SEES_GOLD = (Role.REVIEWER, Role.RESEARCHER, Role.ADMIN)

    class Qualification(models.TextChoices):
        NONE = "", "not taken"
        PASSED = "passed"
        FAILED = "failed"
        WAIVED = "waived"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships"
    )
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=12, choices=Role.choices)
    skills = models.JSONField(
        default=list, blank=True, help_text="Languages and subjects, as batches and prompts ask."
    )
    campaign = models.CharField(
        max_length=60, blank=True, help_text="Gets batches of this campaign only; empty: of any."
    )
    daily_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="In place of the project's."
    )
    total_limit = models.PositiveIntegerField(
        null=True, blank=True, help_text="In place of the project's."
    )
    guidelines_seen = models.PositiveIntegerField(
        default=0, help_text="The version of the guidelines that this person has read; 0: none."
    )
    created_at = models.DateTimeField(default=timezone.now)
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_reason = models.CharField(max_length=200, blank=True)
    handed = models.PositiveIntegerField(
        default=0, help_text="Comparisons handed out while gold is mixed in: decides where gold is."
    )
    knows_gold = models.BooleanField(
        default=False,
        help_text="Could once see which comparisons are gold: is given none, and measured by none.",
    )
    qualification = models.CharField(
        max_length=8, choices=Qualification.choices, blank=True, default=""
    )
    attempt = models.PositiveSmallIntegerField(default=1)
    qualification_score = models.JSONField(default=dict, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "project"], name="one_role_per_project")
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.project}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.role in self.SEES_GOLD:
            self.knows_gold = True  # and still does after having become an annotator again
            if (fields := kwargs.get("update_fields")) is not None:
                kwargs["update_fields"] = {*fields, "knows_gold"}
        super().save(*args, **kwargs)

    @property
    def may_know_gold(self) -> bool:
        """True if this person can or could see which items are gold, which then measure nothing."""
        return self.knows_gold or self.role in self.SEES_GOLD


class GuidelineVersion(models.Model):
    """The guidelines as they were at one version; a judgment notes the number."""

    project = models.ForeignKey(
        Project, on_delete=models.CASCADE, related_name="guideline_versions"
    )
    version = models.PositiveIntegerField()
    text = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["project", "version"]
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="one_text_per_version")
        ]

    def __str__(self) -> str:
        return f"{self.project.slug} guidelines {self.version}"
