"""Real servers, real HTTP, SIGKILL: nothing that was confirmed is lost, nothing is there twice.

A small run of benchmarks/annotate_crash.py, which does the same with 64 people.
"""

import os

import pytest

from benchmarks.annotate_crash import crash

pytestmark = pytest.mark.slow

POSTGRES = os.environ.get("TEST_DATABASE_URL", "")


@pytest.mark.parametrize("overlap", [1, 3])
@pytest.mark.parametrize(
    "postgres",
    [
        pytest.param("", id="sqlite"),
        pytest.param(
            POSTGRES,
            id="postgresql",
            marks=pytest.mark.skipif(not POSTGRES, reason="TEST_DATABASE_URL names no server"),
        ),
    ],
)
def test_12_people_a_bad_network_and_a_killed_server(postgres, overlap):
    figures = crash(
        people=12, comparisons=120 // overlap, overlap=overlap, kills=1, postgres=postgres
    )
    assert figures["ok"], figures
    assert figures["repeated"] > 0, "the kill was noticed by nobody: it proved nothing"
