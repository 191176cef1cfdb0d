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
