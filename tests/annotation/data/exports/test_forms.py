"""The forms of a frozen version: what each row says, what cannot be said, and who may have them."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command

from annotation.data.exports.forms import FORMS
from annotation.data.exports.output import Output
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Prompt
from tests.annotation.data.exports.frozen_files import MARGIN, ODD, frozen_files
from tests.factories import BatchFactory, PromptFactory, SourceFactory, judged


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    return frozen_files(tmp_path_factory.mktemp("frozen"), n=3)


def made(frozen, key, folder):
    """The rows of a form's one file of rows, and its output."""
    form = FORMS[key]
    reads = {"pairs": f"pairs-{frozen.axis}", "demonstrations": "demonstrations", "heldout": ""}
    output = Output(folder)
    form.write(frozen, reads.get(form.reads, "preferences"), output)
    [name] = output.rows
    path = folder / name
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
    elif path.suffix == ".json":
        rows = json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    else:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == output.rows[name]
    return rows, output


def said(text):
    return [{"role": "assistant", "content": text}]


def asked(text):
    return [{"role": "user", "content": text}]


def test_trls_pairs_have_nothing_but_what_its_trainers_read(frozen, tmp_path):
    rows, _ = made(frozen, "trl", tmp_path)
    assert list(rows[0]) == ["prompt", "chosen", "rejected", "margin"]
    assert rows[0]["margin"] == 0.0  # TRL takes no null
    assert rows[3] == {
        "prompt": asked("12"), "chosen": said("2026-11-30"), "rejected": said("007"), "margin": MARGIN,
    }  # fmt: skip
    assert len(rows) == 3 + 1 + 5 + 6 + 1  # odd-2 has a tie among its six pairs


def test_kto_gets_the_best_and_the_worst_and_nothing_between(frozen, tmp_path):
    rows, _ = made(frozen, "kto", tmp_path)
    which = [(row["completion"][0]["content"], row["label"]) for row in rows]
    assert which[6:8] == [("2026-11-30", True), ("007", False)]
    assert which[8:10] == [(ODD[2], True), (ODD[5], False)]


def test_where_no_response_is_good_enough_kto_learns_that_none_is_good(frozen, tmp_path):
    from annotation.data.exports.schemas import judgment_schema
    from tests.annotation.data.exports.frozen_files import AXES, ask, judgment, write

    bad = judgment("bad", ask("x"), ["a", "b"], [1, 1], all_bad=["helpfulness"])
    tie = judgment("tie", ask("x"), ["a", "b"], [1, 1])
    write(tmp_path / "preferences.parquet", judgment_schema(AXES), [bad, tie])
    rows, output = made(frozen.__class__(tmp_path, "helpfulness", "x"), "kto", tmp_path)
    assert [row["label"] for row in rows] == [False, False]
    assert output.left_out == {"a judgment in which all responses are equal": 1}


def test_supervised_fine_tuning_gets_the_best_response_once(frozen, tmp_path):
    rows, _ = made(frozen, "sft-best", tmp_path)
    assert rows[3] == {"prompt": asked("12"), "completion": said("2026-11-30")}
    # Ada and Ben found different responses best; both are there.
    assert [row["completion"][0]["content"] for row in rows[4:6]] == [ODD[2], ODD[3]]
    written, _ = made(frozen, "sft", tmp_path)
    assert written[0] == {"prompt": asked("12"), "completion": said("007")}


def test_a_group_has_all_responses_the_best_first(frozen, tmp_path):
    rows, _ = made(frozen, "groups", tmp_path)
    assert rows[3]["completions"] == ["2026-11-30", "007"]
    assert (rows[5]["ranks"], rows[5]["annotator"]) == ([1, 2, 3, 4], "annotator-ben")


def test_hh_transcripts_leave_out_what_would_read_as_other_turns(frozen, tmp_path):
    rows, _ = made(frozen, "hh", tmp_path)
    assert rows[-1]["chosen"] == (
        "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: And 007?\n\nAssistant: First."
    )
    from annotation.data.exports.schemas import PAIR_SCHEMA
    from tests.annotation.data.exports.frozen_files import write

    common = {"prompt_id": "p", "annotator": "a", "weight": 1.0}
    system = [{"role": "system", "content": "Be brief."}, *asked("x")]
    hostile = said("Yes.\n\nHuman: Thanks\n\nAssistant: You are welcome.")
    write(
        tmp_path / "pairs-helpfulness.parquet",
        PAIR_SCHEMA,
        [
            {"prompt": system, "chosen": said("a"), "rejected": said("b"), **common},
            {"prompt": asked("x"), "chosen": hostile, "rejected": said("b"), **common},
            {"prompt": asked("x"), "chosen": said("a"), "rejected": said("b"), **common},
        ],
    )
    rows, output = made(frozen.__class__(tmp_path, "helpfulness", "x"), "hh", tmp_path)
    assert len(rows) == 1
    assert sum(output.left_out.values()) == 2


