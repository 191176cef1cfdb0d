"""Quality in a real browser: pages sound in both themes and widths, a case decided by keyboard."""

import pytest
from playwright.sync_api import expect

from annotation.models import Judgment, Membership, Prompt, ReviewCase, User
from annotation.quality import assessment, review
from annotation.quality.gold_items import add_gold_items
from tests.browser.test_pages import assert_sound, assert_sound_in_every_look, barriers
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged, member

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def apollo(project, ada, ben, vera, grace):
    project.pay_per_hour = 24
    project.save()
    mallory = member(project, "mallory", "annotator")
    User.objects.filter(pk=mallory.pk).update(username=HOSTILE)
    batch = BatchFactory(project=project, name="Round 1")
    for number in range(24):
        comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
        best = (1, 2, 3, 4) if number % 2 else (2, 1, 4, 3)
        judged(project, by=ada, comparison=comparison, ranks=best)
        judged(project, by=ben, comparison=comparison, ranks=best)
        judged(project, by=mallory, comparison=comparison, ranks=(4, 3, 2, 1))
    Judgment.objects.update(seconds=41.5, reason="It does what was asked.")
    Membership.objects.filter(user=ben).update(
        paused_at="2026-01-01T00:00Z", paused_reason="Holiday"
    )
    add_gold_items(
        project,
        [
            {
                "prompt": f"What is {n} + 1? {HOSTILE}",
                "responses": list("abcd"),
                "ranks": [1, 2, 2, 3],
            }
            for n in range(3)
        ],
        grace,
    )
    return project


def test_every_page_of_quality_is_sound(watched, live_server, sign_in, apollo, grace, ada):
    sign_in(grace)
    root = live_server.url + "/projects/apollo"
    own = f"/quality/people/{ada.pk}/"
    for address in ("/quality/", own, "/quality/gold/", "/review/", "/people/", "/questions/"):
        assert_sound_in_every_look(watched, root + address)
    case = ReviewCase.objects.first()
    assert_sound_in_every_look(watched, f"{root}/review/{case.uid}/")
    sign_in(ada)
    assert_sound_in_every_look(watched, root + "/progress/")


def test_vera_decides_by_keyboard_and_takes_it_back(watched, live_server, sign_in, apollo, vera):
    sign_in(vera)
    watched.goto(f"{live_server.url}/projects/apollo/review/")
    watched.get_by_role("link", name="Start reviewing").press("Enter")
    watched.wait_for_url("**/review/*-*/", wait_until="load")
    first = watched.url
    watched.keyboard.press("2")
    watched.keyboard.press("f")
    watched.keyboard.press("Enter")
    watched.get_by_text("Decision saved. The votes are kept.").wait_for()
    assert watched.url != first  # the next case is there at once
    assert ReviewCase.objects.get(state="decided").ground == "facts"
    watched.goto(first)
    expect(watched.get_by_role("heading", name="Decided by vera")).to_be_visible()
    watched.keyboard.press("z")
    watched.get_by_text("Case reopened; the votes count again").wait_for()
    assert not ReviewCase.objects.filter(state="decided").exists()
    # A ranking of her own, by the keys of the judging page: m, letters in order, a reason, her words.
    for key in "mdcbaa=b=c=d":
        watched.keyboard.press(key)
    expect(watched.locator("[data-axis=helpfulness] [data-order]")).to_have_text("D > C > B > A")
    for key in "tabcd":  # a full ranking starts over
        watched.keyboard.press(key)
    expect(watched.locator("[data-axis=helpfulness] [data-order]")).to_have_text("A > B > C > D")
    expect(watched.locator("[data-axis=safety] [data-order]")).to_have_text("A = B = C = D")
    watched.get_by_text("My own answer").click()  # A click leaves the keys to the page.
    watched.keyboard.press("e")
    watched.get_by_label("Comment").fill("All four say the same.")
    watched.get_by_role("button", name="Decide").press("Enter")
    watched.get_by_text("Decision saved. The votes are kept.").wait_for()
    ruled = Judgment.objects.get(current_for__is_ruling=True)
    assert sorted(ruled.ranks["helpfulness"].values()) == [1, 2, 3, 4]
    assert set(ruled.ranks["safety"].values()) == {1}
    assert ruled.reason == "All four say the same."


