"""Files as bytes: CSV, gzip and JSON arrays are read; what cannot be read says why."""

import csv
import gzip
import io
import json

import pytest

from annotation.data.exports.forms import CSV_COLUMNS
from annotation.data.import_formats import csv_rows
from annotation.data.import_formats.read_file import read_prompts
from annotation.data.import_formats.report import ImportReport
from annotation.data.import_formats.streams import stored


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


KINDS = {
    b"\xfd7zXZ\x00rest": "an xz file",
    b"BZh9rest": "a bzip2 file",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500): "an old Excel",
    b"ARROW1" + bytes(80): "Arrow file is damaged",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a Git LFS pointer",
    b"<!doctype html>\n<html><body>Not found</body></html>": "a web page",
    b"\n<HTML><body>Not found</body></html>": "a web page",
    b"\x80\x04\x95rest": "a Python pickle",
    b"%PDF-1.7": "a PDF",
    bytes(257) + b"ustar": "a tar archive",
}


@pytest.mark.parametrize("data", KINDS, ids=KINDS.values())
def test_a_file_without_rows_is_named_for_what_it_is(data):
    [(line, reason)] = refusals(io.BytesIO(data))
    assert line is None
    assert KINDS[data] in reason


def test_utf16_without_a_mark_and_excels_line_about_the_delimiter_are_read():
    text = "prompt,category\nWhy?,x\nHow?,y\n"
    for encoding in ("utf-16-le", "utf-16-be", "utf-32"):
        assert texts(io.BytesIO(text.encode(encoding))) == ["Why?", "How?"]
    for mark in ("", "\ufeff"):
        excel = f"{mark}sep=;\r\nprompt;category\r\nWhy, then?;x\r\nHow?;y;z\r\n"
        assert refusals(io.BytesIO(excel.encode())) == [(4, "3 cells, but the header names 2.")]
    assert texts(io.BytesIO(b"sep=;\nprompt;category\nWhy, then?;x\n")) == ["Why, then?"]


def test_rows_of_an_array_are_counted_and_an_object_over_lines_is_one_row():
    pretty = json.dumps([{"prompt": "Q"}, {"chosen": 3}, {"prompt": "R"}], indent=2)
    _, report = read_prompts(io.BytesIO(pretty.encode()))
    assert [str(problem)[:6] for problem in report.problems] == ["Row 2:"]
    viewer = {"features": [], "rows": [{"row_idx": 0, "row": {"prompt": "Q"}}]}
    assert texts(io.BytesIO(json.dumps(viewer, indent=2).encode())) == ["Q"]
    several = json.dumps({"prompt": "A"}, indent=2) + "\n" + json.dumps({"prompt": "B"}, indent=2)
    assert texts(io.BytesIO(several.encode())) == ["A", "B"]
    _, report = read_prompts(io.BytesIO(json.dumps({"x": 1, "y": 2}, indent=2).encode()))
    assert [str(problem)[:6] for problem in report.problems] == ["Row 1:"]


def test_line_ends_of_any_kind_and_mixed_ones_are_read():
    assert texts(io.BytesIO(b'{"prompt": "A"}\r\n{"prompt": "B"}\n{"prompt": "C"}')) == list("ABC")
    assert texts(io.BytesIO(b'{"prompt": "A"}\r{"prompt": "B"}\r')) == ["A", "B"]
    assert texts(io.BytesIO(b'prompt,id\rA,1\r\n"B",2\nC,3\r')) == list("ABC")


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
        (b"PK\x03\x04rest", "zip file is damaged"),
        (b"PAR1rest", "Parquet file is damaged"),
        (b"name,age\nx,3\n", "names no known column"),
        (b"\x1f\x8b\x08broken", "damaged"),
        (b"prompt\ncaf\xe9\n", "Line 2 is not UTF-8"),
        (b'["A", "B"', "starts with ["),
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


def test_too_many_rows_and_too_large_a_file_are_refused(settings):
    settings.IMPORT_MAX_ROWS = 2
    assert "more than 2 rows" in refusals(lines(*[{"prompt": str(n)} for n in range(4)]))[0][1]
    settings.IMPORT_MAX_MIB = 0
    assert "larger than" in refusals(io.BytesIO(b'{"prompt": "Why?"}'))[0][1]


def test_a_file_that_is_read_to_its_end_meanwhile_takes_no_room_from_another():
    long = "x" * 200_000
    one, other = (
        csv_rows.csv_rows(stored(io.BytesIO(f"prompt\n{text}\n{text}\n".encode())), ImportReport())
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
    assert list(CSV_COLUMNS) == csv_rows.OWN_CSV_COLUMNS
    text = "\ufeff" + ",".join(CSV_COLUMNS) + "\r\n" + "user: Q,'=a,b,p,annotator-1,1.0\r\n"
    [(line, reason)] = refusals(io.BytesIO(text.encode()))
    assert (line, "JSON Lines" in reason) == (None, True)
