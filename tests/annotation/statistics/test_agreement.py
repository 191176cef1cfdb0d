"""Agreement against published values, values worked by hand, and evalica itself."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from annotation.protocols import BELOW
from annotation.statistics.agreement import (
    agreement,
    agreement_by_annotator,
    agreement_by_category,
    coincidences,
    ordinal_alpha,
    ranks_of_distinct,
)
from benchmarks.published_agreement import by_evalica


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


def test_tau_by_hand():
    # Kendall 1945: no ties, 5 of 6 pairs alike: (5 - 1) / 6.
    assert figures(rows((1, 2, 3, 4), (1, 2, 4, 3)))["tau"] == pytest.approx(4 / 6)
    # One tie on one side: (2 - 0) / sqrt((3 - 1) * 3).
    assert figures(rows((1, 1, 2), (1, 2, 3)))["tau"] == pytest.approx(2 / 6**0.5)
    # Who ties everything has no order; the other two agree wholly.
    assert figures(rows((1, 1, 1), (1, 2, 3), (1, 2, 3)))["tau"] == 1
    assert figures(rows((1, 2, 3), (3, 2, 1)))["tau"] == -1
    assert figures(rows((1, 1), (1, 1)))["tau"] is None


def test_each_category_and_each_annotator_has_figures_of_its_own():
    given = rows((1, 2), (1, 2), (2, 1)) + rows((1, 2), (1, 2), (2, 1), prompt="q")
    for row in given:
        row["category"] = "cooking" if row["prompt_id"] == "p" else "law"
    by_category = agreement_by_category(given)
    assert list(by_category) == ["cooking", "law"]
    assert by_category["law"]["helpfulness"]["n_comparisons"] == 1
    by_person = agreement_by_annotator(given)
    # Persons 0 and 1 agree with each other and not with person 2, who agrees with nobody.
    assert by_person["person 0"]["helpfulness"]["pairwise"] == pytest.approx(0.5)
    assert by_person["person 2"]["helpfulness"]["pairwise"] == 0
    assert by_person["person 2"]["helpfulness"]["tau"] == -1
    assert by_person["person 0"]["helpfulness"]["n_pairs"] == 4
    assert by_person["person 0"]["helpfulness"]["pairwise_ci"] == [0.5, 0.5]


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


def test_figures_load_no_library_that_takes_seconds():
    """A process's first figures came after pandas and scipy, for one number of each table."""
    program = """
import sys
from annotation.statistics.agreement import agreement
told = {"prompt_id": "p", "responses": ["a", "b"]}
rows = [{**told, "annotator": who, "ranks": {"x": [1, 2]}} for who in ("ada", "ben")]
assert agreement(rows)["x"]["alpha"] == 1
print([name for name in ("evalica", "pandas", "scipy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_our_alpha_is_evalicas():
    generator = np.random.default_rng(1)
    for _ in range(20):
        units = [
            [int(v) for v in generator.integers(1, 5, size=generator.integers(2, 5))]
            for _ in range(30)
        ]
        values = sorted({value for unit in units for value in unit})
        own = ordinal_alpha(coincidences(units, values))
        assert own == pytest.approx(by_evalica(units, "ordinal"), abs=1e-9)


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
        assert by_evalica(units, metric) == pytest.approx(expected[metric], abs=1e-9)
    values = sorted({value for unit in units for value in unit})
    assert ordinal_alpha(coincidences(units, values)) == pytest.approx(expected["ordinal"])


def test_fleiss_kappa_as_published():
    """Fleiss's kappa of n raters on N items is alpha without its correction for few items:

    alpha = kappa + (1 - kappa) / (n N) (Krippendorff 2018, ch. 12).
    """
    folder = os.environ.get("REFERENCE_FITS")
    if not folder:
        pytest.skip("set REFERENCE_FITS to the folder with fleiss1971_diagnoses_sorted.csv")
    for name, printed in (("fleiss1971_diagnoses_sorted", 0.43), ("fleiss_wikipedia_counts", 0.21)):
        with (Path(folder) / f"{name}.csv").open() as file:
            table = [[cell for cell in line if cell] for line in csv.reader(file)]
        units = _fleiss_units(table, counts="counts" in name)
        size = sum(map(len, units))
        alpha = by_evalica(units, "nominal")
        assert (alpha * size - 1) / (size - 1) == pytest.approx(printed, abs=0.005), name


def _fleiss_units(table, *, counts):
    """Rows of labels, or rows of how many raters chose each label."""
    if not counts:
        return [[int(cell) for cell in line] for line in table]
    return [[label for label, n in enumerate(line) for _ in range(int(n))] for line in table]


def test_figures_of_released_annotations_are_reproduced():
    """What the data's description gives, to the printed digit; see benchmarks/published_agreement."""
    folder = os.environ.get("REAL_DATA")
    if not folder:
        pytest.skip("set REAL_DATA to the folder with convabuse and davidson_hate_offensive")
    from benchmarks import published_agreement

    found = published_agreement.convabuse(Path(folder) / "convabuse")
    printed = {"nominal": 0.4374, "ordinal": 0.6598, "interval": 0.7339}
    for metric, value in printed.items():
        assert round(found[f"alpha, {metric}"], 4) == value
    assert round(found["alpha, ordinal, CarbonBot"], 4) == 0.6241
    assert round(found["alpha, ordinal, E.L.I.Z.A."], 4) == 0.6553
    found = published_agreement.davidson(Path(folder) / "davidson_hate_offensive")
    assert round(found["Fleiss kappa"], 4) == 0.5495
    assert round(found["observed agreement"], 4) == 0.8104
    found = published_agreement.llmfao(Path(folder) / "llmfao")
    votes = [found[f"votes: {side}"] for side in ("left", "right", "tie")]
    assert votes == [2911, 2549, 3471]
    assert found["workers"] == 124


