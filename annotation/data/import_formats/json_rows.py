"""Rows of JSON Lines, of a JSON array, and of JSON objects over several lines, read as they come."""

import codecs
import io
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from annotation.data.import_formats import limits
from annotation.data.import_formats.fields import parse_json, refuse_constant
from annotation.data.import_formats.limits import MIB
from annotation.data.import_formats.report import FileError, ImportReport, Row, RowError
from annotation.data.import_formats.streams import Stored

BLOCK = 256 * 1024
SPACE = " \t\r\n"
ROW_LISTS = ("rows", "data", "examples", "instances")
"""Keys of one object that holds the rows: a hub's viewer, or a wrapper around them."""
NO_OBJECT = 'a line is one JSON object, such as {"prompt": "…"}.'


def json_rows(file: Stored, report: ImportReport, first: str) -> Iterator[tuple[int, Row]]:
    """Each row with its number; `first` is the first character that is no space."""
    if first == "[":
        report.noun = "Row"
        with file.open() as stream:
            yield from _array(_Text(stream), report)
    elif _has_objects_over_lines(file):
        report.noun = "Row"
        with file.open() as stream:
            yield from _objects(_Text(stream), report)
    else:
        with file.open() as stream:
            yield from _lines(stream, report)


def _lines(stream: BinaryIO, report: ImportReport) -> Iterator[tuple[int, Row]]:
    # Only \n ends a line: a text may contain U+2028 and other characters that str.splitlines splits at.
    number, most = 0, limits.max_row()
    while line := stream.readline(most + 1):
        number += 1
        if len(line) > most:
            _pass_over(stream, line, BLOCK)
            report.n_rows += 1
            report.add_problem(number, f"longer than {_mib(most)}.")
            continue
        if not line.strip():
            continue
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise RowError(NO_OBJECT)
        except RowError as error:
            report.n_rows += 1
            report.add_problem(number, str(error))
            continue
        yield number, row


def _pass_over(stream: BinaryIO, line: bytes, block: int) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(block)


def _has_objects_over_lines(file: Stored) -> bool:
    """Whether the first line is no JSON, and the first lines together are an object."""
    most = limits.max_row()
    with file.open() as stream:
        line = b""
        while not line.strip():
            line = stream.readline(most + 1)
    if len(line) > most:
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.pos < len(line.decode().rstrip()):
            # Two objects in a line, as a file with Mac line ends has them, or a broken line.
            return b"\r{" in line or b"\r\r" in line
    else:
        return False
    with file.open() as stream:
        try:
            value = _Text(stream).value()
        except (ValueError, RecursionError, FileError):
            return False
    return isinstance(value, dict)


def _objects(text: "_Text", report: ImportReport) -> Iterator[tuple[int, Row]]:
    number = 0
    while text.next_character():
        number += 1
        value = _value(text, number, report)
        if value is None:
            return
        rows = next((value[key] for key in ROW_LISTS if isinstance(value.get(key), list)), None)
        if rows is not None and number == 1 and not text.next_character():
            for number, row in enumerate(rows, start=1):
                row = row.get("row", row) if isinstance(row, dict) else {"prompt": row}
                yield number, row
            return
        yield number, value


def _array(text: "_Text", report: ImportReport) -> Iterator[tuple[int, Row]]:
    text.next_character()
    text.position += 1
    number = 0
    while True:
        character = text.next_character()
        if character == "]":
            return
        if character == "," and number:
            text.position += 1
            text.next_character()
        elif not character:
            raise FileError("The file starts with [ and ends within its list; it is not complete.")
        elif number:
            raise FileError(f"The file starts with [ and is not valid JSON after row {number}.")
        number += 1
        try:
            value = text.value()
        except RowError as error:
            if number == 1 and str(error) != text.too_long():
                raise FileError(f"The file starts with [ and is {error}") from error
            report.n_rows += 1
            if text.is_passed:
                report.add_problem(number, str(error))
                continue
            report.add_problem(number, f"{error} What follows it was not read.")
            return
        yield number, value if isinstance(value, dict) else {"prompt": value}


def _value(text: "_Text", number: int, report: ImportReport) -> dict[str, Any] | None:
    try:
        value = text.value()
        if not isinstance(value, dict):
            raise RowError("not a JSON object.")
    except RowError as error:
        report.n_rows += 1
        report.add_problem(number, f"{error} What follows it was not read.")
        return None
    return value


class _Text:
    """JSON values one after another, with no more of the text in memory than one of them needs."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.json = json.JSONDecoder(parse_constant=refuse_constant)
        self.text, self.position, self.is_at_end = "", 0, False
        self.is_passed = False
        """Whether a value that was refused is behind the position, so that the next can be read."""

    def next_character(self) -> str:
        """The next character that is no space, which stays to be read; "" at the end."""
        while True:
            while self.position < len(self.text):
                if self.text[self.position] not in SPACE:
                    return self.text[self.position]
                self.position += 1
            if not self._read_more(BLOCK):
                return ""

    def value(self) -> Any:
        """The JSON value that begins here; RowError if it is none or is too long."""
        self.next_character()
        most = limits.max_row()
        self.is_passed = False
        while True:
            try:
                value, end = self.json.raw_decode(self.text, self.position)
                # A number at the end of what was read may go on.
                if end < len(self.text) or self.is_at_end or isinstance(value, (dict, list, str)):
                    self.is_passed = end - self.position > most
                    self.position = end
                    if self.is_passed:
                        break
                    return value
            except RecursionError as error:
                raise RowError("the JSON is nested too deeply.") from error
            except json.JSONDecodeError as error:
                if self.is_at_end:
                    raise RowError(f"not valid JSON ({error.msg}).") from error
            except ValueError as error:  # NaN, or a number of thousands of digits
                raise RowError(f"not valid JSON ({error}).") from error
            n_pending = len(self.text) - self.position
            if n_pending > most:
                raise RowError(self.too_long())
            self._read_more(max(BLOCK, n_pending))
        raise RowError(self.too_long())

    @staticmethod
    def too_long() -> str:
        return f"not valid JSON, or longer than {_mib(limits.max_row())}."

    def _read_more(self, size: int) -> bool:
        data = self.stream.read(size)
        try:
            more = self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise FileError("The file is not UTF-8; save it as UTF-8.") from error
        self.text, self.position = self.text[self.position :] + more, 0
        self.is_at_end = not data
        return bool(data)


def _mib(size: int) -> str:
    return f"{size / MIB:.3g} MiB"


def first_character(file: Stored) -> str:
    """The first character of a text that is no space; FileError if there is none."""
    with file.open() as stream:
        while block := stream.read(io.DEFAULT_BUFFER_SIZE):
            if stripped := block.strip():
                return chr(stripped[0])
    raise FileError("The file is empty.")
