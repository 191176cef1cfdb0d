"""Sending a frozen version to a hub repository or a bucket over the REST API."""

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_EXPORT, project_for
from annotation.api.serializers import RefusalSerializer
from annotation.api.throttles import ExportThrottle
from annotation.data import pushing
from annotation.data.snapshot_files import SnapshotError
from annotation.models import Snapshot


class PushRequestSerializer(serializers.Serializer[Any]):
    target = serializers.CharField(
        max_length=300, help_text="hf://datasets/ORGANIZATION/NAME or s3://BUCKET/PREFIX/"
    )
    form = serializers.CharField(
        max_length=24, required=False, allow_blank=True, default="", help_text="Empty: as frozen."
    )
    axis = serializers.CharField(max_length=60, required=False, allow_blank=True, default="")
    private = serializers.BooleanField(required=False, default=True)
    token = serializers.CharField(
        max_length=500,
        required=False,
        allow_blank=True,
        default="",
        write_only=True,
        help_text="Of the hub, with write access. It is not stored.",
    )
    plan = serializers.CharField(
        max_length=16,
        required=False,
        allow_blank=True,
        default="",
        help_text="The plan that you looked at. Empty: a dry run, which gives the plan.",
    )


class OutgoingSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    bytes = serializers.IntegerField()
    sha256 = serializers.CharField()


class PlanSerializer(serializers.Serializer[Any]):
    plan = serializers.CharField(source="key")
    target = serializers.CharField()
    private = serializers.BooleanField(source="is_private")
    bytes = serializers.IntegerField()
    files = OutgoingSerializer(many=True)
    there = serializers.CharField(help_text="What there is at the target now.")


class PushSerializer(serializers.Serializer[Any]):
    target = serializers.CharField()
    form = serializers.CharField()
    axis = serializers.CharField()
    private = serializers.BooleanField(source="is_private")
    state = serializers.ChoiceField(choices=["writing", "done", "failed"])
    done = serializers.IntegerField(help_text="Bytes sent.")
    total = serializers.IntegerField()
    reason = serializers.CharField()
    url = serializers.CharField()
    created_at = serializers.DateTimeField()


@extend_schema(
    methods=["GET"], operation_id="snapshots_pushes_list", responses=PushSerializer(many=True)
)
@extend_schema(
    methods=["POST"],
    operation_id="snapshots_pushes_create",
    request=PushRequestSerializer,
    responses={200: PlanSerializer, 202: PushSerializer, 409: RefusalSerializer},
    description="Without `plan` a dry run: what would be sent (200). With it the sending begins "
    "(202); the list shows its progress. 409 with the reason where it may not be sent.",
)
@api_view(["GET", "POST"])
@throttle_classes([ExportThrottle])
def snapshot_pushes(request: Request, slug: str, version: int) -> Response:
    """Where this version was sent, the newest first, twenty at most."""
    project = project_for(request.user, slug, CAN_EXPORT)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    if request.method == "GET":
        return Response(PushSerializer(pushing.latest(snapshot), many=True).data)
    serializer = PushRequestSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    body = serializer.validated_data
    form, axis = body["form"], body["axis"]
    try:
        chosen = pushing.plan(
            snapshot,
            body["target"],
            form=form,
            axis=axis,
            is_private=body["private"],
            by=request.user,
        )
        if not body["plan"]:
            there = pushing.look(chosen, snapshot, body["token"])
            files = [file._asdict() for file in chosen.files]
            plan = {**chosen._asdict(), "bytes": chosen.bytes, "files": files, "there": there}
            return Response(PlanSerializer(plan).data)
        push = pushing.start(
            snapshot,
            chosen,
            form=form,
            axis=axis,
            token=body["token"],
            key=body["plan"],
            by=request.user,
        )
    except SnapshotError as error:
        return Response({"detail": str(error)}, status=status.HTTP_409_CONFLICT)
    return Response(PushSerializer(push).data, status=status.HTTP_202_ACCEPTED)
