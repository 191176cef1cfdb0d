"""The doctor finds what would go wrong before any compute is spent, and touches nothing."""

import json
import shutil
import subprocess
import sys

import pytest

from rlhf.training import doctor
from tests.rlhf.training.test_bad_input import silent_template, without_eos
from tests.rlhf.training.tiny import ROOT, ask, prompt, run_folder


def found(report, level):
    return [f.message for f in report.findings if f.level == level]


@pytest.fixture
def healthy(ready):
    """A PPO run whose policy has room to end its answers."""
    return lambda **settings: ready(**({"max_new_tokens": 40} | settings))


def test_a_healthy_run_gets_figures_and_nothing_is_written(healthy):
    folder = healthy()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report = doctor.examine(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert report.stage == "ppo"
    assert found(report, "error") == []
    about = {f.about for f in report.findings}
    assert about >= {"settings", "tokenizer", "end", "lengths", "batches", "answers", "reward"}
    assert about >= {"memory", "time"}
    figures = report.figures
    assert figures["reward_spread"] > 0.05
    assert figures["best_of_8_headroom"] > figures["reward_spread"]
    assert figures["updates"] == 2 * 2 * 2
    assert figures["passes"] == 1.0
    assert 0 < figures["memory"]["needed"] < 1e9
    assert figures["seconds"]["run"] == pytest.approx(2 * figures["seconds"]["step"])


def test_as_a_command_it_prints_json_and_says_2_for_errors(ready):
    folder = ready(prompts_per_step=25, kl_wieght=0.1)
    command = [sys.executable, "-m", "rlhf.training.doctor", str(folder)]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    told = json.loads(done.stdout)
    assert told["exit_code"] == 2
    assert told["findings"][0]["message"] == (
        "'kl_wieght' is not a setting of ppo; did you mean 'kl_weight'?"
    )


def test_the_report_for_people_names_what_it_found(ready, capsys):
    assert doctor.main([str(ready(prompts_per_step=25)), "--no-samples"]) == 2
    said = " ".join(capsys.readouterr().out.split())
    assert "✗ batches 24 prompts are fewer than the 25 of one step" in said
    assert "It can't run like this." in said


def test_long_prompts_are_an_error_or_left_out(healthy):
    long = prompt(99) | {"messages": ask("nice " * 200)}
    for long_prompts, level in (("refuse", "error"), ("leave_out", "warning")):
        folder = healthy(name=long_prompts, long_prompts=long_prompts)
        with (folder / "data" / "prompts.jsonl").open("a") as file:
            file.write(json.dumps(long) + "\n")
        report = doctor.examine(folder, probe=False)
        assert any("1 of 25 prompts leave no room" in m for m in found(report, level))


@pytest.mark.parametrize(
    ("breaks", "said"),
    [(silent_template, "drops the system turn"), (without_eos, "no end-of-sequence token")],
)
def test_a_template_or_tokenizer_that_loses_something_is_an_error(
    breaks, said, healthy, talker, tmp_path
):
    model = shutil.copytree(talker, tmp_path / "model")
    breaks(model)
    folder = healthy(policy=str(model))
    path = folder / "data" / "prompts.jsonl"
    system = [{"role": "system", "content": "be nice"}, *ask("please")]
    rows = [json.loads(line) | {"messages": system} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = doctor.examine(folder)
    assert report.exit_code == 2
    assert any(said in message for message in found(report, "error"))


def test_a_template_that_ends_answers_with_another_token_is_an_error(healthy, talker, tmp_path):
    model = shutil.copytree(talker, tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(template.replace("<|end|>", "<|pad|>"))
    report = doctor.examine(healthy(policy=str(model)), probe=False)
    assert any("'<|pad|>', which is not among its stop tokens" in m for m in found(report, "error"))


def test_rewards_that_are_all_alike_are_a_warning(healthy, taste, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    flat = shutil.copytree(taste / "train", tmp_path / "flat")
    tensors = load_file(flat / "heads.safetensors")
    save_file(
        {n: torch.zeros_like(t) if n == "weight" else t for n, t in tensors.items()},
        flat / "heads.safetensors",
    )
    report = doctor.examine(healthy(reward_model=str(flat)))
    assert any("next to nothing to climb" in m for m in found(report, "warning"))
    assert report.exit_code == 1


def test_more_memory_than_the_machine_has_is_an_error(healthy, monkeypatch):
    monkeypatch.setattr(doctor, "available_memory", lambda device_type: 1e6)
    report = doctor.examine(healthy(), probe=False)
    assert any("bigger machine" in m for m in found(report, "error"))


def test_other_stages_are_recognised(talker, tmp_path):
    short = {"policy": talker, "max_new_tokens": 4}
    for stage, config, data in (
        ("generate", short | {"k": 2}, {"prompts": [prompt(0)]}),
        ("evaluate", short | {"temperatures": [1.0]}, {"prompts": [prompt(0)]}),
        ("sft", {"policy": talker}, {"demonstrations": [prompt(0) | {"response": "yes"}]}),
        ("grow", {"policy": talker, "width": 2}, {}),
    ):
        report = doctor.examine(run_folder(tmp_path / stage, config, **data), probe=False)
        assert (report.stage, found(report, "error")) == (stage, [])
