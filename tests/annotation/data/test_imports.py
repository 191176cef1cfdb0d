"""Files that other people made: read as they are meant, refused with the line and the reason."""

import gzip
import io
import json

import pytest
from django.core.management import CommandError, call_command

from annotation.data import import_formats
from annotation.data.import_formats import ImportReport, read_comparisons, read_prompts
from annotation.data.imports import import_comparisons, import_prompts
from annotation.data.preferences import pairs, preference_rows
from annotation.data.snapshots import freeze_snapshot
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Judgment,
    Prompt,
    Response,
    Source,
    content_hash,
)

pytestmark = pytest.mark.django_db

SOURCE = {"name": "Written for the tests", "licence": "CC0-1.0", "url": ""}
AXES = ["helpfulness", "safety"]


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def texts(file, **options):
    items, report = read_prompts(file, **options)
    assert report.ok, report.problems
    return [item.text for item in items]


def refusals(file, **options):
    _, report = read_prompts(file, **options)
    return [(problem.line, problem.reason) for problem in report.problems]


def add(project, file, rita, **options):
    return import_prompts(project, file, source=SOURCE, by=rita, sign_off=True, **options)


def take(project, file, rita, axis="helpfulness", **options):
    return import_comparisons(
        project, file, axis=axis, source=SOURCE, by=rita, sign_off=True, **options
    )


# --- Forms of prompts -----------------------------------------------------------------------------


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
def test_each_form_of_prompt_is_recognised(row, form, text):
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


def test_a_spreadsheets_csv_is_read_with_its_quotes_separators_and_byte_order_mark():
    excel = (
        '\ufeff"Prompt";Category;Risk\r\n"Say ""hi"";\r\nplease";greeting;harmless\r\n\r\nBye;;\r\n'
    )
    items, report = read_prompts(io.BytesIO(excel.encode()))
    assert [item.text for item in items] == ['Say "hi";\r\nplease', "Bye"]
    assert (items[0].category, items[0].risk, report.n_rows) == ("greeting", "harmless", 2)
    assert texts(io.BytesIO("prompt\tid\nWhy?\t7\n".encode("utf-16"))) == ["Why?"]


def test_gzip_and_json_arrays_are_read_too():
    assert texts(io.BytesIO(gzip.compress(b'{"prompt": "Why?"}\n'))) == ["Why?"]
    assert texts(io.BytesIO(b'[{"prompt": "Why?"}, {"prompt": "How?"}]')) == ["Why?", "How?"]


# --- What is wrong, and where ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "not valid JSON"),
        ('"a text"', "one JSON object"),
        ("[1]", "one JSON object"),
        ('{"prompt": 3}', "not a text"),
        ('{"prompt": "  "}', "empty"),
        ('{"other": "x"}', "prompt is missing"),
        ('{"prompt": NaN}', "NaN"),
        ('{"prompt": "a", "risk": "maybe"}', "risk"),
        ('{"prompt": "a", "split": "some"}', "split"),
        ('{"prompt": "a", "category": "%s"}' % ("x" * 61), "longer than 60"),
        ('{"prompt": "a\\u0000b"}', "NUL"),
        ('{"prompt": "a\\ud800b"}', "surrogate"),
        ('{"prompt": "%s"}' % ("x" * (import_formats.MAX_TEXT + 1)), "characters long"),
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
        ([{"role": "user", "content": 3}], "is not a text"),
        ([{"role": "robot", "content": "x"}], "no role"),
        ([{"role": ["user"], "content": "x"}], "no role"),
        ([{"role": "assistant", "content": "x"}], "says nothing"),
        ([{"role": "user", "content": " "}], "is empty"),
        ([{"role": "user", "content": [{"type": "image"}]}], "not text"),
        ([{"role": "user", "content": "x"}] * 201, "200 is the most"),
        (["x"], "not an object"),
    ],
)
def test_a_bad_conversation_is_refused(messages, reason):
    [(line, told)] = refusals(lines({"messages": messages}))
    assert line == 1
    assert reason in told


