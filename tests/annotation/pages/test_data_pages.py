"""The pages of data, without a browser: forms that work without script, words that help."""

import csv
import io
import json
import re

import pytest

from annotation.data.snapshots import freeze_snapshot
from annotation.models import ApiToken, Event, Prompt, Source
from rlhf.models import Checkpoint
from tests.factories import SourceFactory, judged
from tests.signing_in import sign_in_with_password

pytestmark = pytest.mark.django_db

IMPORT = "/projects/apollo/prompts/import/"


def upload(client, data, address=IMPORT, **fields):
    file = io.BytesIO(data)
    file.name = "prompts.jsonl"
    given = {"kind": "prompts", "name": "Mine", "licence": "CC0-1.0", "file": file, **fields}
    headers = given.pop("headers", {})
    return client.post(address, given, headers=headers)


def test_a_file_is_checked_before_it_is_imported(client, project, grace):
    client.force_login(grace)
    answer = upload(client, b'{"prompt": "Why?"}\n', action="check", headers={"HX-Request": "true"})
    page = answer.content.decode()
    assert "one prompt a row" in page
    assert "Why?" in page
    assert "<html" not in page
    assert not Prompt.objects.exists()


def test_a_good_file_is_imported_and_a_bad_one_keeps_what_was_typed(client, project, grace):
    client.force_login(grace)
    refused = upload(client, b'{"prompt": "Why?"}\n{"prompt": 3}\n', name="Typed by hand")
    page = refused.content.decode()
    assert refused.status_code == 422
    assert "Nothing was imported" in page
    assert "Line 2" in page
    assert "Import the good rows" in page
    assert 'value="Typed by hand"' in page
    assert not Prompt.objects.exists()
    done = upload(client, b'{"prompt": "Why?"}\n', sign_off="on")
    assert done.status_code == 302
    assert Prompt.objects.get().source.signed_off_by == grace
    assert Event.objects.filter(verb="signed off source", actor=grace).exists()


def test_a_file_without_a_source_or_no_file_says_so(client, project, grace):
    client.force_login(grace)
    assert "Name the source" in upload(client, b'{"prompt": "Why?"}', name="").content.decode()
    assert client.post(IMPORT, {"kind": "prompts", "name": "x"}).status_code == 422


def test_comparisons_come_in_by_the_same_page(client, project, grace):
    client.force_login(grace)
    row = json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}).encode()
    assert upload(client, row, kind="everything", axis="safety").status_code == 302
    assert project.batches.get().is_imported


def test_the_preview_counts_and_shows_rows_as_they_will_stand(client, project, grace):
    client.force_login(grace)
    rows = [
        {"prompt": "Why?"},
        {"prompt": "Why?"},
        {"prompt": "How?", "responses": ["So.", "Thus."]},
        {"prompt": "Which?", "chosen": "This.", "rejected": "That."},
        {"prompt": 7},
        {"prompt": "=1+1", "chosen": "x"},
    ]
    data = "\n".join(json.dumps(row) for row in rows).encode()
    page = upload(client, data, kind="everything", action="check").content.decode()
    counts = re.findall(r"<dt>(New|Duplicates|Refused)</dt><dd>(\d+)</dd>", page)
    assert counts == [("New", "3"), ("Duplicates", "1"), ("Refused", "2")]
    assert "helpfulness 1" in page
    assert "not judged yet" in page
    table = upload(client, data, kind="everything", action="refused")
    lines = list(csv.reader(io.StringIO(b"".join(table).decode("utf-8-sig"))))
    assert [line[:3] for line in lines] == [
        ["row", "file", "field"],
        ["5", "", "prompt"],
        ["6", "", "rejected"],
    ]
    assert not Prompt.objects.exists()
    assert upload(client, data, kind="everything", action="good").status_code == 302
    assert Prompt.objects.count() == 3
    again = upload(client, data, kind="everything", action="check").content.decode()
    assert re.findall(r"<dt>New</dt><dd>(\d+)</dd>", again) == ["0"]


def test_a_person_says_what_the_columns_of_a_file_are(client, project, grace):
    client.force_login(grace)
    data = b"Frage;Gut;Schlecht;Notiz\nWarum?;Darum.;Nein.;x\n"
    page = upload(client, data, kind="everything", action="check").content.decode()
    assert "names no known column" in page
    assert 'name="column:frage"' in page
    names = {"column:frage": "prompt", "column:gut": "chosen", "column:schlecht": "rejected"}
    names["column:notiz"] = ""
    page = upload(client, data, kind="everything", action="check", **names).content.decode()
    assert "prompt, chosen, rejected (TRL)" in page
    assert "not read" not in page
    assert upload(client, data, kind="everything", **names).status_code == 302
    assert Prompt.objects.get().text == "Warum?"


def test_an_admin_signs_a_source_off_once(client, project, grace, rita):
    source = SourceFactory(project=project, signed_off_at=None)
    address = f"/projects/apollo/sources/{source.pk}/sign-off/"
    client.force_login(rita)
    assert client.post(address).status_code == 404
    client.force_login(grace)
    assert client.get(address).status_code == 405
    assert client.post(address).status_code == 302
    first = Source.objects.get(pk=source.pk).signed_off_at
    client.post(address)
    assert Source.objects.get(pk=source.pk).signed_off_at == first
    assert Event.objects.filter(verb="signed off source").count() == 1


