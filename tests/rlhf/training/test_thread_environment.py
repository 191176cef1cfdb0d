"""Threads that wait for each other sleep soon, whoever starts the program."""

import os
import subprocess
import sys

import pytest

ENTRIES = ("rlhf.training.generate", "rlhf.training.serve", "rlhf.training.doctor")


def displayed(module, **more):
    """What libgomp reads from its environment when a program's module is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    finished = subprocess.run(
        [sys.executable, "-c", f"import {module}, torch"],
        env=environment | {"OMP_DISPLAY_ENV": "VERBOSE", "HF_HUB_OFFLINE": "1", **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stderr


@pytest.mark.parametrize("module", ENTRIES)
def test_every_program_that_computes_lets_its_threads_sleep(module):
    assert "GOMP_SPINCOUNT = '1000'" in displayed(module)


def test_what_a_person_has_set_stays():
    assert "GOMP_SPINCOUNT = '7'" in displayed("rlhf.training.generate", GOMP_SPINCOUNT="7")
    passive = displayed("rlhf.training.generate", OMP_WAIT_POLICY="PASSIVE")
    assert "GOMP_SPINCOUNT = '1000'" not in passive
