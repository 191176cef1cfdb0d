"""What the report says of a reward model, on pairs few enough to count."""

import math
import random

import pytest

from rlhf.training import reward_math, reward_report
from rlhf.training.reward_report import ScoredPair


def scored(difference, *, prompt="p", **more):
    return ScoredPair("helpfulness", prompt, difference, **more)


def test_accuracy_is_counted_by_strength_category_annotator_and_round():
    seen = [
        scored(1.0, prompt="a", annotator="ada", round="1", strength="far", category="how"),
        scored(2.0, prompt="b", annotator="ben", round="1", strength="far", category="how"),
        scored(-1.0, prompt="c", annotator="ben", round="2", strength="near", category="harm"),
        scored(0.0, prompt="d", annotator="ada", round="2", strength="near", category="how"),
    ]
    figures = reward_report.figures(seen, seed=0)
    assert figures["accuracy"] == 2.5 / 4  # one it can't tell apart counts a half
    by = figures["by"]
    assert {k: v["accuracy"] for k, v in by["strength"].items()} == {"far": 1.0, "near": 0.25}
    assert {k: v["accuracy"] for k, v in by["annotator"].items()} == {"ada": 0.75, "ben": 0.5}
    assert {k: v["n"] for k, v in by["category"].items()} == {"how": 3, "harm": 1}
    assert set(by["round"]) == {"1", "2"}


def test_people_are_compared_only_on_pairs_that_both_decided():
    seen = [
        scored(1.0, annotator="ada", strength="far"),
        scored(1.0, annotator="ben", strength="near"),
        scored(1.0, annotator="vera", strength="near"),
        scored(1.0, annotator="ada", strength="near"),
    ]
    # The first three decided pair x, ben the other way round; only ada decided pair y.
    keys = [("x", True), ("x", False), ("x", True), ("y", True)]
    reward_report.add_agreement(seen, keys)
    # ada-ben no, ada-vera yes, ben-vera no; each counted from both sides.
    assert reward_report.agreement(seen) == (pytest.approx(1 / 3), 6)
    figures = reward_report.figures(seen, seed=0)
    assert figures["human_agreement"] == pytest.approx(1 / 3)
    assert figures["by"]["strength"]["far"]["human_agreement"] == 0.5
    assert figures["by"]["annotator"]["ben"]["human_agreement"] == 0.0


def test_the_temperature_of_a_model_that_is_three_times_too_sure_is_three():
    generator = random.Random(0)
    differences = []
    for _ in range(20_000):
        true = generator.gauss(0, 1)
        # Whoever is preferred, the difference is figures from the side of the preferred one.
        side = 1 if generator.random() < reward_math.sigmoid(true) else -1
        differences.append(3 * true * side)
    assert reward_math.fit_temperature(differences) == pytest.approx(3, rel=0.08)


def test_the_temperature_by_hand():
    # Three right and one wrong at the same distance of 2: sigmoid(2 / T) must be 3/4.
    expected = 2 / math.log(3)
    assert reward_math.fit_temperature([2.0, 2.0, 2.0, -2.0]) == pytest.approx(expected, rel=1e-4)
    assert reward_math.fit_temperature([1.0, 1.0]) == 0.05
    assert reward_math.fit_temperature([-1.0, -1.0]) == 20.0


def test_a_fitted_temperature_improves_the_calibration_of_other_prompts():
    generator = random.Random(1)
    seen = []
    for number in range(3000):
        true = generator.gauss(0, 1)
        side = 1 if generator.random() < reward_math.sigmoid(true) else -1
        seen.append(scored(4 * true * side, prompt=str(number)))
    figures = reward_report.figures(seen, seed=0)
    assert figures["temperature"] == pytest.approx(4, rel=0.15)
    assert figures["ece"] > 0.15
    assert figures["ece_fitted"] < 0.05


def test_one_prompt_cannot_be_split_so_no_honest_figure_exists():
    assert reward_report.figures([scored(1.0), scored(-1.0)], seed=0)["ece_fitted"] is None


def test_people_who_agree_too_well_with_a_model_are_a_leak_and_programs_are_not():
    sure = {"accuracy": 0.81, "n": 100}
    (says,) = reward_report.warnings("train", "safety", sure, by_people=True)
    assert "leakage" in says
    assert "81%" in says
    assert reward_report.warnings("train", "safety", sure, by_people=False) == []
    assert reward_report.warnings("train", "safety", sure | {"accuracy": 0.8}, by_people=True) == []
    (says,) = reward_report.warnings("train", "safety", sure | {"n": 12}, by_people=True)
    assert "Only 12" in says


def test_members_are_combined_by_their_mean_their_least_or_their_spread():
    import torch

    scores = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert reward_math.combine_members(scores, "mean").tolist() == [2.0, 2.0]
    assert reward_math.combine_members(scores, "min").tolist() == [1.0, 2.0]
    # The standard deviation of 1 and 3 is 1.
    assert reward_math.combine_members(scores, "mean_std", penalty=2.0).tolist() == [0.0, 2.0]
    alone = torch.tensor([[5.0]])
    assert reward_math.combine_members(alone, "mean_std", penalty=2.0).tolist() == [5.0]


def test_right_on_every_pair_of_few_prompts_is_not_certainty():
    seen = [scored(1.0, prompt=str(i % 4)) for i in range(12)]
    figures = reward_report.figures(seen, seed=0)
    assert figures["accuracy"] == 1.0
    # Four prompts, not twelve: Clopper & Pearson's bound is 0.025 ** (1 / 4) = 0.398.
    assert figures["accuracy_ci"] == pytest.approx([0.398, 1.0], abs=1e-3)


def test_a_pair_that_the_model_scores_alike_is_half_right_and_perfectly_calibrated():
    error, points = reward_report.calibration([0.0, 0.0])
    assert error == 0.0
    assert points == [{"p": 0.5, "accuracy": 0.5, "n": 2}]
