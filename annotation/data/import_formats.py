"""Files that other people made, read into checked prompts and comparisons; nothing is written.

Bytes become rows, rows become items by one function per format (the tables PROMPT_FORMATS and
COMPARISON_FORMATS), and what is wrong becomes a list of problems with line numbers.
"""

import csv
import gzip
import hashlib
import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from annotation.models import MAX_RESPONSES, Batch, Message, Prompt, Source, content_hash

MIB = 2**20
MAX_FILE = 64 * MIB
MAX_UNPACKED = 128 * MIB
MAX_GZIP_RATIO = 100
MAX_ROWS = 200_000
MAX_TEXT = MIB  # characters in one message or response
MAX_MESSAGES = 200
SHOWN_PROBLEMS = 50

# One limit for the whole process: two files may be read at the same moment.
csv.field_size_limit(MAX_TEXT + 1)

Row = dict[str, Any]


class BadRow(ValueError):
    """What is wrong with one row; the message is shown beside its line number."""


class LeftOut(Exception):
    """The row is in order and has nothing to import; counted under its message."""


@dataclass(frozen=True)
class Problem:
    """One thing that keeps a file from being imported; `line` is None when it is the whole file."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.line is None else f"Line {self.line}: {self.reason}"


@dataclass(frozen=True)
class PromptItem:
    """One checked prompt."""

    messages: list[Message]
    sha256: str
    category: str = ""
    risk: str = ""
    split: str = ""
    external_id: str = ""
    skill: str = ""
    priority: float = 0.0

    @property
    def text(self) -> str:
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class ComparisonItem:
    """One checked comparison: a prompt, its responses as (text, source), dense ranks per axis.

    `rest_below`: what has no rank is below all that have (a top-k ranking).
    """

    prompt: PromptItem
    responses: list[tuple[str, str]]
    ranks: dict[str, list[int | None]]
    rest_below: bool = False

    def digest(self) -> str:
        """The same prompt, responses and ranks are the same comparison, in whatever order."""
        answers = sorted(
            [text, *((axis, given[index]) for axis, given in sorted(self.ranks.items()))]
            for index, (text, _) in enumerate(self.responses)
        )
        told = json.dumps([self.prompt.sha256, answers, *(["below"] if self.rest_below else [])])
        return hashlib.sha256(told.encode()).hexdigest()


@dataclass
class ImportReport:
    """What a file holds, what is wrong with it, and what was written."""

    format: str = ""
    n_rows: int = 0
    n_imported: int = 0
    n_duplicates: int = 0
    n_problems: int = 0
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    sha256: str = ""
    seconds: float = 0.0
    source: Source | None = None
    batches: list[Batch] = field(default_factory=list)
    examples: list[Any] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.n_problems

    @property
    def format_name(self) -> str:
        return FORMAT_NAMES.get(self.format, self.format)

    @property
    def remarks(self) -> list[tuple[int, str]]:
        """What was left out and what to know, each with how often."""
        left_out = [(n, f"left out: {why}") for why, n in self.left_out.items()]
        return left_out + [(n, note) for note, n in self.notes.items()]

    def add(self, line: int | None, reason: str) -> None:
        self.n_problems += 1
        if len(self.problems) < SHOWN_PROBLEMS:
            self.problems.append(Problem(line, reason))


# --- Bytes to rows ----------------------------------------------------------------------------------


class _Refused(Exception):
    """The whole file cannot be read; the message says why."""


def _load(file: Path | BinaryIO) -> tuple[bytes, str]:
    """The file's bytes, unpacked if need be, and the SHA-256 of what was given."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE + 1)
    else:
        file.seek(0)
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise _Refused(f"The file is larger than {MAX_FILE // MIB} MiB; split it into parts.")
    sha256 = hashlib.sha256(data).hexdigest()
    if data.startswith(b"\x1f\x8b"):
        data = _unpack(data)
    if data.startswith(b"PK\x03\x04"):
        raise _Refused("This is a zip or spreadsheet file; save it as CSV (UTF-8) or JSON Lines.")
    if data.startswith(b"PAR1"):
        raise _Refused("This is a Parquet file; save it as JSON Lines.")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Excel calls "Unicode text"
        try:
            data = data.decode("utf-16").encode()
        except UnicodeError as error:
            raise _Refused("The file begins like UTF-16 and is not; save it as UTF-8.") from error
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise _Refused("The file is empty.")
    return data, sha256


