#!/bin/bash
# datasets 5.2.0 reads JSON Lines with explicit features, and changes text nevertheless: a column that is
# declared a string is inferred first, and where all of its texts look like dates, "2026-11-30" comes back
# as "2026-11-30 00:00:00". The same texts in Parquet come back as they are. Exits with 1 when that changes.
#
# Seen on 2026-11-30, Python 3.11:
#   datasets 5.2.0: JSON Lines ['2026-11-30 00:00:00', '2026-12-01 00:00:00'], Parquet ['2026-11-30', '2026-12-01']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet datasets==5.2.0
cd "$folder"
HF_HUB_OFFLINE=1 HF_HOME="$folder/home" venv/bin/python - <<'PYTHON'
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

texts = ["2026-11-30", "2026-12-01"]
with open("rows.jsonl", "w") as file:
    file.writelines(f'{{"batch": "{text}"}}\n' for text in texts)
pq.write_table(pa.table({"batch": pa.array(texts, pa.string())}), "rows.parquet")
features = datasets.Features({"batch": datasets.Value("string")})


def read(kind, name):
    rows = datasets.load_dataset(kind, data_files=name, features=features, split="train")
    return rows["batch"][:]


lines, parquet = read("json", "rows.jsonl"), read("parquet", "rows.parquet")
print(f"datasets {datasets.__version__}: JSON Lines {lines}, Parquet {parquet}")
as_seen = lines == ["2026-11-30 00:00:00", "2026-12-01 00:00:00"] and parquet == texts
sys.exit(0 if as_seen else 1)
PYTHON