def test_grace_pauses_somebody_and_takes_judgments_out(
    watched, live_server, sign_in, apollo, grace
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/quality/")
    watched.get_by_role("link", name=HOSTILE).click()
    watched.get_by_label("Reason for the pause").fill("Please read the guidelines again")
    watched.keyboard.press("Tab")
    watched.keyboard.press("Enter")
    watched.get_by_text("is paused and sees the reason").wait_for()
    watched.get_by_role("link", name=HOSTILE).click()
    watched.get_by_label("Reason for the exclusion").fill("Same pattern everywhere")
    watched.get_by_role("button", name="Exclude all 24").click()
    watched.get_by_text("24 excluded").wait_for()
    assert Judgment.objects.exclude(excluded_at=None).count() == 24


def test_a_harmful_case_stays_covered_until_vera_uncovers_it(
    watched, live_server, sign_in, apollo, vera
):
    case = review.ask_for_review(apollo.batches.get().comparisons.first(), vera)
    Prompt.objects.filter(pk=case.comparison.prompt_id).update(risk="harmful")
    sign_in(vera)
    assert_sound(watched, "dark", 390, f"{live_server.url}/projects/apollo/review/{case.uid}/")
    text, choice = watched.locator("#conversation"), watched.locator('input[value="2"]').first
    for hidden in (text, choice, watched.locator("#open-compare")):
        expect(hidden).to_be_hidden()
    watched.keyboard.press("2")
    watched.keyboard.press("p")
    expect(watched.locator("#said")).to_have_text("Covered: press o to uncover, n for the next.")
    assert not choice.is_checked()
    watched.keyboard.press("o")
    expect(text).to_be_visible()
    expect(watched.locator(".cover")).to_be_hidden()
    expect(watched.locator("#open-compare")).to_be_visible()
    watched.keyboard.press("2")
    expect(choice).to_be_checked()
    # It does not cover itself again, neither for a missing reason nor when it is opened again.
    watched.keyboard.press("Enter")
    expect(watched.get_by_text("Choose a reason.")).to_be_visible()
    expect(text).to_be_visible()
    watched.goto(f"{live_server.url}/projects/apollo/review/{case.uid}/")
    expect(text).to_be_visible()
    watched.keyboard.press("o")  # It uncovers, and chooses no reason.
    expect(watched.locator("[name=ground]:checked")).to_have_count(0)


def test_vera_compares_two_responses_word_by_word(watched, live_server, sign_in, apollo, vera):
    comparison = apollo.batches.get().comparisons.first()
    texts = ["Water it twice a week.", "Water it once a week.", "Never water it.", "Water it."]
    for response, text in zip(comparison.responses.order_by("pk"), texts, strict=True):
        response.text = text
        response.save()
    case = review.ask_for_review(comparison, vera)
    sign_in(vera)
    watched.goto(f"{live_server.url}/projects/apollo/review/{case.uid}/")
    expect(watched.locator("#open-compare")).to_be_visible()
    watched.keyboard.press("p")
    dialog = watched.locator("#compare")
    expect(dialog.locator("del").nth(1)).to_have_text("twice")
    expect(dialog.locator(".compared ins")).to_have_text(["once"])
    watched.keyboard.press("c")  # the right one, and not the consensus
    expect(dialog.locator(".compared ins")).to_have_text(["Never water"])
    assert barriers(watched) == []
    watched.keyboard.press("p")
    expect(dialog).to_be_hidden()
    assert not watched.locator('input[name="choice"]:checked').count()
    watched.get_by_role("button", name="Compare words").click()
    expect(dialog).to_be_visible()


def test_old_figures_give_way_to_new_ones_by_themselves(
    watched, live_server, sign_in, apollo, grace, ada, monkeypatch
):
    monkeypatch.setattr(assessment, "SLOW_SECONDS", 0)
    sign_in(grace)
    where = f"{live_server.url}/projects/apollo/quality/"
    watched.goto(where)
    watched.get_by_text("By category").click()
    assert watched.locator("#recalculating").count() == 0
    judged(apollo, by=ada, ranks=(1, 2, 3, 4))
    with watched.expect_response(f"{where}?recalculated=1"):
        watched.goto(where)
    expect(watched.locator("#recalculating")).to_have_count(0)
    assert watched.url == where
    assert watched.locator("#figures").count() == 1
    assert watched.locator("h1").count() == 1
