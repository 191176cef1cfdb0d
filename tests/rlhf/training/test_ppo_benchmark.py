"""The benchmark of PPO at toy size: both sides get the same, and what they are held against is right.

    TRL_112=trl112 pytest tests/rlhf/training/test_ppo_benchmark.py

runs TRL's side too, with the folder that trl-1.12.0's wheel was unpacked into.
"""

import json
import os
import subprocess
import sys

import pytest

from benchmarks.limits import Machine, Shape, Work, decode_bytes, decode_seconds, training_flops
from tests.rlhf.training.tiny import ROOT, make_policy

TRL = os.environ.get("TRL_112", "")


def benchmark(*given):
    """`python -m benchmarks.ppo_vs_trl` with these words."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.ppo_vs_trl", *map(str, given)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


SHAPE = Shape(
    layers=2, hidden=8, heads=4, kv_heads=2, head_size=2, vocabulary=50, inside=1000, read=1400
)
WORK = Work(
    responses=6, prompt=10, response=4, longest=5, decode_batch=4, epochs=3, width=2
)  # fmt: skip


def test_decoding_reads_all_weights_at_each_step_and_the_cache_of_each_token():
    weights = 2 * 5 * 1400 * 2  # two batches, five steps
    cache = 6 * (10 * 4 + 4**2 / 2) * (2 * 2 * 2 * 2 * 2)
    assert decode_bytes(SHAPE, WORK) == weights + cache
    # Prompts are read first: 2 operations a parameter and token, and attention over half a square.
    prompts = 6 * (2 * 1000 * 10 + 2 * 2 * 4 * 2 * 10**2)
    machine = Machine(bytes_per_second=100.0, flops=1000.0)
    assert decode_seconds(SHAPE, WORK, machine) == prompts / 1000 + (weights + cache) / 100


def test_training_is_three_forward_passes_and_two_thirds_of_that_under_adapters():
    trunk = 2 * 1000 * 14 + 2 * 2 * 4 * 2 * 14**2
    head = 2 * 50 * 8 * 4
    alone = training_flops(SHAPE, WORK, second_trunk=False)
    assert alone == 3 * 6 * 3 * (trunk + head)
    assert training_flops(SHAPE, WORK, second_trunk=True) == alone + 3 * 6 * 3 * trunk
    assert training_flops(SHAPE, WORK, second_trunk=False, frozen=True) == alone * 2 / 3


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_counts_as_read_where_it_is_the_head_too(tied, tmp_path):
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(make_policy(tmp_path))
    if not tied:
        head = model.lm_head.weight.detach().clone()
        model.lm_head.weight = torch.nn.Parameter(head)
    shape = Shape.of(model)
    vocabulary = model.config.vocab_size
    assert shape.inside == sum(p.numel() for p in model.model.layers.parameters()) + 32
    assert shape.read == shape.inside + 32 * vocabulary
    assert (shape.layers, shape.heads, shape.kv_heads, shape.head_size) == (2, 4, 4, 8)
    assert shape.vocabulary == vocabulary


TOY = (
    *("--random", "toy", "--hidden", 32, "--prompt-tokens", 12, "--response-tokens", 6),
    *("--batch", 8, "--minibatches", 2, "--microbatch", 4, "--epochs", 1, "--steps", 2),
    *("--seeds", 1),
)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_a_random_policy_is_timed_beside_what_the_machine_gives(dtype, tmp_path):
    sides = ("--trl", TRL) if TRL else ("--only-ours",)
    out, work = tmp_path / "out.json", tmp_path / "work"
    done = benchmark(*sides, *TOY, "--dtype", dtype, "--work", work, "--out", out)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    ready = json.loads((work / "ready.json").read_text())
    assert ready["prompt_tokens"] == 12
    assert (ready["shape"]["hidden"], ready["shape"]["vocabulary"]) == (32, 1024)
    (folder,) = work.glob("run-*")
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["device"], config["microbatch_size"]) == (dtype, "cpu", 4)
    assert set(figures["limits"]) == ({"ours", "trl"} if TRL else {"ours"})
    for side, told in figures["limits"].items():
        assert sum(told["shares"].values()) == pytest.approx(1)
        assert 5 < told["response_tokens"] <= 6
        assert 0 < told["decode_tokens_per_second"] < told["decode_limit"]
        assert 0 < told["training_flops"] < told["training_limit"]
        assert f"{side}: generate" in done.stdout
    # The scratch folder is for what it was made for.
    other = benchmark("--only-ours", *TOY, "--vocab", 512, "--work", work)
    assert other.returncode
    assert "another --work" in (work / "prepare-0.log").read_text()


def test_words_that_do_not_go_together_are_refused(tmp_path):
    for given, said in (
        (("--random", "70B"), "--random is one of"),
        (("--hidden", 64), "--hidden belongs to --random"),
        (("--prompt-tokens", 64), "--prompt-tokens belongs to --random"),
        (("--batch", 10, "--minibatches", 4), "--minibatches must divide --batch"),
    ):
        done = benchmark("--only-ours", *given, "--work", tmp_path / "work")
        assert done.returncode == 2
        assert said in done.stderr.splitlines()[-1]
    assert not (tmp_path / "work").exists()
