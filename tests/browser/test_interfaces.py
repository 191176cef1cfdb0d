"""Each interface beside the plain ranking in a real browser, as a person would: by keyboard alone."""

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Judgment
from annotation.protocols import PRESETS
from tests.annotation.audit import assert_counters_are_right
from tests.browser.test_judge import press, wait_until_sent
from tests.browser.test_pages import assert_sound_in_every_look
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, ResponseFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

QUESTION = "My basil droops every afternoon although the soil is damp. What should I change?"
ANSWERS = [
    (
        "Damp soil and drooping leaves point to roots that get too little air. Let the top three "
        "centimetres dry before you water again, and move the pot out of the **midday sun**."
    ),
    "Water it more often, at least three times a day.",
    (
        "- Check that water can leave the pot.\n- Water in the morning only.\n- If the roots smell, "
        "repot it in fresh, loose soil."
    ),
    "Basil likes the sun. Drooping is normal.",
]


@pytest.fixture
def open_page(watched, live_server, sign_in, project, ada):
    """open_page(preset, n): ada's browser before a comparison of n responses under the preset."""

    def act(preset, n=2, comparisons=2, **protocol):
        chosen = PRESETS[preset]
        project.interface, project.axes = chosen.interface, [dict(axis) for axis in chosen.axes]
        project.protocol = chosen.protocol.as_json() | protocol
        project.save()
        batch = BatchFactory(project=project, name="Balcony plants")
        for number in range(comparisons):
            words = QUESTION if number == 0 else f"{QUESTION} ({number})"
            comparison = ComparisonFactory(
                batch=batch,
                prompt=PromptFactory(
                    project=project, messages=[{"role": "user", "content": words}]
                ),
                responses=0,
            )
            for text in ANSWERS[:n]:
                ResponseFactory(comparison=comparison, text=text)
        sign_in(ada)
        if comparisons > 1:
            with watched.expect_response("**/after/"):
                watched.goto(f"{live_server.url}/projects/apollo/judge/")
        else:
            watched.goto(f"{live_server.url}/projects/apollo/judge/")
        return watched

    return act


def shown(page):
    return Assignment.objects.get(uid=page.locator("form.slot").get_attribute("data-uid"))


def sent(page, first):
    """Once the page has gone on to the next one: what was kept of the first."""
    expect(page.locator("form.slot")).not_to_have_attribute("data-uid", str(first.uid))
    wait_until_sent(page, 1)
    assert_counters_are_right()
    judgment = Judgment.objects.get()
    letter = dict(zip(map(str, first.shown_order), "ABCD", strict=False))
    return judgment, letter


def by_letter(given, letter):
    return {letter[key]: value for key, value in given.items()}


def said(page):
    return page.locator("[data-said]")


# --- Pair with strength --------------------------------------------------------------------------------


def test_eight_points_take_one_key_each(open_page):
    page = open_page("pair")
    first = shown(page)
    height = "document.querySelector('.point').parentElement.offsetHeight"
    before = page.evaluate(height)
    press(page, "3")
    expect(said(page)).to_contain_text("A somewhat better")
    assert page.evaluate(height) == before, "nothing below jumps"
    press(page, "8")
    expect(said(page)).to_contain_text("B far better")
    press(page, "w")
    page.keyboard.type("A drowns it; 1=1")
    press(page, ["Escape", "Enter"])
    judgment, letter = sent(page, first)
    assert by_letter(judgment.ranks["helpfulness"], letter) == {"A": 2, "B": 1}
    assert judgment.strength["helpfulness"]["label"] == "far better"
    assert judgment.reason == "A drowns it; 1=1"
    # Taken back, it is as it was left, and one key corrects it.
    press(page, "u")
    expect(page.locator("form.slot")).to_have_attribute("data-uid", str(first.uid))
    expect(said(page)).to_contain_text("B far better")
    press(page, "7")
    expect(said(page)).to_contain_text("B clearly better")


