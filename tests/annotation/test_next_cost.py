"""What `next` costs does not grow with the queue: an index gives the row, whatever lies behind it."""

import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from annotation.assignment import next_assignment, peek_next, waiting
from annotation.judging import Answer, submit_judgment
from annotation.models import Membership, Project, User
from benchmarks.load_queue import fill
from tests.factories import key

pytestmark = pytest.mark.django_db

SMALL, LARGE = 1_000, 50_000
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


def plans(act):
    """How the database answers each question that `act` asks about free comparisons."""
    with CaptureQueriesContext(connection) as asked:
        act()
    explain = "EXPLAIN QUERY PLAN " if connection.vendor == "sqlite" else "EXPLAIN "
    found = []
    for query in asked:
        sql = query["sql"]
        if sql.startswith("SELECT") and '"is_free"' in sql.split("WHERE", 1)[-1]:
            with connection.cursor() as cursor:
                cursor.execute(explain + sql)
                found.append("\n".join(str(row[-1]) for row in cursor.fetchall()))
    return found


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
        assert "USE TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan
        assert "Seq Scan on annotation_comparison" not in plan, plan
        assert "SCAN annotation_comparison" not in plan, plan


def work_of_each_act(n):
    """Instructions of SQLite for every request of somebody in the middle of their day."""
    project, user = queue(n)
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
        with transaction.atomic():
            counted[n] = work_of_each_act(n)
            transaction.set_rollback(True)
    for act, small in counted[SMALL].items():
        assert counted[LARGE][act] <= 1.2 * small + 100, (act, counted)


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
