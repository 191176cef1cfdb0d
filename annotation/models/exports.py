"""Forms made of frozen versions, and where versions were sent."""

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotation.models.datasets import Snapshot


class Work(models.Model):
    """What a thread of the web server works on: how far it is, and its sign of life."""

    class State(models.TextChoices):
        WRITING = "writing"
        DONE = "done"
        FAILED = "failed"

    state = models.CharField(max_length=8, choices=State.choices, default=State.WRITING)
    done = models.PositiveBigIntegerField(default=0)
    total = models.PositiveBigIntegerField(default=0)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it failed.")
    beat_at = models.DateTimeField(default=timezone.now)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        abstract = True

    @property
    def is_writing(self) -> bool:
        return self.state == self.State.WRITING


class Export(Work):
    """A form of a version, made on demand. Its files can be deleted: they are made again.

    `done` and `total` are rows.
    """

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="exports")
    form = models.CharField(max_length=24, help_text="A key of the table of forms.")
    axis = models.CharField(max_length=60, blank=True)
    revision = models.PositiveIntegerField(help_text="Of the form, when the files were made.")
    folder = models.UUIDField(default=uuid.uuid4, help_text="Name of the folder of its files.")
    files = models.JSONField(default=list, help_text="[{name, rows, bytes, sha256}]")
    download = models.JSONField(
        default=dict, help_text="{name, bytes, sha256} of what is downloaded: the file, or a zip."
    )
    left_out = models.JSONField(default=dict, help_text="Rows left out, by reason.")

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["snapshot", "form", "axis"], name="one_export_of_a_form_and_axis"
            )
        ]

    def __str__(self) -> str:
        return f"{self.snapshot} as {self.form}"


class Push(Work):
    """A version, or a form of one, sent to a hub repository or to S3. `done` and `total` are bytes."""

    snapshot = models.ForeignKey(Snapshot, on_delete=models.CASCADE, related_name="pushes")
    form = models.CharField(max_length=24, blank=True, help_text='"" for the version as frozen.')
    axis = models.CharField(max_length=60, blank=True)
    target = models.CharField(max_length=300)
    is_private = models.BooleanField(default=True)
    url = models.CharField(max_length=500, blank=True, help_text="Where it can be seen.")

    class Meta:
        ordering = ["-created_at", "-id"]

    def __str__(self) -> str:
        return f"{self.snapshot} to {self.target}"
