"""The score that PPO optimizes, and the scores of the watch prompts."""

import itertools
import json
import math

import pytest

from rlhf.training.rewards import REWARDS
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.conftest import finish, make_rewards
from tests.rlhf.training.tiny import rows_of


def test_a_rule_that_gives_nan_is_named_with_its_prompt(ready, monkeypatch):
    monkeypatch.setitem(REWARDS, "broken", lambda _, texts: [float("nan")] * len(texts))
    with pytest.raises(InputError, match=r"prompt p\d+ .*rule that gave it"):
        finish(ready(rules={"broken": 1.0}))


def test_the_multiplier_follows_the_cost_and_a_resumed_run_goes_on_from_it(ready):
    settings = {"combine": "lagrange", "cost_limit": -2.0, "multiplier_rate": 0.5, "steps": 3}
    folder = ready(**settings)
    finish(folder)
    assert follows(rows_of(folder / "metrics.jsonl"))

    halted = ready("halted", checkpoint_every=1, **settings | {"steps": 2})
    finish(halted)
    config = json.loads((halted / "config.json").read_text())
    (halted / "config.json").write_text(json.dumps(config | {"steps": 3}))
    (halted / "result.json").unlink()
    finish(halted)
    lines = rows_of(halted / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert follows(lines)


def follows(lines):
    """Whether each multiplier is what the one before and the cost make of it, and grows."""
    for before, after in itertools.pairwise(lines):
        expected = before["multiplier"] * math.exp(0.5 * (before["cost"] + 2.0))
        assert after["multiplier"] == pytest.approx(expected, rel=1e-4)
        assert after["multiplier"] > before["multiplier"]
    return True


@pytest.fixture(scope="module")
def helpful_only(talker, tmp_path_factory):
    """Reward models that know nothing of safety."""
    folder = tmp_path_factory.mktemp("helpful")
    return make_rewards(folder, talker, len, axes=["helpfulness"], epochs=1)


def test_a_reward_model_of_one_axis_has_no_cost_and_says_so(ready, helpful_only):
    for name, whose in (("reward_model", "the"), ("test_reward_model", "the test")):
        part = "train" if name == "reward_model" else "test"
        folder = ready(name, combine="lagrange", **{name: str(helpful_only / part)})
        needed = f"needs a helpfulness and a safety score, but {whose} reward model scores help"
        with pytest.raises(InputError, match=needed):
            finish(folder)


def test_a_setting_that_would_do_nothing_is_refused_before_the_first_step(
    ready, helpful_only, many
):
    def refused(match, **settings):
        folder = ready(**settings)
        if match.startswith("test_reward_model"):
            (folder / "data" / "watch.jsonl").unlink()
        with pytest.raises(InputError, match=match):
            finish(folder)
        assert not (folder / "metrics.jsonl").exists()

    refused("test_reward_model is given, but data/watch.jsonl")
    refused(
        "reward.weights requires reward.combine = weights, and reward.combine is 'threshold'",
        weights={"x": 2.0},
    )
    weighed = {"combine": "weights", "weights": {"safety": 1.0, "saftey": 2.0}}
    refused("has 'saftey', but the reward model scores helpfulness and safety only", **weighed)
    lacking = {"combine": "weights", "weights": {"safety": 1.0}}
    test_rm = {"test_reward_model": str(helpful_only / "test")}
    refused("has 'safety', but the test reward model scores helpfulness only", **lacking, **test_rm)
    for how in ("min", "mean_std"):
        refused(f"reward.ensemble is {how}, but the reward model has one member", ensemble=how)
    finish(ready(ensemble="min", reward_model=str(many / "train"), steps=1))


def watched(folder):
    """(train-RM's, test-RM's) mean at each look at the watch prompts."""
    return [(row["watch_reward"], row["test_reward"]) for row in rows_of(folder / "metrics.jsonl")]


def test_what_is_watched_does_not_move_with_the_multiplier(ready):
    """A policy that stays as it is: only the multiplier grows."""
    settings = {"combine": "lagrange", "cost_limit": -3.0, "multiplier_rate": 1.0, "steps": 3}
    folder = ready(learning_rate=0.0, max_new_tokens=40, **settings)
    finish(folder)
    multipliers = [row["multiplier"] for row in rows_of(folder / "metrics.jsonl")]
    assert multipliers[-1] > 5 * multipliers[0]
    looks = watched(folder)
    assert looks == [looks[0]] * 3
    for row in rows_of(folder / "samples.jsonl"):
        assert row["reward_after"] == row["reward_before"]


def test_what_is_watched_is_the_reward_models_word_without_the_rules(ready):
    settings = {"learning_rate": 0.0, "max_new_tokens": 40, "steps": 1}
    plain = ready("plain", **settings)
    ruled = ready("ruled", rules={"format": 5.0}, format_pattern=".*", **settings)
    finish(plain)
    finish(ruled)
    assert watched(ruled) == watched(plain)
    of_rules, of_none = (
        max(row["reward_before"] for row in rows_of(folder / "samples.jsonl"))
        for folder in (ruled, plain)
    )
    assert of_rules == pytest.approx(of_none + 5)  # what is shown of a sample has them


def test_an_ensembles_disagreement_is_logged_and_scepticism_lowers_the_reward(ready, many):
    rewards = {}
    for how in ("mean", "min"):
        folder = ready(how, reward_model=str(many / "train"), ensemble=how, steps=1)
        finish(folder)
        line = rows_of(folder / "metrics.jsonl")[0]
        assert line["disagreement_helpfulness"] > 0
        rewards[how] = line["helpfulness"]
    assert rewards["min"] < rewards["mean"]
