"""What makes hours of reading bearable, in a real browser: seeing what differs, at any size, in any

script, with guidelines, history, language, breaks and warnings a key away.
"""

import random

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Judgment
from annotation.projects.guidelines import change_guidelines
from annotation.protocols import DIALOGUE, PRESETS, RESPONSES
from tests.browser.test_judge import line, press, shown, wait_until_sent
from tests.browser.test_pages import WIDTHS, assert_sound_in_the_dark, barriers
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, ResponseFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

State = Assignment.State

TABLE = "| plant | water | light | soil | pot | food | repot |\n|---|---|---|---|---|---|---|\n" + (
    "| fern | often | shade | peat | small | little | yearly |\n" * 3
)
CODE = "```\nwater(fern, spoons=2, when='morning', temperature='lukewarm', notes='never on leaves')\n```"


@pytest.fixture
def apollo(live_server):
    return f"{live_server.url}/projects/apollo/"


def compared(project, *texts, **prompt):
    """One comparison of the given texts, in an open batch."""
    batch = BatchFactory(project=project, name="Round 1")
    comparison = ComparisonFactory(
        batch=batch, responses=0, prompt=PromptFactory(project=project, **prompt)
    )
    for text in texts:
        ResponseFactory(comparison=comparison, text=text)
    return comparison


def assert_calm(page, where, within="html"):
    """No serious barrier, nothing refused by the policy, no sideways scrolling."""
    assert barriers(page, within=within) == [], where
    assert page.evaluate("window.refused") == [], where
    wide, seen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide <= seen, f"{where} scrolls sideways: {wide} > {seen}"


# --- Word comparison -----------------------------------------------------------------------------------


def test_one_key_shows_which_words_differ(watched, apollo, sign_in, project, ada):
    compared(
        project,
        "Give the fern *two* spoons of water each morning.",
        "Give the fern *three* spoons of cold water each morning.",
    )
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    two = watched.locator(".response", has_text="two").get_attribute("data-letter")
    three = watched.locator(".response", has_text="three").get_attribute("data-letter")
    press(watched, [two.lower(), three.lower(), "p"])
    dialog = watched.locator("#compare")
    expect(dialog).to_be_visible()
    expect(dialog.locator(".compared del")).to_have_text(["two"])
    expect(dialog.locator(".compared ins")).to_have_text(["three", "cold"])
    expect(dialog.locator("#compare-summary")).to_have_text(
        f"9 words in common, 1 only in {two}, 2 only in {three}"
    )
    assert dialog.locator("em del").count() == 1, "what the text looks like stays as it is"
    for tag in ("del", "ins"):
        shape = dialog.locator(f".compared {tag}").first.evaluate("e => getComputedStyle(e)")
        assert shape["textDecorationLine"] == "underline", "not by colour alone"
    lines = [
        dialog.locator(f".compared {tag}").first.evaluate(
            "e => getComputedStyle(e).textDecorationStyle"
        )
        for tag in ("del", "ins")
    ]
    assert lines == ["dotted", "solid"]
    press(watched, ["p"])
    expect(dialog).to_be_hidden()
    expect(line(watched)).to_have_text(f"{two} > {three}"), "looking changed nothing"


def test_letters_choose_which_two_of_many_are_compared(watched, apollo, sign_in, project, ada):
    compared(project, *(f"Answer number {n} says much the same." for n in "1234"))
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    press(watched, "p")
    left, right = watched.locator("#compare select").all()
    assert (left.input_value(), right.input_value()) == ("A", "B")
    press(watched, "d")
    assert (left.input_value(), right.input_value()) == ("A", "D")
    press(watched, "c")
    assert (left.input_value(), right.input_value()) == ("C", "D")
    expect(watched.locator("#compare ins")).to_have_count(2)  # the key, and one word
    right.select_option("C")
    expect(watched.locator("#compare-summary")).to_have_text("Identical")
    assert not shown(watched).draft, "letters in here rank nothing"


