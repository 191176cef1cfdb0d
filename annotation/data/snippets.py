"""How a downloaded version is opened, one example for each reader, as the page prints it.

tests/annotation/data/test_snippets.py runs each next to the folder of a version.
"""

from typing import NamedTuple

from annotation.data.snapshot_files import JUDGMENTS, pair_file
from annotation.models import Snapshot


class Snippet(NamedTuple):
    key: str
    title: str
    code: str


def snippets_of(version: Snapshot, folder: str) -> list[Snippet]:
    """Examples for pandas, polars, DuckDB and PyArrow; `folder` is where the version was unpacked.

    They read Parquet, whose types are in the file.
    """
    names = {file["name"] for file in version.files}
    axes = [axis for axis, n in version.counts.get("pairs", {}).items() if n]
    tables = [pair_file(axis) for axis in axes] + [JUDGMENTS, "ratings", "demonstrations"]
    table = next((name for name in tables if f"{name}.parquet" in names), "")
    if not table:
        return []
    path = f"{folder}/{table}.parquet"
    return [
        Snippet(
            "pandas",
            "pandas",
            f'import pandas as pd\n\nrows = pd.read_parquet("{path}")\n'
            'print(rows.groupby("annotator").size())',
        ),
        Snippet(
            "polars",
            "Polars",
            f'import polars as pl\n\nrows = pl.read_parquet("{path}")\n'
            'print(rows.group_by("annotator").len())',
        ),
        Snippet(
            "duckdb",
            "DuckDB",
            f'import duckdb\n\nrows = duckdb.read_parquet("{path}")\n'
            'print(rows.aggregate("annotator, count(*) AS n"))',
        ),
        Snippet(
            "pyarrow",
            "PyArrow",
            f'import pyarrow.parquet as pq\n\nrows = pq.read_table("{path}")\nprint(rows.schema)',
        ),
    ]
