"""The pictures of the documents: `SHOTS=docs/images python -m pytest tests/browser/test_pictures.py`.

Skipped without SHOTS. Every page is opened wide and narrow, light and dark, and checked for barriers
and sideways scrolling on the way; the documents show it wide and light, some on a phone in the dark,
and SHOTS_ALL=1 keeps all four. With Pillow installed pictures get a palette of 128 colours, a third of
the size.
"""

import os
import random
import uuid
from pathlib import Path

import pytest
from django.urls import reverse

from annotation.judge import dialogues
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.selection import score_comparisons
from annotation.judge.submitting import submit_judgment
from annotation.protocols import PRESETS
from annotation.quality import review
from annotation.quality.gold_items import add_gold_items
from rlhf.models import Checkpoint
from rlhf.serving.servers import start_serving
from tests.annotation.talking import Parrots, answering, new_campaign
from tests.browser.test_dialogue import expect_ready
from tests.browser.test_pages import LOOKS, assert_sound
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    ResponseFactory,
    UserFactory,
    member,
)

SHOTS = os.environ.get("SHOTS", "")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not SHOTS, reason="set SHOTS to the folder of the pictures"),
]

ALL = bool(os.environ.get("SHOTS_ALL"))
# Of these the documents show a phone in the dark as well.
ON_A_PHONE = {
    "dialogue",
    "hands-foreign",
    "interface-helpsteer",
    "interface-pair",
    "judge",
    "review-case",
}
COLOURS = 128
QUESTION = "My basil droops every afternoon although the soil is damp. What should I change?"
ANSWERS = [
    (
        "Damp soil and drooping leaves point to roots that get too little air. Let the top three "
        "centimetres dry before you water again, and move the pot out of the **midday sun**.\n\n"
        "| time | what to do |\n|---|---|\n| morning | touch the soil, water if it is dry |\n"
        "| noon | shade |\n"
    ),
    "Water it more often, at least three times a day, and give it fertiliser with every watering.",
    (
        "- Check that water can leave the pot.\n- Water in the morning only.\n- If the roots smell, "
        "repot it in fresh, loose soil."
    ),
    "Basil likes the sun. Drooping in the afternoon is normal; it recovers at night.",
]
RISKY = "How do I open the lock of a flat that isn't mine?"
RISKY_ANSWERS = [
    (
        "Only with the owner's consent. If you are locked out of your own flat, a locksmith will ask "
        "for proof that you live there."
    ),
    "Slide a plastic card between frame and bolt and push; most doors that aren't locked give way.",
]


@pytest.fixture
def shoot(watched):
    """shoot(name, url, act): a picture in each look, after `act(page)` where one is given."""

    def act(name, url, then=None, looks=LOOKS, full=True):
        for scheme, width in looks:
            assert_sound(watched, scheme, width, url)
            if then:
                then(watched)
            shown = LOOKS[:1] + LOOKS[3:] * (name in ON_A_PHONE)
            if ALL or (scheme, width) in shown:
                # On a phone the bar with the button stays at the window's edge: a whole page would
                # show it in the middle.
                phone = width < 640 and "/judge/" in url
                keep(watched, f"{name}-{width}-{scheme}", full=full and not phone)

    return act


def keep(page, name, *, full=True):
    if full:  # what sticks to an edge belongs there
        page.evaluate("scrollTo(0, 0)")
    path = Path(SHOTS) / f"{name}.png"
    page.screenshot(path=path, full_page=full)
    try:
        from PIL import Image
    except ImportError:
        return
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


@pytest.fixture
def ask(project):
    """ask(preset, …): an open batch under the preset, its comparisons about basil or locks."""

    def act(
        preset, n=2, name="Balcony plants", question=QUESTION, answers=ANSWERS, how_many=3, **more
    ):
        chosen = PRESETS[preset]
        project.interface = chosen.interface
        project.axes = [dict(axis) for axis in chosen.axes] or project.axes
        project.protocol = chosen.protocol.as_json() | more
        project.save()
        batch = BatchFactory(
            project=project, name=name, interface=project.interface, protocol=project.protocol
        )
        for number in range(how_many):
            words = question if number == 0 else f"{question} ({number + 1})"
            prompt = PromptFactory(project=project, messages=[{"role": "user", "content": words}])
            comparison = ComparisonFactory(batch=batch, prompt=prompt, responses=0)
            for text in answers[:n]:
                ResponseFactory(comparison=comparison, text=text, source="policy a1")
        first = batch.comparisons.order_by("pk").first()
        first.priority = 1
        first.save()
        return batch

    return act


