"""The review queue: what comes into it, what a ruling changes, and that it can be taken back."""

import re
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.data.preferences import judgment_counts, preference_rows
from annotation.data.snapshots import freeze_snapshot
from annotation.judge.answers import Answer
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import undo_last
from annotation.models import Assignment, Event, Judgment, Prompt, ReviewCase, User
from annotation.projects.batches import batch_progress
from annotation.quality import review
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged, member

pytestmark = pytest.mark.django_db


@pytest.fixture
def contested(project, ada, ben):
    """ada and ben put the same four responses in opposite orders; elsewhere they agree."""
    batch = BatchFactory(project=project)
    agreed = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    for who in (ada, ben):
        judged(project, by=who, comparison=agreed, ranks=(1, 2, 3, 4))
    comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
    judged(project, by=ben, comparison=comparison, ranks=(4, 3, 2, 1))
    return comparison


def ruling(comparison, order=(2, 1, 3, 4)):
    pks = list(comparison.responses.order_by("pk").values_list("pk", flat=True))
    ranks = {str(pk): rank for pk, rank in zip(pks, order, strict=True)}
    return Answer(ranks={"helpfulness": ranks, "safety": ranks})


def decide(case, by, **more):
    given = {"answer": ruling(case.comparison), "ground": "guidelines", "key": uuid.uuid4()}
    return review.decide(case, by, **given | more)


def test_only_what_people_disagree_on_comes_into_the_queue(project, contested, vera):
    assert review.update_queue(project) == 4
    assert [case.comparison for case in review.queue(project, vera)] == [contested]
    assert review.queue(project, vera).get().reasons == ["disagreement"]


def test_a_conflict_is_looked_at_before_a_disagreement(project, contested, ada, vera):
    odd = judged(project, by=ada, ranks=(1, 2))
    Judgment.objects.filter(pk=odd.judgment_id).update(conflicts=[{"kind": "better_but_unsafe"}])
    review.update_queue(project)
    assert [case.reasons for case in review.queue(project, vera)] == [
        ["conflict"],
        ["disagreement"],
    ]
    assert review.queue(project, vera, reason="conflict").count() == 1


def test_a_flag_brings_it_in(project, ada, vera):
    one = judged(project, by=ada, ranks=(1, 2))
    pk = str(one.shown_order[0])
    Judgment.objects.filter(pk=one.judgment_id).update(
        flags={pk: [{"kind": "unsafe", "category": "theft"}]}
    )
    review.update_queue(project)
    assert review.queue(project, vera).get().reasons == ["unsafe"]


def test_a_ruling_counts_in_place_of_the_votes_which_are_kept(project, contested, vera, rita):
    before = list(preference_rows(project))
    assert len(before) == 4
    review.update_queue(project)
    decide(review.queue(project, vera).get(), vera)
    rows = list(preference_rows(project))
    assert len(rows) == 3
    ruled = [row for row in rows if row["annotator"].startswith("reviewer-")]
    assert [row["ranks"]["helpfulness"] for row in ruled] == [[2, 1, 3, 4]]
    assert Judgment.objects.current().votes().count() == 4
    assert len(list(preference_rows(project, adjudicated=False))) == 4
    assert judgment_counts(project)["overruled"] == 2
    snapshot = freeze_snapshot(project, by=rita)
    assert snapshot.counts["left_out"]["overruled"] == 2
    assert snapshot.counts["rulings"] == 1
    assert "superseded by review" in snapshot.card
    # The ruling makes nobody agree who did not.
    assert snapshot.agreement["helpfulness"]["pairwise"] == 0.5


def test_a_ruling_takes_no_place_and_no_turn_of_the_reviewers_own(project, contested, vera):
    before = batch_progress(contested.batch)
    review.update_queue(project)
    decide(review.queue(project, vera).get(), vera)
    after = batch_progress(contested.batch)
    assert (after["judged"], after["extra"], after["people"]) == (
        before["judged"],
        before["extra"],
        before["people"],
    )
    assert undo_last(vera, project) is None


