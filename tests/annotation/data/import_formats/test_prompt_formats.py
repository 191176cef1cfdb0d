"""Each format of prompts: recognized, read as it is meant, refused with the line and the reason."""

import io
import json

import pytest

from annotation.data.import_formats.fields import MAX_TEXT
from annotation.data.import_formats.read_file import read_comparisons, read_prompts

AXES = ["helpfulness", "safety"]


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def refusals(file, **options):
    _, report = read_prompts(file, **options)
    return [(problem.line, problem.reason) for problem in report.problems]


@pytest.mark.parametrize(
    ("row", "form", "text"),
    [
        ({"prompt": "Why?"}, "plain", "Why?"),
        ({"text": "Why?"}, "plain", "Why?"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, "conversation", "Why?"),
        ({"prompt": [{"role": "user", "content": "Why?"}]}, "conversation", "Why?"),
        ({"instruction": "Sum up.", "input": "A text."}, "instructions", "Sum up.\n\nA text."),
        (
            {"instruction": "Sum up.", "instances": [{"input": "A text.", "output": "T."}]},
            "instructions",
            "Sum up.\n\nA text.",
        ),
        ({"turns": ["First?", "Second?"]}, "turns", "First?"),
        ({"prompt": {"text": "Why?", "role": "prompter", "replies": []}}, "tree", "Why?"),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: A",
                "rejected": "\n\nHuman: Hi\n\nAssistant: B",
            },
            "transcript",
            "Hi",
        ),
        ({"prompt": "Human: Hi\n\nAssistant:", "chosen": "A", "rejected": "B"}, "transcript", "Hi"),
    ],
)
def test_each_form_of_prompt_is_recognized(row, form, text):
    items, report = read_prompts(lines(row))
    assert (report.format, [item.text for item in items]) == (form, [text])


def test_a_transcripts_turns_keep_their_order_and_its_answer_stays_out():
    said = "\n\nHuman: Hi\n\nAssistant: Hello: what\n\nis it?\n\nHuman: Help\n\nAssistant: "
    items, _ = read_prompts(lines({"chosen": said + "Yes", "rejected": said + "No"}))
    assert items[0].messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello: what\n\nis it?"},
        {"role": "user", "content": "Help"},
    ]


def test_an_answer_after_the_last_question_is_not_part_of_the_prompt():
    row = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    items, report = read_prompts(lines(row))
    assert items[0].messages == [{"role": "user", "content": "Q"}]
    assert sum(report.notes.values()) == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "not valid JSON"),
        ('"a text"', "one JSON object"),
        ("[1]", "one JSON object"),
        ('{"prompt": 3}', "not text"),
        ('{"prompt": "  "}', "empty"),
        ('{"other": "x"}', "prompt is missing"),
        ('{"prompt": NaN}', "NaN"),
        ('{"prompt": "a", "risk": "maybe"}', "risk"),
        ('{"prompt": "a", "split": "some"}', "split"),
        ('{"prompt": "a", "category": "%s"}' % ("x" * 61), "longer than 60"),
        ('{"prompt": "a\\u0000b"}', "NUL"),
        ('{"prompt": "a\\ud800b"}', "surrogate"),
        ('{"prompt": "%s"}' % ("x" * (MAX_TEXT + 1)), "characters long"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ('{"prompt": %s}' % ("9" * 5000), "not valid JSON"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_reason(bad, reason):
    file = io.BytesIO(f'{{"prompt": "fine"}}\n\n{bad}\n{{"prompt": "also fine"}}\n'.encode())
    [(line, told)] = refusals(file)
    assert line == 3
    assert reason in told


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "not a list of messages"),
        ("text", "not a list of messages"),
        ([{"role": "user"}], "the content of message 1 of messages is missing"),
        ([{"role": "user", "content": 3}], "is not text"),
        ([{"role": "robot", "content": "x"}], "the role robot"),
        ([{"role": ["user"], "content": "x"}], "no role"),
        ([{"role": "assistant", "content": "x"}], "no message of the user"),
        ([{"role": "user", "content": " "}], "is empty"),
        ([{"role": "user", "content": [{"type": "image"}]}], "not text"),
        ([{"role": "user", "content": "x"}] * 201, "the limit is 200"),
        (["x"], "not an object"),
    ],
)
def test_a_bad_conversation_is_refused(messages, reason):
    [(line, told)] = refusals(lines({"messages": messages}))
    assert line == 1
    assert reason in told


def test_a_misspelled_column_is_said_to_be_missing():
    [(line, told)] = refusals(
        lines({"prompt": "How do I water a fern?"}, {"promt": "And a cactus?"})
    )
    assert (line, told) == (2, "prompt is missing.")
    data = lines(
        {"prompt": "hi", "chosen": "yes", "rejected": "no"}, {"prompt": "hi", "choosen": "yes"}
    )
    [problem] = read_comparisons(data, axis="helpfulness", axes=AXES)[1].problems
    assert (problem.line, problem.reason) == (2, "chosen is missing.")


def test_a_priority_without_end_is_refused(project, rita):
    odd = io.BytesIO(b'{"prompt": "x", "priority": 1' + b"0" * 400 + b"}")
    report = read_prompts(odd)[1]
    assert "priority is not a number" in str(report.problems[0])


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        (
            {"system": "Be terse.", "prompt": "Name a tree."},
            [("system", "Be terse."), ("user", "Name a tree.")],
        ),
        (
            {"system": "Be terse.", "messages": [{"role": "user", "content": "Name a tree."}]},
            [("system", "Be terse."), ("user", "Name a tree.")],
        ),
        (
            {"prompt": "Another?", "history": [["Name a tree.", "An oak."]]},
            [("user", "Name a tree."), ("assistant", "An oak."), ("user", "Another?")],
        ),
        (
            {"instruction": "Sum up.", "context": "A long text."},
            [("user", "Sum up.\n\nA long text.")],
        ),
        ({"prompt": "Translate.", "input": "Guten Tag"}, [("user", "Translate.\n\nGuten Tag")]),
    ],
)
def test_columns_that_belong_to_the_prompt_become_part_of_it(row, messages):
    [item], report = read_prompts(lines(row))
    assert [(m["role"], m["content"]) for m in item.messages] == messages
    assert report.remarks == []


def test_a_column_that_is_not_read_is_named_with_its_number_of_rows():
    rows = [{"prompt": "Why?", "source": "a", "note": ""}, {"prompt": "How?", "source": "b"}]
    assert read_prompts(lines(*rows))[1].remarks == ["columns not read: source (2 rows)"]


def test_a_system_message_that_is_given_twice_is_refused():
    row = {"system": "A", "messages": [{"role": "system", "content": "B"}]}
    row["messages"].append({"role": "user", "content": "Q"})
    assert "given twice" in refusals(lines(row))[0][1]


def test_a_history_that_is_no_list_of_pairs_is_refused():
    for history in ("text", [["one"]], {"a": 1}, 3):
        assert "history" in refusals(lines({"prompt": "Q", "history": history}))[0][1]


def test_rows_of_several_formats_are_each_read_as_what_they_are():
    bird = "\n\nHuman: Name a bird.\n\nAssistant: A wren.\n\nHuman: Another?\n\nAssistant:"
    items, report = read_prompts(
        lines(
            {"prompt": "Name a tree."},
            {"prompt": bird},
            {"instruction": "Translate this.", "input": "Guten Tag"},
        )
    )
    assert [len(item.messages) for item in items] == [1, 3, 1]
    assert items[2].text == "Translate this.\n\nGuten Tag"
    assert report.format == "plain"
    assert "Human/Assistant" in report.format_name
