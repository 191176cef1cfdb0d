"""Files of many kinds hold the same rows; archives and folders; what is too large or leads outside."""

import csv
import gzip
import io
import json
import zipfile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from annotation.data.import_formats.read_file import read_comparisons, read_prompts

ROWS = [
    {"prompt": "Name a tree.", "category": "trees"},
    {"prompt": "Name a bird\nthat is blüe.", "category": "birds"},
]
TURNS = [{"role": "user", "content": "Name a tree."}]


def json_lines(rows=ROWS):
    return "\n".join(json.dumps(row) for row in rows).encode()


def json_array(rows=ROWS):
    return json.dumps(rows, indent=1).encode()


def comma_separated():
    text = io.StringIO()
    csv.writer(text).writerows([ROWS[0], *(row.values() for row in ROWS)])
    return text.getvalue().encode()


def excel(rows=ROWS):
    book = openpyxl.Workbook()
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        book.active.append(row)
    return saved(book.save)


def parquet(rows=ROWS):
    return saved(lambda file: pq.write_table(pa.Table.from_pylist(rows), file))


def arrow_file():
    table = pa.Table.from_pylist(ROWS)
    return saved(lambda file: pa.ipc.new_file(file, table.schema).write_table(table))


def arrow_stream():
    table = pa.Table.from_pylist(ROWS)
    return saved(lambda file: pa.ipc.new_stream(file, table.schema).write_table(table))


def saved(save):
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def zipped(**files):
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), data)
    return file.getvalue()


def zstd(data):
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


MADE = [json_lines, json_array, comma_separated, excel, parquet, arrow_stream]


@pytest.mark.parametrize("make", MADE)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd, lambda data: zipped(rows_json=data)])
def test_every_kind_of_file_packed_or_not_holds_the_same_prompts(make, pack):
    items, report = read_prompts(io.BytesIO(pack(make())))
    assert report.ok, report.problems
    assert [(item.text, item.category) for item in items] == [tuple(row.values()) for row in ROWS]


def test_an_arrow_file_that_was_not_finished_is_named_as_damaged():
    _, report = read_prompts(io.BytesIO(arrow_file()))
    assert "Arrow file is damaged" in report.problems[0].reason


def test_columns_with_types_are_read_as_json_has_them():
    row = {"prompt": TURNS, "chosen": "An oak.", "rejected": "A rock.", "margin": float("nan")}
    items, report = read_comparisons(
        io.BytesIO(parquet([row])), axis="helpfulness", axes=["helpfulness"]
    )
    assert report.ok, report.problems
    assert items[0].prompt.messages == TURNS
    assert items[0].vote.strength == {}


def test_a_row_of_a_spreadsheet_has_the_number_that_the_spreadsheet_shows():
    rows = [{"prompt": "Fine", "risk": ""}, {"prompt": "Odd", "risk": "much"}]
    _, report = read_prompts(io.BytesIO(excel(rows)))
    assert [problem.place for problem in report.problems] == ["Row 3"]


def test_a_folder_of_datasets_is_read_with_the_splits_that_its_folders_name(tmp_path):
    DatasetDict(
        {name: Dataset.from_list([row]) for name, row in zip(("train", "test"), ROWS, strict=True)}
    ).save_to_disk(tmp_path / "saved")
    items, report = read_prompts(tmp_path / "saved")
    assert report.ok, report.problems
    assert {item.text: item.split for item in items} == {
        ROWS[0]["prompt"]: "train",
        ROWS[1]["prompt"]: "heldout",
    }
    assert len(report.sha256) == 64


def test_an_archive_reads_its_data_and_counts_the_rest():
    data = zipped(a_jsonl=json_lines(ROWS[:1]), b__test_csv=b"prompt\nWhy?\n", README_md=b"# Hi")
    items, report = read_prompts(io.BytesIO(data))
    assert [(item.text, item.split) for item in items] == [
        ("Name a tree.", ""),
        ("Why?", "heldout"),
    ]
    assert report.remarks == ["1: a file next to the data was not read"]
    _, report = read_prompts(io.BytesIO(zipped(a_jsonl=b'{"prompt": 3}\n')))
    assert str(report.problems[0]).startswith("Line 1 of a.jsonl: ")


def reason(data):
    _, report = read_prompts(io.BytesIO(data))
    [problem] = report.problems
    assert problem.line is None
    return problem.reason


def test_an_archive_that_leads_outside_or_hides_its_content_is_refused(settings):
    for name in ("../x.jsonl", "/etc/x.jsonl", "..\\x.jsonl", "C:\\x.jsonl"):
        with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
            archive.writestr(name, json_lines())
        assert "leaves its folder" in reason(file.getvalue())
    assert "an archive within an archive" in reason(zipped(a_gz=zipped(b_jsonl=json_lines())))
    assert "no file with rows" in reason(zipped(README_md=b"# Hi"))
    settings.IMPORT_MAX_FILES = 1
    assert "more than 1 files" in reason(zipped(a_jsonl=b"{}", b_jsonl=b"{}"))


def test_a_bomb_is_refused_before_it_fills_memory_or_disk(settings):
    settings.IMPORT_MAX_RATIO = 10
    lines = json_lines([{"prompt": "a" * 3_000_000}])
    for packed in (gzip.compress(lines), zstd(lines), zipped(a_jsonl=lines)):
        assert "unpacks to more than 1 MiB" in reason(packed)
    assert "several times over" in reason(gzip.compress(gzip.compress(gzip.compress(b"x" * 9))))


def test_a_row_that_is_too_long_or_too_deep_is_one_problem_and_the_rest_is_read(settings):
    settings.IMPORT_MAX_ROW_MIB = 0.01
    long = json.dumps({"prompt": "a" * 20_000})
    deep = '{"prompt": ' + "[" * 4_000 + "]" * 4_000 + "}"
    lines = "\n".join([long, '{"prompt": NaN}', deep, '{"prompt": "Why?"}'])
    items, report = read_prompts(io.BytesIO(lines.encode()))
    assert [problem.line for problem in report.problems] == [1, 2, 3]
    assert [item.text for item in items] == ["Why?"]
    items, report = read_prompts(
        io.BytesIO(f'[{{"prompt": "Why?"}}, {long}, {{"prompt": "How?"}}]'.encode())
    )
    assert [problem.line for problem in report.problems] == [2]
    assert "longer than 0.01 MiB" in report.problems[0].reason
    assert [item.text for item in items] == ["Why?", "How?"]
    assert "Line 2 is longer" in reason(b"prompt\n" + b"a" * 20_000)
