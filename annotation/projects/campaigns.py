"""Batches that an admin creates outside of a round: from prompts alone, or from existing responses.

A campaign asks something else about the same prompts or responses: ideal responses, corrections,
ratings, pairs with strength.
"""

import random
from collections import defaultdict
from collections.abc import Iterator

from django.db import transaction
from django.db.models import Prefetch

from annotation.models import Batch, Comparison, Project, Prompt, Response, User
from annotation.projects.batches import (
    ROWS_AT_ONCE,
    BatchError,
    ResponseText,
    add_comparisons,
    close_batch,
    create_batch,
    open_batch,
)
from annotation.protocols import DEMONSTRATE, DIALOGUE, PRESETS, RESPONSES

MOST = 10_000


@transaction.atomic
def start_campaign(
    project: Project,
    name: str,
    *,
    preset: str = "",
    responses_of: Batch | None = None,
    n: int,
    overlap: int,
    by: User,
) -> Batch:
    """An open batch of at most `n` comparisons under the project's protocol, or a preset's.

    Prompts are drawn at random from those that training may see. Responses to judge come from an
    earlier batch or an imported file, as many for each prompt as the interface shows, also at random. Raises
    BatchError, with nothing created, where there is nothing to ask.
    """
    batch = create_batch(project, name, overlap=overlap, by=by)
    batch.is_by_hand = True
    if preset:
        chosen = PRESETS[preset]
        batch.interface, batch.protocol = chosen.interface, chosen.protocol.as_json()
    if batch.effective_interface == DIALOGUE:
        raise BatchError("A live dialogue has no batch of prompts: people write them.")
    if batch.effective_interface != DEMONSTRATE and responses_of is None:
        raise BatchError("Choose the batch with the responses to judge.")
    if responses_of is not None and batch.effective_interface != DEMONSTRATE:
        batch.source = responses_of.source
        rows = list(_comparisons_of(responses_of, batch.effective_interface, n))
    else:
        rows = [(prompt, []) for prompt in _prompts(project, n)]
    if not rows:
        raise BatchError(
            "There is nothing to ask: no prompt of the train split from a signed-off source"
            + (" has enough responses in that batch." if responses_of is not None else ".")
        )
    batch.save()
    add_comparisons(batch, rows)
    return open_batch(batch, by)


def close_campaign(batch: Batch, by: User) -> Batch:
    """Stop handing it out; BatchError for a round's batch, which the round closes."""
    if not batch.is_by_hand:
        raise BatchError(f"{batch.name} belongs to a round, which closes it.")
    return close_batch(batch, by)


def reopen_campaign(batch: Batch, by: User) -> Batch:
    """Hand it out again; BatchError for a round's batch."""
    if not batch.is_by_hand:
        raise BatchError(f"{batch.name} belongs to a round, which opens and closes it.")
    return open_batch(batch, by)


def _prompts(project: Project, n: int) -> list[Prompt]:
    ids = list(project.prompts.all().trainable().values_list("pk", flat=True))
    chosen = random.SystemRandom().sample(ids, min(n, len(ids)))
    return list(Prompt.objects.filter(pk__in=chosen))


def _comparisons_of(
    batch: Batch, interface: str, n: int
) -> Iterator[tuple[Prompt, list[ResponseText]]]:
    """At most `n` prompts of a batch in random order, with as many responses as the interface shows."""
    fewest, most = RESPONSES[interface]
    generator = random.SystemRandom()
    trainable = batch.project.prompts.all().trainable().values("pk")
    comparisons = Comparison.objects.in_use().filter(prompt__in=trainable, gold=None)
    usable = Response.objects.in_use()
    if batch.has_imported_responses:  # of the whole file, which may have several batches
        comparisons = comparisons.filter(
            batch__source=batch.source,
            batch__is_imported=True,
            batch__name__startswith=Batch.RESPONSES,
        )
    else:
        # Gold is left out, as its answer is known; so are turns of a dialogue that were taken back.
        comparisons = comparisons.filter(batch=batch, needed__gt=0)
    prompts = list(comparisons.values_list("prompt", flat=True).distinct().order_by())
    generator.shuffle(prompts)
    n_chosen = 0
    for start in range(0, len(prompts), ROWS_AT_ONCE):
        chunk = prompts[start : start + ROWS_AT_ONCE]
        by_prompt: dict[int, list[Comparison]] = defaultdict(list)
        rows = comparisons.filter(prompt__in=chunk).select_related("prompt")
        for comparison in rows.prefetch_related(Prefetch("responses", usable)).order_by("pk"):
            by_prompt[comparison.prompt_id].append(comparison)
        for prompt in chunk:
            if n_chosen == n:
                return
            taken = by_prompt[prompt] if batch.has_imported_responses else by_prompt[prompt][:1]
            # Several people may have written the same prompt in dialogues: one comparison is enough.
            by_text = {r.text: r for comparison in taken for r in comparison.responses.all()}
            if len(by_text) < fewest:
                continue
            n_chosen += 1
            chosen = generator.sample(list(by_text.values()), min(most, len(by_text)))
            yield (
                taken[0].prompt,
                [ResponseText(r.text, r.source, r.sampling, r.logprob, r.n_tokens) for r in chosen],
            )
