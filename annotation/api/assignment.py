"""Assignment over the REST API: limits, members, batches, and scores from any engine."""

from typing import Any

from django.http import QueryDict
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_RUN, project_for
from annotation.judge.selection import score_comparisons
from annotation.models import Batch, Membership
from annotation.projects.assignment_settings import (
    AssignmentForm,
    BatchAssignmentForm,
    MemberAssignmentForm,
    ProjectAssignmentForm,
    save_assignment,
)

MAX_SCORES = 10_000


class AssignmentRulesSerializer(serializers.Serializer[Any]):
    daily_limit = serializers.IntegerField(allow_null=True, required=False, help_text="Per person.")
    total_limit = serializers.IntegerField(allow_null=True, required=False, help_text="Per person.")
    random_share = serializers.FloatField(
        required=False, help_text="0 to 1: drawn at random whatever its priority or score."
    )


class AssignmentPersonSerializer(serializers.Serializer[Any]):
    skills = serializers.ListField(child=serializers.CharField(), required=False)
    campaign = serializers.CharField(allow_blank=True, required=False)
    daily_limit = serializers.IntegerField(allow_null=True, required=False)
    total_limit = serializers.IntegerField(allow_null=True, required=False)


class AssignmentBatchSerializer(serializers.Serializer[Any]):
    priority = serializers.IntegerField(required=False)
    campaign = serializers.CharField(allow_blank=True, required=False)
    skill = serializers.CharField(allow_blank=True, required=False)


class LearningScoreSerializer(serializers.Serializer[Any]):
    prompt = serializers.UUIDField()
    score = serializers.FloatField(min_value=0, max_value=1e12)


class LearningScoresSerializer(serializers.Serializer[Any]):
    scores = serializers.ListField(child=LearningScoreSerializer(), max_length=MAX_SCORES)
    recency = serializers.FloatField(
        min_value=0, max_value=1, default=1.0, help_text="1 for the newest policy, less for older."
    )


class FormRefusalSerializer(serializers.Serializer[Any]):
    detail = serializers.DictField(
        child=serializers.ListField(child=serializers.CharField()),
        help_text="Errors by field; `__all__` has those that concern several fields.",
    )


class ScoredSerializer(serializers.Serializer[Any]):
    scored = serializers.IntegerField()
    unknown = serializers.IntegerField(help_text="Prompts that the batch does not compare.")


@extend_schema(
    methods=["PUT"],
    operation_id="assignment_update",
    request=AssignmentRulesSerializer,
    responses={200: AssignmentRulesSerializer, 422: FormRefusalSerializer},
)
@extend_schema(
    methods=["GET"], operation_id="assignment_retrieve", responses=AssignmentRulesSerializer
)
@api_view(["GET", "PUT"])
def assignment_rules(request: Request, slug: str) -> Response:
    """A project's limits and its share of random draws."""
    project = project_for(request.user, slug, CAN_RUN)
    return _answer(request, ProjectAssignmentForm, project, AssignmentRulesSerializer)


@extend_schema(
    methods=["PUT"],
    operation_id="assignment_person_update",
    request=AssignmentPersonSerializer,
    responses={200: AssignmentPersonSerializer, 422: FormRefusalSerializer},
)
@extend_schema(
    methods=["GET"], operation_id="assignment_person_retrieve", responses=AssignmentPersonSerializer
)
@api_view(["GET", "PUT"])
def assignment_person(request: Request, slug: str, username: str) -> Response:
    """Skills and limits of one member; a null limit is the project's."""
    project = project_for(request.user, slug, CAN_RUN)
    member = get_object_or_404(Membership, project=project, user__username=username)
    return _answer(request, MemberAssignmentForm, member, AssignmentPersonSerializer)


@extend_schema(
    methods=["PUT"],
    operation_id="assignment_batch_update",
    request=AssignmentBatchSerializer,
    responses={200: AssignmentBatchSerializer, 422: FormRefusalSerializer},
)
@extend_schema(
    methods=["GET"], operation_id="assignment_batch_retrieve", responses=AssignmentBatchSerializer
)
@api_view(["GET", "PUT"])
def assignment_batch(request: Request, slug: str, pk: int) -> Response:
    """Priority, campaign and required skill of a batch."""
    project = project_for(request.user, slug, CAN_RUN)
    batch = get_object_or_404(Batch, project=project, pk=pk)
    return _answer(request, BatchAssignmentForm, batch, AssignmentBatchSerializer)


@extend_schema(
    operation_id="assignment_scores", request=LearningScoresSerializer, responses=ScoredSerializer
)
@api_view(["PUT"])
def assignment_scores(request: Request, slug: str, pk: int) -> Response:
    """Score a batch's comparisons, for example by the disagreement of reward models.

    At equal priority a higher score is handed out first; random draws are not affected.
    """
    project = project_for(request.user, slug, CAN_RUN)
    batch = get_object_or_404(Batch, project=project, pk=pk)
    serializer = LearningScoresSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    scores = {row["prompt"]: row["score"] for row in serializer.validated_data["scores"]}
    known = dict(batch.comparisons.filter(prompt__uid__in=scores).values_list("prompt__uid", "pk"))
    scored = score_comparisons(
        batch,
        {pk: scores[uid] for uid, pk in known.items()},
        recency=serializer.validated_data["recency"],
    )
    return Response({"scored": scored, "unknown": len(scores) - scored})


def _answer(
    request: Request, form_class: type[AssignmentForm], instance: Any, serializer: Any
) -> Response:
    """The current fields; PUT changes the fields that were sent."""
    if request.method == "PUT":
        body = serializer(data=request.data)
        body.is_valid(raise_exception=True)
        data = QueryDict(mutable=True)
        for name in form_class.base_fields:
            value = body.validated_data.get(name, getattr(instance, name))
            if isinstance(value, list):
                value = ", ".join(value)
            data[name] = "" if value is None else str(value)
        form = form_class(data, instance=instance)
        if not form.is_valid():
            return Response({"detail": form.errors}, status=422)
        save_assignment(form, request.user)  # type: ignore[arg-type]  # a member, so not anonymous
    return Response(serializer(instance).data)
