"""Every option of PPO does something: none is read and then forgotten, as TRL's `max_grad_norm` was."""

import json

import pytest

from rlhf.training.configs import PPOConfig
from rlhf.training.settings import FROZEN, IdleError
from tests.rlhf.training.conftest import finish, weights

# What each option is changed to, and what must be chosen with it to matter.
OPTIONS = {
    "steps": {"steps": 3},
    "rollout.prompts_per_step": {"rollout.prompts_per_step": 8},
    "rollout.samples_per_prompt": {"rollout.samples_per_prompt": 2},
    "rollout.max_new_tokens": {"rollout.max_new_tokens": 5},
    "rollout.temperature": {"rollout.temperature": 0.8},
    "optimizer.epochs": {"optimizer.epochs": 1, "loss.approx_kl_stop": 0.0},
    "optimizer.minibatch_size": {"optimizer.minibatch_size": 12},
    "optimizer.learning_rate": {"optimizer.learning_rate": 5e-4},
    "optimizer.learning_rate_floor": {"optimizer.learning_rate_floor": 0.9},
    "optimizer.warmup_steps": {"optimizer.warmup_steps": 2},
    "optimizer.max_grad_norm": {"optimizer.max_grad_norm": 1e-7},
    "optimizer.adam_epsilon": {"optimizer.adam_epsilon": 1e-2},
    "optimizer.weight_decay": {"optimizer.weight_decay": 0.5},
    "ema.decay": {"ema.decay": 0.9},
    "ema.export": {"ema.decay": 0.9, "ema.export": "beside"},
    "ema.reference_decay": {"ema.reference_decay": 0.1, "kl.weight": 2.0, "steps": 3},
    "lora.rank": {"lora.rank": 2},
    "lora.alpha": {"lora.rank": 2, "lora.alpha": 3.0},
    "critic.kind": {"critic.kind": "model"},
    "critic.trains_policy": {"critic.trains_policy": 0.5},
    "critic.learning_rate": {"critic.learning_rate": 0.1},
    "critic.warmup_steps": {"critic.warmup_steps": 1},
    "critic.value_clip": {"critic.value_clip": 1e-4},
    "advantage.gamma": {"advantage.gamma": 0.5},
    "advantage.lam": {"advantage.lam": 0.5},
    "loss.clip": {"loss.clip": 1e-4},
    "loss.clip_high": {"loss.clip": 1e-4, "loss.clip_high": 0.1, "loss.approx_kl_stop": 0.0},
    "loss.dual_clip": {
        "loss.dual_clip": 1.0001,
        "optimizer.learning_rate": 1e-2,
        "loss.approx_kl_stop": 0.0,
    },
    "loss.average": {"loss.average": "sequences"},
    "advantage.whiten": {"advantage.whiten": False},
    "advantage.whiten_rewards": {"advantage.whiten_rewards": True},
    "loss.entropy_bonus": {"loss.entropy_bonus": 0.5},
    "ptx.weight": {"ptx.weight": 0.5},
    "ptx.batch_size": {"ptx.weight": 0.5, "ptx.batch_size": 2},
    "kl.weight": {"kl.weight": 2.0},
    "kl.controller": {"kl.controller": "adaptive", "kl.horizon": 50.0},
    "kl.target": {
        "kl.controller": "adaptive",
        "kl.horizon": 50.0,
        "kl.target": 0.02,
        "steps": 4,
    },
    "kl.horizon": {"kl.controller": "adaptive", "kl.horizon": 20.0},
    "kl.error_clip": {"kl.controller": "adaptive", "kl.horizon": 50.0, "kl.error_clip": 0.5},
    "loss.approx_kl_stop": {"loss.approx_kl_stop": 1e-6},
    "reward.no_eos_score": {"reward.no_eos_score": -9.0},
    "reward.overlong_buffer": {"reward.overlong_buffer": 30},
    "reward.overlong_penalty": {"reward.overlong_buffer": 30, "reward.overlong_penalty": 4.0},
    "reward.scale": {
        "reward.scale": "mean",
        "reward.combine": "weights",
        "advantage.whiten": False,
    },
    "reward.normalize_samples": {
        "reward.normalize_samples": 200,
        "reward.combine": "weights",
    },
    "reward.clip": {"reward.clip": 0.1},
    "reward.combine": {"reward.combine": "weights"},
    "reward.safety_threshold": {"reward.safety_threshold": 0.9},
    "reward.weights": {"reward.combine": "weights", "reward.weights": {"safety": 5.0}},
    "rule_rewards.weights": {"rule_rewards.weights": {"too_short": 3.0}},
    "rule_rewards.forbidden_phrases": {
        "rule_rewards.weights": {"must_not_say": 3.0},
        "rule_rewards.forbidden_phrases": ["red", "lamp"],
    },
    "rule_rewards.least_words": {
        "rule_rewards.weights": {"length_window": 3.0},
        "rule_rewards.least_words": 7,
    },
    "rule_rewards.most_words": {
        "rule_rewards.weights": {"length_window": 3.0},
        "rule_rewards.most_words": 3,
        "rule_rewards.least_words": 0,
    },
    "rule_rewards.format_pattern": {
        "rule_rewards.weights": {"format": 3.0},
        "rule_rewards.format_pattern": ".*nice.*",
    },
    "reward.ensemble": {"reward.ensemble": "min"},
    "reward.ensemble_penalty": {"reward.ensemble": "mean_std", "reward.ensemble_penalty": 4.0},
    "lagrange.cost_limit": {"reward.combine": "lagrange", "lagrange.cost_limit": -9.0, "steps": 4},
    "lagrange.multiplier": {"reward.combine": "lagrange", "lagrange.multiplier": 4.0},
    "lagrange.rate": {
        "reward.combine": "lagrange",
        "lagrange.cost_limit": -2.0,
        "steps": 4,
        "lagrange.rate": 3.0,
    },
    "seed": {"seed": 1},
    "dtype": {"dtype": "bfloat16"},
    "rollout.engine": {"rollout.engine": "continuous"},
    "loss.importance_cap": {"dtype": "bfloat16", "loss.importance_cap": 1.0},
}
# Compared with these instead of with the defaults.
BASELINE = {
    "loss.importance_cap": {"dtype": "bfloat16"},
    "optimizer.epochs": {
        "loss.approx_kl_stop": 0.0
    },  # so that no run leaves its rollout before the last epoch
    "ema.export": {"ema.decay": 0.9},
    "ema.reference_decay": {"kl.weight": 2.0, "steps": 3},
    "lora.alpha": {"lora.rank": 2},
    "loss.clip_high": {"loss.clip": 1e-4, "loss.approx_kl_stop": 0.0},
    "ptx.batch_size": {"ptx.weight": 0.5},
    "reward.overlong_penalty": {"reward.overlong_buffer": 30},
    "loss.dual_clip": {"optimizer.learning_rate": 1e-2, "loss.approx_kl_stop": 0.0},
    "kl.target": {"kl.controller": "adaptive", "kl.horizon": 50.0, "steps": 4},
    "kl.horizon": {"kl.controller": "adaptive", "kl.horizon": 50.0},
    "kl.error_clip": {"kl.controller": "adaptive", "kl.horizon": 50.0},
    "reward.scale": {"reward.combine": "weights", "advantage.whiten": False},
    "reward.normalize_samples": {"reward.combine": "weights"},
    "reward.weights": {"reward.combine": "weights"},
    "rule_rewards.forbidden_phrases": {
        "rule_rewards.weights": {"must_not_say": 3.0},
        "rule_rewards.forbidden_phrases": ["sorry"],
    },
    "rule_rewards.least_words": {
        "rule_rewards.weights": {"length_window": 3.0},
        "rule_rewards.least_words": 1,
    },
    "rule_rewards.most_words": {
        "rule_rewards.weights": {"length_window": 3.0},
        "rule_rewards.least_words": 0,
    },
    "rule_rewards.format_pattern": {
        "rule_rewards.weights": {"format": 3.0},
        "rule_rewards.format_pattern": ".*red.*",
    },
    "reward.ensemble_penalty": {"reward.ensemble": "mean_std"},
    "lagrange.cost_limit": {"reward.combine": "lagrange", "steps": 4},
    "lagrange.multiplier": {"reward.combine": "lagrange"},
    "lagrange.rate": {"reward.combine": "lagrange", "lagrange.cost_limit": -2.0, "steps": 4},
}
# Need a reward model of several members.
OF_MANY = {"reward.ensemble", "reward.ensemble_penalty"}
# Change what finished responses are worth: of eight tokens hardly one finishes, and whitened
# advantages do not tell how much a single one is worth.
OF_THE_FINISHED = {
    *(
        "rule_rewards.forbidden_phrases",
        "rule_rewards.least_words",
        "rule_rewards.most_words",
        "rule_rewards.format_pattern",
        "lagrange.cost_limit",
    ),
    *("lagrange.multiplier", "lagrange.rate", "reward.weights", *OF_MANY),
    *(
        "reward.overlong_buffer",
        "reward.overlong_penalty",
        "reward.scale",
        "reward.normalize_samples",
    ),
}
# Stops, looks and machinery, which have tests of their own or must not change the outcome.
OTHERWISE = {
    *(
        "policy",
        "reference",
        "reward_model",
        "test_reward_model",
        "kl.budget",
        "tripwire.watch_every",
    ),
    *("tripwire.evaluations", "tripwire.drop", "checkpoint_every", "threads", "device"),
    *(
        "optimizer.microbatch_size",
        "optimizer.tokens_per_pass",
        "rollout.decode_batch_size",
        "rollout.long_prompts",
    ),
    "rollout.server_timeout",
    "processes",
    "sharded",
}


