"""`schema.json` and the features of a dataset card: the columns of each table, in readers' own words.

A reader that guesses types from the first lines of JSON Lines guesses wrong: a column that is null there
stays null (DuckDB), fails when a value comes (`datasets`), and text that looks like a date becomes
one. With the types from here none of them has to guess.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

SCHEMA_FILE = "schema.json"
FORMAT = 2
"""Of the rows of a snapshot. 1, until 2026-11: keys and numbers differed between the two formats."""


def schema_file(tables: Mapping[str, pa.Schema]) -> bytes:
    """The content of `schema.json`: of each table its columns, and its schema for Arrow and DuckDB."""
    content = {
        "format": FORMAT,
        "tables": {
            name: {
                "files": {"jsonl": f"{name}.jsonl", "parquet": f"{name}.parquet"},
                "columns": {column.name: str(column.type) for column in schema},
                "duckdb": {column.name: duckdb_type(column.type) for column in schema},
                "arrow": base64.b64encode(schema.serialize()).decode(),
            }
            for name, schema in tables.items()
        },
    }
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def duckdb_type(type: pa.DataType) -> str:
    """The type as DuckDB's SQL writes it: for `read_json(…, columns=…)`."""
    if pa.types.is_list(type):
        return f"{duckdb_type(type.value_type)}[]"
    if pa.types.is_struct(type):
        fields = (f'"{_quoted(field.name)}" {duckdb_type(field.type)}' for field in type)
        return f"STRUCT({', '.join(fields)})"
    return {"string": "VARCHAR", "double": "DOUBLE", "int32": "INTEGER", "bool": "BOOLEAN"}[
        str(type)
    ]


def _quoted(name: str) -> str:
    return name.replace('"', '""')


def features(schema: pa.Schema) -> list[dict[str, Any]]:
    """The columns as the front matter of a dataset card has them (`datasets.Features`)."""
    return [{"name": column.name, **_feature(column.type)} for column in schema]


def _feature(type: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(type):
        return {"list": _feature(type.value_type)}
    if pa.types.is_struct(type):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in type]}
    return {"dtype": {"double": "float64"}.get(str(type), str(type))}
