"""The log of a stage: every line has its time (UTC) and level, on the terminal and in `log.txt`.

    2026-11-30T17:41:03Z INFO    generate: started, process 4711 on lab-3
    2026-11-30T17:41:09Z WARNING left out: Prompt p17 has 812 tokens, 600 fit

A stage says what it does through `info` and `warning`; what libraries log, warn of or raise gets the
same form from `stamp_libraries`.
"""

import logging
import platform
import sys
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlhf.training.rundir import LOG

VERSIONS = ("torch", "transformers")


def stamped(message: str, level: str = "INFO", at: datetime | None = None) -> str:
    """The message as lines of the log, each with time and level, and with a line feed at its end."""
    time = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    lines = message.rstrip().split("\n") or [""]
    return "".join(f"{time} {level:<7} {line}\n" for line in lines)


def info(message: str) -> None:
    """Say what the stage does."""
    print(stamped(message), end="", flush=True)


def warning(message: str) -> None:
    """Say what a person should know of, though the stage goes on."""
    print(stamped(message, "WARNING"), end="", flush=True)


def error(message: str) -> None:
    """Say why the stage ends without a result."""
    print(stamped(message, "ERROR"), end="", file=sys.stderr, flush=True)


def append(run_dir: Path, message: str, level: str = "INFO") -> None:
    """Append to a run folder's log from outside of the stage's process."""
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / LOG).open("a", encoding="utf-8", errors="replace") as file:
        file.write(stamped(message, level))


def stamp_libraries() -> None:
    """Give what libraries log, warn of and raise the log's form; for the process of a stage."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Stamped())
    handler.terminator = ""
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    warnings.simplefilter("default")
    logging.captureWarnings(capture=True)


class _Stamped(logging.Formatter):
    """A record of Python's logging as lines of the log."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, tz=UTC)
        return stamped(f"{record.name}: {super().format(record)}", record.levelname, at)


def process_in_words(process_id: int) -> str:
    """`process 4711 on lab-3, Python 3.11.2, torch 2.13.0`: what the stage runs in."""
    parts = [f"process {process_id} on {platform.node()}", f"Python {platform.python_version()}"]
    for package in VERSIONS:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(parts)


def numbers_in_words(values: Mapping[str, Any], *, limit: int = 12) -> str:
    """`steps 14, kl 7.8`: the plain numbers and short texts of a result."""
    shown = []
    for name, value in values.items():
        if isinstance(value, bool) or value is None:
            continue
        if isinstance(value, int):
            shown.append(f"{name} {value:,}")
        elif isinstance(value, float):
            shown.append(f"{name} {value:.4g}")
        elif isinstance(value, str) and 0 < len(value) <= 40:
            shown.append(f"{name} {value}")
    return ", ".join(shown[:limit])
