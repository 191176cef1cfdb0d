"""The ranking page in a real browser: by keyboard alone, by pointer alone, without script, offline."""

import pytest
from playwright.sync_api import expect

from annotation.models import Assignment, Judgment
from tests.annotation.audit import assert_counters_are_right
from tests.browser.test_pages import assert_sound_in_every_look
from tests.factories import BatchFactory, ComparisonFactory

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

State = Assignment.State


@pytest.fixture
def batch(project):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(3):
        ComparisonFactory(batch=batch)
    return batch


@pytest.fixture
def judging(watched, live_server, sign_in, ada, batch):
    """ada's browser on the ranking page, the next comparison already loaded."""
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{live_server.url}/projects/apollo/judge/")
    return watched


def line(page, axis="helpfulness"):
    return page.locator(f".axis-line[data-axis={axis}] [data-order]")


def shown(page):
    return Assignment.objects.get(uid=page.locator("form.slot").get_attribute("data-uid"))


def in_letters(assignment, axis):
    ranks = assignment.judgment.ranks[axis]
    return {"ABCD"[i]: ranks[str(pk)] for i, pk in enumerate(assignment.shown_order)}


def wait_until_sent(page, n):
    page.wait_for_function(
        "() => !localStorage.length || !Object.keys(localStorage).some("
        "k => k.startsWith('judge:outbox') && localStorage[k] !== '[]')"
    )
    assert Judgment.objects.count() == n


def ready(page):
    """Wait as a person does before the first key: until the page has come and is drawn."""
    page.wait_for_load_state("load")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")


def press(page, keys):
    ready(page)
    for key in keys:
        page.keyboard.press(key)


def test_a_whole_annotation_by_keyboard_alone(judging):
    first = shown(judging)
    press(judging, "ac=db")
    expect(line(judging)).to_have_text("A > C = D > B")
    press(judging, "r")
    expect(line(judging, "safety")).to_have_text("A > C = D > B")
    press(judging, "b2")
    expect(line(judging, "safety")).to_have_text("A > B = C = D")
    press(judging, "xb1")
    press(judging, ["Escape", "w"])
    judging.keyboard.type("B is rude; 1=1")
    press(judging, ["Escape", "g"])
    expect(judging.locator("#guidelines")).to_be_visible()
    press(judging, ["Escape", "?"])
    expect(judging.locator("#keys")).to_be_visible()
    press(judging, ["Escape", "Enter"])
    expect(judging.locator("form.slot")).not_to_have_attribute("data-uid", str(first.uid))
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"A": 1, "C": 2, "D": 2, "B": 3}
    assert in_letters(first, "safety") == {"A": 1, "B": 2, "C": 2, "D": 2}
    judgment = first.judgment
    assert judgment.reason == "B is rude; 1=1"
    assert judgment.flags == {str(first.shown_order[1]): [{"kind": "unsafe", "category": "other"}]}
    assert judgment.seconds > 0
    # Back to it, and on again, without touching the pointer.
    press(judging, "u")
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(first.uid))
    expect(line(judging)).to_have_text("A > C = D > B")
    press(judging, "s2")
    expect(judging.locator("form.slot")).not_to_have_attribute("data-uid", str(first.uid))
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert (first.state, first.skip_reason) == (State.SKIPPED, "I don't understand the request")
    assert_counters_are_right()


def test_the_next_one_is_there_at_once(judging):
    press(judging, "00")
    press(judging, ["Enter"])
    took = judging.evaluate("performance.getEntriesByName('judge:swap')[0].duration")
    assert took < 100, f"{took} ms"
    wait_until_sent(judging, 1)


def test_a_whole_annotation_by_pointer_alone(judging):
    first = shown(judging)
    for letter, rank in {"A": 2, "B": 1, "C": 3, "D": 3}.items():
        judging.locator(
            f"[data-letter={letter}] [name=rank-helpfulness-{letter}][value='{rank}']"
        ).click()
    expect(line(judging)).to_have_text("B > A > C = D")
    judging.locator(".axis-line[data-axis=safety]").click()
    judging.get_by_role("button", name="All equal").click()
    expect(line(judging, "safety")).to_have_text("A = B = C = D")
    judging.locator("[data-letter=C] .flags summary").click()
    judging.locator("[data-letter=C]").get_by_label("Wrong").click()
    judging.get_by_role("button", name="Send judgment").click()
    expect(judging.locator("form.slot")).not_to_have_attribute("data-uid", str(first.uid))
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"A": 2, "B": 1, "C": 3, "D": 3}
    assert list(first.judgment.flags.values()) == [[{"kind": "wrong", "category": ""}]]


def test_an_answer_that_lacks_ranks_is_not_sent_unasked(judging):
    press(judging, ["Enter"])
    expect(judging.locator("#refused")).to_have_text("Helpfulness: rank at least two responses.")
    press(judging, "abcdac")
    press(judging, ["Enter"])
    expect(judging.locator("#refused")).to_contain_text("B, D not ranked")
    first = shown(judging)
    press(judging, ["Enter"])
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters_of_two(first) == {"A": 1, "C": 2}


def in_letters_of_two(assignment):
    ranks = assignment.judgment.ranks["safety"]
    return {
        "ABCD"[i]: ranks[str(pk)] for i, pk in enumerate(assignment.shown_order) if str(pk) in ranks
    }


