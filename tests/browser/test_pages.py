"""Every page in light and dark at two widths: nothing refused by the policy, no serious barrier,

no sideways scrolling, no other host.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]


def barriers(page):
    """axe-core's serious and critical findings, one line each."""
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        f"{violation['id']}: {node['html'][:160]} — {node['failureSummary'][:200]}"
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def assert_sound(page, scheme, width, url):
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    answer = page.goto(url)
    assert answer.status == 200, url
    page.wait_for_load_state("load")
    assert barriers(page) == [], f"{url} {scheme} {width}"
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, f"{url} scrolls sideways at {width}: {wide}"
    assert page.evaluate("window.refused") == [], url


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_sign_in_page_is_sound(watched, live_server, scheme, width):
    assert_sound(watched, scheme, width, f"{live_server.url}/accounts/login/")