def test_the_words_in_common_are_the_longest_subsequence_and_a_megabyte_is_quick(
    watched, apollo, sign_in, project, ada
):
    compared(project, "one", "two")
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    rng = random.Random(7)
    for _ in range(30):
        a, b = (
            [rng.choice(["fern", "pot", "sun", "dew", "moss"]) for _ in range(rng.randint(0, 14))]
            for _ in range(2)
        )
        in_a, in_b = watched.evaluate(
            "async ([a, b]) => (await import('/static/js/judge/word_diff.js')).common(a, b).map(x => [...x])",
            [a, b],
        )
        kept = [word for word, keep in zip(a, in_a, strict=True) if keep]
        assert kept == [word for word, keep in zip(b, in_b, strict=True) if keep]
        assert len(kept) == longest_common(a, b)

    def megabyte(changed):
        """Milliseconds for 150,000 words, and how many of them both texts have."""
        return watched.evaluate(
            """async (changed) => {
                const { common } = await import('/static/js/judge/word_diff.js');
                const a = Array.from({ length: 150000 }, (_, n) => `w${n * 7919 % 90001}`);
                const b = a.filter((_, n) => n % changed).concat(Array(300).fill('again'));
                const began = performance.now();
                const [inA] = common(a, b);
                return [performance.now() - began, inA.reduce((sum, isShared) => sum + isShared, 0)];
            }""",
            changed,
        )

    took, kept = megabyte(changed=1500)
    assert took < 2000, f"{took:.0f} ms for 150,000 words"
    assert kept == 149_900
    # Where ten thousand words changed, nobody waits for the comparison: all counts as different.
    took, kept = megabyte(changed=11)
    assert took < 2000, f"{took:.0f} ms for 150,000 words"
    assert kept == 0


