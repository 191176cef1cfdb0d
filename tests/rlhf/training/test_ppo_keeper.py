"""Which policy a PPO run keeps and when it stops: KL budget, tripwire, rollback, averages, checkpoints."""

import itertools
import json
import math

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import (
    ppo,
    ppo_inputs,
    ppo_keeper,
    ppo_models,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.configs.ppo_groups import KLSettings
from rlhf.training.rundir.errors import InputError, Stopped
from tests.rlhf.training.conftest import FILE, as_read, finish, make_rewards, stop_after, weights
from tests.rlhf.training.tiny import make_policy, rows_of

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
    _, encoded = models.fitting([as_read(i) for i in range(24)])
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
