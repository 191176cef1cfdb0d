"""What people rank and what they said: the nouns of docs/walk.md, each beside its queryset.

Nothing here knows of rounds, weights or torch: `Response.source` is a plain label.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar, TypedDict

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop
from knox.models import AbstractAuthToken

from annotation import protocols

MIN_RESPONSES, MAX_RESPONSES = 2, 9


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


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


def content_hash(messages: Sequence[Message]) -> str:
    """SHA-256 of a conversation: the same words are the same prompt, whatever file they came in."""
    canonical = json.dumps(
        [[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox is untyped
    """A person, or a program that plays one and says so (`is_simulated`)."""

    is_simulated = models.BooleanField(
        default=False, help_text="Played by a program; shown as simulated wherever it appears."
    )
    shortcuts_enabled = models.BooleanField(
        default=True, help_text="Single-key shortcuts on the ranking page (WCAG 2.1.4)."
    )

    class HarmfulMaterial(models.TextChoices):
        WARN = "warn", _("Cover it, with a warning, until I uncover it")
        SHOW = "show", _("Show it like any other")
        AVOID = "avoid", _("Don't give me any")

    language = models.CharField(
        max_length=8,
        blank=True,
        choices=settings.LANGUAGES,
        help_text="Of the interface; empty: as the browser asks.",
    )
    harmful_material = models.CharField(
        max_length=8,
        choices=HarmfulMaterial.choices,
        default=HarmfulMaterial.WARN,
        help_text="What to do with comparisons whose prompt is known as harmful.",
    )
    break_minutes = models.PositiveSmallIntegerField(
        default=45, help_text="Minutes of unbroken work after which a break is suggested; 0: never."
    )

    def __str__(self) -> str:
        return self.username

    def covers(self, prompt: "Prompt") -> bool:
        """Whether what belongs to this prompt is covered until they uncover it, wherever it stands."""
        return (
            prompt.risk == Prompt.Risk.HARMFUL
            and self.harmful_material != User.HarmfulMaterial.SHOW
        )


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
    """What the page looks like on which a person judges; what it asks is the protocol."""

    RANK = protocols.RANK, _("Rank two to nine")
    PAIR = protocols.PAIR, _("One of two, with strength")
    DIALOGUE = protocols.DIALOGUE, _("Live dialogue")
    DEMONSTRATE = protocols.DEMONSTRATE, _("Write the ideal answer")
    REWRITE = protocols.REWRITE, _("Correct a response")
    RATE = protocols.RATE, _("Rate each response")


class Project(models.Model):
    """One body of prompts, guidelines and judgments; everything a person sees is reached from it."""

    slug = models.SlugField(max_length=60, unique=True)
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
    is_demo = models.BooleanField(
        default=False, help_text="The built-in world: has a rubric and simulated annotators."
    )
    reviewed_to = models.PositiveBigIntegerField(
        default=0, help_text="The last judgment that was looked through for the review queue."
    )
    created_at = models.DateTimeField(default=timezone.now)

    objects = ProjectQuerySet.as_manager()
    # Whose eyes it was fetched for, where `access.project_for` did it: asked for on every request.
    own_membership: "Membership | None" = None

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("project", args=[self.slug])

    @property
    def axis_keys(self) -> list[str]:
        return [axis["key"] for axis in self.axes]

    @property
    def rules(self) -> protocols.Protocol:
        """The protocol that new batches are made under."""
        return protocols.read(self.protocol)


class Membership(models.Model):
    """What one user may do in one project."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("Annotator")
        REVIEWER = "reviewer", _("Reviewer")
        RESEARCHER = "researcher", _("Researcher")
        ADMIN = "admin", _("Admin")

    SEES_GOLD = (Role.REVIEWER, Role.ADMIN)

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


class SourceQuerySet(models.QuerySet["Source"]):
    def waiting(self) -> "SourceQuerySet":
        """Those of which nothing reaches training until somebody signs them off."""
        return self.filter(signed_off_at=None).exclude(name=Source.GOLD)


