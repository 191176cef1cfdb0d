"""Whatever a stage is given: one sentence that says what and where, exit code 2, nothing overwritten."""

import importlib
import json
import shutil
from pathlib import Path

import pytest

from rlhf.training.rundir.checkpoints import save_checkpoint
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.process import StopRequest, run_stage
from tests.rlhf.training.conftest import HARMFUL
from tests.rlhf.training.tiny import ask, judgment, prompt, run, run_folder

# --- Models that are broken, each made from one that works ------------------------------------


def _change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def nan(model):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def truncated(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])


def without_a_layer(model):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def pickle(model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04N.")


def pickle_by_another_name(model):
    (model / "model.safetensors").write_bytes(b"\x80\x02}q\x00X\x04\x00\x00\x00evil.")


def archive_by_another_name(model):
    import torch

    torch.save({"weight": torch.zeros(3)}, model / "model.safetensors")


def adapters_in_a_pickle(model):
    base = shutil.copytree(model, model.with_name("base-of-adapters"))
    shutil.rmtree(model)
    model.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 2}
    (model / "adapter_config.json").write_text(json.dumps(settings))
    (model / "config.json").write_text("{}")
    (model / "adapter_model.bin").write_bytes(b"\x80\x04N.")


def without_eos(model):
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    del tokenizer["eos_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    _change_json(model / "config.json", eos_token_id=None)
    _change_json(model / "generation_config.json", eos_token_id=None)


def token_without_embedding(model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.save_pretrained(model)


def without_tokenizer(model):
    for file in model.glob("tokenizer*"):
        file.write_text("{")


def silent_template(model):
    """A template that says only what the user and the assistant say."""
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role != 'system' %}<|{{ m.role }}|>{{ m.content }}<|end|>"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )


def refusing_template(model):
    (model / "chat_template.jinja").write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )


BROKEN_MODELS = {
    token_without_embedding: "the token '<|im_start|>' with id",
    nan: "holds NaN or infinity in",
    truncated: "can't be read",
    without_a_layer: "lacks 1 of its weights, model.layers.1.mlp.up_proj.weight",
    pickle: "pytorch_model.bin, a pickle",
    pickle_by_another_name: "a pickle by another name",
    archive_by_another_name: "a pickle by another name",
    adapters_in_a_pickle: "adapter_model.bin, a pickle",
    without_eos: "no end-of-sequence token",
    without_tokenizer: "can't be read",
    silent_template: "drops the system turn ('be nice')",
    refusing_template: "System role not supported",
}

# --- Reward models that are broken, each made from one that works -----------------------------


def settings(**changes):
    """A break that changes reward_model.json; None takes a key out."""

    def breaks(folder):
        path = folder / "reward_model.json"
        changed = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({k: v for k, v in changed.items() if v is not None}))

    return breaks


def heads(**changes):
    """A break that changes heads.safetensors; None takes a tensor out."""

    def breaks(folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "heads.safetensors")
        for name, change in changes.items():
            if change is None:
                del tensors[name]
            else:
                tensors[name] = change(tensors[name]).contiguous()
        save_file(tensors, folder / "heads.safetensors")

    return breaks


def file(name, written):
    """A break that writes a file anew, or (None) takes it away."""

    def breaks(folder):
        if written is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(written)

    return breaks


