"""The pages of a live dialogue: who reaches them, without script, and what they never tell."""

import json
import re

import pytest
from django.urls import reverse

from annotation.judge import dialogue_writing, dialogues
from annotation.models import Dialogue, Judgment, ReviewCase, Turn
from annotation.pages import dialogues as dialogue_views
from annotation.projects.guidelines import change_guidelines
from annotation.protocols import PRESETS
from annotation.quality import review
from tests.annotation.talking import Parrots, answering, new_campaign, preferring
from tests.factories import key, member

pytestmark = pytest.mark.django_db

FAR_BETTER = 'value="A4" data-key="1" aria-label="1: A far better" required checked'
SECRETS = ("secret", "temperature", "0.5", "1.5", "which", "max_new_tokens")


@pytest.fixture
def parrots():
    with answering(Parrots()) as who:
        yield who


@pytest.fixture
def campaign(project, grace, parrots):
    return new_campaign(project, grace)


@pytest.fixture
def talk(ada, campaign):
    return dialogues.begin(ada, campaign)


def url(name, *args):
    return reverse(name, args=["apollo", *args])


def written(talk, text="How do I clean a kettle?"):
    turn = dialogues.say(talk, text, key=key())
    dialogue_writing.write_turn(turn, tick=0.005)
    turn.refresh_from_db()
    return turn


def votes(**extra):
    return {"pair-helpfulness": "A4", "pair-safety": "B1", "act": "choose", "number": 1} | extra


def test_a_whole_dialogue_without_script(client, ada, campaign):
    client.force_login(ada)
    assert b"Kitchen talk" in client.get(url("dialogues")).content
    answer = client.post(url("dialogues"), {"campaign": campaign.pk})
    talk = Dialogue.objects.get()
    here = url("dialogue", talk.uid)
    assert answer["Location"] == here
    answer = client.post(here, {"act": "say", "text": "Hello", "key": key()})
    assert answer["Location"] == here
    turn = Turn.objects.get()
    page = client.get(here).content.decode()
    assert 'http-equiv="refresh"' in page  # while it is being written
    dialogue_writing.write_turn(turn, tick=0.005)
    page = client.get(here).content.decode()
    assert "first answer" in page
    assert 'http-equiv="refresh"' not in page
    assert client.post(here, votes(key=key()))["Location"] == here
    assert Judgment.objects.count() == 1
    assert "Your next message" in client.get(here).content.decode()
    assert client.post(here, {"act": "undo"})["Location"] == here
    page = client.get(here).content.decode()
    assert FAR_BETTER in page
    client.post(here, {"act": "end"})
    assert "has ended" in client.get(here).content.decode()


def test_what_was_typed_stays_when_it_is_not_accepted(client, ada, talk, parrots):
    client.force_login(ada)
    parrots.state, parrots.sentence = "off", "It is switched off; ask an admin."
    answer = client.post(
        url("dialogue", talk.uid), {"act": "say", "text": "My <b>words</b>", "key": key()}
    )
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "My &lt;b&gt;words&lt;/b&gt;</textarea>" in page
    assert "switched off" in page
    parrots.state = "ready"
    written(talk)
    answer = client.post(
        url("dialogue", talk.uid), {**votes(key=key()), "pair-helpfulness": "", "pair-safety": "A4"}
    )
    assert answer.status_code == 422
    # What was said about safety stays; it needs no answer.
    assert FAR_BETTER.replace(" required", "") in answer.content.decode()
    assert client.post(url("dialogue", talk.uid), votes(key="nonsense")).status_code == 422
    assert client.post(url("dialogue", talk.uid), {"act": "fly"}).status_code == 422
    assert Judgment.objects.count() == 0


def test_only_who_has_the_dialogue_reaches_it(client, ada, ben, vera, rita, grace, otto, talk):
    for name in ("dialogue", "dialogue_state", "dialogue_stream"):
        for other in (ben, vera, rita, grace, otto):
            client.force_login(other)
            assert client.get(url(name, talk.uid)).status_code == 404
            assert client.post(url(name, talk.uid), {"act": "end"}).status_code in (404, 405)
        client.force_login(ada)
        answer = client.get(url(name, talk.uid))
        assert answer.status_code == 200
        body(answer)
        client.logout()
        assert client.get(url(name, talk.uid)).status_code == 302
    foreign = member(otto.memberships.get().project, "ada", "annotator")
    client.force_login(foreign)
    assert client.get(reverse("dialogue", args=["soyuz", talk.uid])).status_code == 404


def everything_ada_gets(client, talk):
    """Page, state and events, with their headers, as text."""
    told = []
    for name in ("dialogue", "dialogue_state", "dialogue_stream"):
        answer = client.get(url(name, talk.uid))
        headers = dict(answer.headers)
        headers.pop("X-Request-Id", None)  # random for each request
        told.append(body(answer) + json.dumps(headers))
    return told


