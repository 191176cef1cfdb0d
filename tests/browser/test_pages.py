"""Every page in light and dark at two widths: nothing refused by the policy, no barrier by WCAG 2.2,

no sideways scrolling, no other host.
"""

import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LOOKS = [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]


# Every rule of WCAG 2.2, A and AA; axe leaves those of 2.2 out unless they are asked for.
WCAG = {"wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"}


# A bar that sticks to an edge, or a menu that somebody opened, lies over whatever happens to be
# scrolled there, and axe then takes what it sees of a target for the whole. So they are laid into the
# page while it looks; that a bar hides no focus is asked by `hidden_focus`.
FLATTEN = """() => {
    window.flattened = [...document.querySelectorAll("body *")]
        .filter((e) => !e.closest("dialog, .visually-hidden"))
        .filter((e) => e.matches(".menu-items") || ["sticky", "fixed"].includes(getComputedStyle(e).position))
        .map((e) => [e, e.style.position]);
    for (const [e] of window.flattened) e.style.position = "static";
}"""
RAISE = "() => { for (const [e, was] of window.flattened) e.style.position = was; }"


def barriers(page):
    """What axe-core finds against WCAG 2.2 AA, and what else it calls serious, one line each."""
    rules = {"type": "tag", "values": [*sorted(WCAG), "best-practice"]}
    page.evaluate(FLATTEN)
    found = Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]})
    page.evaluate(RAISE)
    return [
        f"{violation['id']}: {node['html'][:160]} — {node['failureSummary'][:200]}"
        for violation in found.response["violations"]
        if WCAG & set(violation["tags"])
        or violation["impact"] in ("serious", "critical")
        or violation["id"] in ("landmark-unique", "heading-order")
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


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_entry_of_the_menu_stands_on_one_line(
    watched, live_server, sign_in, ada, language, width
):
    ada.language = language
    ada.save()
    sign_in(ada)
    watched.set_viewport_size({"width": width, "height": 900})
    watched.goto(live_server.url)
    watched.locator(".menu > summary", has_text="ada").click()
    entries = watched.locator(".menu[open] :is(a, button)")
    heights = entries.evaluate_all("all => all.map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 10
    assert max(heights) <= 40
    assert watched.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("scheme", "width"), LOOKS)
def test_the_sign_in_page_is_sound(watched, live_server, scheme, width):
    assert_sound(watched, scheme, width, f"{live_server.url}/accounts/login/")
