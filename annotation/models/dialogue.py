"""Live dialogues with a policy that answers twice."""

import uuid

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.comparisons import Batch, Comparison
from annotation.models.content import Source


class DialogueCampaign(models.Model):
    """What people talk to a policy for: a batch whose comparisons come into being as they talk.

    `writing` says who answers and how ({"policies", "temperatures", "max_new_tokens"}); the
    provider of candidates (annotation/judge/candidates.py) reads it; annotators never see it.
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
