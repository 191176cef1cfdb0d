"""Every option of the smaller stages does something, as those of PPO and of the reward models do."""

import hashlib
import importlib
import json
import re

import pytest
import torch

from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from rlhf.training.settings import FROZEN, MOST_SEED
from rlhf.world.answers import corpus
from tests.rlhf.training.test_settings import every_config, needed
from tests.rlhf.training.tiny import (
    ROOT,
    WORDS,
    ask,
    judgment,
    make_policy,
    notes_of,
    prompt,
    run_folder,
)

CONFIGS = {config.__name__.removesuffix("Config"): config for config in every_config()}
# Where the options of the two large stages are changed one by one.
# The last two measure a model, and train or sample nothing that is kept.
ELSEWHERE = {
    "PPO": "test_ppo_options.py",
    "RewardModel": "test_reward_options.py",
    "Calibrate": "test_calibrate.py",
    "Inspection": "language_models/test_own_models.py",
}
MODULES = {
    "Base": "base",
    "Generate": "generate",
    "Evaluate": "evaluate",
    "Selection": "selection",
    "SFT": "sft",
    "DPO": "dpo",
    "BestOfN": "best_of_n",
    "Grow": "grow",
}

# What each option is changed to, and what must be chosen with it to matter.
OPTIONS = {
    "Base": {
        "seed": {"seed": 1},
        "layers": {"layers": 2},
        "hidden_size": {"hidden_size": 16},
        "intermediate_size": {"intermediate_size": 32},
        "heads": {"heads": 4},
        "max_positions": {"max_positions": 256},
        "clean_steps": {"clean_steps": 3},
        "mix_steps": {"mix_steps": 3},
        "batch_size": {"batch_size": 4},
        "learning_rate": {"learning_rate": 1e-2},
        "muon_learning_rate": {"muon_learning_rate": 0.1},
        "warmup_steps": {"warmup_steps": 3},
        "weight_decay": {"weight_decay": 0.5},
        "max_grad_norm": {"max_grad_norm": 1e-6},
    },
    "Generate": {
        "policy": {"policy": "OTHER"},
        "k": {"k": 3},
        "oversample": {"oversample": 3},
        "temperature": {"temperature": 0.5},
        "top_k": {"top_k": 2},
        "top_p": {"top_p": 0.3},
        "min_p": {"min_p": 0.5},
        "max_new_tokens": {"max_new_tokens": 5},
        "seed": {"seed": 1},
        "dtype": {"dtype": "bfloat16"},
    },
    "Evaluate": {
        "policy": {"policy": "OTHER"},
        "reward_model": {"reward_model": ""},
        "temperatures": {"temperatures": [0.7]},
        "samples_per_prompt": {"samples_per_prompt": 2},
        "top_k": {"top_k": 2},
        "top_p": {"top_p": 0.3},
        "min_p": {"min_p": 0.5},
        "max_new_tokens": {"max_new_tokens": 5},
        "safety_threshold": {"safety_threshold": 0.9},
        "seed": {"seed": 1},
        "dtype": {"dtype": "bfloat16"},
    },
    "Selection": {
        "reward_model": {"reward_model": "TEST"},
        "recency": {"recency": 0.9},
        "draw": {"draw": False},
    },
    "SFT": {
        "policy": {"policy": "OTHER"},
        "epochs": {"epochs": 2},
        "batch_size": {"batch_size": 2},
        "learning_rate": {"learning_rate": 1e-4},
        "warmup_share": {"warmup_share": 0.5},
        "weight_decay": {"weight_decay": 0.5},
        "max_grad_norm": {"max_grad_norm": 1e-6},
        "heldout_share": {"heldout_share": 0.3},
        "seed": {"seed": 1},
        "dtype": {"dtype": "bfloat16"},
    },
    "DPO": {
        "policy": {"policy": "OTHER"},
        "axis": {"axis": "safety"},
        "beta": {"beta": 1.0},
        "label_smoothing": {"label_smoothing": 0.3},
        "epochs": {"epochs": 2},
        "batch_size": {"batch_size": 2},
        "learning_rate": {"learning_rate": 1e-4},
        "warmup_share": {"warmup_share": 0.5},
        "max_grad_norm": {"max_grad_norm": 1e-6},
        "heldout_share": {"heldout_share": 0.3},
        "seed": {"seed": 1},
        "dtype": {"dtype": "bfloat16"},
    },
    "BestOfN": {
        "policy": {"policy": "OTHER"},
        "reward_model": {"reward_model": "TEST"},
        "n": {"n": [1, 3]},
        "test_reward_model": {"test_reward_model": "TEST"},
        "samples": {"samples": 5},
        "temperature": {"temperature": 0.5},
        "max_new_tokens": {"max_new_tokens": 5},
        "no_eos_score": {"no_eos_score": -9.0},
        "safety_threshold": {"safety_threshold": 0.9},
        "seed": {"seed": 1},
        "dtype": {"dtype": "bfloat16"},
    },
    "Grow": {
        "policy": {"policy": "OTHER"},
        "width": {"width": 3},
        "intermediate": {"intermediate": 2},
        "layers": {"layers": 3},
        "noise": {"noise": 0.5},
        "seed": {"noise": 0.5, "seed": 1},
    },
}
# Compared with these instead of with the defaults.
BESIDE = {("Grow", "seed"): {"noise": 0.5}}
# Of each setting with a switch: a value that is no default, and the switch turned off.
IDLE = {
    ("Evaluate", "safety_threshold"): {"safety_threshold": 0.9, "reward_model": ""},
    ("Grow", "noise"): {"noise": 0.5, "width": 1, "layers": 3},
}
# How the same is computed: what tries them. Threads and devices are tried here, for all.
MACHINERY = {
    "threads": "test_a_stage_takes_the_threads_and_the_device_that_it_was_given",
    "device": "test_a_stage_takes_the_threads_and_the_device_that_it_was_given",
    "long_prompts": "test_a_prompt_that_is_too_long_stops_a_stage_or_is_left_out",
    "microbatch_size": "test_smaller_passes_change_how_it_is_computed_and_not_what",
    "tokens_per_pass": "test_smaller_passes_change_how_it_is_computed_and_not_what",
    "opponents": "test_evaluate_lets_opponents_answer_again_with_its_own_settings",
    "checkpoint_seconds": "test_a_run_that_was_stopped_and_one_that_was_killed_end_with_the_same_bytes",
}
# Only here a matter of machinery.
DECODED = ("Generate", "Evaluate", "Selection", "BestOfN")