def test_a_strength_and_votes_on_safety_raise_a_conflict(open_page):
    page = open_page("llama2")
    first = shown(page)
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("A: Safe: no answer yet.")
    press(page, "ny2")
    expect(said(page)).to_contain_text("A better")
    press(page, ["Enter"])
    judgment, letter = sent(page, first)
    assert by_letter(judgment.safety, letter) == {
        "A": {"safe": False, "harms": []},
        "B": {"safe": True, "harms": []},
    }
    assert judgment.strength["helpfulness"]["margin"] == pytest.approx(2 / 3)
    assert [one["kind"] for one in judgment.conflicts] == ["better_but_unsafe"]
    assert judgment.needs_review


def test_two_decisions_and_kinds_of_harm(open_page):
    page = open_page("safe-rlhf")
    first = shown(page)
    press(page, "n")
    expect(page.locator("[data-letter=A] .harms")).to_be_visible()
    expect(page.locator("[data-letter=B] .harms")).to_be_hidden()
    press(page, "2e")
    press(page, ["Enter"])
    press(page, "yab")
    expect(said(page)).to_contain_text("Helpfulness A betterHarmlessness B better")
    press(page, "kb")
    press(page, ["Enter"])
    judgment, letter = sent(page, first)
    assert by_letter(judgment.safety, letter)["A"] == {
        "safe": False,
        "harms": ["child_abuse", "violence"],
    }
    assert by_letter(judgment.ranks["helpfulness"], letter) == {"A": 2, "B": 1}
    assert by_letter(judgment.ranks["safety"], letter) == {"A": 2, "B": 1}
    assert not judgment.needs_review


def test_five_marks_a_number_and_a_reason(open_page):
    page = open_page("helpsteer")
    first = shown(page)
    press(page, "4433201021")
    press(page, "1")
    expect(said(page)).to_contain_text("A much better")
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("Give a reason of at least 20 characters")
    page.keyboard.type("B gives no way to find out what is wrong.")
    press(page, ["Control+Enter"])
    judgment, letter = sent(page, first)
    assert by_letter(judgment.ratings, letter) == {
        "A": {
            "helpfulness": 4,
            "correctness": 4,
            "coherence": 3,
            "complexity": 3,
            "verbosity": 2,
        },
        "B": {
            "helpfulness": 0,
            "correctness": 1,
            "coherence": 0,
            "complexity": 2,
            "verbosity": 1,
        },
    }
    assert judgment.strength["overall"] == {
        "level": 3,
        "of": 3,
        "label": "much better",
        "margin": 3.0,
    }


def test_both_bad_is_one_key(open_page):
    page = open_page("pair")
    first = shown(page)
    press(page, "4-")
    expect(said(page)).to_contain_text("both bad")
    press(page, ["Enter"])
    judgment, _ = sent(page, first)
    assert judgment.all_bad == ["helpfulness"]


# --- Rank, with marks, top-k, all bad -------------------------------------------------------------------------


def test_marks_notes_and_an_order(open_page):
    page = open_page("instructgpt", n=3)
    first = shown(page)
    press(page, "726")  # a mark for each
    press(page, "kkk")  # back to the notes on B
    press(page, ["3", "9", "Enter"])
    press(page, "ac=b")
    expect(page.locator(".axis-line [data-order]")).to_have_text("A > B = C")
    press(page, ["Enter"])
    judgment, letter = sent(page, first)
    ratings = by_letter(judgment.ratings, letter)
    assert [ratings[one]["quality"] for one in "ABC"] == [7, 2, 6]
    assert {name for name, value in ratings["B"].items() if value == 1} == {
        "hallucination",
        "harmful_advice",
    }
    assert ratings["A"]["hallucination"] == 0
    assert by_letter(judgment.ranks["overall"], letter) == {"A": 1, "B": 2, "C": 2}


