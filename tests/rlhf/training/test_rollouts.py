"""Rollouts by another engine than our own decoder: what it samples is the policy, and PPO learns
from its own reading of it."""

import json

import pytest
import torch

from rlhf.training import ppo_math, ppo_models, rollouts
from rlhf.training.configs import PPOConfig
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.conftest import finish, weights
from tests.rlhf.training.test_ppo_resume import without_clocks
from tests.rlhf.training.tiny import make_t5, rows_of

PROMPTS = [[5, 6, 7, 8, 9], [6, 7], [8, 9, 5]] * 4


def models_of(folder):
    return ppo_models.Models(PPOConfig.from_dict(json.loads((folder / "config.json").read_text())))


def nudge(models, by=0.02):
    """Trained weights that are no longer those of the policy's folder."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for _, parameter in models.trained():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=by)


def gap(models, answers):
    asked = [p for p, group in zip(PROMPTS, answers, strict=True) for _ in group]
    flat = [answer for group in answers for answer in group]
    old, _, _, mask = models.read(asked, flat)
    return models.importance_weights(flat, old, mask)[1]


@pytest.mark.parametrize("rank", [0, 2])
def test_continuous_batching_samples_from_the_policy_as_it_is_now(ready, rank):
    folder = ready(
        rollouts="continuous",
        lora_rank=rank,
        temperature=0.7,
        max_new_tokens=60,
        decode_batch_size=8,
    )
    models = models_of(folder)
    nudge(models)
    answers = models.sample(PROMPTS, 3, seed=1)
    assert [len(group) for group in answers] == [3] * len(PROMPTS)
    # It says of its own draws what the pass that trains says of them, at this temperature.
    assert gap(models, answers)["sampler_gap"] < 1e-5
    if rank:  # with the adapters off it would be another policy
        with models.policy.adapters_off():
            assert gap(models, answers)["sampler_gap"] > 0.01
    flat = [answer for group in answers for answer in group]
    assert any(answer.finished for answer in flat)
    for answer in flat:
        stops = [token in models.policy.stop_ids for token in answer.tokens]
        assert not any(stops[:-1])
        assert stops[-1] == answer.finished
        assert answer.finished or len(answer.tokens) == 60
    same, other = (models.sample(PROMPTS, 3, seed=seed) for seed in (1, 2))
    assert [[a.tokens for a in g] for g in same] == [[a.tokens for a in g] for g in answers]
    assert same != other


def test_continuous_batching_draws_from_the_whole_vocabulary_at_the_temperature(ready):
    """Not from the likeliest 50, which is what transformers does if it is not told otherwise."""
    models = models_of(ready(rollouts="continuous", max_new_tokens=1, temperature=1.3))
    answers = models.sample([PROMPTS[0]], 3000, seed=5)[0]
    with torch.no_grad():
        logits = models.policy.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    expected = 3000 * torch.softmax(logits / 1.3, dim=0)
    first = torch.tensor([answer.tokens[0] for answer in answers])
    found = torch.bincount(first, minlength=len(expected))
    common = expected > 5  # Pearson's statistic wants some of each; the others are one kind
    kinds = [torch.cat([n[common], n[~common].sum()[None]]) for n in (found, expected)]
    statistic = float(((kinds[0] - kinds[1]) ** 2 / kinds[1]).sum())
    freedom = len(kinds[0]) - 1
    assert freedom > 50
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_ppo_learns_from_continuous_batching_and_the_first_ratio_is_1(ready):
    folder = ready(
        rollouts="continuous",
        steps=12,
        prompts_per_step=24,
        minibatch_size=12,
        learning_rate=3e-3,
        kl_weight=0.0,
    )
    finish(folder)
    lines = rows_of(folder / "metrics.jsonl")
    rewards = [line["reward"] for line in lines]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.5
    assert all(0 <= line["sampler_gap"] < 1e-5 for line in lines)
    assert all(abs(line["sampler_kl"]) < 1e-6 for line in lines)
    still = ready("still", rollouts="continuous", steps=1, learning_rate=0.0)
    finish(still)
    assert rows_of(still / "metrics.jsonl")[0]["approx_kl"] < 1e-9


def test_a_run_with_continuous_batching_goes_on_to_the_same_bytes(ready, monkeypatch):
    settings = {"rollouts": "continuous", "lora_rank": 2, "steps": 4, "checkpoint_every": 2}
    whole, broken = ready("whole", **settings), ready("broken", **settings)
    finish(whole)
    sample, calls = rollouts.ContinuousBatching.sample, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 8:  # two looks before the first checkpoint and two after it, and so on
            raise MemoryError
        return sample(*args, **kwargs)

    monkeypatch.setattr(rollouts.ContinuousBatching, "sample", dies)
    with pytest.raises(MemoryError):
        finish(broken)
    assert (broken / "checkpoint" / "manifest.json").exists()
    finish(broken)
    assert weights(broken) == weights(whole)
    assert without_clocks(broken) == without_clocks(whole)


def test_an_engine_that_breaks_off_is_named(ready, monkeypatch):
    models = models_of(ready(rollouts="continuous"))
    monkeypatch.setattr(
        type(models.policy.model.model), "forward", lambda *_, **__: 1 / 0, raising=True
    )
    with pytest.raises(InputError, match=r"Continuous batching broke off .*division by zero"):
        models.sample(PROMPTS, 1, seed=1)


def test_an_encoder_decoder_is_refused_by_other_engines_than_our_decoder(ready, tmp_path):
    t5 = str(make_t5(tmp_path / "t5"))
    with pytest.raises(InputError, match=r"encoder-decoder .*set rollout.engine to own"):
        models_of(ready(rollouts="continuous", policy=t5, reference=t5))


def test_a_cap_on_importance_is_refused_where_it_would_do_nothing(ready):
    with pytest.raises(InputError, match="leave it at 0"):
        models_of(ready(importance_cap=2.0))


def test_importance_is_the_ratio_up_to_the_cap_and_scales_the_loss():
    policy = torch.tensor([[-1.0, -1.0, -1.0]])
    sampler = torch.tensor([[-1.0, -0.5, -3.0]])
    ratio = ppo_math.truncated_importance(policy, sampler, cap=2.0)
    assert ratio[0].tolist() == pytest.approx([1.0, 0.60653, 2.0], abs=1e-4)
    mask = torch.ones(1, 3, dtype=torch.bool)
    loss, _ = ppo_math.policy_loss(
        policy, policy, torch.tensor([[3.0, 0.0, 1.5]]), mask, clip=0.2, importance=ratio
    )
    assert float(loss) == pytest.approx(-(3.0 * 1 + 1.5 * 2) / 3)


def test_log_probabilities_stand_where_their_tokens_do():
    short, long = rollouts.Sampled([1], [-1.0], True), rollouts.Sampled([2, 3], [-2.0, -3.0], False)
    assert rollouts.sampler_logprobs([short, long]).tolist() == [[-1.0, 0.0], [-2.0, -3.0]]