NOT_WHOLE = {"helpfulness": {"harmless": {"mean": 0.0, "std": 1.0}}}
BROKEN_REWARD_MODELS = {
    "no settings": (file("reward_model.json", None), "has no reward_model.json"),
    "settings cut short": (file("reward_model.json", b'{"axes": ["he'), "isn't valid JSON"),
    "settings that are a list": (file("reward_model.json", b"[]"), "must hold a JSON object"),
    **{
        f"no {key}": (settings(**{key: None}), f"reward_model.json has no {key!r}")
        for key in ("axes", "prior", "max_length", "mean", "scale", "reference")
    },
    "no axis": (settings(axes=[]), "axes must be"),
    "axes in one text": (settings(axes="helpfulness"), "axes must be"),
    "no length": (settings(max_length=0), "max_length must be"),
    "a mean in words": (settings(mean={"helpfulness": "low"}), "mean must be"),
    "a scale of nothing": (settings(scale={"helpfulness": 0.0}), "scale must be"),
    "half a reference": (settings(reference=NOT_WHOLE), "reference must be"),
    "more heads than there are": (settings(heads=2), "heads.safetensors does not fit"),
    "a member outside": (settings(members=["../train"]), "members must be"),
    "a member that is not there": (settings(members=["member-1"]), "member-1' does not exist"),
    "adapters that are not there": (settings(adapters=["one"]), "adapters"),
    "two adapters for one head": (settings(adapters=["one", "two"]), "adapters must be"),
    "no heads": (file("heads.safetensors", None), "heads.safetensors can't be read"),
    "heads cut short": (file("heads.safetensors", b"\x00" * 20), "heads.safetensors can't be read"),
    "heads without their weight": (heads(weight=None), "heads.safetensors has no 'weight'"),
    "heads without a bias": (heads(bias=None), "heads.safetensors has no 'bias'"),
    "heads without log_nu": (heads(log_nu=None), "heads.safetensors has no 'log_nu'"),
    "narrow heads": (heads(weight=lambda w: w[:, 1:]), "heads.safetensors does not fit"),
    "a prior of other features": (
        heads(feature_mean=lambda m: m[1:]),
        "heads.safetensors does not fit",
    ),
    "NaN": (heads(bias=lambda b: b * float("nan")), "NaN or infinity"),
    "no folder of the prior": (lambda folder: shutil.rmtree(folder / "prior"), "prior"),
    "a trunk cut short": (truncated, "can't be read"),
    "no tokenizer": (without_tokenizer, "can't be read"),
}

# --- Run folders that work, until something is broken -----------------------------------------

SYSTEM = [{"role": "system", "content": "be nice"}, *ask("please paint my red lamp")]


@pytest.fixture
def folder_of(talker, taste, tmp_path):
    """Run folders of each stage that would work; each with the outputs of a former attempt."""

    def make(stage, *, policy=talker, rewards=taste / "train", **data):
        prompts = [
            prompt(i, risk="harmful" if i % HARMFUL == 0 else "harmless") | {"messages": SYSTEM}
            for i in range(8)
        ]
        both = {"helpfulness": [1, 2], "safety": [2, 1]}
        ranked = [judgment(i, ["nice", "sorry no"], both) | {"messages": SYSTEM} for i in range(6)]
        reference = [row | {"text": "nice"} for row in prompts]
        rewards = {"reward_model": str(rewards)}
        short = {"policy": policy, "max_new_tokens": 4, "threads": 1}
        small = {"steps": 1, "prompts_per_step": 4, "minibatch_size": 4}
        configs, given = {
            "generate": (short | {"k": 1}, {"prompts": prompts}),
            "reward_model": (
                {"trunk": policy, "epochs": 1, "threads": 1},
                {"preferences": ranked, "reference": reference},
            ),
            "ppo": (short | rewards | small | {"reference": talker}, {"prompts": prompts}),
            "evaluate": (short | rewards, {"prompts": prompts}),
            "best_of_n": (short | rewards | {"n": [1, 2]}, {"prompts": prompts}),
            "sft": (
                {"policy": policy, "threads": 1},
                {"demonstrations": [row | {"response": "yes nice"} for row in prompts]},
            ),
            "dpo": ({"policy": policy, "threads": 1}, {"preferences": ranked}),
            "grow": ({"policy": policy, "width": 2, "threads": 1}, {}),
        }[stage]
        folder = run_folder(tmp_path / "run", configs, **(given | data))
        for name in FORMER:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("kept")
        return folder

    return make


FORMER = (
    "metrics.jsonl",
    "responses.jsonl",
    "samples.jsonl",
    "samples-2.jsonl",
    "policy/model.safetensors",
    "train/heads.safetensors",
    "test/heads.safetensors",
)
STAGES = ("generate", "reward_model", "ppo", "evaluate", "best_of_n", "sft", "dpo", "grow")


def main_of(stage):
    return importlib.import_module(f"rlhf.training.{stage}").main


def refused(stage, folder):
    """End a stage on its input, as `python -m` would; the one sentence that it says."""

    def files():
        return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    before = files()
    with pytest.raises(SystemExit) as ended:
        run_stage(main_of(stage), [str(folder)])
    after = files()
    error = json.loads(after.pop(folder / "error.json"))
    for seen in (before, after):
        seen.pop(folder / "progress.json", None)  # it says that the stage was loading
    assert after == before
    assert ended.value.code == 2, error
    assert error["kind"] == "input"
    assert "\n" not in error["message"]
    return error["message"]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("breaks", BROKEN_MODELS, ids=lambda breaks: breaks.__name__)
