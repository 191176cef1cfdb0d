import json
import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.judge.answers import MAX_REWRITE, Answer, in_letters, ranking_line
from annotation.judge.assignment import next_assignment
from annotation.judge.drafts import save_draft
from annotation.judge.leases import release_overdue
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import JudgmentConflict, reopen, skip, submit_judgment, undo_last
from annotation.models import Assignment, Comparison, Judgment
from annotation.projects.batches import close_batch
from tests.annotation.audit import assert_counters_are_right
from tests.factories import BatchFactory, ComparisonFactory, key

State = Assignment.State


@pytest.fixture
def batch(project):
    batch = BatchFactory(project=project)
    for _ in range(3):
        ComparisonFactory(batch=batch)
    return batch


@pytest.fixture
def handed(batch, project, ada):
    return next_assignment(ada, project)


def answer(assignment, helpfulness=(1, 2, 2, 3), safety=(1, 1, 1, 1), **more):
    ids = [str(pk) for pk in assignment.shown_order]
    ranks = {
        "helpfulness": dict(zip(ids, helpfulness, strict=True)),
        "safety": dict(zip(ids, safety, strict=True)),
    }
    return Answer(ranks=ranks, **more)


def test_an_answer_is_stored_as_given(handed):
    first = str(handed.shown_order[0])
    given = answer(
        handed,
        flags={first: [{"kind": "unsafe", "category": "theft"}, {"kind": "rude"}]},
        rewrite="Better:\r\nless water.",
        reason="B is vague.",
        seconds=12.345,
    )
    judgment = submit_judgment(handed, by=handed.annotator, answer=given, key=key())
    judgment.refresh_from_db()
    assert judgment.ranks == given.ranks
    assert judgment.flags == {
        first: [{"kind": "unsafe", "category": "theft"}, {"kind": "rude", "category": ""}]
    }
    assert (judgment.rewrite, judgment.seconds) == ("Better:\nless water.", 12.35)
    assert judgment.revision == 1
    handed.refresh_from_db()
    assert (handed.state, handed.judgment, handed.is_extra) == (State.JUDGED, judgment, False)
    assert_counters_are_right()


def test_ranks_are_stored_dense_so_that_one_order_is_one_row(handed):
    judgment = submit_judgment(
        handed, by=handed.annotator, answer=answer(handed, (2, 4, 4, 3)), key=key()
    )
    assert list(judgment.ranks["helpfulness"].values()) == [1, 3, 3, 2]


def test_sending_the_same_answer_twice_is_sending_it_once(handed):
    again = key()
    first = submit_judgment(
        handed, by=handed.annotator, answer=answer(handed, seconds=3), key=again
    )
    second = submit_judgment(
        handed, by=handed.annotator, answer=answer(handed, seconds=9), key=again
    )
    assert first == second
    assert Judgment.objects.count() == 1
    assert_counters_are_right()


def test_the_same_key_with_another_answer_is_a_conflict(handed):
    again = key()
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=again)
    with pytest.raises(JudgmentConflict):
        submit_judgment(handed, by=handed.annotator, answer=answer(handed, (4, 3, 2, 1)), key=again)
    assert Judgment.objects.get().ranks == answer(handed).ranks


