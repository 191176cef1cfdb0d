"""Forms of a version on their page and over the API, and downloads that break off and are resumed."""

import base64
import hashlib
import io
import shutil
import zipfile
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.data import exporting
from annotation.data.exporting import download_path, make
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Export
from tests.factories import BatchFactory, judged

pytestmark = pytest.mark.django_db
PAGE = "/projects/apollo/data/1/forms/"
API = "/api/v1/projects/apollo/snapshots/1/"


@pytest.fixture
def version(project, ada, ben, rita):
    batch = BatchFactory(project=project)
    for _ in range(3):
        judged(project, by=ada, batch=batch)
        judged(project, by=ben, batch=batch, ranks=(1, 2, 3, 4))
    return freeze_snapshot(project, by=rita)


def body(answer):
    return b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_rita_downloads_a_form_and_the_page_says_what_it_left_out(client, rita, project, version):
    client.force_login(rita)
    page = client.get(PAGE).content.decode()
    assert "Label Studio tasks" in page
    assert "Nobody wrote a response." in page
    tasks = client.get(f"{PAGE}label-studio/?axis=safety")
    assert tasks.status_code == 200
    assert 'filename="apollo-v1-label-studio-safety.zip"' in tasks["Content-Disposition"]
    with zipfile.ZipFile(io.BytesIO(body(tasks))) as packed:
        assert packed.namelist() == ["labeling_config.xml", "tasks.json"]
    assert "left out: 3 × a tie" in client.get(PAGE).content.decode()
    refused = client.get(f"{PAGE}sft/", follow=True)
    assert "Nobody wrote a response." in refused.content.decode()
    assert "There is no form" in client.get(f"{PAGE}excel/", follow=True).content.decode()
    wit = client.get(f"{PAGE}kto/?axis=wit", follow=True).content.decode()
    assert "has the axes helpfulness, safety" in wit


def test_a_form_is_made_once_and_again_where_its_files_are_gone(client, rita, version, settings):
    client.force_login(rita)
    first = body(client.get(f"{PAGE}trl/"))
    [export] = Export.objects.all()
    at = export.created_at
    assert body(client.get(f"{PAGE}trl/")) == first
    export.refresh_from_db()
    assert export.created_at == at
    shutil.rmtree(settings.CACHE_DIR / "forms")
    assert body(client.get(f"{PAGE}trl/")) == first
    export.refresh_from_db()
    assert export.created_at > at
    Export.objects.update(revision=0)  # made by an earlier version of the product
    assert body(client.get(f"{PAGE}trl/")) == first
    assert len(list((settings.CACHE_DIR / "forms").iterdir())) == 1


@pytest.mark.parametrize(
    "address", [f"{API}files/preferences.jsonl", f"{API}archive/", f"{API}forms/csv/"]
)
def test_a_download_that_broke_off_is_resumed(client, rita, version, address):
    client.force_login(rita)
    whole = client.get(address)
    data = body(whole)
    sha256 = hashlib.sha256(data).hexdigest()
    digest = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    etag = whole["ETag"]
    assert (etag, whole["X-Content-SHA256"], whole["Repr-Digest"]) == (
        f'"{sha256}"',
        sha256,
        digest,
    )
    assert (whole["Accept-Ranges"], whole["Content-Length"]) == ("bytes", str(len(data)))

    rest = client.get(address, headers={"range": "bytes=100-", "if-range": etag})
    assert (rest.status_code, data[:100] + body(rest)) == (206, data)
    assert rest["Content-Range"] == f"bytes 100-{len(data) - 1}/{len(data)}"
    assert rest["Repr-Digest"] == digest  # of the whole, to check what was put together
    for asked, expected in {
        "bytes=0-0": data[:1],
        "bytes=-7": data[-7:],
        "bytes=5-9": data[5:10],
    }.items():
        part = client.get(address, headers={"range": asked})
        assert (part.status_code, body(part), int(part["Content-Length"])) == (
            206,
            expected,
            len(expected),
        )
    # Another file in its place, several ranges and nonsense give the whole.
    for headers in (
        {"range": "bytes=100-", "if-range": '"other"'},
        {"range": "bytes=0-1,5-6"},
        {"range": "bytes=9-5"},
        {"range": "lines=1-2"},
    ):
        answer = client.get(address, headers=headers)
        assert (answer.status_code, body(answer)) == (200, data)
    beyond = client.get(address, headers={"range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond["Content-Range"]) == (416, f"bytes */{len(data)}")
    same = client.get(address, headers={"if-none-match": f'"x", {etag}'})
    assert (same.status_code, same.content) == (304, b"")
    head = client.head(address.replace("/api/v1/projects/apollo/snapshots/", "/projects/apollo/data/")
                       .replace("archive/", "archive.zip"))  # fmt: skip
    assert (head.status_code, head["ETag"]) == (200, etag)


def test_a_large_form_is_made_in_the_background(client, rita, version, monkeypatch):
    monkeypatch.setattr(exporting, "MAX_WAITED_FOR", 2)
    client.force_login(rita)
    begun = client.get(f"{API}forms/groups/")
    assert (begun.status_code, begun.json()["total"]) == (202, 6)
    assert begun["Retry-After"] == "5"
    Export.objects.update(done=4)
    assert client.get(f"{API}forms/groups/").json()["done"] == 4
    page = client.get(PAGE).content.decode()
    assert "4 of 6 rows" in page
    assert "data-poll" in page
    again = client.get(f"{PAGE}groups/")
    assert again["Location"] == PAGE
    assert Export.objects.count() == 1
    make(Export.objects.get())
    assert client.get(f"{API}forms/groups/").status_code == 200
    assert "data-poll" not in client.get(PAGE).content.decode()
    # The zip of a version as large as that is streamed, unless it was made.
    streamed = client.get(f"{API}archive/")
    assert "ETag" not in streamed
    with zipfile.ZipFile(io.BytesIO(body(streamed))) as packed:
        assert packed.testzip() is None


def test_a_stopped_server_leaves_a_form_that_can_be_asked_for_again(
    client, rita, version, monkeypatch
):
    monkeypatch.setattr(exporting, "MAX_WAITED_FOR", 2)
    client.force_login(rita)
    client.get(f"{PAGE}kto/")
    late = Export.objects.get()  # as the thread that is still at it has it
    Export.objects.update(beat_at=timezone.now() - timedelta(minutes=4))
    assert "The server was stopped" in client.get(PAGE).content.decode()
    client.get(f"{PAGE}kto/")
    now = Export.objects.get()
    assert (now.state, now.folder != late.folder) == ("writing", True)
    make(late)  # it was only slow; its row is another's now
    assert Export.objects.get().state == "writing"
    make(now)
    made = Export.objects.get()
    assert (made.state, download_path(made).is_file()) == ("done", True)


def test_the_api_lists_the_forms_and_says_why_one_cannot_be_had(client, rita, version):
    client.force_login(rita)
    forms = {form["form"]: form for form in client.get(f"{API}forms/").json()}
    assert forms["trl"]["axes"] == ["helpfulness", "safety"]
    assert forms["sft"]["why_not"] == "Nobody wrote a response."
    refused = client.get(f"{API}forms/sft/")
    assert (refused.status_code, "Nobody wrote" in refused.json()["detail"]) == (409, True)
    assert client.get(f"{API}forms/excel/").status_code == 409