def body(answer):
    """An answer's text, read to its end, so that a stream gives its seat back."""
    told = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return told.decode()


def test_nothing_tells_which_policy_wrote_what(client, ada, talk, parrots):
    """Page, state, events and headers are the same, byte for byte, whoever wrote the two answers."""
    client.force_login(ada)
    turn = written(talk)
    seen = {}
    swapped = [
        {**one, "source": other["source"], "sampling": other["sampling"]}
        for one, other in zip(turn.candidates, reversed(turn.candidates), strict=True)
    ]
    for writers in (turn.candidates, swapped):
        Turn.objects.update(candidates=writers, writers=writers)
        for state in ("ready", "writing", "failed"):
            Turn.objects.update(state=state, partial=["so", "fa"])
            if state == "writing":  # its stream would wait for the end
                told = [
                    client.get(url(n, talk.uid)).content.decode()
                    for n in ("dialogue", "dialogue_state")
                ]
            else:
                told = everything_ada_gets(client, talk)
            for text in told:
                text = text.split("<main")[-1]
                assert not [word for word in SECRETS if word in text], text
            seen.setdefault(state, []).append([masked(text) for text in told])
    for state, (first, second) in seen.items():
        assert first == second, state


def masked(text):
    """Without what differs between any two requests: tokens, nonces, keys."""
    text = re.sub(r'(name="csrfmiddlewaretoken" value|name="key" value)="[^"]*"', r"\1", text)
    text = re.sub(r'"X-CSRFToken": "[^"]*"', "", text)
    return re.sub(r"nonce-[\w+/=-]*", "", text)


def test_hostile_words_run_nothing(client, ada, talk, parrots):
    nasty = "<script>alert(1)</script> <img src=x onerror=alert(2)> [x](javascript:alert(3))"
    parrots.texts = (nasty, nasty + " !")
    client.force_login(ada)
    turn = written(talk, nasty)
    Turn.objects.update(state="writing", partial=[nasty, nasty])
    state = client.get(url("dialogue_state", talk.uid)).json()
    pages = [client.get(url("dialogue", talk.uid)).content.decode(), *state["panes"]]
    Turn.objects.update(state="ready")
    pages.append(client.get(url("dialogue", talk.uid)).content.decode())
    assert turn.text == nasty
    for page in pages:
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert 'href="javascript' not in page


def test_a_draft_is_kept_on_the_server_too(client, ada, talk):
    client.force_login(ada)
    said = {"act": "draft", "text": "half a sen\x00tence"}
    assert client.post(url("dialogue", talk.uid), said).status_code == 204
    assert "half a sentence</textarea>" in client.get(url("dialogue", talk.uid)).content.decode()


def test_a_red_team_begins_with_a_warning(client, ada, project, grace, parrots):
    campaign = new_campaign(project, grace, kind="redteam")
    client.force_login(ada)
    assert "contains harmful material" in client.get(url("dialogues")).content.decode()
    assert client.post(url("dialogues"), {"campaign": campaign.pk}).status_code == 422
    assert Dialogue.objects.count() == 0
    said = {"campaign": campaign.pk, "acknowledged": "on"}
    ada.harmful_material = "avoid"
    ada.save()
    assert "contains harmful material" not in client.get(url("dialogues")).content.decode()
    assert client.post(url("dialogues"), said).status_code == 422
    ada.harmful_material = "warn"
    ada.save()
    client.post(url("dialogues"), said)
    assert Dialogue.objects.count() == 1


def test_more_streams_than_seats_are_sent_to_poll(client, ada, talk, monkeypatch):
    class Full:
        def acquire(self, *, blocking):
            return False

    monkeypatch.setattr(dialogue_views, "_seats", Full())
    client.force_login(ada)
    assert client.get(url("dialogue_stream", talk.uid)).status_code == 503
    assert client.get(url("dialogue_state", talk.uid)).json()["state"] == ""


def test_a_stream_gives_its_seat_back_however_it_ends(client, ada, talk):
    client.force_login(ada)
    seats = dialogue_views._seats
    before = seats._value
    assert "data: " in body(client.get(url("dialogue_stream", talk.uid)))
    assert seats._value == before
    for reads in (0, 1):  # the browser left before the first event, or after it
        seats.acquire()
        events = dialogue_views._Events(talk)
        for _ in range(reads):
            next(events)
        events.close()
        events.close()
        assert seats._value == before


def test_a_dialogue_is_corrected_where_it_was_held(client, ada, talk):
    written(talk)
    said = preferring("A", 1, ("helpfulness", "safety"))
    judgment = dialogues.choose(talk, said, number=1, key=key())
    client.force_login(ada)
    assert client.get(url("history")).status_code == 200
    answer = client.get(url("judge_one", judgment.assignment.uid))
    assert answer["Location"] == url("dialogue", talk.uid)


