"""What a press does on the judging page, when it is done, and how it is taken back."""

import pytest
from playwright.sync_api import expect

from annotation.judge.answers import Answer
from annotation.judge.submitting import submit_judgment
from annotation.models import Assignment, Judgment
from tests.annotation.audit import assert_counters_are_right
from tests.browser.test_judge import in_letters, line, press, shown, wait_until_sent
from tests.factories import BatchFactory, ComparisonFactory, key

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def judging(watched, live_server, sign_in, project, ada):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(5):
        ComparisonFactory(batch=batch)
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{live_server.url}/projects/apollo/judge/")
    return watched


def test_a_page_that_is_older_than_the_answer_that_counts_shows_both_and_asks(
    judging, context, live_server
):
    first, two = shown(judging), judging.locator("#two-answers")
    other = context.new_page()
    other.goto(f"{live_server.url}/projects/apollo/judge/")
    press(other, [*"abcd0", "Enter"])
    wait_until_sent(other, 1)
    other.close()
    judging.bring_to_front()
    press(judging, [*"dcba0", "Enter"])
    expect(two).to_be_visible()
    expect(two.locator("[data-counts]")).to_contain_text("Helpfulness: A > B > C > D")
    expect(two.locator("[data-sent]")).to_contain_text("Helpfulness: D > C > B > A")
    assert Judgment.objects.count() == 1
    # Nobody has to decide at once: the next comparison is sent past it, and it is still there.
    second = shown(judging)
    assert second != first
    press(judging, [*"00", "Enter"])
    expect(judging.locator("#today")).to_have_text("2")
    judging.reload()
    expect(two).to_be_visible()
    two.get_by_role("button", name="Use the one from this page").click()
    wait_until_sent(judging, 3)
    expect(two).to_be_hidden()
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"D": 1, "C": 2, "B": 3, "A": 4}
    assert first.judgment.revision == 2
    # A correction from a page that is older than the last one; here the one that counts is kept.
    judging.goto(f"{live_server.url}/projects/apollo/judge/{first.uid}/")
    first.refresh_from_db()
    ranks = dict.fromkeys(("helpfulness", "safety"), dict.fromkeys("ABCD", 1))
    answer = Answer.from_letters(first, {"ranks": ranks})
    submit_judgment(first, by=first.annotator, answer=answer, key=key())
    press(judging, ["a", "2", "Enter"])
    expect(two.locator("[data-counts]")).to_contain_text("Helpfulness: A = B = C = D")
    two.get_by_role("button", name="Keep the one that counts").click()
    expect(two).to_be_hidden()
    first.refresh_from_db()
    assert first.judgment.revision == 3
    # A correction of what is in view says that it was saved.
    judging.reload()
    press(judging, ["b", "2", "Enter"])
    expect(judging.get_by_text("Your correction is saved.")).to_be_visible()
    first.refresh_from_db()
    assert first.judgment.revision == 4
    assert_counters_are_right()


def test_an_undo_waits_its_turn_and_takes_back_no_answer_that_came_after_it(judging):
    first = shown(judging)
    press(judging, [*"abcd0", "Enter"])
    wait_until_sent(judging, 1)
    second = shown(judging)
    press(judging, "00")
    judging.route("**/undo/", lambda route: (judging.wait_for_timeout(700), route.continue_()))
    judging.keyboard.press("u")
    expect(judging.locator("#undoing")).to_be_visible()
    judging.keyboard.press("Enter")  # As somebody does who saw nothing happen.
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(first.uid))
    expect(judging.get_by_text("Judgment reopened.")).to_be_visible()
    second.refresh_from_db()
    assert (second.state, Judgment.objects.count()) == (Assignment.State.LEASED, 1)
    judging.unroute_all()
    # What is said about one comparison ends with it; a skip is taken back like an answer.
    press(judging, ["Enter"])
    wait_until_sent(judging, 2)
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(second.uid))
    expect(judging.get_by_text("Judgment reopened.")).to_have_count(0)
    expect(line(judging)).to_have_text("A = B = C = D")
    press(judging, "s2")
    expect(judging.locator("form.slot")).not_to_have_attribute("data-uid", str(second.uid))
    press(judging, "u")
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(second.uid))
    expect(judging.get_by_text("Skipped comparison reopened.")).to_be_visible()
    second.refresh_from_db()
    assert second.state == Assignment.State.LEASED
    assert_counters_are_right()


def test_after_a_click_the_keys_are_the_pages_again_and_no_ranking_is_lost(judging):
    first, refused = shown(judging), judging.locator("#refused")
    press(judging, "abcdcdab")
    judging.get_by_role("button", name="Clear").click()
    expect(line(judging, "safety")).to_have_text("–")
    press(judging, ["Enter"])  # It sends, and says why it can't; it does not clear again.
    expect(refused).to_have_text("Safety: rank at least two responses.")
    judging.get_by_role("button", name="Restore").click()
    expect(line(judging, "safety")).to_have_text("C > D > A > B")
    expect(refused).to_be_hidden()
    judging.get_by_role("button", name="All equal").click()
    press(judging, "z")
    expect(line(judging, "safety")).to_have_text("C > D > A > B")
    # On a full ranking two letters start it over; one letter and a number change one rank.
    press(judging, "dcba")
    expect(line(judging, "safety")).to_have_text("D > C > B > A")
    press(judging, "c1")
    expect(line(judging, "safety")).to_have_text("C = D > B > A")
    press(judging, ["Control+z"])
    expect(line(judging, "safety")).to_have_text("C > D > A > B")
    # Every other control that is clicked gives the keys back as well.
    judging.get_by_role("link", name="Guidelines").click()
    press(judging, ["Escape"])
    judging.locator("[data-letter=A] .flags summary").click()
    judging.locator(".axis-line[data-axis=helpfulness]").click()
    press(judging, ["Enter"])
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters(first, "safety") == {"C": 1, "D": 2, "A": 3, "B": 4}


def test_letters_are_tapped_and_dragged_into_their_order_on_a_phone(judging):
    judging.set_viewport_size({"width": 390, "height": 800})
    order = judging.locator(".axis-line[data-axis=helpfulness]")

    def drag(letter, onto, part):
        start = judging.locator(f".lines .chip[data-letter={letter}]").first.bounding_box()
        end = order.locator(f".chip[data-letter={onto}]").bounding_box()
        judging.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
        judging.mouse.down()
        x, y = end["x"] + end["width"] * part, end["y"] + end["height"] / 2
        judging.mouse.move(x, y, steps=4)
        judging.mouse.up()

    for letter in "BD":
        judging.locator(f".pool .chip[data-letter={letter}]").click()
    expect(line(judging)).to_contain_text("B > D")
    drag("A", "B", 0.05)
    expect(line(judging)).to_contain_text("A > B > D")
    drag("D", "A", 0.5)
    expect(line(judging)).to_contain_text("A = D > B")
    assert shown(judging).state == Assignment.State.LEASED
    heights = judging.locator(".segments label, .send :is(button, summary, a)").evaluate_all(
        "all => all.filter(e => e.checkVisibility()).map(e => e.getBoundingClientRect().height)"
    )
    assert min(heights) >= 44
    # Asking keeps the comparison and what was said about it.
    first = shown(judging)
    press(judging, "q")
    judging.get_by_label("Your question to the project").fill("Is B meant as a joke?")
    judging.get_by_role("button", name="Ask").click()
    judging.get_by_role("link", name="Back to it").click()
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(first.uid))
    expect(line(judging)).to_contain_text("A = D > B")
