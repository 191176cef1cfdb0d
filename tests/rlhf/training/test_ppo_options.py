"""Every option of PPO does something: none is read and then forgotten, as TRL's `max_grad_norm` was."""

import dataclasses
import json

import pytest

from rlhf.training.configs import PPOConfig
from rlhf.training.settings import FROZEN, IdleError
from tests.rlhf.training.conftest import finish, weights

# What each option is changed to, and what must be chosen with it to matter.
OPTIONS = {
    "steps": {"steps": 3},
    "prompts_per_step": {"prompts_per_step": 8},
    "samples_per_prompt": {"samples_per_prompt": 2},
    "max_new_tokens": {"max_new_tokens": 5},
    "temperature": {"temperature": 0.8},
    "epochs": {"epochs": 1, "approx_kl_stop": 0.0},
    "minibatch_size": {"minibatch_size": 12},
    "learning_rate": {"learning_rate": 5e-4},
    "learning_rate_floor": {"learning_rate_floor": 0.9},
    "warmup_steps": {"warmup_steps": 2},
    "max_grad_norm": {"max_grad_norm": 1e-7},
    "adam_epsilon": {"adam_epsilon": 1e-2},
    "weight_decay": {"weight_decay": 0.5},
    "ema_decay": {"ema_decay": 0.9},
    "ema_export": {"ema_decay": 0.9, "ema_export": "beside"},
    "reference_ema": {"reference_ema": 0.1, "kl_weight": 2.0, "steps": 3},
    "lora_rank": {"lora_rank": 2},
    "lora_alpha": {"lora_rank": 2, "lora_alpha": 3.0},
    "critic": {"critic": "model"},
    "critic_trains_policy": {"critic_trains_policy": 0.5},
    "value_learning_rate": {"value_learning_rate": 0.1},
    "critic_warmup_steps": {"critic_warmup_steps": 1},
    "value_clip": {"value_clip": 1e-4},
    "gamma": {"gamma": 0.5},
    "lam": {"lam": 0.5},
    "clip": {"clip": 1e-4},
    "clip_high": {"clip": 1e-4, "clip_high": 0.1, "approx_kl_stop": 0.0},
    "dual_clip": {"dual_clip": 1.0001, "learning_rate": 1e-2, "approx_kl_stop": 0.0},
    "loss_average": {"loss_average": "sequences"},
    "whiten_advantages": {"whiten_advantages": False},
    "whiten_rewards": {"whiten_rewards": True},
    "entropy_bonus": {"entropy_bonus": 0.5},
    "ptx_weight": {"ptx_weight": 0.5},
    "ptx_batch_size": {"ptx_weight": 0.5, "ptx_batch_size": 2},
    "kl_weight": {"kl_weight": 2.0},
    "kl_controller": {"kl_controller": "adaptive", "kl_horizon": 50.0},
    "kl_target": {
        "kl_controller": "adaptive",
        "kl_horizon": 50.0,
        "kl_target": 0.02,
        "steps": 4,
    },
    "kl_horizon": {"kl_controller": "adaptive", "kl_horizon": 20.0},
    "kl_error_clip": {"kl_controller": "adaptive", "kl_horizon": 50.0, "kl_error_clip": 0.5},
    "approx_kl_stop": {"approx_kl_stop": 1e-6},
    "no_eos_score": {"no_eos_score": -9.0},
    "overlong_buffer": {"overlong_buffer": 30},
    "overlong_penalty": {"overlong_buffer": 30, "overlong_penalty": 4.0},
    "score_scale": {"score_scale": "mean", "combine": "weights", "whiten_advantages": False},
    "normalise_samples": {"normalise_samples": 200, "combine": "weights"},
    "score_clip": {"score_clip": 0.1},
    "combine": {"combine": "weights"},
    "safety_threshold": {"safety_threshold": 0.9},
    "weights": {"combine": "weights", "weights": {"safety": 5.0}},
    "rules": {"rules": {"too_short": 3.0}},
    "forbidden_phrases": {"rules": {"must_not_say": 3.0}, "forbidden_phrases": ["red", "lamp"]},
    "least_words": {"rules": {"length_window": 3.0}, "least_words": 7},
    "most_words": {"rules": {"length_window": 3.0}, "most_words": 3, "least_words": 0},
    "format_pattern": {"rules": {"format": 3.0}, "format_pattern": ".*nice.*"},
    "ensemble": {"ensemble": "min"},
    "ensemble_penalty": {"ensemble": "mean_std", "ensemble_penalty": 4.0},
    "cost_limit": {"combine": "lagrange", "cost_limit": -9.0, "steps": 4},
    "multiplier": {"combine": "lagrange", "multiplier": 4.0},
    "multiplier_rate": {
        "combine": "lagrange",
        "cost_limit": -2.0,
        "steps": 4,
        "multiplier_rate": 3.0,
    },
    "seed": {"seed": 1},
    "dtype": {"dtype": "bfloat16"},
    "rollouts": {"rollouts": "continuous"},
    "importance_cap": {"dtype": "bfloat16", "importance_cap": 1.0},
}
# Compared with these instead of with the defaults.
BESIDE = {
    "importance_cap": {"dtype": "bfloat16"},
    "epochs": {"approx_kl_stop": 0.0},  # so that no run leaves its rollout before the last epoch
    "ema_export": {"ema_decay": 0.9},
    "reference_ema": {"kl_weight": 2.0, "steps": 3},
    "lora_alpha": {"lora_rank": 2},
    "clip_high": {"clip": 1e-4, "approx_kl_stop": 0.0},
    "ptx_batch_size": {"ptx_weight": 0.5},
    "overlong_penalty": {"overlong_buffer": 30},
    "dual_clip": {"learning_rate": 1e-2, "approx_kl_stop": 0.0},
    "kl_target": {"kl_controller": "adaptive", "kl_horizon": 50.0, "steps": 4},
    "kl_horizon": {"kl_controller": "adaptive", "kl_horizon": 50.0},
    "kl_error_clip": {"kl_controller": "adaptive", "kl_horizon": 50.0},
    "score_scale": {"combine": "weights", "whiten_advantages": False},
    "normalise_samples": {"combine": "weights"},
    "weights": {"combine": "weights"},
    "forbidden_phrases": {"rules": {"must_not_say": 3.0}, "forbidden_phrases": ["sorry"]},
    "least_words": {"rules": {"length_window": 3.0}, "least_words": 1},
    "most_words": {"rules": {"length_window": 3.0}, "least_words": 0},
    "format_pattern": {"rules": {"format": 3.0}, "format_pattern": ".*red.*"},
    "ensemble_penalty": {"ensemble": "mean_std"},
    "cost_limit": {"combine": "lagrange", "steps": 4},
    "multiplier": {"combine": "lagrange"},
    "multiplier_rate": {"combine": "lagrange", "cost_limit": -2.0, "steps": 4},
}
# Need a reward model of several members.
OF_MANY = {"ensemble", "ensemble_penalty"}
# Change what finished responses are worth: of eight tokens hardly one finishes, and whitened
# advantages do not tell how much a single one is worth.
OF_THE_FINISHED = {
    *("forbidden_phrases", "least_words", "most_words", "format_pattern", "cost_limit"),
    *("multiplier", "multiplier_rate", "weights", *OF_MANY),
    *("overlong_buffer", "overlong_penalty", "score_scale", "normalise_samples"),
}
# Stops, looks and machinery, which have tests of their own or must not change the outcome.
OTHERWISE = {
    *("policy", "reference", "reward_model", "test_reward_model", "kl_budget", "watch_every"),
    *("tripwire_evaluations", "tripwire_drop", "checkpoint_every", "threads", "device"),
    *("microbatch_size", "microbatch_tokens", "decode_batch_size", "long_prompts"),
    "server_timeout",
    "processes",
    "sharded",
}


