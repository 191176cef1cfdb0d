"""A real Chromium against a real server.

Chromium is looked for on the PATH, then among Playwright's own. Where there is none these tests
are skipped, saying how to get one; with REQUIRE_BROWSER=1 (continuous integration) that is a failure.
"""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

# Playwright's synchronous interface runs an event loop in the test's thread, and Django refuses
# database work beside a running loop unless told that it is meant.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"

HOW = "install one with `apt-get install chromium` or `.venv/bin/playwright install chromium`"


def chromium() -> str | None:
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@pytest.fixture(scope="session")
def chromium_path():
    found = chromium()
    if found is None:
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail(f"REQUIRE_BROWSER=1, but there is no Chromium: {HOW}")
        pytest.skip(f"there is no Chromium: {HOW}")
    return found


@pytest.fixture(scope="session")
def browser_type_launch_args(chromium_path):
    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    if os.geteuid() == 0:
        quiet.append("--no-sandbox")
    return {"executable_path": chromium_path, "args": [*quiet, "--disable-sync", "--no-first-run"]}


@pytest.fixture
def refused():
    """What the content security policy of any page refused, as the pages tell it themselves: asking
    a page at the end would wait for ever where it is just being left."""
    return []


@pytest.fixture
def context(context, refused):
    """Every page notes what its content security policy refused, and says so."""
    context.expose_binding("sayRefused", lambda _, what: refused.append(what))
    context.add_init_script(
        "window.refused = []; document.addEventListener('securitypolicyviolation', e => {"
        " const what = e.violatedDirective + ' ' + e.blockedURI;"
        " window.refused.push(what); window.sayRefused(what); });"
    )
    return context


@pytest.fixture
def sign_in(context, live_server, client):
    """sign_in(user): this browser is now that person's."""

    def act(user):
        client.force_login(user)
        cookie = client.cookies["sessionid"]
        context.add_cookies([{"name": "sessionid", "value": cookie.value, "url": live_server.url}])

    return act


@pytest.fixture
def watched(page, live_server, refused):
    """The page, failing at the end if it raised, broke its policy or called another host."""
    problems = []
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on(
        "request",
        lambda request: (
            problems.append(f"other host: {request.url}")
            if not request.url.startswith((live_server.url, "data:", "blob:"))
            else None
        ),
    )
    yield page
    page.wait_for_timeout(20)  # for what pages have to say; it asks no page
    assert not problems + refused
