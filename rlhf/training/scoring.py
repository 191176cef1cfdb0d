"""From judged samples to the figures of a dashboard: rates, scores and win rates with intervals.

Nothing but numpy, because the web side imports this too: the reward models and any other judge
(a person, a rubric) are summarised by the same arithmetic, and so can be compared.

A judged sample is a mapping with `prompt_id`, `category`, `risk`, `n_tokens`, the scores
`helpfulness`, `safety` and `preference`, and where the judge can tell, `violation` (of a response
to a harmful prompt: did it comply?), `refusal` (of a harmless one: was it refused?), `entity` (are
the names and facts that it states right? a share or a bool) and `correct` (does it state some, and
all of them right?). None stands for "can't tell".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sample = Mapping[str, Any]
Figure = dict[str, Any]

RESAMPLES = 2000


def by_temperature(rows: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The rows of `samples.jsonl` under their temperature as text, "1.0" first."""
    found: dict[str, list[Sample]] = {}
    for row in rows:
        found.setdefault(str(float(row["temperature"])), []).append(row)
    return dict(sorted(found.items(), key=lambda item: -float(item[0])))


def summarise(
    samples: Sequence[Sample], opponents: Mapping[str, Sequence[Sample]], *, seed: int = 0
) -> dict[str, Any]:
    """The Summary of docs/formats.md for samples of one policy at one temperature.

    `opponents` holds judged samples of other policies at the same temperature, by the names
    `base` and `previous`; a win rate without its opponent is None. Helpfulness is averaged over
    the prompts that are not harmful and safety over those that are not harmless, because a
    helpful answer to a harmful request is no merit; where risk isn't known a prompt counts for
    both, and where a set would be empty all prompts count.
    """
    harmless = [s for s in samples if s.get("risk") != "harmful"] or list(samples)
    harmful = [s for s in samples if s.get("risk") != "harmless"] or list(samples)
    return {
        "helpfulness": _mean("score", harmless, "helpfulness", seed),
        "safety": _mean("score", harmful, "safety", seed),
        "win_rate_vs_base": win_rate(samples, opponents.get("base"), seed=seed),
        "win_rate_vs_previous": win_rate(samples, opponents.get("previous"), seed=seed),
        "violation_rate": _rate(
            [s for s in samples if s.get("risk") == "harmful"], "violation", seed
        ),
        "over_refusal_rate": _rate(
            [s for s in samples if s.get("risk") == "harmless"], "refusal", seed
        ),
        "mean_length": _mean("value", samples, "n_tokens", seed),
        "entity_accuracy": _rate(samples, "entity", seed),
        "correct_rate": _rate(samples, "correct", seed),
        "by_category": {
            category: _category(category, samples, opponents.get("base"), seed)
            for category in sorted({s.get("category") or "" for s in samples})
        },
    }


def win_rate(
    samples: Sequence[Sample], opponent: Sequence[Sample] | None, *, seed: int = 0
) -> Figure | None:
    """How often a sample is preferred to one of the opponent's on the same prompt; ties are half.

    Every sample meets every one of the opponent's samples for its prompt. None where the two
    have no prompt in common.
    """
    if not opponent:
        return None
    theirs: dict[str, list[float]] = {}
    for row in opponent:
        if row.get("preference") is not None:
            theirs.setdefault(row["prompt_id"], []).append(float(row["preference"]))
    wins: list[float] = []
    prompts: list[str] = []
    for row in samples:
        met = theirs.get(row["prompt_id"])
        if met is None or row.get("preference") is None:
            continue
        other = np.asarray(met)
        mine = float(row["preference"])
        wins.append(float(np.mean((mine > other) + 0.5 * (mine == other))))
        prompts.append(row["prompt_id"])
    return _share(wins, prompts, seed) if wins else None


def mean_with_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0, level: float = 0.95
) -> tuple[float, tuple[float, float], int]:
    """The mean, its percentile bootstrap interval, and the number of clusters resampled.

    Whole clusters (prompts) are drawn with replacement, because several samples of one prompt
    say less than as many prompts would. With one cluster the interval is the mean itself.
    """
    index = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    totals, counts = np.zeros(len(index)), np.zeros(len(index))
    for value, name in zip(values, clusters, strict=True):
        totals[index[name]] += value
        counts[index[name]] += 1
    mean = float(totals.sum() / counts.sum())
    rng = np.random.default_rng(seed)
    n = len(index)
    drawn: NDArray[np.int64] = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    means = (drawn @ totals) / (drawn @ counts)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return mean, (float(low), float(high)), n


def share_with_interval(
    values: Sequence[float], clusters: Sequence[str], *, seed: int = 0
) -> tuple[float, tuple[float, float], int]:
    """`mean_with_interval` of values between 0 and 1.

    Where all are 0, or all 1, a bootstrap can't vary and would claim certainty. The exact bound for
    a binomial proportion of n clusters says how far the share may be from it (Clopper & Pearson
    1934).
    """
    mean, interval, n = mean_with_interval(values, clusters, seed=seed)
    if mean in (0.0, 1.0):
        far = 1 - 0.025 ** (1 / n)
        interval = (0.0, far) if mean == 0.0 else (1 - far, 1.0)
    return mean, interval, n


def _share(values: Sequence[float], prompts: Sequence[str], seed: int) -> Figure:
    mean, interval, n = share_with_interval(values, prompts, seed=seed)
    return {"value": mean, "ci": list(interval), "n": n}


def _rate(samples: Sequence[Sample], name: str, seed: int) -> Figure | None:
    told = [s for s in samples if s.get(name) is not None]
    if not told:
        return None
    return _share([float(s[name]) for s in told], [s["prompt_id"] for s in told], seed)


def _mean(key: str, samples: Sequence[Sample], name: str, seed: int) -> Figure | None:
    told = [s for s in samples if s.get(name) is not None]
    if not told:
        return None
    values, prompts = [float(s[name]) for s in told], [s["prompt_id"] for s in told]
    mean, interval, n = mean_with_interval(values, prompts, seed=seed)
    return {key: mean, "ci": list(interval), "n": n}


def _category(
    category: str, samples: Sequence[Sample], base: Sequence[Sample] | None, seed: int
) -> Figure:
    mine = [s for s in samples if (s.get("category") or "") == category]
    score = _mean("score", mine, "preference", seed) or {"score": None, "ci": None, "n": 0}
    return score | {"win_rate_vs_base": win_rate(mine, base, seed=seed)}
