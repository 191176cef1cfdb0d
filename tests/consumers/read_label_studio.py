"""Reads our tasks by label-studio-sdk: its labeling interface, and its converter. Prints JSON."""

import json
import sys
import tempfile
from pathlib import Path

from label_studio_sdk.converter import Converter
from label_studio_sdk.label_interface import LabelInterface

folder = Path(sys.argv[1])
config = (folder / "labeling_config.xml").read_text(encoding="utf-8")
interface = LabelInterface(config)
interface.validate()
tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
# Not validate_task, which in 2.1.2 fails on every task with annotations, nor validate_annotation, which
# refuses what the SDK's own control makes of a choice: ours is compared with that.
control = interface.get_control("better")
valid = all(interface.validate_task({"data": task["data"]}) is True for task in tasks)
for task in tasks:
    for annotation in task["annotations"]:
        [result] = annotation["result"]
        value = result["value"]
        made = control.label(value["selected"])._dict()
        same = all(result[key] == made[key] for key in ("from_name", "to_name", "type", "value"))
        valid = valid and same and control.validate_value(value)
with tempfile.TemporaryDirectory() as out:
    converter = Converter(config, str(folder), download_resources=False)
    converter.convert(str(folder / "tasks.json"), out, "JSON_MIN", is_dir=False)
    converted = json.loads((Path(out) / "result.json").read_text(encoding="utf-8"))
keys = ("messages", "response_a", "response_b", "better")
print(
    json.dumps(
        {
            "valid": valid,
            "n": len(converted),
            "last": [{key: row[key] for key in keys} for row in converted[-9:]],
        }
    )
)
