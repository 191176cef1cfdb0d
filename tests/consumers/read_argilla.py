"""Reads our records and settings by Argilla's own SDK, without a server. Prints JSON."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import argilla
from argilla._models import DatasetModel
from argilla.client import Argilla

# Settings want a client only to create them on a server, which this does not do.
api = SimpleNamespace(fields=None, questions=None, metadata=None, vectors=None, datasets=None)
Argilla._default_client = SimpleNamespace(api=api)

folder = Path(sys.argv[1])
settings = argilla.Settings.from_json(folder / ".argilla" / "settings.json")
settings.validate()
DatasetModel(**json.loads((folder / ".argilla" / "dataset.json").read_text(encoding="utf-8")))
rows = json.loads((folder / "records.json").read_text(encoding="utf-8"))
records = [argilla.Record.from_dict(row) for row in rows]
fields, questions = {field.name for field in settings.fields}, settings.questions
for record in records:
    assert set(record.fields) == fields, record.fields
    for response in record.responses:
        assert {part["value"] for part in response.value} == set(questions[0].values)
print(
    json.dumps(
        {
            "n": len(records),
            "questions": [question.name for question in questions],
            "fields": sorted(fields),
            "last": records[-1].to_dict(),
        }
    )
)
