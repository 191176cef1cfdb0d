"""The REST API for researchers: prompts in, preferences out. Versioned; pages never call it.

Every endpoint reaches its project through `project_for`, so a project that is not yours is a 404.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from django.db.models import OuterRef, Subquery
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import UserRateThrottle

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_for
from annotation.data import imports, preferences
from annotation.data.downloads import archive_download, file_download
from annotation.data.exports.writers import json_line
from annotation.data.freezing import freeze
from annotation.data.import_formats.formats import PROMPT_FORMATS
from annotation.data.ratings_and_demonstrations import rating_rows, response_rows
from annotation.data.snapshot_files import SnapshotError
from annotation.models import Batch, Freezing, Membership, Project, Prompt, Snapshot
from annotation.statistics.agreement import agreement, agreement_by_annotator, agreement_by_category

MAX_PROMPT_ROWS = 10_000


class ExportThrottle(UserRateThrottle):
    """Whole datasets cost more to answer than rows do."""

    scope = "export"


# --- What goes over the wire ----------------------------------------------------------------------------


class AxisSerializer(serializers.Serializer[Any]):
    key = serializers.CharField()
    name = serializers.CharField()
    question = serializers.CharField()


class ProjectSerializer(serializers.Serializer[Any]):
    slug = serializers.SlugField()
    name = serializers.CharField()
    description = serializers.CharField()
    role = serializers.CharField(help_text="Your role in it.")
    interface = serializers.CharField()
    axes = AxisSerializer(many=True)
    protocol = serializers.SerializerMethodField(help_text="What is asked: docs/formats.md.")
    responses_per_comparison = serializers.IntegerField()
    overlap = serializers.IntegerField(help_text="How many people judge each comparison.")
    is_demo = serializers.BooleanField()

    def get_protocol(self, project: Project) -> dict[str, Any]:
        return project.effective_protocol.as_json()


class MessageSerializer(serializers.Serializer[Any]):
    role = serializers.ChoiceField(choices=["system", "user", "assistant"])
    content = serializers.CharField()


class PromptSerializer(serializers.Serializer[Any]):
    uid = serializers.UUIDField()
    messages = MessageSerializer(many=True)
    category = serializers.CharField()
    risk = serializers.CharField(help_text="harmless, harmful or empty (not known)")
    split = serializers.CharField(help_text="train, eval (watched) or heldout")
    source = serializers.CharField(source="source.name")  # type: ignore[assignment]
    external_id = serializers.CharField()
    created_at = serializers.DateTimeField()


class SourceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)
    licence = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    url = serializers.URLField(max_length=200, required=False, allow_blank=True, default="")


class PromptImportSerializer(serializers.Serializer[Any]):
    source = SourceSerializer()  # type: ignore[assignment]
    rows = serializers.ListField(
        child=serializers.DictField(),
        min_length=1,
        max_length=MAX_PROMPT_ROWS,
        help_text="Prompts in any of the forms that the import page reads.",
    )
    format = serializers.ChoiceField(
        choices=["auto", *PROMPT_FORMATS], required=False, default="auto"
    )
    sign_off = serializers.BooleanField(
        required=False, default=False, help_text="You read the licence and allow training on it."
    )


class RowProblemSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(
        source="line", allow_null=True, help_text="Counted from 1; null is the whole request."
    )
    reason = serializers.CharField()


class ImportReportSerializer(serializers.Serializer[Any]):
    format = serializers.CharField()
    n_rows = serializers.IntegerField()
    n_imported = serializers.IntegerField()
    n_duplicates = serializers.IntegerField(help_text="Already in the project, or twice in rows.")
    n_problems = serializers.IntegerField()
    problems = RowProblemSerializer(
        many=True, help_text="The first 50. With any, nothing is imported."
    )


class FileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    rows = serializers.IntegerField(allow_null=True)
    sha256 = serializers.CharField()


class LicenceSerializer(serializers.Serializer[Any]):
    source = serializers.CharField()  # type: ignore[assignment]
    licence = serializers.CharField(allow_blank=True)
    url = serializers.CharField(allow_blank=True)
    n_judgments = serializers.IntegerField()


class AxisAgreementSerializer(serializers.Serializer[Any]):
    alpha = serializers.FloatField(allow_null=True, help_text="Krippendorff's alpha, ordinal.")
    alpha_ci = serializers.ListField(child=serializers.FloatField(), allow_null=True)
    pairwise = serializers.FloatField(
        allow_null=True,
        help_text="Share of pairs that two annotators order alike; of marks, of responses that two "
        "annotators give the same mark.",
    )
    pairwise_ci = serializers.ListField(child=serializers.FloatField(), allow_null=True)
    tau = serializers.FloatField(
        allow_null=True, required=False, help_text="Kendall's tau-b of two annotators' rankings."
    )
    tau_ci = serializers.ListField(child=serializers.FloatField(), allow_null=True, required=False)
    n_units = serializers.IntegerField()
    n_comparisons = serializers.IntegerField()
    n_pairs = serializers.IntegerField()
    n_judgments = serializers.IntegerField()
    n_annotators = serializers.IntegerField()
    reason = serializers.CharField(required=False, help_text="Why a figure is null.")


class SnapshotSerializer(serializers.Serializer[Any]):
    version = serializers.IntegerField()
    uid = serializers.UUIDField()
    note = serializers.CharField()
    sha256 = serializers.CharField(help_text="Of SHA256SUMS, and so of every file.")
    created_at = serializers.DateTimeField()
    counts = serializers.DictField()
    agreement = serializers.DictField(child=AxisAgreementSerializer())
    licences = LicenceSerializer(many=True)
    files = FileSerializer(many=True)


class FreezeSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    batches = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**63 - 1),
        required=False,
        allow_null=True,
        default=None,
        help_text="Ids of batches; all of them when left out.",
    )


class RefusalSerializer(serializers.Serializer[Any]):
    detail = serializers.CharField()


# --- Projects and prompts ----------------------------------------------------------------------------------


class ProjectList(ListAPIView[Project]):
    """Projects that you are a member of."""

    serializer_class = ProjectSerializer
    queryset = Project.objects.none()

    def get_queryset(self) -> Any:
        mine = Membership.objects.filter(project=OuterRef("pk"), user=self.request.user.pk)
        roles = Subquery(mine.values("role")[:1])
        return Project.objects.for_user(self.request.user).annotate(role=roles)


class PromptList(ListAPIView[Prompt]):
    """Prompts of a project, oldest first."""

    serializer_class = PromptSerializer
    queryset = Prompt.objects.none()

    def get_queryset(self) -> Any:
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        found = project.prompts.select_related("source").order_by("pk")
        split = self.request.query_params.get("split")
        if split and split not in Prompt.Split.values:
            raise serializers.ValidationError({"split": "Give train, eval or heldout."})
        return found.filter(split=split) if split else found

    @extend_schema(
        operation_id="prompts_list",
        parameters=[OpenApiParameter("split", enum=Prompt.Split.values, description="Only these.")],
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="prompts_create",
        request=PromptImportSerializer,
        responses={201: ImportReportSerializer, 422: ImportReportSerializer},
        description="Add prompts: all of the rows or, with a list of what is wrong, none (422). "
        "Prompts that the project already has are counted and left as they are.",
    )
    def post(self, request: Request, slug: str) -> Response:
        project = project_for(request.user, slug, CAN_RUN)
        given = PromptImportSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        asked = given.validated_data
        lines = io.BytesIO(b"".join(_line(row) for row in asked["rows"]))
        report = imports.import_prompts(
            project,
            lines,
            format=asked["format"],
            source=asked["source"],
            by=request.user,  # type: ignore[arg-type]  # a member, so not anonymous
            sign_off=asked["sign_off"],
        )
        code = status.HTTP_201_CREATED if report.ok else 422
        return Response(ImportReportSerializer(report).data, status=code)


def _line(row: dict[str, Any]) -> bytes:
    """A row as the importer reads it, escaped, so that half a surrogate pair is refused by it."""
    return json.dumps(row).encode() + b"\n"


# --- Snapshots ------------------------------------------------------------------------------------------------


class SnapshotList(ListAPIView[Snapshot]):
    """Frozen preference datasets of a project, newest first."""

    serializer_class = SnapshotSerializer
    queryset = Snapshot.objects.none()

    def get_queryset(self) -> Any:
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        return project.snapshots.order_by("-version")

    def get_throttles(self) -> Any:
        return [ExportThrottle()] if self.request.method == "POST" else super().get_throttles()

    @extend_schema(operation_id="snapshots_list")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="snapshots_create",
        request=FreezeSerializer,
        responses={201: SnapshotSerializer, 202: RefusalSerializer, 409: RefusalSerializer},
        description="Freeze what training may see now. 202 where it takes longer than a moment: it "
        "is in the list when it is written. 409 when there is nothing, or another is being written.",
    )
    def post(self, request: Request, slug: str) -> Response:
        project = project_for(request.user, slug, CAN_EXPORT)
        given = FreezeSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        wanted = given.validated_data["batches"]
        batches = None if wanted is None else _batches(project, wanted)
        try:
            made = freeze(
                project, by=request.user, batches=batches, note=given.validated_data["note"]
            )
        except SnapshotError as error:
            return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
        if isinstance(made, Freezing):
            told = f"A version of {made.total:,} judgments is being written; the list will have it."
            return Response({"detail": told}, status=status.HTTP_202_ACCEPTED)
        return Response(SnapshotSerializer(made).data, status=status.HTTP_201_CREATED)


def _batches(project: Project, wanted: list[int]) -> list[Batch]:
    found = list(project.batches.filter(pk__in=wanted))
    if missing := set(wanted) - {batch.pk for batch in found}:
        raise serializers.ValidationError({"batches": f"There is no batch {min(missing)}."})
    return found


@extend_schema(operation_id="snapshots_retrieve", responses=SnapshotSerializer)
@api_view(["GET"])
def snapshot_detail(request: Request, slug: str, version: int) -> Response:
    """One version: counts, agreement, licences and files with their hashes."""
    project = project_for(request.user, slug, CAN_READ_DATA)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    return Response(SnapshotSerializer(snapshot).data)


@extend_schema(
    operation_id="snapshots_file",
    responses={(200, "*/*"): OpenApiTypes.BINARY},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_file(request: Request, slug: str, version: int, name: str) -> FileResponse:
    """One file of a version, as it was frozen."""
    project = project_for(request.user, slug, CAN_EXPORT)
    return file_download(get_object_or_404(Snapshot, project=project, version=version), name)


@extend_schema(
    operation_id="snapshots_archive", responses={(200, "application/zip"): OpenApiTypes.BINARY}
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_archive(request: Request, slug: str, version: int) -> StreamingHttpResponse:
    """Every file of a version in one zip: a folder that `load_dataset` opens."""
    project = project_for(request.user, slug, CAN_EXPORT)
    return archive_download(get_object_or_404(Snapshot, project=project, version=version))


# --- Judgments and agreement --------------------------------------------------------------------------------------

BATCH = OpenApiParameter("batch", int, many=True, description="Only these batches; repeatable.")


@extend_schema(
    operation_id="judgments_export",
    parameters=[BATCH],
    responses={(200, "application/jsonl"): OpenApiTypes.STR},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def judgments(request: Request, slug: str) -> HttpResponse | StreamingHttpResponse:
    """What training would see now, one ranking a line (JSON Lines, docs/formats.md), streamed.

    Not frozen: for anything that must be repeatable, freeze a snapshot.
    """
    project = project_for(request.user, slug, CAN_EXPORT)
    batches = _asked_batches(request, project)

    def lines() -> Iterator[bytes]:
        for row in preferences.preference_rows(project, batches=batches):
            yield json_line(row)

    return StreamingHttpResponse(lines(), content_type="application/jsonl")


AXIS_AGREEMENT = {"$ref": "#/components/schemas/AxisAgreement"}
_SHARE = {"type": "number", "nullable": True}
_INTERVAL = {"type": "array", "items": {"type": "number"}, "nullable": True}
ONES_AGREEMENT = {
    "type": "object",
    "description": "One annotator against the others; alpha is there for marks.",
    "properties": {
        **dict.fromkeys(("alpha", "pairwise", "tau"), _SHARE),
        **dict.fromkeys(("alpha_ci", "pairwise_ci", "tau_ci"), _INTERVAL),
        **{name: {"type": "integer"} for name in ("n_pairs", "n_comparisons")},
    },
    "required": ["pairwise", "pairwise_ci", "tau", "tau_ci", "n_pairs", "n_comparisons"],
}
AGREEMENT_BY: dict[str, Callable[[Iterator[dict[str, Any]]], dict[str, Any]]] = {
    "": agreement,
    "category": agreement_by_category,
    "annotator": agreement_by_annotator,
}


@extend_schema(
    operation_id="ratings_export",
    parameters=[BATCH],
    responses={(200, "application/jsonl"): OpenApiTypes.STR},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def ratings(request: Request, slug: str) -> StreamingHttpResponse:
    """Responses as people rated them now, one a line: marks, safe or not, kinds of harm."""
    return _said(request, slug, "ratings")


@extend_schema(
    operation_id="demonstrations_export",
    parameters=[BATCH],
    responses={(200, "application/jsonl"): OpenApiTypes.STR},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def demonstrations(request: Request, slug: str) -> StreamingHttpResponse:
    """Answers that people wrote or corrected, one a line, for supervised fine-tuning."""
    return _said(request, slug, "demonstrations")


def _said(request: Request, slug: str, file: str) -> StreamingHttpResponse:
    project = project_for(request.user, slug, CAN_EXPORT)
    rows = response_rows(project, batches=_asked_batches(request, project))
    lines = (json_line(row.row) for row in rows if row.file == file)
    return StreamingHttpResponse(lines, content_type="application/jsonl")


@extend_schema(
    operation_id="agreement_retrieve",
    parameters=[
        BATCH,
        OpenApiParameter(
            "by",
            enum=["category", "annotator"],
            description="One table of axes for each category of prompts, or for each annotator "
            "against the others.",
        ),
    ],
    responses={
        (200, "application/json"): {
            "type": "object",
            "additionalProperties": {
                "oneOf": [
                    AXIS_AGREEMENT,
                    {"type": "object", "additionalProperties": AXIS_AGREEMENT},
                    {"type": "object", "additionalProperties": ONES_AGREEMENT},
                ]
            },
        }
    },
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def project_agreement(request: Request, slug: str) -> Response:
    """How far annotators agree now, per axis, over every judgment that counts.

    Marks are there beside the axes as `mark:<attribute>`, the vote on safety as `safe/unsafe`.
    """
    project = project_for(request.user, slug, CAN_READ_DATA)
    batches = _asked_batches(request, project)
    rows = preferences.preference_rows(
        project, batches=batches, only_trainable=False, adjudicated=False
    )
    marks = rating_rows(project, batches=batches)
    by = request.query_params.get("by", "")
    if by not in AGREEMENT_BY:
        raise serializers.ValidationError({"by": "Give “category”, “annotator” or nothing."})
    return Response(AGREEMENT_BY[by](chain(rows, marks)))


def _asked_batches(request: Request, project: Project) -> list[Batch] | None:
    wanted = request.query_params.getlist("batch")
    if not wanted:
        return None
    if not all(re.fullmatch("[0-9]{1,15}", value) for value in wanted):
        raise serializers.ValidationError({"batch": "A batch is named by its number."})
    return _batches(project, [int(value) for value in wanted])
