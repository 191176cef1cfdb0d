"""Batches from rows that somebody selected in the data manager: a new one, or more for an open one."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.models import Prefetch

from annotation.models import Batch, Comparison, Membership, Project, Prompt, Response, User
from annotation.projects.batches import (
    ROWS_AT_ONCE,
    BatchError,
    ResponseText,
    add_comparisons,
    create_batch,
    open_batch,
)
from annotation.protocols import DEMONSTRATE, DIALOGUE, PRESETS, RESPONSES

Rows = list[tuple[Prompt, list[ResponseText]]]


@transaction.atomic
def batch_of_selection(
    project: Project,
    name: str,
    table: str,
    ids: Sequence[int],
    *,
    preset: str = "",
    overlap: int,
    only_for: User | None = None,
    by: User,
) -> tuple[Batch, int]:
    """An open batch about the selected rows, one comparison for each prompt; and how many there are.

    `table` is prompts, responses or comparisons. A prompt is asked about with its selected responses,
    or with all that it has where only the prompt is selected. `only_for` reserves the batch for one
    member who may judge. Raises BatchError, with nothing created, where nothing can be asked.
    """
    if only_for is not None and not _may_judge(project, only_for):
        raise BatchError(f"{only_for} is no annotator, reviewer or admin of this project.")
    if only_for is not None and overlap != 1:
        raise BatchError("A batch for one person has 1 person per comparison.")
    batch = create_batch(project, name, overlap=overlap, by=by)
    batch.is_by_hand, batch.only_for = True, only_for
    if preset:
        chosen = PRESETS[preset]
        batch.interface, batch.protocol = chosen.interface, chosen.protocol.as_json()
    if batch.effective_interface == DIALOGUE:
        raise BatchError("A live dialogue has no batch of prompts: people write them.")
    batch.save()
    rows = _rows(project, table, ids, batch.effective_interface)
    if not rows:
        raise BatchError(NOTHING)
    n = add_comparisons(batch, rows)
    return open_batch(batch, by), n


NOTHING = (
    "There is nothing to ask: no selected prompt is in the train split of a signed-off source, in use, "
    "and has enough responses for the task."
)


@transaction.atomic
def add_selection(batch: Batch, table: str, ids: Sequence[int]) -> int:
    """Add the selected rows to a batch made by hand; how many. Prompts that it has are left out."""
    if not batch.is_by_hand:
        raise BatchError(f"{batch.name} belongs to a round; choose a batch made by hand.")
    rows = _rows(batch.project, table, ids, batch.effective_interface)
    known = set(
        batch.comparisons.filter(prompt__in=[prompt.pk for prompt, _ in rows]).values_list(
            "prompt_id", flat=True
        )
    )
    fresh = [row for row in rows if row[0].pk not in known]
    if not fresh:
        raise BatchError(NOTHING if not rows else f"{batch.name} has all of these prompts already.")
    return add_comparisons(batch, fresh)


def _may_judge(project: Project, user: User) -> bool:
    roles = (Membership.Role.ANNOTATOR, Membership.Role.REVIEWER, Membership.Role.ADMIN)
    return project.memberships.filter(user=user, role__in=roles).exists()


def _rows(project: Project, table: str, ids: Sequence[int], interface: str) -> Rows:
    fewest, most = RESPONSES[interface]
    generator = random.SystemRandom()
    rows: Rows = []
    seen: set[int] = set()
    for start in range(0, len(ids), ROWS_AT_ONCE):
        texts = _texts(project, table, ids[start : start + ROWS_AT_ONCE])
        usable = project.prompts.all().trainable().in_bulk(texts)
        for pk, responses in texts.items():
            if pk not in usable or pk in seen:
                continue
            # Several batches may have asked about the same text: once is enough.
            distinct = list({response.text: response for response in responses}.values())
            if interface == DEMONSTRATE:
                distinct = []
            if len(distinct) >= fewest:
                seen.add(pk)
                chosen = generator.sample(distinct, min(most, len(distinct)))
                rows.append((usable[pk], [_as_text(response) for response in chosen]))
    return rows


def _texts(project: Project, table: str, ids: Iterable[int]) -> dict[int, list[Response]]:
    """Prompt id -> the selected responses in use, in the order of the selection."""
    responses = Response.objects.in_use()
    comparisons = Comparison.objects.in_use().filter(batch__project=project, gold__isnull=True)
    if table == "prompts":
        comparisons = comparisons.filter(prompt__in=ids)
    elif table == "comparisons":
        comparisons = comparisons.filter(pk__in=ids)
    else:
        comparisons = comparisons.filter(responses__in=ids).distinct()
        responses = responses.filter(pk__in=ids)
    texts: dict[int, list[Response]] = defaultdict(list)
    if table == "prompts":
        texts |= {pk: [] for pk in ids}
    for comparison in comparisons.prefetch_related(Prefetch("responses", responses)).order_by("pk"):
        texts[comparison.prompt_id] += comparison.responses.all()
    return texts


def _as_text(response: Response) -> ResponseText:
    return ResponseText(
        response.text, response.source, response.sampling, response.logprob, response.n_tokens
    )