def test_every_option_is_tried_here():
    assert set(PPOConfig.settings()) == set(OPTIONS) | OTHERWISE


# Of each setting with a switch: a value that is no default, and the switch turned off.
IDLE = {
    "rollout.decode_batch_size": {
        "rollout.decode_batch_size": 3,
        "rollout.engine": "server",
        "lora.rank": 2,
    },
    "rollout.server_timeout": {"rollout.server_timeout": 9.0},
    "loss.importance_cap": {"loss.importance_cap": 2.0, "dtype": "float32"},
    "ema.export": {"ema.export": "beside"},
    "lora.alpha": {"lora.alpha": 3.0},
    "critic.trains_policy": {"critic.trains_policy": 0.5, "critic.kind": "model"},
    "ptx.batch_size": {"ptx.batch_size": 2},
    "kl.controller": {"kl.controller": "adaptive", "kl.weight": 0.0},
    "kl.target": {"kl.target": 0.02},
    "kl.horizon": {"kl.horizon": 20.0},
    "kl.error_clip": {"kl.error_clip": 0.5},
    "reward.overlong_penalty": {"reward.overlong_penalty": 4.0},
    "reward.normalize_samples": {
        "reward.normalize_samples": 200,
        "reward.scale": "raw",
        "reward.combine": "weights",
    },
    "reward.ensemble_penalty": {"reward.ensemble_penalty": 4.0},
    "reward.safety_threshold": {"reward.safety_threshold": 0.9, "reward.combine": "weights"},
    "reward.weights": {"reward.weights": {"safety": 5.0}},
    "rule_rewards.forbidden_phrases": {"rule_rewards.forbidden_phrases": ["red"]},
    "rule_rewards.least_words": {"rule_rewards.least_words": 7},
    "rule_rewards.most_words": {"rule_rewards.most_words": 30},
    "rule_rewards.format_pattern": {"rule_rewards.format_pattern": ".*nice.*"},
    "lagrange.cost_limit": {"lagrange.cost_limit": -9.0},
    "lagrange.multiplier": {"lagrange.multiplier": 4.0},
    "lagrange.rate": {"lagrange.rate": 3.0},
    "tripwire.evaluations": {"tripwire.evaluations": 1, "test_reward_model": ""},
    "tripwire.drop": {"tripwire.drop": 0.0, "tripwire.evaluations": 0},
}
# The second switch of those that have two.
IDLE_TOO = {
    "kl.target": {"kl.target": 0.02, "kl.controller": "adaptive", "kl.weight": 0.0},
    "lagrange.cost_limit": {
        "lagrange.cost_limit": -9.0,
        "reward.combine": "lagrange",
        "lagrange.rate": 0.0,
    },
    "tripwire.drop": {"tripwire.drop": 0.0, "test_reward_model": ""},
}


