"""The annotator's pages in German: nothing left English, and catalogues that match the sources."""

import ast
import importlib.util
import json
import re
from functools import cache
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from babel.messages.pofile import read_po
from django.conf import settings
from django.test import Client
from django.urls import URLResolver, reverse
from django.utils import timezone
from django.utils.html import escape

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import skip, submit_judgment
from annotation.models import Judgment, Membership
from annotation.projects.guidelines import change_guidelines
from annotation.protocols import PRESETS
from annotation.quality.gold_items import add_gold_items
from annotation.templatetags.phrases import number_of, sentences_of
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    ProjectFactory,
    PromptFactory,
    judged,
    key,
    member,
)

LOCALE = Path(settings.BASE_DIR) / "locale"


def test_the_catalogues_say_what_the_pages_say(capsys):
    """After a change of words: `python locale/make.py`, translate what it prints, run it again."""
    spec = importlib.util.spec_from_file_location("make_locale", LOCALE / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert make.main(check=True) == 0, capsys.readouterr().out


def script_sentences():
    po = LOCALE / "de" / "LC_MESSAGES" / "djangojs.po"
    for message in read_po(BytesIO(po.read_bytes()), locale="de"):
        if message.id:
            yield message.id if isinstance(message.id, str) else message.id[0]


def test_no_two_sentences_of_scripts_have_one_number():
    sentences = list(script_sentences())
    assert len({number_of(one) for one in sentences}) == len(sentences) > 50


def test_every_sentence_of_a_script_is_found_where_a_page_looks_for_it():
    found = set()
    scripts = ("judge.js", "judge/later.js", "judge/writing.js", "dialogue.js", "review.js")
    for path in (f"js/{script}" for script in scripts):
        found |= set(sentences_of(path))
    assert found == set(script_sentences())


@pytest.mark.django_db
def test_a_page_carries_the_words_of_its_own_scripts_alone(client, project, german_ada):
    ask(project)
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    block = re.search(r'<script id="phrases"[^>]*>(.*?)</script>', page)[1]
    said = json.loads(block)
    assert said[number_of("Reopen")] == "Wieder öffnen"
    assert "ö" in block
    own = {*sentences_of("js/judge.js"), *sentences_of("js/judge/later.js")}
    theirs = set(sentences_of("js/dialogue.js")) - own
    assert theirs
    assert not any(number_of(one) in said for one in theirs)


def german():
    """Every translation, as a pattern in which a placeholder is anything."""
    patterns = []
    for domain in ("django", "djangojs"):
        po = LOCALE / "de" / "LC_MESSAGES" / f"{domain}.po"
        for message in read_po(BytesIO(po.read_bytes()), locale="de"):
            strings = message.string if isinstance(message.string, tuple) else [message.string]
            for string in strings if message.id else []:
                parts = re.split(r"%\(\w+\)s|<[^>]+>", string.replace("%%", "%"))
                patterns.append(".*?".join(re.escape(part) for part in parts))
    return re.compile("|".join(sorted(patterns, key=len, reverse=True)))


class Said(HTMLParser):
    """What a page says: its texts, and the attributes that are read aloud or shown."""

    def __init__(self):
        super().__init__()
        self.said, self.quiet = [], 0

    def handle_starttag(self, tag, attrs):
        self.quiet += tag in ("script", "style")
        self.said += [
            value
            for name, value in attrs
            if name in ("aria-label", "title", "placeholder", "alt", "data-name") and value
        ]

    def handle_endtag(self, tag):
        self.quiet -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.quiet:
            self.said.append(data)


GERMAN = german()
# What belongs to the project or the machine, and what two languages share.
GIVEN = re.compile(
    r"Apollo|Ground Control|ada|ben|vera|grace|Round 1|Esc|API|Deutsch|English|EUR|how-to|\{\"prompt\": .*|"
    r"(?:vor|jetzt|in) ?.*|How do I water plant number \d+\?|Answer \d: give it a little water\."
)
WORDS = re.compile(r"[^\W\d_]{2,}")


def left_english(html):
    """Pieces of a page's text that are neither German from the catalogue nor given."""
    reader = Said()
    reader.feed(html)
    return [text for piece in reader.said if is_english(text := " ".join(piece.split()))]


@cache
def is_english(text):
    # Most pieces have no word, or occur on every page.
    if not WORDS.search(text):
        return False
    for known in (GERMAN, GIVEN):
        if known.fullmatch(text.strip(" ·▾◐○●☰⚑()[]:,.")) or known.fullmatch(text):
            return False
    return bool(WORDS.search(GIVEN.sub("", GERMAN.sub("", text))))


@pytest.fixture
def german_ada(client, project, ada):
    ada.language = "de"
    ada.save()
    client.force_login(ada)
    return ada


def ask(project, preset=None):
    if preset is not None:
        project.interface, project.protocol = preset.interface, preset.protocol.as_json()
        project.axes = [dict(axis) for axis in preset.axes]
        project.save()
    batch = BatchFactory(project=project, name="Round 1")
    few = 4 if preset is None or preset.interface == "rank" else 2
    return ComparisonFactory(batch=batch, responses=few)


@pytest.mark.django_db
@pytest.mark.parametrize("preset", PRESETS)
def test_no_word_of_the_judging_page_stays_english(client, project, german_ada, preset):
    project.guidelines = ""
    ask(project, PRESETS[preset])
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert '<html lang="de"' in page
    assert left_english(page) == []


@pytest.mark.django_db
def test_no_word_around_judging_stays_english(client, project, german_ada, ben, grace):
    project.guidelines = ""
    project.save()
    for _ in range(3):
        comparison = ask(project)
    handed = next_assignment(german_ada, project)
    ids = [str(pk) for pk in handed.shown_order]
    for ranks in ((1, 2, 3, 4), (4, 3, 2, 1)):
        of = dict(zip(ids, ranks, strict=True))
        flags = {ids[0]: [{"kind": "unsafe", "category": "hate"}]}
        given = Answer(ranks=dict.fromkeys(project.axis_keys, of), flags=flags, rewrite="Apollo")
        submit_judgment(handed, by=handed.annotator, answer=given, key=key())
    skip(next_assignment(german_ada, project), "I don't understand the request")
    pages = [
        reverse(name, args=["apollo"]) for name in ("judge", "history", "guidelines", "project")
    ]
    pages.append(reverse("preferences"))
    for url in pages:
        assert left_english(client.get(url).content.decode()) == [], url
    comparison.prompt.risk = "harmful"
    comparison.prompt.save()
    change_guidelines(project, "Apollo", by=grace)
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert "Die Richtlinien haben sich geändert" in page
    assert "Dieser Vergleich enthält schädliche Inhalte." in page
    assert left_english(page) == []
    skip(next_assignment(german_ada, project), "I don't understand the request")
    assert left_english(client.get(pages[0]).content.decode()) == []


@pytest.fixture
def german_quality(project, ada, ben, vera, grace):
    """ada reads, ben puts everything the other way round; who looks at it reads German."""
    for who in (vera, grace):
        who.language = "de"
        who.save()
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(12):
        comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
        judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
        one = judged(project, by=ben, comparison=comparison, ranks=(4, 3, 2, 1))
        Judgment.objects.filter(pk=one.judgment_id).update(seconds=1.0)
    Judgment.objects.filter(pk=one.judgment_id).update(
        flags={str(one.shown_order[0]): [{"kind": "unsafe", "category": "hate"}]}
    )
    row = {"prompt": "Apollo", "responses": ["Apollo", "API"], "ranks": [1, 2]}
    add_gold_items(project, [row], grace)
    Membership.objects.filter(user=ben, project=project).update(
        paused_at=timezone.now(), paused_reason="Apollo"
    )
    return batch


@pytest.mark.django_db
def test_no_word_of_quality_and_review_stays_english(
    client, project, german_quality, ada, ben, vera, grace
):
    client.force_login(grace)
    for where in ("", f"people/{ada.pk}/", f"people/{ben.pk}/", "gold/"):
        page = client.get(f"/projects/apollo/quality/{where}").content.decode()
        assert '<html lang="de"' in page
        assert left_english(page) == [], where
    client.force_login(vera)
    queue = client.get("/projects/apollo/review/")
    assert left_english(queue.content.decode()) == []
    where = f"/projects/apollo/review/{queue.context['first'].uid}/"
    assert left_english(client.get(where).content.decode()) == []
    fields = {"choice": "1", "ground": "facts", "key": key()}
    page = client.post(where, fields | {"ground": "no"}).content.decode()
    assert "Wählen Sie einen Grund." in page
    assert left_english(page) == []
    assert client.post(where, fields).status_code == 302
    page = client.get(where).content.decode()
    assert "Entscheidung gesichert. Die Stimmen bleiben erhalten." in page
    assert left_english(page) == []


@pytest.mark.django_db
def test_what_is_wrong_with_an_answer_is_said_in_german(client, project, german_ada):
    ask(project)
    handed = next_assignment(german_ada, project)
    url = reverse("judge_one", args=["apollo", handed.uid])
    answer = client.post(
        url, {"act": "send", "key": str(key())}, headers={"accept": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["problem"] == (
        "Hilfreich: Geben Sie mindestens zwei Antworten einen Rang."
    )


@pytest.mark.django_db
def test_what_a_project_calls_its_axes_is_left_alone(client, project, german_ada):
    project.axes = [{"key": "tone", "name": "Tonfall (Helpfulness)", "question": ""}]
    project.save()
    ask(project)
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert "Tonfall (Helpfulness)" in page
    assert "Project-Id-Version" not in page, "an empty text has no translation"


@pytest.mark.django_db
def test_figures_in_pictures_are_written_for_machines_in_every_language(client):
    """SVG knows no decimal comma."""
    from rlhf.models import Round

    project = ProjectFactory(slug="apollo", name="Apollo")
    rita = member(project, "rita", "researcher")
    rita.language = "de"
    rita.save()
    Round.objects.create(project=project, number=1, plan=Round.FULL_PLAN)
    client.force_login(rita)
    for name in ("dashboard", "rounds"):
        page = client.get(reverse(name, args=["apollo"])).content.decode()
        broken = re.findall(
            r'\s(?:x|y|x1|x2|y1|y2|cx|cy|r|width|height|d|points)="[^"]*\d,\d[^"]*"', page
        )
        assert not broken


# --- What goes wrong ------------------------------------------------------------------------------

MET_BY_ANNOTATORS = {
    "annotation/judge/submitting.py": {"JudgmentError", "JudgmentConflict"},
    "annotation/judge/answers.py": {"JudgmentError"},
    "annotation/judge/drafts.py": {"JudgmentError"},
    "annotation/judge/requirements.py": {"JudgmentError"},
    "annotation/judge/dialogues.py": {"DialogueError"},
    "annotation/pages/dialogues.py": {"DialogueError"},
    "annotation/judge/candidates.py": {"CandidateError"},
    "rlhf/serving/client.py": {"CandidateError"},
    "rlhf/serving/candidates.py": {"CandidateError"},
}
MET_BY_REVIEWERS = {
    "annotation/quality/gold_items.py": {"GoldError"},
    "annotation/quality/review.py": {"JudgmentError"},
    "annotation/quality/interventions.py": {"QualityError"},
    "annotation/pages/quality.py": {"ValidationError"},
    "annotation/pages/gold.py": {"GoldError", "ValidationError"},
    "annotation/pages/review.py": {"JudgmentError"},
}
MET = MET_BY_ANNOTATORS | MET_BY_REVIEWERS


@pytest.mark.parametrize("path", MET)
def test_every_sentence_that_refuses_somebody_who_judges_goes_through_the_catalogue(path):
    tree = ast.parse((Path(settings.BASE_DIR) / path).read_text())
    said = [
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and node.args
        if getattr(node.func, "id", getattr(node.func, "attr", "")) in MET[path]
        for part in pieces(node.args[0])
    ]
    assert [ast.unparse(one) for one in said] == []


@pytest.mark.parametrize("page", ["quality", "gold", "review", "judge", "dialogues"])
def test_what_the_translated_pages_report_goes_through_the_catalogue(page):
    tree = ast.parse((Path(settings.BASE_DIR) / f"annotation/pages/{page}.py").read_text())
    said = [
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if getattr(node.func.value, "id", "") == "messages" or node.func.attr == "add_error"
        for part in pieces(node.args[1])
    ]
    assert [ast.unparse(part) for part in said] == []


def pieces(node):
    """The words that an expression says by itself: what it calls or names was looked up elsewhere."""
    if isinstance(node, ast.JoinedStr) or isinstance(getattr(node, "value", None), str):
        return [node]
    parts = {ast.BinOp: ("left",), ast.IfExp: ("body", "orelse"), ast.BoolOp: ("values",)}
    found = []
    for name in parts.get(type(node), ()):
        inner = getattr(node, name)
        for one in inner if isinstance(inner, list) else [inner]:
            found += pieces(one)
    return found


WRONG = [
    ({"rank-helpfulness-A": "12", "rank-helpfulness-B": "2"}, "Ein Rang ist eine Zahl von 1 bis 4"),
    ({"rank-helpfulness-A": "1"}, "mindestens zwei Antworten"),
    ({"flag-A": "cursed"}, "Eine Markierung „cursed“ gibt es nicht."),
    ({"rewrite": "x" * 30_000}, "Zu lang (bessere Antwort): 30,000 Zeichen"),
    ({"key": "none"}, "Dem Formular fehlt ein gültiger Schlüssel"),
    ({"act": "dance"}, "Unbekannte Aktion"),
]


WRONG_GOLD = [
    ("[1", "Zeile 1, Zeichen 3: Das ist kein JSON."),
    (
        '{"prompt": "Apollo", "responses": ["a", "b"], "ranks": [1, 2]}\n\n{"prompt": }',
        "Zeile 3, Zeichen 12: Das ist kein JSON.",
    ),
    ("[" * 100_000, "Zeile 1 ist kein lesbares JSON"),
    ("{}", "Eintrag 1, Feld „prompt“: Geben Sie den Prompt als Text an"),
    (
        '{"prompt": "Apollo", "responses": ["a"]}',
        "Feld „responses“: Geben Sie eine Liste aus 2 bis 9",
    ),
    (
        '{"prompt": "Apollo", "responses": ["a", "b"], "ranks": {"helpfulness": [1, 20]}}',
        "Feld „ranks: helpfulness“: Wert 2 ist „20“. Geben Sie eine ganze Zahl von 1 bis 9 an",
    ),
]


@pytest.mark.parametrize(("rows", "words"), WRONG_GOLD)
def test_gold_that_makes_no_sense_is_refused_in_german(client, project, grace, rows, words):
    grace.language = "de"
    grace.save()
    client.force_login(grace)
    page = client.post("/projects/apollo/quality/gold/", {"act": "import", "rows": rows})
    assert page.status_code == 422
    assert words in page.content.decode()
    assert "Nichts wurde hinzugefügt." in page.content.decode()
    assert f">{escape(rows)}</textarea>" in page.content.decode(), "what was written is still there"
    assert not project.gold_items.exists()


@pytest.mark.parametrize(("fields", "words"), WRONG)
def test_a_refused_answer_says_why_in_german(client, project, ada, fields, words):
    ada.language = "de"
    ada.save()
    client.force_login(ada)
    ComparisonFactory(batch=BatchFactory(project=project))
    assignment = next_assignment(ada, project)
    full = {f"rank-{axis}-{x}": n for axis in project.axis_keys for n, x in enumerate("ABCD", 1)}
    if any(name.startswith("rank-") for name in fields):
        full = {}
    given = {"act": "send", "key": str(key())} | full | fields
    url = reverse("judge_one", args=["apollo", assignment.uid])
    answer = client.post(url, given, headers={"Accept": "application/json"})
    assert answer.status_code == 422, answer.content
    assert words in answer.json()["problem"]
    assert left_english(f"<p>{answer.json()['problem']}</p>") in ([], ["cursed"])


def test_a_form_that_was_filled_in_wrongly_says_so_in_german(client, project, ada):
    ada.language = "de"
    ada.save()
    client.force_login(ada)
    answer = client.post(reverse("preferences"), {"break_minutes": "5", "language": "de"})
    page = answer.content.decode()
    assert "10 bis 240 Minuten" in page
    assert "This field" not in page
    assert set(left_english(page)) <= {"Dieses Feld ist zwingend erforderlich."}, (
        "Django's own words"
    )


@pytest.mark.django_db
def test_a_dialogue_is_german_with_all_that_it_can_ask(client, project, german_ada, grace):
    from annotation.judge import dialogue_writing, dialogues
    from tests.annotation.talking import Parrots, answering, new_campaign

    project.interface = "dialogue"
    project.protocol = PRESETS["llama2-dialogue"].protocol.as_json() | {
        "reason": "required",
        "reason_min": 10,
        "all_bad": True,
        "harms": dict(PRESETS["safe-rlhf"].protocol.harms),
    }
    project.save()
    with answering(Parrots(("Apollo", "Apollo ada"))):
        talk = dialogues.begin(
            german_ada,
            new_campaign(project, grace, name="Apollo", kind="redteam"),
            acknowledged=True,
        )
        dialogue_writing.write_turn(dialogues.say(talk, "Apollo", key=key()), tick=0.005)
        url = reverse("dialogue", args=["apollo", talk.uid])
        change_guidelines(project, "Apollo", by=grace)
        for wish in ("warn", "avoid"):
            german_ada.harmful_material = wish
            german_ada.save()
            for page in (url, reverse("dialogues", args=["apollo"])):
                assert left_english(client.get(page).content.decode()) == [], (wish, page)


def test_a_dialogue_that_refuses_says_why_in_german(client, project, ada, grace):
    from annotation.judge import dialogues
    from tests.annotation.talking import Parrots, answering, new_campaign

    ada.language = "de"
    ada.save()
    client.force_login(ada)
    parrots = Parrots()
    with answering(parrots):
        talk = dialogues.begin(ada, new_campaign(project, grace), acknowledged=True)
        url = reverse("dialogue", args=["apollo", talk.uid])
        said = client.post(url, {"act": "say", "text": " ", "key": str(key())})
        assert "Schreiben Sie zuerst eine Nachricht." in said.content.decode()
        dialogues.end(talk)
        said = client.post(url, {"act": "say", "text": "Hallo", "key": str(key())})
        assert "Dieser Dialog ist beendet; beginnen Sie einen neuen." in said.content.decode()


@pytest.mark.django_db
def test_what_is_left_of_a_batch_is_not_on_its_left(client, project, german_quality, vera):
    ComparisonFactory(batch=german_quality, needed=30)
    client.force_login(vera)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "Offene Urteile" in page
    assert "Links" not in page


@pytest.mark.django_db
@pytest.mark.parametrize(
    "page", ["settings", "assignment", "prompts", "data", "rounds", "dashboard"]
)
def test_a_page_that_is_not_in_german_yet_is_english_says_so_and_keeps_its_bar_german(
    client, project, grace, page
):
    """Half of each is read by nobody with pleasure, and by a screen reader in the wrong voice."""
    grace.language = "de"
    grace.save()
    client.force_login(grace)
    html = client.get(f"/projects/apollo/{page}/").content.decode()
    assert '<html lang="en"' in html
    bar, main = html.split("<main")
    assert '<header class="topbar" lang="de">' in bar
    assert "Einstellungen" in bar
    note = '<p class="quiet small" lang="de">Diese Seite gibt es bisher nur auf Englisch.</p>'
    assert note in re.sub(r"\s*\n\s*", "", main)
    assert "Einstellungen" not in main
    assert '<html lang="de"' in client.get("/projects/apollo/").content.decode()


@pytest.mark.django_db
def test_a_date_is_written_as_germans_write_it(client, project, german_quality, ada, vera):
    ComparisonFactory(batch=german_quality, needed=30)
    client.force_login(vera)
    page = client.get("/projects/apollo/quality/").content.decode()
    dates = re.findall(r"<time [^>]*>([^<]*)</time>", page)
    assert len(dates) >= 2, "expected completion, and the batch"
    assert all(re.fullmatch(r"\d+\. [^\W\d_]+\.?, \d\d:\d\d UTC", date) for date in dates), dates
    ada.language = "de"
    ada.save()
    client.force_login(ada)
    page = client.get("/projects/apollo/progress/").content.decode()
    days = re.findall(r'<li title="([^"]*): \d+"', page)
    assert days
    assert all(re.fullmatch(r"\d+\. [^\W\d_]+\.?", day) for day in days), days


@pytest.mark.django_db
def test_what_went_wrong_is_said_in_the_readers_language(client, german_ada, monkeypatch):
    strict = Client(enforce_csrf_checks=True, headers={"Accept-Language": "de"})
    page = strict.post(reverse("preferences"), {"language": "de"})
    assert page.status_code == 403
    assert '<html lang="de"' in page.content.decode()
    assert left_english(page.content.decode()) == []

    def broken(*args, **kwargs):
        raise RuntimeError("on purpose")

    monkeypatch.setattr("annotation.pages.account.render", broken)
    client.raise_request_exception = False
    page = client.get(reverse("preferences"))
    assert page.status_code == 500
    assert '<html lang="de"' in page.content.decode()
    assert left_english(page.content.decode()) == []


@pytest.mark.django_db
@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("backend", ["console", "dummy", "filebased", "smtp"])
def test_a_forgotten_password_promises_an_e_mail_only_where_one_is_sent(
    client, settings, backend, language
):
    settings.EMAIL_BACKEND = f"django.core.mail.backends.{backend}.EmailBackend"
    sends = {"en": "on its way", "de": "unterwegs"}[language]
    for name in ("account_reset_password", "account_reset_password_done"):
        page = client.get(reverse(name), headers={"Accept-Language": language}).content.decode()
        assert ("changepassword" in page) == (backend != "smtp"), name
        assert ('type="email"' in page) == (backend == "smtp" and name == "account_reset_password")
        assert (sends in page) == (backend == "smtp" and name == "account_reset_password_done")
        if language == "de":
            told = left_english(re.sub("</?code>", "", page))
            assert set(told) <= {"E-Mail-Adresse"}, "allauth's own word"


def pages_of(patterns):
    for entry in patterns:
        if isinstance(entry, URLResolver):
            yield from pages_of(entry.url_patterns)
        else:
            yield entry


def test_pages_without_a_translation_stay_english_as_a_whole():
    """Half translated by the words that they share with others, they would be hard to read."""
    import annotation.urls
    import rlhf.urls

    untranslated = {page.name for page in pages_of(rlhf.urls.urlpatterns)}
    untranslated |= {"project_new", "project_settings", "assignment_rules", "tokens", "prompts"}
    untranslated |= {"batch_new", "prompt_import", "snapshots", "snapshot"}
    pages = [*pages_of(annotation.urls.urlpatterns), *pages_of(rlhf.urls.urlpatterns)]
    english = {page.name for page in pages if getattr(page.callback, "is_english_only", False)}
    assert untranslated <= english
    assert not english & {"home", "project", "judge_one", "dialogue", "quality", "review_case"}
