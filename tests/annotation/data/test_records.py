"""The tables of the data manager: words, filters and pages, whoever wrote the rows and however many."""

import base64

import pytest
from django.db import connection

from annotation.data.records.paging import Key, Query, ids_of, page_of, words_of
from annotation.data.records.tables import TABLES
from annotation.models import Judgment, Prompt, Response, Tag, Tagging, word_index
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged

pytestmark = pytest.mark.django_db


def ask(text):
    return [{"role": "user", "content": text}]


def texts(project, table, words, **filters):
    page = page_of(project, Query(table, filters, words), seconds=60)
    return [str(row) for row in TABLES[table].model.objects.filter(pk__in=page.ids).order_by("pk")]


def test_words_are_found_by_their_beginnings_in_any_script(project):
    for text in (
        "Water the Ünique ferns, 50% of them",
        "שלום עולם",
        "Über-fern",
        "an e-mail: a@b.org",
    ):
        PromptFactory(project=project, messages=ask(text))
    found = [
        ("FERN", 2), ("fern wat", 1), ("ünique", 1), ("50%", 1), ("שלום", 1), ("über", 1), ("b.org", 1),
        ("nowhere", 0), ("content", 0), ("ern", 0), ("' OR 1=1 --", 0), ('"fern* NEAR(', 0),
    ]  # fmt: skip
    for words, n in found:
        assert len(texts(project, "prompts", words)) == n, words
    assert words_of("  !!! ") == []


def test_the_index_follows_every_way_of_writing(project):
    prompt = PromptFactory(project=project, messages=ask("first quokka"))
    prompt.messages = ask("then a wombat")
    prompt.save()
    assert texts(project, "prompts", "quokka") == []
    assert texts(project, "prompts", "wombat") == ["then a wombat"]
    comparison = ComparisonFactory(prompt=prompt, batch=BatchFactory(project=project), responses=0)
    Response.objects.bulk_create([Response(comparison=comparison, text="Feed it gum leaves.")])
    assert texts(project, "responses", "gum") == ["Feed it gum leaves."]
    Response.objects.filter(text__contains="gum").update(text="Feed it grass.")
    assert texts(project, "responses", "gum") == []
    assert texts(project, "responses", "grass") == ["Feed it grass."]
    assert texts(project, "comparisons", "wombat") == [str(comparison)]
    Response.objects.all().delete()
    assert texts(project, "responses", "grass") == []
    if (
        connection.vendor == "sqlite"
    ):  # A word of a deleted row would stay in the index without end.
        with connection.cursor() as cursor:
            cursor.execute("SELECT rowid FROM annotation_response_words('\"grass\"')")
            assert cursor.fetchall() == []
    judgment = judged(project).judgment
    Judgment.objects.filter(pk=judgment.pk).update(reason="B is about marsupials")
    assert page_of(project, Query("judgments", {}, "marsupial")).ids == [judgment.pk]
    Judgment.objects.filter(pk=judgment.pk).update(reason="")
    assert page_of(project, Query("judgments", {}, "marsupial")).ids == []


def test_an_index_whose_triggers_were_dropped_comes_back_with_migrate(project):
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL keeps its index without triggers")
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER annotation_prompt_words_insert")
    word_index.create(connection)
    PromptFactory(project=project, messages=ask("a late quokka"))
    assert texts(project, "prompts", "quokka") == ["a late quokka"]


def test_every_row_is_on_one_page_in_both_directions(project):
    for number in range(23):
        PromptFactory(project=project, category=f"c{number % 3}")
        PromptFactory()  # in another project
    rows = Prompt.objects.filter(project=project)
    orders = {
        "newest": rows.order_by("-pk"),
        "oldest": rows.order_by("pk"),
        "category": rows.order_by("category", "pk"),
    }
    for sort, expected in orders.items():
        seen, after, pages = [], None, []
        while True:
            page = page_of(project, Query("prompts", sort=sort, after=after), 5, seconds=60)
            seen += page.ids
            pages.append(page)
            after = page.following
            if after is None:
                break
        assert seen == list(expected.values_list("pk", flat=True)), sort
        assert [len(page.ids) for page in pages] == [5, 5, 5, 5, 3]
        before = page_of(project, Query("prompts", sort=sort, before=pages[2].previous), 5)
        assert before.ids == pages[1].ids
    assert Key.read(Key("c1", 7).as_text()) == Key("c1", 7)
    assert [Key.read(text) for text in ("", "x", "WzEsMl0=", "eyJhIjoxfQ==")] == [None] * 4
    hostile = (b"[" * 3000, b'["\\u0000", 5]', b'["\\ud800", 5]', b'["a", true]', b'["a", 1.5]')
    for text in hostile:
        assert Key.read(base64.urlsafe_b64encode(text).decode()) is None, text[:20]


