"""JSON files and folders, written atomically: a reader never sees a partial one."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.training.rundir import DATA
from rlhf.training.rundir.errors import InputError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` with `content` so that a reader sees the old file or the new one, never half.

    Written to a temporary file, fsynced, renamed, and the folder fsynced, so that it also survives
    power loss.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON atomically. NaN and infinity are refused, because browsers refuse them."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; `InputError` when the file is missing or isn't JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{_shown(path)} is missing from the run folder; put it there as docs/formats.md says."
        ) from None
    # Also text that isn't UTF-8, numbers of thousands of digits, and lists in lists in lists.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_shown(path)} isn't valid JSON: {error}.") from None


def read_json_if_there(path: Path) -> dict[str, Any] | None:
    """The JSON object in `path`, or None where the file is missing or holds no object."""
    try:
        value = read_json(path)
    except InputError:
        return None
    return value if isinstance(value, dict) else None


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
            f"{_shown(path)} is missing from the run folder; put it there as docs/formats.md says."
        ) from None
    with file:
        # Not str.splitlines: a response may hold U+2028, which JSON leaves as it is.
        for number, line in enumerate(file, start=1):
            row = _parse_line(line, f"{_shown(path)} line {number}", required)
            if row is not None:
                yield row


def _parse_line(line: bytes, where: str, required: tuple[str, ...]) -> dict[str, Any] | None:
    """The JSON object of a line, or None for a blank line; `where` names it in errors."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{where} isn't UTF-8 text.") from None
    if not text.strip():
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:  # as in read_json
        reason = error.msg if isinstance(error, json.JSONDecodeError) else error
        raise InputError(f"{where} isn't valid JSON: {reason}.") from None
    if "\\ud" in text.lower():
        # JSON may spell half a character (a lone surrogate), which no encoder can take.
        try:
            json.dumps(row, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{where} holds half a character (a lone surrogate, \\udxxx); write the text again "
                "as UTF-8."
            ) from None
    if not isinstance(row, dict):
        raise InputError(f"{where} isn't a JSON object.")
    for name in required:
        if name not in row:
            raise InputError(f"{where} has no field {name!r}.")
    return row


def _shown(path: Path) -> str:
    """A file's name in messages: within the run folder."""
    return f"{DATA}/{path.name}" if path.parent.name == DATA else path.name


def fsync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Replace `folder` with what `write(new)` puts into an empty one next to it.

    Whenever the process dies, no folder of that name is half written; the next call removes what it
    was writing.
    """
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    write(new)
    for path in new.rglob("*"):
        if path.is_file():
            fsync(path)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    fsync_folder(folder.parent)


def link_tree(source: Path, target: Path) -> None:
    """A copy of a folder by hard links, or a real copy where the file system has none. Files that
    `target` has already stay."""
    for path in sorted(source.rglob("*")):
        new = target / path.relative_to(source)
        if path.is_dir():
            new.mkdir(parents=True, exist_ok=True)
        elif path.is_file() and not new.exists():
            new.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(path, new)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link to a file, or a real copy where the file system has none."""
    try:
        target.hardlink_to(source.resolve())  # a link to a symbolic link may break
    except OSError:
        shutil.copy2(source, target)