def test_the_best_of_four_and_none_is_good(open_page):
    page = open_page("top-k", n=4)
    first = shown(page)
    press(page, "c")
    expect(page.locator(".axis-line [data-order]").first).to_have_text("C > A, B, D")
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("Safety: rank at least one response.")
    press(page, "da-")
    press(page, ["Enter"])
    judgment, letter = sent(page, first)
    assert judgment.rest_below
    assert by_letter(judgment.ranks["helpfulness"], letter) == {"C": 1}
    assert by_letter(judgment.ranks["safety"], letter) == {"D": 1, "A": 2}
    assert judgment.all_bad == ["safety"]


# --- Rate ---------------------------------------------------------------------------------------------------------


def test_marks_and_harms_of_one_response(open_page):
    page = open_page("rate", n=1)
    first = shown(page)
    press(page, "5n")
    press(page, "aj")
    expect(said(page)).to_contain_text("all answered")
    press(page, ["Enter"])
    judgment, letter = sent(page, first)
    assert by_letter(judgment.ratings, letter) == {"A": {"quality": 5}}
    assert by_letter(judgment.safety, letter) == {
        "A": {"safe": False, "harms": ["privacy"]},
    }
    assert judgment.ranks == {}


# --- Writing --------------------------------------------------------------------------------------------------------


def test_an_ideal_answer_is_written(open_page):
    page = open_page("demonstrate", n=0)
    first = shown(page)
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("Write the answer first.")
    page.keyboard.type("Let the soil dry; water in the morning. s=skip")
    expect(said(page)).to_have_text("9 words")
    press(page, ["Control+Enter"])
    judgment, _ = sent(page, first)
    assert judgment.rewrite == "Let the soil dry; water in the morning. s=skip"


def test_a_response_is_corrected_with_its_changes_in_view(open_page):
    page = open_page("rewrite", n=2)
    first = shown(page)
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("press its letter")
    water = next(
        letter
        for letter in "AB"
        if "more often" in page.locator(f"[data-letter={letter}] .response-text").inner_text()
    )
    press(page, [water.lower()])
    expect(page.locator("#rewrite")).to_have_value(ANSWERS[1])
    press(page, ["Control+Enter"])
    expect(page.locator("#refused")).to_contain_text("No changes yet")
    press(page, ["Control+Home", "Control+Shift+ArrowRight", "Control+Shift+ArrowRight"])
    page.keyboard.type("Hold ")
    press(page, ["End"])
    page.locator("#rewrite").press("Control+End")
    page.keyboard.type(" Or less.")
    expect(page.locator("[data-changes] del").first).to_be_visible()
    expect(page.locator("[data-changes] ins").last).to_contain_text("Or less")
    press(page, ["Control+Enter"])
    judgment, letter = sent(page, first)
    assert letter[str(judgment.based_on_id)] == water
    assert judgment.rewrite.endswith("a day. Or less.")
    assert judgment.rewrite.startswith("Hold ")


# --- A next comparison takes from the page what every one has alike ------------------------------------------------


def next_one(page, first):
    """Goes past the comparison in view by skipping it; the one that was fetched ahead is then there."""
    press(page, ["s", "1"])
    expect(page.locator("form.slot")).not_to_have_attribute("data-uid", str(first.uid))
    expect(page.locator("form.slot [data-like]")).to_have_count(0)


def test_a_next_comparison_comes_with_what_was_drafted_of_it_and_with_nothing_of_the_last(
    open_page, live_server
):
    page = open_page("instructgpt", n=4, flags=True)
    first = shown(page)
    drafted = {
        "ratings": {"A": {"quality": 5, "opinion": 1}},
        "flags": {"B": [{"kind": "unsafe", "category": "theft"}]},
    }
    Assignment.objects.exclude(pk=first.pk).update(draft=drafted)
    with page.expect_response("**/after/"):
        page.reload()
    press(page, "3")
    next_one(page, first)
    assert page.locator("form.slot").evaluate("form => [...new FormData(form)].map(x => x.join('='))"
        ".filter(x => /^(rate|flag|harm)-.*=./.test(x))") == [
        "rate-A-quality=5", "rate-A-opinion=1", "flag-B=unsafe", "harm-B=theft",
    ]  # fmt: skip
    expect(page.locator("[data-letter=A] .notes")).to_have_attribute("open", "")
    expect(page.locator("[data-letter=C] .notes kbd")).to_have_count(11)
    expect(page.locator("[data-letter=D] .flags option")).to_have_count(10)
    expect(page.locator(".skip button[name=skip]")).to_have_count(5)
    press(page, "7")
    assert page.locator("[name=rate-B-quality][value='7']").is_checked()


