"""The run folder, as `docs/formats.md` lays it out: names, atomic writes, metrics, checkpoints.

Standard library only: the web side reads these files through the same functions, and the training
side writes nothing else. A stage's module ends with

    def main(run_dir: Path, stop: StopRequest) -> None: ...

    if __name__ == "__main__":
        run_stage(main)

and `run_stage` turns what happens into the exit code and `error.json` that the format promises.
"""

import argparse
import contextlib
import errno
import gc
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn

CONFIG = "config.json"
DATA = "data"
METRICS = "metrics.jsonl"
PROGRESS = "progress.json"
RESULT = "result.json"
ERROR = "error.json"
LOG = "log.txt"
CHECKPOINT = "checkpoint"
MANIFEST = "manifest.json"
POLICY = "policy"
AVERAGE = "average"

# Encoder-decoders whose encoder transformers loads by itself, so that it can be a reward model.
T5_TYPES = ("t5", "mt5", "umt5")

# A rank below every rank: of what a top-k ranking leaves out, in memory only.
BELOW = 1_000

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_INPUT = 2
EXIT_STOPPED = 143  # 128 + SIGTERM, what a shell reports for a process that SIGTERM ended
FULL = (
    "The disk of the run folders is full; make room (`manage.py prune_runs` says what can go), then "
    "try the stage again: it goes on from its checkpoint."
)


class InputError(Exception):
    """The stage was given something it can't work with.

    The message is one sentence for a person: what is wrong, where, and what to do about it.
    """


class Stopped(Exception):
    """Raised by a stage after it has written its checkpoint because SIGTERM asked it to stop."""


# --- Files ------------------------------------------------------------------------------------


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` with `content` so that a reader sees the old file or the new one, never half.

    Written beside, fsynced, renamed, and the folder fsynced, so that it also survives power loss.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    _fsync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON atomically. NaN and infinity are refused, because browsers refuse them."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; `InputError` when the file is missing or isn't JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{_short(path)} is missing from the run folder; put it there as docs/formats.md says."
        ) from None
    # Also text that isn't UTF-8, numbers of thousands of digits, and lists in lists in lists.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_short(path)} isn't valid JSON: {error}.") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON object a line, atomically; returns how many lines."""
    lines = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]
    write_atomic(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_jsonl(path: Path, *, required: Iterable[str] = ()) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one at a time.

    A line that isn't a JSON object, or that lacks one of the `required` fields, raises `InputError`
    with the line's number. Blank lines are skipped.
    """
    required = tuple(required)
    try:
        file = path.open(mode="rb")
    except FileNotFoundError:
        raise InputError(
            f"{_short(path)} is missing from the run folder; put it there as docs/formats.md says."
        ) from None
    with file:
        # Not str.splitlines: a response may hold U+2028, which JSON leaves as it is.
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                raise InputError(f"{_short(path)} line {number} isn't UTF-8 text.") from None
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # as in read_json
                reason = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise InputError(
                    f"{_short(path)} line {number} isn't valid JSON: {reason}."
                ) from None
            if "\\ud" in line.lower():
                # JSON may spell half a character (a lone surrogate), which no encoder can take.
                try:
                    json.dumps(row, ensure_ascii=False).encode()
                except UnicodeEncodeError:
                    raise InputError(
                        f"{_short(path)} line {number} holds half a character (a lone "
                        "surrogate, \\udxxx); write the text again as UTF-8."
                    ) from None
            if not isinstance(row, dict):
                raise InputError(f"{_short(path)} line {number} isn't a JSON object.")
            for name in required:
                if name not in row:
                    raise InputError(f"{_short(path)} line {number} has no field {name!r}.")
            yield row


def _short(path: Path) -> str:
    return f"{DATA}/{path.name}" if path.parent.name == DATA else path.name


def _fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- What a running stage tells ---------------------------------------------------------------


class MetricsWriter:
    """Appends one line per step to `metrics.jsonl`, each flushed as it is written.

    `resume_after` is the last step of the checkpoint that a stage resumes from: later lines, which
    the killed process wrote and the resumed one will write again, are dropped. 0 starts afresh.
    """

    def __init__(self, run_dir: Path, *, resume_after: int = 0) -> None:
        self._run_dir, self._resume_after = run_dir, resume_after
        self._file: IO[str] | None = None

    def _open(self) -> IO[str]:
        kept = [row for row in read_metrics(self._run_dir) if row["step"] <= self._resume_after]
        write_jsonl(self._run_dir / METRICS, kept if self._resume_after else [])
        return (self._run_dir / METRICS).open("a", encoding="utf-8")

    def write(self, step: int, **metrics: float | int | str | None) -> None:
        """One line: the step, the time (seconds since the epoch) and the named numbers."""
        if self._file is None:  # not sooner: bad input found until now overwrites nothing
            self._file = self._open()
        row = {"step": step, "time": round(time.time(), 3)}
        row |= {name: _finite(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _finite(value: Any) -> Any:
    # A NaN loss is news, not a reason to write a file that no browser can read.
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        return float(f"{value:.6g}")
    return value


def read_metrics(run_dir: Path, *, after_step: int = -1) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` with a step beyond `after_step`; `[]` when there is no file.

    A torn line (the process was killed while writing it) is ignored.
    """
    try:
        text = (run_dir / METRICS).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows = []
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] > after_step:
            rows.append(row)
    return rows


def write_progress(
    run_dir: Path,
    *,
    done: int,
    total: int,
    unit: str,
    note: str = "",
    eta_seconds: float | None = None,
) -> None:
    """Replace `progress.json`, which the page shows. `eta_seconds` is None while it isn't known."""
    eta = None if eta_seconds is None else round(max(0.0, eta_seconds), 1)
    progress = {"done": done, "total": total, "unit": unit, "note": note, "eta_seconds": eta}
    write_json(run_dir / PROGRESS, progress)


