"""Reports of a run folder for pages: metrics, progress, log, result and samples.

A stage may be writing while a page reads: an incomplete line is skipped, a missing file is empty.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.lib.word_diff import Piece, side_by_side
from rlhf.models import Job
from rlhf.training import rundir
from rlhf.training.rundir import reports

LOG_BYTES = 16_000
# Color codes of terminals and other control characters mean nothing on a page.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def run_folder(job: Job) -> Path:
    """The folder of the job's last claim, or of the last earlier one that exists."""
    current = job.run_dir
    for epoch in range(job.epoch, 0, -1):
        folder = current.with_name(str(epoch))
        if folder.is_dir():
            return folder
    return current


def metrics_since(job: Job, *, epoch: int, after: int) -> dict[str, Any]:
    """The rows that a reader of `epoch` at step `after` has not seen.

    A newer claim of the job writes another folder and may repeat steps: `reset` then tells the
    reader to drop its earlier rows.
    """
    reset = epoch != job.epoch
    rows = reports.read_metrics(run_folder(job), after_step=-1 if reset else after)
    return {
        "epoch": job.epoch,
        "reset": reset,
        "running": not job.has_ended,
        "last": max((row["step"] for row in rows), default=-1 if reset else after),
        "rows": rows,
    }


def log_tail(job: Job) -> str:
    """The last lines of the process's output as plain text, without control characters."""
    path = run_folder(job) / rundir.LOG
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            data = file.read()
    except OSError:
        return ""
    text = data.decode("utf-8", errors="replace")
    if size > LOG_BYTES:
        text = "…\n" + text.partition("\n")[2]
    # A progress bar rewrites its line with carriage returns; only its last state counts.
    text = "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
    return CONTROL.sub("", text).strip("\n")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that may be missing, still being written, or end in a partial line."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return
    with file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):  # also numbers of thousands of digits
                continue
            if isinstance(row, dict):
                yield row


def read_progress(job: Job) -> dict[str, Any]:
    """`{done, total, unit, note, eta_seconds}`: the folder's, which is newer, else the row's."""
    written = reports.read_progress(run_folder(job)) if job.epoch else None
    progress = written or job.progress
    return progress if isinstance(progress, dict) else {}


def read_result(job: Job) -> dict[str, Any]:
    """The content of the stage's `result.json`; `{}` if it does not exist yet."""
    return reports.read_result(run_folder(job)) or {}


@dataclass(frozen=True)
class BeforeAfter:
    """One watch prompt, as the policy answered it before PPO and after."""

    prompt: str
    before: list[Piece]
    after: list[Piece]
    reward_before: float | None
    reward_after: float | None
    scores: list[tuple[str, float | None, float | None]] = field(default_factory=list)
    is_cut_before: bool = False
    """Whether the response reached its token limit without an end."""
    is_cut_after: bool = False

    @property
    def gain(self) -> float | None:
        if self.reward_before is None or self.reward_after is None:
            return None
        return self.reward_after - self.reward_before


def before_after(job: Job, *, limit: int = 12) -> list[BeforeAfter]:
    """Samples of the last step that wrote some, for the same prompts before and after PPO."""
    rows = list(rows_of(run_folder(job) / "samples.jsonl"))
    last = max((_number(row.get("step")) or 0 for row in rows), default=0)
    samples: list[BeforeAfter] = []
    for row in rows:
        if (_number(row.get("step")) or 0) != last or len(samples) >= limit:
            continue
        before, after = side_by_side(_text(row.get("before")), _text(row.get("after")))
        was, now = _scores(row, "scores_before"), _scores(row, "scores_after")
        samples.append(
            BeforeAfter(
                last_turn(row.get("messages")),
                before,
                after,
                _number(row.get("reward_before")),
                _number(row.get("reward_after")),
                [(axis, was[axis], now.get(axis)) for axis in was],
                row.get("finished_before") is False,
                row.get("finished_after") is False,
            )
        )
    return samples


@dataclass(frozen=True)
class Sample:
    """One held-out answer with its prompt and scores."""

    prompt_id: str
    prompt: str
    category: str
    risk: str
    temperature: float
    index: int
    text: str
    n_tokens: int
    finished: bool
    scores: dict[str, float]
    opponent: str = ""
    opponent_finished: bool = True
    opponent_scores: dict[str, float] = field(default_factory=dict)


def evaluation_samples(job: Job, *, opponent: str = "") -> list[Sample]:
    """Every answer from which the evaluation's numbers were computed, in the file's order.

    With `opponent` ("base", "previous") each has that policy's answer of the same index.
    """
    folder = run_folder(job)
    prompts = {
        _text(row.get("prompt_id")): row for row in rows_of(folder / "data" / "prompts.jsonl")
    }
    theirs: dict[tuple[str, float, int], dict[str, Any]] = {}
    if opponent in ("base", "previous"):
        for row in rows_of(folder / "opponents" / f"{opponent}.jsonl"):
            theirs[_place(row)] = row
    samples = []
    for row in rows_of(folder / "samples.jsonl"):
        prompt = prompts.get(_text(row.get("prompt_id")), {})
        other = theirs.get(_place(row), {})
        samples.append(
            Sample(
                prompt_id=_text(row.get("prompt_id")),
                prompt=last_turn(prompt.get("messages")),
                category=_text(prompt.get("category")),
                risk=_text(prompt.get("risk")),
                temperature=_number(row.get("temperature")) or 0.0,
                index=int(_number(row.get("index")) or 0),
                text=_text(row.get("text")),
                n_tokens=int(_number(row.get("n_tokens")) or 0),
                finished=bool(row.get("finished", True)),
                scores=_scores(row),
                opponent=_text(other.get("text")),
                opponent_finished=bool(other.get("finished", True)),
                opponent_scores=_scores(other),
            )
        )
    return samples


def last_turn(messages: Any) -> str:
    """The text of the last message."""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        return _text(messages[-1].get("content"))
    return ""


def _place(row: dict[str, Any]) -> tuple[str, float, int]:
    return (
        _text(row.get("prompt_id")),
        _number(row.get("temperature")) or 0.0,
        int(_number(row.get("index")) or 0),
    )


def _scores(row: dict[str, Any], name: str = "scores") -> dict[str, float]:
    scores = row.get(name)
    if not isinstance(scores, dict):
        return {}
    numbers = {str(axis): _number(value) for axis, value in scores.items()}
    return {axis: value for axis, value in numbers.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _number(value: Any) -> float | None:
    number = reports.finite(value)
    return None if number is None else float(number)