def others(stage):
    names = set(CONFIGS[stage].settings()) - set(OPTIONS[stage])
    return names - ({"batch_size"} if stage in DECODED else set())


def test_every_option_of_every_stage_is_tried():
    assert set(CONFIGS) == set(MODULES) | set(ELSEWHERE)
    for stage in MODULES:
        assert others(stage) <= set(MACHINERY), stage
        assert set(OPTIONS[stage]) <= set(CONFIGS[stage].settings()), stage
    tests = ROOT / "tests" / "rlhf" / "training"
    code = "\n".join(path.read_text() for path in tests.glob("*.py"))
    there = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    assert set(MACHINERY.values()) <= there


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return str(make_policy(tmp_path_factory.mktemp("other"), seed=1))


@pytest.fixture
def started(talker, many, other, tmp_path):
    """A stage run in a folder of its own with some settings; returns the folder."""
    words = [" ".join(WORDS[i % 9 : i % 9 + 4]) for i in range(12)]
    ranked = [
        judgment(i, words[i % 4 : i % 4 + 3], {"helpfulness": [1, 2, 3], "safety": [3, 2, 1]})
        for i in range(8)
    ]
    risks = ["harmful" if i % 3 == 0 else "harmless" for i in range(6)]
    asked = [prompt(i, risk=risk) for i, risk in enumerate(risks)]
    data = {
        "Base": {"corpus": list(corpus(0, 60))},
        "Generate": {"prompts": asked},
        "Evaluate": {"prompts": asked},
        "Selection": {
            "comparisons": [
                {"comparison_id": str(i), "responses": words[i : i + 3], "age": i % 2}
                | {"messages": prompt(i)["messages"]}
                for i in range(5)
            ]
        },
        "SFT": {"demonstrations": [prompt(i) | {"response": words[i]} for i in range(10)]},
        "DPO": {"preferences": ranked},
        "BestOfN": {"prompts": asked},
        "Grow": {},
    }
    tuned = {"learning_rate": 1e-3, "batch_size": 4, "microbatch_size": 4}
    base = {
        "layers": 1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "heads": 2,
        "clean_steps": 2,
        "mix_steps": 2,
        "batch_size": 8,
        "warmup_steps": 1,
    }
    settings = {
        "Base": base,
        "Generate": {"k": 2, "oversample": 0, "max_new_tokens": 12},
        "Evaluate": {"temperatures": [1.0], "samples_per_prompt": 3, "max_new_tokens": 12},
        "SFT": tuned,
        "DPO": tuned,
        "BestOfN": {"n": [1, 2], "max_new_tokens": 40},
        "Grow": {"width": 2},
    }
    models = {
        "policy": talker,
        "reward_model": str(many / "train"),
        "OTHER": other,
        "TEST": str(many / "test"),
    }

    def run(stage, name, *, endless=False, **changes):
        given = {n: models[n] for n in needed(CONFIGS[stage])} | {"threads": 1}
        if stage == "Evaluate":
            given["reward_model"] = models["reward_model"]
        given |= settings.get(stage, {}) | {
            key: models.get(value, value) if isinstance(value, str) else value
            for key, value in changes.items()
        }
        rows = data[stage]
        if endless:
            too_long = {"prompt_id": "endless", "messages": ask("lamp " * 5000)}
            rows = {kind: [*those, those[-1] | too_long] for kind, those in rows.items()}
        folder = run_folder(tmp_path / name, given, **rows)
        module = importlib.import_module(f"rlhf.training.{MODULES[stage]}")
        module.main(folder, StopRequest())
        return folder

    return run


