"""`croissant.json`: the version's description for machines, in MLCommons' Croissant 1.0 with RAI 1.0.

It describes the Parquet files, whose types every reader takes from the file: of JSON Lines
mlcroissant 1.1 makes numbers of texts such as "007".
"""

import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output

# The standard context, whole: mlcroissant warns of any other.
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty",
            "fileObject", "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key",
            "md5", "parentField", "path", "recordSet", "references", "regex", "repeated",
            "replace", "samplingRate", "separator", "source", "subField", "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}  # fmt: skip
CONFORMS_TO = [
    "http://mlcommons.org/croissant/1.0",
    "http://mlcommons.org/croissant/RAI/1.0",
]


def croissant(frozen: Frozen, _: str, output: Output) -> None:
    """`croissant.json` and the Parquet files that it describes."""
    facts = frozen.facts
    described = []
    for file in facts["files"]:
        if file["name"].endswith(".parquet"):
            schema = pq.read_schema(frozen.folder / file["name"])
            described.append((file, schema))
            _copy(frozen.folder / file["name"], output.folder / file["name"])
            output.count(file["name"], file["rows"])
    output.write_json("croissant.json", description(facts, described))


def description(
    facts: dict[str, Any], files: list[tuple[dict[str, Any], pa.Schema]]
) -> dict[str, Any]:
    """The JSON-LD. `facts` is from `dataset_facts`; `files` are records of Snapshot.files, with columns."""
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        **facts["about"],
        **{f"rai:{name}": value for name, value in facts["responsible_ai"].items() if value},
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": file["name"],
                "name": file["name"],
                "contentUrl": file["name"],
                "contentSize": f"{file['bytes']} B",
                "encodingFormat": "application/x-parquet",
                "sha256": file["sha256"],
            }
            for file, _ in files
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": Path(file["name"]).stem,
                "name": Path(file["name"]).stem,
                "description": f"{file['rows']} rows",
                "field": [_field(column, file["name"]) for column in schema],
            }
            for file, schema in files
        ],
    }


def _field(column: pa.Field, file: str) -> dict[str, Any]:
    source = {"fileObject": {"@id": file}, "extract": {"column": column.name}}
    return _typed(f"{Path(file).stem}/{column.name}", column.name, column.type, source)


def _typed(identity: str, name: str, type: pa.DataType, source: dict[str, Any]) -> dict[str, Any]:
    field: dict[str, Any] = {"@type": "cr:Field", "@id": identity, "name": name}
    if pa.types.is_list(type):
        field["repeated"] = True
        type = type.value_type
    if pa.types.is_struct(type):
        field["subField"] = [
            _typed(
                f"{identity}/{part.name}",
                part.name,
                part.type,
                {**source, "transform": {"jsonPath": _path(part.name)}},
            )
            for part in type
        ]
        return field
    return field | {"dataType": _data_type(type), "source": source}


def _path(name: str) -> str:
    """A member's name as a JSONPath: quoted, as it may have any character."""
    return "'" + name.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _data_type(type: pa.DataType) -> str:
    if pa.types.is_boolean(type):
        return "sc:Boolean"
    if pa.types.is_integer(type):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(type) else "sc:Text"


def _copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them: a frozen file never changes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
