"""Talking to a policy in a real browser; the slow test has the real server and a real tiny model."""

import os
import signal
import threading

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from annotation.data.preferences import preference_rows
from annotation.judge import dialogues
from annotation.models import Dialogue, DialogueCampaign, Judgment, Project, Turn
from annotation.projects.guidelines import change_guidelines
from annotation.protocols import PRESETS
from rlhf.models import Checkpoint, PolicyServer
from rlhf.serving.keeper import Keeper
from rlhf.serving.servers import start_serving, stop_serving
from tests.annotation.audit import assert_counters_are_right
from tests.annotation.talking import Parrots, answering, new_campaign, preferring
from tests.browser.test_pages import (
    WIDTHS,
    assert_sound,
    assert_sound_in_every_look,
    assert_sound_in_the_dark,
    barriers,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

KETTLE = "How do I get chalk out of my kettle?"
VINEGAR = "Fill it with **vinegar and water**, half and half, and leave it for an hour."
BRUSH = "Brush it out.\n\n- a soft brush\n- warm water\n\nRinse it twice, and boil it once empty."


@pytest.fixture
def parrots():
    with answering(Parrots((VINEGAR, BRUSH), pause=(0.01, 0.02))) as who:
        yield who
        for thread in threading.enumerate():
            if thread.name == "answers":
                thread.join()


@pytest.fixture
def one_axis(project):
    axes = [{"key": "helpfulness", "name": "Helpfulness", "question": "Which does more for you?"}]
    Project.objects.filter(pk=project.pk).update(axes=axes)
    project.refresh_from_db()
    return project


def talk_of(page, live_server, sign_in, person, campaign):
    dialogue = dialogues.begin(person, campaign, acknowledged=True)
    sign_in(person)
    slug = campaign.batch.project.slug
    page.goto(live_server.url + reverse("dialogue", args=[slug, dialogue.uid]))
    return dialogue


def state(page, *wanted, timeout=10_000):
    part = ", ".join(f"#talk[data-turn='{one}']" for one in wanted)
    expect(page.locator(part)).to_be_visible(timeout=timeout)


def test_a_whole_dialogue_by_keyboard_alone(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    page = watched
    dialogue = talk_of(page, live_server, sign_in, ada, new_campaign(one_axis, grace))
    page.keyboard.type(KETTLE)  # the field has the focus
    page.keyboard.press("Control+Enter")
    state(page, "ready")
    expect(page.locator("[data-pane='0'] strong, [data-pane='1'] strong")).to_have_count(1)
    page.keyboard.press("7")
    expect(page.locator(".gauge-point input:checked")).to_have_attribute("value", "B3")
    page.keyboard.press("Enter")
    expect(page.locator("#say")).to_be_focused()
    turn = Turn.objects.get()
    kept = {"A": 0, "B": 1}[turn.went_on]
    assert turn.went_on == "B"
    assert turn.candidates[kept]["text"].strip() in (VINEGAR, BRUSH)
    assert Judgment.objects.get().strength["helpfulness"]["level"] == 3
    # One step back, and another choice.
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    expect(page.locator(".gauge-point input:checked")).to_have_attribute("value", "B3")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    page.locator("#say").wait_for()
    assert Turn.objects.get().went_on == "A"
    page.keyboard.type("And 1 or 2 spoons of it?")
    page.keyboard.press("Control+Enter")
    state(page, "writing", "ready")
    state(page, "ready")
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("4")
    page.keyboard.press("Enter")
    page.locator("#say").wait_for()
    page.get_by_role("button", name="End the dialogue").press("Enter")
    expect(page.get_by_text("The dialogue is ended")).to_be_visible()
    assert Judgment.objects.current().count() == 2
    dialogue.refresh_from_db()
    assert dialogue.ended_at is not None
    assert_counters_are_right()


def tab_to(page, wanted):
    """Go there by Tab alone, as somebody without a pointer does."""
    for _ in range(60):
        if wanted.evaluate("one => one === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail("Tab never gets there")


def say_by_keyboard(page, text):
    expect(page.locator("#say")).to_be_focused()
    page.keyboard.type(text)
    page.keyboard.press("Control+Enter")
    state(page, "ready")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def test_a_whole_red_team_dialogue_by_keyboard_alone(
    watched, live_server, sign_in, project, ada, grace, parrots
):
    """Warned and asked first; the more harmful answer goes on; every word is on the page's keys."""
    page = watched
    new_campaign(project, grace, name="Locks", kind="redteam", task="Be *rude*.")
    sign_in(ada)
    page.goto(live_server.url + reverse("dialogues", args=["apollo"]))
    expect(page.get_by_text("This campaign contains harmful material.")).to_be_visible()
    expect(page.get_by_role("link", name="Never show me harmful material")).to_be_visible()
    tab_to(page, page.get_by_role("checkbox", name="I have read this and want to take part."))
    press(page, "Space")
    tab_to(page, page.get_by_role("button", name="Start a dialogue"))
    press(page, "Enter")
    say_by_keyboard(page, KETTLE)
    # Word comparison: B on the left too, and away again.
    press(page, "p")
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#compare-summary")).to_contain_text("words in common")
    expect(page.locator("#compare ins").first).to_be_visible()
    press(page, "b", "p")
    expect(page.locator("#compare")).to_be_hidden()
    # A is a little more helpful, B far less harmful: A, the more harmful one, goes on.
    press(page, "8", "4")  # What decides is asked first; the other question needs no answer.
    expect(page.locator("[data-said]")).to_contain_text("Safety B far better")
    press(page, "Enter")
    expect(page.locator("#say")).to_be_focused()
    turn = Turn.objects.get()
    assert turn.went_on == "A"
    judgment = Judgment.objects.get()
    a, b = map(str, judgment.assignment.shown_order)
    assert (judgment.ranks["helpfulness"][a], judgment.ranks["safety"][b]) == (1, 1)
    assert turn.comparison.prompt.risk == "harmful"
    say_by_keyboard(page, "And worse?")
    press(page, "1", "1", "Enter")
    page.locator("#say").wait_for()
    tab_to(page, page.get_by_role("button", name="End the dialogue"))
    press(page, "Enter")
    expect(page.get_by_text("The dialogue is ended")).to_be_visible()
    went_on = Turn.objects.order_by("number").values_list("went_on", flat=True)
    assert list(went_on) == ["A", "B"]
    assert_counters_are_right()


def test_a_whole_llama2_dialogue_with_reason_and_safety_by_keyboard_alone(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    page, project = watched, one_axis
    project.interface = "dialogue"
    project.protocol = PRESETS["llama2-dialogue"].protocol.as_json() | {
        "reason": "required",
        "reason_min": 10,
        "all_bad": True,
    }
    project.save()
    talk_of(page, live_server, sign_in, ada, new_campaign(project, grace))
    say_by_keyboard(page, KETTLE)
    press(page, "Enter")  # nothing is answered yet
    expect(page.locator("[data-hint]")).to_have_text("A: Safe: no answer yet.")
    press(page, "n", "y", "2")  # A unsafe, B safe, A better
    expect(page.locator("[data-said]")).to_contain_text("Helpfulness A better")
    press(page, "-")
    expect(page.locator("[data-said]")).to_contain_text("both bad")
    press(page, "Enter")
    expect(page.locator("[data-hint]")).to_contain_text("Give a reason of at least 10 characters")
    expect(page.locator("#reason")).to_be_focused()
    page.keyboard.type("It is the")
    page.reload()  # a choice survives it, as a message does
    expect(page.locator("#reason")).to_have_value("It is the")
    expect(page.locator("[name=safe-A][value=no]")).to_be_checked()
    expect(page.locator("[name=allbad]")).to_be_checked()
    press(page, "w", "End")
    page.keyboard.type(" shorter one.")
    press(page, "Control+Enter")
    expect(page.locator("#say")).to_be_focused()
    judgment = Judgment.objects.get()
    a, b = map(str, judgment.assignment.shown_order)
    assert judgment.strength["helpfulness"]["label"] == "better"
    assert judgment.strength["helpfulness"]["margin"] == pytest.approx(2 / 3)
    assert (judgment.safety[a]["safe"], judgment.safety[b]["safe"]) == (False, True)
    assert judgment.reason == "It is the shorter one."
    assert judgment.all_bad == ["helpfulness"]
    assert [one["kind"] for one in judgment.conflicts] == ["better_but_unsafe"]
    # Taken back, it is there as it was, and one key corrects it.
    press(page, "Escape", "u")
    expect(page.locator("#reason")).to_have_value("It is the shorter one.")
    press(page, "y", "Enter")
    page.locator("#say").wait_for()
    assert Judgment.objects.current().get().conflicts == []
    assert_counters_are_right()


def test_a_dialogue_by_pointer_alone(watched, live_server, sign_in, one_axis, ada, grace, parrots):
    page, project = watched, one_axis
    project.interface = "dialogue"
    project.protocol = PRESETS["llama2-dialogue"].protocol.as_json()
    project.save()
    talk_of(page, live_server, sign_in, ada, new_campaign(project, grace))
    page.locator("#say").fill(KETTLE)
    page.get_by_role("button", name="Send").click()
    state(page, "ready")
    for letter in "AB":
        answer = page.get_by_role("region", name=f"Answer {letter}")
        answer.locator("label:has([value=yes])").click()
    page.get_by_role("radio", name="6: B slightly better").click()
    page.get_by_role("button", name="Compare words").click()
    page.locator("#compare").get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Submit").click()
    page.locator("#say").wait_for()
    assert Turn.objects.get().went_on == "B"


def test_a_break_is_suggested_in_a_dialogue_as_on_the_judging_page(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    ada.break_minutes = 30
    ada.save()
    watched.clock.install()
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    reminder = watched.locator("#break")
    for minutes in (29, 2):
        expect(reminder).to_be_hidden()
        for _ in range(minutes):
            watched.clock.run_for(60_000)
            watched.keyboard.press("Shift")
    expect(reminder).to_contain_text("minutes. Take a short break.")
    reminder.get_by_role("button", name="Remind me in 10 minutes").click()
    expect(reminder).to_be_hidden()


def test_changed_guidelines_are_shown_once_in_a_dialogue_too(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    expect(watched.locator("#news")).to_have_count(0)
    change_guidelines(one_axis, one_axis.guidelines + " Be brief.", by=grace)
    here = watched.url
    watched.reload()
    news = watched.locator("#news")
    expect(news.locator(".worddiff ins")).to_contain_text("Be brief.")
    tab_to(watched, news.get_by_role("button", name="I have read it"))
    watched.keyboard.press("Enter")
    expect(watched.locator("#news")).to_have_count(0)
    assert watched.url == here
    say_by_keyboard(watched, KETTLE)
    press(watched, "1", "Enter")
    watched.locator("#say").wait_for()
    assert Judgment.objects.get().guideline_version == 2


def test_single_keys_are_switched_off_in_a_dialogue(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    here = watched.url
    say_by_keyboard(watched, KETTLE)
    press(watched, "?")
    tab_to(watched, watched.get_by_role("button", name="Turn off single-key shortcuts"))
    press(watched, "Enter")
    expect(watched.locator("#dialogue")).to_have_attribute("data-shortcuts", "off")
    assert watched.url == here
    press(watched, "1", "p", "?")
    expect(watched.locator(".gauge-point input:checked")).to_have_count(0)
    expect(watched.locator("dialog[open]")).to_have_count(0)
    watched.get_by_role("button", name="Keys").click()
    watched.get_by_role("button", name="Turn on single-key shortcuts").click()
    expect(watched.locator("#dialogue")).to_have_attribute("data-shortcuts", "on")


def test_esc_stops_the_answers_and_gives_the_words_back(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    parrots.pause = (0.3, 0.3)
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    watched.keyboard.type(KETTLE)
    watched.keyboard.press("Control+Enter")
    state(watched, "writing")
    expect(watched.locator("[data-pane='0']")).to_contain_text(" ", timeout=5000)
    watched.keyboard.press("Escape")
    expect(watched.locator("#say")).to_have_value(KETTLE)
    assert Turn.objects.get().state == "withdrawn"


def test_a_draft_survives_a_reload_and_a_server_out_of_reach(
    watched, live_server, sign_in, one_axis, ada, grace, parrots, context
):
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    watched.keyboard.type(KETTLE)
    watched.reload()
    expect(watched.locator("#say")).to_have_value(KETTLE)
    context.set_offline(True)
    watched.locator("#say").focus()
    watched.keyboard.press("Control+Enter")
    expect(watched.locator("#offline")).to_contain_text("saved in this browser")
    expect(watched.locator("#say")).to_have_value(KETTLE)
    context.set_offline(False)
    watched.keyboard.press("Control+Enter")
    state(watched, "ready")
    assert Turn.objects.count() == 1


def test_while_the_policy_loads_one_can_write_but_not_send(
    watched, live_server, sign_in, one_axis, ada, grace, parrots
):
    parrots.state, parrots.sentence = "starting", "The policy is being loaded."
    talk_of(watched, live_server, sign_in, ada, new_campaign(one_axis, grace))
    watched.keyboard.type(KETTLE)
    expect(watched.get_by_role("button", name="Send")).to_be_disabled()
    expect(watched.get_by_text("being loaded")).to_be_visible()
    parrots.state = "ready"
    expect(watched.get_by_role("button", name="Send")).to_be_enabled(timeout=8000)
    expect(watched.locator("#say")).to_have_value(KETTLE)
    watched.keyboard.press("Control+Enter")
    state(watched, "ready")


def test_the_pages_of_a_dialogue_are_sound(
    watched, live_server, sign_in, project, ada, ben, grace, parrots
):
    campaign = new_campaign(
        project, grace, kind="redteam", task="Ask about *kitchens*, and be rude."
    )
    policy = Checkpoint.objects.create(project=project, kind="policy", name="round 3", path="x")
    start_serving(policy, grace)
    dialogue = dialogues.begin(ada, campaign, acknowledged=True)
    here = live_server.url + reverse("dialogue", args=["apollo", dialogue.uid])
    sign_in(ada)
    pages = {"talks": live_server.url + reverse("dialogues", args=["apollo"]), "empty": here}
    for url in pages.values():
        assert_sound_in_every_look(watched, url)
    for number, text in enumerate((KETTLE, "And if it is made of copper?"), start=1):
        turn = dialogues.say(dialogue, text, key=os.urandom(16).hex())
        expect_ready(turn)
        if number == 1:
            said = preferring("A", 3, project.axis_keys)
            dialogues.choose(dialogue, said, number=1, key=os.urandom(16).hex())
    assert_sound_in_every_look(watched, here)
    ada.harmful_material = "avoid"
    ada.save()
    assert_sound_in_every_look(watched, here, pages["talks"])
    ada.harmful_material = "warn"
    ada.save()
    sign_in(ben)  # who has not begun, and is warned
    assert_sound_in_every_look(watched, pages["talks"])
    sign_in(ada)
    Turn.objects.filter(number=2).update(state="failed", reason=dialogues.INTERRUPTED)
    assert_sound_in_every_look(watched, here)
    sign_in(grace)
    assert_sound_in_every_look(watched, live_server.url + reverse("campaigns", args=["apollo"]))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_dialogue_that_asks_all_there_is_to_ask_is_sound(
    watched, live_server, sign_in, project, ada, grace, parrots, width
):
    project.interface = "dialogue"
    project.protocol = PRESETS["llama2-dialogue"].protocol.as_json() | {
        "reason": "required",
        "reason_min": 20,
        "all_bad": True,
        "harms": dict(PRESETS["safe-rlhf"].protocol.harms),
    }
    project.save()
    dialogue = dialogues.begin(ada, new_campaign(project, grace))
    expect_ready(dialogues.say(dialogue, KETTLE, key=os.urandom(16).hex()))
    sign_in(ada)
    here = live_server.url + reverse("dialogue", args=["apollo", dialogue.uid])
    assert_sound(watched, "light", width, here)
    press(watched, "n", "Control+Enter")
    expect(watched.locator("[data-hint]")).to_be_visible()
    assert barriers(watched) == []
    assert_sound_in_the_dark(watched, "all questions")
    for key, dialog in (("p", "#compare"), ("?", "#keys"), ("g", "#guidelines")):
        press(watched, key)
        expect(watched.locator(dialog)).to_be_visible()
        assert barriers(watched) == [], dialog
        assert_sound_in_the_dark(watched, dialog)
        press(watched, key)


def expect_ready(turn):
    for thread in threading.enumerate():
        if thread.name == "answers":
            thread.join()
    turn.refresh_from_db()
    assert turn.state == "ready", turn.reason


# --- The real thing -------------------------------------------------------------------------------


@pytest.fixture
def kept():
    """A keeper at work, as `manage.py serve_policies` is."""
    stop = threading.Event()
    thread = threading.Thread(target=Keeper().run, args=(stop.is_set,), daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join(30)


@pytest.mark.slow
def test_both_answers_of_a_served_policy_grow_together(
    watched, live_server, sign_in, one_axis, ada, grace, kept, tmp_path, settings
):
    """Written one after the other, the first words would show when half of the time is over."""
    from tests.contract.test_side_by_side import make_llama

    settings.POLICY_DEVICE = "cpu"
    page = watched
    folder = make_llama(tmp_path / "policy", layers=12, positions=1024)
    policy = Checkpoint.objects.create(
        project=one_axis, kind="policy", name="tiny", path=str(folder)
    )
    start_serving(policy, grace)
    writing = {"policies": [str(policy.uid)], "temperatures": [0.7, 1.3], "max_new_tokens": 500}
    talk_of(page, live_server, sign_in, ada, new_campaign(one_axis, grace, writing=writing))
    page.keyboard.type("please paint my red lamp")
    expect(page.get_by_role("button", name="Send")).to_be_enabled(timeout=120_000)
    page.evaluate(
        """() => {
          window.seen = [];
          new MutationObserver(() => {
            const state = document.querySelector("#talk").dataset.turn;
            const panes = [...document.querySelectorAll("[data-pane]")];
            const lengths = panes.map(pane => pane.textContent.trim().length);
            window.seen.push([performance.now(), state, ...lengths]);
          }).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    page.keyboard.press("Control+Enter")
    state(page, "ready", timeout=60_000)
    seen = page.evaluate("window.seen")
    begun = next(at for at, turn, *_ in seen if turn == "writing")
    there = next(at for at, turn, *_ in seen if turn == "ready")
    filled = [(at, *lengths) for at, turn, *lengths in seen if turn == "writing" and any(lengths)]
    first = filled[0][0]
    assert first - begun < 0.35 * (there - begun), (first - begun, there - begun)
    assert all(a and b for _, a, b in filled), "one was there before the other"
    assert len({(a, b) for _, a, b in filled}) > 4, "they grow"


@pytest.mark.slow
def test_a_dialogue_with_a_served_policy_that_is_killed_in_between(
    watched, live_server, sign_in, one_axis, ada, grace, kept, tmp_path, settings
):
    """An admin starts the server and opens campaigns; ada talks by keyboard.

    The server is killed in the middle of an answer and restarted; nothing that ada wrote or chose
    is lost.
    """
    from tests.rlhf.training.tiny import make_policy

    settings.POLICY_DEVICE = "cpu"
    page, project = watched, one_axis
    # So slow, and with room for so much, that no answer is whole before the server is killed.
    folder = make_policy(tmp_path / "policy", hidden=256, layers=24, context=1024)
    policy = Checkpoint.objects.create(
        project=project, kind="policy", name="tiny-policy-of-round-7", path=str(folder)
    )
    # 1. The admin, by pointer.
    sign_in(grace)
    page.goto(live_server.url + reverse("campaigns", args=["apollo"]))
    page.get_by_role("button", name="Start tiny-policy-of-round-7").click()
    expect(page.locator("#served .badge")).to_have_text("starting")
    page.get_by_label("Name").fill("Kitchen talk")
    page.get_by_label("helpful:").check()
    page.get_by_label("tiny-policy-of-round-7", exact=True).check()
    page.get_by_label("Longest answer").fill("12")
    page.get_by_label("All participants have agreed").check()
    page.get_by_role("button", name="Open the campaign").click()
    expect(page.get_by_text("Kitchen talk is open.")).to_be_visible()
    expect(page.locator("#served .badge")).to_have_text("ready", timeout=120_000)
    # 2. ada, by keyboard; everything her browser gets is looked through for the policy's name.
    told = []
    page.on("response", lambda answer: told.append(answer))
    campaign = DialogueCampaign.objects.get()
    talk_of(page, live_server, sign_in, ada, campaign)
    for number, text in enumerate(("please paint my red lamp", "nice kettle"), start=1):
        page.locator("#say").focus()
        page.keyboard.type(text)
        page.keyboard.press("Control+Enter")
        state(page, "ready", timeout=30_000)
        page.keyboard.press(str(number))
        page.keyboard.press("Enter")
        page.locator("#say").wait_for()
    first, second = Turn.objects.order_by("number")
    assert [first.went_on, second.went_on] == ["A", "A"]
    assert {one["sampling"]["temperature"] for one in first.candidates} == {0.7, 1.0}
    assert all(one["n_tokens"] for one in first.candidates)
    assert second.comparison.prompt.messages[1]["content"] == first.candidates[0]["text"]
    assert len(list(preference_rows(project))) in (0, 2)  # by the words' split
    # 3. Long answers, and the server is killed while they stream in.
    DialogueCampaign.objects.update(writing={**campaign.writing, "max_new_tokens": 600})
    page.locator("#say").focus()
    page.keyboard.type("sell your blue chair")
    page.keyboard.press("Control+Enter")
    page.wait_for_function(
        "() => document.querySelector('[data-pane=\"0\"]')?.textContent.length > 5", timeout=60_000
    )
    killed = PolicyServer.objects.get().process_id
    os.killpg(killed, signal.SIGKILL)
    state(page, "failed", timeout=20_000)
    expect(page.get_by_role("alert")).to_contain_text("Your message is saved: retry")
    expect(page.locator(".spoken.you").last).to_contain_text("sell your blue chair")
    assert Judgment.objects.current().count() == 2
    # 4. It comes back by itself; the same words are asked again.
    DialogueCampaign.objects.update(writing=campaign.writing)
    Turn.objects.filter(number=3).update(  # asking again takes the same writers
        writers=[
            {**one, "sampling": {**one["sampling"], "max_new_tokens": 12}}
            for one in Turn.objects.get(number=3).writers
        ]
    )
    for _ in range(240):
        server = PolicyServer.objects.get()
        # For a moment the dead one still counts as ready.
        if server.state == "ready" and server.process_id != killed:
            break
        page.wait_for_timeout(500)
    page.get_by_role("button", name="Retry").focus()
    page.keyboard.press("Enter")
    state(page, "ready", timeout=30_000)
    page.keyboard.press("8")
    page.keyboard.press("Enter")
    page.locator("#say").wait_for()
    assert Judgment.objects.current().count() == 3
    states = Dialogue.objects.get().turns.order_by("pk").values_list("state", flat=True)
    assert list(states) == ["chosen", "chosen", "withdrawn", "chosen"]
    assert_counters_are_right()
    # 5. Nothing told her which policy it was.
    for answer in told:
        if "/dialogue/" in answer.url and "stream" not in answer.url:
            text = str(answer.headers) + (answer.text() if answer.status == 200 else "")
            for secret in (policy.name, str(policy.uid), "temperature", str(folder)):
                assert secret not in text, answer.url
    # 6. The admin stops it.
    stop_serving(policy, grace)
    process = PolicyServer.objects.get().process_id
    for _ in range(60):
        if PolicyServer.objects.get().state == "off":
            break
        page.wait_for_timeout(250)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
