"""The dashboard says what the numbers support, and every number leads to what it came from."""

import csv
import io

import pytest

from rlhf.dashboard import score_panels
from rlhf.dashboard.category_panel import by_category
from rlhf.dashboard.evidence import load_evidence
from rlhf.dashboard.panels import PANELS, all_panels
from rlhf.dashboard.reward_panel import reward_report
from rlhf.dashboard.tables import table_as_csv
from rlhf.dashboard.training_panels import agreement
from rlhf.models import Score
from tests.rlhf.factories import measured, new_round, rm_result, score

pytestmark = pytest.mark.django_db


def finding(project, panel="scores", **options):
    return PANELS[panel](load_evidence(project, **options)).finding


def set_figure(round, metric, value, half, judge="gold"):
    Score.objects.filter(round=round, metric=metric, judge=judge, category="").update(
        value=value, low=value - half, high=value + half
    )


def test_the_finding_names_what_rose_and_what_did_not(mission, project):
    assert finding(project) == "Safety rose in round 2; no clear change in helpfulness"


def test_a_fall_is_told_as_a_fall(mission, project):
    set_figure(mission["rounds"][2], "safety", 0.5, 0.04)
    assert finding(project) == "Safety fell in round 2; no clear change in helpfulness"


def test_wide_intervals_make_no_claim(mission, project):
    for axis in ("safety", "helpfulness"):
        set_figure(mission["rounds"][2], axis, 0.99, 0.6)
    assert finding(project).startswith("No clear change in round 2")


def test_both_axes_rising_are_told_together(mission, project):
    set_figure(mission["rounds"][2], "helpfulness", 0.9, 0.04)
    assert finding(project) == "Safety and helpfulness rose in round 2"


def test_reward_models_of_different_rounds_are_not_compared(mission, project):
    assert "own scale" in finding(project, judge="model")


def test_a_reward_model_compares_with_the_start_policy_that_it_scored_itself(mission, project):
    second = mission["rounds"][2]
    job = second.jobs.get(stage="evaluate")
    start = second.start_policy
    for axis, value in (("safety", 0.2), ("helpfulness", 0.62)):
        score(second, job, start, "model", axis, value, 0.04)
    assert (
        finding(project, judge="model") == "Safety rose in round 2; no clear change in helpfulness"
    )


def test_the_opponents_scores_are_not_taken_for_the_rounds_own(mission, project):
    second = mission["rounds"][2]
    job = second.jobs.get(stage="evaluate")
    score(second, job, second.start_policy, "gold", "violation_rate", 0.99, 0.01)
    newest = load_evidence(project, judge="gold").measured[-1]
    assert newest.estimates["violation_rate"].value == 0.02


def test_win_rates_are_won_only_above_one_half(mission, project):
    assert finding(project, "win_rates") == (
        "Round 2 beats the base (86 %) and beats the previous round (61 %)"
    )
    set_figure(mission["rounds"][2], "win_rate_vs_previous", 0.53, 0.06)
    assert "ties with the previous round (53 %; the interval includes 50 %)" in finding(
        project, "win_rates"
    )


def test_an_unknown_judge_or_temperature_falls_back_to_what_there_is(mission, project):
    evidence = load_evidence(project, "nobody", "warm")
    assert (evidence.judge, evidence.temperature) == ("gold", 1.0)
    assert load_evidence(project, "model", "0.3").temperature == 0.3


def test_a_reward_model_cant_measure_violations_and_the_panel_says_so(mission, project):
    panel = score_panels.trade_off(load_evidence(project, "model"))
    assert panel.is_empty
    assert "can't tell compliance from refusal" in panel.empty


def test_the_rubrics_panels_are_marked_simulated_and_the_reward_models_are_not(mission, project):
    assert score_panels.scores(load_evidence(project, "gold")).is_simulated
    assert not score_panels.scores(load_evidence(project, "model")).is_simulated


def test_an_empty_project_has_panels_that_say_what_will_appear(project):
    for panel in all_panels(load_evidence(project)):
        assert panel.is_empty
        assert panel.empty


def test_every_panel_gives_its_table_as_csv_with_intervals(mission, project):
    evidence = load_evidence(project)
    for build in PANELS.values():
        rows = list(csv.reader(io.StringIO(table_as_csv(build(evidence).table))))
        assert len(rows) > 1
        assert {len(row) for row in rows} == {len(rows[0])}
    rows = list(csv.DictReader(io.StringIO(table_as_csv(score_panels.scores(evidence).table))))
    assert rows[2]["Safety"] == "0.94"
    assert rows[2]["Safety: from"] == "0.9"
    assert rows[2]["Safety: n"] == "150"


