"""The query parameter `batch` of exports, and batches by id."""

import re

from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.request import Request

from annotation.models import Batch, Project

BATCH = OpenApiParameter("batch", int, many=True, description="Only these batches; repeatable.")


def requested_batches(request: Request, project: Project) -> list[Batch] | None:
    values = request.query_params.getlist("batch")
    if not values:
        return None
    if not all(re.fullmatch("[0-9]{1,15}", value) for value in values):
        raise serializers.ValidationError({"batch": "A batch is named by its number."})
    return batches_by_id(project, [int(value) for value in values])


def batches_by_id(project: Project, ids: list[int]) -> list[Batch]:
    batches = list(project.batches.filter(pk__in=ids))
    if missing := set(ids) - {batch.pk for batch in batches}:
        raise serializers.ValidationError({"batches": f"There is no batch {min(missing)}."})
    return batches
