"""The operator's view of rounds and jobs: for looking. Acts go through the pages, which log them."""

from django.contrib import admin

from annotation.admin import ReadOnly
from rlhf.models import Checkpoint, Job, Round, Score, Worker


@admin.register(Round)
class RoundAdmin(ReadOnly):
    list_display = ["project", "number", "state", "verdict", "launched_at", "ended_at"]
    list_filter = ["state", "project"]


@admin.register(Job)
class JobAdmin(ReadOnly):
    list_display = ["uid", "stage", "round", "state", "epoch", "attempt", "owner", "reason"]
    list_filter = ["state", "stage", "project"]


@admin.register(Checkpoint)
class CheckpointAdmin(ReadOnly):
    list_display = ["name", "project", "kind", "state", "parent", "n_parameters", "created_at"]
    list_filter = ["kind", "state", "project"]


@admin.register(Score)
class ScoreAdmin(ReadOnly):
    list_display = ["round", "checkpoint", "judge", "metric", "temperature", "category", "value"]
    list_filter = ["judge", "metric", "round__project"]


@admin.register(Worker)
class WorkerAdmin(ReadOnly):
    list_display = ["name", "queues", "version", "seen_at", "job"]
