"""Mission control, a round, pre-flight and the dashboard in a real Chromium."""

from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.models import Event
from rlhf import rounds
from rlhf.models import Job, Round
from tests.browser.test_pages import WIDTHS, assert_sound_in_every_look
from tests.factories import PromptFactory, SourceFactory
from tests.rlhf.factories import flight, new_job, ppo_metrics

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def mission(project, grace):
    rows = flight(project, grace)
    rows["worker"].seen_at = timezone.now() + timedelta(hours=1)
    rows["worker"].save()
    return rows


def test_the_pages_of_rounds_are_sound(mission, project, grace, watched, live_server, sign_in):
    sign_in(grace)
    base = f"{live_server.url}/projects/{project.slug}"
    for path in (
        "/rounds/",
        "/rounds/3/",
        "/rounds/2/",
        "/rounds/2/?stage=reward_model",
        "/rounds/2/?stage=evaluate",
        "/rounds/2/?stage=verdict",
        "/rounds/2/samples/?vs=base",
        "/rounds/compare/?round=1&round=2",
        "/rounds/reward-models/",
        "/rounds/selection/",
        "/models/",
        f"/models/{mission['policies'][2].uid}/",
        "/rounds/3/logs/ppo/",
        "/dashboard/",
        "/dashboard/?judge=model&temperature=0.3",
    ):
        assert_sound_in_every_look(watched, base + path)


def test_at_400_percent_no_page_of_rounds_scrolls_sideways_or_cuts_a_figure(
    mission, project, grace, watched, live_server, sign_in
):
    sign_in(grace)
    watched.set_viewport_size({"width": 320, "height": 256})
    for path in (
        *("rounds/", "rounds/2/", "rounds/3/", "rounds/2/?stage=evaluate", "rounds/2/samples/"),
        *("rounds/compare/?round=1&round=2", "rounds/3/logs/ppo/"),
        f"models/{mission['policies'][2].uid}/",
        *("rounds/reward-models/", "rounds/selection/", "models/", "dashboard/", "campaigns/"),
    ):
        watched.goto(f"{live_server.url}/projects/{project.slug}/{path}")
        assert watched.evaluate("document.documentElement.scrollWidth") <= 320, path
        cut = watched.evaluate(
            "[...document.querySelectorAll('table.stack td')].filter(e => e.scrollWidth >"
            " e.clientWidth + 1 && getComputedStyle(e).whiteSpaceCollapse !== 'preserve')"
            ".map(e => e.textContent.trim())"
        )
        assert cut == [], path


def test_preflight_is_sound(mission, project, grace, watched, live_server, sign_in):
    source = SourceFactory(project=project)
    for _ in range(8):
        PromptFactory(project=project, source=source, split="train")
    sign_in(grace)
    address = f"{live_server.url}/projects/{project.slug}/rounds/launch/"
    assert_sound_in_every_look(watched, address)
    found = watched.locator("#setting-groups [data-setting]:visible")
    assert found.count() == 0, "a page of ten settings, not of 120"
    watched.get_by_label("Find a setting").fill("clip ratio")
    assert [f.get_attribute("data-setting") for f in found.all()] == ["ppo.loss.clip"]
    watched.locator("[name='ppo.loss.clip']").fill("0.3")
    watched.get_by_label("Find a setting").fill("")
    assert found.count() == 0, "what the search has opened is closed again"
    watched.get_by_label("Changed only").check()
    assert "ppo.loss.clip" in [f.get_attribute("data-setting") for f in found.all()]
    watched.get_by_label("Changed only").uncheck()
    for fold in watched.locator("details.fold > summary").all():
        fold.click()
    for width in WIDTHS:
        watched.set_viewport_size({"width": width, "height": 900})
        assert watched.evaluate("document.documentElement.scrollWidth") <= width


def test_curves_are_drawn_share_a_cursor_and_have_a_table(
    mission, project, rita, watched, live_server, sign_in
):
    sign_in(rita)
    watched.goto(f"{live_server.url}/projects/{project.slug}/rounds/2/")
    charts = watched.locator(".curve canvas")
    charts.first.wait_for()
    assert charts.count() == 7
    watched.locator(".curve .u-over").first.hover(position={"x": 40, "y": 40})
    assert watched.locator(".u-cursor-x:not(.u-off)").count() == 7, "one cursor over all charts"
    first = watched.locator(".curve").first
    first.locator(".plot").focus()
    watched.keyboard.press("Home")
    watched.keyboard.press("ArrowRight")
    assert first.locator(".at").inner_text() == "step 2"
    assert "step 2: combined" in first.locator(".plot").get_attribute("aria-valuetext")
    assert watched.locator(".curve").nth(2).locator(".at").inner_text() == "step 2"
    first.locator("summary").click()
    first.locator("tbody tr").nth(13).wait_for()
    assert first.locator("tbody tr").count() == 14
    before = watched.evaluate("document.querySelector('.curve canvas').toDataURL()")
    watched.evaluate("document.querySelector('[data-theme-choice=dark]').click()")
    after = watched.evaluate("document.querySelector('.curve canvas').toDataURL()")
    assert before != after, "the theme's colors reach the canvas"


