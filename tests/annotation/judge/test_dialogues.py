"""A person talks to a policy that answers twice: each act, and what it leaves behind."""

import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.data.preferences import pairs, preference_rows
from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.judge import dialogue_writing, dialogues
from annotation.judge.assignment import next_assignment
from annotation.judge.dialogue_campaigns import DialogueError
from annotation.judge.leases import release_overdue
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import undo_last
from annotation.models import (
    Assignment,
    Comparison,
    Judgment,
    Project,
    Prompt,
    ReviewCase,
    Turn,
    content_hash,
)
from annotation.projects.batches import batch_progress, close_batch
from annotation.projects.guidelines import request_reannotation
from annotation.protocols import PRESETS
from annotation.quality import review
from annotation.quality.interventions import QualityError, ask_again
from tests.annotation.audit import assert_counters_are_right
from tests.annotation.talking import Parrots, answering, new_campaign, preferring
from tests.factories import key, member

pytestmark = pytest.mark.django_db

HELPFULNESS = [{"key": "helpfulness", "name": "Helpfulness", "question": "Which helps more?"}]


@pytest.fixture
def parrots():
    with answering(Parrots()) as who:
        yield who


@pytest.fixture
def talk(project, ada, grace, parrots):
    """ada's dialogue in a project that compares on one axis."""
    Project.objects.filter(pk=project.pk).update(axes=HELPFULNESS)
    project.refresh_from_db()
    return dialogues.begin(ada, new_campaign(project, grace))


def say(dialogue, text="How do I clean a kettle?", **given):
    turn = dialogues.say(dialogue, text, key=given.pop("key", None) or key())
    dialogue_writing.write_turn(turn, tick=0.005)  # in production a thread does it after the commit
    turn.refresh_from_db()
    return turn


def choose(dialogue, better="A", level=3, number=1, **given):
    said = given.pop("said", None) or preferring(better, level, **given.pop("more", {}))
    return dialogues.choose(dialogue, said, number=number, key=given.pop("key", key()))


def test_the_chosen_answer_goes_on_and_becomes_an_ordinary_judgment(talk, parrots, ada):
    turn = say(talk)
    assert turn.state == "ready"
    choose(talk, "B", 4)
    assert say(talk, "And then?").number == 2
    shown = {letter: turn.candidates["AB".index(letter)]["text"] for letter in "AB"}
    assert parrots.heard[-1] == [
        {"role": "user", "content": "How do I clean a kettle?"},
        {"role": "assistant", "content": shown["B"]},
        {"role": "user", "content": "And then?"},
    ]
    judgment = choose(talk, "A", 1, number=2)
    assert judgment.strength["helpfulness"]["label"] == "barely better"
    assert judgment.strength["helpfulness"]["margin"] == 0
    first = Judgment.objects.order_by("pk").first()
    assert first.strength["helpfulness"]["margin"] == 1
    assert first.assignment.annotator == ada
    by_text = {r.text: r for r in first.assignment.comparison.responses.all()}
    assert first.ranks["helpfulness"] == {
        str(by_text[shown["B"]].pk): 1,
        str(by_text[shown["A"]].pk): 2,
    }
    assert {r.source for r in by_text.values()} == {"policy secret-0", "policy secret-1"}
    assert {r.sampling["temperature"] for r in by_text.values()} == {0.5, 1.5}
    assert_counters_are_right()


def test_what_was_chosen_reaches_training_as_pairs(talk, project):
    words = in_train("How do I clean {n} kettles?")
    turn = say(talk, words)
    choose(talk, "B", 4)
    [pair] = pairs(preference_rows(project), "helpfulness")
    assert pair["prompt"] == [{"role": "user", "content": words}]
    assert pair["chosen"][0]["content"] == turn.candidates[1]["text"]
    assert pair["rejected"][0]["content"] == turn.candidates[0]["text"]


def test_all_turns_of_a_dialogue_are_on_one_side_of_the_split(talk):
    for number in range(1, 5):
        say(talk, f"What about spoon {number}?")
        choose(talk, number=number)
    assert len(set(Prompt.objects.values_list("split", flat=True))) == 1
    assert Prompt.objects.count() == 4


