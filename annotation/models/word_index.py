"""The full-text indexes of prompts, responses and judgments, in the database itself.

SQLite has FTS5 tables that triggers keep in step. PostgreSQL has GIN indexes over an expression, which it
keeps in step by itself. Both find words by their beginnings, whatever way a row was written
(docs/decisions/0039-the-database-keeps-the-word-index.md).
"""

import string
from collections.abc import Iterator
from typing import Any, NamedTuple

PUNCTUATION = "".join(sorted(set(string.punctuation)))


class Indexed(NamedTuple):
    """A table with its text as an expression of each database; `row` stands for the row."""

    table: str
    sqlite: str
    postgresql: str
    has_text: str
    """A condition on the row; "" where every row has text."""
    columns: str


INDEXED = {
    "prompts": Indexed(
        "annotation_prompt",
        "(SELECT coalesce(group_concat(json_extract(value, '$.content'), char(10)), '')"
        " FROM json_each({row}.messages))",
        "annotation_prompt_text({row}.messages)",
        "",
        "messages",
    ),
    "responses": Indexed("annotation_response", "{row}.text", "{row}.text", "", "text"),
    "judgments": Indexed(
        "annotation_judgment",
        "({row}.reason || char(10) || {row}.rewrite)",
        "({row}.reason || E'\\n' || {row}.rewrite)",
        "({row}.reason <> '' OR {row}.rewrite <> '')",
        "reason, rewrite",
    ),
}


def words_table(name: str) -> str:
    """The FTS5 table of a table, or the GIN index: `prompts`, `responses` or `judgments`."""
    return f"{INDEXED[name].table}_words"


def _sqlite_triggers(name: str) -> Iterator[str]:
    indexed, words = INDEXED[name], words_table(name)

    def condition(*conditions: str) -> str:
        given = " AND ".join(part for part in conditions if part)
        return f"WHEN {given}" if given else ""

    def text(row: str) -> str:
        return indexed.sqlite.format(row=row)

    def has_text(row: str) -> str:
        return indexed.has_text.format(row=row)

    add = f"INSERT INTO {words}(rowid, words) VALUES (new.id, {text('new')});"  # noqa: S608
    # An index without its texts is told what to forget.
    drop = f"INSERT INTO {words}({words}, rowid, words) VALUES ('delete', old.id, {text('old')});"  # noqa: S608
    changed = f"{text('old')} IS NOT {text('new')}"
    for event, row, act in (
        ("INSERT", "new", add),
        ("DELETE", "old", drop),
        (f"UPDATE OF {indexed.columns}", "old", drop),
        (f"UPDATE OF {indexed.columns}", "new", add),
    ):
        kind = event.split()[0].lower() + ("_" + row if event.startswith("UPDATE") else "")
        when = condition(has_text(row), changed if event.startswith("UPDATE") else "")
        # Before the new text is added the old one is dropped.
        time = "BEFORE" if event.startswith("UPDATE") and row == "old" else "AFTER"
        yield (
            f"CREATE TRIGGER IF NOT EXISTS {words}_{kind} {time} {event} ON {indexed.table}"
            f" {when} BEGIN {act} END"
        )


def create(connection: Any) -> None:
    """Create what is missing of the indexes, and fill those that are new. Safe to repeat.

    A later migration that builds a table of SQLite again drops its triggers; this runs after each
    `migrate` (annotation/apps.py).
    """
    with connection.cursor() as cursor:
        for name in INDEXED:
            if connection.vendor == "sqlite":
                _create_sqlite(cursor, name)
            else:
                _create_postgresql(cursor, name)


def _create_sqlite(cursor: Any, name: str) -> None:
    indexed, words = INDEXED[name], words_table(name)
    cursor.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = %s", [words])
    if cursor.fetchone() is None:
        cursor.execute(
            f"CREATE VIRTUAL TABLE {words} USING fts5(words, content='', detail=none,"
            " tokenize='unicode61 remove_diacritics 0')"
        )
        where = f"WHERE {indexed.has_text.format(row='r')}" if indexed.has_text else ""
        cursor.execute(
            f"INSERT INTO {words}(rowid, words)"  # noqa: S608 - names of our own
            f" SELECT r.id, {indexed.sqlite.format(row='r')} FROM {indexed.table} r {where}"
        )
    for trigger in _sqlite_triggers(name):
        cursor.execute(trigger)


# The parser of PostgreSQL takes addresses and hyphenated words for one word, FTS5 does not.
_FUNCTIONS = (
    """CREATE OR REPLACE FUNCTION annotation_words(text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT to_tsvector('pg_catalog.simple'::regconfig, translate(left($1, 200000), {marks}, {spaces}))
    $$""",
    """CREATE OR REPLACE FUNCTION annotation_prompt_text(jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT coalesce(string_agg(turn ->> 'content', E'\\n'), '')
    FROM jsonb_array_elements(CASE jsonb_typeof($1) WHEN 'array' THEN $1 ELSE '[]'::jsonb END) turn
    $$""",
)


def _create_postgresql(cursor: Any, name: str) -> None:
    indexed = INDEXED[name]
    marks = "'" + PUNCTUATION.replace("'", "''") + "'"
    spaces = "'" + " " * len(PUNCTUATION) + "'"
    cursor.execute("SELECT 1 FROM pg_class WHERE relname = %s", [words_table(name)])
    if cursor.fetchone() is not None:
        return
    for function in _FUNCTIONS:
        cursor.execute(function.replace("{marks}", marks).replace("{spaces}", spaces), None)
    where = f"WHERE {indexed.has_text.format(row=indexed.table)}" if indexed.has_text else ""
    cursor.execute(
        f"CREATE INDEX {words_table(name)} ON {indexed.table}"
        f" USING gin ({postgresql_words(name, indexed.table)}) {where}",
        None,
    )


def postgresql_words(name: str, row: str) -> str:
    """The expression that the GIN index is over, of a row under this name."""
    text = INDEXED[name].postgresql.format(row=row)
    return f"annotation_words({text})"
