"""Sources and the prompts that came from them."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any, TypedDict

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotation.models.bulk_acts import BulkAct
from annotation.models.projects import Project


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


def content_hash(messages: Sequence[Message]) -> str:
    """SHA-256 of a conversation: the same words are the same prompt, whatever file they came in."""
    canonical = json.dumps(
        [[m["role"], m["content"]] for m in messages], ensure_ascii=False, separators=(",", ":")
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


class SourceQuerySet(models.QuerySet["Source"]):
    def waiting(self) -> "SourceQuerySet":
        """Those of which nothing reaches training until somebody signs them off."""
        return self.filter(signed_off_at=None).exclude(name=Source.GOLD)


class Source(models.Model):
    """Where prompts or comparisons came from, under which license, and who signed it off."""

    GOLD = "Gold items"
    """The source of prompts with known answers: never data, so nobody has to sign it off."""

    class Consent(models.TextChoices):
        UNKNOWN = "", "not known"
        CONSENT = "consent", "informed consent of the people who wrote it"
        CONTRACT = "contract", "a contract with the people who wrote it"
        PUBLISHED = "published", "published by its authors under the license"
        INTEREST = "interest", "legitimate interest, with an assessment on file"
        SYNTHETIC = "synthetic", "written by a program"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="sources")
    name = models.CharField(max_length=120)
    url = models.URLField(blank=True)
    licence = models.CharField(max_length=120, blank=True)
    note = models.TextField(blank=True)
    contact = models.CharField(max_length=200, blank=True)
    consent = models.CharField(max_length=12, choices=Consent.choices, blank=True, default="")
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


class SourceSignature(models.Model):
    """One of the two signatures of a sign-off, with the document that it rests on."""

    class Step(models.TextChoices):
        DATA = "data", "data steward"
        LEGAL = "legal", "legal counsel"

    source = models.ForeignKey(Source, on_delete=models.CASCADE, related_name="signatures")
    step = models.CharField(max_length=8, choices=Step.choices)
    note = models.CharField(max_length=300, blank=True)
    file_name = models.CharField(max_length=120, blank=True)
    file_sha256 = models.CharField(max_length=64, blank=True)
    file = models.BinaryField(null=True, blank=True)
    signed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    signed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["signed_at", "id"]
        constraints = [
            models.UniqueConstraint(fields=["source", "step"], name="one_signature_per_step")
        ]

    def __str__(self) -> str:
        return f"{self.get_step_display()} of {self.source}"


class PromptQuerySet(models.QuerySet["Prompt"]):
    def trainable(self) -> "PromptQuerySet":
        """Prompts that training may see: the train split of a source that somebody signed off,

        without those that somebody took out by hand.
        """
        return self.in_use().filter(split=Prompt.Split.TRAIN, source__signed_off_at__isnull=False)

    def in_use(self) -> "PromptQuerySet":
        """Prompts that nobody took out by hand, neither themselves nor by a tag."""
        return self.filter(exclusion__isnull=True).exclude(taggings__tag__keeps_out=True)


class Prompt(models.Model):
    """A conversation that ends with the user's turn; it never changes its split."""

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
    cluster = models.PositiveBigIntegerField(
        null=True,
        blank=True,
        help_text="The first prompt that this one is nearly the same as, or itself; null: not compared.",
    )
    exclusion = models.ForeignKey(
        BulkAct,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The act that took it out of training, new batches and exports.",
    )
    created_at = models.DateTimeField(default=timezone.now)

    objects = PromptQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "sha256"], name="one_prompt_per_text")
        ]
        indexes = [
            models.Index(fields=["project", "split", "id"]),
            models.Index(fields=["project", "cluster"]),
            models.Index(fields=["project", "category", "id"], name="prompt_by_category"),
        ]

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
