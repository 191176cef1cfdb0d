"""The process of a stage: its `main` runs in the folder of the command line, errors become exit codes.

A stage's module ends with

    def main(run_dir: Path, stop: StopRequest) -> None: ...

    if __name__ == "__main__":
        run_stage(main)
"""

import argparse
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rlhf.training.rundir import ERROR, log
from rlhf.training.rundir.errors import (
    DISK_FULL,
    InputError,
    Stopped,
    is_disk_full,
    is_out_of_memory,
)
from rlhf.training.rundir.files import write_json
from rlhf.training.rundir.reports import read_result

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_INPUT = 2
EXIT_STOPPED = 143  # 128 + SIGTERM, what a shell reports for a process that SIGTERM ended


class StopRequest:
    """Whether this process received SIGTERM.

    A stage reads `stop.requested` between steps; when it is set, the stage writes its checkpoint
    and raises `Stopped`.
    """

    def __init__(self) -> None:
        self.requested = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


def run_stage(
    main: Callable[[Path, StopRequest], None], arguments: list[str] | None = None
) -> NoReturn:
    """Run a stage in the folder named on the command line, and exit as `docs/formats.md` says.

    0 done (also when the folder already holds a result), 2 bad input, 143 stopped by SIGTERM, 1
    anything else; all but 0 write `error.json`. Ctrl-C ends the process at once, without a
    checkpoint.
    """
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("run_dir", type=Path, help="the run folder (docs/formats.md)")
    run_dir: Path = parser.parse_args(arguments).run_dir.resolve()
    if not run_dir.is_dir():
        log.error(f"There is no folder {run_dir}.")
        sys.exit(EXIT_INPUT)
    if read_result(run_dir) is not None:
        log.info(f"{run_dir.name} already has its result; nothing to do.")
        sys.exit(EXIT_DONE)
    if _writes():
        (run_dir / ERROR).unlink(missing_ok=True)
    stop = StopRequest()
    stop.listen()
    log.stamp_libraries()
    file = getattr(sys.modules[main.__module__], "__file__", None)
    stage, began = Path(file).stem if file else "stage", time.monotonic()
    if _writes():
        log.info(f"{stage}: started, {log.process_in_words(os.getpid())}")
    try:
        main(run_dir, stop)
    except InputError as error:
        _fail(run_dir, "input", str(error), EXIT_INPUT)
    except Stopped:
        _fail(
            run_dir,
            "stopped",
            "Stopped on request; start it again and it resumes from its checkpoint.",
            EXIT_STOPPED,
        )
    except Exception as error:  # noqa: BLE001 - the edge of the process: everything becomes error.json
        log.error(traceback.format_exc())
        if is_out_of_memory(error):
            message = f"Out of memory ({error}); use a smaller batch or model, or a bigger machine."
            _fail(run_dir, "memory", " ".join(message.split()), EXIT_BUG)
        if is_disk_full(error):
            _fail(run_dir, "disk", DISK_FULL, EXIT_BUG)
        _fail(run_dir, "bug", f"{type(error).__name__}: {error}; log.txt has the rest.", EXIT_BUG)
    if _writes():
        log.info(f"{stage}: done in {time.monotonic() - began:.1f} s")
    _exit(EXIT_DONE)


def _fail(run_dir: Path, kind: str, message: str, code: int) -> NoReturn:
    if _writes() or kind != "stopped":  # all are stopped together, and one prints it
        log.error(message)
    if _writes():
        with contextlib.suppress(OSError):  # a full disk: the exit code says that it failed
            write_json(run_dir / ERROR, {"kind": kind, "message": message})
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End the process; one of several that torchrun started ends without the interpreter's cleanup.

    During the cleanup a thread of torch's libraries sometimes aborts a process that has done all its
    work; torchrun takes that for a failure and kills the one that writes the result.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _writes() -> bool:
    """Whether this process writes the run folder: the first of those that torchrun starts, or that
    the stage forks."""
    return os.environ.get("RANK", "0") == "0"
