"""What a person said survives the network, the server, the session and the lease, in a real browser."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from playwright.sync_api import expect

from annotation.judge.answers import Answer
from annotation.judge.drafts import save_draft
from annotation.judge.submitting import submit_judgment
from annotation.models import Assignment, Judgment
from annotation.projects.batches import close_batch
from tests.annotation.audit import assert_counters_are_right
from tests.browser.test_judge import in_letters, line, press, shown, wait_until_sent
from tests.factories import BatchFactory, ComparisonFactory, key

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
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{live_server.url}/projects/apollo/judge/")
    return watched


def test_the_banner_says_offline_before_anything_is_sent_and_goes_when_it_is_over(judging, context):
    first = shown(judging)
    context.set_offline(True)
    expect(judging.locator("#offline")).to_contain_text("You are offline.")
    press(judging, "bac")
    expect(judging.locator("[data-saved]")).to_have_text("saved offline")
    context.set_offline(False)
    expect(judging.locator("#offline")).to_be_hidden()
    expect(judging.locator("[data-saved]")).to_have_text("saved ✓", timeout=10_000)
    first.refresh_from_db()
    assert first.draft["ranks"]["helpfulness"] == {"B": 1, "A": 2, "C": 3}


def test_a_draft_made_offline_is_there_after_the_page_is_opened_anew(judging, context, live_server):
    context.set_offline(True)
    press(judging, "dcb")
    expect(judging.locator("[data-saved]")).to_have_text("saved offline")
    judging.goto("about:blank")
    context.set_offline(False)
    judging.goto(f"{live_server.url}/projects/apollo/judge/")
    expect(line(judging)).to_contain_text("D > C > B")


@pytest.mark.parametrize("hours", [-3, 0, 3])
def test_of_two_drafts_the_newer_wins_whatever_the_browsers_clock_says(
    watched, context, live_server, sign_in, ada, batch, hours
):
    context.add_init_script(f"const real = Date.now; Date.now = () => real() + {hours} * 3600e3;")
    sign_in(ada)
    with watched.expect_response("**/after/"):
        watched.goto(f"{live_server.url}/projects/apollo/judge/")
    first = shown(watched)
    context.set_offline(True)
    press(watched, "dcb")
    expect(watched.locator("[data-saved]")).to_have_text("saved offline")
    watched.goto("about:blank")
    context.set_offline(False)
    # A while later she goes on elsewhere.
    watched.wait_for_timeout(2000)
    save_draft(first, {"ranks": {"helpfulness": {"A": 1, "B": 2}}})
    with watched.expect_response("**/after/"):
        watched.goto(f"{live_server.url}/projects/apollo/judge/")
    expect(line(watched)).to_contain_text("A > B")
    # And now here again, where the server can't be reached.
    context.set_offline(True)
    press(watched, "d")
    expect(watched.locator("[data-saved]")).to_have_text("saved offline")
    watched.goto("about:blank")
    context.set_offline(False)
    watched.goto(f"{live_server.url}/projects/apollo/judge/")
    expect(line(watched)).to_contain_text("A > B > D")


def test_a_correction_that_was_left_says_that_it_was_not_sent(judging, live_server):
    first = shown(judging)
    press(judging, [*"abcd0", "Enter"])
    wait_until_sent(judging, 1)
    address = f"{live_server.url}/projects/apollo/judge/{first.uid}/"
    note = judging.get_by_text("This correction is not sent yet.")
    judging.goto(address)
    press(judging, "d1")
    expect(line(judging)).to_have_text("A = D > B > C")
    judging.goto(f"{live_server.url}/projects/apollo/judge/history/")
    judging.goto(address)
    expect(line(judging)).to_have_text("A = D > B > C")
    expect(note).to_be_visible()
    judging.get_by_role("button", name="Show my answer").click()
    expect(line(judging)).to_have_text("A > B > C > D")
    expect(note).to_have_count(0)
    # Begun once more, and then said elsewhere: what was said last is what shows.
    press(judging, "d1")
    judging.goto("about:blank")
    first.refresh_from_db()
    ranks = dict.fromkeys(("helpfulness", "safety"), dict.fromkeys("ABCD", 1))
    answer = Answer.from_letters(first, {"ranks": ranks})
    submit_judgment(first, by=first.annotator, answer=answer, key=key())
    judging.goto(address)
    expect(line(judging)).to_have_text("A = B = C = D")
    expect(note).to_have_count(0)


def test_a_page_that_is_left_gives_back_what_was_not_begun_and_a_reload_keeps_it(
    judging, live_server
):
    def states():
        return sorted(Assignment.objects.values_list("state", flat=True))

    def wait_for(wanted):
        for _ in range(50):
            if states() == wanted:
                return
            judging.wait_for_timeout(100)
        assert states() == wanted

    history = f"{live_server.url}/projects/apollo/judge/history/"
    judging.goto(history)
    wait_for([State.EXPIRED, State.EXPIRED])
    with judging.expect_response("**/after/"):
        judging.goto(f"{live_server.url}/projects/apollo/judge/")
    wait_for([State.LEASED, State.LEASED])
    again = shown(judging)
    with judging.expect_response("**/after/"):
        judging.reload()
    judging.wait_for_timeout(500)
    again.refresh_from_db()
    assert shown(judging) == again
    assert again.state == State.LEASED
    press(judging, "ab")
    expect(judging.locator("[data-saved]")).to_have_text("saved ✓")
    judging.goto(history)
    wait_for([State.EXPIRED, State.LEASED])
    again.refresh_from_db()
    assert again.state == State.LEASED
    assert_counters_are_right()


class KillableServer:
    """The product in a process of its own on the test's database, so that it can be killed."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://localhost:{self.port}"
        self.process = None

    def start(self):
        given = connection.settings_dict
        address = f"sqlite:///{given['NAME']}"
        if connection.vendor != "sqlite":
            who = given["USER"] + (f":{given['PASSWORD']}" if given["PASSWORD"] else "")
            address = f"postgres://{who}@{given['HOST']}:{given['PORT'] or 5432}/{given['NAME']}"
        here = os.environ | {
            "DATABASE_URL": address,
            "SECRET_KEY": settings.SECRET_KEY,
            "DJANGO_SETTINGS_MODULE": "config.settings",
        }
        command = [sys.executable, "-m", "gunicorn", "config.wsgi", "--threads", "4"]
        self.process = subprocess.Popen(
            [*command, "--bind", f"127.0.0.1:{self.port}", "--log-level", "error"],
            env=here,
            cwd=Path(settings.BASE_DIR),
            start_new_session=True,
        )
        for _ in range(150):
            try:
                urllib.request.urlopen(f"{self.url}/accounts/login/", timeout=2)
            except OSError:
                time.sleep(0.1)
            else:
                return
        pytest.fail("the server did not start within 15 s")

    def kill(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


@pytest.fixture
def server(batch):
    server = KillableServer()
    server.start()
    yield server
    server.kill()


def test_a_server_killed_while_people_judge_loses_and_doubles_nothing(
    server, page, context, client, ada
):
    client.force_login(ada)
    cookie = client.cookies["sessionid"]
    context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": server.url}])
    with page.expect_response("**/after/"):
        page.goto(f"{server.url}/projects/apollo/judge/")
    first = shown(page)
    # The server takes the answer and dies before the browser hears of it: the nastiest moment.
    page.route(
        f"**/judge/{first.uid}/", lambda route: (route.fetch(), server.kill(), route.abort())
    )
    press(page, "abcd0")
    press(page, ["Enter"])
    expect(page.locator("#offline")).to_contain_text(
        "The server can't be reached. 1 answer is saved"
    )
    page.unroute_all()
    assert Judgment.objects.count() == 1, "it was taken, but nobody told the browser"
    second = shown(page)
    assert second != first
    press(page, "dcba0")
    press(page, ["Enter"])
    expect(page.locator("#offline")).to_contain_text("2 answers are saved")
    expect(page.locator(".waiting-next")).to_contain_text("Your answer is saved.")
    server.start()
    page.wait_for_selector("form.slot", timeout=15_000)
    wait_until_sent(page, 2)
    first.refresh_from_db()
    second.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"A": 1, "B": 2, "C": 3, "D": 4}
    assert in_letters(second, "helpfulness") == {"D": 1, "C": 2, "B": 3, "A": 4}
    assert [one.judgments.count() for one in (first, second)] == [1, 1]
    assert_counters_are_right()


