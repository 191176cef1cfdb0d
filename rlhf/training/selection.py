"""How much an ensemble disagrees on comparisons: `python -m rlhf.training.selection RUN_DIR`.

People first judge the most informative comparisons (annotation/judge/queues.py): those for which
the members are confident of different outcomes, not those for which all are unsure or all agree
(BALD, Houlsby et al. 2011). The comparisons with the highest scores are similar to each other, so
comparisons are sampled with probability proportional to the score (Kirsch et al. 2023, "Stochastic
Batch Acquisition").
"""

import random
import time
from pathlib import Path
from typing import Any

from rlhf.training.configs import SelectionConfig
from rlhf.training.data import read_comparisons
from rlhf.training.language_models import devices
from rlhf.training.reward_math import information
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress, write_result
from rlhf.training.settings import load

COMPARISONS_PER_BATCH = 64


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, comparisons, the ensemble.
    config = load(SelectionConfig, run_dir / CONFIG)
    progress = Progress(run_dir)
    progress.phase("loading the reward model")
    comparisons = read_comparisons(run_dir)
    device = devices.choose_device(config.device)
    devices.be_deterministic(0, config.threads)
    scorer = load_reward_model(
        config.reward_model, device=device, tokens_per_pass=config.tokens_per_pass
    )
    axes = [axis for axis in scorer.every_axis if scorer.members_of(axis) > 1]
    if not axes:
        raise InputError(
            "The reward model has one member on every axis, so there is no disagreement; train it "
            "with members = 2 or more."
        )

    # 2. Per comparison: the mutual information between a judgment and the index of the member. In
    #    the members' own unit, in which a difference of scores is a log-odds.
    rows: list[dict[str, Any]] = []
    for start in range(0, len(comparisons), COMPARISONS_PER_BATCH):
        if stop.requested:  # no checkpoint: the stage starts over
            raise Stopped
        batch = comparisons[start : start + COMPARISONS_PER_BATCH]
        on_batch = progress.phase("scoring", unit="texts")
        scores = scorer.member_scores(
            [c.messages for c in batch for _ in c.responses],
            [text for c in batch for text in c.responses],
            batch_size=config.batch_size,
            standardized=False,
            on_batch=on_batch,
        )
        first = 0
        for comparison in batch:
            place = slice(first, first + len(comparison.responses))
            first = place.stop
            by_axis = {axis: information(scores[axis][place]) for axis in axes}
            mean = sum(by_axis.values()) / len(by_axis)
            rows.append(
                {
                    "comparison_id": comparison.comparison_id,
                    "disagreement": mean,
                    "by_axis": by_axis,
                    "score": mean
                    * config.recency**comparison.age
                    / (
                        exponential(config.reward_model, comparison.comparison_id)
                        if config.draw
                        else 1.0
                    ),
                }
            )
        progress.of_run(len(rows), len(comparisons), "comparisons", "scoring")

    # 3. Scores, result.
    write_jsonl(run_dir / "scores.jsonl", rows)
    write_result(
        run_dir,
        {
            "n_comparisons": len(rows),
            "members": {axis: scorer.members_of(axis) for axis in axes},
            "mean_disagreement": sum(row["disagreement"] for row in rows) / len(rows),
            "seconds": time.monotonic() - began,
        },
    )


def exponential(reward_model: str, comparison_id: str) -> float:
    """An exponential random number. Sorting by weight / number is sampling without replacement with
    probability proportional to the weights (Efraimidis & Spirakis 2006)."""
    return max(random.Random(f"{reward_model}\n{comparison_id}").expovariate(1.0), 1e-9)


if __name__ == "__main__":
    run_stage(main)