def test_a_key_of_another_comparison_is_a_conflict(handed, project, ada):
    again = key()
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=again)
    other = next_assignment(ada, project)
    with pytest.raises(JudgmentConflict):
        submit_judgment(other, by=other.annotator, answer=answer(other), key=again)
    other.refresh_from_db()
    assert other.state == State.LEASED


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a, i: a["ranks"]["safety"].update({i: 0}), "from 1 to 4"),
        (lambda a, i: a["ranks"]["safety"].update({i: 5}), "from 1 to 4"),
        (lambda a, i: a["ranks"]["safety"].update({i: True}), "from 1 to 4"),
        (lambda a, i: a["ranks"]["safety"].update({i: "1"}), "from 1 to 4"),
        (lambda a, i: a["ranks"]["safety"].update({"999999": 1}), "no response"),
        (lambda a, i: a["ranks"].update(charm={i: 1}), "does not compare"),
        (lambda a, i: a["ranks"].pop("safety"), "Safety: rank at least two"),
        (lambda a, i: a["ranks"].update(safety={i: 1}), "Safety: rank at least two"),
        (lambda a, i: a.update(ranks=[1, 2]), "per axis"),
        (lambda a, i: a.update(flags={"999999": [{"kind": "rude"}]}), "no response"),
        (lambda a, i: a.update(flags={i: [{"kind": "boring"}]}), "no flag"),
        (lambda a, i: a.update(flags={i: [{"kind": "unsafe", "category": "x"}]}), "kind of harm"),
        (lambda a, i: a.update(flags={i: "rude"}), "list"),
        (lambda a, i: a.update(rewrite="x" * (MAX_REWRITE + 1)), "20,001 characters"),
        (lambda a, i: a.update(rewrite=7), "must be text"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_and_nothing_is_kept(handed, spoil, says):
    given = vars(answer(handed)).copy()
    spoil(given, str(handed.shown_order[0]))
    with pytest.raises(JudgmentError, match=says):
        submit_judgment(handed, by=handed.annotator, answer=Answer(**given), key=key())
    assert not Judgment.objects.exists()
    handed.refresh_from_db()
    assert handed.state == State.LEASED
    assert_counters_are_right()


def test_a_response_may_be_left_unranked(handed):
    ids = [str(pk) for pk in handed.shown_order]
    ranks = {"helpfulness": {ids[0]: 2, ids[3]: 1}, "safety": dict.fromkeys(ids, 1)}
    judgment = submit_judgment(handed, by=handed.annotator, answer=Answer(ranks=ranks), key=key())
    assert judgment.ranks["helpfulness"] == {ids[0]: 2, ids[3]: 1}


def lose(assignment):
    Assignment.objects.filter(pk=assignment.pk).update(
        lease_until=timezone.now() - timedelta(hours=1)
    )
    release_overdue()


def test_an_answer_after_its_lease_takes_the_place_if_it_is_still_free(handed):
    lose(handed)
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    handed.refresh_from_db()
    assert (handed.state, handed.is_extra) == (State.JUDGED, False)
    assert_counters_are_right()


def test_an_answer_whose_place_is_gone_is_kept_as_an_extra(handed, project, ben):
    lose(handed)
    Comparison.objects.exclude(pk=handed.comparison_id).delete()
    bens = next_assignment(ben, project)
    assert bens.comparison_id == handed.comparison_id
    late = submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    submit_judgment(bens, by=bens.annotator, answer=answer(bens), key=key())
    handed.refresh_from_db()
    assert handed.is_extra
    assert handed.judgment == late
    assert Comparison.objects.get().judged == 1
    assert_counters_are_right()


def test_an_answer_to_a_closed_batch_is_kept_as_an_extra(handed, batch, grace):
    close_batch(batch, grace)
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    handed.refresh_from_db()
    assert (handed.state, handed.is_extra) == (State.JUDGED, True)
    assert_counters_are_right()


def test_a_correction_is_a_new_revision_and_the_old_row_stays(handed):
    old = submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    new = submit_judgment(
        handed, by=handed.annotator, answer=answer(handed, (4, 3, 2, 1)), key=key()
    )
    assert (old.revision, new.revision) == (1, 2)
    assert list(Judgment.objects.current()) == [new]
    assert Judgment.objects.count() == 2
    assert_counters_are_right()


def test_what_is_in_use_can_no_longer_be_corrected(handed, batch, grace):
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    close_batch(batch, grace)
    with pytest.raises(JudgmentError, match="closed"):
        submit_judgment(handed, by=handed.annotator, answer=answer(handed, (4, 3, 2, 1)), key=key())
    with pytest.raises(JudgmentError, match="closed"):
        reopen(handed)


def test_undo_opens_the_last_one_again_with_its_answer_as_draft(handed, project, ada):
    first = submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    second = next_assignment(ada, project)
    taken_back = submit_judgment(
        second, by=second.annotator, answer=answer(second, reason="hm"), key=key()
    )
    ahead = next_assignment(ada, project)
    again = undo_last(ada, project)
    assert again == second
    assert again.draft["ranks"]["helpfulness"] == {"A": 1, "B": 2, "C": 2, "D": 3}
    assert again.draft["reason"] == "hm"
    assert next_assignment(ada, project) == second
    assert ahead != second
    assert list(Judgment.objects.current()) == [first]
    assert Judgment.objects.filter(pk=taken_back.pk).exists()
    assert_counters_are_right()
    resent = submit_judgment(again, by=again.annotator, answer=answer(again), key=key())
    assert resent.revision == 2
    assert_counters_are_right()


def test_an_old_submit_that_arrives_after_an_undo_changes_nothing(handed, project, ada):
    once = key()
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=once)
    undo_last(ada, project)
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=once)
    handed.refresh_from_db()
    assert handed.state == State.LEASED
    assert_counters_are_right()


def test_undo_without_anything_to_undo_says_so(batch, project, ada):
    assert undo_last(ada, project) is None


