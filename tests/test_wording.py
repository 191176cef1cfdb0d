"""How documents and pages write: avoided words, spelling, times, shares, plurals, names of stages."""

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.utils import translation

from annotation.lib.numbers import decimal, share
from annotation.protocols import DIALOGUE
from annotation.quality.gold_items import add_gold_items
from config.api_reference import _groups
from rlhf.computing_cost import round_cost
from rlhf.models import Job
from rlhf.preflight import check_sources
from rlhf.round_config import preset
from tests import wording
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, SourceFactory, judged

TEMPLATES = sorted(Path(settings.BASE_DIR, "templates").rglob("*.html"))
CHECKED = [
    "README.md",
    "CHANGELOG.md",
    "docs",
    "templates",
    "annotation",
    "rlhf",
    "config",
    "static/js",
]
UNCHANGED = [
    "annotation/migrations",
]
"""Parts of CHECKED that stay as they were written: migrations hold the words of their time."""


@pytest.mark.parametrize("place", CHECKED)
def test_prose_is_plain_and_in_us_spelling(place):
    root = Path(settings.BASE_DIR)
    files = [root / place, *sorted(root.joinpath(place).rglob("*"))]
    names = [f.relative_to(root).as_posix() for f in files if f.suffix in wording.READERS]
    names = [name for name in names if not name.startswith(tuple(UNCHANGED))]
    avoided = [line for name in names for line in wording.avoided_in(root / name, name)]
    assert avoided == []


def test_every_word_that_stays_is_still_used():
    root = Path(settings.BASE_DIR)
    unused = [(f, w) for f, w in wording.ALLOWED if w not in root.joinpath(f).read_text().lower()]
    assert unused == []


@pytest.mark.parametrize(
    ("suffix", "text", "word"),
    [
        (".md", "The figures are reckoned.", "reckoned"),
        (".html", '{% translate "Mend the file" %}', "mend"),
        (
            ".html",
            '<b title="{{ x }}">{% blocktranslate %}Drawn by lot{% endblocktranslate %}</b>',
            "by lot",
        ),
        (".py", 'raise ValueError("Each caution is listed.")', "caution"),
        (".py", "x = 1  # normalised below", "normalised"),
        (".js", 'show("for ever and a day");', "for ever"),
    ],
)
def test_avoided_words_are_found_in_every_kind_of_file(tmp_path, suffix, text, word):
    path = tmp_path / f"page{suffix}"
    path.write_text(text)
    assert wording.avoided_in(path, path.name) == [f"{path.name}: {word} → {wording.better(word)}"]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".md", "The key `licence` and the setting `normalise_samples` stay.\n```\nanew\n```\n"),
        (".py", 'check = {"verdict": "caution"}\nrow.licence = 1'),
        (".html", '<p class="colour">{{ source.licence }}</p>'),
    ],
)
def test_code_and_keys_are_no_prose(tmp_path, suffix, text):
    path = tmp_path / f"page{suffix}"
    path.write_text(text)
    assert wording.avoided_in(path, path.name) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_time_of_day_names_its_zone(path):
    for time_format in re.findall(r'date:_?\(?"([^"]*H:i[^"]*)"', path.read_text()):
        assert time_format.endswith(" T"), f"{path.name}: {time_format}"


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [(0.59, 0, "59 %"), (-0.04, 0, "−4 %"), (-0.001, 0, "0 %"), (0.7689, 1, "76.9 %")],
)
def test_a_share_has_a_real_minus_and_keeps_its_per_cent_sign_on_the_line(value, places, text):
    assert share(value, places) == text.replace(" ", "\N{NO-BREAK SPACE}")


def test_figures_are_written_as_the_reader_writes_them():
    assert decimal(-0.17) == "−0.17"
    assert decimal(-0.001) == "0.00"
    with translation.override("de"):
        assert decimal(0.61) == "0,61"


def test_the_api_reference_has_whole_sentences_without_backticks(db):
    summaries = [e["summary"] for group in _groups() for e in group["endpoints"]]
    assert [s for s in summaries if not s.endswith(".") or "`" in s] == []


@pytest.fixture
def with_gold(project, grace):
    row = {"prompt": "What is one plus one?", "responses": ["2", "3"], "ranks": [1, 2]}
    add_gold_items(project, [row], grace)
    return project


def test_gold_counts_its_items_in_the_singular(client, with_gold, grace):
    client.force_login(grace)
    page = client.get("/projects/apollo/quality/gold/").content.decode()
    assert "1 item is a hidden check, 0 are in the qualification round." in " ".join(page.split())


def test_nobody_is_asked_to_sign_off_what_is_never_data(client, with_gold, grace):
    client.force_login(grace)
    assert "to sign off" not in client.get("/").content.decode()
    assert "/sign-off/" not in client.get("/projects/apollo/sources/").content.decode()
    assert check_sources(with_gold).verdict == "go"
    SourceFactory(project=with_gold, name="Scraped", signed_off_at=None)
    assert "1 source to sign off" in client.get("/").content.decode()


@pytest.mark.django_db
def test_a_batch_without_a_number_to_reach_shows_none(client, project, grace):
    BatchFactory(project=project, name="Empty")
    talk = BatchFactory(project=project, name="Talk", interface=DIALOGUE)
    judged(project, batch=talk)
    client.force_login(grace)
    for url in ("/", "/projects/apollo/"):
        page = client.get(url).content.decode()
        assert "<progress" not in page, url
        assert "0 / 0" not in page, url
        assert "0 of 0" not in page, url
    one = BatchFactory(project=project, name="One")
    ComparisonFactory(batch=one, prompt=PromptFactory(project=project))
    page = " ".join(client.get("/projects/apollo/").content.decode().split())
    assert "0 of 1 judgment <" in page


def test_quality_praises_nobody_before_anybody_judged(client, project, ada, grace):
    client.force_login(grace)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "No judgments yet." in page
    assert "Nobody stands out" not in page


def test_a_project_without_prompts_begins_with_their_import(client, project, grace, ada):
    client.force_login(grace)
    page = client.get("/projects/apollo/").content.decode()
    assert 'class="button primary" href="/projects/apollo/prompts/import/"' in page
    PromptFactory(project=project)
    page = client.get("/projects/apollo/").content.decode()
    assert "/prompts/import/" not in page


def test_a_worker_is_at_a_stage_by_the_name_that_people_use(project):
    job = Job(project=project, stage="reward_model")
    assert job.stage_name == "reward model"
    assert Job(project=project, stage="ppo").stage_name == "PPO"


def test_the_estimate_calls_stages_as_people_do(project):
    estimate = round_cost(project, preset("tiny"))
    assert "reward model" in estimate.evidence
    assert "reward_model" not in estimate.evidence


def test_the_closed_sign_up_page_says_whom_to_ask(client, db):
    page = client.get("/accounts/signup/").content.decode()
    assert "A project's admin creates accounts" in page
    assert 'href="/accounts/login/"' in page
