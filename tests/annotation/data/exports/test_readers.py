"""Rows as other people's readers read them, where a value comes only after 30,000 rows without one."""

import base64
import json
import math
import random
import uuid

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotation.data.exports.schema_file import SCHEMA_FILE
from annotation.data.exports.writers import TableWriter
from annotation.data.preferences import round_label
from annotation.data.snapshot_files import config_name
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Batch
from annotation.protocols import Protocol
from tests.factories import BatchFactory, judged

# For the fixture: without a test that is marked there is no database to freeze from.
pytestmark = pytest.mark.django_db

EARLY, LATE = 30_000, 1_500
# Numbers of which a rounding, or a detour through text, would change bits.
FLOATS = [1 / 3, 5e-12, math.nextafter(1, 2), 1e-300, 123456789.123456789, 0.1 + 0.2, 1.0, 2.0**53]
# Texts that readers take for something else.
TRAPS = ["007", "2026-11-30", "1e5", "null", "true", "12:30:00", "\u2028\x00\\", "‮é🌱", ""]


@pytest.fixture(scope="module")
def folder(django_db_setup, django_db_blocker, tmp_path_factory):
    """A frozen version with every table, whose files are then filled by the same writers."""
    from django.db import transaction
    from django.test import override_settings

    from tests.factories import ProjectFactory, UserFactory

    place = tmp_path_factory.mktemp("snapshots")
    with django_db_blocker.unblock(), transaction.atomic(), override_settings(SNAPSHOTS_DIR=place):
        project, ada = ProjectFactory(slug="readers"), UserFactory(username="ada of the readers")
        asked = [{"key": "no", "name": "Clear", "low": 1, "high": 5}]
        protocol = Protocol.from_json({"attributes": asked, "safety": True})
        batch = BatchFactory(project=project, protocol=protocol.as_json())
        judgment = judged(project, by=ada, batch=batch, ranks=(1, 2)).judgment
        first = next(iter(judgment.ranks["helpfulness"]))
        judgment.ratings = {first: {"no": 3}}
        judgment.safety = {first: {"safe": True, "harms": []}}
        judgment.strength = {"helpfulness": {"level": 1, "margin": 0.5}}
        judgment.rewrite = "A better answer."
        judgment.save()
        snapshot = freeze_snapshot(project, by=ada)
        made = snapshot.folder
        transaction.set_rollback(True)
    for name, schema in schemas_of(made).items():
        with TableWriter(made, name, schema) as table:
            for row in rows_of(schema):
                table.write(row)
    return made


def schemas_of(folder):
    tables = json.loads((folder / SCHEMA_FILE).read_text())["tables"]
    return {
        name: pa.ipc.read_schema(pa.py_buffer(base64.b64decode(table["arrow"])))
        for name, table in tables.items()
    }


def rows_of(schema):
    """Rows of which columns that may be null are so in the first 30,000."""
    draw = random.Random(7)
    for number in range(EARLY + LATE):
        yield {
            column.name: value(column.name, column.type, number >= EARLY, draw) for column in schema
        }


def value(name, type, is_late, draw):
    if name in ("judgment_id", "prompt_id"):
        return str(uuid.UUID(int=draw.getrandbits(128)))
    if name == "annotator":
        return f"annotator-{draw.randrange(10):010d}"
    if name == "round":
        return "round 7"
    if pa.types.is_struct(type):
        return {part.name: value(part.name, part.type, is_late, draw) for part in type}
    if pa.types.is_list(type):
        n = draw.randrange(1, 3) if is_late or name in ("messages", "prompt", "chosen") else 0
        return [value("", type.value_type, is_late, draw) for _ in range(n)]
    if pa.types.is_string(type):
        words = "Give it a little water, and some light from the side, in the morning. " * 2
        return draw.choice(TRAPS) if is_late else words
    if not is_late and name not in ("weight", "kind"):
        return None
    if pa.types.is_float64(type):
        return draw.choice(FLOATS)
    return draw.random() < 0.5 if pa.types.is_boolean(type) else draw.randrange(1, 9)


def parquet(folder, name):
    return pq.read_table(folder / f"{name}.parquet")


