"""What an import writes besides prompts and pairs: marks, votes of several raters, responses to judge."""

import io
import json
import uuid

import pytest

from annotation.data.import_formats.items import EVERYTHING
from annotation.data.import_formats.read_file import read_comparisons
from annotation.data.imports import import_file
from annotation.data.ratings_and_demonstrations import response_rows
from annotation.models import Batch, Comparison, Judgment, Prompt, Response, Source
from tests.factories import judged

pytestmark = pytest.mark.django_db

SOURCE = {"name": "Written for the tests", "licence": "CC0-1.0", "url": ""}
Q, A, B = "Name a tree.", "An oak.", "A rock."


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def take(project, by, *rows, **options):
    return import_file(project, lines(*rows), source=SOURCE, by=by, sign_off=True, **options)


def test_one_file_brings_prompts_responses_and_votes(project, rita):
    rows = [
        {"prompt": "Why?"},
        {"prompt": "How?", "responses": ["So.", "Thus."]},
        {"prompt": Q, "chosen": A, "rejected": B},
    ]
    report = take(project, rita, *rows)
    assert (report.ok, report.n_imported, report.n_duplicates) == (True, 3, 0)
    assert [batch.name for batch in report.batches] == [
        "Written for the tests",
        "Responses: Written for the tests",
    ]
    waiting = Comparison.objects.get(prompt__messages=[{"role": "user", "content": "How?"}])
    assert (waiting.needed, waiting.is_free, waiting.batch.state) == (0, False, Batch.State.CLOSED)
    assert {response.text for response in waiting.responses.all()} == {"So.", "Thus."}
    again = take(project, rita, *rows)
    assert (again.n_imported, again.n_duplicates, Source.objects.count()) == (0, 3, 1)


def test_responses_that_come_later_are_added_and_none_is_stored_twice(project, rita):
    take(project, rita, {"prompt": Q, "responses": [A]})
    report = take(project, rita, {"prompt": Q, "responses": [A, B]})
    assert report.n_imported == 1
    assert sorted(Response.objects.values_list("text", flat=True)) == [B, A]


def test_marks_and_labels_of_safety_become_ratings(project, rita):
    marks = [
        {"prompt": Q, "response": A, "helpfulness": 4, "correctness": 3},
        {"prompt": Q, "response": B, "helpfulness": 0, "correctness": 1},
    ]
    safe = {
        "prompt": "How do I open a lock?",
        "response_0": A,
        "response_1": B,
        "better_response_id": 0,
        "safer_response_id": 1,
        "is_response_0_safe": False,
        "is_response_1_safe": True,
        "response_0_harm_category": {"Theft": True},
    }
    report = take(project, rita, *marks, safe)
    assert report.ok, report.problems
    batch = Batch.objects.get()
    assert [mark.key for mark in batch.effective_protocol.attributes] == [
        "helpfulness",
        "correctness",
    ]
    rows = [row.row for row in response_rows(project) if row.file == "ratings"]
    assert {row["response"]: row["attributes"] for row in rows if row["attributes"]} == {
        A: {"helpfulness": 4, "correctness": 3},
        B: {"helpfulness": 0, "correctness": 1},
    }
    assert {row["response"]: row["harms"] for row in rows if row["safe"] is False} == {A: ["theft"]}


def test_votes_of_several_raters_meet_in_one_comparison_over_any_distance(
    project, rita, monkeypatch
):
    monkeypatch.setattr("annotation.data.imports.CHUNK", 2)
    vote = {"prompt": Q, "response_a": A, "response_b": B}
    rows = [
        {**vote, "winner": winner, "rater": rater}
        for winner, rater in (("a", "r1"), ("a", "r2"), ("b", "r3"), ("tie", "r4"), ("a", "r1"))
    ]
    report = take(project, rita, *rows)
    assert (report.n_imported, report.n_duplicates) == (4, 1)
    comparison = Comparison.objects.get()
    assert (comparison.needed, comparison.taken, comparison.judged) == (4, 4, 4)
    assert comparison.assignments.values("annotator").distinct().count() == 4
    assert Judgment.objects.current().count() == 4


def test_somebody_elses_key_does_not_make_a_row_a_duplicate(project, rita, otto):
    row = {"prompt": Q, "chosen": A, "rejected": B}
    [item], _ = read_comparisons(lines(row), axis="helpfulness", axes=project.axis_keys)
    guessed = uuid.uuid5(uuid.NAMESPACE_OID, f"import {project.pk} {item.digest()}")
    judged(otto.memberships.get().project, otto)
    Judgment.objects.update(key=guessed)
    assert take(project, rita, row).n_imported == 1
    assert Judgment.objects.of_project(project).get().key != guessed


def test_refused_rows_can_be_left_out_and_are_all_named(project, rita):
    rows = [{"prompt": "Why?"}, {"prompt": 7}, {"prompt": "How?"}]
    refused = take(project, rita, *rows, contents=EVERYTHING)
    assert (refused.n_problems, Prompt.objects.count()) == (1, 0)
    report = take(project, rita, *rows, only_good_rows=True)
    assert (report.n_imported, report.n_problems, Prompt.objects.count()) == (2, 1, 2)
    broken = io.BytesIO(b'[{"prompt": "When?"}, {"prompt": "Wh')
    report = import_file(project, broken, source=SOURCE, by=rita, only_good_rows=True)
    assert "What follows it was not read" in report.problems[0].reason
    assert (report.n_imported, report.n_problems) == (1, 1)
