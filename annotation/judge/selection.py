"""The order of comparisons: scores by an engine, and a random sample for unbiased estimates."""

import math
from collections.abc import Mapping

from django.db import connection, transaction
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from annotation.models import Assignment, Batch, Comparison


def score_comparisons(
    batch: Batch, scores: Mapping[int, float], *, recency: float = 1.0, by: str = ""
) -> int:
    """Store how much each comparison would teach; returns how many comparisons got a score.

    `scores` is a number of 0 or more by comparison id, such as how far reward models disagree on
    its responses; `recency` multiplies them, 1 for the newest policy and less for older ones. Where
    priorities are equal the highest is handed out first. `by` names who scores, for the project's page.
    """
    numbers = {pk: value * recency for pk, value in scores.items()}
    wrong = next((n for n in numbers.values() if not math.isfinite(n) or n < 0), None)
    if wrong is not None:
        raise ValueError(f"A score is a number of 0 or more; one was {wrong}.")
    with transaction.atomic():
        # In one order everywhere, so that two such transactions can't wait for each other.
        with connection.cursor() as cursor:
            cursor.executemany(
                f"UPDATE {Comparison._meta.db_table} SET score = %s WHERE id = %s AND batch_id = %s",  # noqa: S608
                [[numbers[pk], pk, batch.pk] for pk in sorted(numbers)],
            )
            n_scored = max(int(cursor.rowcount), 0)
        batch.scored_at, batch.scored_by = timezone.now(), by[:120]
        batch.save(update_fields=["scored_at", "scored_by"])
    return n_scored


def selection(batch: Batch) -> tuple[int, int]:
    """Of the comparisons that may still be handed out: how many have a score, and how many there are."""
    free = batch.comparisons.filter(is_free=True, gold=None)
    n = free.aggregate(scored=Count("pk", filter=Q(score__gt=0)), all=Count("pk"))
    return n["scored"], n["all"]


def random_sample(batch: Batch) -> QuerySet[Comparison]:
    """The comparisons that a fair estimate over the batch may rest on, whatever was scored.

    `shuffle` was drawn before anything was known of a comparison, so all those up to the last random
    draw are a uniform sample of the batch, however each of them came to be judged.
    """
    last = Assignment.objects.filter(
        comparison__batch=batch, drawn=Assignment.Drawn.RANDOM
    ).aggregate(last=Max("comparison__shuffle"))["last"]
    work = batch.comparisons.filter(gold__isnull=True)
    return work.none() if last is None else work.filter(shuffle__lte=last)
