"""Tags on prompts, responses, comparisons and judgments, and saved views of the data manager."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from annotation.models.bulk_acts import BulkAct
from annotation.models.comparisons import Comparison, Response
from annotation.models.content import Prompt
from annotation.models.judging import Judgment
from annotation.models.projects import Project

_TARGETS = ("prompt", "response", "comparison", "judgment")


def _exactly_one() -> Q:
    condition = Q()
    for target in _TARGETS:
        condition |= Q(**{f"{other}__isnull": other != target for other in _TARGETS})
    return condition


class Tag(models.Model):
    """A word that people put on rows; with `keeps_out`, training and exports leave these rows out."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="tags")
    name = models.CharField(max_length=40)
    keeps_out = models.BooleanField(
        default=False, help_text="Training, new batches and exports leave rows with this tag out."
    )
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="one_tag_per_name")]

    def __str__(self) -> str:
        return self.name


class Tagging(models.Model):
    """A tag on one row."""

    tag = models.ForeignKey(Tag, on_delete=models.CASCADE, related_name="taggings")
    prompt = models.ForeignKey(Prompt, null=True, on_delete=models.CASCADE, related_name="taggings")
    response = models.ForeignKey(
        Response, null=True, on_delete=models.CASCADE, related_name="taggings"
    )
    comparison = models.ForeignKey(
        Comparison, null=True, on_delete=models.CASCADE, related_name="taggings"
    )
    judgment = models.ForeignKey(
        Judgment, null=True, on_delete=models.CASCADE, related_name="taggings"
    )
    act = models.ForeignKey(BulkAct, null=True, on_delete=models.SET_NULL, related_name="taggings")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=_exactly_one(), name="tagging_of_one_row"),
            *(
                models.UniqueConstraint(fields=["tag", target], name=f"one_tag_per_{target}")
                for target in _TARGETS
            ),
        ]

    def __str__(self) -> str:
        return f"{self.tag}"


class SavedView(models.Model):
    """Filters, columns and order of one table of the data manager, under a name."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="saved_views")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="saved_views"
    )
    table = models.CharField(max_length=12, choices=BulkAct.Table.choices)
    name = models.CharField(max_length=60)
    query = models.TextField(blank=True, help_text="The query string of the page.")
    is_shared = models.BooleanField(default=False, help_text="Seen by all who read the data.")
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["name", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user", "table", "name"], name="one_view_per_name"
            )
        ]

    def __str__(self) -> str:
        return self.name