class Source(models.Model):
    """Where prompts or comparisons came from, under which licence, and who signed that off."""

    GOLD = "Gold items"
    """Of the prompts whose answer is known: never data, so that nobody has to sign it off."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sources")
    name = models.CharField(max_length=120)
    url = models.URLField(blank=True)
    licence = models.CharField(max_length=120, blank=True)
    note = models.TextField(blank=True)
    n_rows = models.PositiveIntegerField(default=0)
    n_duplicates = models.PositiveIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    signed_off_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    signed_off_at = models.DateTimeField(null=True, blank=True)

    objects = SourceQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def is_signed_off(self) -> bool:
        return self.signed_off_at is not None

    @property
    def waits(self) -> bool:
        """Whether somebody should sign it off."""
        return not self.is_signed_off and self.name != self.GOLD


class PromptQuerySet(models.QuerySet["Prompt"]):
    def trainable(self) -> "PromptQuerySet":
        """Prompts that training may see: the train split of a source that somebody signed off."""
        return self.filter(split=Prompt.Split.TRAIN, source__signed_off_at__isnull=False)


class Prompt(models.Model):
    """A conversation that ends with the user's turn; belongs to one split for ever."""

    class Split(models.TextChoices):
        TRAIN = "train"
        EVAL = "eval", "watch"
        HELDOUT = "heldout", "held out"

    class Risk(models.TextChoices):
        UNKNOWN = "", "not known"
        HARMLESS = "harmless"
        HARMFUL = "harmful"

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="prompts")
    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="prompts")
    messages = models.JSONField()
    sha256 = models.CharField(max_length=64, editable=False)
    category = models.CharField(max_length=60, blank=True)
    risk = models.CharField(max_length=8, choices=Risk.choices, blank=True, default="")
    split = models.CharField(max_length=8, choices=Split.choices, default=Split.TRAIN)
    priority = models.FloatField(default=0.0, help_text="Higher is judged sooner.")
    skill = models.CharField(
        max_length=40, blank=True, help_text="A language or subject that its judges must know."
    )
    external_id = models.CharField(max_length=120, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = PromptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "sha256"], name="one_prompt_per_text")
        ]
        indexes = [models.Index(fields=["project", "split", "id"])]

    def __str__(self) -> str:
        return self.text[:80]

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.sha256 = content_hash(self.messages)
        super().save(*args, **kwargs)

    @property
    def text(self) -> str:
        """The last thing the user said."""
        return self.messages[-1]["content"] if self.messages else ""

    @staticmethod
    def split_for(sha256: str) -> str:
        """80 % train, 5 % watch, 15 % held out, by the text's hash: importing again moves nothing."""
        point = int(sha256[:8], 16) % 100
        if point < 80:
            return Prompt.Split.TRAIN
        return Prompt.Split.EVAL if point < 85 else Prompt.Split.HELDOUT


