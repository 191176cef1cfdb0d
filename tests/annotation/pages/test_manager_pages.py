"""The data manager without a browser: filters in the address, acts of admins, and saved views."""

import re

import pytest

from annotation.models import BulkAct, Prompt, SavedView
from annotation.pages import manager_filters
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    ProjectFactory,
    PromptFactory,
    SourceFactory,
    judged,
    key,
    member,
)

pytestmark = pytest.mark.django_db

PROMPTS = "/projects/apollo/prompts/"


def n_rows(client, address, **headers):
    return len(
        re.findall(
            r'<td\s+data-label="Prompt"', client.get(address, headers=headers).content.decode()
        )
    )


def test_prompts_are_filtered_by_the_address(client, project, rita):
    source = SourceFactory(project=project, name="Greenhouse")
    PromptFactory(
        project=project, source=source, split="heldout", category="plants", risk="harmful",
        messages=[{"role": "user", "content": "Ünique fern 50%"}],
    )  # fmt: skip
    PromptFactory(project=project)
    client.force_login(rita)
    assert n_rows(client, PROMPTS) == 2
    for query in (
        "?split=heldout", "?category=plants", "?risk=harmful", f"?source={source.pk}", "?q=FERN",
        "?q=Ünique", "?q=50%25",
    ):  # fmt: skip
        assert n_rows(client, PROMPTS + query) == 1, query
    assert n_rows(client, PROMPTS + "?q=content") == 0, "the JSON's own words are not searched"
    assert n_rows(client, PROMPTS + "?split=nonsense&after=abc") == 2


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            "?category=weather",
            "There is no category “weather” here, so the list is not filtered by it.",
        ),
        (
            "?q=" + "x" * 201,
            "A search takes at most 200 characters, so the list is not filtered by it.",
        ),
        ("?q=%21", "A search needs a letter or a digit, so the list is not filtered by it."),
        ("?risk=some", "“some” is none of the choices, so the list is not filtered by it."),
    ],
)
def test_a_filter_that_means_nothing_says_so_and_the_others_hold(
    client, project, rita, grace, query, text
):
    PromptFactory(project=project, split="heldout")
    PromptFactory(project=project, split="train")
    client.force_login(rita)
    for headers in ({}, {"HX-Request": "true"}):
        page = client.get(f"{PROMPTS}{query}&split=heldout", headers=headers).content.decode()
        assert text in page
        assert page.count('data-label="Prompt"') == 1
    client.force_login(grace)  # What she did not see filtered she cannot act on as a whole.
    sent = {"act": "exclude", "scope": "all", "reason": "x", "key": key(), "query": query[1:]}
    page = client.post("/projects/apollo/records/prompts/act/", sent, follow=True)
    assert text in page.content.decode()
    assert not BulkAct.objects.exists()


def test_a_rare_category_is_reached_among_many(client, project, rita, monkeypatch):
    monkeypatch.setattr(manager_filters, "SUGGESTED", 2)
    for name in ("a", "b", "b", "rare"):
        PromptFactory(project=project, category=name)
    client.force_login(rita)
    page = client.get(PROMPTS).content.decode()
    assert [name for name in ("a", "b", "rare") if f'<option value="{name}">' in page] == ["a", "b"]
    assert n_rows(client, PROMPTS + "?category=rare") == 1


def test_rows_are_found_under_each_table_with_the_names_that_a_role_may_see(
    client, project, ada, vera, rita, otto
):
    judged(project, by=ada, batch=BatchFactory(project=project, name="Round 1"))
    for table in ("responses", "comparisons", "judgments"):
        client.force_login(otto)
        assert client.get(f"/projects/apollo/records/{table}/").status_code == 404
        client.force_login(rita)
        page = client.get(f"/projects/apollo/records/{table}/").content.decode()
        assert "Round 1" in page
        assert ">ada<" not in page
    assert "annotator-" in page
    page = client.get("/projects/apollo/records/responses/").content.decode()
    assert "secret-policy-round-7" in page
    client.force_login(vera)
    page = client.get("/projects/apollo/records/responses/").content.decode()
    assert "secret-policy-round-7" not in page, "a reviewer does not know models"
    assert 'data-label="Model"' not in page
    page = client.get("/projects/apollo/records/judgments/?person=ada").content.decode()
    assert page.count('data-label="Person"') == 1
    assert "Exclude rows" not in page, "a reviewer acts on nothing here"
    assert client.get("/projects/apollo/records/people/").status_code == 404