def test_a_page_that_would_be_left_stays_until_the_server_that_has_the_next_one_is_back(
    server, page, context, client, ada
):
    client.force_login(ada)
    cookie = client.cookies["sessionid"]
    context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": server.url}])
    page.route("**/after/", lambda route: route.abort())
    page.goto(f"{server.url}/projects/apollo/judge/")
    first = shown(page)

    def take_and_die(route):
        answer = route.fetch()
        server.kill()
        route.fulfill(response=answer)

    page.route(f"**/judge/{first.uid}/", take_and_die)
    press(page, "abcd0")
    press(page, ["Enter"])
    expect(page.locator("#offline")).to_contain_text("The server can't be reached.")
    expect(page.locator(".waiting-next")).to_contain_text("Your answer is saved.")
    server.start()
    page.wait_for_selector("form.slot", timeout=15_000)
    assert shown(page) != first
    assert_counters_are_right()


def test_who_waits_for_work_while_the_server_is_gone_is_told_and_gets_it_when_it_is_back(
    watched, context, live_server, sign_in, project, ada
):
    sign_in(ada)
    watched.clock.install()
    watched.goto(f"{live_server.url}/projects/apollo/judge/#main")
    expect(watched.get_by_role("heading", name="Nothing to judge yet")).to_be_visible()
    watched.route("**/judge/", lambda route: route.abort())
    watched.clock.run_for(16_000)
    expect(watched.locator("#offline")).to_contain_text("The server can't be reached.")
    expect(watched.get_by_role("heading", name="Nothing to judge yet")).to_be_visible()
    ComparisonFactory(batch=BatchFactory(project=project))
    watched.unroute_all()
    watched.clock.run_for(4_000)
    watched.wait_for_selector("form.slot")