def test_the_same_first_words_of_two_people_are_two_comparisons_of_one_prompt(talk, ben):
    other = dialogues.begin(ben, talk.campaign)
    for one in (talk, other):
        say(one, "Hello")
        choose(one)
    assert Prompt.objects.count() == 1
    assert Comparison.objects.count() == 2


def test_a_red_team_goes_on_with_the_more_harmful_answer(project, ada, grace, parrots):
    campaign = new_campaign(project, grace, kind="redteam")
    with pytest.raises(DialogueError, match="warning"):
        dialogues.begin(ada, campaign)
    talk = dialogues.begin(ada, campaign, acknowledged=True)
    turn = say(talk, "Tell me something bad")
    said = {
        "ranks": {"helpfulness": {"A": 2, "B": 1}, "safety": {"A": 1, "B": 2}},
        "strength": {"helpfulness": 1, "safety": 4},
    }
    judgment = choose(talk, said=said)
    turn.refresh_from_db()
    assert turn.went_on == "B"
    better = turn.comparison.responses.get(text=turn.candidates[0]["text"])
    assert judgment.ranks["safety"][str(better.pk)] == 1
    assert turn.comparison.prompt.risk == "harmful"


def test_a_red_team_needs_an_axis_that_asks_about_harm(talk, project, grace):
    with pytest.raises(DialogueError, match="safety"):
        new_campaign(project, grace, kind="redteam")


def test_only_the_question_that_decides_what_goes_on_must_be_answered(project, ada, grace, parrots):
    """Where neither answer does harm, a forced preference on safety would be noise."""
    talk = dialogues.begin(ada, new_campaign(project, grace))
    say(talk)
    with pytest.raises(JudgmentError, match="Helpfulness"):
        choose(talk, said=preferring("A", 1, ["safety"]))
    assert Comparison.objects.count() == 0
    with pytest.raises(JudgmentError, match="strength"):
        choose(talk, said=preferring("A", 9, project.axis_keys))
    judgment = choose(talk, said=preferring("A", 1, ["helpfulness"]))
    assert set(judgment.ranks) == set(judgment.strength) == {"helpfulness"}
    [row] = preference_rows(project)
    assert set(row["ranks"]["safety"]) == {None}
    assert [list(pairs([row], axis)) == [] for axis in ("helpfulness", "safety")] == [False, True]


def test_sent_twice_is_sent_once(talk):
    once = key()
    turn = say(talk, key=once)
    assert dialogues.say(talk, turn.text, key=once) == turn
    with pytest.raises(DialogueError, match="different text"):
        dialogues.say(talk, "Something else", key=once)
    again = key()
    judgment = choose(talk, key=again)
    assert choose(talk, key=again) == judgment
    with pytest.raises(DialogueError, match="already chosen here"):
        choose(talk, "B")
    assert (Turn.objects.count(), Judgment.objects.count()) == (1, 1)


def test_step_by_step_back(talk, ada, project):
    say(talk)
    choose(talk, "B", 2)
    turn = dialogues.take_back(talk)
    assert turn.state == "ready"
    earlier = dialogues.earlier_answer(turn)
    assert (earlier["ranks"], earlier["strength"]) == (
        {"helpfulness": {"A": 2, "B": 1}},
        {"helpfulness": 2},
    )
    assert Judgment.objects.current().count() == 0
    choose(talk, "A", 4)
    assert [j.revision for j in Judgment.objects.order_by("pk")] == [1, 2]
    assert Judgment.objects.current().count() == 1
    dialogues.take_back(talk)
    dialogues.take_back(talk)
    talk.refresh_from_db()
    assert talk.draft == "How do I clean a kettle?"
    assert Judgment.objects.current().count() == 0
    progress = batch_progress(talk.campaign.batch)
    assert (progress["needed"], progress["judged"]) == (0, 0)
    with pytest.raises(DialogueError, match="nothing to undo"):
        dialogues.take_back(talk)


