"""Serializers that several endpoints share: sources, row errors, refusals, and agreement."""

from typing import Any

from rest_framework import serializers


class SourceSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=120)
    licence = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    url = serializers.URLField(max_length=200, required=False, allow_blank=True, default="")


class RowProblemSerializer(serializers.Serializer[Any]):
    row = serializers.IntegerField(
        source="line", allow_null=True, help_text="Counted from 1; null is the whole request."
    )
    reason = serializers.CharField()


class RefusalSerializer(serializers.Serializer[Any]):
    detail = serializers.CharField()


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
