"""The cost of `next` does not grow with the queue, because an index gives the row.

Nor does it grow with an annotator's lead over the others: a look begins where the last one ended.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.judge import queues
from annotation.judge.answers import Answer
from annotation.judge.assignment import WAITING_COUNTED, next_assignment, peek_next, waiting
from annotation.judge.queues import WINDOW
from annotation.judge.submitting import submit_judgment
from annotation.models import Assignment, Comparison, Membership, Project, User
from benchmarks.load_queue import fill
from tests.factories import key

pytestmark = pytest.mark.django_db

SMALL, LARGE = 1_000, 50_000
LEADS = (0, 200, 5_000)
INDEXES = {0.0: "comparison_next", 1.0: "comparison_random"}


def queue(n, random_share=0.0, skills=()):
    """A project with n comparisons in its open batch, and somebody who judges in it."""
    fill(comparisons=n, people=1)
    project = Project.objects.get(slug="load")
    project.random_share = random_share
    project.save()
    user = User.objects.get(username="person0")
    Membership.objects.filter(user=user).update(skills=list(skills))
    return project, user


def answered(assignment):
    ids = [str(pk) for pk in assignment.shown_order]
    ranks = {axis: {pk: 1 + i for i, pk in enumerate(ids)} for axis in ("helpfulness", "safety")}
    return submit_judgment(
        assignment, by=assignment.annotator, answer=Answer(ranks=ranks), key=key()
    )


def ahead_by(n, random_share=0.0, scored=False):
    """A project with an overlap of 3, and somebody who has judged the first n of those still free."""
    fill(comparisons=LEADS[-1] + 1_000, people=1, overlap=3)
    project = Project.objects.get(slug="load")
    project.random_share = random_share
    project.save()
    user = User.objects.get(username="person0")
    if scored:
        Comparison.objects.update(score=F("shuffle"))
    order = ["shuffle", "id"] if random_share or not scored else ["-score", "shuffle", "id"]
    first = list(Comparison.objects.order_by(*order)[:n])
    Assignment.objects.bulk_create(
        Assignment(
            comparison=one,
            annotator=user,
            state=Assignment.State.JUDGED,
            shown_order=[],
            lease_until=timezone.now(),
        )
        for one in first
    )
    for one in first:
        one.taken = one.judged = 1
    Comparison.objects.bulk_update(first, ["taken", "judged"], batch_size=1_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return project, user


def explained(act, explain):
    """What the database says to `explain` of each question that `act` asks about free comparisons."""
    with CaptureQueriesContext(connection) as asked:
        act()
    for query in asked:
        sql = query["sql"]
        if sql.startswith("SELECT") and " AND is_free" in sql.split("WHERE", 1)[-1]:
            with connection.cursor() as cursor:
                cursor.execute(f"{explain} {sql}")
                yield cursor.fetchall()


def plans(act):
    """How the database answers each of them."""
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    return ["\n".join(str(row[-1]) for row in rows) for rows in explained(act, explain)]


def assert_read_from_an_index(plan):
    assert "USE TEMP B-TREE" not in plan, plan
    assert "Sort" not in plan, plan
    assert "Seq Scan on annotation_comparison" not in plan, plan
    assert "SCAN annotation_comparison" not in plan, plan


def rows_read(act):
    """How many rows and index entries PostgreSQL reads to answer each of them."""

    def read(node):
        below = sum(read(one) for one in node.get("Plans", ()))
        if "Scan" not in node["Node Type"]:
            return below
        passed = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        return below + passed * node["Actual Loops"]

    answers = explained(act, "EXPLAIN (ANALYZE, FORMAT JSON)")
    plans = (rows[0][0] for rows in answers)
    return [
        read((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]) for plan in plans
    ]


@contextmanager
def steps():
    """steps()["n"]: what SQLite's virtual machine did, in instructions, to the nearest ten."""
    counted = {"n": 0}

    def tick():
        counted["n"] += 10
        return 0

    connection.ensure_connection()
    connection.connection.set_progress_handler(tick, 10)
    try:
        yield counted
    finally:
        connection.connection.set_progress_handler(None, 10)


@pytest.mark.parametrize("random_share", [0.0, 1.0])
@pytest.mark.parametrize("skills", [[], ["de"]])
def test_next_reads_one_index_and_sorts_nothing(random_share, skills):
    project, user = queue(LARGE, random_share, skills)
    found = [
        plan
        for plan in plans(lambda: next_assignment(user, project))
        if "annotation_comparison" in plan and INDEXES[random_share] in plan
    ]
    assert found, "no question was answered from the index"
    for plan in found:
        assert_read_from_an_index(plan)


@pytest.mark.parametrize("random_share", [0.0, 1.0])
@pytest.mark.parametrize("scored", [False, True])
def test_whoever_is_ahead_is_looked_for_in_one_index_too(random_share, scored):
    project, user = ahead_by(2 * WINDOW, random_share, scored)
    answered(next_assignment(user, project))
    found = [
        plan
        for plan in plans(lambda: next_assignment(user, project))
        if "comparison_next" in plan or "comparison_random" in plan
    ]
    parts = 2 if scored and not random_share else 1
    assert len(found) == 1 + parts, "the window, and each part from the cursor on"
    for plan in found:
        assert_read_from_an_index(plan)


@pytest.mark.parametrize("scored", [False, True])
def test_postgresql_reads_no_more_for_who_is_ahead(scored):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite counts its steps, below")
    project, user = ahead_by(LEADS[-1], scored=scored)
    assert max(rows_read(lambda: answered(next_assignment(user, project)))) > LEADS[-1]
    assert max(rows_read(lambda: next_assignment(user, project))) < 3 * WINDOW
    assert max(rows_read(lambda: waiting(user, project))) < 3 * WAITING_COUNTED


def work_of_each_act(project, user):
    """Instructions of SQLite for every request of somebody in the middle of their day."""
    for _ in range(20):
        answered(next_assignment(user, project))
    counted = {}
    with steps() as done:
        current = next_assignment(user, project)
    counted["next"] = done["n"]
    with steps() as done:
        peek_next(user, project, current)
    counted["after"] = done["n"]
    with steps() as done:
        waiting(user, project)
    counted["waiting"] = done["n"]
    with steps() as done:
        answered(current)
    counted["submit"] = done["n"]
    return counted


def test_the_work_is_the_same_at_any_size():
    if connection.vendor != "sqlite":
        pytest.skip("SQLite counts its steps; PostgreSQL shows its plan above")
    counted = {}
    for n in (SMALL, LARGE):
        queues.cursors.clear()  # The ids of what was rolled back come again.
        with transaction.atomic():
            counted[n] = work_of_each_act(*queue(n))
            transaction.set_rollback(True)
    for act, small in counted[SMALL].items():
        assert counted[LARGE][act] <= 1.2 * small + 100, (act, counted)


def test_the_work_is_the_same_however_far_somebody_is_ahead():
    if connection.vendor != "sqlite":
        pytest.skip("SQLite counts its steps; PostgreSQL counts rows above")
    counted = {}
    for lead in LEADS:
        queues.cursors.clear()  # The ids of what was rolled back come again.
        with transaction.atomic():
            counted[lead] = work_of_each_act(*ahead_by(lead))
            transaction.set_rollback(True)
    # To see that nothing among the first WINDOW is free for somebody takes 25 steps for each.
    for lead in LEADS[1:]:
        for act, steps_of_nobody in counted[0].items():
            assert counted[lead][act] <= steps_of_nobody + 30 * WINDOW, (act, counted)
    for act, few in counted[200].items():
        assert counted[5_000][act] <= 1.05 * few + 50, (act, counted)


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
