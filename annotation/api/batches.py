"""The REST API for programs that put prompts and responses in front of people."""

from collections.abc import Callable
from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_READ_DATA, CAN_RUN, project_for
from annotation.api.serializers import RefusalSerializer, RowProblemSerializer, SourceSerializer
from annotation.data import uploads
from annotation.models import Batch, User
from annotation.projects.batches import BatchError, batch_progress
from annotation.protocols import PRESETS


class BatchSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    state = serializers.CharField(help_text="draft, open or closed")
    interface = serializers.CharField(source="effective_interface")
    overlap = serializers.IntegerField(help_text="How many people judge each comparison.")
    priority = serializers.IntegerField()
    is_by_hand = serializers.BooleanField(help_text="Not made by a round.")
    created_at = serializers.DateTimeField()


class BatchProgressSerializer(BatchSerializer):
    comparisons = serializers.IntegerField()
    needed = serializers.IntegerField(help_text="Judgments in all.")
    judged = serializers.IntegerField()
    is_complete = serializers.BooleanField()


class NewBatchSerializer(serializers.Serializer[Any]):
    key = serializers.UUIDField(help_text="Yours, one per batch: sending it twice makes one.")
    name = serializers.CharField(
        max_length=120, help_text="Visible to annotators, so leave out model names."
    )
    source = SourceSerializer(help_text="Whose prompts and responses these are.")  # type: ignore[assignment]
    sign_off = serializers.BooleanField(
        default=False, help_text="You read the license and allow training on it."
    )
    preset = serializers.ChoiceField(
        choices=["", *PRESETS],
        default="",
        help_text="How people are asked; as the project asks when left out.",
    )
    overlap = serializers.IntegerField(
        min_value=1,
        max_value=100,
        allow_null=True,
        default=None,
        help_text="How many people judge each; the project's own when left out.",
    )
    priority = serializers.IntegerField(min_value=-32768, max_value=32767, default=0)


class RowsSerializer(serializers.Serializer[Any]):
    key = serializers.UUIDField(help_text="Yours, one per request: sending it twice adds once.")
    rows = serializers.ListField(
        child=serializers.DictField(),
        min_length=1,
        max_length=uploads.MAX_ROWS,
        help_text='{"prompt": "…"} or {"messages": […]} with "responses" ("…" or {"text", "source", '
        '"sampling"}) and, if wished, category, risk, split, skill, priority, id.',
    )


class AddedSerializer(serializers.Serializer[Any]):
    rows = serializers.IntegerField()
    new_prompts = serializers.IntegerField(help_text="Prompts that the project did not have.")
    comparisons = serializers.IntegerField(help_text="In the batch, these included.")


class RowsRefusedSerializer(serializers.Serializer[Any]):
    detail = serializers.CharField(help_text="The first problem, in a sentence.")
    n_problems = serializers.IntegerField()
    problems = RowProblemSerializer(many=True, help_text="The first 50. Nothing was added.")


class BatchList(ListAPIView[Batch]):
    """Batches of a project, newest first."""

    serializer_class = BatchSerializer
    queryset = Batch.objects.none()

    def get_queryset(self) -> Any:
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        return project.batches.filter(qualification=None).select_related("project").order_by("-pk")

    @extend_schema(operation_id="batches_list")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="batches_create",
        request=NewBatchSerializer,
        responses={
            201: BatchSerializer,
            200: BatchSerializer,
            409: RefusalSerializer,
            422: RefusalSerializer,
        },
        description="Make a batch in draft: fill it, then open it. 200 when this key made it before; "
        "409 when it was used for something else.",
    )
    def post(self, request: Request, slug: str) -> Response:
        project = project_for(request.user, slug, CAN_RUN)
        serializer = NewBatchSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        fields = dict(serializer.validated_data)
        try:
            batch, is_new = uploads.make_batch(
                project, fields.pop("key"), **fields, by=_me(request)
            )
        except BatchError as problem:
            return _refusal(problem)
        code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
        return Response(BatchSerializer(batch).data, status=code)


@extend_schema(operation_id="batches_retrieve", responses=BatchProgressSerializer)
@api_view(["GET"])
def batch_detail(request: Request, slug: str, pk: int) -> Response:
    """One batch, and how far people are."""
    return _told(_batch(request, slug, pk, CAN_READ_DATA))


@extend_schema(
    operation_id="batches_add",
    request=RowsSerializer,
    responses={
        201: AddedSerializer,
        200: AddedSerializer,
        409: RefusalSerializer,
        422: RowsRefusedSerializer,
    },
)
@api_view(["POST"])
def batch_comparisons(request: Request, slug: str, pk: int) -> Response:
    """Add prompts with their responses: all of the rows or, with a list of what is wrong, none (422).

    As many responses a row as the batch's interface shows. 200 when this key added them before; 409
    when it was used for something else, or the batch is closed or a round's.
    """
    batch = _batch(request, slug, pk, CAN_RUN)
    serializer = RowsSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    body = serializer.validated_data
    try:
        answer, is_new = uploads.add_rows(batch, body["key"], body["rows"], by=_me(request))
    except uploads.RowsRefused as refused:
        report = refused.report
        problems = RowProblemSerializer(report.problems, many=True).data
        first = report.problems[0]
        sentence = {"detail": f"Row {first.line}: {first.reason}"}
        return Response(
            sentence | {"n_problems": report.n_problems, "problems": problems}, status=422
        )
    except BatchError as problem:
        return _refusal(problem, code=status.HTTP_409_CONFLICT)
    code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return Response(answer, status=code)


@extend_schema(
    operation_id="batches_open",
    request=None,
    responses={200: BatchProgressSerializer, 409: RefusalSerializer},
)
@api_view(["POST"])
def batch_open(request: Request, slug: str, pk: int) -> Response:
    """Put a batch in front of people; a closed one is opened again. Twice is once."""
    return _act(request, slug, pk, uploads.open_uploaded)


@extend_schema(
    operation_id="batches_close",
    request=None,
    responses={200: BatchProgressSerializer, 409: RefusalSerializer},
)
@api_view(["POST"])
def batch_close(request: Request, slug: str, pk: int) -> Response:
    """Stop handing a batch out; what comes in late is kept as an extra. Twice is once."""
    return _act(request, slug, pk, uploads.close_uploaded)


def _act(request: Request, slug: str, pk: int, act: Callable[[Batch, User], Batch]) -> Response:
    batch = _batch(request, slug, pk, CAN_RUN)
    try:
        return _told(act(batch, _me(request)))
    except BatchError as problem:
        return _refusal(problem, code=status.HTTP_409_CONFLICT)


def _batch(request: Request, slug: str, pk: int, roles: tuple[str, ...]) -> Batch:
    project = project_for(request.user, slug, roles)
    batch = get_object_or_404(Batch, project=project, pk=pk, qualification=None)
    batch.project = project
    return batch


def _told(batch: Batch) -> Response:
    progress = batch_progress(batch)
    figures = {name: progress[name] for name in ("comparisons", "needed", "judged", "is_complete")}
    return Response({**BatchSerializer(batch).data, **figures})


def _refusal(problem: BatchError, *, code: int = 422) -> Response:
    conflict = isinstance(problem, uploads.UploadConflict)
    return Response({"detail": str(problem)}, status=409 if conflict else code)


def _me(request: Request) -> User:
    assert isinstance(request.user, User)  # project_for let in members only
    return request.user