def test_what_a_top_k_ranking_left_out_is_behind_what_it_has():
    def top(*rankings):
        return [{**row, "unranked": "below"} for row in rows(*rankings)]

    # Both put a first and leave c and d: a-b, a-c, a-d alike; what neither compared is not counted.
    found = figures(top((1, None, None, None), (1, None, None, None)))
    assert (found["pairwise"], found["n_pairs"], found["n_units"]) == (1, 3, 4)
    # a against b: a-b against; a-c and b-d: each compared by both; a-d, b-c too; c-d by neither.
    found = figures(top((1, None, None, None), (None, 1, None, None)))
    assert (found["pairwise"], found["n_pairs"]) == (0, 1)
    # Without "below" they have one response each and nothing in common.
    assert figures(rows((1, None, None, None), (None, 1, None, None)))["n_pairs"] == 0


def test_responses_with_equal_texts_are_one_response():
    """Two people who agree on everything that can be told apart."""
    rows = [
        {
            "prompt_id": f"p{number}",
            "responses": ["same", "good", "same"],
            "annotator": annotator,
            "ranks": {"helpfulness": ranks},
        }
        for number in range(12)
        for annotator, ranks in (("ada", [2, 1, 3]), ("ben", [3, 1, 2]))
    ]
    figures = agreement(rows)["helpfulness"]
    assert (figures["alpha"], figures["pairwise"], figures["tau"]) == (1.0, 1.0, 1.0)
    assert figures["n_pairs"] == 12


@pytest.mark.parametrize(
    ("texts", "ranks", "distinct"),
    [
        (["a", "b", "c"], [3, 1, 2], (3, 1, 2)),
        (["a", "b", "a"], [3, 1, 2], (2, 1)),
        (["a", "b", "a"], [None, 1, 2], (2, 1)),
        (["a", "b", "a", "c"], [1, 2, 3, None], (1, 2, None)),
        (["a", "b", "a"], [BELOW, 1, BELOW], (BELOW, 1)),
        (["a", "a"], [1, 2], (1,)),
    ],
)
def test_equal_texts_have_the_best_of_their_ranks(texts, ranks, distinct):
    assert ranks_of_distinct(texts, ranks) == distinct


def test_one_person_who_ranks_the_same_again_agrees_with_nobody():
    rows = [
        {
            "prompt_id": "p",
            "responses": ["x", "y"],
            "annotator": "imported-1",
            "ranks": {"safety": ranks},
        }
        for ranks in ([1, 2], [2, 1])
    ]
    figures = agreement(rows)["safety"]
    assert (figures["pairwise"], figures["alpha"], figures["n_annotators"]) == (None, None, 1)
