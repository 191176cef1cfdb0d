"""A person is told of a new device, a new token and a new password, by mail and on their pages."""

import pytest
from allauth.account.models import EmailAddress
from django.contrib.auth.hashers import MD5PasswordHasher
from django.core.mail import get_connection
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from annotation.models import AccountNotice
from annotation.tokens import create_token
from tests import mailbox
from tests.factories import UserFactory
from tests.signing_in import PASSWORD, sign_in_with_password

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mails(settings):
    settings.EMAIL_BACKEND = mailbox.NAME
    mailbox.messages.clear()
    return mailbox.wait_for


def sign_in(client, person, password=PASSWORD):
    client.post("/accounts/login/", {"login": person.username, "password": password})
    assert "_auth_user_id" in client.session


def kinds(person):
    return list(person.notices.order_by("pk").values_list("kind", flat=True))


def test_a_browser_is_new_once_and_again_after_a_new_password(ada, mails):
    ada.email = "ada@example.org"
    ada.save()
    laptop = Client(HTTP_USER_AGENT="Firefox Linux", REMOTE_ADDR="203.0.113.7")
    sign_in(laptop, ada)
    sign_in(laptop, ada)
    assert kinds(ada) == ["sign_in"]
    (mail,) = mails(1)
    assert mail.to == ["ada@example.org"]
    assert "Firefox, Linux" in mail.body
    assert "203.0.113.7" in mail.body
    ada.refresh_from_db()
    ada.set_password("another long enough one")
    ada.save()
    sign_in(laptop, ada, "another long enough one")
    assert kinds(ada) == ["sign_in", "password", "sign_in"]


def test_a_forged_mark_of_a_known_browser_is_no_use(ada):
    client = Client()
    client.cookies["known_device"] = "0123456789abcdef:forged"
    sign_in(client, ada)
    assert kinds(ada) == ["sign_in"]


def test_two_people_may_share_a_browser(ada, ben):
    shared = Client()
    for person in (ada, ben, ada, ben):
        shared.post("/accounts/logout/")
        sign_in(shared, person)
    assert kinds(ada) == kinds(ben) == ["sign_in"]


def test_the_other_sessions_say_so_on_every_page_until_it_is_seen(ada, ben):
    own, other = Client(), Client()
    sign_in(own, ada)
    own.post("/account/notices/seen/")
    assert "Something new happened" not in own.get("/account/preferences/").content.decode()
    thief = Client(HTTP_USER_AGENT="<b>curl</b>")
    sign_in(thief, ada)
    sign_in(other, ben)
    assert "Something new happened" in own.get("/account/preferences/").content.decode()
    assert "Something new happened" not in thief.get("/account/preferences/").content.decode()
    page = own.get("/accounts/2fa/").content.decode()
    assert "Sign-in from a new device" in page
    assert "<b>curl" not in page
    own.post("/account/notices/seen/")
    assert "Something new happened" not in own.get("/account/preferences/").content.decode()
    assert not ada.notices.filter(seen_at=None).exists()
    assert ben.notices.filter(seen_at=None).exists()


def test_a_token_is_told_and_a_program_s_account_hears_nothing(ada):
    create_token(ada, name="notebook", days=1)
    assert str(ada.notices.get()) == "New API token: notebook"
    simulated = UserFactory(is_simulated=True)
    create_token(simulated, name="notebook", days=1)
    assert not simulated.notices.exists()
    assert not AccountNotice.objects.filter(kind="password").exists()  # nobody signed in before


def test_a_mail_server_that_refuses_fails_nobody_s_sign_in(ada, settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_PORT = 9
    ada.email = "ada@example.org"
    ada.save()
    assert get_connection().port == 9
    sign_in(Client(), ada)
    assert kinds(ada) == ["sign_in"]


def test_known_and_unknown_names_take_the_same_work(ada, mails, settings, monkeypatch):
    """Passwords hashed at sign-in, mails and queries of a reset: what an answer's duration is made of."""
    hashed, encode = [], MD5PasswordHasher.encode
    monkeypatch.setattr(
        MD5PasswordHasher, "encode", lambda self, *a, **k: hashed.append(1) or encode(self, *a, **k)
    )
    ada.email = "ada@example.org"
    ada.save()
    UserFactory(username="twin", email="ada@example.org")
    UserFactory(username="gone", is_active=False)
    nobody = UserFactory(username="sso")
    nobody.set_unusable_password()
    nobody.save()

    def work(name):
        hashed.clear()
        Client().post("/accounts/login/", {"login": name, "password": "wrong"})
        return len(hashed)

    assert work("ada") == work("nobody") == work("gone") == work("sso") == 1
    assert work("ada@example.org") == work("nobody@example.org") == 1

    def queries(address):
        with CaptureQueriesContext(connection) as caught:
            page = Client().post("/accounts/password/reset/", {"email": address})
        return len(caught), page.status_code, page["Location"]

    mailbox.messages.clear()
    assert queries("ada@example.org") == queries("nobody@example.org")
    assert {mail.to[0] for mail in mails(3)} == {"ada@example.org", "nobody@example.org"}


def test_a_new_address_is_asked_the_password_for_and_told_at_the_former_one(ada, mails):
    ada.email = "ada@example.org"
    ada.save()
    EmailAddress.objects.create(user=ada, email="ada@example.org", verified=True, primary=True)
    client = Client()
    sign_in(client, ada)
    sent = {"action_add": "", "email": "thief@example.org"}
    assert client.post("/accounts/email/", sent)["Location"].startswith("/accounts/reauthenticate/")
    assert not EmailAddress.objects.filter(email="thief@example.org").exists()
    mailbox.messages.clear()
    sign_in_with_password(client, ada)
    client.post("/accounts/email/", sent)
    EmailAddress.objects.filter(email="thief@example.org").update(verified=True)
    client.post("/accounts/email/", {"action_primary": "", "email": "thief@example.org"})
    assert "address" in kinds(ada)
    told = {mail.to[0] for mail in mails(4) if "address" in mail.subject}
    assert told == {"ada@example.org", "thief@example.org"}
