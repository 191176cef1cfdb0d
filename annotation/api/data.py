"""The REST API for researchers: prompts in, preferences out. Versioned; pages never call it.

Every endpoint reaches its project through `project_for`, so a project that is not yours is a 404.
"""

import io
import json
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_for
from annotation.api.batch_filter import BATCH, batches_by_id, requested_batches
from annotation.api.serializers import (
    AxisAgreementSerializer,
    RefusalSerializer,
    RowProblemSerializer,
    SourceSerializer,
)
from annotation.api.throttles import ExportThrottle
from annotation.data import imports, preferences
from annotation.data.downloads import archive_download, file_download
from annotation.data.exports.writers import json_line
from annotation.data.freezing import freeze
from annotation.data.import_formats.formats import PROMPT_FORMATS
from annotation.data.ratings_and_demonstrations import response_rows
from annotation.data.snapshot_files import SnapshotError
from annotation.data.snapshot_options import SnapshotOptions
from annotation.models import Freezing, Prompt, Snapshot
from annotation.quality.assessment import reliability_of

MAX_PROMPT_ROWS = 10_000


# --- What goes over the wire ----------------------------------------------------------------------------


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
        required=False, default=False, help_text="You read the license and allow training on it."
    )


class ImportReportSerializer(serializers.Serializer[Any]):
    format = serializers.CharField()
    n_rows = serializers.IntegerField()
    n_imported = serializers.IntegerField()
    n_duplicates = serializers.IntegerField(help_text="Already in the project, or twice in rows.")
    n_problems = serializers.IntegerField()
    problems = RowProblemSerializer(
        many=True, help_text="The first 50. With any, nothing is imported."
    )
    remarks = serializers.ListField(
        child=serializers.CharField(),
        help_text="What was skipped, changed or not read, with the number of rows.",
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
    query = serializers.DictField(
        help_text="What was asked for: batches, filters with thresholds and versions, split, ties, votes, "
        "axes, pseudonyms, guidelines and the code's version."
    )
    deprecation_note = serializers.CharField(
        help_text="Why the version should not be used any more; empty: it may."
    )
    deprecated_at = serializers.DateTimeField(allow_null=True)


class FreezeSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")
    batches = serializers.ListField(
        child=serializers.IntegerField(min_value=0, max_value=2**63 - 1),
        required=False,
        allow_null=True,
        default=None,
        help_text="Ids of batches; all of them when left out.",
    )
    ties = serializers.ChoiceField(
        choices=["drop", "half"],
        required=False,
        default="drop",
        help_text="Tied pairs: left out, or in both directions at half the weight.",
    )
    votes = serializers.ChoiceField(
        choices=["raw", "consensus"],
        required=False,
        default="raw",
        help_text="A row for each judgment, or one consensus for each comparison.",
    )
    axes = serializers.ListField(
        child=serializers.CharField(max_length=80),
        required=False,
        default=list,
        help_text="Keys of axes; all of them when left out.",
    )
    filters = serializers.ListField(
        child=serializers.CharField(max_length=24),
        required=False,
        default=list,
        help_text="Keys of filters that leave out rows in addition to those that exclude anyway.",
    )


# --- Projects and prompts ----------------------------------------------------------------------------------


class PromptList(ListAPIView[Prompt]):
    """Prompts of a project, oldest first."""

    serializer_class = PromptSerializer
    queryset = Prompt.objects.none()

    def get_queryset(self) -> Any:
        project = project_for(self.request.user, self.kwargs["slug"], CAN_READ_DATA)
        prompts = project.prompts.select_related("source").order_by("pk")
        split = self.request.query_params.get("split")
        if split and split not in Prompt.Split.values:
            raise serializers.ValidationError({"split": "Give train, eval or heldout."})
        return prompts.filter(split=split) if split else prompts

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
        serializer = PromptImportSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        body = serializer.validated_data
        lines = io.BytesIO(b"".join(_line(row) for row in body["rows"]))
        report = imports.import_prompts(
            project,
            lines,
            format=body["format"],
            source=body["source"],
            by=request.user,
            sign_off=body["sign_off"],
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
        serializer = FreezeSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        wanted = serializer.validated_data
        ids = wanted["batches"]
        batches = None if ids is None else batches_by_id(project, ids)
        options = SnapshotOptions(
            ties=wanted["ties"],
            votes=wanted["votes"],
            axes=tuple(wanted["axes"]),
            filters=tuple(wanted["filters"]),
        )
        try:
            made = freeze(
                project,
                by=request.user,
                batches=batches,
                note=wanted["note"],
                options=options,
                quality=reliability_of(project) if options.votes == "consensus" else None,
            )
        except SnapshotError as error:
            return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
        if isinstance(made, Freezing):
            message = (
                f"A version of {made.total:,} judgments is being written; the list will have it."
            )
            return Response({"detail": message}, status=status.HTTP_202_ACCEPTED)
        return Response(SnapshotSerializer(made).data, status=status.HTTP_201_CREATED)


@extend_schema(operation_id="snapshots_retrieve", responses=SnapshotSerializer)
@api_view(["GET"])
def snapshot_detail(request: Request, slug: str, version: int) -> Response:
    """One version: counts, agreement, licenses and files with their hashes."""
    project = project_for(request.user, slug, CAN_READ_DATA)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    return Response(SnapshotSerializer(snapshot).data)


@extend_schema(
    operation_id="snapshots_file",
    responses={(200, "*/*"): OpenApiTypes.BINARY},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_file(request: Request, slug: str, version: int, name: str) -> HttpResponseBase:
    """One file of a version, as it was frozen. `Range` resumes a download."""
    project = project_for(request.user, slug, CAN_EXPORT)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    return file_download(request._request, snapshot, name)


@extend_schema(
    operation_id="snapshots_archive", responses={(200, "application/zip"): OpenApiTypes.BINARY}
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_archive(request: Request, slug: str, version: int) -> HttpResponseBase:
    """Every file of a version in one zip: a folder that `load_dataset` opens. The zip of a large
    version can be resumed (`Range`) once its form `archive` is made."""
    project = project_for(request.user, slug, CAN_EXPORT)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    return archive_download(request._request, snapshot)


# --- Judgments and agreement --------------------------------------------------------------------------------------


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
    batches = requested_batches(request, project)

    def lines() -> Iterator[bytes]:
        for row in preferences.preference_rows(project, batches=batches):
            yield json_line(row)

    return StreamingHttpResponse(lines(), content_type="application/jsonl")


@extend_schema(
    operation_id="ratings_export",
    parameters=[BATCH],
    responses={(200, "application/jsonl"): OpenApiTypes.STR},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def ratings(request: Request, slug: str) -> StreamingHttpResponse:
    """Responses as people rated them now, one a line: marks, safe or not, kinds of harm."""
    return _jsonl_of(request, slug, "ratings")


@extend_schema(
    operation_id="demonstrations_export",
    parameters=[BATCH],
    responses={(200, "application/jsonl"): OpenApiTypes.STR},
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def demonstrations(request: Request, slug: str) -> StreamingHttpResponse:
    """Answers that people wrote or corrected, one a line, for supervised fine-tuning."""
    return _jsonl_of(request, slug, "demonstrations")


def _jsonl_of(request: Request, slug: str, file: str) -> StreamingHttpResponse:
    project = project_for(request.user, slug, CAN_EXPORT)
    rows = response_rows(project, batches=requested_batches(request, project))
    lines = (json_line(row.row) for row in rows if row.file == file)
    return StreamingHttpResponse(lines, content_type="application/jsonl")