def test_taking_it_back_makes_the_votes_count_again(project, contested, vera):
    review.update_queue(project)
    case = review.queue(project, vera).get()
    decide(case, vera)
    assert not review.queue(project, vera).exists()
    review.undo_decision(case, vera)
    assert len(list(preference_rows(project))) == 4
    assert review.queue(project, vera).get() == case
    decide(case, vera)
    assert len(list(preference_rows(project))) == 3
    assert [event.verb for event in Event.objects.order_by("pk")] == [
        "ruled",
        "took back a ruling",
        "ruled",
    ]


def test_sending_a_ruling_twice_rules_once(project, contested, vera):
    review.update_queue(project)
    case, key = review.queue(project, vera).get(), uuid.uuid4()
    assert decide(case, vera, key=key) == decide(case, vera, key=key)
    assert Event.objects.filter(verb="ruled").count() == 1


def test_nobody_decides_about_their_own_vote(project, contested, vera):
    judged(project, by=vera, comparison=contested, ranks=(1, 2, 3, 4))
    review.update_queue(project)
    assert not review.queue(project, vera).exists()
    with pytest.raises(JudgmentError, match="another reviewer"):
        decide(ReviewCase.objects.get(), vera)
    assert ReviewCase.objects.get().state == "open"


def test_a_reason_is_asked_for(project, contested, vera):
    review.update_queue(project)
    case = review.queue(project, vera).get()
    with pytest.raises(JudgmentError, match="Choose a reason"):
        decide(case, vera, ground="")
    with pytest.raises(JudgmentError, match="in a few words"):
        decide(case, vera, ground="other")
    assert not Judgment.objects.filter(assignment__is_ruling=True).exists()


def test_what_people_settle_among_themselves_leaves_the_queue(project, contested, ben, vera):
    review.update_queue(project)
    mine = contested.assignments.get(annotator=ben)
    mine.judgment = Judgment.objects.create(
        assignment=mine,
        revision=2,
        key=uuid.uuid4(),
        answer_sha256="1" * 64,
        ranks=contested.assignments.exclude(annotator=ben).get().judgment.ranks,
    )
    mine.save()
    review.update_queue(project)
    assert not review.queue(project, vera).exists()
    assert ReviewCase.objects.get().state == "settled"


def test_a_judgment_committed_after_a_later_one_is_looked_through_too(project, ada, ben, vera):
    comparison = ComparisonFactory(batch=BatchFactory(project=project))
    slow = judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
    judged(project, by=ben, comparison=comparison, ranks=(4, 3, 2, 1))
    # ada's transaction has its number and is not committed yet when vera looks.
    Assignment.objects.filter(pk=slow.pk).update(judgment=None)
    assert review.update_queue(project) == 1
    assert not review.queue(project, vera).exists()
    Assignment.objects.filter(pk=slow.pk).update(judgment=slow.judgment_id)
    review.update_queue(project)
    assert review.queue(project, vera).get().reasons == ["disagreement"]


def test_what_was_looked_through_a_while_ago_is_not_looked_at_again(project, contested):
    assert review.update_queue(project) == 4
    Judgment.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    assert [review.update_queue(project), review.update_queue(project)] == [4, 0]


def test_a_conflict_needs_a_review_again_when_its_ruling_is_taken_back(project, ada, vera):
    odd = judged(project, by=ada, ranks=(1, 2, 3, 4))
    Judgment.objects.update(conflicts=[{"kind": "better_but_unsafe"}], needs_review=True)
    case = review.ask_for_review(odd.comparison, vera)
    decide(case, vera)
    assert not Judgment.objects.filter(needs_review=True).exists()
    review.undo_decision(case, vera)
    assert Judgment.objects.filter(needs_review=True).get().assignment == odd