def test_every_option_is_tried_here():
    names = {field.name for field in dataclasses.fields(PPOConfig)}
    assert names == set(OPTIONS) | OTHERWISE


# Of each setting with a switch: a value that is no default, and the switch turned off.
IDLE = {
    "decode_batch_size": {"decode_batch_size": 3, "rollouts": "server", "lora_rank": 2},
    "server_timeout": {"server_timeout": 9.0},
    "importance_cap": {"importance_cap": 2.0, "dtype": "float32"},
    "ema_export": {"ema_export": "beside"},
    "lora_alpha": {"lora_alpha": 3.0},
    "critic_trains_policy": {"critic_trains_policy": 0.5, "critic": "model"},
    "ptx_batch_size": {"ptx_batch_size": 2},
    "kl_controller": {"kl_controller": "adaptive", "kl_weight": 0.0},
    "kl_target": {"kl_target": 0.02},
    "kl_horizon": {"kl_horizon": 20.0},
    "kl_error_clip": {"kl_error_clip": 0.5},
    "overlong_penalty": {"overlong_penalty": 4.0},
    "normalise_samples": {
        "normalise_samples": 200,
        "score_scale": "raw",
        "combine": "weights",
    },
    "ensemble_penalty": {"ensemble_penalty": 4.0},
    "safety_threshold": {"safety_threshold": 0.9, "combine": "weights"},
    "weights": {"weights": {"safety": 5.0}},
    "forbidden_phrases": {"forbidden_phrases": ["red"]},
    "least_words": {"least_words": 7},
    "most_words": {"most_words": 30},
    "format_pattern": {"format_pattern": ".*nice.*"},
    "cost_limit": {"cost_limit": -9.0},
    "multiplier": {"multiplier": 4.0},
    "multiplier_rate": {"multiplier_rate": 3.0},
    "tripwire_evaluations": {"tripwire_evaluations": 1, "test_reward_model": ""},
    "tripwire_drop": {"tripwire_drop": 0.0, "tripwire_evaluations": 0},
}
# The second switch of those that have two.
IDLE_TOO = {
    "kl_target": {"kl_target": 0.02, "kl_controller": "adaptive", "kl_weight": 0.0},
    "cost_limit": {"cost_limit": -9.0, "combine": "lagrange", "multiplier_rate": 0.0},
    "tripwire_drop": {"tripwire_drop": 0.0, "test_reward_model": ""},
}