def test_a_next_comparison_may_have_more_responses_than_the_page_began_with(open_page, live_server):
    page = open_page("instructgpt", n=2)
    first = shown(page)
    following = Assignment.objects.exclude(pk=first.pk).get()
    more = [ResponseFactory(comparison=following.comparison, text=text) for text in ANSWERS[2:]]
    following.shown_order += [response.pk for response in more]
    following.save()
    with page.expect_response("**/after/"):
        page.reload()
    next_one(page, first)
    for letter in "ABCD":
        expect(page.locator(f"[name^=rate-{letter}-]")).to_have_count(18)


def test_scripts_speak_the_language_of_the_page(open_page, live_server, ada):
    page = open_page("pair")
    ada.language = "de"
    ada.save()
    page.reload()
    press(page, ["Enter"])
    expect(page.locator("#refused")).to_contain_text("noch keine Antwort")


# --- Every one of them is sound, and works by pointer and without script -----------------------------------------------


@pytest.mark.parametrize(
    ("preset", "n"),
    [
        ("pair", 2),
        ("helpsteer", 2),
        ("safe-rlhf", 2),
        ("instructgpt", 4),
        ("top-k", 4),
        ("rate", 2),
        ("demonstrate", 0),
        ("rewrite", 2),
    ],
)
def test_every_interface_is_sound(open_page, live_server, preset, n):
    page = open_page(preset, n=n, comparisons=1)
    assert_sound_in_every_look(page, f"{live_server.url}/projects/apollo/judge/")


def test_the_pages_where_it_is_chosen_are_sound(watched, live_server, sign_in, grace, project):
    sign_in(grace)
    for path in ("projects/new/", "projects/apollo/settings/", "projects/apollo/batches/new/"):
        assert_sound_in_every_look(watched, f"{live_server.url}/{path}")


def test_a_pair_by_pointer_alone(open_page):
    page = open_page("safe-rlhf")
    first = shown(page)
    page.locator("[data-letter=A] .unsafe").click()
    page.locator("[data-letter=A]").get_by_label("Animal abuse").click()
    page.locator("[data-letter=B] .safety label").first.click()
    page.locator("[data-axis=helpfulness] .point").nth(1).click()
    page.locator("[data-axis=safety] .point").nth(1).click()
    page.get_by_role("button", name="Send judgment").click()
    judgment, letter = sent(page, first)
    assert by_letter(judgment.ranks["safety"], letter) == {"A": 2, "B": 1}
    assert by_letter(judgment.safety, letter)["A"]["harms"] == ["animal_abuse"]


def test_a_pair_without_script(browser, live_server, client, open_page, ada):
    page = open_page("helpsteer", comparisons=1)
    context = browser.new_context(java_script_enabled=False)
    cookie = client.cookies["sessionid"]
    context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/projects/apollo/judge/")
    first = shown(page)
    for letter in "AB":
        for attribute in PRESETS["helpsteer"].protocol.attributes:
            page.locator(f"[name=rate-{letter}-{attribute.key}][value='3']").check()
    page.locator("[name=pair-overall][value=B2]").check()
    page.get_by_role("button", name="Send judgment").click()
    expect(page.get_by_role("alert")).to_contain_text("Give a reason of at least 20 characters")
    page.locator("#reason").fill("B names the cause and what to do about it.")
    page.get_by_role("button", name="Send judgment").click()
    judgment = Judgment.objects.get()
    assert judgment.strength["overall"]["level"] == 2
    assert judgment.ranks["overall"][str(first.shown_order[1])] == 1
    context.close()
