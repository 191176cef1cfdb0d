"""Pages of filters: who sets and labels, hostile text stays covered and escaped, personal data masked."""

import pytest
from django.urls import reverse

from annotation.data.filtering import run_filters, setting_of
from annotation.models import FilterLabel
from tests.factories import PromptFactory

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert("x")</script> you asshole </details>{{ 7|add:7 }}'


def ask(project, text):
    return PromptFactory(project=project, messages=[{"role": "user", "content": text}])


@pytest.fixture
def opened(client, project, grace):
    client.force_login(grace)

    def get(key="abuse", **query):
        return client.get(reverse("filter", args=[project.slug, key]), query)

    return get


def test_the_table_shows_figures_counts_and_what_is_not_read(client, project, rita, grace):
    ask(project, HOSTILE)
    client.force_login(rita)
    html = client.get(reverse("filters", args=[project.slug])).content.decode()
    assert "functional cases" in html
    assert "Run the filters" not in html  # a researcher looks
    client.force_login(grace)
    html = client.post(reverse("filters_run", args=[project.slug]), follow=True).content.decode()
    assert "have read all prompts and responses" in html
    assert "alert" not in html


def test_hostile_text_is_escaped_and_covered(project, opened):
    ask(project, HOSTILE)
    run_filters(project, ["abuse"])
    html = opened().content.decode()
    assert "<script>alert" not in html
    assert "<mark>asshole</mark>" in html
    before = html.split("<mark>asshole</mark>")[0]
    assert before.rfind("<details") > before.rfind("</details>")
    assert "<details open" not in html


def test_personal_data_is_never_shown(project, opened):
    ask(project, "Write to maria.lopez@mailbox.org or call +49 30 901820.")
    run_filters(project, ["personal_data"])
    html = opened("personal_data").content.decode()
    assert "maria.lopez" not in html
    assert "901820" not in html
    assert "[mail address]" in html


def test_moving_the_threshold_shows_what_falls_in_and_out_and_stores_nothing(project, opened):
    ask(project, "You idiot.")
    ask(project, "Shut up, you cunt.")
    run_filters(project, ["abuse"])
    low, high = opened(threshold="0.6"), opened(threshold="0.75")
    assert (len(low.context["inside"]), len(high.context["inside"])) == (2, 1)
    assert [row["span"] for row in high.context["outside"]] == ["You idiot"] or [
        row["span"].lower() for row in high.context["outside"]
    ] == ["you idiot"]
    assert setting_of(project, "abuse").threshold == 0.6
    for odd in ("nan", "inf", "-1", "x", "9" * 400):
        assert opened(threshold=odd).status_code == 200


def test_an_admin_sets_a_filter_and_is_told_what_is_missing(client, project, grace, rita):
    url = reverse("filter", args=[project.slug, "abuse"])
    client.force_login(grace)
    refused = client.post(url, {"threshold": "0.8", "action": "exclude"})
    assert refused.status_code == 422
    assert "0 of the 30 labels" in refused.content.decode()
    assert client.post(url, {"threshold": "0.8", "action": "flag"}).status_code == 302
    assert setting_of(project, "abuse").threshold == 0.8
    assert client.post(url, {"threshold": "7", "action": "flag"}).status_code == 422
    client.force_login(rita)
    assert client.post(url, {"threshold": "0.5", "action": "flag"}).status_code == 404


def test_reviewers_label_and_others_do_not(client, project, vera, rita, otto, ada):
    prompt = ask(project, "You idiot.")
    url = reverse("filter_label", args=[project.slug, "abuse"])
    fields = {"prompt": prompt.pk, "should_flag": "yes"}
    for person in (rita, otto, ada):
        client.force_login(person)
        assert client.post(url, fields).status_code == 404
    client.force_login(vera)
    assert client.post(url, fields).status_code == 302
    assert (
        client.post(url, fields | {"should_flag": "no"}).status_code == 302
    )  # sent twice: one label
    assert FilterLabel.objects.get().should_flag is False
    for wrong in ({}, {"prompt": "x"}, {"prompt": prompt.pk, "response": 1, "should_flag": "yes"}):
        assert client.post(url, wrong).status_code == 404


def test_a_label_on_a_text_of_another_project_is_refused(client, project, vera, otto):
    other = ask(otto.memberships.get().project, "You idiot.")
    client.force_login(vera)
    url = reverse("filter_label", args=[project.slug, "abuse"])
    assert client.post(url, {"prompt": other.pk, "should_flag": "yes"}).status_code == 404
