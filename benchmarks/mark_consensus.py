"""How near a consensus of marks comes to the truth: plain, weighed by skill, and by Dawid-Skene.

    python -m benchmarks.mark_consensus --seeds 20

Simulated people mark two responses a comparison from 1 to 7. True marks are normal (mean 4, standard
deviation 1.6); honest people add a lean of their own (.4) and noise (.8); half of the spammers mark at
random, half always give 5. Printed is the mean distance to the true mark of: the mean and the median
of the marks as given; the mean weighed by skill, which the product uses; the median of the posterior
of a Dawid-Skene model with one class a mark.
"""

import argparse
import random
from statistics import fmean, median

import numpy as np

from annotation.statistics.consensus import consensus_of_marks
from annotation.statistics.dawid_skene import dawid_skene
from annotation.statistics.labels import Rating
from annotation.statistics.reliability import assess

MARK = "mark:quality"
CASES = ((30, 3, 0, 3), (30, 3, 1, 3), (100, 8, 2, 2), (300, 8, 2, 3), (300, 8, 2, 5))


def clipped(mark: float) -> int:
    return max(1, min(7, round(mark)))


def distances(n: int, honest: int, spammers: int, overlap: int, seed: int) -> list[float]:
    """Mean distance to the truth of each kind of consensus, over 2n responses."""
    generator = random.Random(seed)
    names = [f"honest {i}" for i in range(honest)] + [f"spammer {i}" for i in range(spammers)]
    leans = {who: generator.gauss(0, 0.4) for who in names}
    ratings: list[Rating] = []
    truth: list[int] = []
    given: list[list[tuple[str, int]]] = []
    for unit in range(n):
        truths = [clipped(generator.gauss(4, 1.6)) for _ in range(2)]
        truth += truths
        given += [[], []]
        for who in generator.sample(names, overlap):
            if who.startswith("honest"):
                marks = [clipped(true + leans[who] + generator.gauss(0, 0.8)) for true in truths]
            else:
                marks = [generator.randint(1, 7) if who[-1] in "13579" else 5 for _ in truths]
            ratings.append(Rating(who, unit, (0, 1), {MARK: tuple(marks)}, (10, 10)))
            for place, mark in enumerate(marks):
                given[-2 + place].append((who, mark))
    found = assess([], ratings)
    rows = [(item, names.index(who), mark - 1) for item, of in enumerate(given) for who, mark in of]
    model = dawid_skene(*np.array(rows).T, 7, prior=2.0)
    by_model = 1 + (model.truth.cumsum(axis=1) >= 0.5).argmax(axis=1)
    told = [
        (
            *(of(mark for _, mark in said) for of in (fmean, median)),
            consensus_of_marks(
                [mark for _, mark in said], [found.weight(who, MARK) for who, _ in said]
            ).weighted,
            posterior,
        )
        for said, posterior in zip(given, by_model, strict=True)
    ]
    return [
        fmean(abs(a - b) for a, b in zip(of, truth, strict=True)) for of in zip(*told, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args()
    print(
        "| comparisons | honest | spammers | overlap | mean | median | weighed by skill | Dawid-Skene |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for case in CASES:
        of = np.mean([distances(*case, seed) for seed in range(asked.seeds)], axis=0)
        print(
            "| " + " | ".join([*map(str, case), *(f"{value:.3f}" for value in of)]) + " |",
            flush=True,
        )


if __name__ == "__main__":
    main()