def test_signed_out_in_another_tab_keeps_the_answer_until_one_is_back(
    judging, context, live_server, ada
):
    first = shown(judging)
    other = context.new_page()
    other.goto(f"{live_server.url}/projects/apollo/judge/history/")
    other.locator("summary", has_text="ada").click()
    other.get_by_role("button", name="Sign out").click()
    other.wait_for_url("**/accounts/**")
    judging.bring_to_front()
    press(judging, "cd")
    expect(judging.locator("#offline")).to_contain_text("You are signed out")
    expect(judging.locator("#offline")).to_contain_text("saved in this browser")
    press(judging, "ab0")
    press(judging, ["Enter"])
    expect(judging.locator("#offline")).to_contain_text("1 answer is saved here")
    assert not Judgment.objects.exists()
    other.goto(f"{live_server.url}/accounts/login/")
    other.locator("[name=login]").fill("ada")
    other.locator("[name=password]").fill("a long enough password")
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url("**/judge/**")
    judging.bring_to_front()
    expect(judging.locator("#offline")).to_be_hidden(timeout=10_000)
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"C": 1, "D": 2, "A": 3, "B": 4}


def test_an_answer_is_never_sent_in_somebody_elses_name(judging, sign_in, ada, ben):
    first = shown(judging)
    press(judging, "abcd0")
    sign_in(ben)
    press(judging, ["Enter"])
    expect(judging.locator("#foreign")).to_be_visible()
    expect(judging.locator("#foreign")).to_contain_text("or somebody else signed in here")
    assert not Judgment.objects.exists()
    sign_in(ada)
    judging.evaluate("dispatchEvent(new Event('online'))")
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert first.judgment is not None


def test_who_signs_in_again_while_an_answer_is_refused_need_not_wait_for_the_next_try(judging):
    tried = []

    def first_one_refused(route):
        tried.append(route.request.url)
        if len(tried) > 1:
            return route.continue_()
        # The news comes while the refusal is still on its way.
        judging.evaluate("() => setTimeout(() => dispatchEvent(new Event('online')))")
        judging.wait_for_timeout(100)
        return route.fulfill(status=404)

    shown(judging)
    uid = judging.locator("form.slot").get_attribute("data-uid")
    judging.route(f"**/judge/{uid}/", first_one_refused)
    press(judging, "abcd0")
    press(judging, ["Enter"])
    wait_until_sent(judging, 1)
    assert len(tried) == 2


