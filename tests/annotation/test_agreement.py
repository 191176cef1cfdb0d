"""Agreement against published values, values worked by hand, and evalica itself."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from annotation.agreement import agreement, coincidences, krippendorff, ordinal_alpha


def rows(*rankings, prompt="p", texts="abcd"):
    """One comparison ranked by as many people as there are rankings."""
    return [
        {
            "prompt_id": prompt,
            "annotator": f"person {number}",
            "responses": list(texts[: len(ranks)]),
            "ranks": {"helpfulness": list(ranks)},
        }
        for number, ranks in enumerate(rankings)
    ]


def figures(*groups):
    return agreement([row for group in groups for row in group])["helpfulness"]


def test_two_people_who_say_the_same_agree_wholly():
    found = figures(rows((1, 2, 3), (1, 2, 3)), rows((2, 1, 3), (2, 1, 3), prompt="q"))
    assert found["alpha"] == found["pairwise"] == 1
    assert found["alpha_ci"] == found["pairwise_ci"] == [1, 1]
    assert (found["n_units"], found["n_comparisons"], found["n_pairs"]) == (6, 2, 6)
    assert (found["n_judgments"], found["n_annotators"]) == (4, 2)


def test_pairwise_counts_a_tie_against_an_order_as_a_half():
    # a-b: both a first, 1. a-c: a first against tied, 1/2. b-c: b first against c first, 0.
    found = figures(rows((1, 2, 3), (1, 2, 1)))
    assert found["pairwise"] == pytest.approx(1.5 / 3)
    assert figures(rows((1, 1, 2), (1, 1, 2)))["pairwise"] == 1


def test_one_comparison_gives_no_interval():
    found = figures(rows((1, 2), (2, 1)))
    assert found["pairwise"] == 0
    assert found["pairwise_ci"] is None
    assert found["alpha_ci"] is None


def test_alpha_by_hand():
    # Two people, two responses, opposite orders, and the same again in one order:
    # units (1,2) (2,1) (1,1) (2,2). Coincidences: o11 = 2, o12 = o21 = 2, o22 = 2; n1 = n2 = 4.
    # With two values the distance cancels: alpha = 1 - (n-1) o12 / (n1 n2) = 1 - 7*2/16 = 0.125.
    found = figures(rows((1, 2), (2, 1)), rows((1, 2), (1, 2), prompt="q"))
    assert found["alpha"] == pytest.approx(0.125)


def test_nothing_that_overlaps_is_a_reason_and_not_a_number():
    found = figures(rows((1, 2)), rows((1, 2), prompt="q"))
    assert found["alpha"] is None
    assert found["pairwise"] is None
    assert "two people" in found["reason"]
    assert found["n_judgments"] == 2
    assert agreement([]) == {}


def test_everybody_who_ties_everything_leaves_alpha_undefined():
    found = figures(rows((1, 1), (1, 1)))
    assert found["alpha"] is None
    assert found["pairwise"] == 1
    assert "same rank" in found["reason"]


def test_a_response_that_one_did_not_rank_is_missing_and_not_last():
    found = figures(rows((1, 2, None), (1, 2, 3)))
    assert (found["n_units"], found["n_pairs"], found["pairwise"]) == (2, 1, 1)


def test_the_bootstraps_own_alpha_is_evalicas():
    generator = np.random.default_rng(1)
    for _ in range(20):
        units = [
            [int(v) for v in generator.integers(1, 5, size=generator.integers(2, 5))]
            for _ in range(30)
        ]
        values = sorted({value for unit in units for value in unit})
        own = ordinal_alpha(coincidences(units, values))
        assert own == pytest.approx(krippendorff(units), abs=1e-9)


def test_the_interval_covers_what_more_of_the_same_would_give():
    generator = np.random.default_rng(2)

    def said(n):
        for number in range(n):
            truth = generator.permutation([1, 2, 3])
            other = truth if generator.random() < 0.7 else generator.permutation([1, 2, 3])
            yield from rows(truth.tolist(), other.tolist(), prompt=f"p{n}-{number}")

    few, many = figures(list(said(80))), figures(list(said(3000)))
    for name in ("alpha", "pairwise"):
        low, high = few[f"{name}_ci"]
        assert low < many[name] < high
        assert many[f"{name}_ci"][1] - many[f"{name}_ci"][0] < (high - low) / 3


def test_krippendorffs_published_example():
    folder = os.environ.get("REFERENCE_FITS")
    if not folder:
        pytest.skip("set REFERENCE_FITS to the folder with codings.csv and expected.json")
    with (Path(folder) / "codings.csv").open() as file:
        observers = list(csv.reader(file))
    units = [[int(v) for v in column if v] for column in zip(*observers, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    expected = next(iter(json.loads((Path(folder) / "expected.json").read_text()).values()))
    for metric in ("nominal", "ordinal", "interval"):
        assert krippendorff(units, metric) == pytest.approx(expected[metric], abs=1e-9)
    values = sorted({value for unit in units for value in unit})
    assert ordinal_alpha(coincidences(units, values)) == pytest.approx(expected["ordinal"])
