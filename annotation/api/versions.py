"""What differs between two frozen versions, whether one is intact, what should not be used, who withdrew."""

from typing import Any

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_EXPORT, CAN_READ_DATA, CAN_RUN, project_for
from annotation.api.serializers import RefusalSerializer
from annotation.api.throttles import ExportThrottle
from annotation.data.deprecation import deprecate, undo_deprecation
from annotation.data.snapshot_diff import MAX_ROWS_ON_A_PAGE, diff
from annotation.data.verification import verify
from annotation.models import Snapshot, User, Withdrawal
from annotation.quality.withdrawal import models_trained_on, people_who_judged, withdraw


class DifferenceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    a = serializers.JSONField(help_text="In the version that the address names first.")
    b = serializers.JSONField()


class TableDiffSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    rows = serializers.DictField(child=serializers.IntegerField(), help_text="{a, b}")
    added = serializers.IntegerField(allow_null=True)
    removed = serializers.IntegerField(allow_null=True)
    changed = serializers.IntegerField(allow_null=True)
    columns = DifferenceSerializer(many=True, help_text="Columns whose type differs.")
    examples = serializers.DictField(
        child=serializers.ListField(child=serializers.DictField()),
        help_text="Up to five rows each of added, removed and changed.",
    )


class SnapshotDiffSerializer(serializers.Serializer[Any]):
    tables = TableDiffSerializer(many=True)
    figures = DifferenceSerializer(many=True)
    settings = DifferenceSerializer(many=True)
    is_complete = serializers.BooleanField(
        help_text=f"False above {MAX_ROWS_ON_A_PAGE:,} rows, which only the command compares."
    )


class FaultSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    what = serializers.CharField()


class VerificationSerializer(serializers.Serializer[Any]):
    is_intact = serializers.BooleanField()
    n_files = serializers.IntegerField()
    faults = FaultSerializer(many=True)


class DeprecationSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(
        max_length=300, allow_blank=True, help_text="Why it should not be used; empty: it may."
    )


class WithdrawalRequestSerializer(serializers.Serializer[Any]):
    person = serializers.CharField(max_length=150, help_text="The user name.")
    note = serializers.CharField(max_length=200, required=False, allow_blank=True, default="")


class WithdrawalSerializer(serializers.Serializer[Any]):
    person = serializers.CharField()
    note = serializers.CharField()
    n_judgments = serializers.IntegerField()
    versions = serializers.DictField(
        child=serializers.IntegerField(), help_text="Version -> rows that rest on their judgments."
    )
    new_version = serializers.IntegerField(
        allow_null=True, help_text="Frozen without them; null where none was, or is being written."
    )
    models = serializers.ListField(
        child=serializers.CharField(), help_text="Trained on the versions that hold them."
    )
    created_at = serializers.DateTimeField()


@extend_schema(operation_id="snapshots_diff", responses=SnapshotDiffSerializer)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def snapshot_diff(request: Request, slug: str, version: int, other: int) -> Response:
    """What differs between two versions: rows by their keys, columns, figures, settings."""
    project = project_for(request.user, slug, CAN_EXPORT)
    a, b = (get_object_or_404(Snapshot, project=project, version=v) for v in (version, other))
    return Response(diff(a, b, max_rows=MAX_ROWS_ON_A_PAGE).as_json())


@extend_schema(operation_id="snapshots_verify", request=None, responses=VerificationSerializer)
@api_view(["POST"])
@throttle_classes([ExportThrottle])
def snapshot_verify(request: Request, slug: str, version: int) -> Response:
    """Compute every hash of a version again; which files are damaged."""
    project = project_for(request.user, slug, CAN_READ_DATA)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    faults = verify(snapshot)
    return Response(
        {
            "is_intact": not faults,
            "n_files": len(snapshot.files),
            "faults": [fault._asdict() for fault in faults],
        }
    )


@extend_schema(
    operation_id="snapshots_deprecate",
    request=DeprecationSerializer,
    responses=DeprecationSerializer,
)
@api_view(["PUT"])
def snapshot_deprecation(request: Request, slug: str, version: int) -> Response:
    """Note that a version should not be used; an empty note takes it back."""
    project = project_for(request.user, slug, CAN_EXPORT)
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    serializer = DeprecationSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    if note := serializer.validated_data["note"].strip():
        deprecate(snapshot, request.user, note)
    else:
        undo_deprecation(snapshot, request.user)
    return Response({"note": snapshot.deprecation_note})


@extend_schema(
    methods=["GET"],
    operation_id="withdrawals_list",
    responses=WithdrawalSerializer(many=True),
)
@extend_schema(
    methods=["POST"],
    operation_id="withdrawals_create",
    request=WithdrawalRequestSerializer,
    responses={201: WithdrawalSerializer, 404: RefusalSerializer},
    description="Take the judgments of a person out of everything from now on, deprecate the versions "
    "that hold them and freeze one without them.",
)
@api_view(["GET", "POST"])
def withdrawal_list(request: Request, slug: str) -> Response:
    """Who withdrew, the versions that hold their judgments and the models trained on these."""
    project = project_for(request.user, slug, CAN_RUN)
    if request.method == "GET":
        rows = project.withdrawals.select_related("person", "new_version")
        return Response([_withdrawal(row) for row in rows])
    serializer = WithdrawalRequestSerializer(data=request.data)
    serializer.is_valid(raise_exception=True)
    wanted = serializer.validated_data
    people: Any = people_who_judged(project)
    person: User = get_object_or_404(people, username=wanted["person"])
    done = withdraw(project, person, request.user, wanted["note"])
    return Response(_withdrawal(done.withdrawal), status=status.HTTP_201_CREATED)


def _withdrawal(row: Withdrawal) -> dict[str, Any]:
    models = [str(model) for *_, models in models_trained_on(row) for model in models]
    return {
        "person": row.person.username,
        "note": row.note,
        "n_judgments": row.n_judgments,
        "versions": row.versions,
        "new_version": row.new_version.version if row.new_version else None,
        "models": models,
        "created_at": row.created_at,
    }