def test_a_turn_is_never_handed_to_somebody_else(talk, ben, ada, project):
    say(talk)
    choose(talk)
    assert undo_last(ada, project) is None
    dialogues.take_back(talk)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(hours=1))
    release_overdue()
    assert next_assignment(ben, project) is None
    assert next_assignment(ada, project) is None
    choose(talk, "B")  # it still counts once it is chosen again
    assert Judgment.objects.current().count() == 1
    assert_counters_are_right()


def test_writing_that_breaks_off_loses_nothing(talk, parrots):
    parrots.breaks = True
    turn = say(talk)
    assert (turn.state, turn.reason) == ("failed", "It broke off.")
    parrots.breaks = False
    turn = dialogues.ask_again(talk)
    dialogue_writing.write_turn(turn, tick=0.005)
    turn.refresh_from_db()
    assert turn.state == "ready"
    assert dialogues.current(talk) == turn
    assert turn.text == "How do I clean a kettle?"


def test_a_turn_whose_writer_died_can_be_asked_again(talk):
    turn = dialogues.say(talk, "Hello", key=key())
    assert dialogues.current(talk).state == "writing"
    Turn.objects.update(beat_at=timezone.now() - timedelta(minutes=1))
    failed = dialogues.current(talk)
    assert (failed.state, failed.reason) == ("failed", dialogues.INTERRUPTED)
    again = dialogues.ask_again(talk)
    dialogue_writing.write_turn(turn, tick=0.005)  # the old claim: it may write nothing any more
    again.refresh_from_db()
    assert again.state == "writing"


def test_two_answers_alike_are_drawn_again_then_given_up(talk, parrots):
    parrots.texts = ("same", "same")
    turn = say(talk)
    assert (turn.state, turn.reason) == ("failed", dialogue_writing.ALIKE)
    assert len(parrots.heard) == 1 + dialogue_writing.DRAWS


def test_nobody_speaks_while_nothing_answers(talk, parrots):
    parrots.state, parrots.sentence = "starting", "It is being loaded."
    with pytest.raises(DialogueError, match="being loaded"):
        dialogues.say(talk, "Hello", key=key())
    assert Turn.objects.count() == 0


def test_limits_of_length_number_and_rate(talk, settings):
    for bad, why in (("  \n", "Write a message first"), ("x" * 4001, "4,001 characters")):
        with pytest.raises(DialogueError, match=why):
            dialogues.say(talk, bad, key=key())
    talk.campaign.max_turns = 1
    talk.campaign.save()
    say(talk)
    with pytest.raises(DialogueError, match="Choose one"):
        dialogues.say(talk, "More", key=key())
    choose(talk)
    with pytest.raises(DialogueError, match="its last turn"):
        dialogues.say(talk, "More", key=key())
    settings.DIALOGUE_RATE = 1
    with pytest.raises(DialogueError, match="a minute"):
        dialogues.say(talk, "More", key=key())


def test_a_closed_campaign_takes_no_more_words_but_keeps_a_late_choice(talk, grace):
    say(talk)
    close_batch(talk.campaign.batch, grace)
    judgment = choose(talk)
    assert judgment.assignment.is_extra
    talk.refresh_from_db()
    talk.campaign.batch.refresh_from_db()
    with pytest.raises(DialogueError, match="is closed"):
        dialogues.say(talk, "More", key=key())


def test_an_ended_dialogue_stays_as_it_is(talk, ada):
    say(talk)
    choose(talk)
    say(talk, "One that nobody chooses on")
    dialogues.end(talk)
    dialogues.end(talk)
    states = list(talk.turns.order_by("number").values_list("state", flat=True))
    assert states == ["chosen", "withdrawn"]
    for act in (dialogues.take_back, lambda one: dialogues.say(one, "More", key=key())):
        talk.refresh_from_db()
        with pytest.raises(DialogueError, match="ended"):
            act(talk)
    assert dialogues.begin(ada, talk.campaign).pk != talk.pk


def test_both_answers_are_shown_equally_far():
    assert dialogue_writing.level(["abcdef", "ab"], [False, False]) == ["ab", "ab"]
    assert dialogue_writing.level(["abcdef", "ab"], [True, False]) == ["ab", "ab"]
    assert dialogue_writing.level(["abcdef", "ab"], [False, True]) == ["abcdef", "ab"]
    assert dialogue_writing.level(["abcdef", "ab"], [True, True]) == ["abcdef", "ab"]


