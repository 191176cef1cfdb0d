"""What the filters found, how each is set in a project, and what people said about their findings."""

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.comparisons import Response
from annotation.models.content import Prompt
from annotation.models.projects import Project

PROMPT_OR_RESPONSE = Q(prompt__isnull=False, response__isnull=True) | Q(
    prompt__isnull=True, response__isnull=False
)


class FilterSetting(models.Model):
    """One filter in one project: its threshold, what follows from a flag, and how far it has read."""

    class Action(models.TextChoices):
        FLAG = "flag", "flag only"
        EXCLUDE = "exclude", "exclude from training and exports"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="filters")
    filter = models.CharField(max_length=24, help_text="A key of the table of filters.")
    threshold = models.FloatField()
    action = models.CharField(max_length=8, choices=Action.choices, default=Action.FLAG)
    languages = models.JSONField(default=list, blank=True, help_text="Expected ISO 639 codes.")
    version = models.PositiveIntegerField(
        default=0, help_text="Of the filter that the stored findings are from; 0: never run."
    )
    last_prompt = models.PositiveBigIntegerField(default=0, help_text="Read up to this id.")
    last_response = models.PositiveBigIntegerField(default=0, help_text="Read up to this id.")
    n_prompts = models.PositiveIntegerField(default=0, help_text="Prompts read.")
    n_responses = models.PositiveIntegerField(default=0, help_text="Responses read.")
    ran_at = models.DateTimeField(null=True, blank=True)
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    changed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["project", "filter"]
        constraints = [
            models.UniqueConstraint(fields=["project", "filter"], name="one_setting_per_filter")
        ]

    def __str__(self) -> str:
        return f"{self.filter} from {self.threshold:g}"

    @property
    def excludes(self) -> bool:
        return self.action == self.Action.EXCLUDE


class Flag(models.Model):
    """A filter's strongest finding in one prompt or response. The text itself stays as it is."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="flags")
    filter = models.CharField(max_length=24)
    prompt = models.ForeignKey(Prompt, null=True, on_delete=models.CASCADE, related_name="flags")
    response = models.ForeignKey(
        Response, null=True, on_delete=models.CASCADE, related_name="flags"
    )
    score = models.FloatField()
    reason = models.CharField(max_length=160)
    start = models.PositiveIntegerField(default=0)
    end = models.PositiveIntegerField(default=0)
    n_findings = models.PositiveIntegerField(default=1)

    class Meta:
        ordering = ["-score", "id"]
        indexes = [
            models.Index(fields=["project", "filter", "-score", "id"]),
        ]
        constraints = [
            models.CheckConstraint(condition=PROMPT_OR_RESPONSE, name="flag_of_prompt_or_response"),
            models.UniqueConstraint(fields=["filter", "prompt"], name="one_flag_per_prompt"),
            models.UniqueConstraint(fields=["filter", "response"], name="one_flag_per_response"),
        ]

    def __str__(self) -> str:
        return f"{self.filter} {self.score:g}"


class FilterLabel(models.Model):
    """What a person said about one text: whether the filter should flag it. For calibration."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="filter_labels")
    filter = models.CharField(max_length=24)
    prompt = models.ForeignKey(Prompt, null=True, on_delete=models.CASCADE, related_name="+")
    response = models.ForeignKey(Response, null=True, on_delete=models.CASCADE, related_name="+")
    should_flag = models.BooleanField()
    labeled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    labeled_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-labeled_at"]
        constraints = [
            models.CheckConstraint(
                condition=PROMPT_OR_RESPONSE, name="label_of_prompt_or_response"
            ),
            models.UniqueConstraint(fields=["filter", "prompt"], name="one_label_per_prompt"),
            models.UniqueConstraint(fields=["filter", "response"], name="one_label_per_response"),
        ]

    def __str__(self) -> str:
        return f"{self.filter}: {'right' if self.should_flag else 'wrong'}"

    @property
    def target(self) -> dict[str, Any]:
        return {"prompt": self.prompt_id, "response": self.response_id}
