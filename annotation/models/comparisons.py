"""Batches of comparisons: prompts with the responses that people judge, and gold items."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from annotation import protocols
from annotation.models.bulk_acts import BulkAct
from annotation.models.content import Prompt, Source
from annotation.models.projects import Interface, Project


class Batch(models.Model):
    """The comparisons put in front of people for one round, campaign or import."""

    RESPONSES = "Responses: "
    """Begins the name of a batch of imported responses that nobody judged: other batches take them."""

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
    only_for = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The one person that it is handed to; empty: anybody.",
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
    def has_imported_responses(self) -> bool:
        """Whether it holds responses from a file, to be judged in other batches."""
        return self.is_imported and self.name.startswith(self.RESPONSES)

    @property
    def effective_interface(self) -> str:
        """The interface under which it is judged: its own, or the project's where it has none."""
        return str(self.interface or self.project.interface)

    @property
    def effective_protocol(self) -> protocols.Protocol:
        """The protocol under which it is judged: its own, or the project's where it has none."""
        return protocols.read(self.protocol) if self.interface else self.project.effective_protocol


class Upload(models.Model):
    """A request with the program's own key; a repeat gets the same response without effect."""

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
    """A comparison with a known answer, which shows who reads. Annotators never learn which these are.

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


class ComparisonQuerySet(models.QuerySet["Comparison"]):
    def in_use(self) -> "ComparisonQuerySet":
        """Comparisons that nobody took out by hand, neither themselves nor by a tag."""
        return self.filter(exclusion__isnull=True).exclude(taggings__tag__keeps_out=True)


class Comparison(models.Model):
    """One prompt with its K responses, to be judged by `needed` people.

    `taken` counts judgments plus live leases; it changes only together with an Assignment, in one
    transaction, under this row's lock, so that overlap holds however many people ask at the same moment.
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
    exclusion = models.ForeignKey(
        BulkAct,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The act that took it out of training, new batches and exports.",
    )
    # Its responses, once `ordered_responses` has fetched them.
    fetched_responses: "list[Response] | None" = None
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

    objects = ComparisonQuerySet.as_manager()

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

    def ordered_responses(self) -> "list[Response]":
        """Its responses in the order of their ids, fetched once."""
        if self.fetched_responses is None:
            self.fetched_responses = list(self.responses.order_by("pk"))
        return self.fetched_responses


class ResponseQuerySet(models.QuerySet["Response"]):
    def in_use(self) -> "ResponseQuerySet":
        """Responses that nobody took out by hand, neither themselves nor by a tag."""
        return self.filter(exclusion__isnull=True).exclude(taggings__tag__keeps_out=True)


class Response(models.Model):
    """One answer to a comparison's prompt; `source` says who wrote it and is never shown to annotators."""

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    comparison = models.ForeignKey(Comparison, on_delete=models.CASCADE, related_name="responses")
    text = models.TextField(blank=True)
    source = models.CharField(max_length=200, blank=True)
    sampling = models.JSONField(default=dict, blank=True)
    logprob = models.FloatField(null=True, blank=True)
    n_tokens = models.PositiveIntegerField(null=True, blank=True)
    exclusion = models.ForeignKey(
        BulkAct,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The act that took it out of training, new batches and exports.",
    )

    objects = ResponseQuerySet.as_manager()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.text[:80]

    @property
    def is_cut_off(self) -> bool:
        """Whether it is known to have reached its length limit without an end."""
        return self.sampling.get("finished") is False
