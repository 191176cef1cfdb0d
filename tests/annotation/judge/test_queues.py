"""Where a look begins: who is ahead of others is looked for from where the last look ended."""

import random
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.judge import queues
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment, waiting
from annotation.judge.leases import release, release_overdue
from annotation.judge.queues import CURSORS_KEPT, Cursor, Cursors, Queue
from annotation.judge.selection import score_comparisons
from annotation.judge.submitting import reopen, skip, submit_judgment, undo_last
from annotation.models import Assignment, Comparison, Membership, Prompt, User
from annotation.projects.batches import close_batch, open_batch
from annotation.quality.interventions import exclude
from tests.annotation.audit import assert_counters_are_right
from tests.factories import BatchFactory, ComparisonFactory, key, member

State = Assignment.State
NARROW = 5


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(queues, "monotonic", clock := Clock())
    return clock


@pytest.fixture
def narrow(window):
    window(NARROW)


@pytest.fixture
def batch(project):
    project.random_share = 0.0
    project.save()
    return BatchFactory(project=project, overlap=3)


def comparisons(batch, n, **fields):
    return [
        ComparisonFactory(batch=batch, needed=3, shuffle=(i + 1) / (n + 1), responses=2, **fields)
        for i in range(n)
    ]


def judge(assignment):
    ids = [str(pk) for pk in assignment.shown_order]
    ranks = {axis: {pk: 1 + i for i, pk in enumerate(ids)} for axis in ("helpfulness", "safety")}
    answer = Answer(ranks=ranks)
    return submit_judgment(assignment, by=assignment.annotator, answer=answer, key=key())


def judges(person, project, n):
    """The comparisons that this person judges, one after another."""
    done = []
    while len(done) < n:
        done.append(next_assignment(person, project))
        judge(done[-1])
    return [assignment.comparison for assignment in done]


def cursor_of(person, batch, **kind):
    kind = {"skill": "", "at_random": False, "avoid_harm": False, **kind}
    return queues.cursors.get(Queue(person.pk, batch.pk, **kind))


@pytest.fixture
def ahead(narrow, clock, batch, project, ada):
    """20 comparisons, of which ada has judged the first 12; others are still needed for all."""
    everything = comparisons(batch, 20)
    assert judges(ada, project, 12) == everything[:12]
    cursor = cursor_of(ada, batch)
    assert cursor.key["id"] == everything[11].pk
    return everything


# --- What comes free behind -----------------------------------------------------------------------


def test_who_is_not_ahead_leaves_no_cursor(narrow, batch, project, ada):
    comparisons(batch, 10)
    judges(ada, project, NARROW)
    assert cursor_of(ada, batch) is None


def test_a_look_goes_on_where_the_last_one_ended(ahead, batch, project, ada):
    assert judges(ada, project, 8) == ahead[12:]
    assert next_assignment(ada, project) is None


def test_from_the_cursor_on_the_order_is_the_same(narrow, clock, batch, project, ada):
    """Equal in priority and score, then lower scores, then lower priorities; none looked for twice."""
    everything = [
        one
        for priority in (2, 1, -1)
        for score in (0.5, 0.25)
        for one in comparisons(batch, 4, priority=priority, score=score)
    ]
    assert judges(ada, project, NARROW + 1) == everything[: NARROW + 1]
    began = cursor_of(ada, batch).began
    clock.now += 1
    assert judges(ada, project, 18) == everything[NARROW + 1 :]
    assert cursor_of(ada, batch).began == began, "each was found without a look from the start"


def test_what_was_found_and_not_taken_is_found_again(ahead, batch, ada):
    """As where gold takes its turn."""
    queue = Queue(ada.pk, batch.pk, "", at_random=False, avoid_harm=False)
    assert [queue.first("").head for _ in range(3)] == [ahead[12]] * 3


def test_what_is_added_or_raised_in_front_of_everything_comes_at_once(ahead, batch, project, ada):
    added = comparisons(batch, 2, priority=1)
    Comparison.objects.filter(pk=ahead[17].pk).update(priority=2)
    assert judges(ada, project, 4) == [ahead[17], *added, ahead[12]]


