"""The forms of a frozen version over the REST API."""

from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_EXPORT, CAN_READ_DATA, project_for
from annotation.api.serializers import RefusalSerializer
from annotation.api.throttles import ExportThrottle
from annotation.data.downloads import form_download
from annotation.data.export_forms import choices
from annotation.data.exporting import ask_for, made_or_small
from annotation.data.exports.forms import FORMS
from annotation.data.snapshot_files import SnapshotError
from annotation.models import Snapshot

RETRY_SECONDS = 5


class FormSerializer(serializers.Serializer[Any]):
    form = serializers.CharField()
    title = serializers.CharField()
    purpose = serializers.CharField(help_text="Which tool it is for.")
    axes = serializers.ListField(child=serializers.CharField(), help_text="To choose one from.")
    why_not = serializers.CharField(help_text="Why this version cannot have it; empty if it can.")


class ProgressSerializer(serializers.Serializer[Any]):
    detail = serializers.CharField()
    done = serializers.IntegerField(help_text="Rows written so far.")
    total = serializers.IntegerField()


@extend_schema(operation_id="snapshots_forms", responses=FormSerializer(many=True))
@api_view(["GET"])
def snapshot_forms(request: Request, slug: str, version: int) -> Response:
    """The forms for other tools that this version can be had in."""
    project = project_for(request.user, slug, CAN_READ_DATA)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    return Response(
        [
            {
                "form": choice.key,
                "title": choice.form.title,
                "purpose": choice.form.purpose,
                "axes": choice.axes,
                "why_not": choice.why_not,
            }
            for choice in choices(snapshot)
        ]
    )


@extend_schema(
    operation_id="snapshots_form",
    parameters=[
        OpenApiParameter("form", str, OpenApiParameter.PATH, enum=list(FORMS)),
        OpenApiParameter("axis", str, description="The first that has rows if left out."),
    ],
    responses={
        (200, "*/*"): OpenApiTypes.BINARY,
        202: ProgressSerializer,
        409: RefusalSerializer,
    },
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_form(request: Request, slug: str, version: int, form: str) -> HttpResponseBase:
    """A version in one form: a file, or a zip of several. `Range` resumes a download.

    202 with `Retry-After` while a large one is being made; 409 where the version cannot have it.
    """
    project = project_for(request.user, slug, CAN_EXPORT)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    axis = request.query_params.get("axis", "")
    try:
        export = made_or_small(snapshot, form, axis, by=request.user)
        if export is not None:
            return form_download(request._request, export)
        export = ask_for(snapshot, form, axis, by=request.user)
    except SnapshotError as error:
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    progress = {"detail": "It is being made.", "done": export.done, "total": export.total}
    return Response(
        progress, status=status.HTTP_202_ACCEPTED, headers={"Retry-After": str(RETRY_SECONDS)}
    )
