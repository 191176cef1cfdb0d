"""Reading many things as they were at one moment, whatever other people write meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

BEGIN = {
    # The snapshot is taken by the first SELECT; a later write by others makes nobody wait (WAL).
    "sqlite": "BEGIN DEFERRED",
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
}


@contextmanager
def one_moment() -> Iterator[None]:
    """All that this thread reads inside is of one moment. Nothing may be written inside.

    Django's own transactions would not do: on SQLite they keep every writer waiting, on PostgreSQL
    each question in them sees what was committed before it. Inside one of those (a test's, say) its
    rules hold.
    """
    if connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(BEGIN[connection.vendor])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
