"""Versions sent to a hub: first what, then the sending; only where the operator allows it, and no token
stays anywhere. A stand-in answers huggingface_hub; S3 is in tests/consumers/test_s3.py."""

import logging
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotation.data import pushing
from annotation.data.deprecation import deprecate, undo_deprecation
from annotation.data.destinations.target import SendError, check_allowed, parse_target
from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Event, Push
from tests.annotation.data.hub_server import TOKEN, Hub
from tests.factories import SourceFactory, judged

pytestmark = pytest.mark.django_db
PAGE = "/projects/apollo/data/1/push/"
API = "/api/v1/projects/apollo/snapshots/1/pushes/"
TARGET = "hf://datasets/acme/apollo"


@pytest.fixture
def hub(monkeypatch, settings):
    pytest.importorskip("huggingface_hub")
    running = Hub()
    monkeypatch.setenv("HF_ENDPOINT", running.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # The stand-in has the LFS protocol and not Xet, which only the real hub speaks.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(pushing, "PROGRESS_SECONDS", 60)
    settings.PUSH_ALLOWED = ["hf://datasets/acme/", "s3://acme-{project}/data/"]
    yield running
    running.server.shutdown()


@pytest.fixture
def version(project, ada, rita):
    source = SourceFactory(project=project, name="House", licence="LicenseRef-internal")
    judged(project, by=ada, source=source)
    return freeze_snapshot(project, by=rita)


def planned(snapshot, **options):
    return pushing.plan(snapshot, TARGET, **{"is_private": True, "by": None} | options)


def sent(snapshot, chosen, token=TOKEN):
    push = pushing.start(
        snapshot, chosen, form="", axis="", token=token, key=chosen.key, by=None, in_thread=False
    )
    pushing.send(push, chosen, token)
    return push


def test_targets_are_read_strictly_and_allowed_by_the_operator_alone():
    assert parse_target(TARGET)[:2] == ("hub", "acme/apollo")
    assert parse_target("s3://acme-data/a/b") == ("s3", "acme-data", "a/b/")
    for odd in (
        "acme/apollo", "hf://datasets/acme", "hf://datasets/acme/../x", "hf://models/a/b",
        "https://example.org/x", "s3://acme-data/../other/", "s3://a", "s3://acme-data//x/", "",
    ):  # fmt: skip
        with pytest.raises(SendError):
            parse_target(odd)
    allowed = ["hf://datasets/acme/", "s3://acme/{project}/", "hf://datasets/other/one"]
    for right in (TARGET, "s3://acme/apollo/", "s3://acme/apollo/v1", "hf://datasets/other/one"):
        check_allowed(right, allowed, "apollo")
    for wrong in (
        "hf://datasets/acme-evil/x", "s3://acme/soyuz/", "s3://acme/", "hf://datasets/other/one-2",
        "s3://acme/apollo-2/",
    ):  # fmt: skip
        with pytest.raises(SendError, match="allowed are"):
            check_allowed(wrong, allowed, "apollo")
    with pytest.raises(SendError, match="no target yet"):
        check_allowed(TARGET, [], "apollo")


def test_rita_sees_what_would_be_sent_before_anything_is(client, rita, version, hub):
    client.force_login(rita)
    page = client.post(
        PAGE, {"target": TARGET, "visibility": "private", "token": TOKEN, "act": "plan"}
    )
    text = page.content.decode()
    assert page.status_code == 200
    assert "The repository is made, private." in text
    for file in version.files:
        assert file["sha256"] in text
    assert TOKEN not in text
    assert hub.repositories == {}
    assert not Push.objects.exists()
    refused = client.post(
        PAGE, {"target": TARGET, "visibility": "private", "token": TOKEN, "act": "send", "key": "x"}
    )
    assert (refused.status_code, "Look at the plan first" in refused.content.decode()) == (
        422,
        True,
    )
    begun = client.post(
        PAGE,
        {"target": TARGET, "visibility": "private", "token": TOKEN, "act": "send",
         "key": planned(version).key},
    )  # fmt: skip
    assert begun["Location"] == PAGE
    text = client.get(PAGE).content.decode()
    assert "data-poll" in text
    assert TOKEN not in text


def test_the_hub_has_every_file_after_one_commit_and_the_token_is_nowhere(version, hub, caplog):
    caplog.set_level(logging.DEBUG)
    push = sent(version, planned(version))
    assert (push.state, push.reason, push.done) == ("done", "", push.total)
    repository = hub.repositories["acme/apollo"]
    assert repository["private"] is True
    for file in version.files:
        assert (
            repository["files"][file["name"]] == snapshot_file(version, file["name"]).read_bytes()
        )
    assert hub.commits == [f"Version 1, {version.sha256}"]
    assert push.url.startswith(f"{hub.url}/datasets/acme/apollo/")
    kept = [str(row) for row in Push.objects.values()] + [str(e.data) for e in Event.objects.all()]
    assert not any(TOKEN in text for text in [*kept, caplog.text])
    assert "data sent" in caplog.text
    sent(version, planned(version))  # again: the same files, nothing more
    assert len(repository["files"]) == len(version.files)


def test_a_form_can_be_sent_too(version, hub):
    chosen = planned(version, form="trl", axis="safety")
    assert [file.name for file in chosen.files] == ["train.parquet"]
    assert sent(version, chosen).state == "done"
    assert list(hub.repositories["acme/apollo"]["files"]) == ["train.parquet"]


def test_what_may_not_be_sent_is_refused_in_a_sentence(version, hub, project):
    with pytest.raises(SendError, match="House does not allow passing texts on"):
        planned(version, is_private=False)
    with pytest.raises(SendError, match="not allowed"):
        pushing.plan(version, "hf://datasets/mallory/x", is_private=True, by=None)
    chosen = planned(version)
    with pytest.raises(SendError, match="your token"):
        sent(version, chosen, token="")
    wrong = sent(version, chosen, token="hf_wrong")
    assert (wrong.state, "refuses the token" in wrong.reason) == ("failed", True)
    hub.repositories["acme/apollo"] = {"private": False, "files": {}}
    public = sent(version, chosen)
    assert "exists and is public" in public.reason
    with pytest.raises(SendError, match="exists and is public"):
        pushing.look(chosen, version, TOKEN)
    deprecate(version, None, "Ada withdrew.")
    with pytest.raises(SendError, match=r"should not be used any more.*Ada withdrew"):
        planned(version)
    undo_deprecation(version, None)
    hub.repositories.clear()
    snapshot_file(version, "preferences.jsonl").write_text("changed")
    assert "preferences.jsonl was changed" in sent(version, chosen).reason
    assert hub.repositories == {}


def test_one_sending_to_a_target_at_a_time_and_a_stopped_server_frees_it(version, hub):
    chosen = planned(version)

    def start():
        return pushing.start(
            version, chosen, form="", axis="", token=TOKEN, key=chosen.key, by=None, in_thread=False
        )

    start()
    with pytest.raises(SendError, match="being sent there already"):
        start()
    Push.objects.update(beat_at=timezone.now() - timedelta(minutes=4))
    assert "The server was stopped" in pushing.latest(version)[0].reason
    assert start().state == "writing"


def test_over_the_api_a_dry_run_gives_the_plan_that_is_then_sent(client, rita, version, hub):
    client.force_login(rita)
    body = {"target": TARGET, "token": TOKEN}
    dry = client.post(API, body, content_type="application/json").json()
    assert dry["there"] == "The repository is made, private."
    assert [file["name"] for file in dry["files"]] == [file["name"] for file in version.files]
    begun = client.post(API, body | {"plan": dry["plan"]}, content_type="application/json")
    assert (begun.status_code, begun.json()["state"]) == (202, "writing")
    assert "token" not in begun.json()
    again = client.post(API, body | {"plan": dry["plan"]}, content_type="application/json")
    assert again.status_code == 409
    assert client.get(API).json()[0]["target"] == TARGET


def test_the_command_is_a_dry_run_until_it_is_told_to_send(version, hub, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    call_command("push_snapshot", "apollo", "1", TARGET)
    assert "Nothing was sent" in capsys.readouterr().out
    assert hub.repositories == {}
    call_command("push_snapshot", "apollo", "1", TARGET, send=True)
    assert "Sent: http" in capsys.readouterr().out
    with pytest.raises(CommandError, match="not allowed"):
        call_command("push_snapshot", "apollo", "1", "hf://datasets/x/y", send=True)
