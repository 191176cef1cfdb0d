"""A CPU that has no bfloat16 instructions is not asked to compute in bfloat16 unasked."""

import pytest
import torch

from rlhf.training import serve
from rlhf.training.language_models import devices

CPU = torch.device("cpu")
WITH = (
    "flags\t: fpu avx2 avx512f avx512_bf16\n",
    "flags\t: amx_bf16 amx_tile\n",
    "Features\t: fp bf16\n",
)
WITHOUT = ("flags\t: fpu avx2 avx512f\n", "")


@pytest.fixture
def cpu_info(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    return (tmp_path / "cpuinfo").write_text


@pytest.mark.parametrize(
    ("info", "emulated"), [*((i, False) for i in WITH), *((i, True) for i in WITHOUT)]
)
def test_the_listed_instructions_decide(cpu_info, info, emulated):
    cpu_info(info)
    assert devices.emulates_bfloat16(CPU) is emulated
    assert not devices.emulates_bfloat16(torch.device("cuda"))


def trial(monkeypatch, float32, bfloat16):
    seconds = {"float32": float32, "bfloat16": bfloat16}
    monkeypatch.setattr(devices, "precision_trial", lambda: seconds)


def test_a_cpu_with_the_instructions_is_tried_before_a_policy_is_served_in_bfloat16(
    cpu_info, monkeypatch
):
    cpu_info(WITH[0])
    trial(monkeypatch, 1e-4, 5e-5)
    assert serve.serving_dtype("cpu") == "auto"
    trial(monkeypatch, 1e-4, 2e-4)
    assert serve.serving_dtype("cpu") == "float32"
    trial(monkeypatch, 1e-4, 5e-5)
    cpu_info(WITHOUT[0])
    assert serve.serving_dtype("cpu") == "float32", "emulated, whatever the trial says"


def test_the_trial_takes_milliseconds_and_is_in_the_doctors_words(cpu_info):
    cpu_info(WITHOUT[0])
    seconds = devices.precision_trial()
    assert all(0 < s < 1 for s in seconds.values())
    assert "Computes in float32 on the CPU" in devices.describe_precision(CPU, torch.float32)


def test_a_system_that_lists_nothing_counts_as_one_without(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "not there")
    assert devices.emulates_bfloat16(CPU)


def test_bfloat16_that_was_asked_for_is_used_with_a_warning(cpu_info, capsys):
    cpu_info(WITHOUT[0])
    assert devices.choose_dtype("auto", CPU) == torch.float32
    assert not capsys.readouterr().out
    assert devices.choose_dtype("bfloat16", CPU) == torch.bfloat16
    assert "no bfloat16 instructions" in capsys.readouterr().out
