"""Every decoder family and T5 go through a round's stages as a tiny random model; what can't says so
in one sentence, before it has computed for hours."""

import math

import pytest

from rlhf.training import evaluate, generate, ppo, reward_model
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from rlhf.training.word_tokenizer import build_tokenizer
from tests.rlhf.training.conftest import nice
from tests.rlhf.training.test_architectures import random_model
from tests.rlhf.training.tiny import (
    WORDS,
    judgment,
    make_t5,
    prompt,
    result_of,
    rows_of,
    run_folder,
)

pytestmark = pytest.mark.slow

DECODERS = [
    "llama",
    "gpt2",
    "gpt_neox",
    "gptj",
    "gpt_neo",
    "opt",
    "bloom",
    "falcon",
    "phi",
    "qwen2",
    "qwen3",
    "olmo2 with a window that it does not read",
    "mistral with a window",
    "mixtral with a window",
    "gemma2",
    "gemma3",
    "cohere2",
    "phi3 with a window",
    "gpt_oss at its window of 128",
    "llama4",
    "mamba",
    "mamba2",
    "rwkv",
    "jamba",
    "lfm2",
    "granite hybrid",
    "falcon h1",
    "the first gpt",
]
REFUSED = {"bart": "an encoder-decoder (bart), of which only T5's encoder can carry a head"}
"""What can't become a reward model, with a part of the sentence that says so."""


def make(folder, name):
    """A folder with a tiny random model of an architecture and the words of the tests."""
    if name in ("t5", "bart"):
        return make_t5(folder, kind=name)
    tokenizer = build_tokenizer([" ".join(WORDS), *WORDS], max_length=256)
    if name == "qwen2":  # transformers adds this token to every tokenizer of its kind
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    random_model(name, vocabulary=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rankings():
    """Twelve comparisons whose better answer is nicer."""
    texts = [["nice lamp", "no", "sorry nice nice"], ["burn", "nice yes", "your red chair"]]
    rows, reference = [], []
    for number in range(12):
        answers = texts[number % 2]
        ranks = [1 + sum(nice(b) > nice(a) for b in answers) for a in answers]
        rows.append(judgment(number, answers, {"helpfulness": ranks, "safety": ranks}))
        reference.append(prompt(number) | {"text": answers[0]})
    return {"preferences": rows, "reference": reference}


@pytest.mark.parametrize("name", [*DECODERS, "t5", "bart"])
def test_an_architecture_goes_through_every_stage_or_is_refused_in_one_sentence(tmp_path, name):
    policy = str(make(tmp_path / "policy", name))
    common = {"policy": policy, "threads": 1, "max_new_tokens": 6}
    questions = [prompt(number) for number in range(8)]

    run = run_folder(tmp_path / "generate", common | {"k": 2}, prompts=questions)
    generate.main(run, StopRequest())
    assert result_of(run)["n_responses"] == 16

    settings = {"trunk": policy, "epochs": 1, "threads": 1, "test_share": 0.4, "prior": True}
    run = run_folder(tmp_path / "reward", settings, **rankings())
    if name in REFUSED:
        with pytest.raises(InputError) as refusal:
            reward_model.main(run, StopRequest())
        assert REFUSED[name] in str(refusal.value)
        return
    reward_model.main(run, StopRequest())
    assert result_of(run)["skipped_updates"] == 0

    models = {"reference": policy, "reward_model": str(run / "train")}
    settings = {
        "steps": 2,
        "prompts_per_step": 4,
        "minibatch_size": 4,
        "microbatch_size": 4,
        "critic_warmup_steps": 0,
    }
    ppo_run = run_folder(
        tmp_path / "ppo",
        common | models | settings | {"test_reward_model": str(run / "test")},
        prompts=questions,
        watch=[prompt(number) for number in range(300, 303)],
    )
    ppo.main(ppo_run, StopRequest())
    first, second = rows_of(ppo_run / "metrics.jsonl")
    assert abs(first["kl"]) < 1e-3, "policy and reference are one model before the first update"
    assert first["updates"] > 0
    assert second["updates"] > 0
    assert all(math.isfinite(row["policy_loss"]) for row in (first, second))

    trained = common | {"policy": str(ppo_run / "policy"), "reward_model": str(run / "test")}
    run = run_folder(tmp_path / "evaluate", trained, prompts=questions[:4])
    evaluate.main(run, StopRequest())
    assert result_of(run)["summary"]["1.0"]["helpfulness"]["n"] == 4
