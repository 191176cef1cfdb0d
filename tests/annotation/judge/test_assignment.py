from datetime import timedelta

import pytest
from django.db.models import ProtectedError
from django.utils import timezone

from annotation.judge import assignment
from annotation.judge.assignment import next_assignment, peek_next, waiting
from annotation.judge.leases import release, release_overdue, renew
from annotation.models import Assignment, Batch, Comparison
from annotation.projects.batches import close_batch
from tests.annotation.audit import assert_counters_are_right
from tests.factories import BatchFactory, ComparisonFactory

State = Assignment.State


@pytest.fixture
def batch(project):
    return BatchFactory(project=project)


def comparisons(batch, n, **fields):
    return [ComparisonFactory(batch=batch, **fields) for _ in range(n)]


def run_out(assignment):
    Assignment.objects.filter(pk=assignment.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


def test_somebody_who_asks_again_gets_what_they_hold(batch, project, ada):
    comparisons(batch, 3)
    assert next_assignment(ada, project) == next_assignment(ada, project)
    assert Assignment.objects.count() == 1
    assert_counters_are_right()


def test_two_people_get_different_comparisons_where_one_judgment_is_enough(
    batch, project, ada, ben
):
    comparisons(batch, 2)
    first, second = next_assignment(ada, project), next_assignment(ben, project)
    assert first.comparison_id != second.comparison_id
    assert_counters_are_right()


def test_nobody_is_handed_more_than_is_needed(batch, project, ada, ben, vera):
    comparisons(batch, 1, needed=2)
    assert next_assignment(ada, project)
    assert next_assignment(ben, project)
    assert next_assignment(vera, project) is None
    assert_counters_are_right()


def test_the_higher_priority_comes_first_and_then_the_shuffle(batch, project, ada):
    project.random_share = 0.0
    late = ComparisonFactory(batch=batch, priority=0, shuffle=0.9)
    soon = ComparisonFactory(batch=batch, priority=0, shuffle=0.1)
    now = ComparisonFactory(batch=batch, priority=5, shuffle=0.95)
    order = []
    current = next_assignment(ada, project)
    while current:
        order.append(current.comparison)
        Assignment.objects.filter(pk=current.pk).update(state=State.JUDGED)
        current = next_assignment(ada, project)
    assert order == [now, soon, late]


def test_the_order_of_responses_is_shuffled_and_stored(batch, project, ada):
    comparisons(batch, 30)
    seen = set()
    for _ in range(30):
        current = next_assignment(ada, project)
        ids = sorted(current.shown_order)
        assert ids == [r.pk for r in current.comparison.responses.all()]
        seen.add(tuple(ids.index(pk) for pk in current.shown_order))
        Assignment.objects.filter(pk=current.pk).update(state=State.JUDGED)
    assert len(seen) > 5  # Of 24 orders; 30 draws that give fewer are one in 10^15.


def test_the_one_after_is_leased_too_and_only_one(batch, project, ada, ben):
    comparisons(batch, 2)
    current = next_assignment(ada, project)
    after = peek_next(ada, project, current)
    assert after != current
    assert peek_next(ada, project, current) == after
    assert next_assignment(ada, project) == current
    assert next_assignment(ben, project) is None
    assert_counters_are_right()


def test_a_lease_that_ran_out_goes_to_somebody_else(batch, project, ada, ben):
    comparisons(batch, 1)
    held = next_assignment(ada, project)
    assert next_assignment(ben, project) is None
    run_out(held)
    assert release_overdue() == 1
    assert release_overdue() == 0
    assert next_assignment(ben, project).comparison == held.comparison
    assert next_assignment(ada, project) is None
    assert_counters_are_right()


def test_what_ran_out_and_nobody_took_comes_back_with_its_draft(batch, project, ada):
    comparisons(batch, 3)
    held = next_assignment(ada, project)
    Assignment.objects.filter(pk=held.pk).update(draft={"reason": "half a thought"})
    run_out(held)
    release_overdue()
    again = next_assignment(ada, project)
    assert again == held
    assert again.draft == {"reason": "half a thought"}
    assert_counters_are_right()


def test_renewing_keeps_a_lease_and_takes_a_lost_one_back_while_there_is_room(
    batch, project, ada, ben
):
    comparisons(batch, 1)
    held = next_assignment(ada, project)
    run_out(held)
    assert renew(held)
    assert release_overdue() == 0
    release(held)
    assert renew(held)
    release(held)
    assert next_assignment(ben, project)
    assert not renew(held)
    assert_counters_are_right()


def test_releasing_twice_frees_one_place(batch, project, ada):
    comparisons(batch, 1)
    held = next_assignment(ada, project)
    release(held)
    release(held)
    assert Comparison.objects.get().taken == 0
    assert_counters_are_right()


def test_only_open_batches_of_this_project_are_handed_out(project, ada, otto):
    for state in (Batch.State.DRAFT, Batch.State.CLOSED):
        ComparisonFactory(batch=BatchFactory(project=project, state=state))
    elsewhere = BatchFactory(project=otto.memberships.get().project)
    ComparisonFactory(batch=elsewhere)
    assert next_assignment(ada, project) is None
    assert waiting(ada, project) == 0


def test_closing_a_batch_takes_the_leases_back(batch, project, ada, grace):
    comparisons(batch, 2)
    next_assignment(ada, project)
    close_batch(batch, grace)
    assert next_assignment(ada, project) is None
    assert not Assignment.objects.filter(state=State.LEASED).exists()
    assert_counters_are_right()


def test_next_reads_as_many_rows_at_any_size(batch, project, ada, django_assert_max_num_queries):
    comparisons(batch, 40)
    with django_assert_max_num_queries(11):
        next_assignment(ada, project)
    with django_assert_max_num_queries(6):
        next_assignment(ada, project)


def test_an_account_that_holds_a_place_is_not_deleted_under_it(batch, project, ada):
    ComparisonFactory(batch=batch)
    next_assignment(ada, project)
    with pytest.raises(ProtectedError):
        ada.delete()
    assert_counters_are_right()


def test_a_place_freed_between_two_questions_breaks_nothing(batch, project, ada, monkeypatch):
    ComparisonFactory(batch=batch)
    begun = next_assignment(ada, project)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    release_overdue()
    look, looked = assignment._open, []

    def too_early(user, project):
        looked.append(user)
        return ([], []) if len(looked) == 1 else look(user, project)

    monkeypatch.setattr(assignment, "_open", too_early)
    assert next_assignment(ada, project) == begun
    assert_counters_are_right()
