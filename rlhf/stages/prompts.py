"""Which of the project's prompts a round uses, and for what."""

import hashlib
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from annotation.data.admission import admitted_prompts
from annotation.models import Comparison, Project, Prompt
from annotation.protocols import DEMONSTRATE
from rlhf.models import Round
from rlhf.round_config import RoundConfig

Split = Prompt.Split

# purpose: (split, the setting that says how many, the setting that says how many of them harmful)
PURPOSES: dict[str, tuple[str, str, str]] = {
    "ranking": (Split.TRAIN, "ranking_prompts", "harmful_share"),
    "ppo": (Split.TRAIN, "ppo_prompts", "ppo_harmful_share"),
    "watch": (Split.EVAL, "watch_prompts", "ppo_harmful_share"),
    "heldout": (Split.HELDOUT, "heldout_prompts", ""),
}


def pool(project: Project, purpose: str) -> QuerySet[Prompt]:
    """The prompts that may be used for a purpose. Held-out prompts train nothing."""
    split = PURPOSES[purpose][0]
    prompts = Prompt.objects.filter(project=project, split=split)
    return prompts.in_use() if split == Split.HELDOUT else admitted_prompts(project, prompts)


def choose(round: Round, purpose: str) -> list[Prompt]:
    """The round's prompts for a purpose: the same prompts at every call.

    Drawn by a hash of the round's seed and the prompt's text from what there was when the round was
    launched. For ranking, only prompts whose responses nobody was asked about before; held-out prompts are the same
    in every round, so that rounds can be compared.
    """
    split, size, share = PURPOSES[purpose]
    sizes = RoundConfig.of(round)
    launched = round.launched_at or round.created_at
    prompts = pool(round.project, purpose).filter(created_at__lte=launched)
    key = f"{round.project_id}/heldout" if split == Split.HELDOUT else f"{round.seed}/{purpose}"
    if purpose == "ranking":
        prompts = without_compared(prompts, round.project, before=launched)
    return draw(prompts, getattr(sizes, size), key, getattr(sizes, share) if share else 0.0)


def without_compared(
    prompts: QuerySet[Prompt], project: Project, *, before: datetime
) -> QuerySet[Prompt]:
    """The prompts whose responses no earlier batch asked about. Writing the ideal answer to a prompt
    says nothing about responses, so such a prompt stays."""
    compared = Comparison.objects.filter(
        batch__project=project, batch__created_at__lt=before
    ).exclude(batch__interface=DEMONSTRATE)
    return prompts.exclude(pk__in=compared.values("prompt_id"))


def draw(prompts: QuerySet[Prompt], n: int, key: str, harmful_share: float) -> list[Prompt]:
    """Up to `n` prompts in random order, with `key` as the seed; `harmful_share` above 0 stratifies.

    If there are too few harmful or too few other prompts, more of the other kind fill the gap.
    """
    rows = [
        (hashlib.sha256(f"{key}/{sha}".encode()).digest(), pk, risk == Prompt.Risk.HARMFUL)
        for pk, sha, risk in prompts.values_list("pk", "sha256", "risk")
    ]
    rows.sort()
    if harmful_share:
        harmful = [row for row in rows if row[2]]
        others = [row for row in rows if not row[2]]
        n_harmful = min(round(n * harmful_share), len(harmful))
        n_harmful = max(n_harmful, min(n - len(others), len(harmful)))
        rows = sorted(harmful[:n_harmful] + others[: n - n_harmful])
    pks = [pk for _, pk, _ in rows[:n]]
    by_pk = Prompt.objects.in_bulk(pks)
    return [by_pk[pk] for pk in pks]


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """A prompt's line in the run folder."""
    return {
        "prompt_id": str(prompt.uid),
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
    }
