"""The reports of a running stage: metrics per step, progress, the result or the error."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from rlhf.training.rundir import ERROR, METRICS, PROGRESS, RESULT, log
from rlhf.training.rundir.files import read_json_if_there, write_json, write_jsonl

LARGEST = 1e300
DEEPEST = 20


class MetricsWriter:
    """Appends one line per step to `metrics.jsonl`, each flushed as it is written.

    `resume_after` is the step of the checkpoint that the stage resumes from. Later lines are dropped,
    because the resumed process writes them again. 0 starts with an empty file.
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
        # Opened here, so that a stage that refuses its input overwrites nothing.
        if self._file is None:
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
    # NaN and infinity are no valid JSON; null is shown as a gap.
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        return float(f"{value:.6g}")
    return value


def read_metrics(run_dir: Path, *, after_step: int = -1) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` with a step beyond `after_step`; `[]` when there is no file.

    An incomplete line (the process was killed while writing it) is ignored.
    """
    try:
        text = (run_dir / METRICS).read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    rows = []
    for line in text.split("\n"):
        try:
            row = json.loads(line)
        # Also numbers of thousands of digits, and lists in lists in lists.
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(row, dict)
            and type(row.get("step")) is int
            and after_step < row["step"] < 2**53
        ):
            rows.append({name: _plain(value) for name, value in row.items()})
    return rows


def _plain(value: Any) -> Any:
    """A metric as a page can draw it: text, or a number that is one; None for anything else."""
    return value if isinstance(value, str | bool) else finite(value)


def finite(value: Any) -> int | float | None:
    """A number that a browser can read, else None: what lies in a folder may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST and value == value else None


def _readable(value: Any, depth: int = 0) -> Any:
    """The value without numbers that are none, and without what is nested too deeply."""
    if isinstance(value, dict | list) and depth > DEEPEST:
        return None
    if isinstance(value, dict):
        return {key: _readable(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_readable(part, depth + 1) for part in value]
    return value if isinstance(value, str | bool) else finite(value)


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


class Progress:
    """The progress of a stage in phases, so that the page always shows something that moves.

    A phase is written as it begins, and then at most once in `EVERY` seconds: it may be reported for
    each token. Phases that follow one another faster than `LEAST` seconds are not written, because
    each write waits for the disk. Where the run itself counts (updates, steps: `of_run`), a phase is
    its note.
    """

    EVERY = 1.0
    LEAST = 0.2
    LOGGED_EVERY = 15.0
    """Seconds between two lines of the log about the same phase, or about the run's steps."""

    def __init__(self, run_dir: Path, *, writes: bool = True) -> None:
        self._run_dir, self.writes = run_dir, writes
        self._written_at = -self.EVERY
        self._logged_at = -self.LOGGED_EVERY
        self._logged_share = 0.0
        self._run: dict[str, Any] = {}

    def of_run(
        self, done: int, total: int, unit: str, note: str = "", eta_seconds: float | None = None
    ) -> None:
        """How far the whole run is; later phases are shown next to these counts."""
        self._run = {"done": done, "total": total, "unit": unit, "eta_seconds": eta_seconds}
        self._log_share(
            done, total, f"{unit} {done:,} of {total:,}" + (f": {note}" if note else "")
        )
        if done >= total or self._is_due():
            self._write(**self._run, note=note)

    def phase(self, name: str, total: int = 0, unit: str = "") -> Callable[..., None]:
        """Begin a phase (`loading the models`, `scoring`); returns what is called with how much of
        `total` is done, and with another total where it turns out different. 0: not known."""
        began = time.monotonic()
        if not self._run:
            self._log(name + (f" ({total:,} {unit})" if total else ""))
            self._logged_share = 0.0

        def report(done: float, total: int = total) -> None:
            if not self._run:
                self._log_share(done, total, f"{name}: {int(done):,} of {total:,} {unit}")
            if not self._is_due():
                return
            if self._run:
                self._write(**self._run, note=f"{name}: {int(done):,} of {total:,} {unit}")
                return
            eta = (time.monotonic() - began) / done * (total - done) if done else None
            self._write(done=int(done), total=total, unit=unit, note=name, eta_seconds=eta)

        if began - self._written_at >= self.LEAST:
            counts = self._run or {"done": 0, "total": total, "unit": unit}
            self._write(**counts, note=name)
        return report

    def _log(self, line: str) -> None:
        if self.writes:
            log.info(line)
            self._logged_at = time.monotonic()

    def _log_share(self, done: float, total: int, line: str) -> None:
        """A line at each tenth of the total (at most one in EVERY seconds), and after LOGGED_EVERY."""
        share = done / total if total else 0.0
        waited = time.monotonic() - self._logged_at
        is_end = done >= total > 0 and self._logged_share < 1
        is_tenth = share - self._logged_share >= 0.1 and waited >= self.EVERY
        if is_tenth or is_end or waited >= self.LOGGED_EVERY:
            self._logged_share = share
            self._log(line)

    def _is_due(self) -> bool:
        return time.monotonic() - self._written_at >= self.EVERY

    def _write(self, **progress: Any) -> None:
        self._written_at = time.monotonic()
        if self.writes:
            write_progress(self._run_dir, **progress)


def read_progress(run_dir: Path) -> dict[str, Any] | None:
    """The content of `progress.json`, or None if it does not exist yet."""
    progress = read_json_if_there(run_dir / PROGRESS)
    if progress is None:
        return None
    numbers = {name: finite(progress.get(name)) for name in ("done", "total", "eta_seconds")}
    words = {name: progress.get(name) for name in ("unit", "note")}
    texts = {name: text if isinstance(text, str) else "" for name, text in words.items()}
    return {**numbers, **texts}


def write_result(run_dir: Path, result: Mapping[str, Any]) -> None:
    """Write `result.json`. Call it last: its presence means that the stage succeeded."""
    write_json(run_dir / RESULT, dict(result))
    log.info(f"result: {log.numbers_in_words(result)}".rstrip(" :"))


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """The content of `result.json`, or None while the stage has not succeeded."""
    result = read_json_if_there(run_dir / RESULT)
    return None if result is None else {name: _readable(part) for name, part in result.items()}


def read_error(run_dir: Path) -> dict[str, Any] | None:
    """`{"kind", "message"}` of a stage that failed, or None."""
    error = read_json_if_there(run_dir / ERROR)
    return None if error is None else {name: str(part) for name, part in error.items()}
