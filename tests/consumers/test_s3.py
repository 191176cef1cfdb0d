"""Versions sent to S3: moto's server, a process of its own, answers boto3."""

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from annotation.data import pushing
from annotation.data.destinations.target import SendError
from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from tests.factories import judged

pytestmark = [pytest.mark.consumers, pytest.mark.django_db]
TARGET = "s3://acme-data/apollo/v1/"


@pytest.fixture(scope="module")
def store():
    """The address of a running moto server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(os.environ["CONSUMERS"]) / "s3" / "bin" / "moto_server"
    server = subprocess.Popen(
        [program, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield f"http://127.0.0.1:{port}"
    server.kill()
    server.wait()


@pytest.fixture
def client(store, monkeypatch, settings):
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(pushing, "PROGRESS_SECONDS", 60)
    settings.PUSH_ALLOWED = ["s3://acme-data/{project}/", "s3://nowhere/"]
    made = boto3.client("s3")
    made.create_bucket(Bucket="acme-data")
    yield made
    for entry in made.list_objects_v2(Bucket="acme-data").get("Contents", []):
        made.delete_object(Bucket="acme-data", Key=entry["Key"])


def sent(snapshot, target=TARGET):
    chosen = pushing.plan(snapshot, target, is_private=True, by=None)
    push = pushing.start(
        snapshot, chosen, form="", axis="", token="", key=chosen.key, by=None, in_thread=False
    )
    pushing.send(push, chosen, "")
    return push


def test_every_file_is_in_the_bucket_and_what_broke_off_is_continued(client, project, ada, rita):
    judged(project, by=ada)
    version = freeze_snapshot(project, by=rita)
    chosen = pushing.plan(version, TARGET, is_private=True, by=None)
    assert pushing.look(chosen, version, "") == "None of these objects exists yet."
    push = sent(version)
    assert (push.state, push.reason, push.done, push.url) == ("done", "", push.total, TARGET)
    stored = client.list_objects_v2(Bucket="acme-data")["Contents"]
    assert {entry["Key"].rpartition("/")[2] for entry in stored} == {
        f["name"] for f in version.files
    }
    for file in version.files:
        found = client.get_object(Bucket="acme-data", Key=f"apollo/v1/{file['name']}")
        assert found["Body"].read() == snapshot_file(version, file["name"]).read_bytes()
        assert found["Metadata"]["sha256"] == file["sha256"]
    # A file is missing and another has other content: both are sent, the rest is left as it is.
    at = {entry["Key"]: entry["LastModified"] for entry in stored}
    client.delete_object(Bucket="acme-data", Key="apollo/v1/README.md")
    client.put_object(Bucket="acme-data", Key="apollo/v1/SHA256SUMS", Body=b"other")
    assert "7 of 8" in pushing.look(chosen, version, "") or "objects exist" in pushing.look(
        chosen, version, ""
    )
    time.sleep(1.1)  # a store's times are whole seconds
    assert sent(version).state == "done"
    now = {
        entry["Key"]: entry["LastModified"]
        for entry in client.list_objects_v2(Bucket="acme-data")["Contents"]
    }
    changed = {key.rpartition("/")[2] for key in now if now[key] != at.get(key)}
    assert changed == {"README.md", "SHA256SUMS"}


def test_a_large_file_is_sent_in_parts_and_the_progress_is_in_bytes(client, tmp_path):
    from annotation.data.destinations import s3
    from annotation.data.destinations.target import Outgoing, parse_target

    large = tmp_path / "large.parquet"
    large.write_bytes(os.urandom(2**20) * 20)
    steps = []
    file = Outgoing("large.parquet", str(large), 20 * 2**20, "0" * 64)
    s3.send(parse_target(TARGET), [file], on_progress=steps.append)
    assert sum(steps) == 20 * 2**20
    assert len(steps) > 20
    head = client.head_object(Bucket="acme-data", Key="apollo/v1/large.parquet")
    assert head["ETag"].strip('"').endswith("-3")  # of three parts


def test_a_missing_bucket_is_a_sentence(client, project, ada, rita):
    judged(project, by=ada)
    version = freeze_snapshot(project, by=rita)
    chosen = pushing.plan(version, "s3://nowhere/x/", is_private=True, by=None)
    with pytest.raises(SendError, match="There is no bucket nowhere"):
        pushing.look(chosen, version, "")
    assert sent(version, "s3://nowhere/x/").reason == "There is no bucket nowhere."