def test_the_responses_of_a_batch_are_paged_in_the_order_of_its_comparisons(project):
    batch, other = (BatchFactory(project=project) for _ in range(2))
    comparisons = [
        ComparisonFactory(batch=each, prompt=PromptFactory(project=project), responses=3)
        for each in (batch, other, batch, batch)
    ]
    Response.objects.create(comparison=comparisons[0], text="a late one")
    filters = {"batch": str(batch.pk)}
    expected = Response.objects.filter(comparison__batch=batch).order_by("-comparison", "-pk")
    seen, after = [], None
    while True:
        query = Query("responses", filters, after=after)
        page = page_of(project, query, 4, seconds=60)
        seen += page.ids
        after = page.following
        if after is None:
            break
    assert seen == list(expected.values_list("pk", flat=True))
    oldest = page_of(project, Query("responses", filters, sort="oldest"), 99, seconds=60)
    assert oldest.ids == seen[::-1]


def test_filters_of_each_table_narrow_it(project, ada):
    batch = BatchFactory(project=project, name="First")
    harmful = PromptFactory(project=project, risk="harmful", split="heldout", category="plants")
    comparison = ComparisonFactory(batch=batch, prompt=harmful, needed=2)
    judgment = judged(project, by=ada, comparison=comparison).judgment
    judged(project)
    tag = Tag.objects.create(project=project, name="odd")
    Tagging.objects.create(tag=tag, comparison=comparison)
    one = {
        "prompts": [
            {"risk": "harmful"}, {"split": "heldout"}, {"category": "plants"},
            {"source": str(harmful.source_id)}, {"compared": "yes", "risk": "harmful"},
        ],
        "comparisons": [
            {"batch": str(batch.pk)}, {"state": "unfinished"}, {"risk": "harmful"},
            {"split": "heldout"}, {"tag": str(tag.pk)},
        ],
        "judgments": [{"batch": str(batch.pk)}, {"person": str(ada.pk)}, {"risk": "harmful"}],
    }  # fmt: skip
    expected = {"prompts": harmful.pk, "comparisons": comparison.pk, "judgments": judgment.pk}
    for table, cases in one.items():
        for filters in cases:
            assert page_of(project, Query(table, filters)).ids == [expected[table]], filters
    assert len(page_of(project, Query("responses", {"batch": str(batch.pk)})).ids) == 4
    assert len(page_of(project, Query("responses", {"model": "secret-policy-round-7"})).ids) == 8
    assert page_of(project, Query("prompts", {"excluded": "yes"})).ids == []
    assert page_of(project, Query("judgments", {"state": "excluded"})).ids == []


def test_a_search_that_runs_out_of_time_says_how_to_continue(project):
    source = PromptFactory(project=project, risk="harmful").source
    Prompt.objects.bulk_create(
        Prompt(
            project=project, source=source, messages=ask(f"n {n}"), sha256=str(n), risk="harmless"
        )
        for n in range(700)
    )
    query = Query("prompts", {"risk": "harmful"})
    page = page_of(project, query, seconds=0)
    assert page.is_partial
    assert page.ids == []
    rounds = 0
    while page.is_partial:
        page = page_of(
            project, Query("prompts", {"risk": "harmful"}, after=page.following), seconds=0
        )
        rounds += 1
    assert len(page.ids) == 1
    assert rounds > 1
    assert ids_of(project, query, 10) == page.ids
    assert ids_of(project, Query("prompts"), 10) is None, "more than asked for"
