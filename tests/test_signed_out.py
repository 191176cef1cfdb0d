"""Who was signed out without knowing it loses nothing of what they typed or see."""

import re
import uuid

import pytest
from django.urls import reverse

pytestmark = pytest.mark.django_db

GUIDELINES = "Prefer the answer that is kind.\n" + "And the one that is <b>true</b>. " * 20


def test_a_form_sent_after_the_session_ended_comes_back_with_all_that_was_typed(client, project):
    where = reverse("project_settings", args=["apollo"])
    answer = client.post(
        where,
        {"act": "save", "name": "Apollo", "guidelines": GUIDELINES, "batches": ["1", "2"]},
        HTTP_REFERER=f"http://testserver{where}",
    )
    assert answer.status_code == 401
    page = answer.content.decode()
    assert [(name, value) for name, _, value in answer.context["sent"]] == [
        ("act", "save"),
        ("name", "Apollo"),
        ("guidelines", GUIDELINES),
        ("batches", "1"),
        ("batches", "2"),
    ]
    assert "<b>true</b>" not in page
    assert f'action="{where}"' in page
    assert f"{reverse('account_login')}?next={where}" in page


def test_what_was_sent_is_taken_once_they_are_back(client, project, grace):
    where = reverse("people", args=["apollo"])
    sent = client.post(where, {"act": "add", "who": "grace", "role": "admin"}).context["sent"]
    client.force_login(grace)
    sent = {name: value for name, _, value in sent}
    assert client.post(where, sent).status_code == 302


LONG = "More than thirty characters, so that it is shown. "


@pytest.mark.parametrize(
    ("view", "field", "label"),
    [
        ("project_settings", "guidelines", "Guidelines"),
        ("project_settings", "description", "Description"),
        ("snapshots", "note", "Note"),
        ("quality_person", "reason", "Reason"),
        ("review_case", "note", "Comment"),
        ("judge_one", "reason", "Why?"),
        ("judge_one", "rewrite", "A better answer"),
        ("dialogue", "text", "Your message"),
        ("gold_items", "rows", "or rows as text"),
        ("give_verdict", "note", "Reason"),
        ("judge_one", "some_field", "Some field"),
    ],
)
def test_what_was_typed_comes_back_under_the_label_that_its_form_had(
    client, project, view, field, label
):
    parts = {"slug": "apollo"}
    if view in ("review_case", "judge_one", "dialogue"):
        parts["uid"] = uuid.uuid4()
    if view == "quality_person":
        parts["pk"] = 1
    if view == "give_verdict":
        parts["number"] = 1
    page = client.post(reverse(view, kwargs=parts), {field: LONG}).content.decode()
    assert re.search(
        rf'<label for="sent-1">{re.escape(label)}</label>\s*<textarea[^>]*>\n{LONG}', page
    )


def test_labels_are_in_the_language_of_the_page(client, project):
    where = reverse("review_case", args=["apollo", uuid.uuid4()])
    page = client.post(where, {"note": LONG}, headers={"Accept-Language": "de"}).content.decode()
    assert ">Kommentar</label>" in page


def test_signing_in_leads_to_a_page_and_not_to_what_only_takes_forms(client, project):
    where = reverse("build_base", args=["apollo"])
    page = client.post(where, HTTP_REFERER="https://elsewhere.example/projects/").content.decode()
    assert re.search(rf'href="{reverse("account_login")}\?next=/"', page)


def test_a_part_that_is_asked_for_after_the_session_ended_is_no_sign_in_page(client, project):
    answer = client.get(reverse("project", args=["apollo"]), headers={"HX-Request": "true"})
    assert answer.status_code == 401
    assert answer.content == b""


def test_signing_out_twice_ends_at_the_sign_in_page(client):
    answer = client.post(reverse("account_logout"))
    assert (answer.status_code, answer["Location"]) == (302, reverse("account_login"))


def test_a_password_is_never_sent_back_in_a_page(client):
    typed = {"oldpassword": "old secret", "password1": "new secret", "password2": "new secret"}
    answer = client.post(reverse("account_change_password"), typed)
    assert answer.status_code == 302
    assert b"secret" not in answer.content
