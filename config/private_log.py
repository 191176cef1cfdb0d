"""Log lines without people's words: what failed and where, not with which text.

An exception's message may hold what somebody wrote: PostgreSQL quotes the whole row that it refused. So
tracebacks have files, lines and code, and of each exception its type alone. Links that work like a
password (invitations, new passwords) are cut out of addresses. LOG_WORDS=1 shows messages all the same;
it is the default where nobody but this machine reaches the product.
"""

import logging
import re
import traceback
from types import TracebackType

Failure = tuple[type[BaseException], BaseException, TracebackType | None]

SECRET_LINKS = re.compile(r"(/invitations/|/reset/key/|/confirm-email/)[^/\s\"]+")
WITHHELD = "(message withheld; LOG_WORDS=1 shows it)"


class PrivateLines(logging.Formatter):
    """Formats like logging's own, without messages of exceptions and without links that let in."""

    def formatException(self, ei: "Failure | tuple[None, None, None]") -> str:
        error = ei[1]
        return "\n".join(_told(error, set())) if error is not None else ""

    def format(self, record: logging.LogRecord) -> str:
        record.exc_text = None  # another handler may have put the whole message there
        text = super().format(record)
        record.exc_text = None
        return SECRET_LINKS.sub(r"\1…", text)


class Lines(logging.Formatter):
    """With the messages, without links that let in."""

    def format(self, record: logging.LogRecord) -> str:
        return SECRET_LINKS.sub(r"\1…", super().format(record))


def _told(error: BaseException, seen: set[int]) -> list[str]:
    """The chain of exceptions, oldest first, each with its frames."""
    seen.add(id(error))
    lines = []
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        lines = [*_told(before, seen), "", "which led to:", ""]
    lines.append("Traceback (most recent call last):")
    frames = traceback.extract_tb(error.__traceback__)
    lines += [line.rstrip("\n") for line in traceback.format_list(frames)]
    kind = type(error)
    lines.append(f"{kind.__module__}.{kind.__qualname__}: {WITHHELD}")
    return lines
