"""Pages of a table by filters and words, each within a time budget however many rows there are.

A page is found by walking candidates in the order of an index: all rows, the rows that have the words, or
those of one batch, tag or category. Each step reads a bounded number of candidates and says of each whether
it fits the other filters. If the budget runs out first, the page says so and how to continue, so a
filter that fits almost nothing costs several short requests and never a long one.
"""

import base64
import binascii
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db import connection

from annotation.data.records.tables import TABLES, Condition, Table
from annotation.lib.text import storable
from annotation.models import Project
from annotation.models.word_index import INDEXED, postgresql_words, words_table

SECONDS = 0.1
FIRST_STEP, LARGEST_STEP = 300, 6_000
MAX_WORDS = 12
SMALL_BATCH = 5_000
"""Comparisons up to which all judgments of a batch are sorted; those of a larger one are met on the way."""
FEW_PROMPTS = 2_000

_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a search; each is the beginning of a word to find."""
    return _WORD.findall(text.lower())[:MAX_WORDS]


class Key(NamedTuple):
    """Where a row stands in the order: the sorted value ("" where the id alone sorts) and its id."""

    value: str
    pk: int

    def as_text(self) -> str:
        return base64.urlsafe_b64encode(json.dumps([self.value, self.pk]).encode()).decode()

    @classmethod
    def read(cls, text: str) -> "Key | None":
        """The key of a link; None for anything else."""
        try:
            value, pk = json.loads(base64.urlsafe_b64decode(text.encode()))
        except (ValueError, TypeError, RecursionError, binascii.Error):
            return None
        is_text = isinstance(value, str) and storable(value) == value
        # A type of its own, as True is an int and PostgreSQL compares no id with it.
        is_key = is_text and type(pk) is int and 0 <= pk < 2**62
        return cls(value, pk) if is_key else None


@dataclass(frozen=True)
class Query:
    """What a page is asked for. `filters` are names of the table's filters with their values."""

    table: str
    filters: dict[str, str] = field(default_factory=dict)
    words: str = ""
    sort: str = "newest"
    after: Key | None = None
    before: Key | None = None

    @property
    def spec(self) -> Table:
        return TABLES[self.table]


@dataclass(frozen=True)
class Page:
    """Ids of a page in order, and the keys that its neighbors begin at; None where there is none."""

    ids: list[int]
    following: Key | None
    previous: Key | None
    is_partial: bool
    """The budget ran out: `following` (or `previous`) continues the search."""


def page_of(project: Project, query: Query, n: int = 50, *, seconds: float = SECONDS) -> Page:
    """The `n` rows after (or before) a key, as far as the budget reaches."""
    is_backwards = query.before is not None
    start = query.before if is_backwards else query.after
    keys: list[Key] = []
    last, is_partial, is_more = start, False, False
    deadline = time.monotonic() + seconds
    for key, fits in _candidates(project, query, start, is_backwards=is_backwards, n=n):
        if fits and len(keys) == n:
            is_more = True
            break
        if fits:
            keys.append(key)
        last = key
        if not fits and time.monotonic() > deadline:
            is_partial = True
            break
    end = last if is_partial else (keys[-1] if keys and is_more else None)
    if is_backwards:
        keys.reverse()
        following = keys[-1] if keys else start
        return Page([key.pk for key in keys], following, end, is_partial)
    previous = (keys[0] if keys else start) if query.after is not None else None
    return Page([key.pk for key in keys], end, previous, is_partial)


def ids_of(project: Project, query: Query, most: int, *, seconds: float = 20.0) -> list[int] | None:
    """The ids of all rows that fit, up to `most`; None if they are more, or took too long to find."""
    page = page_of(project, query, most, seconds=seconds)
    return None if page.is_partial or page.following is not None else page.ids


# --- Candidates ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Walk:
    """Rows in the order of an index: the tables read, the condition, and the ordering columns."""

    tables: str
    condition: str
    parameters: list[Any]
    pk: str = "r.id"
    value: str = ""
    """A column that is sorted before the id; "" where the id alone sorts."""


def _candidates(
    project: Project, query: Query, start: Key | None, *, is_backwards: bool, n: int
) -> Iterator[tuple[Key, bool]]:
    """Every candidate in order, with whether it fits."""
    conditions, walk = _plan(project, query)
    is_falling = (query.sort == "newest") != is_backwards
    step = FIRST_STEP if len(conditions) > 1 or walk.condition else n + 1
    while True:
        rows = _step(query.spec, conditions, walk, start, step, is_falling=is_falling)
        yield from rows
        if len(rows) < step:
            return
        start, step = rows[-1][0], min(4 * step, LARGEST_STEP)


def _plan(project: Project, query: Query) -> tuple[list[Condition], _Walk]:
    """The conditions that each candidate is checked for, and the walk that gives candidates.

    The project is always checked: a walk over words, for example, meets rows of other projects.
    """
    spec = query.spec
    conditions: list[Condition] = [(f"{spec.project} = %s", [project.pk])]
    for name, value in query.filters.items():
        condition = spec.filters[name].condition(value)
        if condition is not None:
            conditions.append(condition)
    row = f"{spec.name} r"
    words = words_of(query.words)
    if words and spec.words:
        return conditions, _walk_words(spec, words)
    if words:
        prompts = _prompts_with(project, words)
        marks = ", ".join(["%s"] * len(prompts)) or "NULL"
        return conditions, _Walk(row, f"r.prompt_id IN ({marks})", prompts)
    if query.sort == "category":
        return conditions, _Walk(row, "r.project_id = %s", [project.pk], value="r.category")
    tag = spec.filters["tag"].condition(query.filters.get("tag", ""))
    if tag is not None:
        tables = f"annotation_tagging w {_join()} {row} ON r.id = w.{spec.tagged}"
        return conditions, _Walk(tables, "w.tag_id = %s", tag[1], pk=f"w.{spec.tagged}")
    if query.filters.get("excluded") == "yes":
        return conditions, _Walk(row, "r.exclusion_id IS NOT NULL", [])
    if query.table == "prompts":
        for name in ("category", "split"):
            if name in query.filters:
                where = f"r.project_id = %s AND r.{name} = %s"
                return conditions, _Walk(row, where, [project.pk, query.filters[name]])
        return conditions, _Walk(row, "r.project_id = %s", [project.pk])
    return conditions, _walk_batch(query) or _Walk(row, "", [])


