"""Comparisons in files that others made: what is skipped, and what is refused."""

import io
import json

from annotation.data.import_formats.read_file import read_comparisons

AXES = ["helpfulness", "safety"]
HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: Gladly.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: No.",
}
TRL = {
    "prompt": [{"role": "user", "content": "Help?"}],
    "chosen": [{"role": "assistant", "content": "Gladly."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def tree(*replies):
    return {
        "message_tree_id": "t",
        "prompt": {"text": "Help?", "role": "prompter", "replies": list(replies)},
    }


def reply(text, rank, *replies, **more):
    return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies), **more}


def test_equal_answers_and_early_partings_are_left_out_and_counted(project, rita):
    apart = {"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: y"}
    same = {"prompt": "Q", "chosen": "a", "rejected": "a"}
    _, report = read_comparisons(lines(HH, apart), axis="safety", axes=AXES)
    assert report.ok
    assert sum(report.skipped.values()) == 1
    _, report = read_comparisons(lines(TRL, same), axis="safety", axes=AXES)
    assert sum(report.skipped.values()) == 1


def test_a_tree_without_ranks_is_left_out_and_one_that_is_broken_is_refused():
    _, report = read_comparisons(lines(tree(reply("x", 0))), axis="safety", axes=AXES)
    assert (report.ok, sum(report.skipped.values())) == (True, 1)
    broken = tree({"text": "x", "role": "assistant", "rank": "first"}, reply("y", 0))
    _, report = read_comparisons(lines(broken), axis="safety", axes=AXES)
    assert "whole number" in report.problems[0].reason


def read(*rows):
    return read_comparisons(lines(*rows), axis="helpfulness", axes=AXES)


def test_a_pairs_system_message_history_and_input_are_part_of_its_prompt():
    row = {"prompt": "Another?", "chosen": "Elm.", "rejected": "A rock."}
    items, report = read(
        row | {"system": "Be terse."},
        row | {"history": [["Name a tree.", "An oak."]]},
        row | {"input": "In the garden."},
    )
    assert [len(item.prompt.messages) for item in items] == [2, 3, 1]
    assert items[2].prompt.text == "Another?\n\nIn the garden."
    assert report.remarks == []


def test_a_pair_of_texts_without_a_prompt_is_refused_for_that_and_not_for_its_responses():
    _, report = read({"prompt": "", "chosen": "Elm.", "rejected": "A rock."})
    assert [problem.reason for problem in report.problems] == ["prompt is empty."]
    _, report = read({"chosen": "Elm.", "rejected": "A rock."})
    assert "no prompt" in report.problems[0].reason


def test_a_transcript_among_plain_pairs_is_read_as_a_transcript():
    items, _ = read(
        {"prompt": "Name a tree.", "chosen": "An oak.", "rejected": "A rock."},
        {"prompt": "\n\nHuman: Name a bird.\n\nAssistant:", "chosen": " A wren.", "rejected": " x"},
    )
    assert [item.prompt.text for item in items] == ["Name a tree.", "Name a bird."]


def test_responses_that_look_the_same_are_skipped_and_counted():
    pairs = [("An oak.", "An oak. \n"), ("", "   "), ("a\r\nb", "a\nb"), ("café", "cafe\u0301")]
    items, report = read(*({"prompt": "Q", "chosen": a, "rejected": b} for a, b in pairs))
    assert items == []
    assert report.remarks == ["4 skipped: the responses differ in white space or Unicode form only"]
    code = {"prompt": "Q", "chosen": "if x:\n    y\nz", "rejected": "if x:\n    y\n    z"}
    assert len(read(code)[0]) == 1, "indentation is content"


def test_a_rank_of_one_point_zero_is_one():
    ranking = {
        "messages": TRL["prompt"],
        "responses": ["a", "b"],
        "ranks": {"helpfulness": [1.0, 2.0]},
    }
    items, report = read(ranking, tree(reply("x", 0.0), reply("y", 1.0)))
    assert [item.ranks["helpfulness"] for item in items] == [[1, 2], [1, 2]], report.problems
    for rank in (1.5, True, "1"):
        wrong = ranking | {"ranks": {"helpfulness": [rank, 2]}}
        assert "whole number" in read(wrong)[1].problems[0].reason


def test_a_ranking_may_hold_one_text_twice_as_judging_allows_it():
    row = {"messages": TRL["prompt"], "responses": ["x", "x", "y"], "ranks": [1, 2, 3]}
    [item], _ = read(row)
    assert item.ranks == {"helpfulness": [1, 2, 3]}
    _, report = read(row | {"responses": ["x", "x", "x"]})
    assert report.remarks == ["1 skipped: all responses are identical"]
