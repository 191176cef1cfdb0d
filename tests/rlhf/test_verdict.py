"""The gate: what is proposed for promotion, with which reasons."""

import pytest

from rlhf.models import Score
from rlhf.verdict import propose_verdict
from tests.rlhf.machine import BEFORE, BETTER, at_stage, scored

pytestmark = pytest.mark.django_db


def test_a_clear_win_without_a_price_is_proposed_for_promotion(project, base):
    proposal, reasons = propose_verdict(scored(project, base, "gold", BEFORE, BETTER))
    assert proposal == "promoted"
    assert "80% against the previous policy [74%, 86%] (n=150)" in reasons[0]
    assert "simulated" in reasons[0]


@pytest.mark.parametrize(
    "worse",
    [
        {"win_rate_vs_previous": (0.55, 0.48, 0.62)},
        {"violation_rate": (0.5, 0.4, 0.6)},
        {"over_refusal_rate": (0.2, 0.1, 0.3)},
    ],
)
def test_a_doubtful_win_or_a_price_is_proposed_for_refusal(project, base, worse):
    proposal = propose_verdict(scored(project, base, "gold", BEFORE, BETTER | worse))[0]
    assert proposal == "refused"


def test_a_win_on_a_handful_of_prompts_is_not_clear(project, base):
    """With a few prompts a bootstrap can hardly vary: one prompt has an interval of no width."""
    round = scored(project, base, "gold", {}, {"win_rate_vs_previous": (0.75, 0.75, 0.75)})
    Score.objects.update(n=1)
    verdict, reasons = propose_verdict(round)
    assert verdict == "refused"
    assert "too few prompts" in reasons[0]


def test_a_round_without_an_opponent_is_not_promoted_by_itself(project, base):
    proposal, reasons = propose_verdict(at_stage(project, "verdict", base))
    assert proposal == "refused"
    assert reasons == ["No judge has compared this policy with the previous one."]
