"""Every option of the reward_model stage does something: none is read and then forgotten."""

import hashlib
import json
import random

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import reward_model, reward_run
from rlhf.training.configs import RewardModelConfig
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from rlhf.training.settings import FROZEN, IdleError
from tests.rlhf.training.tiny import (
    WORDS,
    ask,
    judgment,
    make_policy,
    notes_of,
    prompt,
    result_of,
    run_folder,
)

# What each option is changed to, and what must be chosen with it to matter.
OPTIONS = {
    "axes": {"axes": ["safety"]},
    "test_share": {"test_share": 0.3},
    "epochs": {"epochs": 2},
    "rankings_per_batch": {"rankings_per_batch": 4},
    "learning_rate": {"learning_rate": 1e-3},
    "head_learning_rate": {"head_learning_rate": 1e-3},
    "warmup_steps": {"warmup_steps": 0},
    "weight_decay": {"weight_decay": 0.5},
    "max_grad_norm": {"max_grad_norm": 1e-4},
    "loss": {"loss": "plackett_luce"},
    "ties": {"ties": "half"},
    "margin": {"margin": 1.0},
    "label_smoothing": {"label_smoothing": 0.2},
    "smoothing": {"smoothing": "agreement"},
    "reliability": {"reliability": False},
    "centering": {"centering": 1.0},
    "prior": {"prior": True},
    "max_length": {"max_length": 16},
    "members": {"members": 3},
    "ensemble": {"members": 2, "ensemble": "models"},
    "adapter_rank": {"members": 2, "ensemble": "adapters", "adapter_rank": 2},
    "separate_axes": {"separate_axes": True},
    "seed": {"seed": 1},
    "dtype": {"dtype": "bfloat16"},
}
BESIDE = {
    "ensemble": {"members": 2},
    "adapter_rank": {"members": 2, "ensemble": "adapters"},
}
# How the same is computed, and where.
OTHERWISE = {"trunk", "share_prompts", "batch_size", "checkpoint_seconds", "sharded"}
OTHERWISE |= {"threads", "device", "tokens_per_pass"}

PEOPLE = ("ada", "ben")


