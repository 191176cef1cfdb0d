"""A program that reads other people's files ends at its limits, with a sentence."""

import subprocess
import sys

CODE = """
from annotation.lib.process_limits import LimitReached, hold_this_process
hold_this_process(minutes={minutes}, memory_gib={memory_gib})
try:
    {act}
except (LimitReached, MemoryError) as problem:
    print(type(problem).__name__, problem)
"""


def run(act, *, minutes=0.0, memory_gib=0.0):
    code = CODE.format(act=act, minutes=minutes, memory_gib=memory_gib)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_processor_time_and_memory_have_an_end():
    said = run("[n for n in iter(int, 1)]", minutes=0.005)
    assert said.startswith("LimitReached It used 0.005 minutes of processor time")
    assert run("bytearray(2**30)", memory_gib=0.5).startswith("MemoryError")


def test_without_limits_nothing_is_held():
    assert run("print('done', len(bytearray(2**20)))") == "done 1048576\n"