def test_what_was_scored_anew_comes_at_once(ahead, batch, project, ada):
    score_comparisons(batch, {ahead[18].pk: 0.5, ahead[14].pk: 0.9, ahead[3].pk: 1.0})
    assert judges(ada, project, 4) == [ahead[14], ahead[18], ahead[12], ahead[13]]


def test_a_place_freed_behind_is_found_within_a_minute(ahead, batch, project, ada, ben, clock):
    late = comparisons(batch, 1)[0]  # As if it had just been given back.
    Comparison.objects.filter(pk=late.pk).update(shuffle=ahead[9].shuffle)
    began = cursor_of(ada, batch).began
    while clock.now < began + queues.REMEMBERED - 1:
        assert judges(ada, project, 1) != [late]
        clock.now += 20
    clock.now = began + queues.REMEMBERED
    assert judges(ada, project, 1) == [late]


def test_nothing_is_left_only_when_nothing_is_left(ahead, batch, project, ada):
    late = comparisons(batch, 1)[0]
    Comparison.objects.filter(pk=late.pk).update(shuffle=ahead[9].shuffle)
    assert judges(ada, project, 9) == [*ahead[12:], late]
    assert next_assignment(ada, project) is None


def test_a_batch_that_somebody_is_through_with_is_not_walked_again(
    ahead, batch, project, ada, django_assert_num_queries
):
    later = comparisons(BatchFactory(project=project, overlap=3, priority=-1), 12)
    assert judges(ada, project, 9) == [*ahead[12:], later[0]]
    assert cursor_of(ada, batch).key is None
    queue = Queue(ada.pk, batch.pk, "", at_random=False, avoid_harm=False)
    with django_assert_num_queries(1):  # The window.
        assert queue.first("skip") == (None, False)


def test_the_number_that_waits_is_the_same_with_a_cursor(ahead, batch, project, ada, monkeypatch):
    assert waiting(ada, project) == 8
    monkeypatch.setattr("annotation.judge.assignment.WAITING_COUNTED", 4)
    assert waiting(ada, project) == 4
    late = comparisons(batch, 1)[0]
    Comparison.objects.filter(pk=late.pk).update(shuffle=ahead[9].shuffle)
    monkeypatch.setattr("annotation.judge.assignment.WAITING_COUNTED", 50)
    assert waiting(ada, project) == 9


# --- What somebody gives back to themselves ---------------------------------------------------------


def test_what_was_released_comes_back_before_anything_new(ahead, project, ada):
    held = next_assignment(ada, project)
    release(held)
    assert next_assignment(ada, project) == held


def test_what_ran_out_comes_back_before_anything_new(ahead, project, ada):
    held = next_assignment(ada, project)
    Assignment.objects.filter(pk=held.pk).update(lease_until=timezone.now() - timedelta(minutes=1))
    assert release_overdue() == 1
    assert next_assignment(ada, project) == held


def test_a_judgment_taken_back_is_what_comes_next(ahead, project, ada):
    undone = undo_last(ada, project)
    assert undone.comparison == ahead[11]
    assert next_assignment(ada, project) == undone
    long_ago = Assignment.objects.get(annotator=ada, comparison=ahead[2])
    reopen(long_ago)
    assert next_assignment(ada, project) == long_ago


def test_a_skip_taken_back_is_what_comes_next(ahead, project, ada):
    skipped = next_assignment(ada, project)
    skip(skipped, "not today")
    judges(ada, project, 2)
    reopen(skipped)
    assert next_assignment(ada, project) == skipped


def test_a_batch_that_was_closed_goes_on_with_what_was_held(ahead, batch, project, ada, grace):
    held = next_assignment(ada, project)
    close_batch(batch, grace)
    assert next_assignment(ada, project) is None
    open_batch(batch, grace)
    assert next_assignment(ada, project) == held
    judge(held)
    assert judges(ada, project, 7) == ahead[13:]