class Batch(models.Model):
    """The comparisons put in front of people for one round, campaign or import."""

    class State(models.TextChoices):
        DRAFT = "draft", _("Draft")
        OPEN = "open", _("Open")
        CLOSED = "closed", _("Closed")

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="batches")
    name = models.CharField(max_length=120)
    state = models.CharField(max_length=8, choices=State.choices, default=State.DRAFT)
    overlap = models.PositiveSmallIntegerField(default=1)
    interface = models.CharField(
        max_length=12,
        choices=Interface.choices,
        blank=True,
        help_text="As it was when the batch was made; empty: the project's.",
    )
    protocol = models.JSONField(
        default=dict, blank=True, help_text="As it was when the batch was made."
    )
    campaign = models.CharField(
        max_length=60, blank=True, help_text="What it is collected for; people may be kept to one."
    )
    priority = models.SmallIntegerField(
        default=0, help_text="Of open batches, the higher is handed out first."
    )
    skill = models.CharField(
        max_length=40, blank=True, help_text="A language or subject that its judges must know."
    )
    is_by_hand = models.BooleanField(
        default=False,
        help_text="Put together by an admin on the project's page; closed there as well.",
    )
    qualification = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="A qualification round: which attempt it is for."
    )
    scored_at = models.DateTimeField(
        null=True, blank=True, help_text="When an engine last said what would teach most."
    )
    scored_by = models.CharField(
        max_length=120, blank=True, help_text="A plain label: who said so."
    )
    is_imported = models.BooleanField(
        default=False, help_text="Judgments that came from a file, not from this product's pages."
    )
    source = models.ForeignKey(
        Source,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="batches",
        help_text="Of an imported batch: whose licence the responses and judgments are under.",
    )
    created_at = models.DateTimeField(default=timezone.now)
    opened_at = models.DateTimeField(null=True, blank=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return self.name

    @property
    def face(self) -> str:
        """The interface under which it is judged."""
        return str(self.interface or self.project.interface)

    @property
    def rules(self) -> protocols.Protocol:
        """The protocol under which it is judged."""
        return protocols.read(self.protocol) if self.interface else self.project.rules


class Upload(models.Model):
    """What a program sent under a key of its own: sent again it is answered again, not done again."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="uploads")
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="uploads")
    key = models.UUIDField(help_text="The client's idempotency key.")
    sha256 = models.CharField(max_length=64, help_text="Of what was sent.")
    answer = models.JSONField(default=dict)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "key"], name="one_upload_per_key")
        ]

    def __str__(self) -> str:
        return f"{self.key} to {self.batch}"


class GoldItem(models.Model):
    """A comparison whose answer is known: shows who reads. Annotators never learn which these are.

    `responses` are texts; `expected` is `{axis: [rank or null per response]}`, of which only the
    pairs with different ranks count. It becomes a Comparison in each batch it is mixed into.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gold_items")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="gold_items")
    responses = models.JSONField()
    expected = models.JSONField()
    why = models.CharField(max_length=400, blank=True, help_text="Why that is the answer.")
    is_mixed = models.BooleanField(default=True, help_text="Mixed into everybody's work.")
    is_qualification = models.BooleanField(
        default=False, help_text="Part of the qualification round."
    )
    is_active = models.BooleanField(default=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "prompt"], name="one_gold_item_per_prompt")
        ]

    def __str__(self) -> str:
        return f"gold: {self.prompt}"


