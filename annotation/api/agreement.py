"""How far annotators agree, over the REST API."""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_READ_DATA, project_for
from annotation.api.batch_filter import BATCH, requested_batches
from annotation.api.throttles import ExportThrottle
from annotation.data import preferences
from annotation.data.ratings_and_demonstrations import rating_rows
from annotation.statistics.agreement import agreement, agreement_by_annotator, agreement_by_category

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

    Marks are listed with the axes as `mark:<attribute>`, the vote on safety as `safe/unsafe`.
    """
    project = project_for(request.user, slug, CAN_READ_DATA)
    batches = requested_batches(request, project)
    rows = preferences.preference_rows(
        project, batches=batches, only_trainable=False, adjudicated=False
    )
    marks = rating_rows(project, batches=batches)
    by = request.query_params.get("by", "")
    if by not in AGREEMENT_BY:
        raise serializers.ValidationError({"by": "Give “category”, “annotator” or nothing."})
    return Response(AGREEMENT_BY[by](chain(rows, marks)))
