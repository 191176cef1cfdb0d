"""Two processes, started by torchrun or forked, learn what one learns at the same global batch."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import parallel
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.conftest import finish
from tests.rlhf.training.tiny import ROOT, result_of, rows_of, run, run_together

NUMBERS = (
    "reward",
    "kl",
    "length",
    "policy_loss",
    "value_loss",
    "grad_norm",
    "approx_kl",
    "ptx_loss",
)


def torchrun(folder, processes=2, stage="ppo"):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={processes}", "-m", f"rlhf.training.{stage}", str(folder)),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def forked_in_two(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"processes": 2}))
    done = run("ppo", folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("start", [torchrun, forked_in_two])
def test_two_processes_learn_what_one_learns(ready, start):
    # Odd batches, so that the shares differ; a second epoch, so that the first one shows; and a step
    # in which the policy has no gradient, where nothing may move it.
    settings = {"steps": 4, "minibatch_size": 5, "epochs": 2, "score_clip": 0.0}
    settings |= {"ptx_weight": 0.3, "ptx_batch_size": 3}
    settings |= {"critic_warmup_steps": 1, "weight_decay": 0.5}
    one, two = ready("one", **settings), ready("two", **settings)
    finish(one)
    start(two)
    assert result_of(one)["processes"] == 1
    assert result_of(two)["processes"] == 2  # and not one that was started twice, or alone
    alone, together = rows_of(one / "metrics.jsonl"), rows_of(two / "metrics.jsonl")
    assert [row["step"] for row in together] == [1, 2, 3, 4]  # one of them wrote
    for a, b in zip(alone, together, strict=True):
        names = [n for n in NUMBERS if n in a]  # the critic alone learns nothing from texts
        assert [a[n] for n in names] == pytest.approx([b[n] for n in names], rel=1e-3, abs=1e-5)
    weights = [load_file(folder / "policy/model.safetensors") for folder in (one, two)]
    started = load_file(
        json.loads((one / "config.json").read_text())["policy"] + "/model.safetensors"
    )
    for name, tensor in weights[0].items():
        moved = float((tensor - started[name]).abs().max())
        assert moved > 0
        assert torch.allclose(tensor, weights[1][name], atol=0.02 * moved)
    assert [row["after"] for row in rows_of(one / "samples.jsonl")] == [
        row["after"] for row in rows_of(two / "samples.jsonl")
    ]


def put(folder, other):
    """The checkpoint of another run, as if this one had written it and been killed."""
    shutil.copytree(other / "checkpoint", folder / "checkpoint")
    return folder


def learnt_the_same(folder, expected, *, rel=2e-3, steps=(1, 2, 3, 4)):
    theirs = {row["step"]: row for row in rows_of(expected / "metrics.jsonl")}
    for row in rows_of(folder / "metrics.jsonl"):
        same = pytest.approx([theirs[row["step"]][n] for n in NUMBERS], rel=rel, abs=2e-5)
        assert [row[n] for n in NUMBERS] == same
    assert [row["step"] for row in rows_of(folder / "metrics.jsonl")] == list(steps)


@pytest.mark.parametrize("more", [{"critic": "model", "reference_ema": 0.5},
                                  {"lora_rank": 2, "ema_decay": 0.5, "reference_ema": 0.5}],
                         ids=["all weights", "adapters"])  # fmt: skip
def test_two_processes_with_half_of_every_weight_learn_what_one_learns(ready, more):
    """Sharded by FSDP2; either continues from the other's checkpoint. Odd minibatches and small
    microbatches, so that one process has more passes to make than the other."""
    settings = {"minibatch_size": 5, "microbatch_size": 2, "epochs": 2, "score_clip": 0.0}
    settings |= {"checkpoint_every": 2, "learning_rate_floor": 1.0} | more
    settings |= {"ptx_weight": 0.3, "ptx_batch_size": 3}
    alone, sharded = settings | {"steps": 4}, settings | {"sharded": True}

    half = ready("half", **sharded | {"steps": 2})
    run_together(half)
    assert result_of(half)["processes"] == 2
    # Each holds half of the policy's trained weights, and of the largest too.
    assert result_of(half)["held"] == pytest.approx([0.5, 0.5], abs=0.02)
    whole = ready("whole", **settings | {"steps": 2})
    finish(whole)
    assert result_of(whole)["held"] == [1.0]
    learnt_the_same(half, whole, steps=(1, 2))

    straight = ready("straight", **alone)
    finish(straight)
    taken_over = put(ready("taken over", **alone), half)
    finish(taken_over)
    learnt_the_same(taken_over, straight, steps=(3, 4))
    handed_on = put(ready("handed on", **sharded | {"steps": 4}), whole)
    run_together(handed_on)
    learnt_the_same(handed_on, straight, steps=(3, 4))

    weights = [load_file(f / "policy/model.safetensors") for f in (straight, handed_on)]
    started = load_file(
        json.loads((straight / "config.json").read_text())["policy"] + "/model.safetensors"
    )
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        moved = float((tensor - started[name]).abs().max())
        assert torch.allclose(tensor, weights[1][name], atol=0.05 * moved + 1e-7)
    assert [row["after"] for row in rows_of(straight / "samples.jsonl")] == [
        row["after"] for row in rows_of(handed_on / "samples.jsonl")
    ]


def test_a_single_process_cannot_shard_its_weights(ready):
    with pytest.raises(InputError, match="a single process cannot shard"):
        finish(ready(sharded=True))


def test_alone_everything_is_ones_own():
    group = parallel.init_process_group(torch.device("cpu"))
    assert (group.rank, group.size, group.is_main_process) == (0, 1, True)
    assert list(range(5))[group.share] == group.all_gather(list(range(5)), 5) == list(range(5))
    assert group.any(True)
    assert not group.any(False)
