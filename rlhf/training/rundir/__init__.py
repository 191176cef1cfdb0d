"""The run folder, as `docs/formats.md` describes it: the names of its files.

`files` writes and reads JSON, `reports` the reports of a running stage, `checkpoints` the state
that a killed run resumes from; `process` runs a stage's `main` and turns its errors into exit
codes. Standard library only: the web side reads these files through the same functions, and the
training side writes nothing else.
"""

CONFIG = "config.json"
DATA = "data"
METRICS = "metrics.jsonl"
PROGRESS = "progress.json"
RESULT = "result.json"
ERROR = "error.json"
LOG = "log.txt"
CHECKPOINT = "checkpoint"
MANIFEST = "manifest.json"
POLICY = "policy"
AVERAGE = "average"