def test_every_option_with_a_switch_is_refused_while_it_is_off():
    assert set(IDLE) == {key for key, known in PPOConfig.settings().items() if known.requires}
    models = {"policy": "p", "reference": "q", "reward_model": "r", "test_reward_model": "t"}
    for option, changes in [*IDLE.items(), *IDLE_TOO.items()]:
        values = models | changes
        assert option in PPOConfig.idle(values), option
        with pytest.raises(IdleError, match="requires"):
            PPOConfig.from_dict(values)
        # It is the switch that is off, not the value that is refused.
        PPOConfig.from_dict(models | BASELINE.get(option, {}) | OPTIONS.get(option, {}))


def test_what_does_nothing_changes_nothing_in_a_run_that_was_frozen_with_it(
    ready, monkeypatch, capsys
):
    """The table of switches tells the truth: all that is off is changed at once."""
    alone = {name: changes[name] for name, changes in IDLE.items() if len(changes) == 1}
    alone |= {"tripwire.drop": 0.0, "reward.safety_threshold": 0.9, "reward.normalize_samples": 200}
    baseline = {
        "reward.combine": "weights",
        "reward.scale": "raw",
        "tripwire.evaluations": 0,
        "critic.kind": "model",
        "kl.weight": 0.0,
        "dtype": "float32",
    }
    baseline["rollout.max_new_tokens"] = 40  # so that answers end
    del alone["reward.weights"]
    plain, frozen = (
        ready(name, **baseline | more)
        for name, more in (
            ("plain", {}),
            ("frozen", alone | {n: IDLE[n][n] for n in ("kl.controller", "critic.trains_policy")}),
        )
    )
    monkeypatch.setenv(FROZEN, "1")
    results = [finish(plain), finish(frozen)]
    assert capsys.readouterr().out.count("This has no effect here") == len(alone) + 2
    assert weights(plain) == weights(frozen)
    same = [
        {k: v for k, v in result.items() if "second" not in k} for result in results
    ]  # but for how long it took
    assert same[0] == same[1]


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.mark.parametrize("option", list(OPTIONS))
def test_an_option_changes_what_the_policy_becomes(ready, known, option, request):
    baseline, changes = BASELINE.get(option, {}), OPTIONS[option]
    if option in OF_MANY:
        model = {"reward_model": str(request.getfixturevalue("many") / "train")}
        baseline, changes = baseline | model, changes | model
    if option in OF_THE_FINISHED:
        room = {
            "rollout.max_new_tokens": 40,
            "rollout.prompts_per_step": 24,
            "reward.clip": 0.0,
        }
        baseline, changes = room | baseline, room | changes
    key = json.dumps(baseline, sort_keys=True)
    if key not in known:
        plain = ready("plain", **baseline)
        finish(plain)
        known[key] = weights(plain)
    changed = ready("changed", **changes)
    finish(changed)
    assert weights(changed) != known[key]