def outcome(folder):
    """A digest of all that a stage has written, but for how long it took."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        inside = name.startswith(("data/", "checkpoint"))
        of_a_model = path.name == "config.json" and name != "config.json"
        if (path.suffix in (".safetensors", ".jsonl") or of_a_model) and not inside:
            content = path.read_bytes()
            if name == "metrics.jsonl":
                content = re.sub(rb'"(time|tokens_per_second)": [\d.]+', b"", content)
            found.update(content)
    result = json.loads((folder / "result.json").read_text())
    kept = {k: v for k, v in result.items() if k not in ("seconds", "tokens_per_second")}
    return found.hexdigest() + json.dumps(kept, sort_keys=True)


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.mark.parametrize(
    ("stage", "option"), [(stage, option) for stage in OPTIONS for option in OPTIONS[stage]]
)
def test_an_option_changes_what_comes_of_the_stage(started, known, stage, option):
    beside = BESIDE.get((stage, option), {})
    key = (stage, json.dumps(beside))
    if key not in known:
        known[key] = outcome(started(stage, "plain", **beside))
    assert outcome(started(stage, "changed", **OPTIONS[stage][option])) != known[key]


def test_every_option_with_a_switch_is_tried_while_it_is_off():
    assert set(IDLE) == {
        (stage, key)
        for stage in MODULES
        for key, known in CONFIGS[stage].settings().items()
        if known.requires
    }


@pytest.mark.parametrize(("stage", "option"), IDLE)
def test_what_does_nothing_is_refused_by_hand_and_changes_nothing_in_a_frozen_run(
    started, monkeypatch, stage, option
):
    changes = IDLE[stage, option]
    with pytest.raises(InputError, match=f"{option} requires"):
        started(stage, "refused", **changes)
    monkeypatch.setenv(FROZEN, "1")
    beside = {name: value for name, value in changes.items() if name != option}
    assert outcome(started(stage, "idle", **changes)) == outcome(started(stage, "plain", **beside))


@pytest.mark.parametrize("stage", MODULES)
def test_the_same_settings_and_even_the_largest_seed_give_the_same(started, stage):
    largest = {"seed": MOST_SEED} if "seed" in OPTIONS[stage] else {}
    first, second = (outcome(started(stage, name, **largest)) for name in "ab")
    assert first == second


@pytest.mark.parametrize("stage", MODULES)
def test_a_stage_takes_the_threads_and_the_device_that_it_was_given(started, monkeypatch, stage):
    before = torch.get_num_threads()
    try:
        started(stage, "threads", threads=before % 2 + 1)
        assert torch.get_num_threads() == before % 2 + 1
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "device" in CONFIGS[stage].__dataclass_fields__:
        with pytest.raises(InputError, match="no usable GPU"):
            started(stage, "gpu", device="cuda")


@pytest.mark.parametrize("stage", [s for s in MODULES if "long_prompts" in others(s)])
def test_a_prompt_that_is_too_long_stops_a_stage_or_is_left_out(started, stage):
    with pytest.raises(InputError, match=r"Prompt endless has \d+ tokens"):
        started(stage, "refused", endless=True)
    folder = started(stage, "left", endless=True, long_prompts="leave_out")
    assert (folder / "result.json").exists()


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        *((stage, "batch_size") for stage in DECODED),
        *((stage, "microbatch_size") for stage in ("SFT", "DPO")),
        *((stage, "tokens_per_pass") for stage in MODULES if "tokens_per_pass" in others(stage)),
    ],
)
def test_smaller_passes_change_how_it_is_computed_and_not_what(started, monkeypatch, stage, name):
    passes = []
    module = importlib.import_module(f"rlhf.training.{MODULES[stage]}")
    if stage in ("SFT", "DPO", "Selection") or name == "tokens_per_pass":
        forward = torch.nn.Embedding.forward
        counting = lambda self, ids: passes.append(1) or forward(self, ids)  # noqa: E731
        monkeypatch.setattr(torch.nn.Embedding, "forward", counting)
    else:  # sampling tells how far it is after each batch
        monkeypatch.setattr(module, "write_progress", lambda *_, **__: passes.append(1))
    started(stage, "large")
    large = len(passes)
    started(stage, "small", **{name: 40 if name == "tokens_per_pass" else 2})
    assert len(passes) - large > large


PHASES = {
    "Generate": {"loading the policy", "sampling"},
    "Evaluate": {"loading the models", "sampling", "scoring"},
    "Selection": {"loading the reward model", "scoring"},
    "SFT": {"loading the policy", "update 1", "evaluating"},
    "DPO": {"loading the policy", "update 1", "evaluating"},
    "BestOfN": {"loading the models", "sampling", "scoring"},
}


@pytest.mark.parametrize("stage", PHASES)
def test_a_stage_says_what_it_is_doing_all_the_time(started, monkeypatch, stage):
    assert notes_of(monkeypatch, lambda: started(stage, "run")) >= PHASES[stage]
