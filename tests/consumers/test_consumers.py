"""Each tool opens what we export for it, by its own code, with values that come after 30,000 rows.

Run by `tools/consumers.sh`, which installs the tools in environments of their own.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from annotation.data.exports.forms import FORMS
from annotation.data.exports.output import Output
from tests.annotation.data.exports.frozen_files import MARGIN, ODD, PLAIN, frozen_files
from tests.annotation.data.exports.tiny_llama import tiny_llama

pytestmark = pytest.mark.consumers
HERE = Path(__file__).parent
TURNS = [
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "And 007?"},
]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """exported(form): a folder with the form of a version of 30,000 judgments and some odd ones."""
    place = tmp_path_factory.mktemp("exports")
    frozen = frozen_files(place / "frozen")
    reads = {"pairs": "pairs-helpfulness", "demonstrations": "demonstrations"}

    def export(key):
        folder = place / key
        folder.mkdir()
        FORMS[key].write(frozen, reads.get(FORMS[key].reads, "preferences"), Output(folder))
        return folder

    return export


def run(environment, script, *arguments):
    """What the script prints under the Python of an environment."""
    python = Path(os.environ["CONSUMERS"]) / environment / "bin" / "python"
    command = [python if environment else sys.executable, HERE / script, *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_label_studios_sdk_validates_and_converts_every_task(exported):
    read = run("label_studio", "read_label_studio.py", exported("label-studio"))
    assert read["valid"]
    # Each of Ada's six pairs but the tie, Ben's six, and two comparisons of two.
    assert read["n"] == PLAIN + 1 + 5 + 6 + 1
    last = read["last"][-1]
    assert last["messages"] == TURNS
    assert (last["response_a"], last["better"]) == ("First.", [{"selected": "left"}])
    assert ODD[5] in [row["response_b"] for row in read["last"]]


def test_argillas_sdk_reads_settings_and_records(exported):
    read = run("argilla", "read_argilla.py", exported("argilla"))
    assert read["n"] == 1
    assert read["questions"] == ["helpfulness"]
    record = read["last"]
    assert [record["fields"][f"response_{i}"] for i in (1, 2, 3, 4)] == list(ODD[2:6])
    ranks = [[part["rank"] for part in one["value"]] for one in record["responses"]["helpfulness"]]
    assert ranks == [[1, 2, 2, 4], [2, 1, 3, 4]]


def test_openrlhf_and_verl_render_the_texts_that_were_judged(exported, tmp_path):
    forms = {key: exported(key) for key in ("openrlhf", "openrlhf-prompts", "verl-prompts")}
    tiny_llama()[0].save_pretrained(tmp_path / "tokenizer")
    engines = Path(os.environ["CONSUMERS"]) / "engines"
    place = next(iter(forms.values())).parent
    arguments = (engines / "openrlhf", engines / "verl", place, tmp_path / "tokenizer")
    read = run("", "read_engines.py", *arguments)
    assert read["pairs"] == PLAIN + 1 + 5 + 6 + 1
    assert MARGIN in read["margin"]
    assert read["prompts"] == read["verl"] == PLAIN + 3
    rendered = "<user>Hello</s><assistant>Hi.</s><user>And 007?</s><assistant>"
    assert read["last_prompt"][0] == rendered
    assert json.loads(read["last_prompt"][1]) == {"messages": TURNS, "risk": "harmless"}
    assert read["verl_last"][:2] == [TURNS, PLAIN + 2]


def test_lm_eval_runs_the_held_out_task(exported):
    read = run("lm_eval", "run_lm_eval.py", exported("lm-eval"))
    assert read["task"] == "apollo_v1_heldout"
    assert read["prompts"] == ["=2+2"]
    assert read["docs"][0]["category"] == "007"
    assert "words,none" in read["metrics"]


def test_inspect_runs_the_held_out_task_with_every_turn(exported):
    read = run("inspect", "run_inspect.py", exported("inspect"))
    assert read["status"] == "success"
    assert read["ids"] == ["h-1", "h-2"]
    assert read["turns"][1][:3] == [[turn["role"], turn["content"]] for turn in TURNS]
    assert read["metadata"][0]["category"] == "007"


@pytest.fixture
def described(tmp_path):
    """`croissant.json` and its Parquet files, of fewer rows: mlcroissant reads 2,000 a second."""
    frozen = frozen_files(tmp_path / "frozen", n=3_000)
    files = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "rows": pq.read_metadata(path).num_rows,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(frozen.folder.glob("*.parquet"))
    ]
    about = {
        "name": "apollo-v1", "description": "x", "version": "1.0.0", "datePublished": "2026-11-30",
        "license": ["https://spdx.org/licenses/MIT", "house rules"], "citeAs": "@misc{x}",
        "url": "urn:uuid:0b1c", "creator": {"@type": "Organization", "name": "Apollo"},
    }  # fmt: skip
    responsible = {
        "dataLimitations": ["One.", "Two."],
        "annotationsPerItem": "2.00 judgments a prompt",
    }
    facts = {"files": files, "about": about, "responsible_ai": responsible}
    folder = tmp_path / "croissant"
    folder.mkdir()
    frozen = frozen.__class__(frozen.folder, "", frozen.title, facts=facts)
    FORMS["croissant"].write(frozen, "", Output(folder))
    return folder


def test_mlcroissant_validates_the_description_and_yields_the_right_values(described):
    read = run("croissant", "read_croissant.py", described)
    assert (read["errors"], read["warnings"]) == ([], [])
    assert read["rai"]["rai:dataLimitations"] == ["One.", "Two."]
    assert set(read["records"]) == {
        "preferences", "pairs-helpfulness", "pairs-safety", "ratings", "demonstrations",
    }  # fmt: skip
    for name, records in read["records"].items():
        rows = pq.read_table(described / f"{name}.parquet").to_pylist()
        assert records["n"] == len(rows)
        assert records["last"] == rows[-12:], name
