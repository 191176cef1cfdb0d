"""Signs of life: they are renewed while a thread works, through a database that goes away."""

import threading
from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from annotation.lib.heartbeat import Heartbeat, is_stale

pytestmark = pytest.mark.django_db


def test_it_renews_while_the_block_runs_and_not_after():
    beats, third = [], threading.Event()

    def renew():
        beats.append(1)
        if len(beats) == 3:
            third.set()

    with Heartbeat(renew, every=0.01, name="test"):
        assert third.wait(10)
    n = len(beats)
    third.wait(0.1)
    assert len(beats) == n


def test_a_database_that_goes_away_is_tried_again():
    answers = [OperationalError("away"), OperationalError("away"), None]
    renewed = threading.Event()

    def renew():
        if answers and (answer := answers.pop(0)):
            raise answer
        renewed.set()

    heartbeat = Heartbeat(renew, every=0.01, name="test")
    with heartbeat:
        assert renewed.wait(10)
    assert heartbeat.seconds_since_renewal() < 10


def test_a_sign_of_life_is_stale_once_it_is_older_than_the_limit():
    now, limit = timezone.now(), timedelta(seconds=10)
    assert not is_stale(now - timedelta(seconds=5), limit)
    assert is_stale(now - timedelta(seconds=15), limit)
    assert is_stale(None, limit)