def longest_common(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        above = row[:]
        for j, y in enumerate(b, start=1):
            row[j] = above[j - 1] + 1 if x == y else max(above[j], row[j - 1])
    return row[-1]


# --- Long, wide, right to left, large ---------------------------------------------------------------


def test_long_answers_scroll_by_themselves_at_equal_heights(watched, apollo, sign_in, project, ada):
    compared(project, "short", "word " * 2000, f"{CODE}\n\n{TABLE}")
    sign_in(ada)
    watched.set_viewport_size({"width": 1280, "height": 900})
    watched.goto(f"{apollo}judge/")
    boxes = [box.bounding_box() for box in watched.locator(".response").all()]
    assert len({(round(box["y"]), round(box["height"])) for box in boxes}) == 1
    long = watched.locator(".response-text", has_text="word word")
    assert long.evaluate("e => e.scrollHeight > e.clientHeight + 100")
    long.focus()
    press(watched, ["PageDown"])
    watched.wait_for_function(
        "() => [...document.querySelectorAll('.response-text')].some(e => e.scrollTop > 50)"
    )
    assert watched.evaluate("scrollY") == 0, "the page stays where it is"


def test_every_block_finds_its_own_direction(watched, apollo, sign_in, project, ada):
    compared(
        project,
        "שלום, מה שלומך?\n\nLatin follows.\n\n- פריט ראשון",
        "plain",
        messages=[{"role": "user", "content": "مرحبا كيف حالك"}],
    )
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    ways = watched.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll('.conversation p, .response-text p, .response-text li')]
            .map(e => [e.textContent.trim().slice(0, 5), getComputedStyle(e).direction]))"""
    )
    assert ways == {"مرحبا": "rtl", "שלום,": "rtl", "Latin": "ltr", "פריט ": "rtl", "plain": "ltr"}


def test_a_list_from_right_to_left_keeps_room_for_its_numbers(
    watched, apollo, sign_in, project, ada
):
    compared(project, "1. מים פושרים\n2. לא בצהריים", "1. one\n2. two")
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    room = watched.locator(".response-text li:first-child").evaluate_all(
        """all => all.map(e => {
            const item = e.getBoundingClientRect();
            const text = e.closest(".response-text").getBoundingClientRect();
            return [getComputedStyle(e).direction, item.left - text.left > 9, text.right - item.right > 9];
        })"""
    )
    assert sorted(room) == [["ltr", True, False], ["rtl", False, True]]


def test_what_is_chosen_shows_in_a_persons_own_colours(watched, apollo, sign_in, project, ada):
    compared(project, "one", "two")
    sign_in(ada)
    watched.emulate_media(forced_colors="active")
    watched.goto(f"{apollo}judge/")
    press(watched, "a1")
    grounds = watched.locator("fieldset.rank.axis-helpfulness").first.evaluate(
        "rank => ['1', '2'].map(value => getComputedStyle("
        "rank.querySelector(`input[value='${value}'] + span`)).backgroundColor)"
    )
    assert grounds[0] != grounds[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_at_400_percent_nothing_is_lost(watched, apollo, sign_in, project, ada, scheme):
    """1280 px at 400 % are 320 CSS px (WCAG 1.4.10); only tables and code may scroll sideways."""
    compared(project, f"{CODE}\n\n{TABLE}", "Donaudampfschifffahrtsgesellschaft" * 4, "a", "b")
    sign_in(ada)
    watched.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    watched.set_viewport_size({"width": 320, "height": 256})
    watched.goto(f"{apollo}judge/")
    assert_calm(watched, "judge")
    code = watched.locator(".response-text pre")
    assert code.evaluate("e => e.scrollWidth <= e.clientWidth"), "code breaks its lines"
    table = watched.locator(".response-text table")
    table.scroll_into_view_if_needed()
    assert table.evaluate(
        "e => e.scrollWidth >= e.clientWidth && getComputedStyle(e).overflowX === 'auto'"
    )
    press(watched, "abcd0")
    expect(line(watched)).to_have_text("A > B > C > D")
    send = watched.locator("[data-send]")
    send.scroll_into_view_if_needed()
    box = send.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 320
    for key, dialog in (("p", "#compare"), ("?", "#keys"), ("g", "#guidelines")):
        press(watched, key)
        expect(watched.locator(dialog)).to_be_visible()
        assert_calm(watched, dialog)
        close = watched.locator(dialog).get_by_role("button", name="Close")
        close.scroll_into_view_if_needed()
        assert close.bounding_box()["x"] + close.bounding_box()["width"] <= 320
        press(watched, ["Escape"])
        expect(watched.locator(dialog)).to_be_hidden()
    press(watched, ["Enter"])
    wait_until_sent(watched, 1)
    watched.wait_for_selector("#judge-idle", state="attached")
    watched.goto(f"{apollo}judge/history/")
    assert_calm(watched, "history")


# --- Guidelines, history, language, breaks, warnings --------------------------------------------------


def test_changed_guidelines_are_shown_once_and_put_away_by_keyboard(
    watched, apollo, sign_in, project, ada, grace
):
    compared(project, "one", "two")
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    expect(watched.locator("#news")).to_have_count(0)
    change_guidelines(project, project.guidelines.replace("nobody", "no one"), by=grace)
    watched.reload()
    news = watched.locator("#news")
    expect(news).to_be_visible()
    expect(news.locator(".worddiff ins")).to_have_text("no one")
    expect(news.locator(".worddiff del")).to_have_text("nobody")
    assert_calm(watched, "news")
    press(watched, "ab")  # nothing behind it is ranked
    news.get_by_role("button", name="I have read it").focus()
    press(watched, ["Enter"])
    expect(watched.locator("#news")).to_have_count(0)
    expect(line(watched)).to_have_text("–")
    press(watched, "g")
    expect(watched.locator("#guidelines")).to_contain_text("version 2")
    press(watched, ["g"])
    press(watched, "ab0")
    press(watched, ["Enter"])
    wait_until_sent(watched, 1)
    assert Judgment.objects.get().guideline_version == 2
    watched.wait_for_selector("#judge-idle", state="attached")


def test_what_is_judged_before_the_news_is_seen_notes_the_guidelines_that_were_there(
    watched, apollo, sign_in, project, ada, grace
):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(4):
        ComparisonFactory(batch=batch, responses=2)
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{apollo}judge/")
    change_guidelines(project, "Prefer what is true.", by=grace)
    # The first was on the screen and the second fetched ahead when the words changed.
    with watched.expect_response("**/after/"):
        press(watched, [*"ab0", "Enter"])
    wait_until_sent(watched, 1)
    expect(watched.locator("#news")).to_have_count(0)
    press(watched, [*"ba0", "Enter"])
    # The third came with the new ones: a page that shows them is fetched, and nothing is lost.
    expect(watched.locator("#news")).to_be_visible()
    wait_until_sent(watched, 2)
    watched.get_by_role("button", name="I have read it").click()
    expect(watched.locator("#news")).to_have_count(0)
    with watched.expect_response("**/after/"):
        watched.reload()
    press(watched, [*"ab0", "Enter"])
    wait_until_sent(watched, 3)
    versions = Judgment.objects.order_by("pk").values_list("guideline_version", flat=True)
    assert list(versions) == [1, 1, 2]


def test_what_is_judged_offline_notes_the_guidelines_that_were_there(
    watched, apollo, context, sign_in, project, ada, grace
):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(3):
        ComparisonFactory(batch=batch, responses=2)
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{apollo}judge/")
    context.set_offline(True)
    press(watched, [*"ab0", "Enter"])
    expect(watched.locator("#offline")).to_contain_text("1 answer is saved here")
    change_guidelines(project, "Prefer what is true.", by=grace)
    press(watched, [*"ba0", "Enter"])
    expect(watched.locator("#offline")).to_contain_text("2 answers are saved here")
    context.set_offline(False)
    watched.evaluate("dispatchEvent(new Event('online'))")
    expect(watched.locator("#news")).to_be_visible()
    wait_until_sent(watched, 2)
    assert set(Judgment.objects.values_list("guideline_version", flat=True)) == {1}


def test_another_batch_gets_a_page_of_its_own(watched, apollo, sign_in, project, ada):
    compared(project, "one", "two")
    preset = PRESETS["rate"]
    other = BatchFactory(
        project=project, name="Ratings", interface="rate", protocol=preset.protocol.as_json()
    )
    ComparisonFactory(batch=other, responses=2)
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{apollo}judge/")
    press(watched, [*"ab0", "Enter"])
    expect(watched.locator("h1")).to_have_text("Ratings")
    expect(watched.locator("form.slot .vote").first).to_have_css("display", "grid")
    wait_until_sent(watched, 1)


def test_a_correction_shows_beside_what_was_said_before(watched, apollo, sign_in, project, ada):
    compared(project, "one", "two")
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    press(watched, "abr")
    press(watched, ["Enter"])
    wait_until_sent(watched, 1)
    # The page goes on by itself, and would go on from wherever one goes before it has.
    expect(watched.get_by_role("heading", name="All done")).to_be_visible()
    watched.goto(f"{apollo}judge/history/")
    watched.get_by_role("link", name="Correct").focus()
    press(watched, ["Enter"])
    watched.wait_for_selector("form.slot[data-correction]")
    press(watched, "b1")
    press(watched, "a2")
    press(watched, ["Enter"])
    watched.wait_for_url("**/history/")
    row = watched.locator("tbody tr")
    expect(row.locator(".order").first).to_have_text("B > A")
    row.locator(".former summary").focus()
    press(watched, ["Enter"])
    expect(row.locator(".former s").first).to_have_text("A > B")
    assert_calm(watched, "history")


def test_a_chosen_language_speaks_everywhere_even_in_what_scripts_say(
    watched, apollo, live_server, sign_in, project, ada, context
):
    compared(project, "eins", "zwei")
    sign_in(ada)
    watched.goto(f"{live_server.url}/account/preferences/")
    watched.get_by_label("Language").select_option("de")
    watched.get_by_role("button", name="Save").click()
    expect(watched.locator(".notice.success")).to_have_text("Gesichert.")
    watched.goto(f"{apollo}judge/")
    expect(watched.locator("html")).to_have_attribute("lang", "de")
    press(watched, ["Enter"])
    expect(watched.locator("#refused")).to_have_text(
        "Hilfreich: Geben Sie mindestens zwei Antworten einen Rang."
    )
    context.set_offline(True)
    expect(watched.locator("#offline")).to_have_text(
        "Sie sind offline. Ihre Arbeit ist in diesem Browser gesichert."
    )
    press(watched, "ab0")
    press(watched, ["Enter"])
    expect(watched.locator("#offline")).to_contain_text("1 Urteil ist hier gesichert")
    context.set_offline(False)
    wait_until_sent(watched, 1)
    watched.wait_for_selector("#judge-idle", state="attached")
    expect(watched.locator("h1")).to_have_text("Alles erledigt")


def test_a_break_is_suggested_gently_put_off_and_forgotten_after_a_break(
    watched, apollo, sign_in, project, ada
):
    ada.break_minutes = 30
    ada.save()
    compared(project, "one", "two")
    sign_in(ada)
    watched.clock.install()
    watched.goto(f"{apollo}judge/")
    reminder = watched.locator("#break")
    expect(watched.locator("#open-compare")).to_be_visible()  # What is loaded later has come.

    def work(minutes):
        for _ in range(minutes):
            watched.clock.run_for(60_000)
            press(watched, ["Escape"])

    work(29)
    expect(reminder).to_be_hidden()
    work(2)
    expect(reminder).to_contain_text("minutes. Take a short break.")
    press(watched, "ab")
    expect(line(watched)).to_have_text("A > B"), "it stands in nobody's way"
    reminder.get_by_role("button", name="Remind me in 10 minutes").click()
    expect(reminder).to_be_hidden()
    work(9)
    expect(reminder).to_be_hidden()
    work(2)
    expect(reminder).to_be_visible()
    watched.clock.run_for(6 * 60_000)  # away
    press(watched, ["Escape"])
    expect(reminder).to_be_hidden()
    work(20)
    expect(reminder).to_be_hidden()
    ada.break_minutes = 0
    ada.save()
    watched.reload()
    work(60)
    expect(reminder).to_be_hidden()


def test_harmful_material_is_uncovered_by_one_key_or_skipped_unread(
    watched, apollo, sign_in, project, ada
):
    compared(project, "I will not help.", "First, take", risk="harmful")
    compared(project, "fine", "well", risk="harmless")
    sign_in(ada)
    watched.goto(f"{apollo}judge/")
    texts = watched.locator(".conversation, .response-text")
    for _ in range(2):
        if watched.locator(".cover").count():
            break
        press(watched, "s1")
    expect(watched.locator(".cover")).to_be_visible()
    assert not any(one.is_visible() for one in texts.all())
    assert_calm(watched, "covered")
    press(watched, "ab")
    expect(line(watched)).to_have_text("–"), "what is covered can't be ranked by mistake"
    press(watched, "o")
    expect(texts.first).to_be_visible()
    expect(watched.locator(".cover")).to_be_hidden()
    press(watched, "ab0")
    press(watched, ["Enter"])
    wait_until_sent(watched, 1)
    watched.wait_for_load_state("networkidle")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_state_of_the_page_is_open_to_everybody(
    watched, apollo, live_server, sign_in, project, ada, grace, width
):
    """axe on what only opens by a key, in both languages and in the dark; targets of 24 px; focus not
    hidden."""

    def look(where, language, within="html"):
        assert_calm(watched, f"{where} {language}", within)
        if language == "en":  # colors speak every language
            assert_sound_in_the_dark(watched, where, within)

    compared(project, f"{CODE}\n\n{TABLE}", "Give it *two* spoons.", "word " * 800)
    watched.emulate_media(color_scheme="light", reduced_motion="reduce")
    watched.set_viewport_size({"width": width, "height": 900})
    sign_in(ada)
    for language in ("en", "de"):
        ada.language = language
        ada.save()
        watched.goto(f"{apollo}judge/")
        for key, dialog in (("?", "#keys"), ("g", "#guidelines"), ("p", "#compare")):
            press(watched, key)
            expect(watched.locator(dialog)).to_be_visible()
            look(dialog, language, within=dialog)
            press(watched, ["Escape"])
            expect(watched.locator(dialog)).to_be_hidden()
        press(watched, "s")
        expect(watched.locator(".menu-items").locator("visible=true")).to_have_count(1)
        look("skip menu", language, within=".menu-items")
        press(watched, ["Escape"])
        press(watched, "xa1")
        look("flags", language)
        for notice in ("offline", "lease", "refused", "break"):
            watched.evaluate("id => { document.getElementById(id).hidden = false; }", notice)
        look("banners", language)
        assert small_targets(watched) == [], language
        assert hidden_focus(watched) == [], language
        for path in ("guidelines/", "judge/history/"):
            watched.goto(apollo + path)
            look(path, language)
        watched.goto(f"{live_server.url}/account/preferences/")
        look("preferences", language)


@pytest.mark.parametrize("preset", [key for key, of in PRESETS.items() if of.interface != DIALOGUE])
def test_every_interface_has_large_targets_and_a_focus_that_is_seen(
    watched, apollo, sign_in, project, ada, preset
):
    chosen = PRESETS[preset]
    project.interface, project.protocol = chosen.interface, chosen.protocol.as_json()
    project.axes = [dict(axis) for axis in chosen.axes]
    project.save()
    texts = [f"Answer {n}: {'a little water now and then. ' * 12}" for n in range(4)]
    fewest, most = RESPONSES[chosen.interface]
    compared(project, *texts[: max(fewest, min(most, chosen.n_responses))])
    sign_in(ada)
    for width in WIDTHS:
        watched.set_viewport_size({"width": width, "height": 800})
        watched.goto(f"{apollo}judge/")
        expect(watched.locator(".conversation")).to_be_visible()
        assert_calm(watched, preset)
        # With every question that only appears after an answer: harms of what is unsafe, reasons.
        for opened in watched.locator("#slot details > summary").all():
            if opened.is_visible():
                opened.click()
                assert_calm(watched, f"{preset} {opened.inner_text()}", "#slot details")
                assert small_targets(watched) == [], preset
                if opened.is_visible():
                    opened.click()
        votes = watched.locator('#slot input[name^="safe-"][value="no"]').all()
        for vote in votes:
            vote.check(force=True)
        if votes:
            assert_calm(watched, f"{preset} unsafe")
        assert small_targets(watched) == [], preset
        assert hidden_focus(watched) == [], preset


def small_targets(page):
    """What can be pressed on the judging page and is under 24 px (WCAG 2.5.8); links in text may be."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main :is(button, summary, select, input, textarea, a.button)')]
            .filter(e => e.checkVisibility({ visibilityProperty: true }) && !e.closest('.visually-hidden, dialog'))
            .map(e => [e, (e.matches('[type=checkbox], [type=radio]') && e.closest('label') || e).getBoundingClientRect()])
            .filter(([e, r]) => r.width > 1 && (r.width < 23.5 || r.height < 23.5))
            .map(([e, r]) => `${e.outerHTML.slice(0, 80)} ${r.width}×${r.height}`)"""
    )


def hidden_focus(page):
    """What the sticky bars cover wholly while it has the focus (WCAG 2.4.11)."""
    page.locator(".conversation").focus()
    covered = []
    for _ in range(45):
        press(page, ["Tab"])
        found = page.evaluate(
            """() => {
                const e = document.activeElement, bar = document.querySelector('.answer');
                if (!e || e === document.body || bar.contains(e) || !e.closest('#slot')) return '';
                const target = e.matches('[type=checkbox], [type=radio]') && e.closest('label') || e;
                const r = target.getBoundingClientRect(), b = bar.getBoundingClientRect();
                const top = document.querySelector('.topbar').getBoundingClientRect().bottom;
                const under = getComputedStyle(bar).position === 'sticky' && r.top >= b.top && r.bottom <= b.bottom;
                return under || r.bottom <= top ? e.outerHTML.slice(0, 80) : '';
            }"""
        )
        if found:
            covered.append(found)
    return covered
