"""Validates our description by mlcroissant and reads records by it. Prints JSON."""

import json
import sys
from itertools import islice
from pathlib import Path

import mlcroissant
import numpy


def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, numpy.generic):
        return value.item()
    if isinstance(value, (list, numpy.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key.rpartition("/")[2]: plain(item) for key, item in value.items()}
    return value


dataset = mlcroissant.Dataset(jsonld=str(Path(sys.argv[1]) / "croissant.json"))
issues = dataset.metadata.ctx.issues
found = {}
for record_set in dataset.metadata.record_sets:
    rows = [plain(row) for row in dataset.records(record_set.id)]
    found[record_set.id] = {
        "n": len(rows),
        "last": list(islice(rows, max(0, len(rows) - 12), None)),
    }
rai = {
    key: value
    for key, value in dataset.metadata.to_json().items()
    if key.startswith("rai:") and value
}
print(
    json.dumps(
        {
            "errors": sorted(map(str, issues.errors)),
            "warnings": sorted(map(str, issues.warnings)),
            "records": found,
            "rai": rai,
        },
        default=str,
    )
)
