"""Frozen datasets, and those being written."""

import uuid
from pathlib import Path

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.projects import Project


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
    deprecation_note = models.CharField(
        max_length=300, blank=True, help_text="Why it should not be used any more; empty: it may."
    )
    deprecated_at = models.DateTimeField(null=True, blank=True)
    deprecated_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
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

    @property
    def folder(self) -> Path:
        """The folder of its files."""
        return Path(settings.SNAPSHOTS_DIR) / str(self.uid)

    @property
    def is_deprecated(self) -> bool:
        return self.deprecated_at is not None


class Withdrawal(models.Model):
    """A person who takes their judgments back: nothing of theirs is in any later version."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="withdrawals")
    person = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="withdrawals"
    )
    note = models.CharField(max_length=200, blank=True)
    n_judgments = models.PositiveIntegerField(default=0)
    versions = models.JSONField(
        default=dict, help_text="Version -> judgments of this person that it holds."
    )
    new_version = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "person"], name="one_withdrawal_per_person")
        ]

    def __str__(self) -> str:
        return f"{self.project.slug}: {self.n_judgments} judgments withdrawn"


class Freezing(models.Model):
    """The progress of a large snapshot that a thread of the web server writes."""

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
