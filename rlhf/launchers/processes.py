"""Child processes that never outlive their parent.

Each child has its own process group, so that it can be stopped together with its own children. On
Linux the kernel kills a child when its parent dies for any reason.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1


def start(
    command: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    at_parents_death: int = signal.SIGKILL,
    user: str = "",
    in_child: Callable[[], None] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program without a shell and without input; its output goes to `output` if given.

    `user` is another one to run it as, without the groups of this one. `in_child` runs before the
    program begins.
    """
    identity: dict[str, Any] = {}
    if user:
        account = pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}
    return subprocess.Popen(
        list(command),
        cwd=cwd,
        env=None if env is None else dict(env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        process_group=0,
        preexec_fn=_in_order(in_child, _die_with_parent(at_parents_death)),
        **identity,
    )


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code if the process ends within so many seconds, else None."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to a process and to everything in its group; nothing if it has ended."""
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return


def stop(process: subprocess.Popen[bytes], *, grace: float) -> int:
    """SIGTERM, and after `grace` seconds SIGKILL to the whole group; returns the exit code."""
    if process.poll() is None:
        signal_group(process, signal.SIGTERM)
        wait(process, grace)
    # Also if the process has ended: its children may still run.
    signal_group(process, signal.SIGKILL)
    return process.wait()


def _in_order(*acts: Callable[[], None] | None) -> Callable[[], None] | None:
    wanted = [act for act in acts if act is not None]

    def run() -> None:
        for act in wanted:
            act()

    return run if wanted else None


def _die_with_parent(number: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    # Here, because nothing may be imported between fork and exec.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl took effect
            os._exit(1)

    return ask_the_kernel
