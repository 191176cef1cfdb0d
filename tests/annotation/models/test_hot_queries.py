"""The SQL of next and submit gives the rows that querysets would give, with every column."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.utils import timezone

from annotation.models import Assignment, Batch, Comparison, Judgment, Membership, hot_queries
from tests.factories import BatchFactory, judged

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("model", [Assignment, Batch, Comparison, Judgment, Membership])
def test_a_row_has_all_columns_with_their_types(model, project, ada):
    judged(project, by=ada)
    expected = model.objects.last()
    instance = hot_queries.row(model, expected.pk)
    assert not instance.get_deferred_fields()
    for field in model._meta.concrete_fields:
        assert getattr(instance, field.attname) == getattr(expected, field.attname), field.name


def test_a_row_that_is_gone_does_not_exist(project):
    with pytest.raises(Batch.DoesNotExist):
        hot_queries.row(Batch, 999_999)


def test_a_membership_comes_with_its_project(project, ada, otto):
    membership = hot_queries.membership(ada.pk, project.slug)
    assert (membership.user_id, membership.project) == (ada.pk, project)
    assert hot_queries.membership(otto.pk, project.slug) is None


@pytest.mark.parametrize("slug", ["' OR 1=1 --", "%s", "", "ünï"])
def test_a_value_is_never_part_of_the_sql(slug, project, ada):
    assert hot_queries.membership(ada.pk, slug) is None


def test_an_assignment_is_found_by_its_own_annotator_only(project, ada, ben):
    mine = judged(project, by=ada)
    assert hot_queries.own_assignment(mine.uid, ada.pk, project.pk) == mine
    assert hot_queries.own_assignment(mine.uid, ben.pk, project.pk) is None
    assert hot_queries.own_assignment(uuid4(), ada.pk, project.pk) is None
    Assignment.objects.filter(pk=mine.pk).update(is_ruling=True)
    assert hot_queries.own_assignment(mine.uid, ada.pk, project.pk) is None


def test_judgments_are_counted_from_a_time_on(project, ada, ben):
    judged(project, by=ada)
    judged(project, by=ben)
    now = timezone.now()
    assert hot_queries.count_judged_since(now - timedelta(hours=1), ada.pk, project.pk) == 1
    assert hot_queries.count_judged_since(now + timedelta(hours=1), ada.pk, project.pk) == 0
    Judgment.objects.update(excluded_at=now)
    assert hot_queries.count_judged_since(now - timedelta(hours=1), ada.pk, project.pk) == 0


def test_earlier_judgments_are_found_by_key_or_assignment(project, ada):
    mine = judged(project, by=ada)
    judgment = mine.judgment
    for key, pk in ((judgment.key, 0), (uuid4(), mine.pk)):
        (earlier,) = hot_queries.earlier_judgments(key, pk)
        assert (earlier.key, earlier.revision) == (judgment.key, 1)
    assert hot_queries.earlier_judgments(uuid4(), 0) == []


def test_open_batches_of_work_come_by_priority(project):
    late = BatchFactory(project=project, state="open", opened_at=timezone.now())
    urgent = BatchFactory(project=project, state="open", opened_at=timezone.now(), priority=5)
    BatchFactory(project=project, state="closed")
    BatchFactory(project=project, state="open", qualification=1)
    assert hot_queries.open_batches(project.pk) == [urgent, late]