def test_every_option_with_a_switch_is_refused_while_it_is_off():
    assert set(IDLE) == {f.name for f in dataclasses.fields(PPOConfig) if f.metadata.get("under")}
    models = {"policy": "p", "reference": "q", "reward_model": "r", "test_reward_model": "t"}
    for option, changes in [*IDLE.items(), *IDLE_TOO.items()]:
        values = models | changes
        assert option in PPOConfig.idle(values), option
        with pytest.raises(IdleError, match="belongs to"):
            PPOConfig(**values)
        # It is the switch that is off, not the value that is refused.
        PPOConfig(**models | BESIDE.get(option, {}) | OPTIONS.get(option, {}))


def test_what_does_nothing_changes_nothing_in_a_run_that_was_frozen_with_it(
    ready, monkeypatch, capsys
):
    """The table of switches tells the truth: all that is off is changed at once."""
    alone = {name: changes[name] for name, changes in IDLE.items() if len(changes) == 1}
    alone |= {"tripwire_drop": 0.0, "safety_threshold": 0.9, "normalise_samples": 200}
    beside = {
        "combine": "weights",
        "score_scale": "raw",
        "tripwire_evaluations": 0,
        "critic": "model",
        "kl_weight": 0.0,
        "dtype": "float32",
    }
    beside["max_new_tokens"] = 40  # so that answers end
    del alone["weights"]
    plain, frozen = (
        ready(name, **beside | more)
        for name, more in (
            ("plain", {}),
            ("frozen", alone | {n: IDLE[n][n] for n in ("kl_controller", "critic_trains_policy")}),
        )
    )
    monkeypatch.setenv(FROZEN, "1")
    results = [finish(plain), finish(frozen)]
    assert capsys.readouterr().out.count("This does nothing here") == len(alone) + 2
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
    beside, changes = BESIDE.get(option, {}), OPTIONS[option]
    if option in OF_MANY:
        model = {"reward_model": str(request.getfixturevalue("many") / "train")}
        beside, changes = beside | model, changes | model
    if option in OF_THE_FINISHED:
        room = {"max_new_tokens": 40, "prompts_per_step": 24, "score_clip": 0.0}
        beside, changes = room | beside, room | changes
    key = json.dumps(beside, sort_keys=True)
    if key not in known:
        plain = ready("plain", **beside)
        finish(plain)
        known[key] = weights(plain)
    changed = ready("changed", **changes)
    finish(changed)
    assert weights(changed) != known[key]