def test_somebody_who_takes_harmful_material_after_all_is_handed_it(
    narrow, clock, batch, project, ada
):
    everything = comparisons(batch, 12)
    Prompt.objects.filter(pk=everything[0].prompt_id).update(risk=Prompt.Risk.HARMFUL)
    ada.harmful_material = User.HarmfulMaterial.AVOID
    assert judges(ada, project, 8) == everything[1:9]
    assert cursor_of(ada, batch, avoid_harm=True) is not None
    ada.harmful_material = User.HarmfulMaterial.SHOW
    assert judges(ada, project, 2) == [everything[0], everything[9]]
    ada.harmful_material = User.HarmfulMaterial.AVOID
    assert judges(ada, project, 1) == [everything[10]]


def test_harmless_work_behind_much_that_is_harmful_is_found(narrow, clock, batch, project, ada):
    everything = comparisons(batch, 12)
    harmful = [one.prompt_id for one in everything[:8]]
    Prompt.objects.filter(pk__in=harmful).update(risk=Prompt.Risk.HARMFUL)
    ada.harmful_material = User.HarmfulMaterial.AVOID
    assert judges(ada, project, 4) == everything[8:]
    assert next_assignment(ada, project) is None


def test_who_learns_a_skill_is_handed_what_asks_for_it(ahead, batch, project, ada):
    german = comparisons(batch, 8, skill="de")
    Membership.objects.filter(user=ada).update(skills=["de"])
    got = judges(ada, project, 16)
    assert sorted(one.pk for one in got) == sorted(one.pk for one in ahead[12:] + german)
    assert got == sorted(got, key=lambda one: (one.shuffle, one.pk)), "the heads were compared"
    assert next_assignment(ada, project) is None


def test_a_judgment_that_is_asked_for_again_goes_to_who_is_ahead_too(
    narrow, clock, batch, project, ada, ben, grace
):
    """Alone left to judge it, ben finds it at once; while there is other work, within a minute."""
    batch.comparisons.update(needed=1)
    everything = comparisons(batch, 20)
    Comparison.objects.filter(pk=everything[0].pk).update(needed=1)
    assert judges(ada, project, 1) == everything[:1]
    assert judges(ben, project, 10) == everything[1:11]
    taken_out = Assignment.objects.get(annotator=ada).judgment_id
    exclude(project, [taken_out], grace, "a slip", ask_again=True)
    assert judges(ben, project, 1) == everything[:1], "it is the first of the window"
    assert judges(ben, project, 1) == everything[11:12]
    assert judges(ada, project, 1) == everything[1:2], "ada has judged it"
    assert_counters_are_right()


# --- Its memory ------------------------------------------------------------------------------------


def test_the_oldest_cursor_makes_room(clock):
    kept = Cursors()
    queue = [Queue(i, 1, "", at_random=False, avoid_harm=False) for i in range(CURSORS_KEPT + 1)]
    for one in queue[:-1]:
        kept.set(one, Cursor(None, 0.0))
    assert kept.get(queue[0]) is not None, "and it was used last"
    kept.set(queue[-1], Cursor(None, 0.0))
    assert kept.get(queue[1]) is None
    assert kept.get(queue[0]) is not None
    assert len(kept.kept) == CURSORS_KEPT


# --- Against the plain question -----------------------------------------------------------------------


def plain(person, batch, skill, *, at_random):
    """All that this person could be given of one skill, in order, asked without any cursor."""
    had = Assignment.objects.filter(annotator=person).exclude(state=State.EXPIRED)
    free = batch.comparisons.filter(skill=skill, is_free=True)
    avoids = person.harmful_material == User.HarmfulMaterial.AVOID
    order = ("shuffle", "id") if at_random else ("-priority", "-score", "shuffle", "id")
    window = [one.pk for one in free.order_by(*order)[:NARROW]]
    theirs = free.exclude(pk__in=had.values("comparison"))
    if avoids:
        theirs = theirs.exclude(prompt__risk=Prompt.Risk.HARMFUL)
    found = list(theirs.order_by(*order))
    cursor = cursor_of(person, batch, skill=skill, at_random=at_random, avoid_harm=avoids)
    is_exact = cursor is None or not found or found[0].pk in window
    return found, is_exact