def test_a_skipped_comparison_goes_to_another_annotator(handed, project, ada, ben):
    Comparison.objects.exclude(pk=handed.comparison_id).delete()
    skip(handed, "I can't judge chemistry.")
    skip(handed, "I can't judge chemistry.")
    assert next_assignment(ada, project) is None
    assert next_assignment(ben, project).comparison_id == handed.comparison_id
    assert_counters_are_right()


def test_skipping_needs_a_reason_and_can_be_taken_back(handed):
    with pytest.raises(JudgmentError, match="Give a short reason for skipping"):
        skip(handed, "  ")
    skip(handed, "not my language")
    reopen(handed)
    handed.refresh_from_db()
    assert handed.state == State.LEASED
    assert_counters_are_right()


def test_what_was_skipped_can_be_judged_after_all(handed):
    skip(handed, "not my language")
    submit_judgment(handed, by=handed.annotator, answer=answer(handed), key=key())
    handed.refresh_from_db()
    assert (handed.state, handed.skip_reason) == (State.JUDGED, "")
    assert_counters_are_right()


def test_a_draft_is_kept_without_what_could_never_be_sent(handed):
    save_draft(
        handed,
        {
            "ranks": {"helpfulness": {"A": 1, "Z": 2, "B": "<b>"}, "charm": {"A": 1}},
            "flags": {"A": [{"kind": "rude"}, {"kind": "boring"}]},
            "rewrite": "half a",
            "is_superuser": True,
        },
    )
    handed.refresh_from_db()
    assert handed.draft == {
        "ranks": {"helpfulness": {"A": 1}},
        "flags": {"A": [{"kind": "rude", "category": ""}]},
        "rewrite": "half a",
        "reason": "",
    }
    assert handed.draft_saved_at


def test_a_draft_prolongs_the_lease(handed):
    Assignment.objects.filter(pk=handed.pk).update(lease_until=timezone.now())
    save_draft(handed, {})
    assert release_overdue() == 0


def test_letters_stand_for_responses_as_they_were_shown(handed):
    given = {"ranks": {axis: {"A": 2, "B": 1} for axis in ("helpfulness", "safety")}}
    judgment = submit_judgment(
        handed, by=handed.annotator, answer=Answer.from_letters(handed, given), key=key()
    )
    ids = [str(pk) for pk in handed.shown_order]
    assert judgment.ranks["helpfulness"] == {ids[0]: 2, ids[1]: 1}
    assert in_letters(handed, judgment)["ranks"] == given["ranks"]
    with pytest.raises(JudgmentError, match="no response “Q”"):
        Answer.from_letters(handed, {"ranks": {"safety": {"Q": 1}}})


def test_the_ranking_reads_as_one_line():
    assert ranking_line({"A": 1, "B": 3, "C": 2, "D": 2}) == "A > C = D > B"
    assert ranking_line({}) == ""


def test_the_guidelines_in_force_are_noted(handed, project):
    project.guideline_version = 7
    project.save()
    assert (
        submit_judgment(
            handed, by=handed.annotator, answer=answer(handed), key=uuid.uuid4()
        ).guideline_version
        == 7
    )


def test_nobody_answers_what_was_handed_to_somebody_else(handed, ben):
    with pytest.raises(JudgmentError, match="somebody else"):
        submit_judgment(handed, by=ben, answer=answer(handed), key=key())
    assert not Judgment.objects.exists()


def test_a_kind_of_harm_that_is_no_word_is_refused(handed):
    first = str(handed.shown_order[0])
    odd = answer(handed, flags={first: [{"kind": "unsafe", "category": [1]}]})
    with pytest.raises(JudgmentError, match="kind of harm"):
        submit_judgment(handed, by=handed.annotator, answer=odd, key=key())


def test_a_draft_keeps_what_every_database_can_store_and_every_page_can_show(handed):
    odd = {
        "flags": {"A": [{"kind": []}, {"kind": "rude", "category": "\x00"}, {"kind": "unsafe"}]},
        "rewrite": "half \ud800 and \x00 nothing",
        "safety": {"A": {"safe": False, "harms": ["\x00"]}},
        "ratings": {"A": {"\x00": 1}},
        "strength": {"helpfulness": 9},
    }
    save_draft(handed, odd)
    handed.refresh_from_db()
    assert handed.draft["rewrite"] == "half ? and  nothing"
    assert handed.draft["flags"] == {"A": [{"kind": "unsafe", "category": ""}]}
    assert "strength" not in handed.draft or not handed.draft["strength"]
    stored = json.dumps(handed.draft)
    assert "u0000" not in stored
    assert "ud800" not in stored
