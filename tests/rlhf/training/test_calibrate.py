"""What the stage `calibrate` measures is what a stage then costs."""

import resource

import pytest

from rlhf.computing_cost import sections_of
from rlhf.forecast.speeds import from_calibration
from rlhf.forecast.work import Counts, work_of
from tests.rlhf.training.tiny import make_policy, prompt, result_of, run_command, run_folder

PROMPTS = [prompt(i) for i in range(48)]
GENERATE = {"k": 4, "oversample": 0, "max_new_tokens": 32, "batch_size": 16, "threads": 1}


def cpu_seconds_of(stage, folder):
    """Processor seconds of a stage in a process of its own."""

    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    done = run_command(stage, folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return spent() - before


def test_a_measured_stage_costs_what_the_calibration_expects(tmp_path):
    """By processor time, since other programs may run: within a factor of 2.5, imports included."""
    policy = str(make_policy(tmp_path / "policy", hidden=128, layers=4))
    folder = run_folder(
        tmp_path / "calibrate",
        {
            "policy": policy, "rows": 16, "max_new_tokens": 32, "threads": 1, "seconds": 0.1,
            "train_tokens": 256,
        },
        prompts=PROMPTS[:16],
    )  # fmt: skip
    cpu_seconds_of("calibrate", folder)
    measured = result_of(folder)
    assert measured["model"]["n_parameters"] > 500_000
    assert [point["rows"] for point in measured["decoding"]] == [4, 16]
    assert all(cost["seconds"] >= 0 for cost in measured["costs"].values())
    assert {"lora_token", "full_token", "reward_token", "score_token"} <= set(measured["costs"])
    speeds = from_calibration(measured, lora=False, clock="cpu_seconds")
    assert speeds.prompt_tokens == pytest.approx(measured["sampled"]["prompt_tokens"])

    generate = run_folder(tmp_path / "run", {"policy": policy} | GENERATE, prompts=PROMPTS)
    spent = cpu_seconds_of("generate", generate)
    counts = Counts(ranking=len(PROMPTS), comparisons=2, ppo=1, watch=0, heldout=1)
    sections = sections_of({"generate": GENERATE})
    work = work_of("generate", sections, counts, speeds.lengths())
    expected = speeds.seconds(work, speeds.stop_rates[1])
    assert spent / 2.5 < expected < spent * 2.5
    result = result_of(generate)
    assert result["n_responses"] == len(PROMPTS) * 4
