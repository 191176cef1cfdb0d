"""Security events: who signed in, what was denied, what left; as JSON lines with address and request."""

import json
import logging
from datetime import UTC, datetime, timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import call_command

from annotation.data.snapshots import freeze_snapshot
from annotation.lib.request_context import RequestContext, current
from annotation.lib.security_events import note
from annotation.models import ApiToken
from annotation.tokens import create_token
from config.security_log import AddRequest, DailyJsonLines
from tests.factories import judged
from tests.signing_in import PASSWORD

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(tmp_path, settings):
    """The events since the test began, read as an operator reads them."""
    settings.SECURITY_LOG_DIR = tmp_path / "security"
    handler = DailyJsonLines(str(settings.SECURITY_LOG_DIR), days=3)
    logger = logging.getLogger("security")
    before = logger.handlers[:]
    logger.handlers = [handler]

    def read():
        out = StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", out)
            call_command("security_events")
        return [json.loads(line) for line in out.getvalue().splitlines()]

    yield read
    logger.handlers = before


def test_sign_ins_failures_and_sign_outs(events, client, ada):
    client.post("/accounts/login/", {"login": "ada", "password": "my secret slip"})
    client.post("/accounts/login/", {"login": "ada", "password": PASSWORD})
    client.post("/accounts/logout/")
    rows = events()
    assert [row["event"] for row in rows] == ["sign-in failed", "signed in", "signed out"]
    assert {row["address"] for row in rows} == {"127.0.0.1"}
    assert rows[1]["name"] == "ada"
    assert len({row["request"] for row in rows}) == 3
    assert "secret" not in json.dumps(rows)


def test_denials_and_downloads(events, client, project, ada, rita):
    judged(project, by=ada)
    client.force_login(rita)
    assert client.get("/api/v1/projects/apollo/judgments/").status_code == 200
    client.logout()
    answer = client.get("/api/v1/projects/apollo/judgments/")
    assert answer.status_code == 401
    by_event = {row["event"]: row for row in events()}
    assert by_event["download"]["name"] == "rita"
    assert by_event["download"]["project"] == "apollo"
    assert by_event["denied"]["status"] == 401
    assert by_event["denied"]["request"] == answer["X-Request-Id"]


def test_a_download_that_is_resumed_is_one_too(events, client, project, ada, rita):
    judged(project, by=ada)
    snapshot = freeze_snapshot(project, by=None)
    client.force_login(rita)
    name = f"/projects/apollo/data/{snapshot.version}/files/preferences.jsonl"
    answer = client.get(name, headers={"Range": "bytes=10-"})
    assert answer.status_code == 206
    assert [row["event"] for row in events()] == ["download"]


def test_tokens_and_passwords(events, client, project, rita):
    token, plain = create_token(rita, name="script", days=1, scopes=[ApiToken.Scope.READ])
    header = {"headers": {"Authorization": f"Token {plain}"}}
    client.get("/api/v1/projects/apollo/batches/", **header)
    client.get("/api/v1/projects/apollo/judgments/", **header)
    rita.set_password("another long enough one")
    rita.save()
    rows = events()
    kinds = ["token made", "token used", "denied", "password changed", "token revoked"]
    assert [row["event"] for row in rows] == kinds
    assert rows[1]["token"] == token.token_key
    assert plain not in json.dumps(rows)


def test_old_files_go_and_nobody_else_reads_them(events, settings):
    folder = settings.SECURITY_LOG_DIR
    folder.mkdir()
    days = [f"{datetime.now(UTC) - timedelta(days=n):%Y-%m-%d}" for n in (2, 9)]
    for day in days:
        (folder / f"{day}.jsonl").write_text('{"event": "old"}\n')
    note("signed in")
    kept = {path.stem for path in folder.iterdir()}
    assert kept == {days[0], f"{datetime.now(UTC):%Y-%m-%d}"}
    assert (folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl").stat().st_mode & 0o077 == 0


def test_every_log_line_names_its_request():
    record = SimpleNamespace()
    AddRequest().filter(record)
    assert record.request == "-"
    token = current.set(RequestContext("abc", "203.0.113.1"))
    AddRequest().filter(record)
    current.reset(token)
    assert record.request == "abc"