def test_a_source_without_a_licence_is_not_signed_off(client, project, grace):
    source = SourceFactory(project=project, signed_off_at=None, licence="")
    address = f"/projects/apollo/sources/{source.pk}/sign-off/"
    client.force_login(grace)
    assert "Name the license" in client.post(address, follow=True).content.decode()
    assert not Source.objects.get(pk=source.pk).is_signed_off
    client.post(address, {"licence": "MIT"})
    assert Source.objects.get(pk=source.pk).licence == "MIT"
    refused = upload(client, b'{"prompt": "Why?"}\n', sign_off="on", licence="")
    assert "Name the license" in refused.content.decode()


def test_another_projects_source_is_not_there(client, project, grace):
    foreign = SourceFactory(signed_off_at=None)
    client.force_login(grace)
    assert client.post(f"/projects/apollo/sources/{foreign.pk}/sign-off/").status_code == 404


def test_a_reviewer_reads_a_version_and_only_researchers_take_it_away(
    client, project, ada, rita, vera
):
    judged(project, by=ada)
    client.force_login(vera)
    assert client.post("/projects/apollo/data/", {}).status_code == 404
    client.force_login(rita)
    assert client.post("/projects/apollo/data/", {"note": "for the paper"}).status_code == 302
    page = client.get("/projects/apollo/data/1/").content.decode()
    assert "for the paper" in page
    assert "1 person" in page
    assert ": 1 judgment," in " ".join(page.split())
    assert "/data/1/archive.zip" in page
    # The second snippet is run where the first one was, beside the folder and not in it.
    assert "(cd apollo-v1 &amp;&amp; sha256sum -c SHA256SUMS)" in page
    assert 'load_dataset("apollo-v1"' in page
    got = client.get("/projects/apollo/data/1/files/preferences.parquet")
    assert got["Content-Disposition"].startswith("attachment")
    assert b"".join(got.streaming_content).startswith(b"PAR1")
    client.force_login(vera)
    page = client.get("/projects/apollo/data/1/").content.decode()
    assert "archive.zip" not in page
    assert client.get("/projects/apollo/data/1/archive.zip").status_code == 404


def test_with_nothing_to_freeze_the_page_says_why(client, project, rita):
    client.force_login(rita)
    answer = client.post("/projects/apollo/data/", {})
    assert answer.status_code == 422
    assert "no judgments yet" in answer.content.decode()


def test_the_page_of_a_version_shows_its_first_pairs_its_lineage_and_how_to_open_it(
    client, project, ada, rita, grace
):
    for _ in range(4):
        judged(project, by=ada, ranks=(1, 2, 3, 4))
    version = freeze_snapshot(project, by=rita)
    Checkpoint.objects.create(
        project=project, kind="reward_model", name="judge of ada", path="x", snapshot=version
    )
    client.force_login(rita)

    def rows(query):
        answer = client.get(f"/projects/apollo/data/1/{query}", headers={"HX-Request": "true"})
        return answer.content.decode().count("<tr>") - 1

    assert rows("") == rows("?axis=safety") == rows("?axis=nonsense") == 6
    page = client.get("/projects/apollo/data/1/").content.decode()
    assert "/projects/apollo/data/1/rows/?file=pairs-helpfulness" in page
    assert "All 24 pairs" in page
    assert "judge of ada" in page
    picture = page.split('class="lineage"')[1].split("</svg>")[0]
    assert picture.count('<path d="M') == 2 * 4 + 1
    assert f"/projects/apollo/batches/{project.batches.first().pk}/" in page
    (version.folder / "pairs-helpfulness.parquet").write_bytes(b"PAR1 damaged")
    assert client.get("/projects/apollo/data/1/").status_code == 200
    page = client.get("/projects/apollo/data/1/rows/").content.decode()
    assert "is damaged" in page


def test_a_new_token_is_shown_once(client, project, rita, otto):
    sign_in_with_password(client, rita)
    sent = {"name": "Paper 7", "days": "30", "scopes": ["read", "export"]}
    page = client.post("/account/tokens/", sent).content.decode()
    token = ApiToken.objects.get()
    assert page.count(token.token_key) > 1
    plain = page.split('id="new-token" tabindex="0">')[1].split("<")[0]
    assert plain.startswith("gc_")
    assert plain not in client.get("/account/tokens/").content.decode()
    client.force_login(otto)
    assert "Paper 7" not in client.get("/account/tokens/").content.decode()
    assert client.post(f"/account/tokens/{token.token_key}/revoke/").status_code == 404
    sign_in_with_password(client, rita)
    client.post(f"/account/tokens/{token.token_key}/revoke/")
    assert not ApiToken.objects.exists()
    assert client.post("/account/tokens/", {"name": ""}).status_code == 422


def test_lists_cost_few_queries(client, project, ada, rita, django_assert_max_num_queries):
    for _ in range(30):
        judged(project, by=ada)
    freeze_snapshot(project, by=rita)
    client.force_login(rita)
    client.get("/projects/apollo/")  # the first page of a session lists the session
    for address, most in (("prompts/", 16), ("data/", 17), ("data/1/", 12)):
        with django_assert_max_num_queries(most):
            assert client.get(f"/projects/apollo/{address}").status_code == 200


def test_a_version_of_no_batch_at_all_is_refused_and_not_made_of_every_batch(
    client, project, ada, rita
):
    for _ in range(2):
        judged(project, by=ada)
    client.force_login(rita)
    assert 'name="choosing"' in client.get("/projects/apollo/data/").content.decode()
    answer = client.post("/projects/apollo/data/", {"choosing": "on", "note": "only the good ones"})
    page = answer.content.decode()
    assert answer.status_code == 422
    assert "Select at least one batch" in page
    assert "only the good ones" in page
    assert not re.search(r'name="batches"[^>]*checked', page)
    assert not project.snapshots.exists()
