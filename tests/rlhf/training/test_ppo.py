"""PPO on a tiny random model: it learns, and its rewards are what they should be."""

import torch
from safetensors.torch import load_file

from tests.rlhf.training.conftest import FILE, finish
from tests.rlhf.training.tiny import make_policy, rows_of


def test_the_reward_rises_and_a_strong_kl_penalty_holds_it_down(ready):
    learning = {"steps": 12, "prompts_per_step": 24, "minibatch_size": 12, "learning_rate": 3e-3}
    free = ready("free", kl_weight=0.0, **learning)
    finish(free)
    lines = rows_of(free / "metrics.jsonl")
    first = sum(line["reward"] for line in lines[:3]) / 3
    last = sum(line["reward"] for line in lines[-3:]) / 3
    assert last > first + 0.5
    penalized = ready("held", kl_weight=5.0, **learning)
    finish(penalized)
    assert rows_of(penalized / "metrics.jsonl")[-1]["kl"] < 0.5 * lines[-1]["kl"]


def test_a_run_begins_with_the_policy_that_it_was_given(ready, tmp_path):
    other = make_policy(tmp_path / "other", seed=1)
    folder = ready(policy=str(other), learning_rate=0.0, steps=1)
    finish(folder)
    began, kept = load_file(str(other) + FILE), load_file(str(folder / "policy") + FILE)
    assert all(torch.equal(began[name], kept[name]) for name in kept)
    assert rows_of(folder / "metrics.jsonl")[0]["kl"] > 0.1  # the reference is another one


def test_a_rollout_that_never_ends_scores_the_penalty_and_nothing_else(ready):
    folder = ready(steps=1, max_new_tokens=1, no_eos_score=-7.0, temperature=0.05)
    finish(folder)
    line = rows_of(folder / "metrics.jsonl")[0]
    assert line["finished_fraction"] == 0
    assert line["reward"] == -7.0
