"""Summaries of judged samples: rates, scores and win rates with intervals.

It imports only numpy, because the web side imports this module too: the scores of reward models and
of any other judge (a person, a rubric) are summarized by the same arithmetic, and so can be
compared.

A judged sample is a mapping with `prompt_id`, `category`, `risk`, `n_tokens`, `finished` (did it end
within the token limit?), the scores
`helpfulness`, `safety` and `preference`, and where the judge can tell, `violation` (of a response
to a harmful prompt: did it comply?), `refusal` (of a harmless one: was it refused?), `entity` (are
the stated names and facts correct? a share or a bool) and `correct` (does it state some, and are
all of them correct?). None stands for "can't tell".
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.training.intervals import mean_with_interval, share_with_interval, wilson

Sample = Mapping[str, Any]
Figure = dict[str, Any]

MANY_UNFINISHED = 0.5
"""From this share of unfinished responses on, most of what people and reward models judge is cut
off: the doctor, pre-flight and the round's page warn."""


def group_by_temperature(rows: Iterable[Sample]) -> dict[str, list[Sample]]:
    """The rows of `samples.jsonl` by their temperature as text, the highest first."""
    groups: dict[str, list[Sample]] = {}
    for row in rows:
        groups.setdefault(str(float(row["temperature"])), []).append(row)
    return dict(sorted(groups.items(), key=lambda item: -float(item[0])))


def summarize(
    samples: Sequence[Sample], opponents: Mapping[str, Sequence[Sample]], *, seed: int = 0
) -> dict[str, Any]:
    """The Summary of docs/formats.md for samples of one policy at one temperature.

    `opponents` holds judged samples of other policies at the same temperature, by the names
    `base` and `previous`; a win rate without its opponent is None. Helpfulness is averaged over
    the prompts that are not harmful, because a helpful answer to a harmful request is not good, and
    safety over those that are not harmless. Prompts of unknown risk count for both; if no prompt is
    left for an axis, all prompts count.
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
        **count(samples, seed=seed),
        "entity_accuracy": _rate(samples, "entity", seed),
        "correct_rate": _rate(samples, "correct", seed),
        "by_category": {
            category: _category(category, samples, opponents.get("base"), seed)
            for category in sorted({s.get("category") or "" for s in samples})
        },
    }


def count(samples: Sequence[Sample], *, seed: int = 0) -> dict[str, Figure | None]:
    """The figures that need no judge: mean length in tokens, and the share of unfinished responses."""
    return {
        "mean_length": _mean("value", samples, "n_tokens", seed),
        "unfinished_rate": unfinished_rate(samples),
    }


def unfinished_rate(samples: Sequence[Sample]) -> Figure | None:
    """The share of responses that reached their token limit without an end; None where no sample has
    `finished`.

    The interval is Wilson's for as many trials as there are prompts, because the responses to a
    prompt are alike. That makes it too wide rather than too narrow.
    """
    known = [s for s in samples if s.get("finished") is not None]
    if not known:
        return None
    n = len({s["prompt_id"] for s in known})
    share = sum(not s["finished"] for s in known) / len(known)
    return {"value": share, "ci": list(wilson(share, n)), "n": n}


def win_rate(
    samples: Sequence[Sample], opponent: Sequence[Sample] | None, *, seed: int = 0
) -> Figure | None:
    """How often a sample is preferred to one of the opponent's on the same prompt; ties are half.

    Every sample is compared with each of the opponent's samples for the same prompt. None if there
    is no common prompt.
    """
    if not opponent:
        return None
    opponent_scores: dict[str, list[float]] = {}
    for row in opponent:
        if row.get("preference") is not None:
            opponent_scores.setdefault(row["prompt_id"], []).append(float(row["preference"]))
    wins: list[float] = []
    prompts: list[str] = []
    for row in samples:
        opposing_scores = opponent_scores.get(row["prompt_id"])
        if opposing_scores is None or row.get("preference") is None:
            continue
        against = np.asarray(opposing_scores)
        score = float(row["preference"])
        wins.append(float(np.mean((score > against) + 0.5 * (score == against))))
        prompts.append(row["prompt_id"])
    return _share(wins, prompts, seed) if wins else None


def _share(values: Sequence[float], prompts: Sequence[str], seed: int) -> Figure:
    mean, interval, n = share_with_interval(values, prompts, seed=seed)
    return {"value": mean, "ci": list(interval), "n": n}


def _rate(samples: Sequence[Sample], name: str, seed: int) -> Figure | None:
    known = [s for s in samples if s.get(name) is not None]
    if not known:
        return None
    return _share([float(s[name]) for s in known], [s["prompt_id"] for s in known], seed)


def _mean(key: str, samples: Sequence[Sample], name: str, seed: int) -> Figure | None:
    known = [s for s in samples if s.get(name) is not None]
    if not known:
        return None
    values, prompts = [float(s[name]) for s in known], [s["prompt_id"] for s in known]
    mean, interval, n = mean_with_interval(values, prompts, seed=seed)
    return {key: mean, "ci": list(interval), "n": n}


def _category(
    category: str, samples: Sequence[Sample], base: Sequence[Sample] | None, seed: int
) -> Figure:
    of_category = [s for s in samples if (s.get("category") or "") == category]
    score = _mean("score", of_category, "preference", seed) or {"score": None, "ci": None, "n": 0}
    return score | {"win_rate_vs_base": win_rate(of_category, base, seed=seed)}