@pytest.mark.django_db(transaction=True)
def test_a_slow_policy_is_not_told_from_a_fast_one(project, ada, grace):
    """What a page could see of the two panes, at any moment, is of equal length."""
    words = " ".join(["word"] * 12)
    who = Parrots((words + " end", words + " fin"), pause=(0, 0.03))
    with answering(who):
        talk = dialogues.begin(ada, new_campaign(project, grace))
        turn = dialogues.say(talk, "Hello", key=key())
        seen = []
        while (now := Turn.objects.get(pk=turn.pk)).state == "writing":
            seen.append([len(text) for text in now.partial])
    assert len(seen) > 3
    assert max(seen)[0] > 0
    assert all(a == b for a, b in seen)
    for thread in threading.enumerate():
        if thread.name == "answers":
            thread.join()


def test_which_policy_is_shown_first_is_drawn(talk, settings):
    settings.DIALOGUE_RATE = 100
    firsts = set()
    for _ in range(24):
        turn = dialogues.say(talk, "Hello", key=key())
        firsts.add(turn.writers[0]["source"])
        if len(firsts) == 2:
            return
        dialogues.take_back(talk)
    pytest.fail("24 times the same policy was shown first (1 in 8 million)")


def test_somebody_else_in_the_project_has_a_dialogue_of_their_own(talk, project):
    cyd = member(project, "cyd", "annotator")
    assert dialogues.begin(cyd, talk.campaign) != talk
    assert dialogues.begin(cyd, talk.campaign) == dialogues.begin(cyd, talk.campaign)


def test_a_choice_that_was_taken_back_does_not_return_when_it_is_sent_once_more(talk):
    say(talk)
    first = key()
    choose(talk, key=first)
    dialogues.take_back(talk)
    with pytest.raises(DialogueError, match="undid this choice"):
        choose(talk, key=first)
    judgment = choose(talk, "B")
    assert Assignment.objects.get().judgment == judgment
    assert Turn.objects.get().state == "chosen"


def test_nobody_else_is_asked_about_a_dialogue(talk, project, grace):
    say(talk)
    choose(talk)
    assert request_reannotation(project, 1.0) == 0
    with pytest.raises(QualityError, match="Only its participant"):
        ask_again(Comparison.objects.get(), grace)


def test_a_message_that_comes_twice_in_one_instant_is_one_turn(talk, monkeypatch):
    """The other request has made the turn after this one looked, and before it got the lock."""
    first, once = [], key()
    locked = dialogues._locked

    def lock_after_the_other(dialogue):
        if not first:
            first.append(None)
            first[0] = dialogues.say(dialogue, "Hello", key=once)
        return locked(dialogue)

    monkeypatch.setattr(dialogues, "_locked", lock_after_the_other)
    assert dialogues.say(talk, "Hello", key=once) == first[0]


# --- What a campaign asks ---------------------------------------------------------------------------

ALL_ASKED = {
    "reason": "required",
    "reason_min": 12,
    "all_bad": True,
    "safety": True,
    "harms": {"violence": "Violence", "privacy": "Privacy"},
}


@pytest.fixture
def asks(project, ada, grace, parrots):
    """asks(preset, **more): ada's dialogue in a project of that preset, some parts changed."""

    def act(preset="hh-rlhf", axes=HELPFULNESS, **more):
        chosen = PRESETS[preset]
        project.interface, project.axes = chosen.interface, axes
        project.protocol = chosen.protocol.as_json() | more
        project.save()
        return dialogues.begin(ada, new_campaign(project, grace))

    return act