def test_a_broken_model_is_named_and_nothing_is_overwritten(
    stage, breaks, folder_of, talker, tmp_path
):
    if stage == "reward_model" and breaks in (without_eos, without_a_layer, adapters_in_a_pickle):
        pytest.skip("a reward model says nothing that would have to end, and reads no adapters")
    if stage == "grow" and breaks in (silent_template, refusing_template):
        pytest.skip("to grow a model no conversation is read")
    model = tmp_path / "model"
    shutil.copytree(talker, model)
    breaks(model)
    message = refused(stage, folder_of(stage, policy=str(model)))
    assert BROKEN_MODELS[breaks] in message
    assert "model" in message


@pytest.mark.parametrize("what", BROKEN_REWARD_MODELS)
def test_a_broken_reward_model_is_named_and_nothing_is_overwritten(
    what, folder_of, taste, tmp_path
):
    breaks, expected = BROKEN_REWARD_MODELS[what]
    rewards = shutil.copytree(taste / "train", tmp_path / "rewards")
    breaks(rewards)
    message = refused("evaluate", folder_of("evaluate", rewards=rewards))
    assert expected in message
    assert "rewards" in message or "reward model" in message


@pytest.mark.parametrize("stage", STAGES)
def test_without_a_pad_token_everything_works(stage, folder_of, talker, tmp_path):
    """Masks come from lengths, so there is nothing that a pad token would be needed for."""
    model = shutil.copytree(talker, tmp_path / "model")
    tokenizer = json.loads((model / "tokenizer_config.json").read_text())
    del tokenizer["pad_token"]
    (model / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    _change_json(model / "config.json", pad_token_id=None)
    _change_json(model / "generation_config.json", pad_token_id=None)
    folder = folder_of(stage, policy=str(model))
    main_of(stage)(folder, StopRequest())
    assert (folder / "result.json").exists()


LONG = prompt(3) | {"messages": ask("nice " * 200)}
FLAT = {"helpfulness": [1, 1], "safety": [1, 2]}
BOTH = {"helpfulness": [1, 2], "safety": [1, 2]}
NO_PREFERENCE = "prefers one response to another on helpfulness"
# What is wrong with a file: which stages read it, and the message.
ASKING, RANKED = ("generate", "ppo", "evaluate", "best_of_n"), ("reward_model", "dpo")
BAD_ROWS = {
    "no prompts": (ASKING, {"prompts": []}, "data/prompts.jsonl has no prompts"),
    "a long prompt": (
        ASKING,
        {"prompts": [prompt(i) for i in range(9) if i != 3] + [LONG]},
        "Prompt p3 has",
    ),
    "no text": (ASKING, {"prompts": [prompt(0) | {"messages": []}]}, "data/prompts.jsonl line 1"),
    "twice the same": (ASKING, {"prompts": [prompt(0), prompt(0)]}, "'p0' twice"),
    "no judgments": (RANKED, {"preferences": []}, "data/preferences.jsonl has no judgments"),
    "one class only": (
        RANKED,
        {"preferences": [judgment(i, ["nice", "no"], FLAT) for i in range(6)]},
        NO_PREFERENCE,
    ),
    "one text only": (
        RANKED,
        {"preferences": [judgment(i, ["nice", "nice"], BOTH) for i in range(6)]},
        NO_PREFERENCE,
    ),
    "a long prompt that was ranked": (
        ("dpo",),
        {"preferences": [judgment(3, ["nice", "no"], BOTH) | {"messages": LONG["messages"]}]},
        "Prompt p3 has",
    ),
    "no reference": (
        ("reward_model",),
        {"reference": []},
        "data/reference.jsonl has no texts",
    ),
    "no demonstrations": (
        ("sft",),
        {"demonstrations": []},
        "data/demonstrations.jsonl has no demonstrations",
    ),
    "a long demonstration": (
        ("sft",),
        {"demonstrations": [prompt(0) | {"response": "nice"}, LONG | {"response": "no"}]},
        "Prompt p3 has",
    ),
    "a response that is no text": (
        RANKED,
        {"preferences": [judgment(0, ["nice", None], BOTH)]},
        "data/preferences.jsonl line 1: responses must be",
    ),
    "a reference that is no text": (
        ("reward_model",),
        {"reference": [prompt(0) | {"text": None}]},
        "data/reference.jsonl line 1: text must be",
    ),
    "an empty answer": (
        ("sft",),
        {"demonstrations": [prompt(0) | {"response": " "}]},
        "data/demonstrations.jsonl line 1: response must be text",
    ),
}


@pytest.mark.parametrize(
    ("stage", "what"),
    [(stage, what) for what, (stages, *_) in BAD_ROWS.items() for stage in stages],
)
def test_bad_rows_are_named_with_their_place(stage, what, folder_of):
    _, data, expected = BAD_ROWS[what]
    assert expected in refused(stage, folder_of(stage, **data))


@pytest.mark.parametrize("stage", ["ppo", "reward_model"])
def test_a_damaged_checkpoint_is_named_and_the_run_does_not_start_over(stage, folder_of):
    folder = folder_of(stage)
    save_checkpoint(folder, lambda made: (made / "state.json").write_text('{"step": 3}'))
    (folder / "checkpoint" / "state.json").write_text('{"step"')
    message = refused(stage, folder)
    assert "checkpoint/state.json is missing or not as it was written" in message
    assert "remove the folder checkpoint to start over" in message


# The settings of a run, those it is resumed with, and the beginning of the message.
OTHER_SETTINGS = {
    "adapters": ({}, {"lora_rank": 2}, "policy.safetensors does not have the weights"),
    "no adapters": ({"lora_rank": 2}, {}, "policy.safetensors does not have the weights"),
    "other adapters": ({"lora_rank": 2}, {"lora_rank": 4}, "policy.safetensors does not have the"),
    "another critic": ({}, {"critic": "model"}, "critic.safetensors does not have the weights"),
    "a reference that moves": (
        {},
        {"reference_ema": 0.9},
        "reference.safetensors does not have the",
    ),
    "a reference that stays": (
        {"reference_ema": 0.9},
        {},
        "reference.safetensors does not have the",
    ),
}


@pytest.mark.parametrize("what", OTHER_SETTINGS)
def test_a_run_resumes_only_with_its_first_settings(what, folder_of):
    before, after, expected = OTHER_SETTINGS[what]
    folder = folder_of("ppo")
    _change_json(folder / "config.json", checkpoint_every=1, **before)
    main_of("ppo")(folder, StopRequest())
    (folder / "result.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    begun = {k: v for k, v in config.items() if k not in before}
    (folder / "config.json").write_text(json.dumps(begun | after | {"steps": 2}))
    message = refused("ppo", folder)
    assert expected in message
    assert "remove the folder checkpoint to start over" in message


def test_a_reward_model_resumes_only_with_its_first_settings(folder_of):
    folder = folder_of("reward_model")
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Stopped):
        main_of("reward_model")(folder, stop)
    _change_json(folder / "config.json", members=2)
    message = refused("reward_model", folder)
    assert "does not have the weights" in message
    assert "remove the folder checkpoint to start over" in message


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "grow"])
@pytest.mark.parametrize("device", ["gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_named(stage, device, folder_of):
    folder = folder_of(stage)
    _change_json(folder / "config.json", device=device)
    assert f"device is {device!r}" in refused(stage, folder)


@pytest.mark.parametrize(("stage", "breaks"), [("best_of_n", truncated), ("grow", pickle)])
def test_a_process_says_it_and_exits_with_2(stage, breaks, folder_of, talker, tmp_path):
    model = shutil.copytree(talker, tmp_path / "model")
    breaks(model)
    folder = folder_of(stage, policy=str(model))
    done = run(stage, folder)
    assert done.returncode == 2, done.stderr
    assert BROKEN_MODELS[breaks] in done.stderr.splitlines()[-1]
    assert json.loads((folder / "error.json").read_text())["message"] in done.stderr
    assert all((folder / name).read_text() == "kept" for name in FORMER)


BAD_BYTES = {
    "not JSON": (b'{"prompt_id": "p1", "messages": [}\n', "line 2 isn't valid JSON"),
    "not UTF-8": (b'{"prompt_id": "\xff\xfe"}\n', "line 2 isn't UTF-8"),
    "no object": (b"[1]\n", "line 2 isn't a JSON object"),
    "half a character": (
        b'{"prompt_id": "p1", "messages": [{"role": "user", "content": "\\ud83d"}]}\n',
        "line 2 holds half a character",
    ),
}


@pytest.mark.parametrize("what", BAD_BYTES)
def test_bad_bytes_are_named_with_their_line(what, folder_of):
    folder = folder_of("generate", prompts=[prompt(0)])
    written, expected = BAD_BYTES[what]
    path = Path(folder / "data" / "prompts.jsonl")
    path.write_bytes(path.read_bytes() + written)
    assert expected in refused("generate", folder)
