"""The pages of data in a real browser: sound to look at, and alive with script."""

import json

import pytest
from playwright.sync_api import expect

from annotation.data.records import paging
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Comparison, Prompt, ReviewCase, Source, User
from annotation.quality import review
from tests.annotation.data.hub_server import TOKEN, Hub
from tests.browser.test_pages import WIDTHS, assert_sound, assert_sound_in_every_look
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    ProjectFactory,
    PromptFactory,
    SourceFactory,
    judged,
    member,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

HOSTILE = '<img src=x onerror=alert(1)><div hx-get="/account/tokens/" hx-trigger="load">x</div>'


@pytest.fixture
def apollo(project, ada, ben, grace):
    source = SourceFactory(project=project, name="Greenhouse questions")
    SourceFactory(project=project, name="Waiting for a signature", signed_off_at=None)
    batch = BatchFactory(project=project, name="Round 1")
    texts = ["How do I water a fern?", HOSTILE, "שלום, מה שלומך?", "long " * 400]
    for text in texts:
        prompt = PromptFactory(
            project=project, source=source, messages=[{"role": "user", "content": text}]
        )
        comparison = ComparisonFactory(batch=batch, prompt=prompt)
        judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
        judged(project, by=ben, comparison=comparison, ranks=(2, 1, 3, 3))
    freeze_snapshot(project, by=grace, note="Before the first reward model")
    freeze_snapshot(project, by=grace)
    return project


ADDRESSES = [
    "/projects/apollo/prompts/",
    "/projects/apollo/records/responses/?q=give",
    "/projects/apollo/records/comparisons/",
    "/projects/apollo/records/judgments/",
    "/projects/apollo/prompts/import/",
    "/projects/apollo/data/",
    "/projects/apollo/data/1/",
    "/projects/apollo/data/2/compare/",
    "/projects/apollo/data/withdrawals/",
    "/projects/apollo/data/1/forms/",
    "/projects/apollo/data/1/push/",
    "/projects/apollo/data/1/rows/?file=preferences",
    "/account/tokens/",
    "/api/v1/docs/",
]


def test_every_page_of_data_is_sound(watched, live_server, sign_in, apollo, grace):
    sign_in(grace)
    comparison = Comparison.objects.first()
    objects = [
        f"/projects/apollo/prompts/{comparison.prompt.uid}/",
        f"/projects/apollo/comparisons/{comparison.pk}/",
        f"/projects/apollo/batches/{comparison.batch_id}/",
    ]
    for address in ADDRESSES + objects:
        assert_sound_in_every_look(watched, live_server.url + address)


def test_an_empty_project_says_what_will_be_there(watched, live_server, sign_in, db):
    grace = member(ProjectFactory(slug="gemini"), "grace", "admin")
    sign_in(grace)
    for address in ("/projects/gemini/prompts/", "/projects/gemini/data/"):
        assert_sound(watched, "light", 390, live_server.url + address)
        assert watched.locator(".empty").count() == 1


