"""Every page in light and dark at two widths: nothing refused by the policy, no barrier by WCAG 2.2,

no sideways scrolling, no other host.
"""

import pytest
from axe_playwright_python.base import AXE_SCRIPT

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WIDTHS = (1280, 390)
LOOKS = [(scheme, width) for width in WIDTHS for scheme in ("light", "dark")]


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


# What a color scheme changes: colors. axe's other rules read the document, its names, sizes and places.
OF_COLOR = ["color-contrast", "link-in-text-block"]


def barriers(page, *, only=None, within="html"):
    """What axe-core finds against WCAG 2.2 AA, and what else it calls serious, one line each.

    `only`: the names of the rules to ask (None: all); `within`: the part of the page to look at."""
    rules = {"type": "tag", "values": [*sorted(WCAG), "best-practice"]}
    if only:
        rules = {"type": "rule", "values": only}
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    page.evaluate(FLATTEN)
    found = page.evaluate(
        """async ([within, options]) => (await axe.run(within, options)).violations.map((found) => ({
            id: found.id, tags: found.tags, impact: found.impact,
            nodes: found.nodes.map((node) => [node.html, node.failureSummary]),
        }))""",
        [within, {"runOnly": rules, "resultTypes": ["violations"]}],
    )
    page.evaluate(RAISE)
    return [
        f"{violation['id']}: {html[:160]} — {summary[:200]}"
        for violation in found
        if WCAG & set(violation["tags"])
        or violation["impact"] in ("serious", "critical")
        or violation["id"] in ("landmark-unique", "heading-order")
        for html, summary in violation["nodes"]
    ]


def assert_sound(page, scheme, width, url):
    """The page opened in one look."""
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.set_viewport_size({"width": width, "height": 900})
    answer = page.goto(url)
    assert answer.status == 200, url
    page.wait_for_load_state("load")
    assert barriers(page) == [], f"{url} {scheme} {width}"
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, f"{url} scrolls sideways at {width}: {wide}"
    assert page.evaluate("window.refused") == [], url


def assert_sound_in_every_look(page, *urls):
    """The pages opened at each width, and there in both color schemes."""
    for url in urls:
        for width in WIDTHS:
            assert_sound(page, "light", width, url)
            assert_sound_in_the_dark(page, url)


def assert_sound_in_the_dark(page, where, within="html"):
    """The page as it stands: switched to dark, asked for what depends on colors, and back to light."""
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    assert barriers(page, only=OF_COLOR, within=within) == [], f"{where} in the dark"
    page.emulate_media(color_scheme="light", reduced_motion="reduce")


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
    assert max(heights) <= 48  # 44 is a fingertip; two lines would be 60 or more.
    assert watched.evaluate("document.documentElement.scrollWidth") <= width


def test_the_sign_in_page_is_sound(watched, live_server):
    assert_sound_in_every_look(watched, f"{live_server.url}/accounts/login/")