def test_new_steps_arrive_without_a_reload_and_asking_stops_with_the_stage(
    mission, project, rita, watched, live_server, sign_in
):
    asked = []
    watched.on("request", lambda r: asked.append(r.url) if r.method == "GET" else None)
    sign_in(rita)
    watched.goto(f"{live_server.url}/projects/{project.slug}/rounds/3/")
    first = watched.locator(".curve").first
    first.locator("canvas").wait_for()
    log = watched.locator(".fold > summary", has_text="Log")
    log.click()
    first.locator("summary").click()
    first.locator("tbody tr").nth(8).wait_for()
    assert first.locator("tbody tr").count() == 9
    log.focus()
    ppo_metrics(mission["running"].run_dir, 12, seed=3)
    watched.locator(".curve").first.locator("tbody tr").nth(11).wait_for(timeout=8000)
    assert any("after=9" in url for url in asked), "only what is new is asked for"
    # Polling redraws around the person: what they opened stays open, focus stays where it is.
    watched.wait_for_timeout(2500)
    assert log.evaluate("e => e.parentElement.open")
    assert log.evaluate("e => e === document.activeElement")
    Job.objects.update(state="done", ended_at=timezone.now())
    Round.objects.filter(number=3).update(state="done", ended_at=timezone.now())
    watched.locator("#round-poll").wait_for(state="detached", timeout=8000)
    watched.wait_for_timeout(2500)
    asked.clear()
    watched.wait_for_timeout(4500)
    assert asked == [], "nothing runs, so nothing is asked"


def test_mission_control_polls_while_something_runs_and_then_stops(
    mission, project, grace, watched, live_server, sign_in
):
    asked = []
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/{project.slug}/rounds/")
    watched.on("request", lambda request: asked.append(request.url))
    chosen = watched.get_by_label("Compare Round 2")
    chosen.check()
    link = watched.locator("#round-2 a").first
    link.focus()
    Job.objects.filter(pk=mission["running"].pk).update(progress={})
    watched.wait_for_timeout(5000)
    assert len(asked) >= 2
    assert link.evaluate("e => e === document.activeElement")
    assert chosen.is_checked(), "what is chosen stays chosen when the page refreshes"
    Job.objects.update(state="done", ended_at=timezone.now())
    Round.objects.filter(number=3).update(state="done", verdict="refused", ended_at=timezone.now())
    watched.locator("#mission-poll").wait_for(state="detached", timeout=8000)
    assert watched.locator("#round-3 .badge", has_text="rejected").count() == 1
    asked.clear()
    watched.wait_for_timeout(4500)
    assert asked == []


def test_everything_on_a_rounds_page_follows_what_others_do_without_a_reload(
    mission, project, grace, watched, live_server, sign_in
):
    sign_in(grace)
    watched.goto(f"{live_server.url}/projects/{project.slug}/rounds/3/")
    watched.locator("h2", has_text="PPO").wait_for()
    third = mission["rounds"][3]
    job = mission["running"]
    job.state, job.ended_at = "done", timezone.now()
    job.save()
    third.policy = mission["policies"][1]
    third.save()
    rounds.enter_next(rounds.enter_next(third).round)  # evaluate, and the verdict
    Job.objects.filter(round=third).update(state="done", ended_at=timezone.now())
    Event.record(project, None, "finished", f"evaluate of {third}")
    note = watched.get_by_label("Reason")
    note.wait_for(timeout=8000)
    watched.get_by_text("finished evaluate of Round 3").wait_for()
    note.fill("It answers everything.")
    Event.record(project, None, "retried", f"evaluate of {third}")
    watched.get_by_text("retried evaluate of Round 3").wait_for(timeout=15000)
    assert note.input_value() == "It answers everything.", "what is typed stays"


def test_a_round_in_doubt_is_decided_on_its_page(
    mission, project, grace, watched, live_server, sign_in
):
    third = mission["rounds"][3]
    mission["running"].delete()
    chance = {"accuracy": 0.52, "accuracy_ci": [0.42, 0.62], "n": 60}
    found = {"train": {"helpfulness": chance}, "updates": {"train": 1, "test": 1}}
    third.state = "reward_model"
    third.save()
    rounds.advance(new_job(third, "reward_model", metrics=found))
    sign_in(grace)
    address = f"{live_server.url}/projects/{project.slug}/rounds/3/"
    assert_sound_in_every_look(watched, address)
    watched.get_by_text("PPO does not start by itself").wait_for()
    watched.locator("summary", has_text="Go on to PPO anyway").click()
    watched.get_by_label("Reason").fill("A rehearsal.")
    for width in WIDTHS:
        watched.set_viewport_size({"width": width, "height": 900})
        assert watched.evaluate("document.documentElement.scrollWidth") <= width
    watched.get_by_role("button", name="I have read this; go on to PPO").click()
    watched.get_by_text("let this round go on with reward models in doubt").wait_for()
    assert_sound_in_every_look(watched, address)
