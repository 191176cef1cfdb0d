"""Two processes that torchrun starts learn what one learns at the same global batch."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import parallel
from tests.rlhf.training.conftest import finish
from tests.rlhf.training.tiny import ROOT, result_of, rows_of

NUMBERS = ("reward", "kl", "length", "policy_loss", "value_loss", "grad_norm", "approx_kl")


def torchrun(folder, processes=2):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *(f"--nproc-per-node={processes}", "-m", "rlhf.training.ppo", str(folder)),
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


def test_two_processes_learn_what_one_learns(ready):
    # An odd minibatch, so that the shares differ; a second epoch, so that the first one shows.
    settings = {"steps": 3, "minibatch_size": 5, "epochs": 2, "score_clip": 0.0}
    one, two = ready("one", **settings), ready("two", **settings)
    finish(one)
    torchrun(two)
    assert result_of(one)["processes"] == 1
    assert result_of(two)["processes"] == 2  # and not one that was started twice, or alone
    alone, together = rows_of(one / "metrics.jsonl"), rows_of(two / "metrics.jsonl")
    assert [row["step"] for row in together] == [1, 2, 3]  # one of them wrote
    for a, b in zip(alone, together, strict=True):
        assert [a[n] for n in NUMBERS] == pytest.approx([b[n] for n in NUMBERS], rel=1e-3, abs=1e-5)
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


def test_alone_everything_is_ones_own():
    group = parallel.join(torch.device("cpu"))
    assert (group.rank, group.size, group.writes) == (0, 1, True)
    assert list(range(5))[group.share] == group.merge(list(range(5)), 5) == list(range(5))
    assert group.any(True)
    assert not group.any(False)
