"""Reward models trained by two processes are those of one, and a killed run ends with the same bytes."""

import json
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from rlhf.training import reward_model
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_run import RewardRun
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.test_parallel import put
from tests.rlhf.training.test_reward_options import opinions, train
from tests.rlhf.training.tiny import ask, result_of, rows_of, run_folder, run_together

# Batches of three among two processes, the last one of a single ranking: one has none of it.
SETTINGS = {"rankings_per_batch": 3, "epochs": 3, "test_share": 0.5, "prior": True, "threads": 1}


def waiting(folder, trunk, **settings):
    rows, reference = opinions()
    config = SETTINGS | {"trunk": trunk} | settings
    return run_folder(folder, config, preferences=rows, reference=reference)


def finish(folder):
    reward_model.main(folder, StopRequest())
    return folder


def files(folder):
    """Every file that a run leaves of its models."""
    paths = sorted(p for name in ("train", "test") for p in (folder / name).rglob("*"))
    return {p.relative_to(folder): p.read_bytes() for p in paths if p.is_file()}


def alike(folder, expected, trunk):
    """Weights, curves and figures of two runs, as far as adding up in another order lets them be."""
    ours, theirs = rows_of(folder / "metrics.jsonl"), rows_of(expected / "metrics.jsonl")
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]  # one of them wrote
    for a, b in zip(ours, theirs, strict=True):
        for name in set(b) - {"time", "step"}:
            assert a[name] == pytest.approx(b[name], rel=5e-3, abs=1e-4), name
    began = load_file(f"{trunk}/model.safetensors")
    for half in ("train", "test"):
        weights = [load_file(f / half / "model.safetensors") for f in (folder, expected)]
        assert weights[0].keys() == weights[1].keys()
        for name, tensor in weights[1].items():
            moved = float((tensor - began[f"model.{name}"]).abs().max())
            assert moved > 0
            assert torch.allclose(weights[0][name], tensor, atol=0.05 * moved)
        prompts, texts = [ask("please paint my lamp")] * 3, ["nice nice", "sorry no red", "burn"]
        scores_of_both = [
            load_reward_model(f / half).score(prompts, texts) for f in (folder, expected)
        ]
        for axis, scores in scores_of_both[1].items():
            assert torch.allclose(scores_of_both[0][axis], scores, atol=0.02)
        figures = [result_of(f)[half]["helpfulness"] for f in (folder, expected)]
        assert figures[0]["accuracy"] == pytest.approx(figures[1]["accuracy"], abs=0.03)
        assert figures[0]["ece"] == pytest.approx(figures[1]["ece"], abs=0.03)


@pytest.mark.parametrize("sharded", [False, True], ids=["whole", "sharded"])
def test_two_processes_learn_the_reward_models_of_one(talker, tmp_path, sharded):
    alone = finish(waiting(tmp_path / "alone", talker))
    together = waiting(tmp_path / "together", talker, sharded=sharded)
    run_together(together, stage="reward_model")
    assert (result_of(alone)["processes"], result_of(alone)["held"]) == (1, 1.0)
    result = result_of(together)
    assert result["processes"] == 2  # and not one that was started twice, or alone
    assert result["held"] == (pytest.approx(0.5, abs=0.02) if sharded else 1.0)
    alike(together, alone, talker)


def stopped(folder, after):
    """Stop a run after so many steps, as SIGTERM would."""
    stop = StopRequest()
    record = RewardRun.record

    def counting(self, *given, **metrics):
        record(self, *given, **metrics)
        stop.requested = self.step >= after

    patch = pytest.MonkeyPatch()
    patch.setattr(RewardRun, "record", counting)
    with patch.context(), pytest.raises(Stopped):
        reward_model.main(folder, stop)
    patch.undo()
    assert not (folder / "result.json").exists()
    return folder


def test_two_processes_with_half_of_every_weight_resume_a_run_of_one_and_one_resumes_theirs(
    talker, tmp_path
):
    straight = finish(waiting(tmp_path / "straight", talker))
    half = stopped(waiting(tmp_path / "half", talker), after=12)  # within the second of two models
    handed_on = put(waiting(tmp_path / "handed on", talker, sharded=True), half)
    run_together(handed_on, stage="reward_model")
    steps = [row["step"] for row in rows_of(handed_on / "metrics.jsonl")]
    total = len(rows_of(straight / "metrics.jsonl"))
    assert steps == list(range(13, total + 1))
    (handed_on / "metrics.jsonl").write_text(
        "".join((half / "metrics.jsonl").read_text().splitlines(keepends=True)[:12])
        + (handed_on / "metrics.jsonl").read_text()
    )
    alike(handed_on, straight, talker)


@pytest.mark.parametrize(
    "changed",
    [
        {"members": 2, "ensemble": "models"},
        {"members": 2, "ensemble": "adapters", "prior": False},
        {"separate_axes": True, "smoothing": "agreement"},
    ],
    ids=["models", "adapters", "axes apart"],
)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(talker, tmp_path, changed):
    settings = {"checkpoint_seconds": 0.0, **changed}
    whole = waiting(tmp_path / "whole", talker, **settings)
    killed = waiting(tmp_path / "killed", talker, **settings)
    began = time.monotonic()
    finish(whole)
    took = time.monotonic() - began
    generator = random.Random(3)
    context = multiprocessing.get_context("fork")
    kills, resumed = 0, 0
    for _ in range(40):
        resumed += (killed / "checkpoint").exists()
        process = context.Process(target=reward_model.main, args=(killed, StopRequest()))
        process.start()
        process.join(timeout=generator.uniform(0.1, 0.7) * took)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        if (killed / "result.json").exists():
            break
    else:
        finish(killed)
    assert kills >= 1
    assert resumed >= 1
    assert files(killed) == files(whole)
    results = [json.loads((f / "result.json").read_text()) for f in (killed, whole)]
    for result in results:
        result.pop("seconds")
    assert results[0] == results[1]
    curves = [rows_of(f / "metrics.jsonl") for f in (killed, whole)]
    for rows in curves:
        for row in rows:
            row.pop("time")
    assert curves[0] == curves[1]


def test_a_stopped_run_resumes_where_it_stopped(talker, tmp_path):
    whole = train(tmp_path / "whole", talker)
    again = stopped(
        run_folder(
            tmp_path / "again",
            json.loads((whole / "config.json").read_text()),
            preferences=opinions()[0],
            reference=opinions()[1],
        ),
        after=3,
    )
    assert (again / "checkpoint" / "manifest.json").exists()
    assert files(finish(again)) == files(whole)
