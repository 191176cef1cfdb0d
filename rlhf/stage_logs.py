"""The whole log of a round's stage: every attempt of every job, searched and downloaded line by line.

Lines are as `rlhf/training/rundir/log.py` writes them; what a program printed without a time is kept
as it is. A log may be large or hold anything: it is read line by line, and a line is cut at LINE_CHARS.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhf.models import Job, Round
from rlhf.run_folders import kept_log
from rlhf.run_reports import CONTROL
from rlhf.training import rundir

SHOWN = 1000
LINE_CHARS = 4000
STAMPED = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (DEBUG|INFO|WARNING|ERROR|CRITICAL) +(.*)", re.DOTALL
)
LEVELS = ("INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class LogLine:
    """One line; `time` and `level` are "" where the program printed it without them."""

    attempt: int
    time: str
    level: str
    text: str

    @property
    def is_remarkable(self) -> bool:
        """Whether the line is a warning or worse."""
        return self.level not in ("", "DEBUG", "INFO")


@dataclass(frozen=True)
class Found:
    """The last SHOWN lines that match, and how many there are."""

    lines: list[LogLine]
    matching: int
    total: int

    @property
    def left_out(self) -> int:
        """How many earlier matching lines are not shown."""
        return self.matching - len(self.lines)


def log_files(round: Round, stage: str) -> list[Path]:
    """The logs of a stage's attempts, oldest first; those that exist."""
    files = []
    for job in Job.objects.filter(round=round, stage=stage).order_by("pk"):
        for epoch in range(1, job.epoch + 1):
            claim = job.run_dir.with_name(str(epoch))
            places = (claim / rundir.LOG, kept_log(claim))
            files += [place for place in places if place.is_file()][:1]
    return files


def raw_lines(files: list[Path]) -> Iterator[tuple[int, str]]:
    """(number of the attempt, line without control characters) of several logs."""
    for attempt, path in enumerate(files, start=1):
        try:
            file = path.open(encoding="utf-8", errors="replace", newline="\n")
        except OSError:
            continue  # pruned in between
        with file:
            while line := file.readline(LINE_CHARS):
                # A progress bar rewrites its line with carriage returns; only its last state counts.
                yield attempt, CONTROL.sub("", line.rstrip("\r\n").rsplit("\r", 1)[-1])


def search_log(files: list[Path], words: str = "", level: str = "") -> Found:
    """The lines that hold all of the words (in any case) and have at least the level."""
    wanted = words.lower().split()
    levels = LEVELS[LEVELS.index(level) :] if level in LEVELS else ()
    lines: deque[LogLine] = deque(maxlen=SHOWN)
    matching = total = 0
    for attempt, text in raw_lines(files):
        total += 1
        line = _parsed(attempt, text)
        if levels and line.level not in (*levels, "CRITICAL"):
            continue
        if all(word in text.lower() for word in wanted):
            matching += 1
            lines.append(line)
    return Found(list(lines), matching, total)


def _parsed(attempt: int, text: str) -> LogLine:
    match = STAMPED.fullmatch(text)
    if match is None:
        return LogLine(attempt, "", "", text)
    return LogLine(attempt, *match.groups())