def test_a_case_in_the_queue_says_what_tells_it_from_the_others(project, contested, vera, client):
    client.force_login(vera)
    page = re.sub(r"\s+", " ", client.get("/projects/apollo/review/").content.decode())
    case = ReviewCase.objects.get()
    for words in (contested.prompt.text, f"Case {case.pk}", "100 %", "2 votes", "disagree", "now"):
        assert words in page, words


def test_many_cases_are_assigned_and_decided_at_once_and_twice_is_once(
    project, ada, ben, vera, client
):
    mona = member(project, "mona", "reviewer")
    batch = BatchFactory(project=project)
    for _ in range(3):
        comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
        for who, ranks in ((ada, (1, 2, 3, 4)), (ben, (1, 2, 3, 4)), (mona, (4, 3, 2, 1))):
            judged(project, by=who, comparison=comparison, ranks=ranks)
    review.update_queue(project)
    url, (first, second, third) = "/projects/apollo/review/", ReviewCase.objects.order_by("pk")
    client.force_login(vera)
    client.post(url, {"act": "assign", "case": [first.pk, second.pk], "to": vera.pk})
    assert review.next_case(project, vera) == first
    # Nobody is given what they judged; what is vera's comes to nobody else as "next".
    client.post(url, {"act": "assign", "case": [third.pk], "to": mona.pk})
    third.refresh_from_db()
    assert third.assignee is None
    otto = member(project, "otto", "reviewer")
    assert review.next_case(project, otto) == third
    form = {
        "act": "consensus",
        "case": [first.pk, second.pk],
        "ground": "equal",
        "key": uuid.uuid4(),
    }
    for _ in range(2):
        client.post(url, form)
    assert ReviewCase.objects.filter(state="decided").count() == 2
    rulings = Judgment.objects.filter(assignment__is_ruling=True)
    assert [ruling.revision for ruling in rulings] == [1, 1]
    # What can't be done says why, and stays open.
    form |= {"case": [third.pk], "ground": "other"}
    page = client.post(url, form, follow=True).content.decode()
    assert "1 × Explain the decision in a few words." in page
    third.refresh_from_db()
    assert third.state == "open"


# --- What nobody has to read who does not want to --------------------------------------------------------

RISKY = "How do I pick the lock of a flat that isn't mine?"


@pytest.fixture
def harmful(contested):
    """The one comparison on which ada and ben disagree is known to be about something harmful."""
    messages = [{"role": "user", "content": RISKY}]
    Prompt.objects.filter(pk=contested.prompt_id).update(messages=messages, risk="harmful")
    return contested


def prefers(user, what):
    User.objects.filter(pk=user.pk).update(harmful_material=what)
    user.refresh_from_db()


def test_a_reviewer_who_wants_nothing_harmful_is_handed_none(project, harmful, vera, client):
    review.update_queue(project)
    case = review.queue(project, vera).get()
    prefers(vera, "avoid")
    assert not review.queue(project, vera).exists()
    client.force_login(vera)
    page = client.get("/projects/apollo/review/").content.decode()
    assert RISKY.split("'")[0] not in page
    assert "Cases with harmful content go to other reviewers" in page
    review.ask_for_review(case.comparison, vera)
    assert "Review 0 cases" in client.get("/projects/apollo/quality/").content.decode()
    # Nor among the recently decided ones.
    decide(case, vera)
    assert RISKY.split("'")[0] not in client.get("/projects/apollo/review/").content.decode()


@pytest.mark.parametrize(("wish", "covered"), [("warn", True), ("show", False), ("avoid", True)])
def test_a_harmful_case_is_covered_unless_one_wants_it_shown(
    project, harmful, vera, client, wish, covered
):
    review.update_queue(project)
    case = review.queue(project, vera).get()
    prefers(vera, wish)
    client.force_login(vera)
    page = client.get(f"/projects/apollo/review/{case.uid}/").content.decode()
    assert ('class="cover"' in page) is covered
    assert page.count("Uncover") == covered
    ReviewCase.objects.exclude(pk=case.pk).delete()
    queue = client.get("/projects/apollo/review/").content.decode()
    assert ('<details class="covered">' in queue) is (wish == "warn")
    assert (RISKY.split("'")[0] in queue) is (wish != "avoid")
    assert ("Harmful content" in queue) is (wish == "warn")


