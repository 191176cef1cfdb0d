"""Columns of the exported files, as Arrow schemas; docs/formats.md describes each field."""

from collections.abc import Sequence

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

# TRL's conversational preference format, and what makes a row traceable.
PAIR_SCHEMA = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("prompt_id", pa.string()),
        ("annotator", pa.string()),
        ("weight", pa.float64()),
    ]
)
# The same for comparisons of two that ask for a strength.
MARGIN_SCHEMA = pa.schema([*PAIR_SCHEMA, ("strength", pa.int32()), ("margin", pa.float64())])


def judgment_schema(axes: Sequence[str]) -> pa.Schema:
    """Columns of `preferences`: a line of docs/formats.md, one list of ranks per axis."""
    return pa.schema(
        [
            ("judgment_id", pa.string()),
            ("prompt_id", pa.string()),
            ("annotator", pa.string()),
            ("round", pa.string()),
            ("messages", MESSAGES),
            ("category", pa.string()),
            ("risk", pa.string()),
            ("responses", pa.list_(pa.string())),
            ("finished", pa.list_(pa.bool_())),
            ("ranks", pa.struct([(axis, pa.list_(pa.int32())) for axis in axes])),
            ("weight", pa.float64()),
            ("strength", pa.struct([(axis, pa.int32()) for axis in axes])),
            ("margin", pa.struct([(axis, pa.float64()) for axis in axes])),
            ("unranked", pa.string()),
            ("all_bad", pa.list_(pa.string())),
            ("reason", pa.string()),
        ]
    )


RESPONSE_COLUMNS = [
    ("judgment_id", pa.string()),
    ("prompt_id", pa.string()),
    ("annotator", pa.string()),
    ("round", pa.string()),
    ("messages", MESSAGES),
    ("category", pa.string()),
    ("risk", pa.string()),
    ("response", pa.string()),
]

DEMONSTRATION_SCHEMA = pa.schema(
    [*RESPONSE_COLUMNS, ("kind", pa.string()), ("based_on", pa.string()), ("weight", pa.float64())]
)


def rating_schema(attributes: Sequence[str]) -> pa.Schema:
    """Columns of `ratings`: one number per attribute, null where it was not asked."""
    return pa.schema(
        [
            *RESPONSE_COLUMNS,
            # Parquet has no empty struct: where only safety is asked there is no such column.
            *(
                [("attributes", pa.struct([(key, pa.int32()) for key in attributes]))]
                * bool(attributes)
            ),
            ("safe", pa.bool_()),
            ("harms", pa.list_(pa.string())),
            ("reason", pa.string()),
        ]
    )
