"""`manage.py audit_judgments`: what clients were told against what the database has."""

import json

import pytest
from django.core.management import CommandError, call_command

from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import submit_judgment
from annotation.models import Comparison, Judgment
from tests.factories import BatchFactory, ComparisonFactory, key

pytestmark = pytest.mark.django_db


@pytest.fixture
def confirmed(project, ada, ben, tmp_path):
    """Four judgments and the file in which their senders noted that the server confirmed them."""
    batch = BatchFactory(project=project)
    for _ in range(2):
        ComparisonFactory(batch=batch, responses=2, needed=2)
    path = tmp_path / "acknowledged.jsonl"
    with path.open("w") as notes:
        for person in (ada, ben):
            while (current := next_assignment(person, project)) is not None:
                ranks = {axis: {"A": 2, "B": 1} for axis in project.axis_keys}
                once = key()
                submit_judgment(
                    current,
                    by=current.annotator,
                    answer=Answer.from_letters(current, {"ranks": ranks}),
                    key=once,
                )
                row = {"key": str(once), "assignment": str(current.uid), "ranks": ranks}
                notes.write(json.dumps(row | {"annotator": person.username}) + "\n")
    return path


def report(path, capsys, *options):
    """The exit code and what was printed."""
    code = 0
    try:
        call_command("audit_judgments", "--acknowledged", str(path), *options)
    except CommandError as error:
        code = error.returncode
    return code, capsys.readouterr().out


def test_all_is_well(confirmed, capsys):
    code, said = report(confirmed, capsys, "--json")
    assert code == 0
    figures = json.loads(said)
    assert figures["acknowledged"] == figures["judgments"] == 4
    assert sum(figures[fault] for fault in ("lost", "changed", "doubled", "over_assigned")) == 0


def test_a_frozen_file_that_was_changed_afterwards_is_seen(confirmed, project, rita, capsys):
    frozen = snapshot_file(freeze_snapshot(project, by=rita), "preferences.jsonl")
    assert report(confirmed, capsys)[0] == 0
    frozen.write_text(frozen.read_text().replace('"weight":1.0', '"weight":9.0', 1))
    code, said = report(confirmed, capsys)
    assert code == 1
    assert "Apollo, version 1: preferences.jsonl was changed" in said


def test_a_confirmed_answer_that_is_not_there_is_lost(confirmed, capsys):
    with confirmed.open("a") as notes:
        notes.write(json.dumps({"key": str(key()), "assignment": str(key())}) + "\n")
    code, said = report(confirmed, capsys)
    assert code == 1
    assert "was acknowledged and is not in the database" in said


def test_a_stored_answer_that_differs_is_seen(confirmed, capsys):
    judgment = Judgment.objects.first()
    judgment.ranks["helpfulness"] = dict.fromkeys(judgment.ranks["helpfulness"], 1)
    judgment.save()
    code, said = report(confirmed, capsys)
    assert code == 1
    assert "the stored ranks are not those that were sent" in said


def test_an_answer_stored_under_two_keys_is_doubled(confirmed, capsys):
    judgment = Judgment.objects.first()
    judgment.pk, judgment.uid, judgment.key, judgment.revision = None, key(), key(), 2
    judgment.save(force_insert=True)
    code, said = report(confirmed, capsys)
    assert code == 1
    assert "has one answer 2 times" in said
    assert "stored, but the reply never arrived" in said


def test_places_that_were_given_away_twice_and_counters_that_lie_are_seen(confirmed, capsys):
    one, other = Comparison.objects.order_by("pk")
    Comparison.objects.filter(pk=one.pk).update(needed=1)
    Comparison.objects.filter(pk=other.pk).update(judged=1)
    code, said = report(confirmed, capsys)
    assert code == 1
    assert f"comparison {one.pk} has 1 places and 2 assignments that take one" in said
    assert f"comparison {other.pk} counts 2 taken and 1 judged" in said


@pytest.mark.parametrize("line", ["no json", "[]", '{"key": "x", "assignment": "y"}', "{}"])
def test_a_file_that_is_none_is_refused_with_its_line(confirmed, line, capsys):
    with confirmed.open("a") as notes:
        notes.write(line + "\n")
    with pytest.raises(CommandError, match="Line 5 is not an acknowledged answer") as problem:
        call_command("audit_judgments", "--acknowledged", str(confirmed))
    assert problem.value.returncode == 2


def test_a_project_or_file_that_does_not_exist_is_named(confirmed, tmp_path):
    with pytest.raises(CommandError, match="no project “mercury”"):
        call_command("audit_judgments", "--project", "mercury")
    with pytest.raises(CommandError, match="can't be read"):
        call_command("audit_judgments", "--acknowledged", str(tmp_path / "nowhere"))