def opinions(n=14):
    """Rankings with ties by two people, of whom ben errs now and then."""
    generator = random.Random(3)
    rows, reference = [], []
    for number in range(n):
        texts = [" ".join(generator.choices(WORDS, k=generator.randint(3, 7))) for _ in range(4)]
        for person in PEOPLE:
            points = [t.split().count("nice") + len(t.split()) // 4 for t in texts]
            if person == "ben" and number % 4 == 0:
                generator.shuffle(points)
            ranks = [1 + sum(b > a for b in points) for a in points]
            both = {"helpfulness": ranks, "safety": ranks[::-1]}
            rows.append(judgment(number, texts, both, annotator=person))
        reference.append(prompt(number) | {"text": texts[0]})
    return rows, reference


def train(folder, trunk, **settings):
    rows, reference = opinions()
    config = {
        "trunk": trunk,
        "test_share": 0.5,
        "epochs": 1,
        "rankings_per_batch": 2,
        "prior": False,
        "threads": 1,
    }
    run_folder(folder, config | settings, preferences=rows, reference=reference)
    reward_model.main(folder, StopRequest())
    return folder


def digest(folder):
    digest = hashlib.sha256()
    for path in sorted((folder / "train").rglob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def test_every_option_is_tried_here():
    names = set(RewardModelConfig.settings())
    assert names == set(OPTIONS) | OTHERWISE


# Of each setting with a switch: a value that is no default, and the switch turned off.
IDLE = {
    "ties": {"ties": "half", "loss": "plackett_luce"},
    "margin": {"margin": 1.0, "loss": "plackett_luce"},
    "label_smoothing": {"label_smoothing": 0.2, "smoothing": "agreement"},
    "smoothing": {"smoothing": "agreement", "loss": "plackett_luce"},
    "ensemble": {"ensemble": "models"},
    "adapter_rank": {"adapter_rank": 2},
    "separate_axes": {"separate_axes": True, "axes": ["safety"]},
}


def test_every_option_with_a_switch_is_refused_while_it_is_off():
    settings = RewardModelConfig.settings().items()
    assert set(IDLE) == {key for key, known in settings if known.requires}
    for option, changes in IDLE.items():
        assert option in RewardModelConfig.idle(changes), option
        with pytest.raises(IdleError, match="requires"):
            RewardModelConfig(trunk="t", **changes)
        RewardModelConfig(trunk="t", **BESIDE.get(option, {}) | OPTIONS[option])


@pytest.mark.parametrize("option", list(IDLE))
def test_what_does_nothing_changes_nothing_in_a_run_that_was_frozen_with_it(
    talker, tmp_path, monkeypatch, option
):
    monkeypatch.setenv(FROZEN, "1")
    beside = {name: value for name, value in IDLE[option].items() if name != option}
    idle = train(tmp_path / "idle", talker, **IDLE[option])
    assert digest(idle) == digest(train(tmp_path / "plain", talker, **beside))


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.mark.parametrize("option", list(OPTIONS))
def test_an_option_changes_what_the_reward_model_becomes(talker, known, tmp_path, option):
    beside = BESIDE.get(option, {})
    key = json.dumps(beside)
    if key not in known:
        known[key] = digest(train(tmp_path / "plain", talker, **beside))
    changed = train(tmp_path / "changed", talker, **OPTIONS[option])
    assert digest(changed) != known[key]


def test_the_same_settings_give_the_same_bytes(talker, known, tmp_path):
    first = digest(train(tmp_path / "a", talker))
    assert digest(train(tmp_path / "b", talker)) == first


def test_plackett_luce_learns_what_people_rank_by_and_takes_no_settings_of_pairs(talker, tmp_path):
    rows, reference = opinions(60)
    config = {"trunk": talker, "axes": ["helpfulness"], "prior": False, "threads": 1, "epochs": 8}
    for loss in ("pairs", "plackett_luce"):
        folder = tmp_path / loss
        run_folder(folder, config | {"loss": loss}, preferences=rows, reference=reference)
        reward_model.main(folder, StopRequest())
        assert result_of(folder)["test"]["helpfulness"]["accuracy"] > 0.7
    for name, value in (
        ("margin", 1.0),
        ("label_smoothing", 0.1),
        ("smoothing", "agreement"),
        ("ties", "half"),
    ):
        with pytest.raises(ValueError, match=f"{name} requires loss = pairs"):
            RewardModelConfig(trunk=talker, loss="plackett_luce", **{name: value})


def test_a_ranking_with_too_many_on_one_place_is_refused_by_plackett_luce(talker, tmp_path):
    texts = [f"{'nice ' * i}lamp" for i in range(14)]
    ranks = {"helpfulness": [1] * 13 + [2], "safety": [1] * 13 + [2]}
    rows = [judgment(i, texts, ranks) for i in range(4)]
    reference = [prompt(i) | {"text": "red"} for i in range(4)]
    config = {"trunk": talker, "loss": "plackett_luce", "prior": False, "threads": 1}
    folder = run_folder(tmp_path, config, preferences=rows, reference=reference)
    with pytest.raises(InputError, match="prompt p0 has 13 responses on one place of helpfulness"):
        reward_model.main(folder, StopRequest())


def test_sharing_prompts_changes_the_time_it_takes_and_nothing_else(talker, tmp_path):
    shared = load_reward_model(train(tmp_path / "a", talker) / "train")
    alone = load_reward_model(train(tmp_path / "b", talker, share_prompts=False) / "train")
    texts = [" ".join(WORDS[i : i + 4]) for i in range(8)]
    prompts = [ask("please paint my lamp")] * 8
    for axis, scores in shared.score(prompts, texts).items():
        assert scores.tolist() == pytest.approx(
            alone.score(prompts, texts)[axis].tolist(), abs=2e-2
        )


def test_smaller_batches_of_texts_are_scored_one_after_another_to_the_same_end(
    talker, tmp_path, monkeypatch
):
    sizes, raw_scores = [], RewardModel.raw_scores

    def counting(model, texts, prior):
        if not torch.is_grad_enabled():
            sizes.append(len(texts))
        return raw_scores(model, texts, prior)

    monkeypatch.setattr(RewardModel, "raw_scores", counting)
    folders, largest = [], []
    for size in (128, 3):
        sizes.clear()
        folders.append(train(tmp_path / str(size), talker, batch_size=size, max_length=64))
        largest.append(max(sizes))
    assert largest[0] > 3 == largest[1]
    assert digest(folders[0]) == digest(folders[1])
    models = [load_reward_model(folder / "train") for folder in folders]
    for axis in ("helpfulness", "safety"):
        assert models[1].scale.mean[axis] == pytest.approx(models[0].scale.mean[axis], abs=1e-4)
        assert models[1].scale.deviation[axis] == pytest.approx(
            models[0].scale.deviation[axis], rel=1e-4
        )


def test_it_takes_the_threads_and_the_device_that_it_was_given(talker, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    try:
        train(tmp_path / "threads", talker, threads=before % 2 + 1)
        assert torch.get_num_threads() == before % 2 + 1
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="no usable GPU"):
        train(tmp_path / "gpu", talker, device="cuda")


def test_a_checkpoint_is_written_as_often_as_configured(talker, tmp_path, monkeypatch):
    saved, save = [], reward_run.save_checkpoint
    monkeypatch.setattr(
        reward_run, "save_checkpoint", lambda *given: saved.append(1) or save(*given)
    )
    counts = []
    for seconds in (0.0, 1e6):
        saved.clear()
        train(tmp_path / str(seconds), talker, checkpoint_seconds=seconds)
        counts.append(len(saved))
    updates = len((tmp_path / "0.0" / "metrics.jsonl").read_text().splitlines())
    assert counts[0] >= updates - 2 > counts[1] == 0  # of the two models' last none is due


def test_it_begins_with_the_trunk_that_it_was_given(talker, tmp_path):
    other = str(make_policy(tmp_path / "other", seed=1))
    for number, trunk in enumerate((talker, other)):
        folder = train(tmp_path / str(number), trunk, learning_rate=0.0)
        began = load_file(f"{trunk}/model.safetensors")
        for part in ("train", "test"):
            kept = load_file(folder / part / "model.safetensors")
            assert kept.keys() <= {name.removeprefix("model.") for name in began}
            assert all(torch.equal(kept[name], began[f"model.{name}"]) for name in kept)


def test_the_smoothing_follows_from_how_often_people_agree(talker, tmp_path):
    result = result_of(train(tmp_path, talker, smoothing="agreement"))
    assert 0 < result["train_label_smoothing"] < 0.4


def test_smoothing_by_agreement_without_a_pair_judged_twice_is_refused(talker, tmp_path):
    rows, reference = opinions()
    alone = [row for row in rows if row["annotator"] == "ada"]
    config = {"trunk": talker, "smoothing": "agreement", "prior": False, "threads": 1}
    folder = run_folder(tmp_path, config, preferences=alone, reference=reference)
    with pytest.raises(InputError, match="no two people decided the same pair"):
        reward_model.main(folder, StopRequest())


@pytest.mark.parametrize(
    ("changes", "members"),
    [
        ({"members": 3}, 3),
        ({"members": 3, "ensemble": "adapters"}, 3),
        ({"members": 2, "ensemble": "models"}, 2),
        ({"members": 2, "ensemble": "models", "separate_axes": True}, 2),
        ({"separate_axes": True}, 1),
    ],
)
def test_an_ensemble_tells_every_members_opinion_after_it_was_saved(
    talker, tmp_path, changes, members
):
    folder = train(tmp_path, talker, **changes)
    model = load_reward_model(folder / "train")
    prompts, texts = [ask("please paint my lamp")] * 3, ["nice nice", "sorry no red", "burn"]
    scores_by_axis = model.member_scores(prompts, texts)
    assert set(scores_by_axis) == set(model.every_axis) == {"helpfulness", "safety"}
    assert all(scores.shape == (3, members) for scores in scores_by_axis.values())
    figures = result_of(folder)["train"]["helpfulness"]
    assert figures["n"] > 0
    if members == 1:
        assert figures["disagreement"] is None
    else:
        assert figures["disagreement"] > 0
        least = model.score(prompts, texts, ensemble="min")["helpfulness"]
        mean = model.score(prompts, texts)["helpfulness"]
        assert bool((least < mean).all())
    # The prior and the tokenizer of the members are not written over and over.
    assert not list(folder.rglob("member-*/prior"))


def test_members_with_adapters_leave_their_trunk_alone_and_each_learns(talker, tmp_path):
    settings = {"members": 3, "ensemble": "adapters", "adapter_rank": 2}
    folder = train(tmp_path, talker, **settings, prior=True)
    saved = load_file(folder / "train" / "model.safetensors")
    began = load_file(f"{talker}/model.safetensors")
    assert all(torch.equal(saved[name], began[f"model.{name}"]) for name in saved)
    weights = sorted((folder / "train" / "adapters").rglob("*.safetensors"))
    adapters = [load_file(path) for path in weights]
    assert len(adapters) == 3
    for one in adapters:  # LoRA's B begins at 0, so where it is not, something was learnt
        assert all(tensor.abs().max() > 0 for name, tensor in one.items() if "lora_B" in name)
    name = next(name for name in adapters[0] if "lora_B" in name)
    assert not torch.equal(adapters[0][name], adapters[1][name])
    # PPO starts its critic from the first member's trunk, as a plain model.
    model = load_reward_model(folder / "train")
    plain = model.plain_trunk()
    model.trunk.set_adapter(model.adapters[0])
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        seen, expected = (t(input_ids=ids).last_hidden_state for t in (plain, model.trunk))
    assert type(plain).__name__ == "LlamaModel"
    assert torch.allclose(seen, expected, atol=1e-5)
    # A pickle in place of an adapter is not opened.
    weights[0].rename(weights[0].with_name("adapter_model.bin"))
    with pytest.raises(InputError, match=r"adapter_model\.bin, a pickle"):
        load_reward_model(folder / "train")


def test_a_strength_that_the_annotator_chose_is_the_margin_of_the_pair(talker, tmp_path):
    rows, reference = opinions()
    pairs = [
        row
        | {"responses": row["responses"][:2], "ranks": {"helpfulness": [1, 2]}}
        | {"strength": {"helpfulness": 3, "safety": None}}
        | {"margin": {"helpfulness": margin, "safety": None}}
        for margin, row in zip([0.0, 1.0] * len(rows), rows, strict=False)
    ]
    config = {"trunk": talker, "axes": ["helpfulness"], "prior": False, "threads": 1, "margin": 3.0}
    weak = [row | {"strength": {"helpfulness": 1}, "margin": {"helpfulness": 0.1}} for row in pairs]
    a = run_folder(tmp_path / "a", config, preferences=pairs, reference=reference)
    b = run_folder(tmp_path / "b", config, preferences=weak, reference=reference)
    for folder in (a, b):
        reward_model.main(folder, StopRequest())
    assert digest(a) != digest(b)
    assert set(result_of(a)["train"]["helpfulness"]["by"]["strength"]) == {"strength 3"}


def test_the_stage_says_what_it_is_doing_all_the_time(talker, tmp_path, monkeypatch):
    notes = notes_of(monkeypatch, lambda: train(tmp_path, talker, prior=True))
    for name in ("train-RM", "test-RM"):
        phases = ("loading the trunk", "reading", "update 1", "scoring the reference", "evaluating")
        assert notes >= {f"{name}, {phase}" for phase in phases}