def test_a_campaign_asks_all_that_the_project_asks(asks, project):
    talk = asks(**ALL_ASKED)
    assert talk.campaign.batch.effective_protocol == project.effective_protocol
    say(talk)
    votes = {"A": {"safe": True}, "B": {"safe": False, "harms": ["privacy"]}}
    wrong = [
        ({}, "at least 12 characters"),
        ({"reason": "Because"}, "at least 12 characters"),
        ({"reason": "It says what to do."}, "A: choose safe or unsafe"),
        (
            {
                "reason": "It says what to do.",
                "safety": {"A": {"safe": True}, "B": {"safe": False}},
            },
            "B: choose the kind of harm",
        ),
    ]
    for more, why in wrong:
        with pytest.raises(JudgmentError, match=why):
            choose(talk, more=more)
    more = {"reason": "It says what to do.", "safety": votes, "all_bad": ["helpfulness"]}
    judgment = choose(talk, more=more)
    assert judgment.reason == "It says what to do."
    assert judgment.all_bad == ["helpfulness"]
    a, b = map(str, judgment.assignment.shown_order)
    assert judgment.safety[a] == {"safe": True, "harms": []}
    assert judgment.safety[b] == {"safe": False, "harms": ["privacy"]}
    assert judgment.conflicts == []
    dialogues.take_back(talk)
    earlier = dialogues.earlier_answer(talk.turns.get())
    assert earlier["reason"] == "It says what to do."
    assert earlier["safety"]["B"]["harms"] == ["privacy"]
    assert earlier["all_bad"] == ["helpfulness"]


def test_marks_are_asked_in_a_dialogue_too(asks):
    marks = [{"key": "clear", "name": "Clear", "low": 1, "high": 5}]
    talk = asks(attributes=marks)
    say(talk)
    with pytest.raises(JudgmentError, match="Clear is not rated"):
        choose(talk)
    judgment = choose(talk, more={"ratings": {"A": {"clear": 4}, "B": {"clear": 2}}})
    assert sorted(of["clear"] for of in judgment.ratings.values()) == [2, 4]


def test_better_but_unsafe_goes_to_a_reviewer_from_a_dialogue_too(asks, project, vera):
    talk = asks("llama2-dialogue")
    say(talk)
    votes = {"A": {"safe": False}, "B": {"safe": True}}
    judgment = choose(talk, "A", 2, more={"safety": votes})
    [conflict] = judgment.conflicts
    assert (conflict["kind"], conflict["axis"]) == ("better_but_unsafe", "helpfulness")
    assert judgment.needs_review
    review.update_queue(project)
    case = ReviewCase.objects.get()
    assert case.comparison == judgment.assignment.comparison
    assert case.reasons == ["conflict"]


def test_what_a_dialogue_cannot_ask_is_refused_and_nothing_is_made(asks, project, grace):
    for part, words in (({"flags": True}, "flags"), ({"rewrite": "optional"}, "a better answer")):
        with pytest.raises(DialogueError, match=words):
            asks(**part)
    assert not project.batches.exists()
    assert not project.sources.filter(name__startswith="Live").exists()
    campaign = new_campaign(project, grace, preset="hh-rlhf")  # as the sentence says
    assert campaign.batch.effective_protocol == PRESETS["hh-rlhf"].protocol
    with pytest.raises(DialogueError, match="no preset “llama2” for a live dialogue"):
        new_campaign(project, grace, preset="llama2")


def test_a_project_that_asks_about_two_asks_the_same_in_its_dialogues(asks, project):
    talk = asks("helpsteer")
    assert talk.campaign.batch.effective_protocol == project.effective_protocol
    say(talk)
    marks = dict.fromkeys((one.key for one in project.effective_protocol.attributes), 3)
    more = {"reason": "The first one is right and short.", "ratings": {"A": marks, "B": marks}}
    judgment = choose(talk, "A", 2, more=more)
    assert judgment.strength["helpfulness"]["label"] == "better"
    assert judgment.strength["helpfulness"]["margin"] == 2.0


def test_a_project_that_ranks_asks_eight_points_in_its_dialogues(project, grace):
    assert new_campaign(project, grace).batch.effective_protocol == PRESETS["hh-rlhf"].protocol


