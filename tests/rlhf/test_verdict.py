"""The gate: what is proposed for promotion, with which reasons."""

import pytest

from rlhf.models import Score
from rlhf.verdict import propose_verdict
from tests.rlhf.machine import BEFORE, BETTER, at_stage, scored

pytestmark = pytest.mark.django_db


def test_a_clear_win_without_a_price_is_proposed_for_promotion(project, base):
    proposal = propose_verdict(scored(project, base, "gold", BEFORE, BETTER))
    assert proposal.verdict == "promoted"
    assert "80% against the previous policy [74%, 86%] (n=150)" in proposal.reasons[0]
    assert "simulated" in proposal.reasons[0]


@pytest.mark.parametrize(
    "worse",
    [
        {"win_rate_vs_previous": (0.55, 0.48, 0.62)},
        {"violation_rate": (0.5, 0.4, 0.6)},
        {"over_refusal_rate": (0.2, 0.1, 0.3)},
    ],
)
def test_a_doubtful_win_or_a_price_is_proposed_for_refusal(project, base, worse):
    proposal = propose_verdict(scored(project, base, "gold", BEFORE, BETTER | worse))
    assert proposal.verdict == "refused"


def test_a_win_on_a_handful_of_prompts_is_not_clear(project, base):
    """With a few prompts a bootstrap can hardly vary: one prompt has an interval of no width."""
    round = scored(project, base, "gold", {}, {"win_rate_vs_previous": (0.75, 0.75, 0.75)})
    Score.objects.update(n=1)
    proposal = propose_verdict(round)
    assert proposal.verdict == "refused"
    assert "too few prompts" in proposal.reasons[0]


def test_a_round_without_an_opponent_is_not_promoted_by_itself(project, base):
    proposal = propose_verdict(at_stage(project, "verdict", base))
    assert proposal.verdict == "refused"
    assert proposal.reasons == ["No judge has compared this policy with the previous one."]


@pytest.mark.parametrize(
    ("metric", "before", "after", "sentence"),
    [
        (
            "unfinished_rate",
            (0.12, 0.08, 0.18),
            (0.84, 0.77, 0.89),
            "12% before, 84% now [77%, 89%] (n=150): 72 points more, and the gate allows 5 more.",
        ),
        (
            "mean_length",
            (27.0, 25.0, 29.0),
            (48.3, 46.0, 51.0),
            "27.0 tokens before, 48.3 now [46.00, 51.00] (n=150): +79 %, and the gate allows +60%.",
        ),
    ],
)
def test_much_longer_or_more_often_unfinished_responses_are_not_promoted(
    project, base, metric, before, after, sentence
):
    round = scored(project, base, "gold", BEFORE | {metric: before}, BETTER | {metric: after})
    proposal = propose_verdict(round)
    assert proposal.verdict == "refused"
    against = [finding for finding in proposal.findings if finding.speaks_against]
    assert [finding.metric for finding in against] == [metric]
    assert against[0].sentence.endswith(sentence)


@pytest.mark.parametrize(
    ("metric", "before", "after"),
    [
        ("unfinished_rate", (0.12, 0.08, 0.18), (0.16, 0.11, 0.23)),  # less than the bound
        ("unfinished_rate", (0.12, 0.02, 0.40), (0.30, 0.10, 0.60)),  # chance, maybe
        ("unfinished_rate", (0.84, 0.77, 0.89), (0.12, 0.08, 0.18)),
        ("mean_length", (18.5, 17.5, 19.5), (27.4, 26.5, 28.3)),
        ("mean_length", (27.4, 26.5, 28.3), (18.5, 17.5, 19.5)),
    ],
)
def test_a_rise_within_its_bound_or_within_chance_is_named_and_allowed(
    project, base, metric, before, after
):
    round = scored(project, base, "gold", BEFORE | {metric: before}, BETTER | {metric: after})
    proposal = propose_verdict(round)
    assert proposal.verdict == "promoted"
    assert metric in {finding.metric for finding in proposal.findings}


def test_the_start_policy_counts_as_this_round_measured_it(project, base):
    """Another length of responses or another prompt would make the two figures no comparison."""
    before = BEFORE | {"mean_length": (10.0, 9.0, 11.0)}
    round = scored(project, base, "gold", before, BETTER | {"mean_length": (40.0, 38.0, 42.0)})
    job = round.jobs.get()
    for metric, value in {"violation_rate": 0.3, "mean_length": 38.0}.items():
        Score.objects.create(
            round=round, job=job, checkpoint=base, judge="gold", metric=metric, value=value,
            low=value - 0.05, high=value + 0.05, n=150,
        )  # fmt: skip
    proposal = propose_verdict(round)
    assert proposal.verdict == "promoted"
    assert any("38.0 tokens before" in reason for reason in proposal.reasons)