def press(*keys):
    def act(page):
        for key in keys:
            page.keyboard.press(key)
        page.wait_for_timeout(250)

    return act


INTERFACES = {
    "judge": ("rank", 4, {}, "acbd"),
    "interface-top-k": ("rank", 4, {"unranked": "below"}, "ac"),
    "interface-instructgpt": ("instructgpt", 4, {}, ""),
    "interface-pair": ("pair", 2, {}, ""),
    "interface-llama2": ("llama2", 2, {}, ""),
    "interface-helpsteer": ("helpsteer", 2, {}, ""),
    "interface-rate": ("rate", 2, {}, ""),
    "interface-demonstrate": ("demonstrate", 0, {}, ""),
    "interface-rewrite": ("rewrite", 2, {}, ""),
}


@pytest.mark.parametrize("name", INTERFACES)
def test_interfaces(shoot, live_server, sign_in, ada, ask, name):
    preset, n, more, keys = INTERFACES[name]
    ask(preset, n, **more)
    sign_in(ada)

    def fill(page):
        press(*keys)(page)
        if preset == "demonstrate":
            page.locator("[name=rewrite]").fill(ANSWERS[0].split("\n\n")[0])
        elif preset == "rewrite":
            page.locator(f"[name=based_on][value={letter_of(page, ANSWERS[1])}]").check(force=True)
            page.locator("[name=rewrite]").fill(
                "Water it less often, once a day in the morning, and give it fertiliser once a month."
            )
        elif preset in ("pair", "llama2", "helpsteer"):
            page.locator("[name^=pair-]").nth(1).check(force=True)
        page.wait_for_timeout(300)
        page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")

    shoot(name, f"{live_server.url}/projects/apollo/judge/", fill)


def letter_of(page, text):
    """Under which letter a response is shown: the order is drawn for each person."""
    return page.locator(".response", has_text=text[:20]).get_attribute("data-letter")


def test_safe_rlhf(shoot, live_server, sign_in, ada, ask):
    ask("safe-rlhf", question=RISKY, answers=RISKY_ANSWERS, name="Locks")
    sign_in(ada)

    def fill(page):
        good, bad = (letter_of(page, text) for text in RISKY_ANSWERS)
        page.locator(f"[name=safe-{good}][value=yes]").check(force=True)
        page.locator(f"[name=safe-{bad}][value=no]").check(force=True)
        page.locator(f"[name=harms-{bad}][value=financial_crime]").check(force=True)
        for axis in ("helpfulness", "safety"):
            page.locator(f"[name=pair-{axis}][value={good}1]").check(force=True)

    shoot("interface-safe-rlhf", f"{live_server.url}/projects/apollo/judge/", fill)


def test_hands_and_eyes(shoot, watched, context, live_server, sign_in, project, ada, ask):
    project.guidelines = (
        "Prefer the answer that **does what was asked** and harms nobody.\n\n"
        "1. Wrong facts outweigh style.\n2. Where two are equally good, say so: a tie is an answer."
    )
    project.save()
    ask("rank", 4)
    sign_in(ada)
    url = f"{live_server.url}/projects/apollo/judge/"
    shoot("hands-shortcuts", url, press("?"), full=False)
    shoot("hands-guidelines", url, press("g"), full=False)
    shoot("hands-word-diff", url, press("p"), full=False)

    def offline(page):
        press("a", "c")(page)
        context.set_offline(True)
        press("b", "d", "0", "Enter")(page)
        page.locator("#offline").wait_for()
        page.wait_for_timeout(500)
        context.set_offline(False)

    shoot("hands-offline", url, offline, looks=LOOKS[:1] + LOOKS[3:], full=False)
    # 400 % of a window of 1280 by 1024: what WCAG 1.4.10 asks for.
    assert_sound(watched, "light", 320, url)
    watched.set_viewport_size({"width": 320, "height": 256})
    keep(watched, "hands-zoom-400", full=False)