def test_what_a_campaign_asks_is_on_the_page_and_kept_when_it_is_refused(
    client, ada, project, grace, parrots
):
    """Without script: reason, votes on safety with kinds of harm, both bad."""
    project.interface = "dialogue"
    project.protocol = PRESETS["llama2-dialogue"].protocol.as_json() | {
        "reason": "required",
        "reason_min": 10,
        "all_bad": True,
        "harms": {"privacy": "Privacy"},
    }
    project.save()
    talk = dialogues.begin(ada, new_campaign(project, grace))
    here = url("dialogue", talk.uid)
    client.force_login(ada)
    assert 'name="reason"' not in client.get(here).content.decode()
    written(talk)
    page = client.get(here).content.decode()
    for field in ("safe-A", "safe-B", "harms-A", "harms-B", "allbad", "reason", "pair-safety"):
        assert f'name="{field}"' in page, field
    said = votes(
        **{"safe-A": "no", "safe-B": "yes", "harms-A": "privacy", "allbad": "safety"},
        reason="Too short",
        key=key(),
    )
    answer = client.post(here, said)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "Give a reason of at least 10 characters" in page
    assert ">Too short</textarea>" in page
    for field in (
        'name="safe-A" value="no" data-key="n" checked',
        'name="harms-A" value="privacy" checked',
        'name="allbad" value="safety" checked',
        'aria-label="1: A significantly better" required checked',
    ):
        assert field in page, field
    assert client.post(here, said | {"reason": "It is longer."})["Location"] == here
    judgment = Judgment.objects.get()
    assert judgment.reason == "It is longer."
    assert judgment.all_bad == ["safety"]
    assert [one["harms"] for one in judgment.safety.values()] == [["privacy"], []]
    assert judgment.needs_review
    history = client.get(url("history")).content.decode()
    assert "A &gt; B, significantly better" in history
    assert "B &gt; A, negligibly better / unsure, both bad" in history


def test_whoever_wants_nothing_harmful_is_shown_none_of_a_dialogue_begun_before(
    client, ada, project, grace, parrots
):
    campaign = new_campaign(project, grace, kind="redteam")
    talk = dialogues.begin(ada, campaign, acknowledged=True)
    written(talk, "Say something awful")
    ada.harmful_material = "avoid"
    ada.save()
    client.force_login(ada)
    listed = client.get(url("dialogues")).content.decode()
    assert "1 campaign with harmful material is hidden" in listed
    page = client.get(url("dialogue", talk.uid)).content.decode()
    assert "first answer" not in page
    assert 'value="choose"' not in page
    assert "your preferences exclude" in page
    assert "<summary>Show the conversation</summary>" in page
    assert client.post(url("dialogue", talk.uid), {"act": "end"})["Location"] == url("dialogues")


def test_changed_guidelines_lead_back_to_the_dialogue_and_nowhere_else(client, ada, talk, grace):
    client.force_login(ada)
    here = url("dialogue", talk.uid)
    assert 'id="news"' not in client.get(here).content.decode()  # the first visit has no news
    project = talk.campaign.batch.project
    change_guidelines(project, project.guidelines + " Be brief.", by=grace)
    page = client.get(here).content.decode()
    assert 'id="news"' in page
    assert f'name="back" value="{here}"' in page
    seen = url("guidelines_seen")
    assert client.post(seen, {"version": 2, "back": here})["Location"] == here
    assert 'id="news"' not in client.get(here).content.decode()
    elsewhere = client.post(seen, {"version": 2, "back": "https://evil.example/"})
    assert elsewhere["Location"] == url("judge")


def test_a_reviewer_decides_what_was_better_but_unsafe_in_a_dialogue(
    client, ada, vera, project, grace, parrots
):
    chosen = PRESETS["llama2-dialogue"]
    project.interface, project.protocol = chosen.interface, chosen.protocol.as_json()
    project.save()
    talk = dialogues.begin(ada, new_campaign(project, grace))
    written(talk)
    said = preferring("A", 3, project.axis_keys)
    said["safety"] = {"A": {"safe": False}, "B": {"safe": True}}
    judgment = dialogues.choose(talk, said, number=1, key=key())
    review.update_queue(project)
    case = ReviewCase.objects.get()
    client.force_login(vera)
    assert b"Preferred but unsafe" in client.get(url("review_queue")).content
    here = url("review_case", case.uid)
    page = client.get(here).content.decode()
    assert "How do I clean a kettle?" in page
    assert 'name="safe-A"' in page
    assert 'name="pair-helpfulness"' in page
    decided = {"act": "decide", "choice": "1", "ground": "guidelines", "key": key()}
    assert client.post(here, decided).status_code == 302
    case.refresh_from_db()
    assert case.state == "decided"
    ruling = judgment.assignment.comparison.assignments.get(annotator=vera).judgment
    assert ruling.safety == judgment.safety
    assert ruling.strength == judgment.strength
