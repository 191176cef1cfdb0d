"""Writers of SQLite queue: nobody is passed over, and who dies leaves the queue."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from annotation.models import Project
from config.sqlite.base import Turn

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="of SQLite only"),
]

HOLD = """
import sys, time
from config.sqlite.base import Turn
turn = Turn(sys.argv[1], 5)
print("mine", flush=True)
time.sleep(float(sys.argv[2]))
turn.end()
"""


def hold(path, seconds):
    """Another process that has the turn by the time this returns."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "mine\n"
    return other


def test_sixteen_threads_each_get_their_turn_and_every_write_counts():
    project = Project.objects.create(slug="apollo", name="Apollo", overlap=1)
    waits = []

    def write(_):
        try:
            for _ in range(10):
                began = time.monotonic()
                with transaction.atomic():
                    waits.append(time.monotonic() - began)
                    mine = Project.objects.get(pk=project.pk)
                    mine.overlap += 1
                    mine.save()
        finally:
            connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    project.refresh_from_db()
    assert project.overlap == 161
    assert len(waits) == 160


def test_another_process_is_waited_for(tmp_path):
    other = hold(tmp_path / "db", 0.3)
    turn = Turn(str(tmp_path / "db"), 5)
    turn.end()
    assert other.wait(5) == 0


def test_a_turn_that_does_not_come_is_an_error_and_blocks_nobody(tmp_path):
    path = str(tmp_path / "db")
    other = hold(path, 60)
    try:
        for _ in range(2):
            with pytest.raises(OperationalError, match="locked"):
                Turn(path, 0.05)
    finally:
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    Turn(path, 1).end()  # The kernel took the dead one's locks away.


def test_a_transaction_that_fails_gives_its_turn_back():
    Project.objects.create(slug="apollo", name="Apollo")
    with pytest.raises(IntegrityError), transaction.atomic():
        Project.objects.create(slug="apollo", name="The same")
    assert connection.turn is None
    with transaction.atomic():
        Project.objects.create(slug="soyuz", name="Soyuz")


def test_a_thread_whose_connection_is_closed_in_a_transaction_gives_its_turn_back():
    def leave():
        connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
        connection.close()

    thread = threading.Thread(target=leave)
    thread.start()
    thread.join()
    with transaction.atomic():
        Project.objects.create(slug="apollo", name="Apollo")