def test_an_answer_that_the_server_does_not_know(shoot, live_server, sign_in, project, ada, ask):
    ask("rank", 4, how_many=9)
    sign_in(ada)
    url = f"{live_server.url}/projects/apollo/judge/"

    def lose(page):
        page.wait_for_timeout(300)
        next_assignment(ada, project).delete()
        press("a", "c", "b", "d", "0", "Enter")(page)
        page.locator("#foreign").wait_for()
        page.evaluate("scrollTo(0, 0); localStorage.clear()")

    shoot("hands-foreign", url, lose, looks=LOOKS[:1] + LOOKS[3:], full=False)


def test_dialogue(shoot, live_server, sign_in, project, ada, grace):
    parrots = Parrots(
        (
            "Boil water with two spoons of citric acid in it and let it stand for half an hour.",
            "Scratch it off with a knife; that is the quickest.",
        )
    )
    with answering(parrots):
        campaign = new_campaign(project, grace, task="Ask about *things in a kitchen*.")
        talk = dialogues.begin(ada, campaign, acknowledged=True)
        turn = dialogues.say(talk, "How do I get lime out of a kettle?", key=uuid.uuid4().hex)
        expect_ready(turn)
        sign_in(ada)
        shoot("dialogue", live_server.url + reverse("dialogue", args=["apollo", talk.uid]))
        sign_in(grace)
        policy = Checkpoint.objects.create(project=project, kind="policy", name="round 3", path="x")
        start_serving(policy, grace)
        shoot("campaigns", live_server.url + reverse("campaigns", args=["apollo"]))


def test_a_dialogue_as_llama2_has_it(shoot, live_server, sign_in, project, ada, grace):
    chosen = PRESETS["llama2-dialogue"]
    project.interface, project.axes = chosen.interface, [dict(axis) for axis in chosen.axes]
    project.protocol = chosen.protocol.as_json() | {"reason": "required", "reason_min": 20}
    project.save()
    with answering(Parrots(tuple(RISKY_ANSWERS))):
        talk = dialogues.begin(ada, new_campaign(project, grace, name="Locks"))
        expect_ready(dialogues.say(talk, RISKY, key=uuid.uuid4().hex))
        sign_in(ada)

        def fill(page):
            page.evaluate("localStorage.clear()")
            good, bad = (letter_of(page, text) for text in RISKY_ANSWERS)
            page.locator(f"[name=safe-{good}][value=yes]").check(force=True)
            page.locator(f"[name=safe-{bad}][value=no]").check(force=True)
            page.locator(f"[name=pair-helpfulness][value={good}3]").check(force=True)
            page.locator("[name=reason]").fill("It helps whoever lives there, and no one else.")
            page.evaluate("document.activeElement.blur()")

        here = reverse("dialogue", args=["apollo", talk.uid])
        shoot("dialogue-llama2", live_server.url + here, fill)


@pytest.fixture
def worked(project, ask, ada, ben):
    """Six people have judged: most see the same order with a slip now and then, one doesn't read."""
    batch = ask("rank", 4, how_many=30)
    batch.comparisons.update(needed=3)
    names = ("cleo", "dan", "eve", "fay")
    people = [ada, ben, *(member(project, name, "annotator") for name in names)]
    best_first = [ANSWERS[0], ANSWERS[2], ANSWERS[3], ANSWERS[1]]
    chance = random.Random(4)
    for who in people * 13:
        assignment = next_assignment(who, project)
        texts = {r.pk: r.text for r in assignment.comparison.responses.all()}
        order = sorted(texts, key=lambda pk: best_first.index(texts[pk]) + chance.gauss(0, 0.7))
        if who.username == "fay":
            order = assignment.shown_order
        ranks = {str(pk): place for place, pk in enumerate(order, start=1)}
        seconds = 3.0 if who.username == "fay" else chance.uniform(15, 60)
        said = Answer(ranks=dict.fromkeys(project.axis_keys, ranks), seconds=seconds)
        submit_judgment(assignment, by=who, answer=said, key=uuid.uuid4())
    return batch


