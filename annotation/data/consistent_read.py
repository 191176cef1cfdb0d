"""Many reads of one state of the database, whatever other people write meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

BEGIN = {
    # The first SELECT fixes the state that is read; writers do not have to wait (WAL).
    "sqlite": "BEGIN DEFERRED",
    "postgresql": "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
}


@contextmanager
def consistent_read() -> Iterator[None]:
    """Every query of this thread inside sees the same state. Nothing may be written inside.

    Django's own transactions do not do this: on SQLite they block every writer, and on PostgreSQL
    each query in them sees what was committed before it. Inside such a transaction, for example in a
    test, its rules apply.
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