def test_a_misspelt_column_is_said_to_be_missing():
    [(line, told)] = refusals(
        lines({"prompt": "How do I water a fern?"}, {"promt": "And a cactus?"})
    )
    assert (line, told) == (2, "prompt is missing.")
    data = lines(
        {"prompt": "hi", "chosen": "yes", "rejected": "no"}, {"prompt": "hi", "choosen": "yes"}
    )
    [problem] = read_comparisons(data, axis="helpfulness", axes=AXES)[1].problems
    assert (problem.line, problem.reason) == (2, "chosen is missing.")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b" \n ", "empty"),
        (b"PK\x03\x04rest", "spreadsheet"),
        (b"PAR1rest", "Parquet"),
        (b"name,age\nx,3\n", "names no known column"),
        (b"\x1f\x8b\x08broken", "damaged"),
        (b"prompt\ncaf\xe9\n", "Line 2 is not UTF-8"),
        (b"[1, 2", "begins with ["),
        (gzip.compress(b"\n" * 20_000_000), "unpacks to more"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_in_one_sentence(data, reason):
    [(line, told)] = refusals(io.BytesIO(data))
    assert line is None
    assert reason in told


def test_csv_problems_are_counted_from_the_line_where_a_row_begins():
    file = io.BytesIO(b'prompt,category\n"two\nlines",a\nshort\n"open,b\n')
    assert [line for line, _ in refusals(file)] == [4, 5]


def test_a_line_that_is_not_utf8_is_named():
    file = io.BytesIO(b'{"prompt": "fine"}\n{"prompt": "caf\xe9"}\n')
    assert refusals(file) == [(2, "not UTF-8; save the file as UTF-8.")]


def test_the_first_fifty_problems_are_listed_and_all_are_counted():
    _, report = read_prompts(io.BytesIO(b"{\n" * 70))
    assert (report.n_problems, len(report.problems)) == (70, 50)


def test_too_many_rows_and_too_large_a_file_are_refused(monkeypatch):
    monkeypatch.setattr(import_formats, "MAX_ROWS", 2)
    assert "more than 2 rows" in refusals(lines(*[{"prompt": str(n)} for n in range(4)]))[0][1]
    monkeypatch.setattr(import_formats, "MAX_FILE", 10)
    assert "larger than" in refusals(io.BytesIO(b'{"prompt": "Why?"}'))[0][1]


# --- All of it or nothing --------------------------------------------------------------------------------


def test_prompts_are_written_with_source_split_and_hash(project, rita):
    report = add(project, lines({"prompt": "A?", "category": "x", "id": 7}, {"prompt": "B?"}), rita)
    assert (report.n_imported, report.n_duplicates) == (2, 0)
    prompt = Prompt.objects.get(external_id="7")
    assert (prompt.category, prompt.split) == ("x", Prompt.split_for(prompt.sha256))
    assert prompt.sha256 == content_hash(prompt.messages)
    assert prompt.source.is_signed_off
    assert prompt.source.signed_off_by == rita


def test_one_bad_line_keeps_everything_out(project, rita):
    file = io.BytesIO(b'{"prompt": "fine"}\n' * 3 + b"{\n")
    report = add(project, file, rita)
    assert not report.ok
    assert not Prompt.objects.exists()
    assert not Source.objects.exists()
    pair = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert not take(project, lines(pair, {"prompt": "Q"}), rita).ok
    for model in (Prompt, Source, Batch, Comparison, Response, Assignment, Judgment):
        assert not model.objects.exists()


def test_a_failure_while_writing_leaves_nothing(project, rita, monkeypatch):
    monkeypatch.setattr(Judgment.objects, "bulk_create", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(project, lines({"prompt": "Q", "chosen": "a", "rejected": "b"}), rita)
    for model in (Prompt, Source, Batch, Comparison, Response, Assignment):
        assert not model.objects.exists()


def test_a_source_without_a_name_is_refused(project, rita):
    report = import_prompts(project, lines({"prompt": "A"}), source={"name": " "}, by=rita)
    assert "Name the source" in str(report.problems[0])
    bare = import_prompts(
        project, lines({"prompt": "A"}), source={"name": "x"}, by=rita, sign_off=True
    )
    assert "Name the licence" in str(bare.problems[0])
    odd = {"name": "x", "url": "javascript:alert(1)"}
    report = import_prompts(project, lines({"prompt": "A"}), source=odd, by=rita)
    assert "https://" in str(report.problems[0])


def test_the_same_text_is_one_prompt_whatever_file_it_came_in(project, rita):
    assert add(project, lines({"prompt": "A?"}, {"prompt": "A?"}), rita).n_duplicates == 1
    before = Prompt.objects.get()
    again = add(project, lines({"prompt": "A?", "split": "heldout"}), rita)
    assert (again.n_imported, again.n_duplicates, again.source) == (0, 1, None)
    assert Prompt.objects.get().split == before.split
    assert Source.objects.count() == 1


def test_a_row_may_name_its_split(project, rita):
    add(project, lines({"prompt": "A?", "split": "test"}, {"prompt": "B?", "split": "train"}), rita)
    assert [p.split for p in Prompt.objects.order_by("pk")] == ["heldout", "train"]


def test_thousands_of_prompts_go_in_whole(project, rita):
    report = add(project, lines(*[{"prompt": f"Question {n}?"} for n in range(3000)]), rita)
    assert report.n_imported == Prompt.objects.count() == 3000
    share = Prompt.objects.filter(split="train").count() / 3000
    assert 0.77 < share < 0.83


# --- Comparisons ---------------------------------------------------------------------------------------------


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: Gladly.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: No.",
}
TRL = {
    "prompt": [{"role": "user", "content": "Help?"}],
    "chosen": [{"role": "assistant", "content": "Gladly."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}


def best_and_worst(project, axis="helpfulness"):
    return [
        (
            pair["prompt"][-1]["content"],
            pair["chosen"][0]["content"],
            pair["rejected"][0]["content"],
        )
        for pair in pairs(preference_rows(project), axis)
    ]


@pytest.mark.parametrize(
    "row",
    [
        HH,
        TRL,
        {"prompt": "Help?", "chosen": "Gladly.", "rejected": "No."},
        {"prompt": "Human: Help?\n\nAssistant:", "chosen": "Gladly.", "rejected": "No."},
        {
            "chosen": [*TRL["prompt"], *TRL["chosen"]],
            "rejected": [*TRL["prompt"], *TRL["rejected"]],
        },
        {"messages": TRL["prompt"], "responses": ["No.", "Gladly."], "ranks": [2, 1]},
    ],
)
def test_each_form_of_pair_becomes_a_judged_comparison(project, rita, row):
    report = take(project, lines(row), rita)
    assert report.n_imported == 1, report.problems
    assert best_and_worst(project) == [("Help?", "Gladly.", "No.")]


def test_an_imported_batch_looks_as_judging_would_have_left_it(project, rita):
    [batch] = take(project, lines(TRL), rita, axis="safety").batches
    assert (batch.state, batch.is_imported) == (Batch.State.CLOSED, True)
    comparison = batch.comparisons.get()
    assert (comparison.needed, comparison.taken, comparison.judged) == (1, 1, 1)
    assert not comparison.is_free
    assignment = comparison.assignments.get()
    assert assignment.state == Assignment.State.JUDGED
    assert assignment.judgment.assignment == assignment
    assert sorted(assignment.shown_order) == sorted(r.pk for r in comparison.responses.all())
    assert set(assignment.judgment.ranks) == {"safety"}
    assert not assignment.annotator.is_active
    assert not assignment.annotator.has_usable_password()
    [row] = preference_rows(project)
    assert row["annotator"].startswith("imported-")
    assert row["ranks"]["helpfulness"] == [None, None]


def test_the_better_answer_is_not_always_stored_first(project, rita):
    rows = [{"prompt": f"Q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(60)]
    take(project, lines(*rows), rita)
    first = [row["ranks"]["helpfulness"][0] == 1 for row in preference_rows(project)]
    assert 15 < sum(first) < 45


def test_the_same_file_twice_adds_nothing(project, rita):
    other = {**HH, "rejected": HH["rejected"] + " Never."}
    assert take(project, lines(HH, HH, other), rita).n_duplicates == 1
    before = Judgment.objects.count()
    again = take(project, lines(HH, other), rita)
    assert (again.n_imported, again.n_duplicates) == (0, 2)
    assert Judgment.objects.count() == before == 2


def test_a_prompt_compared_twice_goes_to_a_second_batch(project, rita):
    other = {**TRL, "rejected": [{"role": "assistant", "content": "Never."}]}
    report = take(project, lines(TRL, other), rita)
    assert [batch.comparisons.count() for batch in report.batches] == [1, 1]
    assert Prompt.objects.count() == 1
    assert len(best_and_worst(project)) == 2


def test_equal_answers_and_early_partings_are_left_out_and_counted(project, rita):
    apart = {"chosen": "\n\nHuman: A\n\nAssistant: x", "rejected": "\n\nHuman: B\n\nAssistant: y"}
    same = {"prompt": "Q", "chosen": "a", "rejected": "a"}
    _, report = read_comparisons(lines(HH, apart), axis="safety", axes=AXES)
    assert report.ok
    assert sum(report.left_out.values()) == 1
    _, report = read_comparisons(lines(TRL, same), axis="safety", axes=AXES)
    assert sum(report.left_out.values()) == 1


def tree(*replies):
    return {
        "message_tree_id": "t",
        "prompt": {"text": "Help?", "role": "prompter", "replies": list(replies)},
    }


def reply(text, rank, *replies, **more):
    return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies), **more}


def test_a_trees_ranked_replies_become_k_way_comparisons(project, rita):
    deeper = {
        "text": "More?",
        "role": "prompter",
        "rank": 0,
        "replies": [reply("x", 1), reply("y", 0)],
    }
    row = tree(
        reply("second", 1),
        reply("best", 0, deeper),
        reply("third", 2),
        reply("unranked", None),
        reply("gone", 0, deleted=True),
    )
    report = take(project, lines(row), rita)
    assert report.n_imported == 2
    assert sorted(best_and_worst(project)) == [
        ("Help?", "best", "second"),
        ("Help?", "best", "third"),
        ("Help?", "second", "third"),
        ("More?", "y", "x"),
    ]
    multi = Prompt.objects.get(messages__2__content="More?")
    assert [m["role"] for m in multi.messages] == ["user", "assistant", "user"]
    assert sum(report.notes.values()) == 1


def test_a_tree_without_ranks_is_left_out_and_one_that_is_broken_is_refused():
    _, report = read_comparisons(lines(tree(reply("x", 0))), axis="safety", axes=AXES)
    assert (report.ok, sum(report.left_out.values())) == (True, 1)
    broken = tree({"text": "x", "role": "assistant", "rank": "first"}, reply("y", 0))
    _, report = read_comparisons(lines(broken), axis="safety", axes=AXES)
    assert "whole number" in report.problems[0].reason


def test_a_snapshots_own_rows_can_be_taken_in_again(project, rita):
    take(project, lines(tree(reply("a", 0), reply("b", 1), reply("c", 1))), rita)
    rows = list(preference_rows(project))
    from tests.factories import ProjectFactory

    other = ProjectFactory(slug="gemini")
    report = take(other, lines(*rows), rita)
    assert report.format == "ranking"
    assert sorted(best_and_worst(other)) == sorted(best_and_worst(project))


def test_an_axis_that_the_project_does_not_have_is_refused(project, rita):
    report = take(project, lines(TRL), rita, axis="wit")
    assert "no axis 'wit'" in str(report.problems[0])
    rows = {"messages": TRL["prompt"], "responses": ["a", "b"], "ranks": {"wit": [1, 2]}}
    assert "no axis 'wit'" in str(take(project, lines(rows), rita).problems[0])


def test_unsigned_comparisons_do_not_reach_training_through_a_signed_off_prompt(project, rita):
    add(project, lines({"prompt": "Help?", "split": "train"}), rita)
    import_comparisons(project, lines(TRL), axis="safety", source={"name": "x"}, by=rita)
    assert list(preference_rows(project)) == []


def test_ranks_are_stored_as_judging_stores_them_however_large_they_are(project, rita):
    row = {"messages": TRL["prompt"], "responses": list("abcd"), "ranks": [7, 10, 10**30, None]}
    assert take(project, lines(row), rita).ok
    [told] = preference_rows(project)
    by_text = dict(zip(told["responses"], told["ranks"]["helpfulness"], strict=True))
    assert by_text == {"a": 1, "b": 2, "c": 3, "d": None}
    freeze_snapshot(project, by=rita)


def test_what_a_top_k_ranking_left_out_stays_behind_when_it_is_taken_in_again(project, rita):
    row = {"messages": TRL["prompt"], "responses": list("abc"), "ranks": [1, None, None]}
    assert take(project, lines(row), rita).n_imported == 0, "one alone says nothing"
    assert take(project, lines(row | {"unranked": "below"}), rita).n_imported == 1
    rows = list(preference_rows(project))
    assert sorted(p["rejected"][0]["content"] for p in pairs(rows, "helpfulness")) == ["b", "c"]


def test_a_priority_without_end_is_refused(project, rita):
    odd = io.BytesIO(b'{"prompt": "x", "priority": 1' + b"0" * 400 + b"}")
    report = read_prompts(odd)[1]
    assert "priority is not a number" in str(report.problems[0])


def test_a_file_that_is_read_to_its_end_meanwhile_takes_no_room_from_another():
    long = "x" * 200_000
    one, other = (
        import_formats._csv_rows(f"prompt\n{text}\n{text}\n".encode(), ImportReport())
        for text in ("short", long)
    )
    next(one)
    next(other)
    assert [row["prompt"] for _, row in one] == ["short"]
    assert [row["prompt"] for _, row in other] == [long]


# --- The commands ------------------------------------------------------------------------------------------------


def test_the_commands_import_and_tell_what_is_wrong(project, rita, tmp_path, capsys):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"prompt": "Why?"}\n')
    bad.write_text("{\n")
    options = {"source": "x", "licence": "MIT", "by": "rita", "sign_off": True}
    call_command("import_prompts", "apollo", str(good), **options)
    assert "Imported 1 prompts" in capsys.readouterr().out
    with pytest.raises(CommandError, match="Nothing was imported"):
        call_command("import_prompts", "apollo", str(bad), **options)
    assert "Line 1: not valid JSON" in capsys.readouterr().err
    with pytest.raises(CommandError, match="no project"):
        call_command("import_prompts", "mir", str(good), **options)
    with pytest.raises(CommandError, match="needs --by"):
        call_command("import_prompts", "apollo", str(good), source="x", sign_off=True)
    good.write_text(json.dumps(TRL))
    call_command("import_comparisons", "apollo", str(good), axis="safety", **options)
    assert "Imported 1 comparisons" in capsys.readouterr().out
