"""Quality for researchers: figures of each annotator, and raw votes with their consensus.

People are named as in exports (`annotator-…`), never by their account. Gold is not in any of it.
"""

from collections.abc import Iterator
from itertools import groupby, islice
from statistics import fmean
from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_EXPORT, CAN_READ_DATA, project_for
from annotation.api.throttles import ExportThrottle
from annotation.data.admission import admitted
from annotation.data.exports.writers import json_line
from annotation.data.preferences import annotator_id, judgments_of
from annotation.judge.requirements import marks_by_place
from annotation.models import Judgment, Project, User
from annotation.models import Response as ModelResponse
from annotation.quality.assessment import reliability_of
from annotation.quality.response_consensus import consensus_on_responses
from annotation.statistics.consensus import MarkConsensus
from annotation.statistics.estimates import Estimate, Habit
from annotation.statistics.marks import Marked
from annotation.statistics.reliability import Quality

CHUNK = 500


class EstimateSerializer(serializers.Serializer[Estimate]):
    value = serializers.FloatField(allow_null=True)
    low = serializers.FloatField(allow_null=True, help_text="95 %, bootstrap over comparisons.")
    high = serializers.FloatField(allow_null=True)
    n = serializers.IntegerField(help_text="Comparisons.")


class HabitSerializer(serializers.Serializer[Habit]):
    share = serializers.FloatField(allow_null=True)
    expected = serializers.FloatField(
        allow_null=True, help_text="By chance, or by what others said about the same pairs."
    )
    n = serializers.IntegerField(help_text="Pairs.")
    z = serializers.FloatField(allow_null=True)
    p = serializers.FloatField(allow_null=True, help_text="Two-sided, Holm over the annotators.")


class MarkedSerializer(serializers.Serializer[Marked]):
    measure = serializers.CharField(help_text="`mark:<attribute>` or `safe/unsafe`.")
    n_marks = serializers.IntegerField()
    reliability = EstimateSerializer(help_text="Chance of the very mark (Dawid-Skene).")
    agreement = EstimateSerializer(help_text="The same mark as somebody else.")
    skill = EstimateSerializer(help_text="Nearer to the others' marks than by chance: 0 guesses.")
    constant = HabitSerializer(help_text="Their commonest mark; `n` counts marks.")


class AnnotatorQualitySerializer(serializers.Serializer[Any]):
    annotator = serializers.CharField(help_text="As in exports.")
    n_judgments = serializers.IntegerField(source="n_votes")
    reliability = EstimateSerializer(
        help_text="Chance of being right (Dawid-Skene): of pairs, or of marks where nothing is compared."
    )
    agreement = EstimateSerializer(
        help_text="With the others: pairwise, or the same mark where nothing is compared."
    )
    skill = EstimateSerializer(help_text="Agreement beyond chance: 0 guesses, 1 always agrees.")
    position = HabitSerializer(help_text="Of two, the one shown first wins.")
    length = HabitSerializer(help_text="Of two, the longer one wins.")
    ties = HabitSerializer()
    constant = HabitSerializer(help_text="Of the habits of giving one mark, the surest.")
    marks = MarkedSerializer(many=True)
    spam = serializers.FloatField(help_text="From .5 on somebody should look.")
    reasons = serializers.ListField(child=serializers.CharField())


@extend_schema(operation_id="quality_list", responses=AnnotatorQualitySerializer(many=True))
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def annotators(request: Request, slug: str) -> Response:
    """How far each annotator can be relied on, with what it rests on."""
    project = project_for(request.user, slug, CAN_READ_DATA)
    profiles = reliability_of(project).profiles
    names = _names(project, {int(str(pk)) for pk in profiles})
    rows = [
        {
            **AnnotatorQualitySerializer(profile).data,
            "annotator": names.get(int(str(pk)), ""),
        }
        for pk, profile in profiles.items()
    ]
    return Response(sorted(rows, key=lambda row: -row["spam"]))


@extend_schema(
    operation_id="quality_votes", responses={(200, "application/jsonl"): OpenApiTypes.STR}
)
@api_view(["GET"])
@throttle_classes([ExportThrottle])
def votes(request: Request, slug: str) -> StreamingHttpResponse:
    """One comparison a line: raw votes, the consensus they make, and a reviewer's ruling.

    Each vote has its annotator's reliability, by which the consensus weighs it: ranks per axis, marks
    and votes on safety per response, and how sure it is. JSON Lines, docs/formats.md. Like every export
    without held-out prompts, sources that are not signed off and texts that filters exclude.
    """
    project = project_for(request.user, slug, CAN_EXPORT)
    reliability = reliability_of(project)

    def lines() -> Iterator[bytes]:
        for row in vote_rows(project, reliability):
            yield json_line(row)

    return StreamingHttpResponse(lines(), content_type="application/jsonl")