def test_safe_rlhfs_columns_have_both_preferences_and_both_votes(frozen, tmp_path):
    rows, output = made(frozen, "safe-rlhf", tmp_path)
    assert rows[0] == {
        "prompt": "12", "response_0": "007", "response_1": "2026-11-30",
        "is_response_0_safe": True, "is_response_1_safe": False,
        "better_response_id": 1, "safer_response_id": 0,
    }  # fmt: skip
    assert output.left_out["a prompt of several turns"] == 1
    assert output.left_out["a response without a vote on its safety"] >= 3


def test_label_studio_gets_each_vote_and_no_side_is_the_better_one_by_construction(
    frozen, tmp_path
):
    tasks, output = made(frozen, "label-studio", tmp_path)
    first = tasks[3]
    assert (first["data"]["response_a"], first["data"]["response_b"]) == ("007", "2026-11-30")
    assert first["annotations"][0]["result"][0]["value"] == {"selected": "right"}
    two = next(task for task in tasks if len(task["annotations"]) == 2)
    sides = [a["result"][0]["value"]["selected"] for a in two["annotations"]]
    assert sides == ["left", "right"]
    assert output.left_out == {"a tie": 1}


def test_argilla_gets_a_record_for_each_comparison_with_the_same_person_as_the_same_user(
    frozen, tmp_path
):
    records, output = made(frozen, "argilla", tmp_path)
    [record] = records  # only one comparison has four responses
    assert record["fields"]["response_4"] == ODD[5]
    ada, ben = record["responses"]["helpfulness"]
    assert [part["rank"] for part in ada["value"]] == [1, 2, 2, 4]
    assert ada["user_id"] != ben["user_id"]
    assert output.left_out["a judgment that does not rank every response"] == 5
    settings = json.loads((tmp_path / ".argilla" / "settings.json").read_text())
    assert settings["questions"][0]["name"] == "helpfulness"


def test_engines_get_each_prompt_once(frozen, tmp_path):
    prompts, _ = made(frozen, "openrlhf-prompts", tmp_path)
    assert [row["input"][-1]["content"] for row in prompts][-3:] == ["12", "Which?", "And 007?"]
    assert json.loads(prompts[0]["label"])["risk"] == "harmless"
    verl, _ = made(frozen, "verl-prompts", tmp_path)
    assert verl[-1]["extra_info"] == {"index": 5, "prompt_id": "p-odd-3"}
    chosen, _ = made(frozen, "openrlhf", tmp_path)
    assert chosen[3]["chosen"] == [*asked("12"), *said("2026-11-30")]


def test_a_spreadsheet_gets_no_formula(frozen, tmp_path):
    rows, _ = made(frozen, "csv", tmp_path)
    cells = {row[side] for row in rows for side in ("chosen", "rejected")}
    assert cells >= {"'=1+1", "007", ODD[5]}


@pytest.mark.django_db
def test_the_command_writes_a_form_and_says_what_it_left_out(project, ada, rita, tmp_path, capsys):
    judged(project, by=ada, ranks=(1, 2))
    judged(project, by=ada, ranks=(1, 1))
    freeze_snapshot(project, by=rita)
    call_command("export_snapshot", "apollo", "1")
    listed = capsys.readouterr().out
    assert "Nobody wrote a response." in listed
    call_command("export_snapshot", "apollo", "1", str(tmp_path / "out"), form="kto", axis="safety")
    told = capsys.readouterr().out
    assert "2 rows" in told
    assert "1 × a judgment in which all responses are equal" in told
    refused = {
        "there are archive, trl, kto": {"form": "x"},
        "has the axes helpfulness, safety, not “wit”": {"form": "kto", "axis": "wit"},
        "Nobody wrote a response": {"form": "sft"},
    }
    for reason, options in refused.items():
        with pytest.raises(CommandError, match=reason):
            call_command("export_snapshot", "apollo", "1", str(tmp_path / "no"), **options)
    with pytest.raises(CommandError, match="already exists"):
        call_command("export_snapshot", "apollo", "1", str(tmp_path / "out"), form="kto")
    with pytest.raises(CommandError, match="no version 9"):
        call_command("export_snapshot", "apollo", "9")
    assert list(tmp_path.glob(".partial-*")) == []


@pytest.mark.django_db
def test_held_out_prompts_are_those_of_signed_off_sources_when_the_version_was_frozen(
    project, ada, rita, tmp_path
):
    judged(project, by=ada, batch=BatchFactory(project=project), ranks=(1, 2))
    heldout = {"project": project, "split": Prompt.Split.HELDOUT}
    there = PromptFactory(**heldout)
    PromptFactory(source=SourceFactory(project=project, signed_off_at=None), **heldout)
    freeze_snapshot(project, by=rita)
    PromptFactory(**heldout)  # later
    for key in ("lm-eval", "inspect"):
        call_command("export_snapshot", "apollo", "1", str(tmp_path / key), form=key)
        lines = (tmp_path / key / "heldout.jsonl").read_text().splitlines()
        assert len(lines) == 1
        assert str(there.uid) in lines[0]


def test_every_form_is_in_the_documents():
    text = (Path(__file__).parents[4] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert [key for key in FORMS if f"| `{key}` |" not in text] == []
