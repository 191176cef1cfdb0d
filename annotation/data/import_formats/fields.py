"""Single values of a row, checked: texts, labels, numbers, JSON, and the names of columns."""

import json
import math
import unicodedata
from typing import Any, NoReturn

from annotation.data.import_formats.report import RowError

MAX_TEXT = 2**20  # characters in one message or response

TEXT_KEYS = ("prompt", "text", "question", "instruction")
# What may stand in a column of its own and belongs to the prompt.
CONTEXT_KEYS = ("system", "history", "input", "context")
ID_KEYS = ("prompt_id", "question_id", "message_tree_id", "external_id", "uid", "id")
SPLITS = {
    "": "",
    "train": "train",
    "eval": "eval",
    "watch": "eval",
    "validation": "eval",
    "dev": "eval",
    "heldout": "heldout",
    "held out": "heldout",
    "held-out": "heldout",
    "test": "heldout",
}


def parse_json(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_constant=refuse_constant)
    except RecursionError as error:
        raise RowError("the JSON is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise RowError(f"not valid JSON ({error.msg}, column {error.colno}).") from error
    except UnicodeDecodeError as error:
        raise RowError("not UTF-8; save the file as UTF-8.") from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise RowError(f"not valid JSON ({error}).") from error


def refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def checked_text(value: Any, what: str, *, may_be_empty: bool = False) -> str:
    """A string that every database can store, not longer than MAX_TEXT."""
    require(value, what)
    if not isinstance(value, str):
        raise RowError(f"{what} is not text.")
    if not may_be_empty and not value.strip():
        raise RowError(f"{what} is empty.")
    if len(value) > MAX_TEXT:
        raise RowError(f"{what} is {len(value):,} characters long; the limit is {MAX_TEXT:,}.")
    if "\0" in value:
        raise RowError(f"{what} contains a NUL character (U+0000), which cannot be stored.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{what} contains half of a surrogate pair, which is not text.") from None
    return value


def require(value: Any, what: str) -> None:
    # A missing key is reported as missing, not as a value of the wrong type.
    if value is None:
        raise RowError(f"{what} is missing.")


def label(value: Any, what: str, limit: int) -> str:
    """A short word such as a category; "" if it is missing."""
    if value is None:
        return ""
    if not isinstance(value, (str, int)):
        raise RowError(f"{what} is not a word.")
    text = checked_text(str(value), what, may_be_empty=True).strip()
    if len(text) > limit:
        raise RowError(f"{what} is longer than {limit} characters.")
    return text


def whole_number(value: Any) -> int | None:
    """The number if it is whole (1.0, as pandas writes a nullable column, is 1), else None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def look_the_same(first: str, second: str) -> bool:
    """Whether two texts differ in line ends, white space or Unicode form only; indentation counts."""
    if first.isascii() and second.isascii() and first.split() != second.split():
        return False  # the quick answer for nearly all pairs
    return first == second or _visible(first) == _visible(second)


def _visible(text: str) -> list[str]:
    lines = unicodedata.normalize("NFC", text).strip().splitlines()
    return [line[: len(line) - len(line.lstrip())] + " ".join(line.split()) for line in lines]


def split(value: Any) -> str:
    name = label(value, "split", 12).lower()
    if name not in SPLITS:
        raise RowError(f"split is train, watch or heldout, not {name!r}.")
    return SPLITS[name]


def priority(value: Any) -> float:
    """A number, as JSON gives it or as a CSV file spells it."""
    if value in (None, ""):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise RowError("priority is not a number.")
    return number