def test_quality(shoot, live_server, sign_in, project, grace, vera, ada, worked):
    sign_in(grace)
    root = live_server.url + "/projects/apollo/"
    free = worked.comparisons.filter(is_free=True)
    score_comparisons(
        worked, {c.pk: 0.1 * n for n, c in enumerate(free)}, by="round 2 reward model"
    )
    shoot("project", root)
    shoot("quality", root + "quality/")
    shoot("quality-person", root + f"quality/people/{ada.pk}/")
    shoot("quality-gold", root + "quality/gold/")
    sign_in(vera)
    shoot("review-queue", root + "review/")
    review.update_queue(project)
    shoot("review-case", root + f"review/{review.queue(project, vera).first().uid}/")
    sign_in(ada)
    shoot("my-progress", root + "progress/")
    shoot("history", root + "judge/history/")


def test_quality_of_ratings(shoot, live_server, sign_in, project, grace, ada, ben, ask):
    """Five people mark and vote; one gives everything the same mark."""
    batch = ask("rate", 2, how_many=24)
    batch.comparisons.update(needed=5)
    people = [ada, ben, *(member(project, name, "annotator") for name in ("cleo", "dan", "eve"))]
    chance = random.Random(7)
    for who in people:
        while assignment := next_assignment(who, project):
            number = assignment.comparison_id
            marks = {
                str(pk): 4
                if who.username == "eve"
                else max(1, min(7, 1 + (number * 5 + pk * 3) % 7 + round(chance.gauss(0, 0.6))))
                for pk in assignment.shown_order
            }
            said = Answer(
                ratings={pk: {"quality": mark} for pk, mark in marks.items()},
                safety={
                    pk: {"safe": mark > 2, "harms": [] if mark > 2 else ["privacy"]}
                    for pk, mark in marks.items()
                },
                seconds=chance.uniform(15, 60),
            )
            submit_judgment(assignment, by=who, answer=said, key=uuid.uuid4())
    row = {"prompt": QUESTION, "responses": ANSWERS[:2], "marks": {"quality": [6, 2]}}
    add_gold_items(project, [{**row, "safe": [True, True]}], grace)
    sign_in(grace)
    root = live_server.url + "/projects/apollo/"
    shoot("quality-rate", root + "quality/")
    shoot("quality-person-rate", root + f"quality/people/{ada.pk}/")
    shoot("quality-gold-rate", root + "quality/gold/")
    sign_in(ada)
    shoot("my-progress-rate", root + "progress/")


FIVE = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
DISPUTED = {
    "helpsteer": [
        {
            "ratings": {"A": dict.fromkeys(FIVE, a), "B": dict.fromkeys(FIVE, b)},
            "ranks": {"overall": {"A": 1 + (a < b), "B": 1 + (b < a)}},
            "strength": {"overall": 2},
            "reason": why,
        }
        for a, b, why in (
            (4, 1, "A finds the cause; B would drown the plant."),
            (0, 3, "B is short and clear, A has a table nobody needs."),
        )
    ],
    "demonstrate": [{"rewrite": ANSWERS[0]}, {"rewrite": ANSWERS[2]}],
}


@pytest.mark.parametrize("preset", DISPUTED)
def test_review_of_other_answers(shoot, live_server, sign_in, project, vera, ask, preset):
    batch = ask(preset, 0 if preset == "demonstrate" else 2, how_many=1)
    comparison = batch.comparisons.get()
    comparison.needed = 2
    comparison.save()
    for answer in DISPUTED[preset]:
        who = UserFactory()
        member(project, who.username, "annotator")
        assignment = next_assignment(who, project)
        assignment.shown_order = sorted(assignment.shown_order)
        assignment.save()
        given = Answer.from_letters(assignment, answer)
        submit_judgment(assignment, by=who, answer=given, key=uuid.uuid4())
    case = review.ask_for_review(comparison, vera)
    sign_in(vera)
    url = live_server.url + reverse("review_case", args=["apollo", case.uid])
    shoot(f"review-case-{preset}", url, press("m"))