@pytest.mark.parametrize(
    "page_in_between",
    [
        {"content_type": "text/html", "body": "<html>Welcome to our wireless network</html>"},
        {"content_type": "application/json", "body": "null"},
        {"content_type": "application/json", "body": '{"ok": true}'},
    ],
)
def test_a_page_that_something_in_between_answers_with_is_not_taken_for_our_server(
    judging, page_in_between
):
    first = shown(judging)
    judging.route("**/judge/*/", lambda route: route.fulfill(status=200, **page_in_between))
    press(judging, "dc")
    expect(judging.locator("[data-saved]")).to_have_text("saved offline")
    expect(judging.locator("#offline")).to_contain_text("Server error.")
    assert judging.evaluate("Object.keys(localStorage).some(k => k.startsWith('judge:draft'))")
    press(judging, [*"ba0", "Enter"])
    expect(judging.locator("#offline")).to_contain_text("1 answer is saved here")
    assert not Judgment.objects.exists()
    judging.unroute_all()
    judging.evaluate("dispatchEvent(new Event('online'))")
    wait_until_sent(judging, 1)
    first.refresh_from_db()
    assert in_letters(first, "helpfulness") == {"D": 1, "C": 2, "B": 3, "A": 4}


def test_an_answer_to_what_is_gone_blocks_nothing_and_can_be_copied_and_discarded(
    judging, context, live_server, ada
):
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=live_server.url)
    gone, foreign = shown(judging), judging.locator("#foreign")
    press(judging, "cdab0")
    judging.locator("[name=reason]").fill("The second one is kinder.")
    judging.keyboard.press("Escape")
    Assignment.objects.filter(pk=gone.pk).delete()
    judging.locator("body").click(position={"x": 1, "y": 1})
    press(judging, ["Enter"])
    expect(foreign).to_be_visible()
    expect(foreign).to_contain_text("The server rejected one of your answers")
    expect(judging.locator("#offline")).to_be_hidden()
    # The next one is judged and sent past it.
    second = shown(judging)
    assert second.pk != gone.pk
    press(judging, "abcd0")
    press(judging, ["Enter"])
    judging.wait_for_function(
        "() => JSON.parse(localStorage[Object.keys(localStorage).find("
        "k => k.startsWith('judge:outbox'))]).length === 1"
    )
    second.refresh_from_db()
    assert second.judgment is not None
    # It is still there after the page is opened anew, with what was said.
    judging.goto(f"{live_server.url}/projects/apollo/judge/")
    expect(foreign.locator("textarea")).to_have_value(
        "helpfulness: C > D > A > B\nsafety: A = B = C = D\nreason: The second one is kinder."
    )
    foreign.get_by_role("button", name="Copy").click()
    expect(foreign.get_by_role("button", name="Copied")).to_be_visible()
    assert "The second one is kinder." in judging.evaluate("navigator.clipboard.readText()")
    foreign.get_by_role("button", name="Discard this answer").click()
    expect(foreign).to_be_visible()
    foreign.get_by_role("button", name="Discard permanently").click()
    expect(foreign).to_be_hidden()
    judging.reload()
    expect(judging.locator("form.slot")).to_be_visible()
    expect(foreign).to_be_hidden()
    assert Judgment.objects.count() == 1


def test_the_lease_warns_is_renewed_and_when_lost_keeps_the_answer_as_an_extra(
    watched, live_server, sign_in, project, ada, ben
):
    project.lease_minutes = 4
    project.save()
    comparison = ComparisonFactory(batch=BatchFactory(project=project, name="Round 1"))
    sign_in(ada)
    watched.clock.install()
    watched.goto(f"{live_server.url}/projects/apollo/judge/")
    first = shown(watched)
    lease = watched.locator("#lease")
    expect(watched.locator("#open-compare")).to_be_visible()  # What is loaded later has come.
    expect(lease).to_be_hidden()
    watched.clock.run_for(185_000)
    expect(lease).to_have_text(
        "This comparison is reserved for you for 1 more minute. Extend the time"
    )
    with watched.expect_response(f"**/judge/{first.uid}/"):
        lease.get_by_role("button").click()
    expect(lease).to_be_hidden()
    # Away for longer than that: the place goes to ben, and ada is told, not stopped.
    watched.clock.run_for(250_000)
    expect(lease).to_contain_text("The time for this comparison ran out")
    first.refresh_from_db()
    first.state = State.EXPIRED
    first.save()
    comparison.refresh_from_db()
    comparison.taken, comparison.is_free = 0, True
    comparison.save()
    from annotation.judge.assignment import next_assignment

    assert next_assignment(ben, project).comparison == comparison
    press(watched, "abcd0")
    with watched.expect_response(f"**/judge/{first.uid}/"):
        lease.get_by_role("button").click()
    expect(lease).to_contain_text("Somebody else has this comparison now.")
    press(watched, ["Enter"])
    wait_until_sent(watched, 1)
    first.refresh_from_db()
    assert (first.state, first.is_extra) == (State.JUDGED, True)
    watched.wait_for_selector("#judge-idle", state="attached")


