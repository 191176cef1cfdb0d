"""JSON files and folders: what is written is whole, and what is wrong is one sentence."""

import json
import math

import pytest

from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import (
    read_json,
    read_jsonl,
    replace_folder,
    write_json,
    write_jsonl,
)


def test_json_with_nan_is_refused_and_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": math.inf})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".new")]


def test_a_bad_line_is_named_by_its_number(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "prompts.jsonl").write_text('{"prompt_id": "1"}\n\n{"prompt')
    with pytest.raises(InputError, match=r"data/prompts.jsonl line 3 isn't valid JSON"):
        list(read_jsonl(data / "prompts.jsonl"))
    (data / "prompts.jsonl").write_text('{"prompt_id": "1"}\n{"id": "2"}\n')
    with pytest.raises(InputError, match="line 2 has no field 'prompt_id'"):
        list(read_jsonl(data / "prompts.jsonl", required=["prompt_id"]))


@pytest.mark.parametrize("row", ["9" * 5000, "[" * 100_000])
def test_a_line_that_python_gives_up_on_is_named_too(tmp_path, row):
    (tmp_path / "prompts.jsonl").write_text(f"{{}}\n{row}\n")
    with pytest.raises(InputError, match=r"prompts.jsonl line 2 isn't valid JSON"):
        list(read_jsonl(tmp_path / "prompts.jsonl"))
    (tmp_path / "config.json").write_text(row)
    with pytest.raises(InputError, match=r"config.json isn't valid JSON"):
        read_json(tmp_path / "config.json")


def test_a_line_separator_inside_a_response_does_not_cut_the_line(tmp_path):
    write_jsonl(tmp_path / "r.jsonl", [{"text": "one\u2028two\u0085three"}])
    assert list(read_jsonl(tmp_path / "r.jsonl")) == [{"text": "one\u2028two\u0085three"}]


def test_a_folder_is_put_in_place_whole_or_not_at_all(tmp_path):
    run = tmp_path / "run"

    def write(*texts, dies=False):
        def fill(new):
            for number, text in enumerate(texts):
                (new / f"model-{number}").write_text(text)
            if dies:
                raise KeyboardInterrupt

        return fill

    def inside():
        return {p.name: p.read_text() for p in (run / "policy").iterdir()}

    replace_folder(run / "policy", write("first", "first"))
    with pytest.raises(KeyboardInterrupt):
        replace_folder(run / "policy", write("sec", "", "temporary", dies=True))
    assert inside() == {"model-0": "first", "model-1": "first"}
    replace_folder(run / "policy", write("second"))
    assert inside() == {"model-0": "second"}
    assert [p.name for p in run.iterdir()] == ["policy"]
