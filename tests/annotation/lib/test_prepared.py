"""A prepared question answers what its queryset would, however often and for whomever it is asked."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import DatabaseError, transaction
from django.db.models import BooleanField, Exists, ExpressionWrapper, OuterRef, Q

from annotation.lib.prepared import Prepared, insert, together, update
from annotation.models import Assignment, Comparison, Judgment, Membership
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


def test_annotations_come_along(project, ada, ben):
    mine, theirs = judged(project, by=ada), judged(project, by=ben)
    asked = Prepared(
        lambda user: (
            Assignment.objects.select_related("comparison")
            .annotate(is_mine=ExpressionWrapper(Q(annotator=user), BooleanField()))
            .order_by("pk")
        )
    )
    got = asked(user=ada.pk)
    assert got == [mine, theirs]
    assert [one.is_mine for one in got] == [True, False]
    assert [one.comparison for one in got] == [mine.comparison, theirs.comparison]


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


def test_several_questions_are_answered_in_their_order(project, ada, ben):
    mine = judged(project, by=ada)
    of = Prepared(lambda user: Assignment.objects.filter(annotator=user))
    slugs = Prepared(
        lambda slug: Membership.objects.filter(project__slug=slug).values_list("user_id")
    )
    with transaction.atomic():
        got = together(
            (of, {"user": ada.pk}), (slugs, {"slug": project.slug}), (of, {"user": ben.pk})
        )
    assert got == [[mine], slugs(slug=project.slug), []]


def test_a_count_is_the_number_of_rows(project, ada):
    judged(project, by=ada)
    early, late = project.created_at - timedelta(days=1), project.created_at + timedelta(days=1)
    since = Prepared(
        lambda user, start: Judgment.objects.filter(
            assignment__annotator=user, created_at__gte=start
        )
    )
    assert since.count(user=ada.pk, start=early) == len(since(user=ada.pk, start=early)) == 1
    assert since.count(user=ada.pk, start=late) == 0


def test_a_row_is_written_as_save_writes_it(project, ada, ben):
    given = judged(project, by=ada)
    saved = Judgment.objects.get(pk=given.judgment_id)
    copy = Judgment.objects.get(pk=saved.pk)
    copy.pk, copy.uid, copy.key, copy.revision = None, uuid4(), uuid4(), 2
    copy._state.adding = True
    insert(copy)
    kept = Judgment.objects.get(pk=copy.pk)
    others = {"id", "uid", "key", "revision"}
    for field in Judgment._meta.concrete_fields:
        if field.name not in others:
            assert getattr(kept, field.attname) == getattr(saved, field.attname), field.name
    assert (kept.uid, kept.key, kept.revision) == (copy.uid, copy.key, 2)
    assert not copy._state.adding

    copy.ranks, copy.reason, copy.seconds = {"safety": {"7": 1}}, "changed", 9.0
    update(copy, "ranks", "reason")
    kept.refresh_from_db()
    assert (kept.ranks, kept.reason) == (copy.ranks, "changed")
    assert kept.seconds == saved.seconds
    copy.delete()
    copy.pk = kept.pk
    with pytest.raises(DatabaseError):
        update(copy, "reason")
