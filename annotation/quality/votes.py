"""The current votes of a project, read from the database in the form that the statistics take."""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import Count, Max, Q

from annotation.judge.requirements import marks_by_place
from annotation.models import Batch, Comparison, Judgment, Project, Response
from annotation.protocols import BELOW
from annotation.statistics.labels import Rating, Vote

CHUNK = 2_000


def votes_of(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    comparison: Comparison | None = None,
    before: datetime | None = None,
) -> tuple[list[Vote], list[Rating]]:
    """Every current vote on every axis and every rating, in the shown order.

    Annotators and comparisons are their ids.
    """
    judgments = Judgment.objects.current().votes().of_project(project)
    if batches is not None:
        judgments = judgments.filter(assignment__comparison__batch__in=list(batches))
    if before is not None:
        judgments = judgments.filter(created_at__lt=before)
    if comparison is not None:
        judgments = judgments.filter(assignment__comparison=comparison)
    lengths: dict[int, int] = {}
    text_ids: dict[int, int] = {}  # equal for responses with equal texts
    votes, ratings = [], []
    ids = list(judgments.order_by("pk").values_list("pk", flat=True))
    for start in range(0, len(ids), CHUNK):
        rows = list(
            Judgment.objects.filter(pk__in=ids[start : start + CHUNK]).values_list(
                "assignment__annotator_id",
                "assignment__comparison_id",
                "assignment__shown_order",
                "ranks",
                "rest_below",
                "seconds",
                "ratings",
                "safety",
            )
        )
        comparisons = {row[1] for row in rows}
        first_with_text: dict[tuple[int, str], int] = {}
        for pk, comparison_id, text in (
            Response.objects.filter(comparison__in=comparisons)
            .order_by("pk")
            .values_list("pk", "comparison_id", "text")
        ):
            lengths[pk] = len(text)
            text_ids[pk] = first_with_text.setdefault((comparison_id, text), pk)
        for annotator, unit, shown, ranks_by_axis, rest_below, seconds, marks, safety in rows:
            places = tuple(shown)
            n_characters = tuple(lengths.get(pk, 0) for pk in shown)
            if marks or safety:
                by_measure = marks_by_place([str(pk) for pk in shown], marks, safety)
                rating = {measure: tuple(values) for measure, values in by_measure.items()}
                ratings.append(Rating(annotator, unit, places, rating, n_characters, seconds))
            unranked = BELOW if rest_below else None
            for axis, by_response in ranks_by_axis.items():
                ranks = tuple(by_response.get(str(pk), unranked) for pk in shown)
                texts = tuple(text_ids.get(pk, pk) for pk in shown)
                vote = Vote(annotator, unit, places, ranks, n_characters, seconds, axis, texts)
                votes.append(vote)
    return votes, ratings


def fingerprint_of_votes(project: Project) -> str:
    """Part of a cache key; changes as soon as a vote is added, removed or changed."""
    state = (
        Judgment.objects.of_project(project)
        .votes()
        .aggregate(
            last=Max("pk"),
            n=Count("pk", filter=Q(current_for__isnull=False)),
            excluded=Count("pk", filter=Q(excluded_at__isnull=False)),
            # Excluding one judgment and restoring another leaves the count the same.
            last_excluded=Max("excluded_at"),
        )
    )
    parts = (project.pk, *state.values())
    return ":".join(f"{part}".replace(" ", "T") for part in parts)
