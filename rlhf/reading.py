"""What a run folder tells a page: curves, the end of the log, samples side by side.

A stage may be writing while a page reads, so everything here takes what is there and no more: a
torn line is not there yet, a missing file is empty.
"""

import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf import charts
from rlhf.models import Job
from rlhf.training import rundir
from rlhf.training.rundir.reports import read_metrics, read_progress, read_result

LOG_BYTES = 16_000
# Terminals' colour codes and other control characters say nothing on a page.
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
    """What the reader of `epoch` at step `after` has not seen: only new lines, as columns' rows.

    A newer claim of the job writes another folder and may repeat steps, so it starts the reader
    afresh (`reset`).
    """
    reset = epoch != job.epoch
    rows = read_metrics(run_folder(job), after_step=-1 if reset else after)
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
    # A progress bar rewrites its line with carriage returns; only its last state is news.
    text = "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
    return CONTROL.sub("", text).strip("\n")


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The whole JSON objects of a file that may be missing, torn or still growing."""
    try:
        file = path.open(encoding="utf-8", errors="replace")
    except OSError:
        return
    with file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                yield row


def progress(job: Job) -> dict[str, Any]:
    """`{done, total, unit, note, eta_seconds}`: the folder's, which is newer, else the row's."""
    told = read_progress(run_folder(job)) if job.epoch else None
    told = told or job.progress or {}
    return told if isinstance(told, dict) else {}


def result(job: Job) -> dict[str, Any]:
    """The stage's `result.json`, `{}` while there is none."""
    return read_result(run_folder(job)) or {}


@dataclass(frozen=True)
class Piece:
    """Words that are the same on both sides, or only on one."""

    text: str
    kind: str  # "same" | "del" | "ins"


def word_diff(before: str, after: str) -> tuple[list[Piece], list[Piece]]:
    """The two texts cut where they differ, by words; spaces stay with the word before them.

    Texts of thousands of words are not compared, because that takes quadratic time.
    """
    a, b = re.findall(r"\S+\s*|\s+", before), re.findall(r"\S+\s*|\s+", after)
    if len(a) > 2000 or len(b) > 2000:
        return [Piece(before, "same")], [Piece(after, "same")]
    matcher = difflib.SequenceMatcher(
        None, [word.strip() for word in a], [word.strip() for word in b], autojunk=False
    )
    left: list[Piece] = []
    right: list[Piece] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        same = tag == "equal"
        if i2 > i1:
            left.append(Piece("".join(a[i1:i2]), "same" if same else "del"))
        if j2 > j1:
            right.append(Piece("".join(b[j1:j2]), "same" if same else "ins"))
    return left, right


@dataclass(frozen=True)
class BeforeAfter:
    """One watch prompt, as the policy answered it before PPO and after."""

    prompt: str
    before: list[Piece]
    after: list[Piece]
    reward_before: float | None
    reward_after: float | None
    scores: list[tuple[str, float | None, float | None]] = field(default_factory=list)

    @property
    def gain(self) -> float | None:
        if self.reward_before is None or self.reward_after is None:
            return None
        return self.reward_after - self.reward_before


def before_after(job: Job, *, limit: int = 12) -> list[BeforeAfter]:
    """Samples of the last step that wrote some, for the same prompts before and after PPO."""
    rows = list(rows_of(run_folder(job) / "samples.jsonl"))
    last = max((_number(row.get("step")) or 0 for row in rows), default=0)
    found: list[BeforeAfter] = []
    for row in rows:
        if (_number(row.get("step")) or 0) != last or len(found) >= limit:
            continue
        before, after = word_diff(_text(row.get("before")), _text(row.get("after")))
        was, now = row.get("scores_before") or {}, row.get("scores_after") or {}
        found.append(
            BeforeAfter(
                last_turn(row.get("messages")),
                before,
                after,
                _number(row.get("reward_before")),
                _number(row.get("reward_after")),
                [(axis, _number(was[axis]), _number(now.get(axis))) for axis in was],
            )
        )
    return found


@dataclass(frozen=True)
class Sample:
    """One held-out answer with what was asked and how it was scored."""

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
    opponent_scores: dict[str, float] = field(default_factory=dict)


def evaluation_samples(job: Job, *, opponent: str = "") -> list[Sample]:
    """Every answer that the evaluation's numbers were computed from, in the file's order.

    With `opponent` ("base", "previous") each comes with that policy's answer of the same index.
    """
    folder = run_folder(job)
    prompts = {
        _text(row.get("prompt_id")): row for row in rows_of(folder / "data" / "prompts.jsonl")
    }
    theirs: dict[tuple[str, float, int], dict[str, Any]] = {}
    if opponent in ("base", "previous"):
        for row in rows_of(folder / "opponents" / f"{opponent}.jsonl"):
            theirs[_place(row)] = row
    found = []
    for row in rows_of(folder / "samples.jsonl"):
        prompt = prompts.get(_text(row.get("prompt_id")), {})
        other = theirs.get(_place(row), {})
        found.append(
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
                opponent_scores=_scores(other),
            )
        )
    return found


def last_turn(messages: Any) -> str:
    """What the user asked last."""
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        return _text(messages[-1].get("content"))
    return ""


def _place(row: dict[str, Any]) -> tuple[str, float, int]:
    return (
        _text(row.get("prompt_id")),
        _number(row.get("temperature")) or 0.0,
        int(_number(row.get("index")) or 0),
    )


