"""SQLite whose writers wait in a queue instead of polling with growing delays.

A transaction begins with BEGIN IMMEDIATE, so one writes at a time. SQLite itself has no queue: who
finds the lock taken sleeps 1, 2, 5 … 100 ms and tries again, and under load some sleep through many
turns (docs/log/judging_speed.md has the figures). Here a transaction first takes its turn:

1. one thread of this process at a time (a lock in memory),
2. of all processes one may be next (a lock on `<database>-next`),
3. and one has the turn (a lock on `<database>-turn`); the process that gets it lets go of 2.

Nobody who comes later can pass the one that is next. The kernel frees the locks of a process that
dies. A turn that does not come within the database's `timeout` is the error it always was.
"""

import fcntl
import os
import threading
import time
from typing import Any

from django.db import OperationalError
from django.db.backends.sqlite3 import base

PAUSE = 0.001
in_this_process: dict[str, threading.Lock] = {}


class Turn:
    """The right to write, until `end`."""

    def __init__(self, path: str, timeout: float) -> None:
        until = time.monotonic() + timeout
        self.own = in_this_process.setdefault(path, threading.Lock())
        if not self.own.acquire(timeout=timeout):
            raise OperationalError("database is locked")
        try:
            following = _take(f"{path}-next", until)
            try:
                self.file = _take(f"{path}-turn", until)
            finally:
                _give(following)
        except BaseException:
            self.own.release()
            raise

    def end(self) -> None:
        _give(self.file)
        self.own.release()


class DatabaseWrapper(base.DatabaseWrapper):
    turn: Turn | None = None

    def _start_transaction_under_autocommit(self) -> None:
        name = str(self.settings_dict["NAME"])
        if not self.is_in_memory_db():
            timeout = float(self.settings_dict["OPTIONS"].get("timeout", 5.0))
            self.turn = Turn(os.path.realpath(name), timeout)
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]
        except BaseException:
            self._end_turn()
            raise

    def _commit(self) -> Any:
        # A commit that fails leaves the transaction open: the rollback that follows ends the turn.
        done = super()._commit()  # type: ignore[misc]
        self._end_turn()
        return done

    def _rollback(self) -> Any:
        try:
            return super()._rollback()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _close(self) -> Any:
        try:
            return super()._close()  # type: ignore[misc]
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        turn, self.turn = self.turn, None
        if turn is not None:
            turn.end()


def _take(path: str, until: float) -> int:
    """The locked file's descriptor. Opened again each time: a fork must not share the lock."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise OperationalError("database is locked") from None
                time.sleep(PAUSE)
            else:
                return file
    except BaseException:
        os.close(file)
        raise


def _give(file: int) -> None:
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)