def test_the_two_formats_say_what_was_written(folder):
    for name, schema in schemas_of(folder).items():
        table = parquet(folder, name)
        assert table.schema == schema
        rows = list(rows_of(schema))
        assert table.slice(EARLY - 10).to_pylist() == rows[EARLY - 10 :]
        lines = (folder / f"{name}.jsonl").read_bytes().split(b"\n")
        assert [json.loads(line) for line in lines[EARLY - 10 : -1]] == rows[EARLY - 10 :]
        assert {tuple(json.loads(line)) for line in lines[:-1:500]} == {tuple(schema.names)}


def test_datasets_reads_both_formats_alike_in_every_configuration(folder, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert set(schemas_of(folder)) == {
        "preferences", "pairs-helpfulness", "pairs-safety", "ratings", "demonstrations",
    }  # fmt: skip
    for name in schemas_of(folder):
        for files in (None, f"{name}.jsonl"):
            read = datasets.load_dataset(
                str(folder), config_name(name), data_files=files, split="train",
                cache_dir=str(tmp_path),
            )  # fmt: skip
            assert read.data.table.combine_chunks() == parquet(folder, name).combine_chunks()
            assert read.features == datasets.Features.from_arrow_schema(schemas_of(folder)[name])


def test_pandas_reads_them_as_the_documentation_says(folder):
    pandas = pytest.importorskip("pandas")
    for name in schemas_of(folder):
        lines = folder / f"{name}.jsonl"
        read = pandas.read_json(lines, lines=True, dtype=False, precise_float=True)
        columns = set(read) & {"weight", "margin", "response", "reason", "category", "messages"}
        written = parquet(folder, name).to_pandas()
        for column in columns - {"messages", "margin"}:
            assert read[column].tolist() == written[column].tolist()
        if name.startswith("pairs"):
            assert read["margin"][EARLY:].tolist() == written["margin"][EARLY:].tolist()
        # Names and ids are texts for a reader that guesses, too.
        guessed = pandas.read_json(lines, lines=True)
        for column in ("annotator", "round", "judgment_id", "prompt_id"):
            if column in guessed:
                assert guessed[column].tolist() == written[column].tolist()


def test_polars_reads_lines_by_the_schema_of_the_parquet_file(folder):
    polars = pytest.importorskip("polars")
    for name in schemas_of(folder):
        written = polars.read_parquet(folder / f"{name}.parquet")
        read = polars.read_ndjson(folder / f"{name}.jsonl", schema=written.schema)
        assert read.equals(written)


def test_duckdb_reads_lines_by_the_types_of_the_schema_file(folder):
    duckdb = pytest.importorskip("duckdb")
    tables = json.loads((folder / SCHEMA_FILE).read_text())["tables"]
    for name, table in tables.items():
        columns = table["duckdb"]
        both = [
            f"(SELECT * FROM read_json('{folder}/{name}.jsonl', columns={columns}))",
            f"(SELECT * FROM '{folder}/{name}.parquet')",
        ]
        for one, other in (both, both[::-1]):
            assert duckdb.sql(f"{one} EXCEPT ALL {other}").fetchall() == []


@pytest.mark.parametrize("name", ["2026-11-30", "7", "NaN", "Infinity", "1e5", "１２", ""])
def test_a_batch_named_like_a_number_or_a_date_is_a_text_in_every_row(name):
    assert round_label(Batch(pk=1, name=name), None) == f"batch {name}"
    assert round_label(Batch(pk=1, name="Round 1"), None) == "Round 1"
    assert round_label(Batch(pk=1, name=name), {1: 3}) == "round 3"
    assert round_label(Batch(pk=1, name=name), {1: ""}) == ""


def test_a_row_without_a_column_is_refused(tmp_path):
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])
    with (
        pytest.raises(ValueError, match="columns of its table: b"),
        TableWriter(tmp_path, "t", schema) as table,
    ):
        table.write({"a": "x"})
    with (
        pytest.raises(pa.ArrowInvalid),
        TableWriter(tmp_path, "t", schema) as table,
    ):
        table.write({"a": "x", "b": "late"})