def _scores(row: dict[str, Any]) -> dict[str, float]:
    told = row.get("scores")
    if not isinstance(told, dict):
        return {}
    numbers = {str(axis): _number(value) for axis, value in told.items()}
    return {axis: value for axis, value in numbers.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return None


# --- What a stage found -----------------------------------------------------------------------

# stage: (field of result.json, what it is, unit). Figures with intervals have their own tables.
FACTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "base": (
        ("n_parameters", "parameters", ""),
        ("loss", "training loss", "nats per token"),
        ("steps", "steps", ""),
    ),
    "generate": (
        ("n_prompts", "prompts", ""),
        ("n_responses", "responses", ""),
        ("tokens_per_second", "speed", "tokens/s"),
    ),
    "ppo": (
        ("steps", "steps", ""),
        ("stop_reason", "how it ended", ""),
        ("best_step", "best step by the test-RM", ""),
        ("kl", "KL at the end", "nats"),
        ("samples_per_second", "speed", "responses/s"),
    ),
}
REASONS = {
    "steps": "all steps taken",
    "kl_budget": "KL budget spent",
    "tripwire": "tripwire: the test-RM fell",
}


def facts(stage: str, result: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, value, unit) of a stage's result, for reading; what is missing is left out."""
    found = []
    for key, name, unit in FACTS.get(stage, ()):
        value = result.get(key)
        if isinstance(value, str):
            found.append((name, REASONS.get(value, value), unit))
        elif (number := _number(value)) is not None:
            found.append((name, charts.number(number), unit))
    return found


# --- Curves ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """One live chart: `lines` are (metric of metrics.jsonl, name, colour of site.css, dash)."""

    key: str
    title: str
    unit: str
    lines: tuple[tuple[str, str, str, str], ...]
    each_from_one: bool = False
    """Whether the lines were measured one after the other and are laid over one another."""

    @property
    def as_json(self) -> str:
        return json.dumps(
            {"title": self.title, "unit": self.unit, "lines": self.lines, "own": self.each_from_one}
        )


CURVES: dict[str, tuple[Curve, ...]] = {
    "base": (
        Curve(
            "loss",
            "Loss",
            "nats per token",
            (("loss", "training", "accent", ""), ("heldout_loss", "held out", "ink-2", "6 4")),
        ),
        Curve("rate", "Step size", "", (("learning_rate", "learning rate", "accent", ""),)),
    ),
    "reward_model": (
        Curve(
            "loss",
            "Loss",
            "nats per pair",
            (
                ("train_loss", "train-RM", "accent", ""),
                ("test_loss", "test-RM", "ink-2", "6 4"),
            ),
            each_from_one=True,
        ),
        Curve(
            "accuracy",
            "Accuracy on its own batches",
            "share of pairs",
            (
                ("train_accuracy", "train-RM", "accent", ""),
                ("test_accuracy", "test-RM", "ink-2", "6 4"),
            ),
            each_from_one=True,
        ),
    ),
    "ppo": (
        Curve(
            "reward",
            "Reward of the rollout",
            "standard deviations",
            (
                ("reward", "combined", "accent", ""),
                ("helpfulness", "helpfulness", "helpfulness", "6 4"),
                ("safety", "safety", "safety", "2 3"),
            ),
        ),
        Curve(
            "watch",
            "Watch prompts",
            "standard deviations",
            (
                ("watch_reward", "train-RM", "accent", ""),
                ("test_reward", "test-RM (never trains)", "ink-2", "6 4"),
            ),
        ),
        Curve("kl", "KL to the reference", "nats per response", (("kl", "KL", "accent", ""),)),
        Curve("entropy", "Entropy", "nats per token", (("entropy", "entropy", "accent", ""),)),
        Curve("length", "Length", "tokens", (("length", "mean length", "accent", ""),)),
        Curve("value", "Value loss", "", (("value_loss", "value loss", "accent", ""),)),
    ),
}


def curves_of(stage: str, config: dict[str, Any]) -> tuple[Curve, ...]:
    """The curves of a stage, with those that the round's settings bring along: one per rule."""
    curves = CURVES.get(stage, ())
    if stage != "ppo":
        return curves
    settings = config.get("ppo") or {}
    more = []
    for rule in settings.get("rules") or {}:
        line = ((f"rule_{rule}", str(rule).replace("_", " "), "accent", ""),)
        more.append(Curve(f"rule_{rule}", f"Rule: {line[0][1]}", "points per response", line))
    if settings.get("ptx_weight"):
        kept = (("ptx_loss", "loss on what people wrote", "accent", ""),)
        more.append(Curve("ptx", "What is kept likely", "nats per token", kept))
    if settings.get("combine") == "lagrange":
        cost = (("cost", "mean cost", "safety", ""),)
        multiplier = (("multiplier", "multiplier", "accent", ""),)
        more.append(Curve("cost", "Cost", "standard deviations", cost))
        more.append(Curve("multiplier", "Multiplier of the cost", "", multiplier))
    members = (config.get("reward_model") or {}).get("members", 1)
    if isinstance(members, int) and members > 1:
        lines = tuple(
            (f"disagreement_{axis}", axis, axis, dash)
            for axis, dash in (("helpfulness", "6 4"), ("safety", "2 3"))
        )
        more.append(
            Curve("disagreement", "Disagreement of the ensemble", "standard deviations", lines)
        )
    return (*curves, *more)
