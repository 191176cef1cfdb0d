"""Nobody can tell gold by counting: each number that an annotator sees moves as it does for work."""

import re
import uuid
from datetime import timedelta

import pytest
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from annotation.judge import gold_mixing
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import skip, submit_judgment, undo_last
from annotation.models import Batch, Comparison, Judgment, Membership, Prompt
from annotation.projects.batches import open_batch
from annotation.quality.gold_items import add_gold_items
from tests.annotation.gold_rows import gold_rows
from tests.factories import BatchFactory, ComparisonFactory, ProjectFactory, PromptFactory, member
from tests.test_access_matrix import PAGES

pytestmark = pytest.mark.django_db

VOLATILE = re.compile(
    r"(?i:csrf)[^>]*>|nonce-?[\"'=A-Za-z0-9+/_-]+|[0-9a-f]{8}-[0-9a-f-]{27}"
    r"|\d{4}-\d\d-\d\dT[0-9:.+Z]*|\b1\d{12}\b|\b\d\d:\d\d\b"
)
TEXTS = re.compile(
    r"What is \d+ plus one\?|How do I water plant number \d+\?|It is \d+\."
    r"|Answer \d+: give it a little water\."
)


def answer(assignment):
    """In the order in which they were shown, so that the pages say the same of every answer."""
    ranks = {letter: place for place, letter in enumerate(assignment.letters.values(), start=1)}
    axes = assignment.comparison.batch.project.axis_keys
    said = {"ranks": dict.fromkeys(axes, ranks)}
    submit_judgment(assignment, by=assignment.annotator, answer=said, key=uuid.uuid4())


@pytest.fixture
def worked(project, grace, ada, ben):
    """Work and gold for two people; ben answered half of it yesterday, and ada two of hers."""
    project.gold_every, project.overlap, project.random_share = 4, 2, 0.0
    project.save()
    batch = BatchFactory(project=project, name="Round 1", state=Batch.State.DRAFT, overlap=2)
    for _ in range(24):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project), needed=2)
    add_gold_items(project, gold_rows(10), grace)
    open_batch(batch, grace)
    for who, n in ((ben, 16), (ada, 4)):
        for _ in range(n):
            answer(next_assignment(who, project))
    Judgment.objects.update(created_at=timezone.now() - timedelta(days=1))
    # A second project, so that the first page lists what is open in each.
    member(ProjectFactory(slug="soyuz"), "ada", "annotator")
    return batch


def pages(client):
    """Every page and answer that an annotator may open, without texts, keys and times of day."""
    seen = {}
    for name in ("home", "preferences", "tokens", "api:projects"):
        seen[name] = client.get(reverse(name))
    for name, (method, roles) in PAGES.items():
        if method == "get" and Membership.Role.ANNOTATOR in roles:
            seen[name] = client.get(reverse(name, args=["apollo"]))
    seen["api:judging_next"] = client.post(reverse("api:judging_next", args=["apollo"]))
    return {
        name: (response.status_code, TEXTS.sub("TEXT", VOLATILE.sub("", response.content.decode())))
        for name, response in seen.items()
    }


def judge_it(assignment, user, project):
    answer(assignment)


def skip_it(assignment, user, project):
    skip(assignment, "I can't judge this subject")


def take_it_back(assignment, user, project):
    answer(assignment)
    undo_last(user, project)


def hold_it(assignment, user, project):
    """Nothing more."""


@pytest.mark.parametrize("act", [hold_it, judge_it, skip_it, take_it_back])
def test_every_number_an_annotator_sees_is_the_same_for_gold_and_for_work(
    worked, project, ada, client, monkeypatch, act
):
    seen = {}
    for is_gold in (True, False):
        with transaction.atomic():
            place = 0 if is_gold else 1
            monkeypatch.setattr(gold_mixing, "_place", lambda *_, place=place: place)
            assignment = next_assignment(ada, project)
            assert (assignment.comparison.gold_id is not None) == is_gold
            act(assignment, ada, project)
            client.force_login(ada)
            seen[is_gold] = pages(client)
            transaction.set_rollback(True)
    assert all(status == 200 for status, _ in seen[True].values())
    for name, (_, page) in seen[True].items():
        assert page == seen[False][name][1], name


def test_people_who_may_know_gold_still_see_how_much_work_is_left(worked, project, grace, client):
    client.force_login(grace)
    page = client.get("/projects/apollo/").content.decode()
    n = worked.comparisons.filter(gold=None).count() * 2
    assert f"of {n} judgments" in page


def test_who_researched_before_is_given_no_gold(worked, project, client, grace):
    """The page “Prompts” shows the prompts of gold items like all others."""
    rita = member(project, "rita", "researcher")
    Membership.objects.get(user=rita).save()
    membership = Membership.objects.get(user=rita)
    membership.role = Membership.Role.ANNOTATOR
    membership.save()
    assert membership.may_know_gold
    while assignment := next_assignment(rita, project):
        assert assignment.comparison.gold_id is None
        answer(assignment)
    assert Comparison.objects.filter(gold__isnull=False).exists()
    assert Prompt.objects.filter(gold_items__isnull=False).exists()
