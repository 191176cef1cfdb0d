"""docs/ppo_recipe.md tells the truth, and what it calls fixed is as it says."""

import re
import tomllib

import pytest
import torch
from torch import nn

from rlhf.training import packing, ppo_math, ppo_models, sampling
from rlhf.training.configs import PPOConfig
from rlhf.training.critic import HeadCritic, ModelCritic
from rlhf.training.language_models import pretrained
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.prior import PRIOR_FEATURES
from rlhf.training.rundir.errors import InputError
from rlhf.training.settings import load
from tests.rlhf.training.conftest import finish
from tests.rlhf.training.test_ppo_options import OPTIONS, OTHERWISE
from tests.rlhf.training.tiny import ROOT, notes_of, rows_of

SETTINGS = PPOConfig.settings()


def tables():
    """The rows of the page's three tables, cell by cell."""
    parts = (ROOT / "docs" / "ppo_recipe.md").read_text().split("\n## ")[1:]
    for part in parts:
        lines = [line for line in part.splitlines() if line.startswith("|")]
        yield [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def default_of(setting):
    return "required" if setting.is_required else f"`{setting.default!r}`"


def test_every_setting_is_on_the_page_once_with_the_value_that_it_has():
    with_source, _, others = tables()
    defaults = {row[1].strip("`"): row[2] for row in with_source}
    defaults |= {row[0].strip("`"): row[1] for row in others}
    assert len(defaults) == len(with_source) + len(others)
    assert defaults == {key: default_of(setting) for key, setting in SETTINGS.items()}


def test_every_detail_with_a_setting_is_changed_to_see_that_the_policy_changes():
    with_source, _, others = tables()
    assert {row[1].strip("`") for row in with_source} == set(OPTIONS)
    assert {row[0].strip("`") for row in others} == OTHERWISE


def test_the_page_says_what_the_preset_for_larger_policies_starts_from():
    toml = (ROOT / "rlhf/training/presets/small.toml").read_text()
    preset = PPOConfig.flattened(tomllib.loads(toml)["ppo"])
    defaults = {row[1].strip("`"): row[3].strip("`") for row in next(tables())}
    for name, value in defaults.items():
        wanted = SETTINGS[name].hint(preset[name]) if name in preset else ""
        assert value == (repr(wanted) if name in preset else ""), name


def test_every_test_that_the_page_names_is_there():
    code = "\n".join(path.read_text() for path in (ROOT / "tests/rlhf/training").rglob("*.py"))
    there = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE))
    _, fixed, others = tables()
    named = {row[2].strip("`") for row in fixed + others}
    assert named - there == set()


def test_a_coefficient_before_the_value_loss_would_change_nothing(ready, monkeypatch):
    """AdamW's steps have the same size whatever the loss is multiplied by."""
    settings = {"adam_epsilon": 1e-14, "max_grad_norm": 0.0, "value_learning_rate": 0.05}
    plain, scaled = ready("plain", **settings), ready("scaled", **settings)
    finish(plain)
    of_one = ppo_math.value_loss
    monkeypatch.setattr(ppo_math, "value_loss", lambda *a, **k: 4 * of_one(*a, **k))
    finish(scaled)
    first, second = (rows_of(f / "metrics.jsonl") for f in (plain, scaled))
    for a, b in zip(first, second, strict=True):
        assert b["value_loss"] == pytest.approx(4 * a["value_loss"], rel=1e-3)
        for name in ("value_explained", "policy_loss", "reward", "kl"):
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5)
    assert abs(first[1]["value_explained"]) > 1e-3  # it did learn


def test_a_reward_models_head_begins_as_in_summarize_from_feedback(talker):
    torch.manual_seed(0)
    model = RewardModel.new(
        talker, ("helpfulness",), use_prior=True, max_length=64, device="cpu", n_heads=400
    )
    width = 2 * model.trunk.config.hidden_size + PRIOR_FEATURES
    assert model.heads.weight.shape == (400, width)
    assert float(model.heads.weight.detach().std()) == pytest.approx((width + 1) ** -0.5, rel=0.03)
    assert float(model.heads.weight.detach().mean()) == pytest.approx(0, abs=0.01)
    assert not model.heads.bias.any()


def test_a_new_critic_values_everything_at_nothing(talker):
    policy = load_policy(talker, "policy", device=torch.device("cpu"))
    packed, hidden = policy.read([[5, 6, 7]], [[8, 9]])
    trunk = pretrained.load_model(talker, "critic", kind="AutoModel")
    for critic in (HeadCritic(policy.hidden_size), ModelCritic(trunk)):
        assert critic(hidden, packed).tolist() == [0.0, 0.0]


