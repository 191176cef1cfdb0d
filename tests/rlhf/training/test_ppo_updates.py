"""PPO's updates: the gradient of minibatches, and what is skipped."""

import json
import math

import pytest
import torch

from rlhf.training import (
    parallel,
    ppo_models,
    ppo_updates,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.rundir.errors import InputError
from rlhf.training.settings import FROZEN
from tests.rlhf.training.conftest import finish, weights
from tests.rlhf.training.tiny import rows_of


def test_a_minibatch_in_pieces_has_the_gradient_of_the_whole(ready):
    for average in ("tokens", "sequences"):
        norms = []
        for size in (1, 4, 6):
            folder = ready(f"{average}-{size}", steps=1, epochs=1, microbatch_size=size)
            config = json.loads((folder / "config.json").read_text()) | {"loss_average": average}
            (folder / "config.json").write_text(json.dumps(config))
            finish(folder)
            line = rows_of(folder / "metrics.jsonl")[0]
            norms.append([line[k] for k in ("policy_loss", "value_loss", "grad_norm")])
        assert norms[0] == pytest.approx(norms[1], rel=1e-3, abs=1e-5)
        assert norms[1] == pytest.approx(norms[2], rel=1e-3, abs=1e-5)


def test_an_update_that_is_not_finite_is_skipped_counted_and_explained(ready, capsys):
    config = PPOConfig.from_dict(json.loads((ready() / "config.json").read_text()))
    models = ppo_models.Models(config)
    before = models.trained_weights()
    mask = torch.ones(6, 2, dtype=torch.bool)
    rollout = ppo_updates.Rollout(
        prompts=[[5, 6]] * 6,
        responses=[[7, 8]] * 6,
        mask=mask,
        logprobs=torch.full((6, 2), -5.0),
        advantages=torch.full((6, 2), float("nan")),
        returns=torch.zeros(6, 2),
        values=torch.zeros(6, 2),
    )
    result = ppo_updates.update(models, models.new_optimizer(), rollout, config, step=1)
    assert result.skipped == config.optimizer.epochs
    assert result.means["updates"] == 0
    after = models.trained_weights()
    assert all(torch.equal(before[name], after[name]) for name in before)
    printed = capsys.readouterr().out
    assert "step 1: an update was skipped, not finite: policy loss" in printed
    assert "value loss" not in printed


def test_updates_left_out_in_a_row_are_counted_over_rollouts(ready):
    config = PPOConfig.from_dict(json.loads((ready() / "config.json").read_text()))
    models = ppo_models.Models(config)
    optimizer = models.new_optimizer()
    mask, zeros = torch.ones(12, 2, dtype=torch.bool), torch.zeros(12, 2)
    tokens = [[5, 6]] * 12

    def learn(broken_rows, before):
        advantages = torch.zeros(12, 2)
        advantages[broken_rows] = math.nan
        with torch.no_grad():
            packed, _, logprobs, _ = models.forward(models.policy, tokens, tokens, range(12))
        old = packed.unpack(logprobs)
        rollout = ppo_updates.Rollout(tokens, tokens, mask, old, advantages, zeros, zeros)
        one_each = PPOConfig.from_dict(
            PPOConfig.merged(
                config.to_dict(), {"minibatch_size": 1, "epochs": 1, "approx_kl_stop": 0.0}
            )
        )
        return ppo_updates.update(
            models, optimizer, rollout, one_each, step=1, skipped_before=before
        )

    order = torch.randperm(
        12, generator=torch.Generator().manual_seed(ppo_models.derive_seed(config.seed, 1))
    )
    ends_badly = learn(order[7:], 0)
    assert (ends_badly.skipped, ends_badly.skipped_in_a_row) == (5, 5)
    begins_badly = learn(order[:7], 13)
    assert (begins_badly.skipped, begins_badly.skipped_in_a_row) == (7, 20)
    assert begins_badly.means["updates"] == 0
    recovers = learn(order[:6], 13)
    assert (recovers.skipped_in_a_row, recovers.means["updates"]) == (0, 6)
    assert (ends_badly.broken, recovers.broken) == ("", "")
    assert "policy loss" in begins_badly.broken


def test_gradients_are_really_clipped():
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    assert parallel.clip_gradients([weight], 1.5) == pytest.approx(6.0)
    assert float(weight.grad.norm()) == pytest.approx(1.5, rel=1e-4)
    weight.grad = torch.full((4,), 3.0)
    parallel.clip_gradients([weight], 0.0)
    assert float(weight.grad.norm()) == pytest.approx(6.0)


def test_an_entropy_weight_below_0_sharpens_the_policy(ready):
    entropies = {}
    for weight in (0.0, -0.5):
        folder = ready(f"weight{weight}", entropy_bonus=weight, steps=4, learning_rate=3e-3)
        finish(folder)
        entropies[weight] = rows_of(folder / "metrics.jsonl")[-1]["entropy"]
    assert entropies[-0.5] < entropies[0.0] - 0.1


def test_while_the_critic_warms_up_its_gradient_does_not_reach_the_policy(ready, monkeypatch):
    monkeypatch.setenv(FROZEN, "1")  # a run in which the policy never learns is refused by now
    quiet = ready("quiet", critic_warmup_steps=1, steps=1)
    finish(quiet)
    passing = ready("passing", critic_warmup_steps=1, critic_trains_policy=1.0, steps=1)
    finish(passing)
    assert weights(passing) == weights(quiet)


def test_a_run_that_could_make_no_update_is_an_error_and_no_success(ready, monkeypatch):
    """Sampling has other log-probabilities than training: every first minibatch was left before."""
    read = ppo_models.Models.read

    def misread(models, *rollout):
        old, reference, values, mask = read(models, *rollout)
        return old + 0.5 * mask, reference + 0.5 * mask, values, mask

    monkeypatch.setattr(ppo_models.Models, "read", misread)
    with pytest.raises(InputError, match="no update can be made"):
        finish(ready(steps=2))