def vote_rows(project: Project, reliability: Quality) -> Iterator[dict[str, Any]]:
    judgments = (
        admitted(project, judgments_of(project, adjudicated=False))
        .exclude(ranks={}, ratings={}, safety={})
        .order_by("assignment__comparison_id", "pk")
        .values_list(
            "assignment__comparison_id",
            "assignment__comparison__prompt__uid",
            "assignment__annotator_id",
            "assignment__is_ruling",
            "ranks",
            "ratings",
            "safety",
        )
    )
    names: dict[int, str] = {}
    for comparison, rows, shown in _with_responses(judgments):
        if new := {row[2] for row in rows} - set(names):
            names |= _names(project, new)
        yield _vote_row(project, reliability, comparison, rows, shown, names)


def _vote_row(
    project: Project,
    reliability: Quality,
    comparison: int,
    rows: list[tuple[Any, ...]],
    shown: list[tuple[int, str]],
    names: dict[int, str],
) -> dict[str, Any]:
    """The votes on one comparison and their consensus; `rows` as `vote_rows` reads them."""
    keys = [str(pk) for pk, _ in shown]

    def ordered(ranks: dict[str, dict[str, int]]) -> dict[str, list[int | None]]:
        return {axis: [ranks.get(axis, {}).get(key) for key in keys] for axis in project.axis_keys}

    consensus: dict[str, list[int | None] | None] = {}
    certainty: dict[str, float | None] = {}
    for axis in project.axis_keys:
        ranking = reliability.consensus(axis, comparison)
        consensus[axis] = [ranking.ranks.get(pk) for pk, _ in shown] if ranking else None
        certainty[axis] = round(ranking.certainty, 4) if ranking else None
    people = [(row[2], row[5], row[6]) for row in rows if not row[3]]
    each_response = consensus_on_responses(reliability, keys, people)
    measures = dict.fromkeys(measure for response in each_response for measure in response.marks)
    marks = {
        measure: [response.marks.get(measure) for response in each_response] for measure in measures
    }
    for measure, consensuses in marks.items():
        consensus[measure] = [mark.value if mark else None for mark in consensuses]
        certainties = [
            mark.certainty for mark in consensuses if mark and mark.certainty is not None
        ]
        certainty[measure] = round(fmean(certainties), 4) if certainties else None
    return {
        "prompt_id": str(rows[0][1]),
        "responses": [text for _, text in shown],
        "votes": [
            {
                "annotator": names[person],
                "reliability": reliability.profiles[person].reliability.value
                if person in reliability.profiles
                else None,
                "ranks": ordered(ranks),
                "marks": marks_by_place(keys, ratings, safety),
                "harms": _harms(keys, safety),
            }
            for _, _, person, is_ruling, ranks, ratings, safety in rows
            if not is_ruling
        ],
        "consensus": consensus,
        "certainty": certainty,
        "marks": {
            measure: [_rounded(mark) if mark else None for mark in consensuses]
            for measure, consensuses in marks.items()
        },
        "harms": [
            {"consensus": response.main_harms, "shares": _of_four_digits(response.harms)}
            for response in each_response
        ],
        "ruling": next(
            (ordered(row[4]) | marks_by_place(keys, row[5], row[6]) for row in rows if row[3]),
            None,
        ),
    }


def _harms(keys: list[str], safety: dict[str, Any]) -> list[list[str]]:
    return [safety.get(key, {}).get("harms", []) for key in keys]


def _rounded(consensus: MarkConsensus) -> dict[str, float]:
    fields = consensus._asdict()
    return _of_four_digits(
        {name: fields[name] for name in ("weighted", "median", "mean", "spread", "n")}
    )


def _of_four_digits(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in figures.items()}


def _with_responses(judgments: Any) -> Iterator[tuple[int, list[Any], list[tuple[int, str]]]]:
    """Each comparison with its judgments and its responses, which are fetched many at a time."""
    groups = groupby(judgments.iterator(CHUNK), key=lambda row: row[0])
    grouped = ((comparison, list(rows)) for comparison, rows in groups)
    while chunk := list(islice(grouped, CHUNK)):
        responses: dict[int, list[tuple[int, str]]] = {comparison: [] for comparison, _ in chunk}
        for comparison, pk, text in (
            ModelResponse.objects.filter(comparison__in=responses)
            .order_by("pk")
            .values_list("comparison_id", "pk", "text")
        ):
            responses[comparison].append((pk, text))
        for comparison, rows in chunk:
            yield comparison, rows, responses[comparison]


def _names(project: Project, pks: set[int]) -> dict[int, str]:
    imported = set(
        Judgment.objects.of_project(project)
        .filter(assignment__annotator__in=pks, assignment__comparison__batch__is_imported=True)
        .values_list("assignment__annotator_id", flat=True)
    )
    return {
        pk: annotator_id(project, user, is_imported=pk in imported)
        for pk, user in User.objects.in_bulk(pks).items()
    }