def test_rows_are_found_selected_excluded_and_restored(
    watched, live_server, sign_in, apollo, grace
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/prompts/")
    watched.get_by_label("Search").press_sequentially("fern")
    rows = watched.locator(".records tbody tr")
    expect(rows).to_have_count(1)
    assert "q=fern" in watched.url
    watched.reload()
    assert watched.get_by_label("Search").input_value() == "fern"
    # The selection stays when the field that was typed in loses the focus.
    watched.get_by_label("Search").fill("ho")
    expect(rows).to_have_count(1)
    watched.get_by_label("Select all rows of this page").check()
    expect(watched.locator("#n-picked")).to_have_text("1")
    watched.locator("summary", has_text="Exclude").press("Enter")
    watched.get_by_label("Reason").fill("twice in the book")
    watched.keyboard.press("Enter")
    watched.get_by_text("1 prompt excluded: twice in the book.").wait_for()
    expect(rows.locator(".badge", has_text="excluded")).to_have_count(1)
    watched.locator("summary", has_text="Latest changes").click()
    watched.get_by_role("button", name="Undo").click()
    watched.get_by_text("Undone: 1 prompt excluded").wait_for()
    # Enter presses the button of the field that it was pressed in.
    rows.get_by_role("checkbox").check()
    watched.locator("summary", has_text="Set risk or category").click()
    watched.get_by_label("Category").last.fill("ferns")
    watched.keyboard.press("Enter")
    watched.get_by_text("1 prompt now in “ferns”.").wait_for()
    watched.locator("summary", has_text="Columns").click()
    watched.get_by_label("Turns").check()
    expect(watched.locator("thead").get_by_text("Turns")).to_be_visible()
    watched.locator("summary", has_text="Save view").click()
    watched.get_by_label("Name").first.fill("Ferns")
    watched.keyboard.press("Enter")
    watched.get_by_role("link", name="Ferns").click()
    expect(rows).to_have_count(1)
    rows.get_by_role("link").first.click()
    watched.get_by_role("heading", name="Prompt").wait_for()
    watched.get_by_role("link", name="Comparison").first.click()
    watched.get_by_role("heading", name="Votes").wait_for()


def test_a_filter_that_fits_nothing_ends_with_an_answer(
    watched, live_server, sign_in, apollo, grace, monkeypatch
):
    monkeypatch.setattr(paging, "FIRST_STEP", 1)
    monkeypatch.setattr(paging, "LARGEST_STEP", 1)
    monkeypatch.setattr(paging.page_of, "__kwdefaults__", {"seconds": 0})
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/prompts/?risk=unknown")
    watched.get_by_text("Nothing matches").wait_for()


def test_a_file_is_looked_at_when_chosen_and_imported_when_sent(
    watched, live_server, sign_in, apollo, grace
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/prompts/import/")

    def choose(*rows):
        data = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        file = {"name": "new.jsonl", "mimeType": "application/jsonl", "buffer": data.encode()}
        watched.get_by_label("File", exact=True).set_input_files(file)

    watched.get_by_label("Source", exact=True).fill("Typed by hand")
    choose({"prompt": "Why?"}, "{broken")
    watched.get_by_text("Line 2").wait_for()
    choose({"prompt": HOSTILE + " again"})
    watched.get_by_text("Contents of the file").wait_for()
    assert watched.get_by_label("Source", exact=True).input_value() == "Typed by hand"
    watched.get_by_label("License", exact=True).fill("CC0-1.0")
    watched.get_by_label("I read the license").check()
    watched.get_by_role("button", name="Import", exact=True).click()
    watched.wait_for_url("**/sources/")
    assert watched.get_by_text("Imported 1 row").is_visible()
    assert Prompt.objects.get(source__name="Typed by hand").text == HOSTILE + " again"


def test_comparisons_ask_for_their_axis(watched, live_server, sign_in, apollo, grace):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/prompts/import/")
    assert watched.get_by_label("Axis").is_visible()
    watched.get_by_label("Prompts only").check()
    assert not watched.get_by_label("Axis").is_visible()


def test_the_rows_of_a_version_are_searched_filtered_and_drawn(
    watched, live_server, sign_in, apollo, grace
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/data/2/")
    watched.get_by_text("safety", exact=True).first.click()
    watched.wait_for_url("**axis=safety**")
    watched.get_by_role("link", name="pairs: search, filter").click()
    watched.wait_for_url("**/rows/**")  # its scripts are loaded: what is typed before is not sent
    rows = watched.locator(".version-rows tbody tr")
    words = watched.get_by_role("searchbox", name="Search")
    words.press_sequentially("fern")
    expect(rows).to_have_count(11)  # six of ada's, five of ben's
    assert words.evaluate("field => field === document.activeElement"), "focus stays while typing"
    watched.get_by_label("annotator").select_option(index=1)
    expect(rows).to_have_count(6)
    watched.get_by_role("link", name="judgments").click()
    expect(rows).to_have_count(8)
    expect(watched.get_by_role("heading", name="Lengths of responses")).to_be_visible()
    watched.get_by_role(
        "img", name="First places by position, helpfulness"
    ).scroll_into_view_if_needed()
    rows.get_by_role("link").first.click()
    watched.get_by_role("heading", name="Prompt").wait_for()


def test_a_version_is_frozen_and_downloaded_from_the_page(
    watched, live_server, sign_in, apollo, grace
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/data/")
    watched.get_by_label("Note").fill("for the paper")
    watched.get_by_role("button", name="Freeze version 3").click()
    watched.get_by_text("Version 3 is frozen.").wait_for()
    with watched.expect_download() as download:
        watched.get_by_role("link", name="Download all").click()
    assert download.value.suggested_filename == "apollo-v3.zip"


def test_a_version_is_frozen_with_options_compared_verified_and_deprecated(
    watched, live_server, sign_in, apollo, ada, rita
):
    judged(apollo, by=ada, batch=BatchFactory(project=apollo, name="Round 2"), ranks=(1, 2, 3, 4))
    sign_in(rita)
    watched.goto(f"{live_server.url}/projects/apollo/data/")
    included = watched.locator("#freeze-counts dd").first
    expect(included).to_have_text("9")
    watched.get_by_label("Round 2").uncheck()
    expect(included).to_have_text("8")
    watched.locator("summary", has_text="Options").press("Enter")
    watched.get_by_label("Rows").select_option("consensus")
    watched.get_by_label("Safety").uncheck()
    watched.get_by_role("button", name="Freeze version 3").click()
    settings = watched.get_by_role("region", name="Settings")
    expect(settings).to_contain_text("one consensus for each comparison")
    watched.get_by_role("button", name="Verify the files").click()
    expect(watched.get_by_text("are as they were frozen")).to_be_visible()
    watched.get_by_role("link", name="Compare with another version").click()
    expect(watched.get_by_role("heading", name="From version 2 to version 3")).to_be_visible()
    expect(watched.get_by_role("row", name="options votes raw consensus")).to_be_visible()
    assert_sound(watched, "dark", 390, watched.url)
    watched.goto(f"{live_server.url}/projects/apollo/data/3/")
    watched.locator("summary", has_text="Deprecate this version").press("Enter")
    watched.get_by_label("Why it should not be used any more").fill(HOSTILE)
    watched.keyboard.press("Enter")
    expect(watched.get_by_role("note")).to_contain_text(HOSTILE[:40])
    assert_sound(watched, "light", 390, watched.url)


def test_a_version_is_exported_and_sent_after_a_look_at_what_would_be_sent(
    watched, live_server, sign_in, apollo, grace, settings, monkeypatch
):
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    settings.PUSH_ALLOWED = ["hf://datasets/acme/"]
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/data/1/")
    watched.get_by_role("link", name="Export for TRL").click()
    with watched.expect_download() as download:
        watched.get_by_role("link", name="Download TRL preferences safety").click()
    assert download.value.suggested_filename == "apollo-v1-trl-safety.parquet"
    watched.goto(f"{live_server.url}/projects/apollo/data/1/push/")
    watched.get_by_label("Target").fill("hf://datasets/elsewhere/apollo")
    watched.get_by_label("Token").fill(TOKEN)
    watched.get_by_role("button", name="Show what would be sent").click()
    watched.get_by_text("This target is not allowed").wait_for()
    watched.get_by_label("Target").fill("hf://datasets/acme/apollo")
    watched.get_by_role("button", name="Show what would be sent").click()
    watched.get_by_text("Nothing has been sent yet").wait_for()
    assert hub.repositories == {}
    assert watched.get_by_label("Token").input_value() == TOKEN, "typed once"
    watched.get_by_role("button", name="Send", exact=True).press("Enter")
    watched.locator("#pushes").get_by_text(f"{hub.url}/datasets/acme/apollo").wait_for()
    assert "README.md" in hub.repositories["acme/apollo"]["files"]
    assert TOKEN not in watched.content()
    hub.server.shutdown()


def test_a_token_is_copied_and_revoked(watched, live_server, sign_in, context, apollo, grace):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    sign_in(grace)
    watched.goto(f"{live_server.url}/account/tokens/")
    watched.get_by_label("Name").fill("script")
    watched.get_by_role("button", name="Create token").click()
    # A stolen session makes no token: the password once more, and what was sent is done.
    watched.get_by_label("Password").fill("a long enough password")
    watched.get_by_role("button", name="Confirm").click()
    shown = watched.locator("#new-token").text_content()
    watched.get_by_role("button", name="Copy").first.click()
    watched.get_by_role("button", name="Copied").wait_for()
    assert watched.evaluate("navigator.clipboard.readText()") == shown
    watched.get_by_role("button", name="Revoke script").click()
    watched.get_by_text("Revoked script").wait_for()
    assert not User.objects.get(username="grace").auth_token_set.exists()


def test_on_a_page_without_a_clipboard_copying_marks_the_text(
    watched, live_server, sign_in, apollo, grace
):
    """As on http:// with any other name than localhost, which is how a lab often begins."""
    watched.add_init_script("delete Navigator.prototype.clipboard")
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/data/1/")
    watched.locator("[data-copy=load-snippet]").click()
    expect(watched.locator("[data-copy=load-snippet]")).to_have_text("Marked")
    assert "load_dataset" in watched.evaluate("getSelection().toString()")


@pytest.mark.parametrize("width", [320, 700])
def test_on_a_tablet_and_at_400_percent_no_page_scrolls_sideways(
    watched, live_server, sign_in, apollo, grace, ada, width
):
    for comparison in Comparison.objects.all():
        case = review.ask_for_review(comparison, grace)
        case.reasons = list(ReviewCase.REASONS)
        case.save()
    Source.objects.filter(signed_off_at=None).update(licence="")
    batch = BatchFactory(project=apollo, name="Waiting for whoever comes next")
    ComparisonFactory(batch=batch)
    sign_in(grace)
    watched.set_viewport_size({"width": width, "height": 256})
    for address in (
        *("", "data/", "prompts/", "quality/", "quality/gold/", "review/", "settings/"),
        *(f"quality/people/{ada.pk}/", "assignment/", "batches/new/", "judge/history/"),
    ):
        watched.goto(f"{live_server.url}/projects/apollo/{address}")
        wide = watched.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{address} scrolls sideways at {width}: {wide}"
    watched.goto(live_server.url)
    assert watched.locator(".project-card .button.primary").count() == 1
    beyond = watched.evaluate(
        "[...document.querySelectorAll('.project-card .button')].filter(e =>"
        " e.getBoundingClientRect().right > e.closest('.panel').getBoundingClientRect().right)"
        ".length"
    )
    assert beyond == 0, "a button stays in its card"


@pytest.mark.parametrize("width", WIDTHS)
def test_what_cannot_be_taken_lightly_is_asked_first_and_the_question_stays(
    watched, live_server, sign_in, apollo, grace, width
):
    batch = apollo.batches.get()
    batch.is_by_hand = True
    batch.save()
    sign_in(grace)
    watched.clock.install()
    watched.set_viewport_size({"width": width, "height": 900})
    watched.goto(f"{live_server.url}/projects/apollo/people/")
    remove = watched.locator("details.confirm", has_text="Yes, remove ben")
    remove.locator("summary").click()
    seen_whole(watched, remove, width)
    watched.keyboard.press("Tab")
    watched.keyboard.press("Escape")
    expect(remove).not_to_have_attribute("open", "")
    expect(remove.locator("summary")).to_be_focused()
    watched.goto(f"{live_server.url}/projects/apollo/")
    close = watched.locator("details.confirm")
    close.locator("summary").click()
    seen_whole(watched, close, width)
    with watched.expect_response(f"{live_server.url}/projects/apollo/"):
        watched.clock.run_for(11_000)
    watched.wait_for_timeout(300)
    close.get_by_role("button", name="Yes, close Round 1").click()
    watched.get_by_text("Round 1 is closed").wait_for()
    watched.get_by_role("button", name="Reopen Round 1").click()
    watched.get_by_text("Round 1 is open again.").wait_for()


def seen_whole(page, question, width):
    """The question lies within the window, and nothing of it behind something else."""
    box = question.locator(".ask").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth") <= width
