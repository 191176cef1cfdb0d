"""Published and recomputed agreement figures, reproduced from rater-level data that people released.

    python -m benchmarks.published_agreement DATA

DATA is a folder with any of convabuse/, davidson_hate_offensive/, llmfao/ and finegrained_rlhf_qa/ in
it (docs/log/quality.md says whose they are); what is not there is left out, saying so. Every figure comes
from `annotation.statistics.agreement` or `annotation.statistics.reliability`, as on the product's pages, but for alpha with
metrics that no page uses: nominal of many values, and interval. Those are evalica's.
"""

import argparse
import csv
import gzip
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annotation.statistics.agreement import agreement, coincidences, ordinal_alpha
from annotation.statistics.labels import Vote
from annotation.statistics.reliability import assess

Figures = dict[str, float]
Metric = Literal["nominal", "ordinal", "interval"]


def krippendorff(units: list[list[int]], metric: Metric = "ordinal") -> float:
    """Krippendorff's alpha of units with two or more values each."""
    if metric != "ordinal":
        return by_evalica(units, metric)
    values = sorted({value for unit in units for value in unit})
    return ordinal_alpha(coincidences(units, values))


def by_evalica(units: list[list[int]], metric: Metric) -> float:
    """The same by evalica, which ours is held to (tests/annotation/statistics/test_agreement.py).

    Values of a unit are put into as many rows as the busiest unit needs: alpha pairs values within
    a unit and never asks which person gave which, so people need no row of their own.
    """
    # Imported here: evalica brings pandas and scipy, and nothing else does.
    import evalica
    import pandas

    width = max(len(unit) for unit in units)
    table = np.full((width, len(units)), np.nan)
    for column, unit in enumerate(units):
        table[: len(unit), column] = unit
    return float(evalica.alpha(pandas.DataFrame(table), distance=metric).alpha)


def convabuse(folder: Path) -> Figures:
    """Cercas Curry and others 2021: severity 1, 0, -1, -2, -3; the first judgment of each person."""
    levels = ("1", "0", "-1", "-2", "-3")
    given: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)
    for row in read_csv(folder / "ConvAbuseEMNLPfull_with_item.csv.gz"):
        value = next((i for i, level in enumerate(levels) if row[f"is_abuse.{level}"] == "1"), None)
        if value is not None:
            given[row["item"]].setdefault(row["annotator_id"], (value, row["bot"]))
    units = [[value for value, _ in of.values()] for of in given.values() if len(of) > 1]
    metrics: tuple[Metric, ...] = ("nominal", "ordinal", "interval")
    found = {f"alpha, {metric}": krippendorff(units, metric) for metric in metrics}
    for bot in ("CarbonBot", "E.L.I.Z.A."):
        by_bot = [[v for v, b in of.values() if b == bot] for of in given.values()]
        found[f"alpha, ordinal, {bot}"] = krippendorff([of for of in by_bot if len(of) > 1])
    return found


def davidson(folder: Path) -> Figures:
    """Davidson and others 2017: three classes, the rows with three votes."""
    units = []
    for row in read_csv(folder / "labeled_data.csv.gz"):
        votes = [int(row[name]) for name in ("hate_speech", "offensive_language", "neither")]
        if sum(votes) == 3:
            units.append([label for label, n in enumerate(votes) for _ in range(n)])
    alpha, size = krippendorff(units, "nominal"), 3 * len(units)
    alike = sum(n * (n - 1) for of in units for n in Counter(of).values())
    # Fleiss's kappa is alpha without its correction for few items.
    return {
        "Fleiss kappa": (alpha * size - 1) / (size - 1),
        "observed agreement": alike / (6 * len(units)),
        "items with three votes": len(units),
    }


def llmfao(folder: Path) -> Figures:
    """Ustalov 2023: 124 crowd workers on pairs of answers, ties allowed."""
    rows = list(read_csv(folder / "crowd-comparisons.csv"))
    counts = Counter(row["winner"] for row in rows)
    figures = agreement(map(ranking, rows))["preference"]
    quality = assess(map(vote, rows))
    busy = [profile for profile in quality.profiles.values() if profile.n_votes >= 30]
    return {
        **{f"votes: {name}": n for name, n in counts.items()},
        "workers": len({row["worker"] for row in rows}),
        "alpha, ordinal": figures["alpha"],
        "pairwise agreement": figures["pairwise"],
        "workers with 30 votes or more": len(busy),
        "of them suspected": sum(profile.is_suspect for profile in busy),
        "left wins of decided": counts["left"] / (counts["left"] + counts["right"]),
        "workers with a position bias (p < .01)": sum(
            profile.position.p is not None and profile.position.p < 0.01 for profile in busy
        ),
    }


def ranking(row: dict[str, str]) -> dict[str, Any]:
    ranks = {"left": [1, 2], "right": [2, 1], "tie": [1, 1]}[row["winner"]]
    return {
        "prompt_id": row["id"],
        "annotator": row["worker"],
        "responses": ["left", "right"],
        "ranks": {"preference": ranks},
    }


def vote(row: dict[str, str]) -> Vote:
    ranks = tuple(ranking(row)["ranks"]["preference"])
    return Vote(row["worker"], row["id"], (0, 1), ranks, (1, 1))


def read_csv(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        yield from csv.DictReader(file)


SETS: dict[str, Callable[[Path], Figures]] = {
    "convabuse": convabuse,
    "davidson_hate_offensive": davidson,
    "llmfao": llmfao,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    for name, reproduce in SETS.items():
        if not (data / name).is_dir():
            print(f"{name}: not in {data}, left out", file=sys.stderr)
            continue
        print(f"{name}: {(reproduce.__doc__ or '').splitlines()[0]}")
        for figure, value in reproduce(data / name).items():
            print(f"  {figure}: {value:.4f}" if value != int(value) else f"  {figure}: {value:.0f}")


if __name__ == "__main__":
    main()
