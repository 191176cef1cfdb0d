"""Files as bytes: CSV, gzip and JSON arrays are read; what cannot be read says why."""

import csv
import gzip
import io
import json

import pytest

from annotation.data.downloads import CSV_COLUMNS
from annotation.data.import_formats import read_file, rows
from annotation.data.import_formats.read_file import read_prompts
from annotation.data.import_formats.report import ImportReport


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def refusals(file, **options):
    _, report = read_prompts(file, **options)
    return [(problem.line, problem.reason) for problem in report.problems]


def texts(file):
    items, report = read_prompts(file)
    assert report.ok, report.problems
    return [item.text for item in items]


def test_a_spreadsheets_csv_is_read_with_its_quotes_separators_and_byte_order_mark():
    excel = (
        '\ufeff"Prompt";Category;Risk\r\n"Say ""hi"";\r\nplease";greeting;harmless\r\n\r\nBye;;\r\n'
    )
    items, report = read_prompts(io.BytesIO(excel.encode()))
    assert [item.text for item in items] == ['Say "hi";\r\nplease', "Bye"]
    assert (items[0].category, items[0].risk, report.n_rows) == ("greeting", "harmless", 2)
    assert texts(io.BytesIO("prompt\tid\nWhy?\t7\n".encode("utf-16"))) == ["Why?"]


def test_gzip_and_json_arrays_are_read_too():
    assert texts(io.BytesIO(gzip.compress(b'{"prompt": "Why?"}\n'))) == ["Why?"]
    assert texts(io.BytesIO(b'[{"prompt": "Why?"}, {"prompt": "How?"}]')) == ["Why?", "How?"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"PAR1rest", "Parquet"),
        (b"name,age\nx,3\n", "names no known column"),
        (b"\x1f\x8b\x08broken", "damaged"),
        (b"prompt\ncaf\xe9\n", "Line 2 is not UTF-8"),
        (b"[1, 2", "starts with ["),
        (gzip.compress(b"\n" * 20_000_000), "unpacks to more"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_one_sentence(data, reason):
    [(line, told)] = refusals(io.BytesIO(data))
    assert line is None
    assert reason in told


def test_csv_problems_are_counted_from_the_line_where_a_row_begins():
    file = io.BytesIO(b'prompt,category\n"two\nlines",a\nshort\n"open,b\n')
    assert [line for line, _ in refusals(file)] == [4, 5]


def test_a_line_that_is_not_utf8_is_named():
    file = io.BytesIO(b'{"prompt": "fine"}\n{"prompt": "caf\xe9"}\n')
    assert refusals(file) == [(2, "not UTF-8; save the file as UTF-8.")]


def test_the_first_fifty_problems_are_listed_and_all_are_counted():
    _, report = read_prompts(io.BytesIO(b"{\n" * 70))
    assert (report.n_problems, len(report.problems)) == (70, 50)


def test_too_many_rows_and_too_large_a_file_are_refused(monkeypatch):
    monkeypatch.setattr(read_file, "MAX_ROWS", 2)
    assert "more than 2 rows" in refusals(lines(*[{"prompt": str(n)} for n in range(4)]))[0][1]
    monkeypatch.setattr(rows, "MAX_FILE", 10)
    assert "larger than" in refusals(io.BytesIO(b'{"prompt": "Why?"}'))[0][1]


def test_a_file_that_is_read_to_its_end_meanwhile_takes_no_room_from_another():
    long = "x" * 200_000
    one, other = (
        rows.csv_rows(f"prompt\n{text}\n{text}\n".encode(), ImportReport())
        for text in ("short", long)
    )
    next(one)
    next(other)
    assert [row["prompt"] for _, row in one] == ["short"]
    assert [row["prompt"] for _, row in other] == [long]


def test_a_header_with_one_name_twice_is_refused():
    [(line, reason)] = refusals(io.BytesIO(b"prompt,category,Category\nQ,x,y\n"))
    assert (line, "“category” twice" in reason) == (None, True)


MESSAGES = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "It's a tree?"}]


@pytest.mark.parametrize("spelled", [json.dumps(MESSAGES), repr(MESSAGES)])
def test_a_csv_cell_may_hold_a_list_of_messages_in_json_or_python(spelled):
    lines = io.StringIO()
    csv.writer(lines).writerows([["prompt", "category"], [spelled, "trees"], ["Why?", ""]])
    items, report = read_prompts(io.BytesIO(lines.getvalue().encode()))
    assert [len(item.messages) for item in items] == [2, 1], report.problems
    assert items[0].messages == MESSAGES


def test_a_cell_that_starts_like_messages_and_is_none_is_refused_with_its_line():
    lines = io.StringIO()
    broken = "[{'role': 'user', 'content': 'a'}\n {'role': 'assistant', 'content': 'b'}]"
    csv.writer(lines).writerows([["prompt"], ["Why?"], [broken]])
    [(line, reason)] = refusals(io.BytesIO(lines.getvalue().encode()))
    assert (line, "list of messages" in reason) == (3, True)


def test_our_own_csv_for_spreadsheets_is_refused_with_the_file_that_works():
    assert list(CSV_COLUMNS) == rows.OWN_CSV_COLUMNS
    text = "\ufeff" + ",".join(CSV_COLUMNS) + "\r\n" + "user: Q,'=a,b,p,annotator-1,1.0\r\n"
    [(line, reason)] = refusals(io.BytesIO(text.encode()))
    assert (line, "JSON Lines" in reason) == (None, True)