def read_progress(run_dir: Path) -> dict[str, Any] | None:
    """What `write_progress` wrote last, or None when nothing was written yet."""
    return _read_if_there(run_dir / PROGRESS)


def write_result(run_dir: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`. Call it last: its presence means that the stage succeeded."""
    write_json(run_dir / RESULT, dict(result))


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """What the stage found, or None when it has not succeeded (yet)."""
    return _read_if_there(run_dir / RESULT)


def read_error(run_dir: Path) -> dict[str, Any] | None:
    """`{"kind", "message"}` of a stage that failed, or None."""
    return _read_if_there(run_dir / ERROR)


def _read_if_there(path: Path) -> dict[str, Any] | None:
    try:
        value = read_json(path)
    except InputError:
        return None
    return value if isinstance(value, dict) else None


# --- Checkpoints ------------------------------------------------------------------------------


def put_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace `folder` with what `write(new)` puts into an empty one beside it.

    Whenever the process dies, no folder of that name is half written, and what it was writing is
    gone with the next call.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    for path in new.rglob("*"):
        if path.is_file():
            _fsync(path)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    _fsync_folder(folder.parent)


def save_checkpoint(run_dir: Path, write: Callable[[Path], None]) -> None:
    """Replace the run's checkpoint with what `write(folder)` puts into an empty folder.

    The manifest (size and SHA-256 of every file) is written last. Whenever the process dies, the
    previous checkpoint or the new one is whole.
    """
    folder = run_dir / CHECKPOINT
    new, old = run_dir / f"{CHECKPOINT}.new", run_dir / f"{CHECKPOINT}.old"
    # A complete .new may be the only checkpoint left; put it in place before writing over it.
    if _is_complete(new):
        _swap(new, folder, old)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    manifest = {}
    for path in sorted(new.rglob("*")):
        if path.is_file():
            _fsync(path)
            manifest[path.relative_to(new).as_posix()] = _describe(path)
    write_json(new / MANIFEST, manifest)
    _swap(new, folder, old)


def find_checkpoint(run_dir: Path) -> Path | None:
    """The folder of the newest whole checkpoint, checked against its manifest; None where there is
    none yet.

    `InputError` where there is one and not one is whole: whenever a process dies, `save_checkpoint`
    leaves a whole one, so something else has damaged it, and to begin again would lose a run that
    may be days long.
    """
    damage: dict[str, str] = {}
    for name in (f"{CHECKPOINT}.new", CHECKPOINT, f"{CHECKPOINT}.old"):
        if not (run_dir / name / MANIFEST).exists():
            continue
        file = _damaged_file(run_dir / name)
        if file is None:
            return run_dir / name
        damage[name] = file
    if damage:
        name, file = next(iter(damage.items()))
        folders = f"folder{'s' if len(damage) > 1 else ''} {' and '.join(damage)}"
        raise InputError(
            f"The checkpoint of this run is damaged: {name}/{file} is missing or not as it was "
            f"written ({MANIFEST} holds the size and SHA-256 of every file); put the file back from "
            f"a copy, or remove the {folders} to start over."
        )
    return None


def begun_otherwise(file: str) -> InputError:
    """What to raise where a `file` of a checkpoint does not fit what the settings ask for now."""
    return InputError(
        f"The checkpoint of this run was written under other settings: its {file} has not the "
        f"weights that are trained now; take the former {CONFIG}, or remove the folder {CHECKPOINT} "
        "to start over."
    )


def _swap(new: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    new.rename(folder)
    _fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_complete(folder: Path) -> bool:
    return (folder / MANIFEST).exists() and _damaged_file(folder) is None


def _damaged_file(folder: Path) -> str | None:
    """The first file that is not as the manifest has it, or None."""
    manifest = _read_if_there(folder / MANIFEST)
    if manifest is None:
        return MANIFEST
    for name, entry in manifest.items():
        try:
            if _describe(folder / name) != entry:
                return name
        except OSError:
            return name
    return None


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


# --- The process ------------------------------------------------------------------------------


class StopRequest:
    """Whether SIGTERM has asked this process to stop.

    A stage looks at `stop.requested` between steps; when it is set, the stage writes its checkpoint
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
    anything else; all but 0 leave `error.json`. Ctrl-C counts as SIGTERM's second cousin: it ends
    the process at once, without a checkpoint of its own.
    """
    gc.freeze()  # what was imported stays; see rlhf/training/__init__.py
    gc.enable()
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("run_dir", type=Path, help="the run folder (docs/formats.md)")
    run_dir: Path = parser.parse_args(arguments).run_dir.resolve()
    if not run_dir.is_dir():
        print(f"There is no folder {run_dir}.", file=sys.stderr)
        sys.exit(EXIT_INPUT)
    if read_result(run_dir) is not None:
        print(f"{run_dir.name} already has its result; nothing to do.")
        sys.exit(EXIT_DONE)
    if _writes():
        (run_dir / ERROR).unlink(missing_ok=True)
    stop = StopRequest()
    stop.listen()
    try:
        main(run_dir, stop)
    except InputError as error:
        _fail(run_dir, "input", str(error), EXIT_INPUT)
    except Stopped:
        _fail(
            run_dir,
            "stopped",
            "Stopped on request; start it again and it goes on from its checkpoint.",
            EXIT_STOPPED,
        )
    except Exception as error:  # noqa: BLE001 - the edge of the process: everything becomes error.json
        traceback.print_exc()
        if _is_out_of_memory(error):
            message = f"Out of memory ({error}); use a smaller batch or model, or a bigger machine."
            _fail(run_dir, "memory", " ".join(message.split()), EXIT_BUG)
        if is_full(error):
            _fail(run_dir, "disk", FULL, EXIT_BUG)
        _fail(run_dir, "bug", f"{type(error).__name__}: {error}; log.txt has the rest.", EXIT_BUG)
    _exit(EXIT_DONE)


def _fail(run_dir: Path, kind: str, message: str, code: int) -> NoReturn:
    if _writes() or kind != "stopped":  # all are stopped together, and one says so
        print(message, file=sys.stderr, flush=True)
    if _writes():
        with contextlib.suppress(OSError):  # a full disk: the exit code says that it failed
            write_json(run_dir / ERROR, {"kind": kind, "message": message})
    _exit(code)


def _exit(code: int) -> NoReturn:
    """End the process: of several that torchrun started without the interpreter's farewell.

    In it, a thread of torch's libraries that is still there now and then aborts a process that has
    done all its work; torchrun takes that for a failure and kills the one that writes the result.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _writes() -> bool:
    """Whether this process writes the run folder: of those that torchrun starts, or the stage forks,
    the first does."""
    return os.environ.get("RANK", "0") == "0"


def is_full(error: Exception) -> bool:
    """Whether the disk, or somebody's share of it, had no room."""
    # By words too: safetensors' own error is no OSError.
    said = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return said or "No space left on device" in str(error)


def _is_out_of_memory(error: Exception) -> bool:
    # By name: torch must not be imported here, and its CPU allocator raises a plain RuntimeError.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
