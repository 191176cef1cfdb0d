"""People join by a link or because an admin knows them; no page tells which accounts exist."""

import re
import socketserver
import threading
from datetime import timedelta
from email import message_from_bytes

import pytest
from allauth.account.models import EmailAddress
from django.utils import timezone

from annotation.data.preferences import annotator_id
from annotation.models import Invitation, Membership, Project, User
from annotation.projects.members import known_account
from tests.factories import judged, member

pytestmark = pytest.mark.django_db
PEOPLE = "/projects/apollo/people/"
LINK = re.compile(r"/invitations/[\w-]+/")


def add(client, who, role="annotator"):
    answer = client.post(PEOPLE, {"act": "add", "who": who, "role": role}, follow=True)
    return answer.content.decode()


def link_of(page):
    return LINK.search(page)[0]


def test_an_unknown_name_and_a_stranger_s_are_answered_alike(client, grace, otto):
    client.force_login(grace)
    pages = []
    for who in ("otto", "nobody-at-all", "otto@example.org"):
        page = add(client, who)
        assert link_of(page)
        Invitation.objects.all().delete()  # The page lists those that are open.
        pages.append(
            re.sub(
                r"[A-Za-z0-9]{64}|nonce[^>]*>|value=\"\d+\"", "", LINK.sub("LINK", page)
            ).replace(who, "WHO")
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


class Mailbox(socketserver.ThreadingTCPServer):
    """A mail server that keeps what it is given: as much of SMTP as Django's client speaks."""

    allow_reuse_address = daemon_threads = True

    def __init__(self):
        self.letters, self.came = [], threading.Event()
        super().__init__(("127.0.0.1", 0), Talk)


class Talk(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                letter = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.letters.append(message_from_bytes(letter))
                self.server.came.set()
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")


def test_an_invitation_goes_by_mail_where_mail_is_set_up_and_can_be_withdrawn(
    client, project, grace, settings
):
    client.force_login(grace)
    project.name = "Apollo\r\nBcc: everybody@example.org"  # It stays one line of the subject.
    project.save()
    with Mailbox() as mailbox:
        threading.Thread(target=mailbox.serve_forever, daemon=True).start()
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = mailbox.server_address
        page = add(client, "eve@example.org")
        assert mailbox.came.wait(10)
        mailbox.shutdown()
    [letter] = mailbox.letters
    assert (letter["To"], letter["Bcc"]) == ("eve@example.org", None)
    assert link_of(letter.get_payload()) == link_of(page)
    assert "The invitation is on its way to eve@example.org." in page
    # It is listed until it is used, with a new link for one that got lost, or withdrawn.
    first = Invitation.objects.get()
    page = client.post(PEOPLE, {"act": "renew", "invitation": first.pk}, follow=True)
    second = Invitation.objects.get()
    assert second.secret_sha256 != first.secret_sha256
    assert client.get(link_of(letter.get_payload())).status_code == 404
    client.post(PEOPLE, {"act": "withdraw", "invitation": second.pk})
    assert not Invitation.objects.exists()
    assert client.get(link_of(page.content.decode())).status_code == 404


def test_the_people_page_says_who_did_what_and_finds_the_name_that_an_export_shows(
    client, project, grace, ada, ben
):
    judged(project, by=ada)
    project.memberships.filter(user=ada).update(skills=["Spanish"], daily_limit=7)
    client.force_login(grace)
    page = client.get(PEOPLE).content.decode()
    for words in ("Spanish", "7 a day", f"/quality/people/{ada.pk}/", "never"):
        assert words in page, words
    found = client.get(PEOPLE, {"q": annotator_id(project, ada)}).context["rows"]
    assert [row["user"] for row in found] == [ada]
    member_of_ben = project.memberships.get(user=ben)
    client.post(PEOPLE, {"act": "role", "membership": member_of_ben.pk, "role": "reviewer"})
    member_of_ben.refresh_from_db()
    assert member_of_ben.role == "reviewer"


def test_staff_find_every_account(project, otto, grace):
    assert known_account(project, "otto", grace) is None
    grace.is_staff = True
    assert known_account(project, "otto", grace) == otto


def test_a_new_project_s_name_does_not_tell_that_another_has_it(client, otto, project):
    client.force_login(otto)
    sent = {"description": "", "guidelines": "", "overlap": 1, "responses_per_comparison": 4}
    for name in ("Apollo", "Gemini"):
        answer = client.post("/projects/new/", {**sent, "name": name, "asks": "rank"})
        assert re.fullmatch(rf"/projects/{name.lower()}-\w{{4}}/people/", answer["Location"])


def test_no_mail_is_written_to_the_log_where_none_is_set_up(client, ada, settings, capsys):
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    ada.email = "ada@example.org"
    ada.save()
    client.post("/accounts/password/reset/", {"email": "ada@example.org"})
    out = capsys.readouterr()
    assert "ada@example.org" not in out.out + out.err
    assert "/reset/" not in out.out + out.err
