"""Freezing what is too large to be waited for: how far it is, that it ends, and what a stop leaves."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from django.utils.html import escape

from annotation.data import freezing, snapshots
from annotation.data.snapshot_rows import SnapshotRows
from annotation.models import Freezing, Snapshot
from tests.factories import judged

pytestmark = pytest.mark.django_db

DATA = "/projects/apollo/data/"


@pytest.fixture
def large(project, ada, monkeypatch):
    """Three judgments, where two are already too many to wait for."""
    monkeypatch.setattr(freezing, "MAX_WAITED_FOR", 1)
    for _ in range(3):
        judged(project, by=ada)
    return project


def test_the_page_says_how_far_it_is_and_shows_the_version_when_it_is_there(client, large, rita):
    client.force_login(rita)
    assert client.post(DATA, {"note": "large"})["Location"] == DATA
    row = Freezing.objects.get()
    assert (row.state, row.total, row.created_by) == ("writing", 3, rita)
    Freezing.objects.update(done=2)
    page = client.get(DATA).content.decode()
    assert "2 of 3 judgments" in page
    assert "<button" not in page.split('id="freeze-title"')[1].split("</section>")[0]
    again = client.post(DATA, {})
    assert again.status_code == 422
    assert "A version is being written, 2 of 3" in again.content.decode()
    freezing.write_in_background(row, note="large")
    assert (Snapshot.objects.get().note, Freezing.objects.get().state) == ("large", "done")
    page = client.get(DATA).content.decode()
    assert "Version 1" in page
    assert "being written" not in page


def test_over_the_api_it_is_202_and_then_in_the_list(client, large, rita):
    client.force_login(rita)
    api = "/api/v1/projects/apollo/snapshots/"
    begun = client.post(api, {}, content_type="application/json")
    assert (begun.status_code, "3 judgments" in begun.json()["detail"]) == (202, True)
    assert client.post(api, {}, content_type="application/json").status_code == 409
    freezing.write_in_background(Freezing.objects.get())
    assert client.get(api).json()["count"] == 1


def test_a_stopped_server_leaves_a_sentence_and_the_way_free(client, large, rita):
    freezing.freeze(large, by=rita)
    Freezing.objects.update(beat_at=timezone.now() - timedelta(minutes=4))
    client.force_login(rita)
    assert "The server was stopped" in client.get(DATA).content.decode()
    assert freezing.freeze(large, by=rita).is_writing


def test_what_was_half_written_when_a_server_was_killed_is_cleared_away(
    large, rita, settings, monkeypatch
):
    left = Path(settings.SNAPSHOTS_DIR) / ".partial-of-yesterday"
    left.mkdir()
    monkeypatch.setattr(snapshots, "ABANDONED_SECONDS", -1)
    snapshots.freeze_snapshot(large, by=rita)
    assert not left.exists()


def test_whatever_goes_wrong_is_said(client, large, rita, monkeypatch):
    row = freezing.freeze(large, by=rita)

    def full(self):
        raise OSError("No space left on device")

    monkeypatch.setattr(SnapshotRows, "write", full)
    with pytest.raises(OSError, match="No space"):
        freezing.write_in_background(row)
    row.refresh_from_db()
    assert (row.state, "log" in row.reason) == ("failed", True)
    client.force_login(rita)
    assert escape(row.reason) in client.get(DATA).content.decode()
    monkeypatch.undo()
    snapshots.freeze_snapshot(large, by=rita)
    assert escape(row.reason) not in client.get(DATA).content.decode(), "a later one replaces it"


@pytest.mark.django_db(transaction=True)
def test_a_thread_of_the_server_writes_it(client, large, rita):
    client.force_login(rita)
    client.post(DATA, {})
    until = time.monotonic() + 30
    while Freezing.objects.get().is_writing and time.monotonic() < until:
        time.sleep(0.05)
    assert Freezing.objects.get().state == "done"
    assert Snapshot.objects.get().counts["judgments"] == 3
