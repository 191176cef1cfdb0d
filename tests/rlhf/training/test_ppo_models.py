"""The models of a PPO run: a moving reference, the scores' scale, critics, adapters."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import (
    ppo_models,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.configs.ppo_groups import EMASettings, LoRASettings
from rlhf.training.ppo_models import Models
from rlhf.training.reward_models.folder import save_reward_model
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rundir.errors import InputError
from rlhf.training.settings import load
from tests.rlhf.training.conftest import as_read, finish, weights
from tests.rlhf.training.tiny import make_policy, rows_of


def test_lora_with_the_reference_as_its_own_base_starts_at_kl_0_and_merges(ready):
    folder = ready(lora_rank=4, learning_rate=1e-2)
    finish(folder)
    lines = rows_of(folder / "metrics.jsonl")
    assert lines[0]["kl"] < 1e-6 < lines[1]["kl"]
    assert not (folder / "policy" / "adapter_config.json").exists()
    assert (folder / "policy" / "model.safetensors").exists()


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
    asked, encoded = models.fitting([as_read(i) for i in range(200)])
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
        asked = [as_read(i) for i in range(5)]
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