class Comparison(models.Model):
    """One prompt with its K responses, to be judged by `needed` people.

    `taken` counts judgments plus live leases; it changes only together with an Assignment, in one
    transaction, under this row's lock, so that overlap holds whoever asks at the same moment.
    """

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="comparisons")
    prompt = models.ForeignKey(Prompt, on_delete=models.PROTECT, related_name="comparisons")
    needed = models.PositiveSmallIntegerField(default=1)
    taken = models.PositiveSmallIntegerField(default=0)
    judged = models.PositiveSmallIntegerField(default=0)
    is_free = models.BooleanField(
        default=True, help_text="taken < needed, kept as a column so that an index answers `next`."
    )
    skill = models.CharField(
        max_length=40, blank=True, help_text="The prompt's; here so that an index answers `next`."
    )
    priority = models.FloatField(default=0.0, help_text="A person's word: higher goes first.")
    score = models.FloatField(
        default=0.0,
        help_text="An engine's number, 0 or more: how much a judgment here would teach. Decides "
        "among equal priorities.",
    )
    shuffle = models.FloatField(
        default=0.0,
        help_text="A random number, drawn once: the order among equals, and of random draws.",
    )
    is_live = models.BooleanField(
        default=False,
        help_text="From a live dialogue, where several people may say the same words.",
    )
    # Its responses, where `assignment` has fetched them already.
    shown: "list[Response] | None" = None
    gold = models.ForeignKey(
        GoldItem,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="comparisons",
        help_text="Its answer is known. Counted nowhere: it needs nobody and is never data.",
    )
    is_ruled = models.BooleanField(
        default=False, help_text="A reviewer decided: the ruling counts and the votes are kept."
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["batch", "prompt"],
                condition=Q(is_live=False),
                name="one_comparison_per_prompt",
            )
        ]
        indexes = [
            models.Index(
                fields=["batch", "skill", "-priority", "-score", "shuffle", "id"],
                condition=Q(is_free=True),
                name="comparison_next",
            ),
            models.Index(
                fields=["batch", "skill", "shuffle", "id"],
                condition=Q(is_free=True),
                name="comparison_random",
            ),
            models.Index(
                fields=["batch", "shuffle"],
                condition=Q(gold__isnull=False),
                name="comparison_gold",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.batch}: {self.prompt}"


class Response(models.Model):
    """One answer to a comparison's prompt; `source` says who wrote it and is never shown to annotators."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="responses")
    text = models.TextField(blank=True)
    source = models.CharField(max_length=200, blank=True)
    sampling = models.JSONField(default=dict, blank=True)
    logprob = models.FloatField(null=True, blank=True)
    n_tokens = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.text[:80]


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def open_for(self, user: Any) -> "AssignmentQuerySet":
        """What this person has been handed and has not answered, newest first."""
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
        # Whose row went would take a place of its comparison along, that nobody could give back.
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
    def is_overdue(self) -> bool:
        return self.state == self.State.LEASED and self.lease_until < timezone.now()


class JudgmentQuerySet(models.QuerySet["Judgment"]):
    def current(self) -> "JudgmentQuerySet":
        """The revision that counts of each judgment, without those taken back or excluded."""
        return self.filter(current_for__isnull=False, excluded_at__isnull=True)

    def of_project(self, project: Project) -> "JudgmentQuerySet":
        return self.filter(assignment__comparison__batch__project=project)

    def votes(self) -> "JudgmentQuerySet":
        """What annotators said as such: no gold, no reviewer's ruling."""
        return self.filter(assignment__comparison__gold__isnull=True, assignment__is_ruling=False)


class Judgment(models.Model):
    """What one person said about one comparison. Append-only: a correction is a new revision.

    `ranks` is `{axis: {response id: rank}}`; 1 is best, equal numbers are ties, a response that is
    missing was not ranked, which with `rest_below` says that it is below all that are. JSON keys are
    strings. `flags` is `{response id: [{"kind", "category"}]}`.

    What else a protocol may ask: `strength` is `{axis: {"level", "of", "label", "margin"}}`, level 0
    being a tie; `all_bad` lists the axes on which not one response is good enough; `ratings` is
    `{response id: {attribute: number}}`; `safety` is `{response id: {"safe", "harms"}}`. `conflicts`
    says where votes speak against each other (annotation/votes.py); somebody must then review it.
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
        "asked": gettext_noop("Somebody asked for it"),
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

    class Meta:
        ordering = ["-weight", "id"]
        indexes = [models.Index(fields=["project", "state", "-weight", "id"])]

    def __str__(self) -> str:
        return f"review of {self.comparison_id}"


class Snapshot(models.Model):
    """A frozen preference dataset: the files never change and can always be downloaded again."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="snapshots")
    version = models.PositiveIntegerField()
    note = models.CharField(max_length=200, blank=True)
    query = models.JSONField(
        default=dict, help_text="What was asked for: batches, splits, options."
    )
    counts = models.JSONField(default=dict)
    files = models.JSONField(default=list, help_text="[{name, bytes, rows, sha256}]")
    sha256 = models.CharField(max_length=64, help_text="Of the list of files with their hashes.")
    agreement = models.JSONField(default=dict)
    licences = models.JSONField(default=list)
    card = models.TextField(blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["project", "version"], name="one_snapshot_per_version")
        ]

    def __str__(self) -> str:
        return f"{self.project.slug} v{self.version}"


class Freezing(models.Model):
    """A snapshot too large to wait for, while a thread of the web server writes it."""

    class State(models.TextChoices):
        WRITING = "writing"
        DONE = "done"
        FAILED = "failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="freezings")
    state = models.CharField(max_length=8, choices=State.choices, default=State.WRITING)
    done = models.PositiveIntegerField(default=0, help_text="Judgments written so far.")
    total = models.PositiveIntegerField()
    reason = models.CharField(max_length=300, blank=True, help_text="Why it failed.")
    beat_at = models.DateTimeField(default=timezone.now)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project"], condition=Q(state="writing"), name="one_freezing_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.project.slug}: {self.done} of {self.total} judgments"

    @property
    def is_writing(self) -> bool:
        return self.state == self.State.WRITING


