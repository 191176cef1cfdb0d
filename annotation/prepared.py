"""Questions asked on every request, whose SQL Django writes once and not each time.

For the few queries that `next` and `submit` consist of, building the queryset and compiling it costs
several times what the database needs to answer (docs/log.md). The queryset stays the truth: it is
compiled with slots in place of its values, and kept.
"""

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import Expression, QuerySet
from django.db.models.query import ModelIterable, get_related_populators

M = TypeVar("M")


class Slot(Expression):
    """Where a value goes later: a number or a text, as the database takes it."""

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
        key = (connection.vendor, *values)
        if key not in self.compiled:
            self.compiled[key] = self._compile([*values])
        sql, parameters, compiler, converters = self.compiled[key]
        if not connection.features.has_native_uuid_field:
            values = {
                name: value.hex if isinstance(value, UUID) else value
                for name, value in values.items()
            }
        bound = [values[one.name] if isinstance(one, Slot) else one for one in parameters]
        with connection.cursor() as cursor:
            cursor.execute(sql, bound)
            rows = cursor.fetchall()
        return list(_objects(rows, compiler, converters)) if rows else []

    def first(self, **values: Any) -> M | None:
        """The first row, or None."""
        rows = self(**values)
        return rows[0] if rows else None

    def _compile(self, names: list[str]) -> tuple[str, list[Any], Any, Any]:
        queryset = self.build(**{name: Slot(name) for name in names})
        compiler = queryset.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        # The compiler is kept for its columns only, never asked again: threads share it.
        converters = compiler.get_converters([column[0] for column in compiler.select])
        if not issubclass(queryset._iterable_class, ModelIterable):
            compiler.klass_info = None
        return sql, list(parameters), compiler, converters


def _converted(raw: Any, converters: Any) -> list[Any]:
    row = list(raw)
    for position, (convert, expression) in converters.items():
        value = row[position]
        for one in convert:
            value = one(value, expression, connection)
        row[position] = value
    return row


def _objects(rows: Any, compiler: Any, converters: Any) -> Iterator[Any]:
    """Model instances from rows, with those that came along by select_related; or plain tuples."""
    info = compiler.klass_info
    if info is None:
        for raw in rows:
            yield tuple(_converted(raw, converters))
        return
    made = info["model"]
    fields = info["select_fields"]
    start, end = fields[0], fields[-1] + 1
    names = [column[0].target.attname for column in compiler.select[start:end]]
    related = get_related_populators(info, compiler.select, connection.alias)  # type: ignore[call-arg]  # the stubs are of a later Django
    for raw in rows:
        row = _converted(raw, converters)
        instance = made.from_db(connection.alias, names, row[start:end])
        for populate in related:
            populate.populate(row, instance)
        yield instance