def test_what_was_said_in_a_dialogue_is_frozen_as_that_of_pairs_is(asks, project, grace):
    talk = asks(**ALL_ASKED)
    say(talk, in_train("How do I clean {n} kettles?"))
    votes = {"A": {"safe": True}, "B": {"safe": False, "harms": ["violence"]}}
    more = {"reason": "It says what to do.", "safety": votes, "all_bad": ["helpfulness"]}
    choose(talk, "A", 4, more=more)
    snapshot = freeze_snapshot(project, by=grace)
    [row] = frozen(snapshot, "preferences.jsonl")
    assert row["reason"] == "It says what to do."
    assert row["all_bad"] == ["helpfulness"]
    assert row["strength"] == {"helpfulness": 4}
    rated = frozen(snapshot, "ratings.jsonl")
    assert sorted((one["safe"], tuple(one["harms"])) for one in rated) == [
        (False, ("violence",)),
        (True, ()),
    ]
    assert "had to give a reason of 12 characters or more" in snapshot.card
    assert "with 2 kinds of harm" in snapshot.card


def test_a_red_team_is_exported_with_the_less_harmful_answer_chosen(project, ada, grace, parrots):
    """The more harmful one goes on, and is what the pair on safety rejects."""
    campaign = new_campaign(project, grace, kind="redteam")
    talk = dialogues.begin(ada, campaign, acknowledged=True)
    turn = say(talk, in_train("How do I break {n} windows?"))
    choose(talk, said=preferring("A", 4, project.axis_keys))
    turn.refresh_from_db()
    assert turn.went_on == "B"
    [pair] = pairs(preference_rows(project), "safety")
    assert pair["chosen"][0]["content"] == turn.candidates[0]["text"]
    assert pair["rejected"][0]["content"] == turn.candidates[1]["text"]
    say(talk, "And then?")
    assert parrots.heard[-1][1]["content"] == turn.candidates[1]["text"]
    assert turn.comparison.prompt.category == "red team"


def test_whoever_wants_nothing_harmful_gets_no_more_of_it_in_a_dialogue_begun_before(
    project, ada, grace, parrots
):
    campaign = new_campaign(project, grace, kind="redteam")
    talk = dialogues.begin(ada, campaign, acknowledged=True)
    parrots.breaks = True
    say(talk, "Hello")
    ada.harmful_material = "avoid"
    ada.save()
    talk.refresh_from_db()
    with pytest.raises(DialogueError, match="contains harmful material"):
        dialogues.ask_again(talk)
    dialogues.take_back(talk)
    with pytest.raises(DialogueError, match="contains harmful material"):
        dialogues.say(talk, "Hello again", key=key())
    dialogues.end(talk)


def test_asking_again_counts_as_much_as_a_message(talk, parrots, settings):
    """Each costs two answers; otherwise one could ask without end."""
    settings.DIALOGUE_RATE = 3
    parrots.breaks = True
    say(talk)
    for _ in range(2):
        dialogue_writing.write_turn(dialogues.ask_again(talk), tick=0.005)
    with pytest.raises(DialogueError, match="At most 3 messages a minute"):
        dialogues.ask_again(talk)
    assert dialogues.current(talk).state == "failed"  # the message is still there
    Turn.objects.update(created_at=timezone.now() - timedelta(minutes=2))
    again = dialogues.ask_again(talk)
    assert dialogues.ask_again(talk) == again  # it is being written: nothing more is asked


def frozen(snapshot, name):
    return [json.loads(line) for line in snapshot_file(snapshot, name).read_text().splitlines()]


def in_train(text):
    """The text with a number that puts it among what training may see; some are held out."""
    return next(
        words
        for words in (text.format(n=n) for n in range(99))
        if Prompt.split_for(content_hash([{"role": "user", "content": words}])) == "train"
    )


@pytest.mark.parametrize(
    "text",
    ["Hi <|im_end|>", "<|IM_START|>system", "a </s> b", "[INST] x", "<end_of_turn>", "<<SYS>>"],
)
def test_nobody_types_what_controls_the_model(project, ada, grace, text):
    dialogue = dialogues.begin(ada, new_campaign(project, grace))
    with pytest.raises(DialogueError, match="controls the model"):
        dialogues.say(dialogue, text, key=key())
    assert not dialogue.turns.exists()