class Event(models.Model):
    """Who did what, when. Written beside the act, in its transaction; never edited."""

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
        """Write one line of the audit log; `actor` is None where the system acted by itself."""
        return Event.objects.create(
            project=project, actor=actor, verb=verb, target=str(target)[:200], data=data
        )


class DialogueCampaign(models.Model):
    """What people talk to a policy for: a batch whose comparisons come into being as they talk.

    `writing` says who answers and how ({"policies", "temperatures", "max_new_tokens"}); whoever
    provides candidates (annotation/candidates.py) reads it, annotators never see it.
    """

    class Kind(models.TextChoices):
        HELPFUL = "helpful", "helpful: the better answer goes on"
        REDTEAM = "redteam", "red team: the more harmful answer goes on"

    batch = models.OneToOneField(Batch, on_delete=models.CASCADE, related_name="dialogue_campaign")
    kind = models.CharField(max_length=8, choices=Kind.choices, default=Kind.HELPFUL)
    source = models.ForeignKey(Source, on_delete=models.PROTECT, related_name="dialogue_campaigns")
    task = models.TextField(blank=True, help_text="Markdown: what to talk about, and how.")
    max_turns = models.PositiveSmallIntegerField(
        default=6, validators=[MinValueValidator(1), MaxValueValidator(30)]
    )
    writing = models.JSONField(default=dict)

    def __str__(self) -> str:
        return str(self.batch)

    @property
    def is_redteam(self) -> bool:
        return self.kind == self.Kind.REDTEAM


class Dialogue(models.Model):
    """One person's conversation with a policy that answers twice each time."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    campaign = models.ForeignKey(
        DialogueCampaign, on_delete=models.CASCADE, related_name="dialogues"
    )
    annotator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="dialogues"
    )
    draft = models.TextField(blank=True, help_text="The message that is being written.")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["annotator", "ended_at"])]

    def __str__(self) -> str:
        return f"{self.annotator} in {self.campaign}"


class Turn(models.Model):
    """One message of a dialogue and its two answers; once one is chosen, a judged comparison.

    `writers` and `candidates` are in the order in which they are shown, A then B, drawn at random
    when the message came; `candidates` is [{"text", "source", "sampling", "n_tokens"}]. While the
    answers are written, `partial` holds their texts so far, and `claim` names the thread at it.
    """

    class State(models.TextChoices):
        WRITING = "writing"
        READY = "ready"
        FAILED = "failed"
        CHOSEN = "chosen"
        WITHDRAWN = "withdrawn"

    dialogue = models.ForeignKey(Dialogue, on_delete=models.CASCADE, related_name="turns")
    number = models.PositiveSmallIntegerField()
    key = models.UUIDField(unique=True, help_text="The client's idempotency key.")
    text = models.TextField()
    state = models.CharField(max_length=9, choices=State.choices, default=State.WRITING)
    writers = models.JSONField(default=list)
    partial = models.JSONField(default=list)
    candidates = models.JSONField(default=list)
    claim = models.UUIDField(default=uuid.uuid4)
    beat_at = models.DateTimeField(default=timezone.now)
    reason = models.CharField(max_length=300, blank=True)
    is_full = models.BooleanField(
        default=False, help_text="The policy can read no further turn after this one."
    )
    comparison = models.OneToOneField(
        Comparison, null=True, blank=True, on_delete=models.PROTECT, related_name="turn"
    )
    went_on = models.CharField(
        max_length=1, blank=True, help_text="A or B: what the dialogue kept."
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["number", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["dialogue", "number"],
                condition=~Q(state="withdrawn"),
                name="one_turn_per_number",
            )
        ]

    def __str__(self) -> str:
        return self.text[:80]


class ApiToken(AbstractAuthToken):  # type: ignore[misc]
    """A key to the REST API: only its hash is kept, so it can be shown once and never again."""

    name = models.CharField(max_length=80)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"{self.name} ({self.token_key}…)"

    @property
    def is_expired(self) -> bool:
        return self.expiry is not None and self.expiry < timezone.now()
