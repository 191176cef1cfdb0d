"""Comparisons whose answer is known, mixed into people's work.

An annotator must not be able to tell gold from work. So a gold comparison lies in the same batch as
the work around it, has the same kind of address, holds a lease, a draft and a judgment like any
other, and moves every number that annotators see as work does ("12 of 40 today"). No other figure
includes it: it has no places, is never exported and never trained on. Everybody who may see which prompts
are gold (reviewers, researchers, admins) gets no gold. A batch gets the items with a known answer to at least one of its questions.

Where gold comes is decided by a keyed hash: exactly one of each `gold_every` comparisons is gold,
at a position that cannot be predicted without the server's key.
"""

import random
from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, QuerySet
from django.utils.crypto import salted_hmac

from annotation.judge.gold_scores import KNOWABLE, asked_measures
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    GoldItem,
    Membership,
    Project,
    Prompt,
    Response,
    User,
)

ROWS_SEEN = 200


def work_or_gold(comparison: Comparison, membership: Membership, project: Project) -> Comparison:
    """`comparison`, or gold of the same batch where this person's next one is to be gold.

    Under the membership's lock. The work that was found stays free for the next person. Gold is
    looked up whether or not it is due, so that response times give nothing away.
    """
    if project.gold_every < 2 or membership.may_know_gold:
        return comparison
    handed = _handed(membership)
    is_due = handed % project.gold_every == _place(membership, project, handed)
    unseen = _unseen(membership.user_id, avoid_harm=avoids_harm(membership))
    of_batch = unseen.filter(batch=comparison.batch_id)
    chosen = of_batch.select_related("prompt").order_by("shuffle").first()
    Membership.objects.filter(pk=membership.pk).update(handed=F("handed") + 1)
    return chosen if is_due and chosen is not None else comparison


def count_gold_ahead(membership: Membership, project: Project, n_free: int) -> int:
    """How many gold items come before this person has been handed `n_free` more comparisons of work."""
    every = project.gold_every
    if every < 2 or not n_free or membership.may_know_gold:
        return 0
    batches = project.batches.filter(state=Batch.State.OPEN, qualification=None)
    available = (
        _unseen(membership.user_id, avoid_harm=avoids_harm(membership))
        .filter(batch__in=list(batches.values_list("pk", flat=True)))
        .values("gold")
        .distinct()
        .count()
    )
    at, n, left = _handed(membership), 0, n_free
    # To the end of the block, then whole blocks of one gold and `every` - 1 others, then a rest.
    while left > 0 and n < available:
        start = at - at % every
        place = start + _place(membership, project, at)
        works = start + every - at - (place >= at)
        if left > works:
            n += place >= at
            left -= works
        else:  # gold comes only where work is left to come after it
            n += at <= place < at + left
            left = 0
        at = start + every
    return min(n, available)


def _handed(membership: Membership) -> int:
    """As it is now: the row at hand may have been read before another request of this person."""
    rows = Membership.objects.filter(pk=membership.pk).values_list("handed", flat=True)
    return int(rows.get())


def _unseen(user: Any, *, avoid_harm: bool) -> QuerySet[Comparison]:
    """Gold comparisons whose item this person has not been handed, in any batch of work."""
    handed = Exists(Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user))
    at_work = Exists(Batch.objects.filter(pk=OuterRef("batch"), qualification=None))
    # One within the other, so that each is looked up by its key however much somebody has judged.
    known = Exists(Comparison.objects.filter(handed, at_work, gold=OuterRef("gold")))
    unseen = (
        Comparison.objects.filter(gold__isnull=False, gold__is_active=True, gold__is_mixed=True)
        .exclude(known)
        # The author of an item knows its answer.
        .exclude(gold__created_by=user)
    )
    return unseen.exclude(prompt__risk=Prompt.Risk.HARMFUL) if avoid_harm else unseen


def avoids_harm(membership: Membership) -> bool:
    return bool(membership.user.harmful_material == User.HarmfulMaterial.AVOID)


def _place(membership: Membership, project: Project, position: int) -> int:
    """Where in its block of `gold_every` this person's gold is: 0 to gold_every - 1."""
    block = position // project.gold_every
    value = f"{project.pk}:{membership.user_id}:{project.gold_every}:{block}"
    return int(salted_hmac("annotation.gold", value).hexdigest()[:8], 16) % project.gold_every


def add_gold(batch: Batch) -> int:
    """Put the project's gold among the comparisons of a batch of work; how many were added.

    Only items that look like the work: as many responses as its comparisons have, prompts that are
    not being judged there, and something known of what it asks.
    """
    if (
        batch.is_imported
        or batch.effective_interface not in KNOWABLE
        or batch.qualification is not None
    ):
        return 0
    with transaction.atomic():
        Batch.objects.select_for_update(no_key=True).get(
            pk=batch.pk
        )  # One transaction at a time adds gold.
        return _add_gold(batch)


def _add_gold(batch: Batch) -> int:
    there = set(batch.comparisons.filter(gold__isnull=False).values_list("gold_id", flat=True))
    sizes = {
        len(pks)
        for pks in _response_ids(
            batch.comparisons.filter(gold__isnull=True).values_list("pk", flat=True)[:ROWS_SEEN]
        ).values()
    }
    items = (
        GoldItem.objects.filter(project=batch.project_id, is_active=True, is_mixed=True)
        .exclude(pk__in=there)
        .exclude(prompt__comparisons__batch=batch)
    )
    interface, protocol = batch.effective_interface, batch.effective_protocol
    fitting = [
        item
        for item in items
        if len(item.responses) in sizes and asked_measures(interface, protocol, item.expected)
    ]
    return add_comparisons(batch, fitting)


def add_gold_to_open_batches(project: Project) -> int:
    """`add_gold` for every open batch: after an item was added or gold was switched on."""
    if project.gold_every < 2:
        return 0
    batches = project.batches.filter(state=Batch.State.OPEN, qualification__isnull=True)
    return sum(add_gold(batch) for batch in batches)


def _response_ids(comparisons: Any) -> dict[int, list[int]]:
    by_comparison: dict[int, list[int]] = {}
    for comparison, pk in Response.objects.filter(comparison__in=list(comparisons)).values_list(
        "comparison_id", "pk"
    ):
        by_comparison.setdefault(comparison, []).append(pk)
    return by_comparison


def add_comparisons(batch: Batch, items: Sequence[GoldItem]) -> int:
    """A comparison in the batch for each item; how many."""
    with transaction.atomic():
        comparisons = Comparison.objects.bulk_create(
            Comparison(
                batch=batch,
                prompt_id=item.prompt_id,
                gold=item,
                needed=0,
                is_free=False,
                shuffle=random.random(),  # noqa: S311 - an order, not a secret
            )
            for item in items
        )
        Response.objects.bulk_create(
            Response(comparison=comparison, text=text)
            for comparison, item in zip(comparisons, items, strict=True)
            for text in item.responses
        )
    return len(items)
