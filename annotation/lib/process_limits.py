"""Limits of this very process: for programs that read other people's files."""

import resource
import signal
from types import FrameType

GIB = 2**30


class LimitReached(Exception):
    """One sentence naming the limit."""


def hold_this_process(*, minutes: float, memory_gib: float) -> None:
    """From now on LimitReached after so much processor time, and MemoryError beyond so much memory.

    0 is no limit. What is written in one transaction is then rolled back as after any error.
    """
    if memory_gib:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (_at_most(int(memory_gib * GIB), hard), hard))
    if minutes:

        def stop(number: int, frame: FrameType | None) -> None:
            raise LimitReached(f"It used {minutes:g} minutes of processor time and was stopped.")

        signal.signal(signal.SIGXCPU, stop)
        used = resource.getrusage(resource.RUSAGE_SELF)
        soft = int(used.ru_utime + used.ru_stime + minutes * 60) + 1
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (_at_most(soft, hard), hard))


def _at_most(wanted: int, hard: int) -> int:
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