def rank(comparison, *, at_random):
    ranked = () if at_random else (-comparison.priority, -comparison.score)
    return (*ranked, comparison.shuffle, comparison.pk)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_a_look_finds_what_the_plain_question_finds(
    seed, narrow, clock, project, grace
):
    luck = random.Random(seed)
    at_random = seed == 2
    project.random_share = float(at_random)
    project.save()
    batches = [
        BatchFactory(project=project, overlap=3, priority=priority) for priority in (1.0, 0.0)
    ]
    people = [member(project, f"person{i}", "annotator") for i in range(4)]
    knows = {person: [""] for person in people}
    knows[people[0]] = ["", "de"]
    Membership.objects.filter(user=people[0]).update(skills=["de"])

    def add(n):
        for _ in range(n):
            one = ComparisonFactory(
                batch=luck.choice(batches),
                needed=luck.choice([1, 2, 3, 3]),
                priority=luck.choice([0.0, 0.0, 0.0, 1.0]),
                score=luck.choice([0.0, 0.25, 0.5]),
                skill=luck.choice(["", "", "de"]),
                shuffle=luck.choice([0.5, luck.random()]),  # Some are equal in all but the id.
                responses=2,
            )
            if luck.random() < 0.2:
                Prompt.objects.filter(pk=one.prompt_id).update(risk=Prompt.Risk.HARMFUL)

    def looks(person):
        """What `next` hands this person, checked; None if there is nothing or they held it before."""
        asked = {
            batch: [plain(person, batch, skill, at_random=at_random) for skill in knows[person]]
            for batch in batches
        }
        began = Assignment.objects.filter(annotator=person).filter(
            state__in=[State.LEASED, State.EXPIRED], comparison__batch__in=batches
        )
        is_look = not began.exclude(state=State.EXPIRED, comparison__is_free=False).exists()
        got = next_assignment(person, project)
        if not is_look:
            return got
        may_have = {one for of in asked.values() for found, _ in of for one in found}
        assert (got is None) == (not may_have), "nothing left is said only if nothing is left"
        if got is None:
            return None
        assert got.comparison in may_have
        is_exact = True
        for batch in batches:
            is_exact &= all(exact for _, exact in asked[batch])
            heads = [found[0] for found, _ in asked[batch] if found]
            if heads:
                break
        counted["looked"] += 1
        first = min(heads, key=lambda one: rank(one, at_random=at_random))
        counted["from a cursor"] += not is_exact
        if is_exact:
            assert got.comparison == first
        return got

    counted = {"looked": 0, "from a cursor": 0}
    add(60)
    for _ in range(250):
        clock.now += luck.choice([0, 1, 1, 1, 5, 30])
        person = luck.choices(people, weights=[6, 2, 1, 1])[0]
        act = luck.random()
        if act < 0.75:
            held = looks(person)
            if held is None:
                continue
            then = luck.random()
            if then < 0.75:
                judge(held)
            elif then < 0.8:
                skip(held, "not today")
            elif then < 0.85:
                release(held)
            elif then < 0.9:
                undo_last(person, project)
        elif act < 0.8:
            Assignment.objects.filter(state=State.LEASED).update(
                lease_until=timezone.now() - timedelta(minutes=1)
            )
            release_overdue()
        elif act < 0.85:
            add(2)
        elif act < 0.9:
            pks = list(batches[0].comparisons.order_by("pk").values_list("pk", flat=True))
            score_comparisons(batches[0], {luck.choice(pks): luck.choice([0.0, 0.25, 0.75])})
        elif act < 0.93:
            one = luck.choice(list(Comparison.objects.order_by("pk")))
            Comparison.objects.filter(pk=one.pk).update(priority=luck.choice([0.0, 1.0, 2.0]))
        elif act < 0.97:
            judged = Assignment.objects.filter(judgment__excluded_at=None, state=State.JUDGED)
            if judged:
                one = luck.choice(list(judged.order_by("pk")))
                exclude(project, [one.judgment_id], grace, "a slip", ask_again=True)
        else:
            kinds = (User.HarmfulMaterial.AVOID, User.HarmfulMaterial.SHOW)
            person.harmful_material = luck.choice(kinds)
            person.save()
    assert_counters_are_right()
    assert counted["looked"] > 80, counted
    assert counted["from a cursor"] > 10, counted
