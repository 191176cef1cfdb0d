"""What the judging page weighs: everything a browser fetches to show it, before any compression."""

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders

from annotation.models import Response
from annotation.protocols import PRESETS
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory

pytestmark = pytest.mark.django_db

FIRST_LOAD, LATER, EACH_NEXT = 120 * 1024, 20 * 1024, 15 * 1024  # bytes

# A prompt and an answer of the usual length: of 18,000 answers of instruction data half are shorter.
QUESTION = "My neighbour asked me to look after her plants while she is away for two weeks. " * 2
ANSWER = (
    "**Once a week is enough** for most plants in a pot.\n\n"
    "1. Put a finger into the soil: if it is dry two centimetres down, water it.\n"
    "2. Pour slowly until water comes out below, and empty the saucer.\n"
    "3. Keep them out of the midday sun while nobody is there to move them.\n\n"
    "Yellow leaves and a smell of mould say that it had too much; limp ones that it had too little."
)


def asked(client, project, ada, key, language):
    """Three comparisons under a preset, for somebody who reads in this language."""
    preset = PRESETS[key]
    project.interface, project.protocol = preset.interface, preset.protocol.as_json()
    project.axes = [dict(axis) for axis in preset.axes]
    project.save()
    ada.language = language
    ada.save()
    batch = BatchFactory(project=project, name="Round 1")
    for n in range(3):
        prompt = PromptFactory(
            project=project, messages=[{"role": "user", "content": f"Question {n}: {QUESTION}"}]
        )
        ComparisonFactory(batch=batch, prompt=prompt, responses=preset.n_responses)
    Response.objects.update(text=ANSWER)
    client.force_login(ada)


def fetched(html):
    """Every file that the page makes a browser load, scripts' own imports included: {path: bytes}.

    What a script loads after the page is shown (`import(…)` in judge.js) is not among them.
    """
    wanted = re.findall(r'<(?:link|script)[^>]*?(?:href|src)="/static/([^"]+)"', html)
    files = {}
    while wanted:
        path = wanted.pop()
        if path in files:
            continue
        files[path] = Path(finders.find(path)).read_bytes()
        if path.endswith(".js"):
            folder = path.rsplit("/", 1)[0]
            for found in re.findall(rb'(?m)^import .*"\./([^"]+)"', files[path]):
                wanted.append(f"{folder}/{found.decode()}")
    return {path: len(contents) for path, contents in files.items()}


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("key", PRESETS)
def test_the_first_load_and_every_next_comparison_stay_light(client, project, ada, key, language):
    asked(client, project, ada, key, language)
    page = client.get("/projects/apollo/judge/").content
    assert f'<html lang="{language}"'.encode() in page
    files = fetched(page.decode())
    assert any(path.endswith("judge.js") for path in files)
    assert any(path.startswith("js/judge/") for path in files)
    total = len(page) + sum(files.values())
    after = re.search(r'data-after="([^"]+)"', page.decode())[1]
    shown = page.count(b'class="response"')
    following = client.get(after, headers={"X-Has-Responses": str(shown)}).content
    wanted = 0 if PRESETS[key].interface == "demonstrate" else PRESETS[key].n_responses
    assert following.count(b'class="response"') == wanted
    assert total <= FIRST_LOAD, (total, len(page), files)
    after_it = fetched('<script src="/static/js/judge/later.js">')
    assert sum(size for path, size in after_it.items() if path not in files) <= LATER, after_it
    assert b'data-uid="' in following
    assert len(following) <= EACH_NEXT, len(following)


def test_the_page_loads_nothing_that_it_does_not_use(client, project, ada):
    asked(client, project, ada, "rank", "en")
    files = fetched(client.get("/projects/apollo/judge/").content.decode())
    assert not any("htmx" in path or "uplot" in path for path in files)
