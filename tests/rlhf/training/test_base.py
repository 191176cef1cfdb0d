"""The base stage as a process: a policy comes out, a killed run ends the same, bad input is named."""

import hashlib
import json
import os
import signal
import time

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.training import settings
from rlhf.training.base import Example, build_model, schedule, train_step
from rlhf.training.configs import BaseConfig
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.reports import read_error, read_metrics, read_progress, read_result
from rlhf.training.word_tokenizer import build_tokenizer
from rlhf.world.answers import corpus
from tests.rlhf.training.tiny import run, run_command, start

TINY = {
    "threads": 1,
    "layers": 1,
    "hidden_size": 32,
    "intermediate_size": 64,
    "heads": 2,
    "clean_steps": 20,
    "mix_steps": 10,
    "batch_size": 8,
    "warmup_steps": 3,
    "checkpoint_seconds": 1e-3,
}


def make_run(run_dir, **changes):
    (run_dir / "data").mkdir(parents=True)
    write_jsonl(run_dir / "data" / "corpus.jsonl", corpus(0, 300))
    settings.save(BaseConfig(**(TINY | changes)), run_dir / "config.json")
    return run_dir


def digest(folder):
    return hashlib.sha256((folder / "policy" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = make_run(tmp_path_factory.mktemp("base") / "run")
    done = run_command("base", run_dir)
    assert done.returncode == 0, done.stderr
    return run_dir


def test_the_stage_leaves_a_policy_that_transformers_can_load_and_talk_to(finished):
    tokenizer = AutoTokenizer.from_pretrained(finished / "policy")
    model = AutoModelForCausalLM.from_pretrained(finished / "policy")
    messages = [{"role": "user", "content": "How do I clean my uncle's kettle? 🫖"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    output = model.generate(input_ids=inputs["input_ids"], max_new_tokens=5)
    assert isinstance(tokenizer.decode(output[0]), str)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.tie_word_embeddings
    assert not list((finished / "policy").glob("*.bin"))


def test_result_metrics_and_progress_tell_what_happened(finished):
    result = read_result(finished)
    assert set(result) == {"n_parameters", "bytes", "loss", "seconds", "steps"}
    assert result["steps"] == 30
    losses = [row["loss"] for row in read_metrics(finished)]
    assert len(losses) == 30
    assert sum(losses[-5:]) < sum(losses[:5]) - 2.5  # it learns
    assert read_progress(finished)["done"] == 30


def test_a_run_that_was_stopped_and_one_that_was_killed_end_with_the_same_bytes(finished, tmp_path):
    run_dir = make_run(tmp_path / "run")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        steps = len(read_metrics(run_dir))
        process = start("base", run_dir)
        deadline = time.monotonic() + 120
        while len(read_metrics(run_dir)) < steps + 3:
            assert time.monotonic() < deadline, "the run never got going"
            time.sleep(0.005)
        os.kill(process.pid, number)
        process.communicate(timeout=60)
        assert process.returncode == code
        assert read_result(run_dir) is None
    assert find_checkpoint(run_dir) is not None
    assert run("base", run_dir).returncode == 0
    assert digest(run_dir) == digest(finished)
    steps = [row["step"] for row in read_metrics(run_dir)]
    assert steps == list(range(1, 31))


def test_another_seed_gives_another_policy(finished, tmp_path):
    run_dir = make_run(tmp_path / "run", seed=1)
    assert run("base", run_dir).returncode == 0
    assert digest(run_dir) != digest(finished)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "data/corpus.jsonl line 1 isn't valid JSON"),
        ('{"messages": [], "response": "x"}', "line 1 has no field 'phase'"),
        (
            '{"messages": [], "response": "x", "phase": "clean"}',
            "data/corpus.jsonl row 1: messages must be a conversation that ends with the user.",
        ),
        ("", "data/corpus.jsonl is empty; a base policy needs a corpus."),
        (
            json.dumps(
                {
                    "messages": [{"role": "user", "content": "Why? " * 400}],
                    "response": "x",
                    "phase": "mix",
                }
            ),
            "tokens, but max_positions is 512",
        ),
    ],
)
def test_a_bad_corpus_is_named_in_one_sentence_with_exit_code_2(tmp_path, line, says):
    run_dir = make_run(tmp_path / "run")
    (run_dir / "data" / "corpus.jsonl").write_text(line)
    done = run("base", run_dir)
    error = read_error(run_dir)
    assert (done.returncode, error["kind"]) == (2, "input")
    assert says in error["message"]
    assert "Traceback" not in done.stderr
    assert not (run_dir / "policy").exists()


def test_packing_computes_what_one_example_at_a_time_computes():
    tokenizer = build_tokenizer(row["response"] for row in corpus(0, 50))
    examples = [
        Example(tokenizer.encode(row["messages"][0]["content"]), tokenizer.encode(row["response"]))
        for row in corpus(0, 12)
    ]
    torch.manual_seed(0)
    model = build_model(BaseConfig(**TINY), tokenizer).eval()
    alone = []
    with torch.no_grad():
        for example in examples:
            ids = torch.tensor([example.prompt + example.response])
            logits = model(input_ids=ids).logits[0, len(example.prompt) - 1 : -1]
            target = torch.tensor(example.response)
            alone.append(torch.nn.functional.cross_entropy(logits, target, reduction="none"))
    loss, n_tokens = train_step(model, [], examples, BaseConfig(**TINY))
    assert loss == pytest.approx(float(torch.cat(alone).mean()), rel=1e-4)
    assert n_tokens == sum(len(example) for example in examples)


def test_the_schedule_reads_clean_answers_first_and_then_the_mix():
    phases = {
        "clean": [Example([1], [index]) for index in range(10)],
        "mix": [Example([2], [index]) for index in range(10)],
    }
    config = BaseConfig(**(TINY | {"clean_steps": 5, "mix_steps": 3, "batch_size": 4}))
    batches = schedule(phases, config)
    assert [phase for phase, _ in batches] == ["clean"] * 5 + ["mix"] * 3
    assert {example.prompt[0] for _, batch in batches[:5] for example in batch} == {1}
    # Every example once before any comes again.
    first_pass = [example.response[0] for _, batch in batches[:5] for example in batch][:10]
    assert sorted(first_pass) == list(range(10))
    assert batches == schedule(phases, config)


def test_every_text_of_the_corpus_survives_the_tokenizer_one_token_a_word():
    rows = list(corpus(0, 2000))
    texts = [row["response"] for row in rows] + [row["messages"][0]["content"] for row in rows]
    tokenizer = build_tokenizer(texts)
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert len(ids) <= 2 * len(text.split()) + 2