def test_an_admin_acts_on_what_is_selected_or_on_all_that_match_and_undoes_it(
    client, project, grace, rita
):
    kept = PromptFactory(project=project, category="keep")
    odd = [PromptFactory(project=project, category="odd") for _ in range(3)]
    act = "/projects/apollo/records/prompts/act/"
    client.force_login(grace)
    sent = {"act": "exclude", "scope": "all", "reason": "<b>odd</b>", "key": key()}
    page = client.post(act, sent | {"query": "category=odd&after=x"}, follow=True).content.decode()
    assert "3 prompts excluded: &lt;b&gt;odd&lt;/b&gt;." in page
    assert page.count('data-label="Prompt"') == 3, "back where it was pressed"
    assert list(Prompt.objects.filter(exclusion=None)) == [kept]
    undo = f"/projects/apollo/acts/{BulkAct.objects.get().pk}/undo/"
    client.force_login(rita)
    assert client.post(undo).status_code == 404
    client.force_login(grace)
    page = client.post(undo, {"back": "//elsewhere.example/"}, follow=True).content.decode()
    assert "Undone: 3 prompts excluded" in page
    assert Prompt.objects.filter(exclusion=None).count() == 4
    sent = {"act": "risk", "new_risk": "harmful", "row": [odd[0].pk, "x"], "key": key()}
    client.post(act, sent)
    assert Prompt.objects.get(risk="harmful") == odd[0]
    for wrong, text in (
        ({"row": []}, "at least one row"),
        ({"act": "drop"}, "Choose what to do"),
        ({"key": "x"}, "Reload the page"),
        ({"new_risk": "worse"}, "A risk is"),
    ):
        page = client.post(act, sent | {"key": key()} | wrong, follow=True).content.decode()
        assert text in page
    other = "/projects/apollo/records/judgments/act/"
    assert "Choose what to do" in client.post(other, sent, follow=True).content.decode()


def test_selected_comparisons_are_handed_to_one_person(client, project, grace, ada):
    comparison = ComparisonFactory(
        batch=BatchFactory(project=project, state="closed"), prompt=PromptFactory(project=project)
    )
    client.force_login(grace)
    sent = {"act": "batch", "row": comparison.pk, "name": "For ada", "only_for": ada.pk}
    address = "/projects/apollo/records/comparisons/act/"
    page = client.post(address, sent | {"key": key()}, follow=True).content.decode()
    assert "1 comparisons are asked about" not in page
    assert "1 comparison is asked about in For ada." in page
    assert "Given to" in page
    client.force_login(ada)
    assert client.get("/projects/apollo/judge/").status_code == 200
    client.force_login(grace)
    for wrong, text in (
        ({"only_for": 999}, "no such person"),
        ({"batch": 999}, "no such batch"),
        ({"preset": "nothing"}, "no such task"),
        ({"name": ""}, "Name the new batch"),
    ):
        page = client.post(address, sent | {"key": key()} | wrong, follow=True).content.decode()
        assert text in page


def test_a_view_is_ones_own_until_it_is_shared(client, project, rita, vera):
    PromptFactory(project=project, category="plants")
    address = "/projects/apollo/records/prompts/views/"
    client.force_login(rita)
    sent = {"name": " Harmless  plants ", "query": "category=plants&col=risk&after=x"}
    page = client.post(address, sent, follow=True).content.decode()
    assert "Harmless plants" in page
    view = SavedView.objects.get()
    assert view.query == "category=plants&col=risk"
    client.force_login(vera)
    assert "Harmless plants" not in client.get(PROMPTS).content.decode()
    client.force_login(rita)
    client.post(address, sent | {"is_shared": "on", "query": "risk=harmless"})
    assert SavedView.objects.get().query == "risk=harmless", "the same name is changed"
    client.force_login(vera)
    assert "Harmless plants" in client.get(PROMPTS).content.decode()
    assert client.post(address, {"act": "delete", "view": view.pk}).status_code == 404
    client.force_login(rita)
    client.post(address, {"act": "delete", "view": view.pk})
    assert not SavedView.objects.exists()
    assert "Name the view" in client.post(address, {"name": ""}, follow=True).content.decode()


def test_chosen_columns_are_shown(client, project, rita):
    PromptFactory(project=project)
    client.force_login(rita)
    page = client.get(PROMPTS + "?col=turns&col=nonsense").content.decode()
    columns = re.findall(r'<th scope="col">([^<]*)</th>', page)
    assert columns == ["Prompt", "Turns"]


def test_a_page_costs_few_queries_and_an_empty_table_says_what_to_do(
    client, project, ada, grace, django_assert_max_num_queries
):
    for _ in range(20):
        judged(project, by=ada)
    client.force_login(grace)
    client.get("/projects/apollo/")
    for table, most in (("prompts", 26), ("responses", 26), ("comparisons", 26), ("judgments", 26)):
        with django_assert_max_num_queries(most):
            assert client.get(f"/projects/apollo/records/{table}/").status_code == 200
    gemini = ProjectFactory(slug="gemini")
    member(gemini, "grace", "admin")
    for table in ("responses", "comparisons", "judgments"):
        page = client.get(f"/projects/gemini/records/{table}/").content.decode()
        assert "Nothing here yet" in page
    assert "No prompts yet" in client.get("/projects/gemini/prompts/").content.decode()
