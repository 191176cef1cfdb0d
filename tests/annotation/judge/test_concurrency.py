"""Many people at the same moment, on a real database file; on PostgreSQL too where there is one."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from django.conf import settings
from django.db import connection, transaction

from annotation.data import snapshot_rows
from annotation.data.snapshots import freeze_snapshot
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment, peek_next
from annotation.judge.leases import lock, release, release_overdue
from annotation.judge.submitting import skip, submit_judgment, undo_last
from annotation.models import Assignment, Comparison, Event, Judgment, Project
from annotation.protocols import PRESETS
from tests.annotation.audit import assert_counters_are_right
from tests.factories import BatchFactory, ComparisonFactory, key, member

# Emptying the tables between tests must cascade on PostgreSQL: django-rest-knox leaves a table behind
# that its swapped-out model made and that Django no longer knows of.
pytestmark = pytest.mark.django_db(
    transaction=True,
    available_apps=settings.INSTALLED_APPS if connection.vendor == "postgresql" else None,
)

PEOPLE = 64


def all_at_once(act, people):
    """Run act(person) in one thread each, starting together; raises what any of them raised."""
    barrier = Barrier(len(people))

    def one(person):
        barrier.wait()
        try:
            return act(person)
        finally:
            connection.close()

    with ThreadPoolExecutor(len(people)) as pool:
        return list(pool.map(one, people))


def answer(assignment):
    ids = [str(pk) for pk in assignment.shown_order]
    axes = ("helpfulness", "safety")
    return Answer(ranks={axis: {pk: i + 1 for i, pk in enumerate(ids)} for axis in axes})


@pytest.mark.parametrize(("overlap", "wide"), [(1, 100), (3, 100), (3, 2)])
def test_64_people_submit_and_nothing_is_lost_or_doubled(project, window, overlap, wide):
    """Also where nearly everybody is looked for from a cursor on, beyond the first two."""
    window(wide)
    people = [member(project, f"person{i}", "annotator") for i in range(PEOPLE)]
    batch = BatchFactory(project=project)
    for _ in range(40):
        ComparisonFactory(batch=batch, responses=3, needed=overlap)

    def work(person):
        acknowledged = []
        while (current := next_assignment(person, project)) is not None:
            once = key()
            for _ in range(random.choice((1, 2))):  # Some send twice, as a retry would.
                sent = submit_judgment(
                    current, by=current.annotator, answer=answer(current), key=once
                )
            acknowledged.append(sent.pk)
        return acknowledged

    acknowledged = [pk for each in all_at_once(work, people) for pk in each]
    assert len(acknowledged) == len(set(acknowledged)) == Judgment.objects.count()
    # Everybody who came found all places taken, and each comparison has exactly its number.
    judged = Counter(Judgment.objects.values_list("assignment__comparison_id", flat=True))
    assert set(judged.values()) == {overlap}
    assert len(judged) == 40
    assert_counters_are_right()


def test_the_same_answer_sent_by_many_requests_at_once_is_one_row(project, ada):
    ComparisonFactory(batch=BatchFactory(project=project))
    current, once = next_assignment(ada, project), key()

    def send(_):
        mine = Assignment.objects.get(pk=current.pk)
        return submit_judgment(mine, by=mine.annotator, answer=answer(mine), key=once).pk

    assert len(set(all_at_once(send, range(12)))) == 1
    assert Judgment.objects.count() == 1
    assert_counters_are_right()


def test_one_person_in_many_tabs_holds_one_comparison(project, ada):
    batch = BatchFactory(project=project)
    for _ in range(12):
        ComparisonFactory(batch=batch)
    handed = all_at_once(lambda _: next_assignment(ada, project).pk, range(12))
    assert len(set(handed)) == 1
    assert Assignment.objects.count() == 1
    assert_counters_are_right()


@pytest.mark.parametrize("wide", [100, 2])
def test_skips_releases_and_the_sweeper_leave_the_counters_right(project, window, wide):
    window(wide)
    people = [member(project, f"person{i}", "annotator") for i in range(12)]
    batch = BatchFactory(project=project)
    for _ in range(20):
        ComparisonFactory(batch=batch, responses=2, needed=2)

    def work(person):
        luck = random.Random(person.username)
        for _ in range(12):
            current = next_assignment(person, project)
            if current is None:
                return
            peek_next(person, project, current)
            turn = luck.random()
            if turn < 0.2:
                skip(current, "not today")
            elif turn < 0.4:
                release(current)
            else:
                submit_judgment(current, by=current.annotator, answer=answer(current), key=key())
            release_overdue()

    all_at_once(work, people)
    assert_counters_are_right()
    assert Comparison.objects.filter(judged__gt=2).count() == 0


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one lock for everything")
def test_who_waits_for_a_comparison_with_the_project_locked_lets_the_audit_log_be_written(project):
    """As when guidelines are changed while judgments are taken out: neither waits for ever."""
    comparison = ComparisonFactory(batch=BatchFactory(project=project))
    both = Barrier(2)

    def waits_for_the_comparison():
        with transaction.atomic():
            Project.objects.lock(project.pk)
            both.wait()
            lock(comparison.pk)

    def writes_a_line():
        with transaction.atomic():
            lock(comparison.pk)
            both.wait()
            time.sleep(0.3)
            Event.record(project, None, "took a judgment out")

    all_at_once(lambda act: act(), [waits_for_the_comparison, writes_a_line])
    assert Event.objects.filter(verb="took a judgment out").exists()


def test_what_is_judged_while_a_version_is_frozen_is_in_all_of_its_files_or_in_none(
    project, ada, grace, monkeypatch
):
    """Rankings are read first and ratings after them; ada judges, and ben takes back, in between."""
    preset = PRESETS["helpsteer"]
    project.interface, project.protocol = preset.interface, preset.protocol.as_json()
    project.axes = [dict(axis) for axis in preset.axes]
    project.save()
    batch = BatchFactory(project=project, interface=preset.interface, protocol=project.protocol)
    marks = {one.key: 2 for one in preset.protocol.attributes}

    def judge(person):
        assignment = next_assignment(person, project)
        letters = {
            "ranks": {"overall": {"A": 1, "B": 2}},
            "strength": {"overall": 2},
            "ratings": {"A": marks, "B": marks},
            "reason": "A says how much water it wants.",
        }
        answer = Answer.from_letters(assignment, letters)
        submit_judgment(assignment, by=person, answer=answer, key=key())

    ben = member(project, "ben", "annotator")
    for _ in range(3):
        ComparisonFactory(batch=batch, responses=2, needed=1)
    judge(ada)
    judge(ben)
    read = snapshot_rows.response_rows

    def meanwhile(*args, **kwargs):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(judge, ada).result()
            pool.submit(undo_last, ben, project).result()
            pool.submit(lambda: connection.close()).result()
        assert Judgment.objects.count() == 2, "what is read is of the moment when it began"
        yield from read(*args, **kwargs)

    monkeypatch.setattr(snapshot_rows, "response_rows", meanwhile)
    made = freeze_snapshot(project, by=grace)
    assert (made.counts["judgments"], made.counts["ratings"]) == (2, 4)
    assert made.counts["guidelines"] == {str(project.guideline_version): 2}
    assert Judgment.objects.count() == 3
    monkeypatch.undo()
    after = freeze_snapshot(project, by=grace)
    assert (after.counts["judgments"], after.counts["ratings"]) == (2, 4)
    assert after.sha256 != made.sha256


@pytest.mark.skipif(
    not os.environ.get("TEST_DATABASE_URL") or connection.vendor == "postgresql",
    reason="TEST_DATABASE_URL names no PostgreSQL server",
)
def test_the_same_holds_on_postgresql():
    here = os.environ | {"DATABASE_URL": os.environ["TEST_DATABASE_URL"]}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
