"""A worker's row: it stays through a database that goes away, and goes with the worker."""

import threading

from django.db import OperationalError

from rlhf.models import Worker
from rlhf.workers import presence
from tests.rlhf.machine import (
    real_transactions,
    wait_until,
)

pytestmark = real_transactions


def test_a_worker_shows_again_after_a_restart_of_the_database(monkeypatch, cut):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.01)
    real, cuts = presence.report, iter([cut])

    def seen(name, **fields):
        if threading.current_thread().name == "presence":
            next(cuts, lambda: None)()
        real(name, **fields)

    monkeypatch.setattr(presence, "report", seen)
    mine = presence.Presence(["gpu"])
    mine.start()
    began = Worker.objects.get().seen_at
    wait_until(lambda: Worker.objects.get().seen_at > began)
    mine.stop()
    assert not Worker.objects.exists()


def test_a_worker_that_starts_before_the_database_shows_once_that_is_there(monkeypatch):
    monkeypatch.setattr(presence, "BEAT_SECONDS", 0.01)
    real, away = presence.report, [OperationalError("starting up")]

    def seen(name, **fields):
        if away:
            raise away.pop()
        real(name, **fields)

    monkeypatch.setattr(presence, "report", seen)
    mine = presence.Presence(["gpu"])
    mine.start()
    wait_until(Worker.objects.exists)
    mine.stop()
