"""PPO on a tiny random model: it learns, stops when it should, resumes exactly, and every option
does something."""

import itertools
import json
import math
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import (
    parallel,
    ppo,
    ppo_inputs,
    ppo_keeper,
    ppo_math,
    ppo_models,
    ppo_updates,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.configs.ppo_groups import EMASettings, KLSettings, LoRASettings
from rlhf.training.data import Prompt
from rlhf.training.ppo_models import Models
from rlhf.training.reward_models.folder import save_reward_model
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rewards import REWARDS
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import StopRequest
from rlhf.training.settings import FROZEN, load
from tests.rlhf.training.conftest import finish, make_rewards, weights
from tests.rlhf.training.tiny import make_policy, prompt, rows_of, run, start

FILE = "/model.safetensors"


def stop_after(folder, steps):
    """SIGTERM, as far as the stage can tell, once so many steps are in the books."""

    class StopAfter(StopRequest):
        @property
        def requested(self):
            path = folder / "metrics.jsonl"
            return path.exists() and len(path.read_text().splitlines()) >= steps

        @requested.setter
        def requested(self, value):
            pass

    return StopAfter()


def asked_for(number):
    return Prompt(**prompt(number))


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


# Moves a nat or more away from the reference within some rollouts.
RUNS_AWAY = {"learning_rate": 1e-2, "kl_weight": 0.0, "approx_kl_stop": 0.0}


def test_a_run_past_its_kl_budget_stops_and_keeps_its_policy(ready):
    """The policy of the last rollout within the budget, not the one that was found beyond it."""
    folder = ready(steps=30, kl_budget=0.5, ema_decay=0.5, **RUNS_AWAY)
    result = finish(folder)
    assert result["stop_reason"] == "kl_budget"
    assert result["steps"] < 30
    lines = rows_of(folder / "metrics.jsonl")
    measured = [line["kl_k1"] for line in lines]
    assert measured[-1] > 0.5 >= max(measured[:-1])
    assert result["kept_step"] == result["steps"] - 2
    kept = json.loads((folder / "config.json").read_text()) | {"policy": str(folder / "policy")}
    models = ppo_models.Models(PPOConfig.from_dict(kept))
    _, encoded = models.fitting([asked_for(i) for i in range(24)])
    number = len(lines) - 1  # the last rollout within the budget, drawn once more
    some = [encoded[i] for i in ppo_inputs.choose_prompts(24, 12, number - 1, 0)]
    answers = [a for (a,) in models.sample(some, 1, seed=ppo_models.derive_seed(0, number))]
    old, reference, _, mask = models.read(some, answers)
    again = float(((old - reference) * mask).sum(dim=1).mean())
    assert again == pytest.approx(measured[-2], rel=1e-4)
    steps = {row["step"] for row in rows_of(folder / "samples.jsonl")}
    assert steps == {result["kept_step"]}


def test_a_policy_that_begins_beyond_its_kl_budget_is_handed_on_as_it_came(ready, tmp_path):
    other = make_policy(tmp_path / "other", seed=1)
    folder = ready(steps=3, kl_budget=0.01, reference=str(other))
    result = finish(folder)
    assert (result["stop_reason"], result["steps"], result["kept_step"]) == ("kl_budget", 1, 0)
    began = load_file(
        PPOConfig.from_dict(json.loads((folder / "config.json").read_text())).policy + FILE
    )
    handed_on = load_file(str(folder / "policy") + FILE)
    assert all(torch.equal(began[name], handed_on[name]) for name in handed_on)


def test_a_policy_that_differs_from_itself_as_reference_is_refused_before_the_first_update(
    ready, monkeypatch
):
    """As with a model whose sliding window the packed reader did not see."""
    read = ppo_models.Models.read

    def misread(models, *rollout):
        old, reference, values, mask = read(models, *rollout)
        return old, reference + 0.5 * mask, values, mask

    monkeypatch.setattr(ppo_models.Models, "read", misread)
    with pytest.raises(InputError, match=r"same model, .* differ by 0\.5 nats"):
        finish(ready(steps=2))


def test_a_run_that_could_make_no_update_is_an_error_and_no_success(ready, monkeypatch):
    """Sampling has other log-probabilities than training: every first minibatch was left before."""
    read = ppo_models.Models.read

    def misread(models, *rollout):
        old, reference, values, mask = read(models, *rollout)
        return old + 0.5 * mask, reference + 0.5 * mask, values, mask

    monkeypatch.setattr(ppo_models.Models, "read", misread)
    with pytest.raises(InputError, match="no update can be made"):
        finish(ready(steps=2))


def test_one_unlikely_token_neither_ends_a_run_nor_raises_the_kl_weight(ready, monkeypatch):
    """The policy sampled what it finds e^13 times less likely than the reference does."""
    read = ppo_models.Models.read

    def surprising(models, *given):
        old, reference, values, mask = read(models, *given)
        reference[0, 0] = old[0, 0] + 13
        return old, reference, values, mask

    monkeypatch.setattr(ppo_models.Models, "read", surprising)
    controlled = {"kl_controller": "adaptive", "kl_horizon": 100.0, "kl_target": 1.0}
    folder = ready(steps=3, kl_budget=5.0, learning_rate=1e-5, **controlled)
    assert finish(folder)["stop_reason"] == "steps"
    lines = rows_of(folder / "metrics.jsonl")
    assert all(line["kl"] > 1e4 and line["kl_k1"] < 1 for line in lines)
    # Each line has the weight by which its rewards were made, so the first has the first.
    began = json.loads((folder / "config.json").read_text()).get("kl_weight", KLSettings().weight)
    assert lines[0]["kl_weight"] == began > lines[1]["kl_weight"] > lines[2]["kl_weight"]


def test_a_run_stopped_just_before_its_kl_budget_is_spent_ends_with_the_same_bytes(ready):
    settings = {"steps": 30, "kl_budget": 0.5, **RUNS_AWAY}
    whole, broken = ready("whole", **settings), ready("broken", **settings)
    spent = finish(whole)["steps"]
    with pytest.raises(Stopped):
        ppo.main(broken, stop_after(broken, spent - 1))
    finish(broken)
    assert weights(broken) == weights(whole)


def test_the_tripwire_stops_a_run_that_the_test_rm_likes_less_and_less(talker, ready, tmp_path):
    # The train-RM learnt to like few words, the test-RM many. What runs on is worth 0 to both.
    brief = make_rewards(tmp_path / "brief", talker, lambda t: -len(t.split()), lengths=(1, 8))
    wordy = make_rewards(tmp_path / "wordy", talker, lambda t: len(t.split()), lengths=(1, 8))
    settings = {
        "steps": 40,
        "prompts_per_step": 24,
        "minibatch_size": 12,
        "learning_rate": 1e-3,
        "kl_weight": 0.0,
        "no_eos_score": 0.0,
        "reward_model": str(brief / "train"),
        "test_reward_model": str(wordy / "test"),
    }
    folder = ready(**settings)
    result = finish(folder)
    assert result["stop_reason"] == "tripwire"
    assert result["steps"] < 40
    # What is handed on is the policy of the step that the test-RM liked best.
    assert result["best_step"] < result["steps"]
    unarmed = ready("unarmed", tripwire_evaluations=0, **settings | {"steps": result["steps"] + 2})
    assert finish(unarmed)["stop_reason"] == "steps"
    patient = ready("patient", tripwire_drop=9.0, **settings | {"steps": result["steps"] + 1})
    assert finish(patient)["stop_reason"] == "steps"


def test_a_checkpoint_is_written_as_often_as_was_said(ready, monkeypatch):
    saved, write = [], ppo_keeper.write_checkpoint

    def counting(tensors, state, folder):
        saved.append(state.step)
        write(tensors, state, folder)

    monkeypatch.setattr(ppo_keeper, "write_checkpoint", counting)
    finish(ready(steps=5, checkpoint_every=2))
    assert saved == [2, 4]


def test_a_run_begins_with_the_policy_that_it_was_given(ready, tmp_path):
    other = make_policy(tmp_path / "other", seed=1)
    folder = ready(policy=str(other), learning_rate=0.0, steps=1)
    finish(folder)
    began, kept = load_file(str(other) + FILE), load_file(str(folder / "policy") + FILE)
    assert all(torch.equal(began[name], kept[name]) for name in kept)
    assert rows_of(folder / "metrics.jsonl")[0]["kl"] > 0.1  # the reference is another one


def test_tripped_wants_one_up_and_the_other_down_or_a_fall_of_both_twice_as_deep():
    up = [(i, 0.1 * i, 0.1 * i) for i in range(6)]
    apart = [(i, 0.1 * i, -0.1 * i) for i in range(6)]
    down = [(i, -0.1 * i, -0.1 * i) for i in range(6)]
    assert not ppo_keeper.is_tripped(up, 3, 0.1)
    assert ppo_keeper.is_tripped(apart, 3, 0.1)  # the mean of three fell by 0.3
    assert not ppo_keeper.is_tripped(apart, 3, 0.4)
    assert not ppo_keeper.is_tripped(down, 3, 0.16)
    assert ppo_keeper.is_tripped(down, 3, 0.14)  # 0.3 is more than twice as much
    assert not ppo_keeper.is_tripped(apart[:5], 3, 0.1)
    assert not ppo_keeper.is_tripped(apart, 0, 0.0)


def test_a_fall_so_slow_that_no_look_is_far_below_the_last_trips_all_the_same():
    rises = [(i, 0.2 * i, 0.1 * i) for i in range(6)]
    parting = [(6 + i, 1.0 + 0.02 * i, 0.5 - 0.02 * i) for i in range(30)]
    looks = [
        len(parting[:n]) for n in range(30) if ppo_keeper.is_tripped(rises + parting[:n], 3, 0.1)
    ]
    assert looks[0] == 8  # the mean of the last three is more than 0.1 below the best three's
    assert looks == list(range(8, 30)), "once parted, they stay so"


@pytest.mark.parametrize(("third", "kept"), [(0.46, 0), (0.48, 3)])
def test_of_policies_that_the_test_rm_likes_alike_the_nearest_to_the_reference_is_kept(
    ready, monkeypatch, third, kept
):
    # What the samples before are worth; a look before each of five steps; one at the end.
    liked = iter([0.0, 0.45, 0.46, 0.44, third, 0.30, 0.31])
    sample_and_judge = ppo_models.Models.sample_and_judge

    def scripted(models, *args, **kwargs):
        rows, means = sample_and_judge(models, *args, **kwargs)
        return rows, means | {"test": next(liked)}

    monkeypatch.setattr(ppo_models.Models, "sample_and_judge", scripted)
    assert finish(ready(steps=5, tripwire_drop=9.0))["best_step"] == kept


def test_a_rollout_that_never_ends_scores_the_penalty_and_nothing_else(ready):
    folder = ready(steps=1, max_new_tokens=1, no_eos_score=-7.0, temperature=0.05)
    finish(folder)
    line = rows_of(folder / "metrics.jsonl")[0]
    assert line["finished_fraction"] == 0
    assert line["reward"] == -7.0


@pytest.mark.parametrize("stopped_after", [1, 2, 4])
def test_a_stopped_run_ends_with_the_same_bytes_as_one_that_was_not(ready, stopped_after):
    settings = {"steps": 5, "kl_controller": "adaptive", "kl_horizon": 100.0}
    whole, broken = ready("whole", **settings), ready("broken", **settings)
    finish(whole)
    with pytest.raises(Stopped):
        ppo.main(broken, stop_after(broken, stopped_after))
    assert not (broken / "result.json").exists()
    finish(broken)
    assert weights(broken) == weights(whole)
    assert (broken / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()
    kept = [
        [row[k] for k in ("step", "reward", "kl", "kl_weight")]
        for row in rows_of(broken / "metrics.jsonl")
    ]
    assert kept == [
        [row[k] for k in ("step", "reward", "kl", "kl_weight")]
        for row in rows_of(whole / "metrics.jsonl")
    ]


def test_kill_9_at_any_moment_and_a_restart_end_with_the_same_bytes(ready):
    settings = {"steps": 40, "checkpoint_every": 3}
    whole, killed = ready("whole", **settings), ready("killed", **settings)
    finish(whole)
    process = start("ppo", killed)
    metrics = killed / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "result.json").exists()
    finished = run("ppo", killed)
    assert finished.returncode == 0, finished.stderr
    steps = [row["step"] for row in rows_of(whole / "metrics.jsonl")]
    assert [row["step"] for row in rows_of(metrics)] == steps
    assert weights(killed) == weights(whole)


def test_sigterm_leaves_a_checkpoint_and_exit_code_143(ready):
    folder = ready(steps=2000, checkpoint_every=1000)
    process = start("ppo", folder)
    metrics = folder / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert json.loads((folder / "error.json").read_text())["kind"] == "stopped"
    assert (folder / "checkpoint" / "manifest.json").exists()


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


def test_lora_with_the_reference_as_its_own_base_starts_at_kl_0_and_merges(ready):
    folder = ready(lora_rank=4, learning_rate=1e-2)
    finish(folder)
    lines = rows_of(folder / "metrics.jsonl")
    assert lines[0]["kl"] < 1e-6 < lines[1]["kl"]
    assert not (folder / "policy" / "adapter_config.json").exists()
    assert (folder / "policy" / "model.safetensors").exists()


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


def test_broken_weights_are_rolled_back_to_the_last_checkpoint(ready, capsys):
    folder = ready(steps=2, checkpoint_every=2, ema_decay=0.5, reference_ema=0.5)
    config = PPOConfig.from_dict(json.loads((folder / "config.json").read_text()))
    models = ppo_models.Models(config)
    optimizer = models.new_optimizer()
    with pytest.raises(InputError, match=r"\(policy loss\), 1 times, and there is no checkpoint"):
        ppo_keeper.roll_back(folder, models, optimizer, 1, "policy loss")  # nothing to go back to
    finish(folder)
    for _, parameter in models.trained():
        parameter.data.fill_(float("nan"))
    models.update_reference()
    average = ppo_keeper.roll_back(folder, models, optimizer, 1, "policy loss")
    # What had already taken in the broken weights is as it was too.
    for own, file in ((average, "average"), (models.moving_reference, "reference")):
        kept = load_file(folder / "checkpoint" / f"{file}.safetensors")
        assert own.keys() == kept.keys()
        assert all(torch.equal(own[name], kept[name]) for name in kept)
    saved = load_file(folder / "checkpoint" / "policy.safetensors")
    assert all(torch.equal(p, saved[name]) for name, p in models.trained())
    assert optimizer.state_dict()["state"]
    assert "rolled back to the weights of step 2" in capsys.readouterr().out
    with pytest.raises(InputError, match="4 times"):
        ppo_keeper.roll_back(folder, models, optimizer, 4, "policy loss")


def break_weights(models):
    with torch.no_grad():
        models.trained()[0][1].fill_(math.nan)


def break_after_update(monkeypatch, number):
    """Let the policy's first weights be NaN after the run's update of this number (from 1)."""
    step, done = torch.optim.AdamW.step, itertools.count(1)

    def breaking(optimizer, *given):
        step(optimizer, *given)
        if next(done) == number:
            with torch.no_grad():
                optimizer.param_groups[0]["params"][0].fill_(math.nan)

    monkeypatch.setattr(torch.optim.AdamW, "step", breaking)


# 36 updates each, more than may be left out in a row.
LONG_ROLLOUTS = {
    "minibatch_size": 1,
    "epochs": 3,
    "approx_kl_stop": 0.0,
    "prompts_per_step": 12,
    "tripwire_evaluations": 0,  # what breaks is to be found by its gradients
}


@pytest.mark.parametrize(
    ("number", "left_out"),
    [(73, 20), (102, 6), (108, 0)],
    ids=["the first of a rollout", "one of its last", "its last"],
)
def test_weights_that_an_update_breaks_are_rolled_back_and_the_run_ends(
    ready, monkeypatch, number, left_out
):
    """In the third of five rollouts; what is broken gets into no checkpoint."""
    folder = ready(steps=5, checkpoint_every=1, **LONG_ROLLOUTS)
    break_after_update(monkeypatch, number)
    result = finish(folder)
    assert (result["steps"], result["stop_reason"]) == (5, "steps")
    assert (result["rollbacks"], result["skipped_updates"]) == (1, left_out)
    lines = rows_of(folder / "metrics.jsonl")
    assert [line["rollbacks"] for line in lines] == [0, 0, 1, 1, 1]
    assert [line["skipped_updates"] for line in lines] == [0, 0, *[left_out] * 3]
    assert all(line["kl"] is not None for line in lines)
    kept = load_file(folder / "policy" / "model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in kept.values())


def test_weights_that_break_between_rollouts_are_rolled_back_too(ready, monkeypatch):
    folder = ready(steps=6, checkpoint_every=2, **LONG_ROLLOUTS)
    follow, done = ppo_models.Models.update_reference, itertools.count(1)

    def breaking(models):
        follow(models)
        if next(done) == 3:
            break_weights(models)

    monkeypatch.setattr(ppo_models.Models, "update_reference", breaking)
    result = finish(folder)
    assert (result["steps"], result["rollbacks"], result["skipped_updates"]) == (6, 1, 20)
    lines = rows_of(folder / "metrics.jsonl")
    # The rollout of the broken weights has no KL and teaches nothing.
    assert [line["kl"] is None for line in lines] == [step == 4 for step in range(1, 7)]
    assert [line["updates"] for line in lines] == [36, 36, 36, 0, 36, 36]


def test_weights_that_break_again_and_again_end_the_run_with_a_sentence(ready, monkeypatch):
    folder = ready(steps=9, checkpoint_every=1, **LONG_ROLLOUTS)
    update, done = ppo.update, itertools.count(1)

    def breaking(models, *given, **more):
        if next(done) > 2:
            break_weights(models)
        return update(models, *given, **more)

    monkeypatch.setattr(ppo, "update", breaking)
    with pytest.raises(InputError, match=r"not finite \(policy loss.* gradient\), 4 times; start"):
        finish(folder)
    assert rows_of(folder / "metrics.jsonl")[-1]["rollbacks"] == 3


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


def test_a_rule_that_gives_nan_is_named_with_its_prompt(ready, monkeypatch):
    monkeypatch.setitem(REWARDS, "broken", lambda _, texts: [float("nan")] * len(texts))
    with pytest.raises(InputError, match=r"prompt p\d+ .*rule that gave it"):
        finish(ready(rules={"broken": 1.0}))


def test_gradients_are_really_clipped():
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.full((4,), 3.0)
    assert parallel.clip_gradients([weight], 1.5) == pytest.approx(6.0)
    assert float(weight.grad.norm()) == pytest.approx(1.5, rel=1e-4)
    weight.grad = torch.full((4,), 3.0)
    parallel.clip_gradients([weight], 0.0)
    assert float(weight.grad.norm()) == pytest.approx(6.0)


def test_where_all_returns_are_alike_a_critic_explains_nothing():
    mask = torch.ones(2, 2, dtype=torch.bool)
    returns = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    assert ppo_math.explained_variance(returns, returns - 1.0, mask) == 1.0
    assert ppo_math.explained_variance(returns, torch.zeros(2, 2), mask) == 0.0
    alike = torch.full((2, 2), -2.0)
    assert ppo_math.explained_variance(alike, torch.tensor([[0.0, 0.1], [0.2, 0.0]]), mask) == 0.0
    assert ppo_math.explained_variance(alike, alike, mask) == 0.0


def test_every_pass_over_the_prompts_uses_each_once_in_a_new_order():
    steps = [ppo_inputs.choose_prompts(10, 4, index, seed=0) for index in range(5)]
    flat = [i for step in steps for i in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert ppo_inputs.choose_prompts(10, 4, 3, seed=0) == steps[3]


def test_an_entropy_weight_below_0_sharpens_the_policy(ready):
    entropies = {}
    for weight in (0.0, -0.5):
        folder = ready(f"weight{weight}", entropy_bonus=weight, steps=4, learning_rate=3e-3)
        finish(folder)
        entropies[weight] = rows_of(folder / "metrics.jsonl")[-1]["entropy"]
    assert entropies[-0.5] < entropies[0.0] - 0.1


def test_the_average_of_the_weights_lags_behind_them(ready):
    settings = {"steps": 4, "learning_rate": 3e-3, "checkpoint_every": 4}
    folder = ready("averaged", ema_decay=0.5, **settings)
    finish(folder)
    last = load_file(folder / "checkpoint" / "policy.safetensors")
    handed_on = load_file(folder / "policy" / "model.safetensors")
    started = load_file(
        json.loads((folder / "config.json").read_text())["policy"] + "/model.safetensors"
    )
    for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
        moved = (last[name] - started[name]).norm()
        lag = (last[name] - handed_on[name]).norm()
        assert 0 < float(lag) < float(moved)
    plain = ready("plain", **settings)
    finish(plain)
    assert weights(plain) != weights(folder)


def test_the_average_may_lie_beside_the_last_weights(ready):
    settings = {"steps": 3, "learning_rate": 3e-3, "lora_rank": 2}
    exported, both, plain = (
        ready("handed", ema_decay=0.5, **settings),
        ready("beside", ema_decay=0.5, ema_export="beside", **settings),
        ready("plain", **settings),
    )
    for folder in (exported, both, plain):
        finish(folder)
    assert weights(both) == weights(plain) != weights(exported)
    average = load_file(both / "average" / "model.safetensors")
    expected = load_file(exported / "policy" / "model.safetensors")
    assert all(torch.equal(average[name], expected[name]) for name in expected)
    assert (both / "average" / "tokenizer.json").exists()
    assert not (exported / "average").exists()


@pytest.mark.parametrize("rank", [0, 2], ids=["all weights", "adapters"])
def test_a_reference_that_follows_at_once_is_the_policy_of_the_rollout_before(ready, rank):
    """Of its weights nothing is kept, so the KL of a rollout is to the policy that sampled it."""
    settings = {"steps": 4, "learning_rate": 3e-3, "lora_rank": rank, "approx_kl_stop": 0.0}
    fixed, following = ready("fixed", **settings), ready("following", **settings)
    config = json.loads((following / "config.json").read_text())
    (following / "config.json").write_text(json.dumps(config | {"reference_ema": 1e-9}))
    finish(fixed)
    finish(following)
    far, near = (rows_of(f / "metrics.jsonl")[1:] for f in (fixed, following))
    assert min(row["kl"] for row in far) > 1e-4
    assert max(row["kl"] for row in near) < 1e-6
    assert weights(fixed) != weights(following)


def test_a_reference_of_another_shape_cannot_follow(ready, tmp_path):
    other = make_policy(tmp_path / "other", layers=1)
    with pytest.raises(InputError, match="averages weights, and the reference has no"):
        finish(ready(reference=str(other), reference_ema=0.5))
    with pytest.raises(ValueError, match="needs the policy itself as reference"):
        PPOConfig(
            policy="p",
            reference="q",
            reward_model="r",
            ema=EMASettings(reference_decay=0.5),
            lora=LoRASettings(rank=2),
        )


def test_scores_are_measured_anew_on_what_the_reference_says(ready):
    """Mean 0 and deviation 1 on its own answers, whatever the reward model's file says."""
    settings = {"combine": "weights", "max_new_tokens": 40, "score_clip": 0.0}
    folder = ready(normalise_samples=200, **settings)
    models = ppo_models.Models(load(PPOConfig, folder / "config.json"))
    models.reward.scorer.scale.mean["helpfulness"] += 3.0
    models.reward.scorer.scale.deviation["helpfulness"] *= 5.0
    asked, encoded = models.fitting([asked_for(i) for i in range(200)])
    models.normalize(asked, encoded)
    answers = [(p, a) for p, (a,) in zip(asked, models.sample(encoded, 1, seed=9), strict=True)]
    ended = [(p, models.policy.decode(a.tokens)) for p, a in answers if a.finished]
    _, means = models.reward.score([p for p, _ in ended], [text for _, text in ended])
    assert means["helpfulness"] == pytest.approx(0, abs=0.3)
    with pytest.raises(InputError, match=r"answers for reward\.normalize_samples ended"):
        finish(ready("short", normalise_samples=8, max_new_tokens=1))


def test_scores_may_keep_the_reward_models_own_unit(ready):
    def score_in(unit):
        models = ppo_models.Models(
            load(PPOConfig, ready(unit, score_scale=unit, combine="weights") / "config.json")
        )
        texts = [" ".join(["nice"] * n) for n in range(1, 6)]
        asked = [asked_for(i) for i in range(5)]
        scorer = models.reward.scorer
        return scorer.score([p.messages for p in asked], texts)["helpfulness"], scorer

    standard, scorer = score_in("standard")
    mean, centred = score_in("mean")
    raw, bare = score_in("raw")
    scale, middle = scorer.scale.deviation["helpfulness"], scorer.scale.mean["helpfulness"]
    assert scale != pytest.approx(1, abs=0.01)
    assert torch.allclose(mean, standard * scale, atol=1e-5)
    assert torch.allclose(raw, standard * scale + middle, atol=1e-5)
    # Llama 2's rule whitens by the same samples, so there the unit of what governs is no matter.
    for other, scores in ((centred, mean), (bare, raw)):
        assert torch.allclose(
            other.scale._whiten(scores, "helpfulness", "harmless"),
            scorer.scale._whiten(standard, "helpfulness", "harmless"),
            atol=1e-4,
        )


NOT_CAUSAL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.mark.parametrize("kind", ["encoder", "short", "alike"])
def test_a_critic_never_sees_what_is_not_said_yet(kind, ready, talker, taste, tmp_path):
    """Nor one that would run out of positions: where the reward model's trunk is such a one, it
    starts from the policy."""
    from transformers import AutoTokenizer, BertConfig, BertModel, GPT2Config, GPT2Model

    tokenizer = AutoTokenizer.from_pretrained(talker)
    size, trunk = len(tokenizer), tmp_path / "trunk"
    torch.manual_seed(0)
    if kind == "encoder":
        BertModel(BertConfig(vocab_size=size, num_attention_heads=4, **NOT_CAUSAL)).save_pretrained(
            trunk
        )
    elif kind == "short":
        GPT2Model(
            GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=16)
        ).save_pretrained(trunk)
    tokenizer.save_pretrained(trunk)
    rewards = taste / "train"
    if kind != "alike":
        model = RewardModel.new(
            str(trunk), ["helpfulness", "safety"], use_prior=False, max_length=64, device="cpu"
        )
        save_reward_model(model, rewards := tmp_path / "rewards")
    folder = ready(critic="model", reward_model=str(rewards), test_reward_model="")
    models = Models(load(PPOConfig, folder / "config.json"))
    torch.nn.init.normal_(models.critic.out.weight)
    responses = [[9, 10, 11, 12], [9, 10, 13, 12]]  # differ in the third
    packed = models.policy.pack([[5, 6], [5, 6]], responses)
    with torch.no_grad():
        values = packed.unpack(models.critic(torch.zeros(8, 32), packed))
    assert torch.allclose(values[0, :3], values[1, :3], atol=1e-6)
    start = taste / "train" if kind == "alike" else Path(talker)
    embeddings = load_file(start / "model.safetensors")
    name = next(name for name in embeddings if name.endswith("embed_tokens.weight"))
    assert torch.equal(models.critic.trunk.get_input_embeddings().weight, embeddings[name])
    if kind == "short":
        finish(folder)


@pytest.mark.parametrize("more", [{}, {"critic": "model"}, {"lora_rank": 2}])
def test_a_policy_of_adapters_is_merged_and_trained(more, ready, talker, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    kind = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(talker), kind)
    torch.nn.init.normal_(model.base_model.model.model.layers[0].mlp.up_proj.lora_B.default.weight)
    model.save_pretrained(tmp_path / "adapters")
    folder = ready(policy=str(tmp_path / "adapters"), **more)
    finish(folder)
    merged = model.merge_and_unload().state_dict()
    trained = load_file(folder / "policy" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    assert 1e-5 < float((trained[name] - merged[name]).abs().max()) < 0.1


def test_while_the_critic_warms_up_its_gradient_does_not_reach_the_policy(ready, monkeypatch):
    monkeypatch.setenv(FROZEN, "1")  # a run in which the policy never learns is refused by now
    quiet = ready("quiet", critic_warmup_steps=1, steps=1)
    finish(quiet)
    passing = ready("passing", critic_warmup_steps=1, critic_trains_policy=1.0, steps=1)
    finish(passing)
    assert weights(passing) == weights(quiet)


def test_rewards_of_fewer_than_eight_responses_are_not_whitened():
    few = {"prompts_per_step": 7, "minibatch_size": 7, "whiten_rewards": True}
    with pytest.raises(ValueError, match="needs 8 responses"):
        PPOConfig.from_dict({"policy": "p", "reference": "p", "reward_model": "r", **few})


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