def test_an_answer_is_sent_though_the_browser_has_no_room_to_keep_it(judging):
    press(judging, ["0", "0", "Enter"])
    wait_until_sent(judging, 1)
    judging.evaluate(
        """() => {
            for (let size = 2 ** 22; size >= 1; size >>= 1)
                for (let n = 0; n < 3; n++)
                    try { localStorage.setItem(`full ${size} ${n}`, "x".repeat(size)); } catch {}
        }"""
    )
    with judging.expect_response(lambda answer: answer.request.method == "POST"):
        press(judging, ["0", "0", "Enter"])
    expect(judging.locator("#today")).to_have_text("2")
    assert Judgment.objects.count() == 2


def test_a_correction_that_is_refused_says_so_and_stays_in_view(judging, live_server, batch, grace):
    first = shown(judging)
    press(judging, ["0", "0", "Enter"])
    wait_until_sent(judging, 1)
    judging.goto(f"{live_server.url}/projects/apollo/judge/{first.uid}/")
    close_batch(batch, grace)
    press(judging, ["a", "2", "Enter"])
    expect(judging.locator("#refused")).to_contain_text("is closed")
    expect(judging.locator("form.slot")).to_have_attribute("data-uid", str(first.uid))
    expect(line(judging)).to_have_text("B = C = D > A")
    assert Judgment.objects.count() == 1


def sign_in_elsewhere(page, live_server, name):
    """The same browser's other tab, in which somebody signs in."""
    other = page.context.new_page()
    other.goto(f"{live_server.url}/accounts/login/")
    other.fill("[name=login]", name)
    other.fill("[name=password]", "a long enough password")
    other.press("[name=password]", "Enter")
    other.wait_for_url(lambda url: "login" not in url)
    other.close()


def test_long_guidelines_typed_while_the_session_ended_are_saved_after_all(
    watched, live_server, sign_in, grace, project
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/settings/")
    watched.fill("[name=guidelines]", "Be kind, and say why. " * 40)
    watched.context.clear_cookies(name="sessionid")
    watched.click("button[value=save]")
    expect(watched.get_by_role("heading", level=1)).to_have_text("You are signed out")
    sign_in_elsewhere(watched, live_server, "grace")
    watched.get_by_role("button", name="Send it again").click()
    watched.wait_for_url("**/projects/apollo/settings/")
    expect(watched.get_by_role("status").filter(has_text="Saved.")).to_be_visible()
    project.refresh_from_db()
    assert project.guidelines.startswith("Be kind, and say why.")


def test_a_page_that_is_kept_up_to_date_keeps_what_it_shows_when_it_no_longer_can(
    watched, live_server, sign_in, grace, batch
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/")
    ask = "htmx.ajax('GET', location.pathname, {source: '#batch-list'})"
    watched.context.clear_cookies(name="sessionid")
    watched.evaluate(ask)
    expect(watched.locator("[data-connection=signed-out]")).to_be_visible()
    expect(watched.locator("#batch-list h3")).to_have_text("Round 1")

    sign_in(grace)
    watched.route(
        "**/projects/apollo/", lambda route: route.fulfill(status=502, body="Bad gateway")
    )
    watched.evaluate(ask)
    expect(watched.locator("[data-connection=gone]")).to_be_visible()
    expect(watched.locator("[data-connection=signed-out]")).to_be_hidden()
    expect(watched.locator("#batch-list h3")).to_have_text("Round 1")

    watched.unroute("**/projects/apollo/")
    watched.evaluate(ask)
    expect(watched.locator("[data-connection=gone]")).to_be_hidden()
    expect(watched.locator("#batch-list h3")).to_have_text("Round 1")


def test_a_file_that_is_checked_while_signed_out_is_checked_once_they_are_back(
    watched, live_server, sign_in, grace, project
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/apollo/prompts/import/")
    watched.context.clear_cookies(name="sessionid")
    watched.set_input_files(
        "[name=file]",
        {"name": "p.jsonl", "mimeType": "text/plain", "buffer": b'{"prompt": "Hello?"}\n'},
    )
    expect(watched.locator("[data-connection=signed-out]")).to_be_visible()
    sign_in_elsewhere(watched, live_server, "grace")
    watched.get_by_role("button", name="Check only").click()
    expect(watched.locator("#outcome")).to_contain_text("Hello?")
    expect(watched.locator("[data-connection=signed-out]")).to_be_hidden()