def _unpack(packed: bytes) -> bytes:
    """Gzip, read a little at a time: a bomb is refused before it fills the memory."""
    allowed = min(MAX_UNPACKED, max(MIB, len(packed) * MAX_GZIP_RATIO))
    chunks, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            while chunk := file.read(MIB):
                size += len(chunk)
                if size > allowed:
                    raise _Refused(
                        f"The file unpacks to more than {allowed // MIB} MiB from "
                        f"{len(packed) / MIB:.1f} MiB; unpack it and split it into parts."
                    )
                chunks.append(chunk)
    except (OSError, EOFError, zlib.error) as error:
        raise _Refused("The gzip file is damaged; pack it again.") from error
    return b"".join(chunks)


def _rows(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Each row with the line it begins on; what cannot be read goes to the report's problems."""
    first = data.lstrip()[:1]
    if first == b"[":
        yield from _json_array(data)
    elif first in (b"{",):
        yield from _json_lines(data, report)
    else:
        yield from _csv_rows(data, report)


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError as error:
        raise BadRow("the JSON is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise BadRow(f"not valid JSON ({error.msg}, column {error.colno}).") from error
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8; save the file as UTF-8.") from error
    except ValueError as error:  # NaN, or a number of thousands of digits
        raise BadRow(f"not valid JSON ({error}).") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _json_lines(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    # Only \n ends a line: a text may hold U+2028 and other things that str.splitlines takes for ends.
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
            if not isinstance(row, dict):
                raise BadRow('a line holds one JSON object, such as {"prompt": "…"}.')
        except BadRow as bad:
            report.n_rows += 1
            report.add(number, str(bad))
            continue
        yield number, row


def _json_array(data: bytes) -> Iterator[tuple[int, Row]]:
    try:
        rows = _parse(data)
    except BadRow as bad:
        raise _Refused(f"The file begins with [ and is {bad}") from bad
    for number, row in enumerate(rows, start=1):
        yield number, row if isinstance(row, dict) else {"prompt": row}


def _csv_rows(data: bytes, report: ImportReport) -> Iterator[tuple[int, Row]]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Refused(
            f"Line {line} is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)."
        ) from error
    header_line = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] = []
    begins = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Where quotes are out of step, everything after this point would be guesswork.
            report.n_rows += 1
            report.add(begins, f"not valid CSV ({error}); check the quotes from here on.")
            return
        number, begins = begins, reader.line_num + 1
        if not any(cell.strip() for cell in cells):
            continue
        if not header:
            header = [cell.strip().lower() for cell in cells]
            if not set(header) & KNOWN_COLUMNS:
                raise _Refused(
                    "The first line names no known column; name the column of prompts "
                    '"prompt" (others: category, risk, split, skill, priority, id), or use JSON Lines.'
                )
            continue
        if len(cells) != len(header):
            report.n_rows += 1
            report.add(number, f"{len(cells)} cells, but the header names {len(header)}.")
            continue
        yield number, dict(zip(header, cells, strict=True))


# --- Rows to messages ---------------------------------------------------------------------------------

ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \t]?")
TEXT_KEYS = ("prompt", "text", "question", "instruction")
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
KNOWN_COLUMNS = {
    *TEXT_KEYS,
    *ID_KEYS,
    "chosen",
    "rejected",
    "messages",
    "category",
    "risk",
    "split",
    "skill",
    "priority",
}


def _text(value: Any, what: str, *, may_be_empty: bool = False) -> str:
    """A string that every database can keep, not longer than MAX_TEXT."""
    _must_be_there(value, what)
    if not isinstance(value, str):
        raise BadRow(f"{what} is not a text.")
    if not may_be_empty and not value.strip():
        raise BadRow(f"{what} is empty.")
    if len(value) > MAX_TEXT:
        raise BadRow(f"{what} is {len(value):,} characters long; {MAX_TEXT:,} is the most.")
    if "\0" in value:
        raise BadRow(f"{what} holds a NUL character (U+0000), which cannot be stored.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{what} holds half of a surrogate pair, which is not text.") from None
    return value


def _must_be_there(value: Any, what: str) -> None:
    # A key that is misspelt is not a text that is of the wrong kind.
    if value is None:
        raise BadRow(f"{what} is missing.")


def _messages(value: Any, what: str) -> list[Message]:
    """A checked message list; roles by their usual names."""
    _must_be_there(value, what)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{what} is not a list of messages.")
    if len(value) > MAX_MESSAGES:
        raise BadRow(f"{what} has {len(value)} messages; {MAX_MESSAGES} is the most.")
    messages: list[Message] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise BadRow(f"message {number} of {what} is not an object with role and content.")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            raise BadRow(f"message {number} of {what} has no role user, assistant or system.")
        content = message.get("content")
        if isinstance(content, list):  # parts, as in multimodal data
            content = _joined_parts(content, number, what)
        text = _text(content, f"the content of message {number} of {what}", may_be_empty=True)
        messages.append({"role": ROLES[role], "content": text})
    return messages


def _joined_parts(parts: list[Any], number: int, what: str) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise BadRow(f"message {number} of {what} holds something that is not text.")
    return "".join(str(part.get("text", "")) for part in parts)


def _until_user(messages: list[Message]) -> list[Message]:
    """The conversation up to the last thing the user said, which may not be empty."""
    end = len(messages)
    while end and messages[end - 1]["role"] != "user":
        end -= 1
    if not end:
        raise BadRow("the user says nothing.")
    if not messages[end - 1]["content"].strip():
        raise BadRow("the last thing the user says is empty.")
    return messages[:end]


def _transcript(value: Any, what: str) -> list[Message]:
    r"""Turns of Anthropic's `\n\nHuman: … \n\nAssistant: …` transcripts."""
    text = _text(value, what)
    pieces = TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise BadRow(f'{what} is not a transcript: it does not begin with "Human:".')
    return [
        {"role": ROLES[who.lower()], "content": said.strip()}
        for who, said in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def _item(row: Row, messages: list[Message], report: ImportReport) -> PromptItem:
    """The prompt with what the row says about it."""
    if len(messages) > MAX_MESSAGES:
        raise BadRow(f"the conversation has {len(messages)} messages; {MAX_MESSAGES} is the most.")
    category = _label(row.get("category"), "category", 60)
    risk = _label(row.get("risk"), "risk", 8).lower()
    if risk not in Prompt.Risk.values:
        raise BadRow(f"risk is harmless, harmful or empty, not {risk!r}.")
    split = _label(row.get("split"), "split", 12).lower()
    if split not in SPLITS:
        raise BadRow(f"split is train, watch or heldout, not {split!r}.")
    external = next((row[key] for key in ID_KEYS if row.get(key) not in (None, "")), "")
    prompt = _until_user(messages)
    if len(prompt) < len(messages):
        report.notes["an answer after the user's last turn was not taken as part of a prompt"] += 1
    return PromptItem(
        messages=prompt,
        sha256=content_hash(prompt),
        category=category,
        risk=risk,
        split=SPLITS[split],
        external_id=_text(str(external), "the id", may_be_empty=True)[:120],
        skill=_label(row.get("skill"), "skill", 40).lower(),
        priority=_priority(row.get("priority")),
    )


def _priority(value: Any) -> float:
    """A number, as JSON gives it or as a CSV file spells it."""
    if value in (None, ""):
        return 0.0
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise BadRow("priority is not a number.")
    return number


def _label(value: Any, what: str, limit: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, (str, int)):
        raise BadRow(f"{what} is not a word.")
    text = _text(str(value), what, may_be_empty=True).strip()
    if len(text) > limit:
        raise BadRow(f"{what} is longer than {limit} characters.")
    return text


# --- Prompt formats -------------------------------------------------------------------------------------


def _plain_prompt(row: Row, report: ImportReport) -> PromptItem:
    key = next((key for key in TEXT_KEYS if key in row), "prompt")
    text = _text(row.get(key), key)
    return _item(row, [{"role": "user", "content": text}], report)


def _conversation_prompt(row: Row, report: ImportReport) -> PromptItem:
    key = "messages" if "messages" in row else "prompt"
    value = row.get(key)
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell
        value = _parse(value)
    return _item(row, _messages(value, key), report)


def _transcript_prompt(row: Row, report: ImportReport) -> PromptItem:
    if isinstance(row.get("prompt"), str):
        return _item(row, _until_user(_transcript(row["prompt"], "prompt")), report)
    chosen = _transcript(row.get("chosen"), "chosen")
    rejected = _transcript(row.get("rejected"), "rejected")
    return _item(row, _until_user(_common(chosen, rejected)), report)


def _instruction_prompt(row: Row, report: ImportReport) -> PromptItem:
    instruction = _text(row.get("instruction"), "instruction")
    given = row.get("input") or ""
    instances = row.get("instances")
    if not given and isinstance(instances, list) and instances and isinstance(instances[0], dict):
        given = instances[0].get("input") or ""
    given = _text(given, "input", may_be_empty=True)
    text = f"{instruction}\n\n{given}" if given.strip() else instruction
    return _item(row, [{"role": "user", "content": _text(text, "the prompt")}], report)


def _turns_prompt(row: Row, report: ImportReport) -> PromptItem:
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        raise BadRow("turns is not a list of texts.")
    if len(turns) > 1:
        report.notes["of several turns only the first was taken, as later ones need an answer"] += 1
    return _item(row, [{"role": "user", "content": _text(turns[0], "the first turn")}], report)


def _tree_prompt(row: Row, report: ImportReport) -> PromptItem:
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise BadRow("prompt is not the root of a message tree.")
    return _item(row, [{"role": "user", "content": _text(root.get("text"), "prompt")}], report)


PROMPT_FORMATS: dict[str, Callable[[Row, ImportReport], PromptItem]] = {
    "plain": _plain_prompt,
    "conversation": _conversation_prompt,
    "transcript": _transcript_prompt,
    "instructions": _instruction_prompt,
    "turns": _turns_prompt,
    "tree": _tree_prompt,
}


def _common(one: list[Message], other: list[Message]) -> list[Message]:
    """The turns that two conversations share from the beginning."""
    shared = []
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        shared.append(a)
    return shared


# --- Comparison formats ----------------------------------------------------------------------------------


def _transcript_pair(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    if isinstance(row.get("prompt"), str):
        prompt = _until_user(_transcript(row["prompt"], "prompt"))
        chosen = _text(row.get("chosen"), "chosen", may_be_empty=True).strip()
        rejected = _text(row.get("rejected"), "rejected", may_be_empty=True).strip()
    else:
        prompt, chosen, rejected = _split_pair(
            _transcript(row.get("chosen"), "chosen"), _transcript(row.get("rejected"), "rejected")
        )
    yield _pair(row, prompt, chosen, rejected, axis, report)


def _trl_pair(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    prompt, chosen, rejected = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if prompt is None:  # TRL's implicit prompt: what both conversations begin with
        before, one, other = _split_pair(
            _messages(chosen, "chosen"), _messages(rejected, "rejected")
        )
        yield _pair(row, before, one, other, axis, report)
        return
    if isinstance(prompt, str):
        before = [Message(role="user", content=_text(prompt, "prompt"))]
    else:
        before = _messages(prompt, "prompt")
    yield _pair(row, before, _answer(chosen, "chosen"), _answer(rejected, "rejected"), axis, report)


def _answer(value: Any, what: str) -> str:
    if isinstance(value, str):
        return _text(value, what, may_be_empty=True)
    messages = _messages(value, what)
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise BadRow(f"{what} is not one message of the assistant.")
    return messages[0]["content"]


def _split_pair(one: list[Message], other: list[Message]) -> tuple[list[Message], str, str]:
    """The shared conversation and the two last answers."""
    before = _common(one, other)
    if one == other:
        raise LeftOut("both answers are the same")
    tails = (one[len(before) :], other[len(before) :])
    if not all(len(tail) == 1 and tail[0]["role"] == "assistant" for tail in tails):
        raise LeftOut("the two conversations part before the last answer")
    return before, tails[0][0]["content"], tails[1][0]["content"]


def _pair(
    row: Row, prompt: list[Message], chosen: str, rejected: str, axis: str, report: ImportReport
) -> ComparisonItem:
    if chosen == rejected:
        raise LeftOut("both answers are the same")
    if prompt and prompt[-1]["role"] != "user":
        raise BadRow("the prompt does not end with the user's turn.")
    for text in (chosen, rejected):
        if not text.strip():
            report.notes["an answer is empty; it was kept, as a model may say nothing"] += 1
    item = _item(row, prompt, report)
    return ComparisonItem(item, [(chosen, ""), (rejected, "")], {axis: [1, 2]})


def _tree(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    """Every place in an OpenAssistant tree where two or more replies carry a rank (0 is best)."""
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise BadRow("prompt is not the root of a message tree.")
    waiting: list[tuple[dict[str, Any], list[Message]]] = [(root, [])]
    found = False
    while waiting:
        node, before = waiting.pop(0)
        role = ROLES.get(str(node.get("role")))
        if role is None:
            raise BadRow("a message in the tree has no role prompter or assistant.")
        said = _text(node.get("text"), "a message in the tree", may_be_empty=True)
        messages: list[Message] = [*before, {"role": role, "content": said}]
        if len(messages) > MAX_MESSAGES:
            raise BadRow(f"the tree is more than {MAX_MESSAGES} messages deep.")
        replies = node.get("replies") or []
        if not isinstance(replies, list) or not all(isinstance(r, dict) for r in replies):
            raise BadRow("replies is not a list of messages.")
        replies = [reply for reply in replies if not reply.get("deleted")]
        waiting += [(reply, messages) for reply in replies]
        if role == "user":
            comparison = _ranked_replies(row, messages, replies, axis, report)
            if comparison:
                found = True
                yield comparison
    if not found:
        raise LeftOut("a tree without ranked replies")


def _ranked_replies(
    row: Row,
    messages: list[Message],
    replies: list[dict[str, Any]],
    axis: str,
    report: ImportReport,
) -> ComparisonItem | None:
    ranked = [reply for reply in replies if reply.get("rank") is not None]
    if any(type(reply["rank"]) is not int for reply in ranked):
        raise BadRow("a rank is not a whole number.")
    if len(ranked) < len(replies) and ranked:
        report.notes["a reply without a rank was left out"] += len(replies) - len(ranked)
    by_text: dict[str, dict[str, Any]] = {}
    for reply in sorted(ranked, key=lambda reply: reply["rank"]):
        text = _text(reply.get("text"), "a reply", may_be_empty=True)
        if text in by_text:
            report.notes["a reply with the same text as a better one was left out"] += 1
        by_text.setdefault(text, reply)
    if len(by_text) > MAX_RESPONSES:
        report.notes[f"only the best {MAX_RESPONSES} replies were kept"] += 1
    kept = list(by_text.items())[:MAX_RESPONSES]
    if len(kept) < 2:
        return None
    item = _item({key: row[key] for key in ("message_tree_id",) if key in row}, messages, report)
    responses = [(text, str(reply.get("model_name") or "")[:80]) for text, reply in kept]
    return ComparisonItem(item, responses, {axis: _dense([reply["rank"] for _, reply in kept])})


def _dense(ranks: Sequence[int | None]) -> list[int | None]:
    """1, 2, 2, 3 for any numbers in that order: as judging stores them."""
    places = sorted({rank for rank in ranks if rank is not None})
    return [None if rank is None else places.index(rank) + 1 for rank in ranks]


def _ranking(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    """A line of `preferences.jsonl` in docs/formats.md: K responses with ranks per axis."""
    responses = row.get("responses")
    ranks = row.get("ranks")
    rest_below = row.get("unranked") == "below"
    if not isinstance(responses, list) or not 2 <= len(responses) <= MAX_RESPONSES:
        raise BadRow(f"responses is not a list of 2 to {MAX_RESPONSES} texts.")
    texts = [_text(text, "a response", may_be_empty=True) for text in responses]
    if len(set(texts)) < len(texts):
        raise BadRow("two responses are the same text.")
    if isinstance(ranks, list):
        ranks = {axis: ranks}
    if not isinstance(ranks, dict):
        raise BadRow("ranks maps each axis to one rank per response.")
    checked = {}
    for name, given in ranks.items():
        if given is None:
            continue
        if not isinstance(given, list) or len(given) != len(texts):
            raise BadRow(f"ranks.{name} does not hold one rank for each of the responses.")
        if any(rank is not None and (type(rank) is not int or rank < 1) for rank in given):
            raise BadRow(f"ranks.{name} holds something that is not a whole number from 1 or null.")
        if sum(rank is not None for rank in given) >= (1 if rest_below else 2):
            checked[str(name)] = _dense(given)
    if not checked:
        raise LeftOut("nothing is ranked")
    messages = _messages(row.get("messages", row.get("prompt")), "messages")
    item = _item(row, messages, report)
    yield ComparisonItem(item, [(text, "") for text in texts], checked, rest_below)


UNJUDGED_KEYS = {
    "prompt",
    "messages",
    "responses",
    "category",
    "risk",
    "split",
    "skill",
    "priority",
}
MAX_SAMPLING = 2_000


@dataclass(frozen=True)
class GivenResponse:
    """A response to be judged, with what its writer says of it and annotators never see."""

    text: str
    source: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)


def unjudged(
    row: Row, report: ImportReport, *, fewest: int, most: int
) -> tuple[PromptItem, list[GivenResponse]]:
    """A prompt with `fewest` to `most` responses that people shall judge; BadRow says what is wrong."""
    if unknown := sorted(set(row) - UNJUDGED_KEYS - set(ID_KEYS)):
        raise BadRow(f"there is no field “{str(unknown[0])[:40]}”.")
    if ("messages" in row) == ("prompt" in row):
        raise BadRow("give a prompt or messages, one of them.")
    read = _plain_prompt if isinstance(row.get("prompt"), str) else _conversation_prompt
    given = row.get("responses", [])
    if not isinstance(given, list) or not fewest <= len(given) <= most:
        wanted = f"{fewest} to {most}" if fewest < most else f"exactly {most}" if most else "no"
        raise BadRow(f"responses must be a list of {wanted} texts.")
    responses = [_given_response(value, number) for number, value in enumerate(given, start=1)]
    if len(responses) > 1 and len({response.text for response in responses}) == 1:
        raise BadRow("all responses are the same text, so there is nothing to judge.")
    return read(row, report), responses


def _given_response(value: Any, number: int) -> GivenResponse:
    what = f"response {number}"
    if isinstance(value, str):
        return GivenResponse(_text(value, what, may_be_empty=True))
    if not isinstance(value, dict) or set(value) - {"text", "source", "sampling"}:
        raise BadRow(f"{what} is a text, or an object with text, source and sampling.")
    sampling = value.get("sampling", {})
    if not isinstance(sampling, dict) or len(json.dumps(sampling)) > MAX_SAMPLING:
        raise BadRow(f"sampling of {what} is an object of at most {MAX_SAMPLING:,} characters.")
    return GivenResponse(
        _text(value.get("text"), what, may_be_empty=True),
        _label(value.get("source"), f"source of {what}", 200),
        sampling,
    )


COMPARISON_FORMATS: dict[str, Callable[[Row, str, ImportReport], Iterable[ComparisonItem]]] = {
    "transcript": _transcript_pair,
    "trl": _trl_pair,
    "tree": _tree,
    "ranking": _ranking,
}

FORMAT_NAMES = {
    "plain": "one prompt a row",
    "conversation": "conversations (messages with roles)",
    "transcript": "Human/Assistant transcripts (HH-RLHF)",
    "instructions": "instructions with an optional input",
    "turns": "questions with turns (MT-Bench)",
    "tree": "message trees (OpenAssistant)",
    "trl": "prompt, chosen, rejected (TRL)",
    "ranking": "rankings of several responses",
}


def detect_prompts(row: Row) -> str:
    """Which of PROMPT_FORMATS this row is in; BadRow when none."""
    prompt = row.get("prompt")
    if isinstance(prompt, dict) and "text" in prompt:
        return "tree"
    if "messages" in row or isinstance(prompt, list):
        return "conversation"
    if isinstance(prompt, str):
        is_transcript = TURN.match(prompt) and ("chosen" in row or "\n\nAssistant:" in prompt)
        return "transcript" if is_transcript else "plain"
    if isinstance(row.get("chosen"), str) and "rejected" in row:
        return "transcript"
    if "turns" in row:
        return "turns"
    if "instruction" in row and ("input" in row or "instances" in row):
        return "instructions"
    if any(isinstance(row.get(key), str) for key in TEXT_KEYS):
        return "plain"
    raise BadRow(f"no prompt was found; the row has {_keys(row)}.")


def detect_comparisons(row: Row) -> str:
    """Which of COMPARISON_FORMATS this row is in; BadRow when none."""
    prompt = row.get("prompt")
    if "responses" in row and "ranks" in row:
        return "ranking"
    if isinstance(prompt, dict) and "replies" in prompt:
        return "tree"
    if "chosen" in row and "rejected" in row:
        told = prompt if isinstance(prompt, str) else row["chosen"] if prompt is None else None
        return "transcript" if isinstance(told, str) and TURN.match(told) else "trl"
    raise BadRow(f"no comparison was found; the row has {_keys(row)}.")


def _keys(row: Row) -> str:
    names = ", ".join(repr(str(key)[:30]) for key in list(row)[:8])
    return names or "no fields"


# --- Reading a whole file -----------------------------------------------------------------------------------


def read_prompts(
    file: Path | BinaryIO, *, format: str = "auto"
) -> tuple[list[PromptItem], ImportReport]:
    """Every prompt in the file, each once, and what is wrong; nothing is written."""
    items: dict[str, PromptItem] = {}

    def take(row: Row, chosen: str, report: ImportReport) -> None:
        item = PROMPT_FORMATS[chosen](row, report)
        if item.sha256 in items:
            report.n_duplicates += 1
        items.setdefault(item.sha256, item)

    report = _read(file, format, PROMPT_FORMATS, detect_prompts, take)
    report.examples = list(items.values())[:5]
    return list(items.values()), report


def read_comparisons(
    file: Path | BinaryIO, *, axis: str, axes: Sequence[str], format: str = "auto"
) -> tuple[list[ComparisonItem], ImportReport]:
    """Every comparison in the file, each once, and what is wrong; nothing is written.

    `axis` is what chosen/rejected and a tree's ranks were judged on; `axes` are those allowed.
    """
    items: dict[str, ComparisonItem] = {}

    def take(row: Row, chosen: str, report: ImportReport) -> None:
        for item in COMPARISON_FORMATS[chosen](row, axis, report):
            unknown = set(item.ranks) - set(axes)
            if unknown:
                raise BadRow(f"the project has no axis {sorted(unknown)[0]!r}.")
            digest = item.digest()
            if digest in items:
                report.n_duplicates += 1
            items.setdefault(digest, item)

    if axis not in axes:
        report = ImportReport()
        report.add(None, f"The project has no axis {axis!r}; it has {', '.join(axes)}.")
        return [], report
    report = _read(file, format, COMPARISON_FORMATS, detect_comparisons, take)
    report.examples = list(items.values())[:5]
    return list(items.values()), report


def _read(
    file: Path | BinaryIO,
    format: str,
    formats: Mapping[str, Any],
    detect: Callable[[Row], str],
    take: Callable[[Row, str, ImportReport], None],
) -> ImportReport:
    report = ImportReport(format="" if format == "auto" else format)
    if report.format and report.format not in formats:
        report.add(None, f"There is no format {format!r}; choose auto or {', '.join(formats)}.")
        return report
    try:
        data, report.sha256 = _load(file)
        for number, row in _rows(data, report):
            report.n_rows += 1
            if report.n_rows > MAX_ROWS:
                report.add(number, f"more than {MAX_ROWS:,} rows; split the file into parts.")
                break
            try:
                report.format = report.format or detect(row)
                take(row, report.format, report)
            except BadRow as bad:
                report.add(number, str(bad))
            except LeftOut as reason:
                report.left_out[str(reason)] += 1
        if not report.n_rows:
            report.add(None, "The file has no rows.")
    except _Refused as refused:
        report.add(None, str(refused))
    return report
