"""Votes as the statistics take them: current ones, in the shown order, equal texts marked."""

import pytest

from annotation.models import Response
from annotation.quality.assessment import reliability_of
from annotation.quality.votes import fingerprint_of_votes, votes_of
from tests.factories import judged

pytestmark = pytest.mark.django_db


def test_people_who_rank_equal_texts_differently_do_not_disagree(project, ada, ben):
    for _ in range(6):
        comparison = judged(project, by=ada, ranks=(2, 1, 3)).comparison
        same = comparison.responses.order_by("pk")
        Response.objects.filter(pk__in=[same[0].pk, same[2].pk]).update(text="The same.")
        judged(project, by=ben, comparison=comparison, ranks=(3, 1, 2))
    votes, _ = votes_of(project)
    assert all(len(set(vote.texts)) == 2 for vote in votes)
    assert reliability_of(project).profiles[ben.pk].agreement.value == 1.0


def test_the_fingerprint_changes_with_each_vote(project, ada, ben):
    before = fingerprint_of_votes(project)
    comparison = judged(project, by=ada).comparison
    with_one = fingerprint_of_votes(project)
    judged(project, by=ben, comparison=comparison)
    assert len({before, with_one, fingerprint_of_votes(project)}) == 3