def test_a_category_that_is_a_formula_is_harmless_in_a_spreadsheet(mission, project):
    second = mission["rounds"][2]
    job = second.jobs.get(stage="evaluate")
    score(second, job, second.policy, "gold", "score", 0.5, 0.1, category='=HYPERLINK("x")')
    table = by_category(load_evidence(project)).table
    assert "'=HYPERLINK" in table_as_csv(table)


def test_the_number_of_queries_does_not_grow_with_the_rounds(
    mission, project, django_assert_max_num_queries
):
    start = mission["policies"][-1]
    for number in range(10, 16):
        round = new_round(project, number, start=start)
        round.policy = start
        round.save()
        measured(round, start, 2)
    with django_assert_max_num_queries(3):
        all_panels(load_evidence(project))


def test_the_reward_report_draws_human_agreement_with_the_models_accuracy():
    report = reward_report(rm_result())
    assert [line.text for line in report.accuracy.chart.lines] == ["chance"]
    agreement = report.accuracy.chart.series[-1]
    assert agreement.name == "human agreement"
    # For each axis its own: people may agree on safety and not on helpfulness.
    assert [p.mark.estimate.value for p in agreement.points] == [0.7, 0.81]
    assert report.calibration.chart.series[0].name == "perfectly calibrated"
    assert reward_report({}) is None
    assert reward_report({"train": {"helpfulness": {"accuracy": None}}}) is None


def test_the_breakdown_has_accuracy_and_human_agreement_of_each_part():
    result = rm_result()
    figures = {"accuracy": 0.7, "accuracy_ci": [0.6, 0.8], "n": 40, "human_agreement": 0.75}
    result["train"]["helpfulness"]["by"] = {"strength": {"2 ranks apart": figures}, "round": {}}
    table = reward_report(result).breakdown
    cells = [cell.text for cell in table.rows[0]]
    assert cells[:3] == ["helpfulness", "strength", "2 ranks apart"]
    assert cells[6:] == ["40", "75%"] or cells[-1].startswith("75")
    assert len(table.body) == 1
    # Results from before there were breakdowns have none.
    assert reward_report(rm_result()).breakdown.rows == []


def test_accuracy_on_a_single_prompt_has_no_interval():
    result = rm_result()
    result["train"]["safety"] |= {"accuracy": 0.5, "accuracy_ci": [0.5, 0.5]}
    row = reward_report(result).table.rows[1]
    assert [cell.text for cell in row[1:5]] == ["safety", "50 %", "–", "–"]


def test_a_single_prompt_supports_no_claim(mission, project):
    Score.objects.filter(round=mission["rounds"][2], category="facts").update(
        value=0.1, low=0.1, high=0.1, n=1
    )
    assert finding(project, "categories") == "No category shows a clear change in round 2"
    table = by_category(load_evidence(project)).table
    row = next(r for r in table.rows if r[0].text == "R2" and r[1].text == "facts")
    assert (row[3].text, row[4].text) == ("–", "–"), "an interval of no width is none"


def test_reward_models_scores_of_different_rounds_are_not_joined_by_a_line(mission, project):
    lines = score_panels.scores(load_evidence(project, "gold")).drawings[0].chart.series[0]
    apart = score_panels.scores(load_evidence(project, "model")).drawings[0].chart.series[0]
    assert lines.segments
    assert not apart.segments


def test_agreement_with_programs_is_marked_simulated(mission, project):
    assert not agreement(load_evidence(project)).is_simulated
    snapshot = mission["rounds"][1].snapshot
    snapshot.counts = {"simulated_annotators": 5}
    snapshot.save()
    assert agreement(load_evidence(project)).is_simulated


def test_length_is_called_longer_only_where_the_intervals_part(mission, project):
    assert finding(project, "length") == (
        "Answers are 27 tokens long on average, +29 % against the base policy"
    )
    set_figure(mission["rounds"][2], "mean_length", 21.4, 0.6)
    assert finding(project, "length").endswith("21.4 tokens long on average, "
                                               "no clear change against the base policy")  # fmt: skip


def test_a_category_that_the_last_round_did_not_measure_has_not_moved_in_it(mission, project):
    Score.objects.filter(round=mission["rounds"][0], category="harm").update(
        value=0.1, low=0.05, high=0.15
    )
    Score.objects.filter(round=mission["rounds"][1], category="harm").update(
        value=0.9, low=0.85, high=0.95
    )
    Score.objects.filter(round=mission["rounds"][2], category="harm").delete()
    assert "harm" not in finding(project, "categories").lower()
