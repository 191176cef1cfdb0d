"""Limits, skills, campaigns, scores and the random share: who is handed which comparison."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.judge.assignment import next_assignment, peek_next, waiting
from annotation.judge.permission import limit_reached
from annotation.judge.selection import random_sample, score_comparisons
from annotation.models import Assignment, Membership
from annotation.projects.batches import ResponseText, add_comparisons
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory

State, Drawn = Assignment.State, Assignment.Drawn


@pytest.fixture
def batch(project):
    project.random_share = 0.0
    project.save()
    return BatchFactory(project=project)


def comparisons(batch, n, **fields):
    return [ComparisonFactory(batch=batch, shuffle=i / n, **fields) for i in range(n)]


def knows(person, **fields):
    Membership.objects.filter(user=person).update(**fields)


def handed(person, project, most=100):
    """The comparisons that this person gets one after another, each marked as judged."""
    order = []
    while len(order) < most and (current := next_assignment(person, project)) is not None:
        order.append(current.comparison)
        Assignment.objects.filter(pk=current.pk).update(state=State.JUDGED)
    return order


def test_a_prompt_in_a_language_goes_to_those_who_know_it(batch, project, ada, ben):
    german, plain = comparisons(batch, 1, skill="de")[0], comparisons(batch, 1)[0]
    knows(ben, skills=["de", "python"])
    assert waiting(ada, project) == 1
    assert waiting(ben, project) == 2
    assert handed(ada, project) == [plain]
    assert handed(ben, project) == [german]


def test_what_somebody_knows_does_not_come_before_what_is_urgent(batch, project, ben):
    late, german = ComparisonFactory(batch=batch), ComparisonFactory(batch=batch, skill="de")
    soon = ComparisonFactory(batch=batch, priority=2)
    german.priority, german.shuffle = 1, 0.9
    german.save()
    knows(ben, skills=["de"])
    assert handed(ben, project) == [soon, german, late]


def test_a_batch_may_ask_for_a_skill(project, ada, ben):
    ComparisonFactory(batch=BatchFactory(project=project, skill="medicine"))
    knows(ben, skills=["medicine"])
    assert next_assignment(ada, project) is None
    assert next_assignment(ben, project)


def test_the_skill_of_a_prompt_is_that_of_its_comparisons(batch, project):
    prompt = PromptFactory(project=project, skill="de")
    add_comparisons(batch, [(prompt, [ResponseText("a", "x"), ResponseText("b", "x")])])
    assert batch.comparisons.get().skill == "de"


def test_somebody_kept_to_a_campaign_gets_nothing_else(project, ada, ben):
    red = ComparisonFactory(batch=BatchFactory(project=project, campaign="red team"))
    other = ComparisonFactory(batch=BatchFactory(project=project))
    knows(ada, campaign="red team")
    assert handed(ada, project) == [red]
    assert handed(ben, project) == [other]


def test_the_batch_with_the_higher_priority_comes_first(project, ada):
    first = ComparisonFactory(batch=BatchFactory(project=project))
    urgent = ComparisonFactory(batch=BatchFactory(project=project, priority=1))
    assert handed(ada, project) == [urgent, first]


def test_nobody_gets_more_a_day_than_the_limit_says(batch, project, ada):
    comparisons(batch, 4)
    project.daily_limit = 2
    project.save()
    assert len(handed(ada, project)) == 2
    member = Membership.objects.get(user=ada)
    assert "2 comparisons" in limit_reached(ada, project, member)
    Assignment.objects.update(leased_at=timezone.now() - timedelta(days=1))
    assert len(handed(ada, project)) == 2, "a new day"


def test_a_persons_own_limit_stands_in_for_the_projects(batch, project, ada, ben):
    comparisons(batch, 6)
    project.total_limit = 1
    project.save()
    knows(ben, total_limit=3)
    assert len(handed(ada, project)) == 1
    assert len(handed(ben, project)) == 3


def test_looking_ahead_does_not_reach_beyond_the_limit(batch, project, ada):
    comparisons(batch, 3)
    project.daily_limit = 1
    project.save()
    current = next_assignment(ada, project)
    assert peek_next(ada, project, current) is None
    assert next_assignment(ada, project) == current, "what they hold they may finish"


def test_what_the_engine_says_would_teach_most_comes_first(batch, project, ada):
    low, high, unknown = comparisons(batch, 3)
    assert score_comparisons(batch, {low.pk: 0.2, high.pk: 0.9}) == 2
    score_comparisons(batch, {low.pk: 0.2}, recency=0.5)
    assert handed(ada, project) == [high, low, unknown]


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_score_that_is_none_is_refused(batch, wrong):
    one = comparisons(batch, 1)[0]
    with pytest.raises(ValueError, match="0 or more"):
        score_comparisons(batch, {one.pk: wrong})


def test_a_persons_priority_outweighs_any_score(batch, project, ada):
    scored, urgent = comparisons(batch, 2)
    score_comparisons(batch, {scored.pk: 100.0})
    urgent.priority = 1
    urgent.save()
    assert handed(ada, project) == [urgent, scored]


def test_each_assignment_says_how_it_was_drawn(batch, project, ada):
    comparisons(batch, 60)
    project.random_share = 0.5
    project.save()
    handed(ada, project)
    n = Assignment.objects.filter(drawn=Drawn.RANDOM).count()
    assert 10 < n < 50  # 60 throws of a fair coin: outside of it once in 10^7.


def test_a_random_draw_ignores_priority_and_score(batch, project, ada):
    first, *others = comparisons(batch, 5)
    score_comparisons(batch, {one.pk: 1.0 for one in others})
    project.random_share = 1.0
    project.save()
    assert handed(ada, project, most=1) == [first]
    assert Assignment.objects.get().drawn == Drawn.RANDOM


def test_the_random_sample_is_fair_where_what_was_judged_is_not(batch, project, ada):
    everything = comparisons(batch, 200)
    # Scores that have nothing to do with the shuffle: what is drawn by score is far above the mean.
    scores = {one.pk: float((37 * i) % 200) for i, one in enumerate(everything)}
    score_comparisons(batch, scores)
    project.random_share = 0.3
    project.save()
    judged = handed(ada, project, most=120)
    sample = list(random_sample(batch))
    mean = sum(scores.values()) / 200
    of_judged = sum(scores[one.pk] for one in judged) / len(judged)
    of_sample = sum(scores[one.pk] for one in sample) / len(sample)
    assert of_judged > mean + 15
    assert abs(of_sample - mean) < 15
    assert set(sample) <= set(judged), "all of the sample was judged: nothing is left out of it"


def test_without_a_random_draw_there_is_no_sample(batch, project, ada):
    comparisons(batch, 3)
    handed(ada, project)
    assert random_sample(batch).count() == 0
