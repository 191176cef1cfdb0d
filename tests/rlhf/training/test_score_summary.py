"""Summaries of judged samples: what counts where, and how sure one may be."""

import pytest

from rlhf.training.intervals import mean_with_interval
from rlhf.training.score_summary import group_by_temperature, summarize, win_rate


def judged(prompt_id, preference, **more):
    row = {"prompt_id": prompt_id, "category": "how", "risk": "harmless", "n_tokens": 10}
    return row | {"helpfulness": preference, "safety": 0.0, "preference": preference} | more


def test_every_sample_meets_every_sample_of_the_opponent_and_ties_are_half():
    mine = [judged("a", 2.0), judged("a", 1.0)]
    theirs = [judged("a", 1.0), judged("a", 0.0), judged("b", 9.0)]
    # 2 beats both; 1 ties one and beats the other: (1 + 1 + 0.5 + 1) / 4.
    figure = win_rate(mine, theirs)
    assert figure["value"] == pytest.approx(3.5 / 4)
    assert figure["n"] == 1


def test_without_a_common_prompt_there_is_no_win_rate():
    assert win_rate([judged("a", 1.0)], [judged("b", 1.0)]) is None
    assert win_rate([judged("a", 1.0)], None) is None


def test_the_interval_comes_from_prompts_not_from_samples():
    # Ten samples each of two prompts that disagree completely: two observations, not twenty.
    values, prompts = [0.0] * 10 + [1.0] * 10, ["a"] * 10 + ["b"] * 10
    mean, (low, high), n = mean_with_interval(values, prompts)
    assert (mean, low, high, n) == (0.5, 0.0, 1.0, 2)


def test_the_interval_of_many_prompts_is_near_the_textbook_one():
    values = [float(i % 2) for i in range(400)]
    _, (low, high), _ = mean_with_interval(values, [str(i) for i in range(400)])
    assert low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_a_summary_keeps_harmful_prompts_out_of_helpfulness_and_harmless_ones_out_of_safety():
    samples = [
        judged("a", 1.0, refusal=False, entity=1.0, correct=True, n_tokens=20),
        judged("b", 3.0, refusal=True, entity=0.0, correct=False, n_tokens=30),
        judged("c", 5.0, risk="harmful", safety=2.0, violation=True, category="harm"),
        judged("d", 5.0, risk="harmful", safety=4.0, violation=False, category="harm"),
    ]
    summary = summarize(samples, {"base": [judged("a", 0.0)]})
    assert summary["helpfulness"]["score"] == 2.0
    assert summary["safety"]["score"] == 3.0
    assert summary["violation_rate"]["value"] == 0.5
    assert summary["over_refusal_rate"]["value"] == 0.5
    assert summary["entity_accuracy"]["value"] == 0.5
    assert summary["correct_rate"]["value"] == 0.5
    length = summary["mean_length"]
    assert (length["value"], length["n"]) == (17.5, 4), "every prompt counts, harmful ones too"
    assert length["ci"][0] < 17.5 < length["ci"][1]
    assert summary["win_rate_vs_base"]["value"] == 1.0
    assert summary["win_rate_vs_previous"] is None
    assert summary["by_category"]["harm"]["score"] == 5.0
    assert summary["by_category"]["harm"]["win_rate_vs_base"] is None


def test_a_judge_who_cannot_tell_violations_reports_none():
    assert summarize([judged("a", 1.0)], {})["violation_rate"] is None


def test_rows_are_grouped_by_temperature_the_highest_first():
    rows = [{"temperature": 0.3}, {"temperature": 1}, {"temperature": 0.3}]
    groups = group_by_temperature(rows)
    assert list(groups) == ["1.0", "0.3"]
    assert len(groups["0.3"]) == 2


def test_the_same_samples_give_the_same_interval_again():
    samples = [judged(str(i), float(i % 3)) for i in range(20)]
    assert summarize(samples, {}) == summarize(samples, {})


def test_a_rate_of_none_has_the_exact_bound_because_a_bootstrap_cannot_vary():
    harmless = [judged(str(i), 1.0, risk="harmful", violation=False) for i in range(60)]
    figure = summarize(harmless, {})["violation_rate"]
    # Clopper & Pearson: 1 - 0.025 ** (1 / 60) = 0.0596
    assert figure["value"] == 0.0
    assert figure["ci"] == pytest.approx([0.0, 0.0596], abs=1e-4)


def test_a_mean_of_one_that_is_no_share_gets_no_bound_of_a_share():
    figure = summarize([judged(str(i), 0.0, n_tokens=1) for i in range(20)], {})
    assert figure["mean_length"] == {"value": 1.0, "ci": [1.0, 1.0], "n": 20}


def test_unfinished_responses_are_a_share_with_wilsons_interval_by_prompt():
    samples = [
        judged(str(i // 2), 1.0) | {"finished": i % 4 != 0} for i in range(40)
    ]  # 20 prompts with two responses each
    figure = summarize(samples, {})["unfinished_rate"]
    assert (figure["value"], figure["n"]) == (0.25, 20)
    assert figure["ci"] == pytest.approx([0.112, 0.469], abs=1e-3)
    assert summarize([judged("a", 1.0)], {})["unfinished_rate"] is None, "nobody has counted"
