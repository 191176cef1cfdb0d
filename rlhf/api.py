"""The versioned REST API of rounds, scores and jobs.

Researchers read; admins also launch, cancel and retry, through the same acts as the pages.
"""

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_READ_DATA, CAN_RUN, project_for
from annotation.api.serializers import RefusalSerializer
from annotation.request import who_asks
from rlhf import rounds, run_reports
from rlhf.errors import RoundError
from rlhf.models import Job, Round, Score
from rlhf.round_config import default_config, with_changes
from rlhf.workers import tasks


class RoundSerializer(serializers.Serializer[Any]):
    number = serializers.IntegerField()
    state = serializers.CharField()
    plan = serializers.ListField(child=serializers.CharField())
    config = serializers.DictField(help_text="Frozen at launch: {section: {setting: value}}.")
    start_policy = serializers.CharField(source="start_policy.name", default=None, allow_null=True)
    policy = serializers.CharField(source="policy.name", default=None, allow_null=True)
    snapshot = serializers.IntegerField(source="snapshot.version", default=None, allow_null=True)
    verdict = serializers.CharField()
    verdict_note = serializers.CharField()
    verdict_by = serializers.CharField(
        source="verdict_by.username", default=None, allow_null=True, help_text="Who decided."
    )
    verdict_evidence = serializers.DictField(
        help_text="What the gate proposed when the verdict was given, with every figure that it "
        "read: {verdict, judge, temperature, findings: [{metric, sentence, speaks_against, value, "
        "low, high, n, before}]}; {} before the verdict."
    )
    holds = serializers.ListField(
        child=serializers.DictField(),
        help_text="When the round waited for a person because its reward models were in doubt: "
        "{stage, doubts, at, decision, by, decided_at, note}. `decision` is empty while it waits.",
    )
    failed_stage = serializers.CharField()
    stage_times = serializers.DictField(help_text="{stage: [started, ended]}; ended may be null.")
    created_at = serializers.DateTimeField()
    launched_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)


class ScoreSerializer(serializers.Serializer[Any]):
    round = serializers.IntegerField(source="round.number")
    policy = serializers.CharField(source="checkpoint.name", help_text="The evaluated policy.")
    judge = serializers.CharField(help_text="model, gold (simulated rubric) or human")
    metric = serializers.CharField()
    temperature = serializers.FloatField()
    category = serializers.CharField(help_text="Empty: all categories together.")
    value = serializers.FloatField()
    low = serializers.FloatField(
        allow_null=True, help_text="Lower end of the 95 % interval; null where there is none."
    )
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(help_text="Prompts from which the value is computed.")


class JobSerializer(serializers.Serializer[Any]):
    uid = serializers.UUIDField()
    round = serializers.IntegerField(source="round.number")
    stage = serializers.CharField()
    state = serializers.CharField()
    attempt = serializers.IntegerField(help_text="Attempts that failed or were lost.")
    epoch = serializers.IntegerField(help_text="How often a worker has claimed it.")
    progress = serializers.SerializerMethodField()
    reason = serializers.CharField()
    exit_code = serializers.IntegerField(allow_null=True)
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    ended_at = serializers.DateTimeField(allow_null=True)

    def get_progress(self, job: Job) -> dict[str, Any]:
        return job.progress or {}


class MetricsSerializer(serializers.Serializer[Any]):
    epoch = serializers.IntegerField()
    reset = serializers.BooleanField(help_text="Drop earlier rows: the stage has restarted.")
    running = serializers.BooleanField()
    last = serializers.IntegerField(help_text="Ask with after=last for the rows that follow.")
    rows = serializers.ListField(child=serializers.DictField())


class LaunchSerializer(serializers.Serializer[Any]):
    config = serializers.DictField(
        required=False,
        help_text="Changes to the default: {section: {setting: value}}. A setting in a group is "
        "{group: {setting: value}} or 'group.setting'.",
    )
    acknowledged = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        default=list,
        help_text="Keys of acknowledged warnings.",
    )


class ContinueSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=2000, help_text="Why the round may go on.")


class RetrainSerializer(serializers.Serializer[Any]):
    settings = serializers.DictField(
        help_text="Changed settings of the reward models: " + ", ".join(rounds.RETRAINED) + "."
    )
    note = serializers.CharField(max_length=2000, required=False, default="", allow_blank=True)


class RoundList(ListAPIView[Round]):
    """The project's rounds, newest first."""

    serializer_class = RoundSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return Round.objects.none()
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        return Round.objects.filter(project=project).select_related(
            "start_policy", "policy", "snapshot", "verdict_by"
        )

    @extend_schema(
        request=LaunchSerializer,
        responses={201: RoundSerializer, 409: RefusalSerializer},
        description="Launch a round (admins). 409 names the check that prevents it.",
    )
    def post(self, request: Request, slug: str) -> Response:
        project = project_for(request.user, slug, CAN_RUN)
        body = LaunchSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        try:
            changes = body.validated_data.get("config") or {}
            config = with_changes(default_config(project), changes)
            job = rounds.open_round(
                project,
                by=who_asks(request),
                config=config,
                acknowledged=body.validated_data["acknowledged"],
            )
        except RoundError as error:
            return _refusal(error)
        tasks.wake(job)
        opened = Round.objects.filter(project=project).order_by("-number").first()
        return Response(RoundSerializer(opened).data, status=status.HTTP_201_CREATED)


def _refusal(error: RoundError) -> Response:
    return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)