def _walk_batch(query: Query) -> _Walk | None:
    """The rows of one batch in the order of its comparisons; judgments by their age where they are few."""
    batch = query.spec.filters["batch"].condition(query.filters.get("batch", ""))
    if batch is None:
        return None
    if query.table == "comparisons":
        return _Walk("annotation_comparison r", "r.batch_id = %s", batch[1])
    if query.table == "responses":
        tables = (
            f"annotation_comparison w {_join()} annotation_response r ON r.comparison_id = w.id"
        )
        return _Walk(tables, "w.batch_id = %s", batch[1], value="w.id")
    with connection.cursor() as cursor:
        sql = "SELECT id FROM annotation_comparison WHERE batch_id = %s LIMIT %s"
        cursor.execute(f"SELECT COUNT(*) FROM ({sql}) counted", [*batch[1], SMALL_BATCH + 1])  # noqa: S608
        if cursor.fetchone()[0] > SMALL_BATCH:
            return None
    tables = "annotation_comparison w"
    tables += f" {_join()} annotation_assignment v ON v.comparison_id = w.id"
    tables += f" {_join()} annotation_judgment r ON r.assignment_id = v.id"
    return _Walk(tables, "w.batch_id = %s", batch[1])


def _walk_words(spec: Table, words: list[str]) -> _Walk:
    if connection.vendor == "sqlite":
        index = words_table(spec.words)
        tables = f"{index} w {_join()} {spec.name} r ON r.id = w.rowid"
        return _Walk(tables, f"{index} MATCH %s", [_fts5(words)], pk="w.rowid")
    condition = f"{postgresql_words(spec.words, 'r')} @@ to_tsquery('simple', %s)"
    if has_text := INDEXED[spec.words].has_text:
        condition += f" AND {has_text.format(row='r')}"
    return _Walk(f"{spec.name} r", condition, [_tsquery(words)])


def _prompts_with(project: Project, words: list[str]) -> list[int]:
    """Ids of the project's newest prompts that have the words, up to FEW_PROMPTS."""
    walk = _walk_words(TABLES["prompts"], words)
    sql = f"""SELECT r.id FROM {walk.tables} WHERE {walk.condition} AND r.project_id = %s
        ORDER BY {walk.pk} DESC LIMIT {FEW_PROMPTS:d}"""  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*walk.parameters, project.pk])
        return [pk for (pk,) in cursor.fetchall()]


def _fts5(words: list[str]) -> str:
    return " ".join(f'"{word}"*' for word in words)


def _tsquery(words: list[str]) -> str:
    return " & ".join(f"'{word}':*" for word in words)


def _join() -> str:
    # SQLite reads the tables in this order only if told so; without statistics it may begin at the
    # project and sort a million rows.
    return "CROSS JOIN" if connection.vendor == "sqlite" else "JOIN"


def _step(
    spec: Table,
    conditions: list[Condition],
    walk: _Walk,
    start: Key | None,
    size: int,
    *,
    is_falling: bool,
) -> list[tuple[Key, bool]]:
    """The next `size` candidates after `start`."""
    rows: list[tuple[Key, bool]] = []
    for bound, parameters in _bounds(walk, start, is_falling=is_falling):
        if len(rows) < size:
            rows += _read(
                spec, conditions, walk, (bound, parameters), size - len(rows), is_falling=is_falling
            )
    return rows


def _bounds(walk: _Walk, start: Key | None, *, is_falling: bool) -> Iterator[Condition]:
    """What comes after `start`, in parts that follow each other: an index answers each by itself."""
    than = "<" if is_falling else ">"
    if start is None:
        yield "", []
    elif not walk.value:
        yield f"{walk.pk} {than} %s", [start.pk]
    else:
        yield f"{walk.value} = %s AND {walk.pk} {than} %s", [start.value, start.pk]
        yield f"{walk.value} {than} %s", [start.value]


def _read(
    spec: Table,
    conditions: list[Condition],
    walk: _Walk,
    bound: Condition,
    size: int,
    *,
    is_falling: bool,
) -> list[tuple[Key, bool]]:
    direction = "DESC" if is_falling else "ASC"
    checks = " AND ".join(f"({sql})" for sql, _ in conditions)
    checked = [parameter for _, parameters in conditions for parameter in parameters]
    joins = spec.joins + (" " + spec.prompt if "p." in checks else "")
    where = " AND ".join(part for part in (walk.condition, bound[0]) if part)
    order = ", ".join(f"{column} {direction}" for column in (walk.value, walk.pk) if column)
    sql = f"""SELECT {walk.pk}, {walk.value or "''"}, CASE WHEN {checks} THEN 1 ELSE 0 END
        FROM {walk.tables} {joins.format(join=_join())}
        {f"WHERE {where}" if where else ""} ORDER BY {order} LIMIT {size:d}"""  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(sql, [*checked, *walk.parameters, *bound[1]])
        return [(Key(str(value), pk), bool(fits)) for pk, value, fits in cursor.fetchall()]
