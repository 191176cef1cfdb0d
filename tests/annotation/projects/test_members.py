"""People join by a link or because an admin knows them; no page tells which accounts exist."""

import re
from datetime import timedelta

import pytest
from allauth.account.models import EmailAddress
from django.utils import timezone

from annotation.models import Invitation, Membership, Project, User
from annotation.projects.members import known_account
from tests.factories import member

pytestmark = pytest.mark.django_db
SETTINGS = "/projects/apollo/settings/"
LINK = re.compile(r"/invitations/[\w-]+/")


def add(client, who, role="annotator"):
    answer = client.post(SETTINGS, {"act": "add", "who": who, "role": role}, follow=True)
    return answer.content.decode()


def link_of(page):
    return LINK.search(page)[0]


def test_an_unknown_name_and_a_stranger_s_are_answered_alike(client, grace, otto):
    client.force_login(grace)
    pages = []
    for who in ("otto", "nobody-at-all", "otto@example.org"):
        page = add(client, who)
        assert link_of(page)
        pages.append(
            re.sub(r"[A-Za-z0-9]{64}|nonce[^>]*>", "", LINK.sub("LINK", page)).replace(who, "WHO")
        )
    assert pages[0] == pages[1] == pages[2]
    assert not Membership.objects.filter(user=otto, project__slug="apollo").exists()


def test_an_address_counts_once_it_is_verified(client, project, grace, ada):
    """A stranger may have typed somebody's address into an account of their own."""
    client.force_login(grace)
    ada.email = "boss@example.org"
    ada.save()
    address = EmailAddress.objects.create(user=ada, email="boss@example.org", verified=False)
    assert link_of(add(client, "boss@example.org", "admin"))
    assert project.memberships.get(user=ada).role == "annotator"
    address.verified = True
    address.save()
    add(client, "BOSS@example.org", "reviewer")
    assert project.memberships.get(user=ada).role == "reviewer"


def test_a_user_name_that_is_somebody_s_address_does_not_identify(client, project, grace, ada):
    client.force_login(grace)
    ada.username = "boss@example.org"
    ada.save()
    assert link_of(add(client, "boss@example.org", "admin"))
    assert project.memberships.get(user=ada).role == "annotator"


def test_a_link_lets_one_person_in_once(client, project, grace, otto):
    client.force_login(grace)
    link = link_of(add(client, "otto", "researcher"))
    assert Invitation.objects.get().secret_sha256 not in link
    client.force_login(otto)
    page = client.get(link).content.decode()
    assert "Join Apollo" in page
    assert not project.memberships.filter(user=otto).exists(), "opening a link is no consent"
    assert client.post(link).status_code == 302
    assert project.memberships.get(user=otto).role == "researcher"
    client.force_login(member(Project.objects.get(slug="soyuz"), "mallory", "annotator"))
    assert client.get(link).status_code == 404
    assert client.post(link).status_code == 404


def test_a_link_ends(client, project, grace, otto):
    client.force_login(grace)
    old, withdrawn = link_of(add(client, "otto")), link_of(add(client, "otto"))
    Invitation.objects.filter(pk=Invitation.objects.last().pk).update(
        expires_at=timezone.now() - timedelta(seconds=1)
    )
    client.force_login(otto)
    assert client.get(old).status_code == 404
    assert client.get(withdrawn).status_code == 200
    member(project, "grace", "annotator")  # who invited is no admin any more
    assert client.get(withdrawn).status_code == 404
    assert client.get("/invitations/made-up/").status_code == 404


def test_a_link_gives_no_member_another_role(client, project, grace, ada):
    client.force_login(grace)
    link = link_of(add(client, "somebody", "admin"))
    client.force_login(ada)
    client.post(link)
    assert project.memberships.get(user=ada).role == "annotator"


def test_with_a_link_an_account_can_be_opened_where_sign_up_is_closed(client, grace, project):
    from django.test import Client

    client.force_login(grace)
    link = link_of(add(client, "new@example.org"))
    new = Client()
    password = "a long enough password"
    sent = {"username": "newcomer", "password1": password, "password2": password}
    new.post("/accounts/signup/", sent)
    assert not User.objects.filter(username="newcomer").exists()
    assert "Open an account" in new.get(link).content.decode()
    new.post("/accounts/signup/", sent)
    assert User.objects.filter(username="newcomer").exists()
    assert new.post(link).status_code == 302
    assert project.memberships.filter(user__username="newcomer").exists()


def test_staff_find_every_account(project, otto, grace):
    assert known_account(project, "otto", grace) is None
    grace.is_staff = True
    assert known_account(project, "otto", grace) == otto


def test_a_new_project_s_name_does_not_tell_that_another_has_it(client, otto, project):
    client.force_login(otto)
    sent = {"description": "", "guidelines": "", "overlap": 1, "responses_per_comparison": 4}
    for name in ("Apollo", "Gemini"):
        answer = client.post("/projects/new/", {**sent, "name": name, "asks": "rank"})
        assert re.fullmatch(rf"/projects/{name.lower()}-\w{{4}}/settings/", answer["Location"])


def test_no_mail_is_written_to_the_log_where_none_is_set_up(client, ada, settings, capsys):
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    ada.email = "ada@example.org"
    ada.save()
    client.post("/accounts/password/reset/", {"email": "ada@example.org"})
    out = capsys.readouterr()
    assert "ada@example.org" not in out.out + out.err
    assert "/reset/" not in out.out + out.err