def test_what_is_harmless_is_never_covered(project, contested, vera, client):
    review.update_queue(project)
    case = review.queue(project, vera).get()
    client.force_login(vera)
    assert "Uncover" not in client.get(f"/projects/apollo/review/{case.uid}/").content.decode()


@pytest.mark.parametrize(("wish", "covered"), [("warn", True), ("show", False)])
def test_lists_of_judgments_cover_what_is_harmful(
    project, harmful, ada, grace, client, wish, covered
):
    for who, where in ((ada, "judge/history/"), (grace, f"quality/people/{ada.pk}/")):
        prefers(who, wish)
        client.force_login(who)
        page = client.get(f"/projects/apollo/{where}").content.decode()
        text = RISKY.split("'")[0]
        assert text in page  # It can be read, where somebody opens it.
        assert (f'<summary class="small">Harmful content</summary> {text}' in page) is covered


def test_the_quality_page_counts_cases_that_nobody_has_looked_at_yet(
    project, contested, vera, client
):
    client.force_login(vera)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "Review 1 case<" in page


def test_the_second_page_of_the_queue_is_of_the_same_cases_as_the_first(project, ada, vera, client):
    for _ in range(32):
        one = judged(project, by=ada, ranks=(1, 2))
        flag = {str(one.shown_order[0]): [{"kind": "unsafe", "category": "theft"}]}
        Judgment.objects.filter(pk=one.judgment_id).update(flags=flag)
    client.force_login(vera)
    page = client.get("/projects/apollo/review/?reason=unsafe").content.decode()
    assert 'href="?reason=unsafe&amp;page=2"' in page


def test_after_a_decision_the_next_case_is_of_the_same_filter(
    project, contested, ada, ben, vera, client
):
    """Two people disagree about three; one of the three is more urgent for another reason."""
    batch = contested.batch
    for _ in range(2):
        comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
        judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
        judged(project, by=ben, comparison=comparison, ranks=(4, 3, 2, 1))
    asked = judged(project, by=ada, ranks=(1, 2, 3, 4))
    review.update_queue(project)
    urgent = review.ask_for_review(asked.comparison, vera)
    client.force_login(vera)
    queue = client.get("/projects/apollo/review/?reason=disagreement").content.decode()
    links = set(re.findall(r'href="(/projects/apollo/review/[^"/]+/[^"]*)"', queue))
    assert len(links) == 3
    assert all(link.endswith("/?reason=disagreement") for link in links)
    assert str(urgent.uid) not in queue
    first = f"/projects/apollo/review/{review.queue(project, vera, reason='disagreement')[0].uid}/"
    page = client.get(f"{first}?reason=disagreement").content.decode()
    assert ">3 open<" in page
    assert page.count('?reason=disagreement"') == 2, "the next case and the queue"
    said = {"choice": "1", "ground": "facts"}
    decided = client.post(f"{first}?reason=disagreement", said | {"key": str(uuid.uuid4())})
    following = decided["Location"]
    assert following in links - {first}
    last = client.post(following, said | {"key": str(uuid.uuid4())})["Location"]
    done = client.post(last, said | {"key": str(uuid.uuid4())})
    assert done["Location"] == "/projects/apollo/review/?reason=disagreement"
    back = client.post(last, {"act": "undo"})
    assert back["Location"] == last
    assert client.get(f"{first}?reason=%22%3E%3Cb").status_code == 200
    unfiltered = client.post(first, said | {"key": str(uuid.uuid4())})
    assert unfiltered["Location"] == f"/projects/apollo/review/{urgent.uid}/"
