"""What a stage's processes may use: processor time, memory, wall time and disk, and as which user.

The kernel holds each process to its processor time and to the size of a file. Memory, wall time and the
run folder are those of all its processes together, which the worker looks at while they run: a limit on
addresses, the only one of memory that the kernel has, is far below what CUDA reserves and never uses.
"""

import os
import pwd
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from rlhf.errors import StageError

GIB = 2**30
DISK_SECONDS = 10.0
"""Seconds between two looks at the size of a run folder, which reads every file's size."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Limits:
    """0 and "" are no limit."""

    wall_hours: float = 0.0
    processor_hours: float = 0.0
    memory_gib: float = 0.0
    disk_gib: float = 0.0
    user: str = ""

    @classmethod
    def configured(cls) -> "Limits":
        """As STAGE_MAX_… and STAGE_USER of the worker say."""
        return cls(
            wall_hours=settings.STAGE_MAX_HOURS,
            processor_hours=settings.STAGE_MAX_PROCESSOR_HOURS,
            memory_gib=settings.STAGE_MAX_MEMORY_GIB,
            disk_gib=settings.STAGE_MAX_DISK_GIB,
            user=settings.STAGE_USER,
        )

    def in_child(self) -> Callable[[], None]:
        """What the process asks of the kernel before its program begins."""
        rules = []
        if self.processor_hours:
            # A minute more than the worker's own look allows, for a worker that cannot look.
            seconds = int(self.processor_hours * 3600) + 60
            rules.append((resource.RLIMIT_CPU, seconds))
        if self.disk_gib:
            rules.append((resource.RLIMIT_FSIZE, int(self.disk_gib * GIB)))
        rules.append((resource.RLIMIT_CORE, 0))  # a core dump holds texts and keys

        def ask_the_kernel() -> None:
            for kind, most in rules:
                _, hard = resource.getrlimit(kind)
                allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
                resource.setrlimit(kind, (allowed, allowed))

        return ask_the_kernel

    def hand_over(self, folder: Path) -> None:
        """Makes STAGE_USER the owner of the run folder, and of the job's folder around it.

        StageError where this worker may not.
        """
        if not self.user:
            return
        try:
            account = pwd.getpwnam(self.user)
            for path in (folder.parent, folder, *folder.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
        except (KeyError, PermissionError) as problem:
            raise StageError(
                f"STAGE_USER is {self.user}: there is no such user, or this worker may not start "
                "programs as another one. Run the worker as root, or leave STAGE_USER empty."
            ) from problem


@dataclass
class Watch:
    """Looks at what a running stage uses."""

    limits: Limits
    process_id: int
    folder: Path
    began_at: float = field(default_factory=time.monotonic)
    looked_at: float = field(default_factory=time.monotonic)

    def exceeded(self) -> str:
        """One sentence naming the limit that is reached, "" while there is none."""
        limits = self.limits
        if limits.wall_hours and time.monotonic() - self.began_at > limits.wall_hours * 3600:
            return f"It ran for STAGE_MAX_HOURS ({limits.wall_hours:g} h) and was stopped."
        if limits.memory_gib or limits.processor_hours:
            seconds, size = used_by_group(self.process_id)
            if limits.memory_gib and size > limits.memory_gib * GIB:
                return (
                    f"It used {size / GIB:.1f} GiB of memory, more than STAGE_MAX_MEMORY_GIB "
                    f"({limits.memory_gib:g}), and was stopped."
                )
            if limits.processor_hours and seconds > limits.processor_hours * 3600:
                return (
                    "It used more processor time than STAGE_MAX_PROCESSOR_HOURS "
                    f"({limits.processor_hours:g} h) and was stopped."
                )
        return self._disk()

    def _disk(self) -> str:
        most = self.limits.disk_gib
        if not most or time.monotonic() - self.looked_at < DISK_SECONDS:
            return ""
        self.looked_at = time.monotonic()
        size = folder_bytes(self.folder)
        if size <= most * GIB:
            return ""
        return (
            f"Its run folder has {size / GIB:.1f} GiB, more than STAGE_MAX_DISK_GIB ({most:g}), "
            "and it was stopped."
        )


def used_by_group(group: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of the processes of a group; zeros where /proc is not."""
    seconds, size = 0.0, 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # After the name, which is in parentheses and may hold anything.
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group:
            seconds += (int(fields[11]) + int(fields[12])) / CLOCK_TICKS
            size += int(fields[21]) * PAGE_BYTES
    return seconds, size


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take, links not followed."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except OSError:  # deleted meanwhile
            continue
    return total
