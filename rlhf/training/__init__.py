"""The GPU side: plain Python without Django.

Every program that computes imports this package before torch: stages that a worker or a person
starts, the doctor, the policy server, benchmarks. So the environment of torch's threads is set here.
"""

import os

THREADS = {"GOMP_SPINCOUNT": "1000"}
"""Threads that wait for each other spin for some microseconds, then sleep. libgomp's default is to
spin for milliseconds, which takes the cores from whatever else runs (docs/footguns.md)."""


def set_thread_environment() -> None:
    """Set THREADS where the environment doesn't say otherwise. libgomp reads it once, when torch is
    imported."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in THREADS.items():
            os.environ.setdefault(name, value)


set_thread_environment()