@extend_schema(request=None, responses=RoundSerializer)
@api_view(["POST"])
def round_cancel(request: Request, slug: str, number: int) -> Response:
    """End a running round (admins). A round that has ended stays as it is."""
    round = _round(request, slug, number, CAN_RUN)
    rounds.cancel_round(round, who_asks(request))
    round.refresh_from_db()
    return Response(RoundSerializer(round).data)


@extend_schema(request=None, responses={200: RoundSerializer, 409: RefusalSerializer})
@api_view(["POST"])
def round_retry(request: Request, slug: str, number: int) -> Response:
    """Continue a failed or cancelled round from where it stopped (admins)."""
    round = _round(request, slug, number, CAN_RUN)
    try:
        tasks.wake(rounds.retry_stage(round, who_asks(request)))
    except RoundError as error:
        return _refusal(error)
    round.refresh_from_db()
    return Response(RoundSerializer(round).data)


@extend_schema(request=ContinueSerializer, responses={200: RoundSerializer, 409: RefusalSerializer})
@api_view(["POST"])
def round_continue(request: Request, slug: str, number: int) -> Response:
    """Let a round that waits because of its reward models go on to PPO (admins). One that does not
    wait stays as it is."""
    round = _round(request, slug, number, CAN_RUN)
    body = ContinueSerializer(data=request.data)
    body.is_valid(raise_exception=True)
    try:
        tasks.wake(rounds.continue_in_doubt(round, body.validated_data["note"], who_asks(request)))
    except RoundError as error:
        return _refusal(error)
    round.refresh_from_db()
    return Response(RoundSerializer(round).data)


@extend_schema(request=RetrainSerializer, responses={200: RoundSerializer, 409: RefusalSerializer})
@api_view(["POST"])
def round_retrain(request: Request, slug: str, number: int) -> Response:
    """Train the reward models of a round that waits again with other settings (admins)."""
    round = _round(request, slug, number, CAN_RUN)
    body = RetrainSerializer(data=request.data)
    body.is_valid(raise_exception=True)
    given = body.validated_data
    try:
        tasks.wake(rounds.retrain(round, given["settings"], given["note"], who_asks(request)))
    except RoundError as error:
        return _refusal(error)
    round.refresh_from_db()
    return Response(RoundSerializer(round).data)


@extend_schema(request=None, responses=JobSerializer)
@api_view(["POST"])
def job_cancel(request: Request, slug: str, uid: str) -> Response:
    """Stop one job (admins); its round can be retried from there."""
    job = _job(request, slug, uid, CAN_RUN)
    rounds.cancel_job(job, who_asks(request))
    job.refresh_from_db()
    return Response(JobSerializer(job).data)


@extend_schema(responses=RoundSerializer)
@api_view(["GET"])
def round_detail(request: Request, slug: str, number: int) -> Response:
    """One round; 0 is the base policy's."""
    return Response(RoundSerializer(_round(request, slug, number)).data)


@extend_schema(
    parameters=[
        OpenApiParameter("round", int),
        OpenApiParameter("judge", str, enum=["model", "gold", "human"]),
        OpenApiParameter("metric", str),
        OpenApiParameter("temperature", float),
    ]
)
class ScoreList(ListAPIView[Score]):
    """Every score of the project, each with its interval and n."""

    serializer_class = ScoreSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return Score.objects.none()
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        scores = Score.objects.filter(round__project=project).select_related("round", "checkpoint")
        query = self.request.query_params
        for name, column, kind in (
            ("round", "round__number", int),
            ("judge", "judge", str),
            ("metric", "metric", str),
            ("temperature", "temperature", float),
        ):
            if name in query:
                try:
                    scores = scores.filter(**{column: kind(query[name])})
                except ValueError:
                    raise serializers.ValidationError({name: "This is not a number."}) from None
        return scores.order_by("round__number", "id")


class JobList(ListAPIView[Job]):
    """The project's jobs, newest first: one row per attempt of a stage."""

    serializer_class = JobSerializer

    def get_queryset(self) -> Any:
        if getattr(self, "swagger_fake_view", False):
            return Job.objects.none()
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        return Job.objects.filter(project=project).select_related("round")


@extend_schema(responses=JobSerializer)
@api_view(["GET"])
def job_detail(request: Request, slug: str, uid: str) -> Response:
    """One job."""
    return Response(JobSerializer(_job(request, slug, uid)).data)


@extend_schema(
    responses=MetricsSerializer,
    parameters=[OpenApiParameter("epoch", int), OpenApiParameter("after", int)],
)
@api_view(["GET"])
def job_metrics(request: Request, slug: str, uid: str) -> Response:
    """The stage's metrics by step; with `epoch` and `after` only the new rows."""
    job = _job(request, slug, uid)
    position: dict[str, int] = {}
    for name in ("epoch", "after"):
        try:
            position[name] = int(request.query_params.get(name, "-1"))
        except ValueError:
            raise serializers.ValidationError({name: "This is not a whole number."}) from None
    return Response(
        run_reports.metrics_since(job, epoch=position["epoch"], after=position["after"])
    )


def _round(
    request: Request, slug: str, number: int, roles: tuple[str, ...] = CAN_READ_DATA
) -> Round:
    project = project_for(request.user, slug, roles)
    return get_object_or_404(
        Round.objects.select_related(
            "project", "start_policy", "policy", "snapshot", "batch", "verdict_by"
        ),
        project=project,
        number=number,
    )


def _job(request: Request, slug: str, uid: str, roles: tuple[str, ...] = CAN_READ_DATA) -> Job:
    project = project_for(request.user, slug, roles)
    return get_object_or_404(
        Job.objects.select_related("round", "project"), project=project, uid=uid
    )
