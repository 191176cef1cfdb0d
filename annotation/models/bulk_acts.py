"""Changes of many rows at once from the data manager, each with what it takes to undo it."""

from django.conf import settings
from django.db import models
from django.utils import timezone

from annotation.models.projects import Project


class BulkAct(models.Model):
    """One change of up to thousands of prompts, responses, comparisons or judgments.

    Rows that it excluded point at it (`exclusion`); `before` has what other changes replaced. The row
    stays when the change is undone.
    """

    class Kind(models.TextChoices):
        EXCLUDE = "exclude", "excluded"
        TAG = "tag", "tagged"
        UNTAG = "untag", "untagged"
        RISK = "risk", "changed the risk of"
        CATEGORY = "category", "changed the category of"
        BATCH = "batch", "put into a batch:"

    class Table(models.TextChoices):
        PROMPTS = "prompts"
        RESPONSES = "responses"
        COMPARISONS = "comparisons"
        JUDGMENTS = "judgments"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="bulk_acts")
    key = models.UUIDField(help_text="Of the form: the same form sent twice acts once.")
    kind = models.CharField(max_length=8, choices=Kind.choices)
    table = models.CharField(max_length=12, choices=Table.choices)
    value = models.CharField(
        max_length=120, blank=True, help_text="The tag, category, risk, batch."
    )
    reason = models.CharField(max_length=200, blank=True)
    n = models.PositiveIntegerField(default=0, help_text="Rows that it changed.")
    before = models.JSONField(default=dict, blank=True)
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField(default=timezone.now)
    undone_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    undone_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [models.UniqueConstraint(fields=["project", "key"], name="one_act_per_key")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.n} {self.table} {self.value}".strip()

    @property
    def can_be_undone(self) -> bool:
        return self.undone_at is None and self.kind != self.Kind.BATCH