def test_a_draft_survives_a_reload(judging):
    first = shown(judging)
    press(judging, "bad")
    judging.locator("#reason").fill("half a thought")
    expect(judging.locator("[data-saved]")).to_have_text("saved ✓")
    judging.reload()
    assert shown(judging) == first
    expect(line(judging)).to_contain_text("B > A > D")
    expect(judging.locator("#reason")).to_have_value("half a thought")
    first.refresh_from_db()
    assert first.draft["reason"] == "half a thought"


def test_what_is_sent_offline_is_sent_once_when_back(judging, context):
    first = shown(judging)
    context.set_offline(True)
    press(judging, "abcd0")
    press(judging, ["Enter"])
    expect(judging.locator("#offline")).to_contain_text("1 answer is saved here")
    assert shown(judging) != first
    press(judging, "00")
    press(judging, ["Enter"])
    expect(judging.locator("#offline")).to_contain_text("2 answers are saved here")
    assert not Judgment.objects.exists()
    context.set_offline(False)
    judging.evaluate("dispatchEvent(new Event('online'))")
    judging.wait_for_selector("form.slot")
    wait_until_sent(judging, 2)
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"A": 1, "B": 2, "C": 3, "D": 4}
    assert_counters_are_right()


def test_the_whole_form_works_without_script(browser, live_server, client, ada, batch):
    client.force_login(ada)
    context = browser.new_context(java_script_enabled=False)
    cookie = client.cookies["sessionid"]
    context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/projects/apollo/judge/")
    first = shown(page)
    for axis in ("helpfulness", "safety"):
        for rank, letter in enumerate("DBCA", start=1):
            page.locator(f"[name=rank-{axis}-{letter}][value='{rank}']").check()
    page.locator("[data-letter=A] .flags summary").click()
    page.locator("[data-letter=A]").get_by_label("Unsafe").check()
    page.locator("[name=harm-A]").select_option("privacy")
    page.get_by_role("button", name="Send judgment").click()
    assert shown(page) != first
    first.refresh_from_db()
    assert in_letters(first, "safety") == {"D": 1, "B": 2, "C": 3, "A": 4}
    assert list(first.judgment.flags.values()) == [[{"kind": "unsafe", "category": "privacy"}]]
    page.get_by_role("button", name="Undo").click()
    assert shown(page) == first
    page.locator("details.skip summary").click()
    page.get_by_role("button", name="I can't judge this subject").click()
    first.refresh_from_db()
    assert first.state == State.SKIPPED
    context.close()


def test_single_keys_can_be_switched_off(judging, live_server, ada):
    press(judging, "?")
    judging.get_by_role("button", name="Turn off single-key shortcuts").click()
    judging.wait_for_load_state("load")
    press(judging, "abcd")
    expect(line(judging)).to_have_text("–")
    flags = judging.locator("[data-letter=B] .flags")
    flags.locator("summary").focus()
    press(judging, ["Enter", "Tab", "Escape"])
    expect(flags).not_to_have_attribute("open", "")
    expect(flags.locator("summary")).to_be_focused()


def test_the_pages_of_judging_are_sound(watched, live_server, sign_in, ada, grace, batch):
    sign_in(ada)
    apollo = f"{live_server.url}/projects/apollo/"
    assert_sound_in_every_look(
        watched, *(apollo + path for path in ("judge/", "judge/history/", ""))
    )
    watched.goto(f"{apollo}judge/")
    press(watched, "abcd0")
    with watched.expect_response("**/judge/*/"):
        press(watched, ["Enter"])
    watched.wait_for_load_state("networkidle")
    assert_sound_in_every_look(watched, f"{apollo}judge/history/")
    sign_in(grace)
    assert_sound_in_every_look(
        watched, f"{live_server.url}/", f"{apollo}settings/", f"{live_server.url}/projects/new/"
    )


def test_many_responses_fit_a_phone_and_a_desk(watched, live_server, sign_in, ada, project):
    batch = BatchFactory(project=project)
    ComparisonFactory(batch=batch, responses=9)
    sign_in(ada)
    assert_sound_in_every_look(watched, f"{live_server.url}/projects/apollo/judge/")
    press(watched, "iabcdefgh0")
    expect(line(watched)).to_have_text("I > A > B > C > D > E > F > G > H")


def test_a_keystroke_shows_in_the_next_frame(judging, record_property):
    """What a key does is on the page when the browser paints next; nothing waits for the server."""
    judging.evaluate(
        """() => {
            window.keys = [];
            const order = () => document.querySelector(".lines").textContent;
            let before = "";
            document.addEventListener("keydown", () => { before = order(); }, true);
            document.addEventListener("keydown", (event) => {
                const handled = performance.now() - event.timeStamp;
                requestAnimationFrame(() => window.keys.push({
                    shown: order() !== before, handled, painted: performance.now() - event.timeStamp,
                }));
            });
        }"""
    )
    for key in "acbddbca":
        judging.keyboard.press(key)
        judging.wait_for_timeout(40)
    keys = judging.evaluate("window.keys")
    assert len(keys) == 8
    assert all(key["shown"] for key in keys), keys
    middle = {name: sorted(key[name] for key in keys)[4] for name in ("handled", "painted")}
    record_property("milliseconds from the key until it was handled, and until the frame", middle)
