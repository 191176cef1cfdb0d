"""A prepared question answers what its queryset would, however often and for whomever it is asked."""

import pytest
from django.db.models import Exists, OuterRef

from annotation.models import Assignment, Comparison, Membership
from annotation.prepared import Prepared
from tests.factories import BatchFactory, ComparisonFactory, judged

pytestmark = pytest.mark.django_db


def test_rows_come_with_their_relations_and_their_types(
    project, ada, ben, django_assert_num_queries
):
    mine, theirs = judged(project, by=ada), judged(project, by=ben)
    own = Prepared(
        lambda uid, user: Assignment.objects.filter(uid=uid, annotator=user).select_related(
            "comparison__batch__project", "judgment"
        )
    )
    for assignment in (mine, theirs, mine):
        with django_assert_num_queries(1):
            got = own.first(uid=assignment.uid, user=assignment.annotator_id)
            assert got == assignment
            assert got.comparison.batch.project == project
            assert got.judgment.ranks == assignment.judgment.ranks
        expected = Assignment.objects.get(pk=assignment.pk)
        for field in Assignment._meta.concrete_fields:
            assert getattr(got, field.attname) == getattr(expected, field.attname), field.name
    assert own.first(uid=mine.uid, user=ben.pk) is None


def test_a_relation_that_is_empty_is_none(project, ada):
    comparison = ComparisonFactory(batch=BatchFactory(project=project))
    given = Assignment.objects.create(
        comparison=comparison, annotator=ada, shown_order=[], lease_until=project.created_at
    )
    asked = Prepared(lambda pk: Assignment.objects.filter(pk=pk).select_related("judgment"))
    assert asked.first(pk=given.pk).judgment is None


def test_values_lists_and_subqueries_take_values_too(project, ada, ben):
    mine, theirs = judged(project, by=ada), judged(project, by=ben)
    untouched = Prepared(
        lambda user: (
            Comparison.objects.exclude(
                Exists(Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user))
            )
            .order_by("pk")
            .values_list("pk", "needed")
        )
    )
    assert untouched(user=ada.pk) == [(theirs.comparison_id, 1)]
    assert untouched(user=ben.pk) == [(mine.comparison_id, 1)]


@pytest.mark.parametrize("slug", ["apollo", "' OR 1=1 --", "%s", "", "ünï"])
def test_a_value_is_never_part_of_the_question(project, ada, slug):
    found = Prepared(lambda slug: Membership.objects.filter(project__slug=slug))
    assert [row.project.slug for row in found(slug=slug)] == (
        ["apollo"] if slug == "apollo" else []
    )
