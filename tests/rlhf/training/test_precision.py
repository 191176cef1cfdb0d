"""bfloat16: frozen weights take half the room, what is trained stays float32, and learning goes on.

On a CPU, where torch computes the same types as on a GPU, slowly.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import ppo_models, ppo_updates
from rlhf.training.configs import PPOConfig
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.conftest import finish, make_rewards, nice
from tests.rlhf.training.test_baselines import TAUGHT, demonstrations, logprob
from tests.rlhf.training.test_stages import rankings
from tests.rlhf.training.tiny import result_of, rows_of, run_folder

TRAINERS = {"threads": 1, "batch_size": 8, "microbatch_size": 4}


def models_of(folder):
    return ppo_models.Models(PPOConfig.from_dict(json.loads((folder / "config.json").read_text())))


def size(*models):
    return sum(p.nbytes for m in models for p in m.parameters() if not p.requires_grad)


@pytest.mark.parametrize("rank", [0, 2])
def test_in_bfloat16_all_that_is_frozen_takes_half_the_room(ready, rank):
    frozen = {}
    for dtype in ("float32", "bfloat16"):
        models = models_of(ready(dtype, dtype=dtype, lora_rank=rank))
        scorers = [
            s for r in (models.reward.scorer, models.reward.test_scorer) for s in (r.trunk, r.prior)
        ]
        frozen[dtype] = size(models.policy.model, models.reference.model, *scorers)
    assert frozen["bfloat16"] == frozen["float32"] / 2


@pytest.mark.parametrize("changed", [{}, {"lora_rank": 2}, {"critic": "model"}])
def test_in_bfloat16_what_is_trained_and_what_decides_stays_in_float32(ready, changed):
    models = models_of(ready(dtype="bfloat16", **changed))
    optimizer = models.new_optimizer()
    prompts = [[5, 6, 7], [6, 7]]
    answers = [a for group in models.sample(prompts, 2, seed=1) for a in group]
    repeated = [p for p in prompts for _ in range(2)]
    old, reference, values, mask = models.read(repeated, answers)
    assert {t.dtype for t in (old, reference, values)} == {torch.float32}
    # So a value is told to more than bfloat16's three digits.
    with torch.no_grad():
        models.critic.out.bias.fill_(1.0001)
    *_, values, _ = models.read(repeated, answers)
    assert float(values[mask].mean()) == pytest.approx(1.0001, abs=1e-6)
    rollout = ppo_updates.Rollout(
        repeated, [a.tokens for a in answers], mask, old, mask * 1.0, values, values
    )
    ppo_updates.update(models, optimizer, rollout, models.config, step=1)
    learning = [p for group in optimizer.param_groups for p in group["params"]]
    moments = [t for entry in optimizer.state.values() for t in entry.values()]
    assert {t.dtype for t in [*learning, *moments]} == {torch.float32}
    assert models.reward.scorer.heads.weight.dtype == torch.float32


@pytest.mark.parametrize("rank", [0, 4])
def test_in_bfloat16_the_reward_rises_too(ready, rank):
    folder = ready(
        dtype="bfloat16",
        lora_rank=rank,
        steps=16,
        tripwire_evaluations=0,
        prompts_per_step=24,
        minibatch_size=12,
        learning_rate=1e-2 if rank else 3e-3,
        kl_weight=0.0,
    )
    finish(folder)
    rewards = [line["reward"] for line in rows_of(folder / "metrics.jsonl")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5


@pytest.mark.parametrize("rank", [0, 2])
def test_in_bfloat16_the_first_update_begins_near_the_policy_that_sampled(ready, rank):
    # The old log-probabilities are read by the same pass as the new ones, not kept from sampling, so
    # where both read the same rows together the ratio is 1 to the bit. In other company a product
    # of another shape may sum in another order, and each rounding is up to 2**-9 of a logit.
    same = {"minibatch_size": 12, "microbatch_size": 12}
    for changed, most in ((same, 0.0), ({"minibatch_size": 6, "microbatch_size": 4}, 2e-4)):
        folder = ready(
            f"{len(changed)}{most}", dtype="bfloat16", lora_rank=rank, steps=1, epochs=1,
            learning_rate=0.0, **changed,
        )  # fmt: skip
        finish(folder)
        assert rows_of(folder / "metrics.jsonl")[0]["approx_kl"] <= most


def test_adapters_on_rounded_weights_are_merged_into_the_unrounded_ones(ready, talker):
    folder = ready(dtype="bfloat16", lora_rank=2, lora_alpha=4.0, checkpoint_every=2)
    finish(folder)
    base = load_file(f"{talker}/model.safetensors")
    adapters = load_file(folder / "checkpoint" / "policy.safetensors")
    merged = load_file(folder / "policy" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj"
    a, b = (adapters[f"base_model.model.{name}.lora_{side}.default.weight"] for side in "AB")
    assert float((b @ a).abs().max()) > 0
    assert torch.allclose(merged[f"{name}.weight"], base[f"{name}.weight"] + 2 * b @ a, atol=1e-7)


def test_a_reward_model_learns_in_bfloat16_and_its_weights_are_float32(talker, tmp_path):
    right = {}
    for dtype in ("float32", "bfloat16"):
        folder = make_rewards(tmp_path / dtype, talker, nice, dtype=dtype)
        right[dtype] = result_of(folder)["train"]["helpfulness"]["accuracy"]
        kept = load_file(folder / "train" / "model.safetensors")
        assert {tensor.dtype for tensor in kept.values()} == {torch.float32}
    assert abs(right["bfloat16"] - right["float32"]) < 0.05


def test_a_reward_model_read_in_bfloat16_says_nearly_the_same(taste):
    conversations = [[{"role": "user", "content": "please paint my red lamp"}]] * 3
    texts = [" nice nice lamp", "sorry no", "red nice kettle"]
    exact, rounded = (
        load_reward_model(taste / "train", dtype=dtype).score(conversations, texts)["helpfulness"]
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.1)


def test_fine_tuning_and_dpo_in_bfloat16_learn_and_end_elsewhere_than_in_float32(talker, tmp_path):
    from rlhf.training import dpo, sft

    kept = {}
    for dtype in ("float32", "bfloat16"):
        taught = run_folder(
            tmp_path / f"sft-{dtype}",
            {"policy": talker, "epochs": 4, "learning_rate": 5e-3, "dtype": dtype} | TRAINERS,
            demonstrations=demonstrations(40),
        )
        sft.main(taught, StopRequest())
        result = result_of(taught)
        assert result["heldout_loss"] < 0.3 * result["heldout_loss_before"]
        preferred = run_folder(
            tmp_path / f"dpo-{dtype}",
            {"policy": talker, "learning_rate": 1e-3, "dtype": dtype} | TRAINERS,
            preferences=rankings(12, nice),
        )
        dpo.main(preferred, StopRequest())
        for folder in (taught, preferred):
            weights = load_file(folder / "policy" / "model.safetensors")
            assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
            kept.setdefault(folder.name.split("-")[0], []).append(weights)
    for exact, rounded in kept.values():
        assert any(not torch.equal(exact[name], rounded[name]) for name in exact)
    assert logprob(taught / "policy", "please paint my red lamp", TAUGHT) > -8