def test_no_model_keeps_its_dropout(tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from tests.rlhf.training.tiny import make_policy

    folder = make_policy(tmp_path / "policy")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=64,
        eos_token_id=tokenizer.eos_token_id,
    )
    assert config.attn_pdrop == config.resid_pdrop == config.embd_pdrop == 0.1
    GPT2LMHeadModel(config).save_pretrained(folder)
    policy = load_policy(str(folder), "policy", device=torch.device("cpu"))
    scorer = RewardModel.new(
        str(folder), ("helpfulness",), use_prior=False, max_length=64, device="cpu"
    )
    for model in (policy.model, scorer.trunk):
        model.train()
        drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
        assert drops
        assert {m.p for m in drops} == {0.0}
        ids = torch.tensor([[5, 6, 7, 8]])
        first, second = (model(ids, output_hidden_states=True).hidden_states[-1] for _ in "ab")
        assert torch.equal(first, second)


def test_the_learning_rate_warms_up_and_then_decays_linearly(ready):
    folder = ready(
        steps=6,
        warmup_steps=2,
        learning_rate=1e-3,
        learning_rate_floor=0.2,
        tripwire_evaluations=0,
    )
    finish(folder)
    rates = [row["learning_rate"] for row in rows_of(folder / "metrics.jsonl")]
    # Half and all of the peak; then a fifth is where it would be after the last.
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 8e-4, 6e-4, 4e-4])


def test_the_policys_learning_rate_begins_to_rise_when_the_critic_has_warmed_up(ready, monkeypatch):
    settings = {"warmup_steps": 2, "learning_rate": 1e-3, "learning_rate_floor": 0.2}
    folder = ready(steps=8, critic_warmup_steps=2, tripwire_evaluations=0, **settings)
    critics = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *given):
        critics.append(optimizer.param_groups[1]["lr"])
        step(optimizer, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    finish(folder)
    rates = [row["learning_rate"] for row in rows_of(folder / "metrics.jsonl")]
    assert rates == pytest.approx([0, 0, 5e-4, 1e-3, 1e-3, 8e-4, 6e-4, 4e-4])
    assert critics[0] == pytest.approx(0.5 * 2e-3)  # the critic's own rises at once


def test_the_watch_prompts_are_looked_at_as_often_as_was_said(ready):
    folder = ready(steps=5, watch_every=2)
    finish(folder)
    looked = [row["step"] for row in rows_of(folder / "metrics.jsonl") if "watch_reward" in row]
    assert looked == [1, 3, 5]


@pytest.mark.parametrize(
    "smaller",
    [{"microbatch_size": 2}, {"optimizer.tokens_per_pass": 30}, {"decode_batch_size": 3}],
    ids=lambda smaller: next(iter(smaller)),
)
def test_smaller_passes_are_more_passes_and_learn_the_same(ready, monkeypatch, smaller):
    passes = {"read": 0, "decoded": 0}
    pack, decode = packing.pack, sampling.sample

    def counting_pack(*given, **more):
        passes["read"] += 1
        return pack(*given, **more)

    def counting_decode(model, prompts, *, batch_size, **more):
        passes["decoded"] += -(-len(prompts) // batch_size)
        return decode(model, prompts, batch_size=batch_size, **more)

    monkeypatch.setattr(packing, "pack", counting_pack)
    monkeypatch.setattr(sampling, "sample", counting_decode)
    large = {"microbatch_size": 6, "decode_batch_size": 64}
    counted, rows = [], []
    for name, settings in (("few", large), ("many", large | smaller)):
        passes.update(read=0, decoded=0)
        folder = ready(name, **settings)
        finish(folder)
        counted.append(dict(passes))
        rows.append(rows_of(folder / "metrics.jsonl"))
    kind = "decoded" if "decode_batch_size" in smaller else "read"
    assert counted[1][kind] > 1.5 * counted[0][kind]
    for a, b in zip(*rows, strict=True):
        for name in ("reward", "kl", "policy_loss", "value_loss", "length"):
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5)


def test_a_run_takes_the_threads_and_the_device_that_it_was_given(ready, monkeypatch):
    before = torch.get_num_threads()
    try:
        finish(ready(threads=before % 2 + 1, steps=1))
        assert torch.get_num_threads() == before % 2 + 1
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no usable GPU"):
        ppo_models.Models(load(PPOConfig, ready("gpu", device="cuda") / "config.json"))


def test_a_step_says_what_it_is_doing_all_the_time(ready, monkeypatch):
    notes = notes_of(monkeypatch, lambda: finish(ready(steps=1)))
    assert notes >= {"loading the models", "sampling", "scoring", "reading by the reference"}
    assert "training on a minibatch" in notes
