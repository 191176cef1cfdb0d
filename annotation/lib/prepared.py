"""Questions asked on every request, whose SQL Django writes once and not each time.

For the few queries that `next` and `submit` consist of, building the queryset and compiling it costs
several times what the database needs to answer (docs/log/judging_speed.md). The queryset stays the truth: it is
compiled with slots in place of its values, and kept. `insert` and `update` do the same for writing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

from django.db import DatabaseError, connection
from django.db.models import Expression, Model, QuerySet
from django.db.models.query import ModelIterable, get_related_populators

M = TypeVar("M")


Question: TypeAlias = "tuple[Prepared[Any], dict[str, Any]]"


class Slot(Expression):
    """Where a value goes later: a number, a text, a UUID or a time."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        return "%s", [self]


class Prepared(Generic[M]):
    """`Prepared(build)(**values)` is `list(build(**values))`.

    `build` gets a slot for each value and returns a queryset, of a model's rows or of `values_list`,
    whose shape must not depend on the values. Lists can't be values: their length is part of the SQL.
    """

    def __init__(self, build: Callable[..., QuerySet[Any, M]]) -> None:
        self.build = build
        self.compiled: dict[tuple[str, ...], tuple[str, list[Any], Any, Any]] = {}

    def __call__(self, **values: Any) -> list[M]:
        sql, bound, compiler, converters = self._bound(values)
        with connection.cursor() as cursor:
            cursor.execute(sql, bound)
            rows = cursor.fetchall()
        return list(_objects(rows, compiler, converters)) if rows else []

    def first(self, **values: Any) -> M | None:
        """The first row, or None."""
        rows = self(**values)
        return rows[0] if rows else None

    def count(self, **values: Any) -> int:
        """How many rows there are, none of which is fetched."""
        sql, bound, _, _ = self._bound(values)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM ({sql}) AS counted", bound)  # noqa: S608 - a queryset's
            return int(cursor.fetchone()[0])

    def _bound(self, values: dict[str, Any]) -> tuple[str, list[Any], Any, Any]:
        """SQL, its parameters, and what makes rows of the answer."""
        key = (connection.vendor, *values)
        if key not in self.compiled:
            self.compiled[key] = self._compile([*values])
        sql, parameters, compiler, converters = self.compiled[key]
        values = {name: _as_database(value) for name, value in values.items()}
        bound = [values[one.name] if isinstance(one, Slot) else one for one in parameters]
        return sql, bound, compiler, converters

    def _compile(self, names: list[str]) -> tuple[str, list[Any], Any, Any]:
        queryset = self.build(**{name: Slot(name) for name in names})
        compiler = queryset.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        # The compiler is kept for its columns only, never asked again: threads share it.
        converters = compiler.get_converters([column[0] for column in compiler.select])
        if not issubclass(queryset._iterable_class, ModelIterable):
            compiler.klass_info = None
        return sql, list(parameters), compiler, converters


def _as_database(value: Any) -> Any:
    if isinstance(value, UUID) and not connection.features.has_native_uuid_field:
        return value.hex
    if isinstance(value, datetime):
        return connection.ops.adapt_datetimefield_value(value)
    return value


def _converted(raw: Any, converters: Any) -> list[Any]:
    row = list(raw)
    for position, (convert, expression) in converters.items():
        value = row[position]
        for one in convert:
            value = one(value, expression, connection)
        row[position] = value
    return row


def _objects(rows: Any, compiler: Any, converters: Any) -> Iterator[Any]:
    """Model instances from rows, with annotations and select_related; or plain tuples."""
    info = compiler.klass_info
    if info is None:
        for raw in rows:
            yield tuple(_converted(raw, converters))
        return
    made = info["model"]
    fields = info["select_fields"]
    start, end = fields[0], fields[-1] + 1
    names = [column[0].target.attname for column in compiler.select[start:end]]
    annotations = compiler.annotation_col_map.items()
    related = get_related_populators(info, compiler.select, connection.alias)  # type: ignore[call-arg]  # the stubs are of a later Django
    for raw in rows:
        row = _converted(raw, converters)
        instance = made.from_db(connection.alias, names, row[start:end])
        for populate in related:
            populate.populate(row, instance)
        for name, position in annotations:
            setattr(instance, name, row[position])
        yield instance


def together(*questions: Question) -> list[list[Any]]:
    """The rows of several questions; PostgreSQL gets them in one go, and waits for us only once.

    They are answered one after the other, as they would be if each were asked alone: the second sees
    what was there when the first had got its lock.
    """
    if connection.vendor != "postgresql":
        return [prepared(**values) for prepared, values in questions]
    asked = [prepared._bound(values) for prepared, values in questions]
    with ExitStack() as stack:
        cursors = [stack.enter_context(connection.cursor()) for _ in asked]
        with connection.wrap_database_errors, connection.connection.pipeline():
            for cursor, (sql, bound, _, _) in zip(cursors, asked, strict=True):
                cursor.execute(sql, bound)
        return [
            list(_objects(cursor.fetchall(), compiler, converters))
            for cursor, (_, _, compiler, converters) in zip(cursors, asked, strict=True)
        ]


def insert(row: Model) -> None:
    """What `row.save(force_insert=True)` does, for a row of a model that inherits from no other."""
    fields, sql = _insertion(type(row))
    with connection.cursor() as cursor:
        cursor.execute(sql, _values(row, fields, is_new=True))
        row.pk = cursor.fetchone()[0]
    row._state.adding, row._state.db = False, connection.alias


def update(row: Model, *names: str) -> None:
    """What `row.save(update_fields=names)` does; DatabaseError if the row is gone."""
    fields, sql = _change(type(row), names)
    with connection.cursor() as cursor:
        cursor.execute(sql, [*_values(row, fields, is_new=False), row.pk])
        if not cursor.rowcount:
            raise DatabaseError("Save with update_fields did not affect any rows.")


@cache
def _insertion(model: type[Model]) -> tuple[list[Any], str]:
    meta = model._meta
    assert meta.pk is not None
    fields = [field for field in meta.concrete_fields if field is not meta.pk]
    columns = ", ".join(f'"{field.column}"' for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    table, key = meta.db_table, meta.pk.column
    return fields, f'INSERT INTO "{table}" ({columns}) VALUES ({marks}) RETURNING "{key}"'  # noqa: S608


@cache
def _change(model: type[Model], names: tuple[str, ...]) -> tuple[list[Any], str]:
    meta = model._meta
    assert meta.pk is not None
    fields = [meta.get_field(name) for name in names]
    columns = ", ".join(f'"{field.column}" = %s' for field in fields)  # type: ignore[union-attr]
    return fields, f'UPDATE "{meta.db_table}" SET {columns} WHERE "{meta.pk.column}" = %s'  # noqa: S608


def _values(row: Model, fields: list[Any], *, is_new: bool) -> list[Any]:
    return [field.get_db_prep_save(field.pre_save(row, add=is_new), connection) for field in fields]
