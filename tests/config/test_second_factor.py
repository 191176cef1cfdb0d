"""Who must have a second factor reaches nothing without it, by no door."""

import pytest
from allauth.mfa.models import Authenticator
from cryptography.fernet import InvalidToken
from django.test import Client

from annotation.models import ApiToken
from annotation.tokens import create_token
from config.checks import safe_configuration
from config.second_factor import PasskeyForm, SecondFactorAdapter
from tests.factories import UserFactory
from tests.signing_in import PASSWORD, sign_in_with_password

pytestmark = pytest.mark.django_db


def add_app(person):
    """Their authenticator app, as if it was set up."""
    secret = SecondFactorAdapter().encrypt("JBSWY3DPEHPK3PXP")
    return Authenticator.objects.create(user=person, type="totp", data={"secret": secret})


@pytest.mark.parametrize(
    ("required", "held"),
    [("nobody", set()), ("admins", {"grace", "staff"}), ("everybody", {"ada", "grace", "staff"})],
)
def test_whom_the_setting_names(required, held, settings, ada, grace):
    settings.REQUIRE_MFA = required
    people = [ada, grace, UserFactory(username="staff", is_staff=True)]
    assert {person.username for person in people if person.lacks_second_factor} == held
    Authenticator.objects.create(user=grace, type="recovery_codes", data={})  # is none by itself
    assert grace.lacks_second_factor == ("grace" in held)
    add_app(grace)
    assert not grace.lacks_second_factor


def test_without_it_pages_lead_to_its_setup_and_forms_and_the_api_are_refused(
    settings, client, project, grace
):
    _, plain = create_token(grace, name="script", days=1, scopes=[ApiToken.Scope.READ])
    settings.REQUIRE_MFA = "admins"
    sign_in_with_password(client, grace)
    for page in ("/", "/projects/apollo/settings/", "/admin/", "/account/tokens/"):
        answer = client.get(page)
        assert (answer.status_code, answer["Location"]) == (302, "/accounts/2fa/"), page
    assert client.post("/projects/apollo/settings/", {"act": "save"}).status_code == 403
    assert client.get("/api/v1/projects/").status_code == 403
    assert client.get("/accounts/2fa/").status_code == 200
    header = {"headers": {"Authorization": f"Token {plain}"}}
    assert Client().get("/api/v1/projects/", **header).status_code == 401
    add_app(grace)
    assert client.get("/projects/apollo/settings/").status_code == 200
    assert Client().get("/api/v1/projects/", **header).status_code == 200


def test_the_password_alone_signs_nobody_in_who_has_one(client, grace):
    add_app(grace)
    answer = client.post("/accounts/login/", {"login": "grace", "password": PASSWORD})
    assert answer["Location"] == "/accounts/2fa/authenticate/"
    assert "_auth_user_id" not in client.session
    assert client.get("/projects/apollo/").status_code == 302
    for _ in range(6):
        page = client.post("/accounts/2fa/authenticate/", {"code": "000000"})
    assert "Too many" in page.content.decode()  # a limit on tries


def test_changing_a_second_factor_asks_for_the_password_again(client, grace):
    client.force_login(grace)
    for page in ("totp/activate/", "webauthn/add/", "recovery-codes/generate/"):
        answer = client.get(f"/accounts/2fa/{page}")
        assert answer["Location"].startswith("/accounts/reauthenticate/"), page


def test_secrets_are_stored_encrypted_with_a_key_of_their_own(settings):
    adapter = SecondFactorAdapter()
    stored = adapter.encrypt("JBSWY3DPEHPK3PXP")
    assert "JBSWY" not in stored
    assert adapter.decrypt(stored) == "JBSWY3DPEHPK3PXP"
    settings.MFA_KEY = "another one"
    with pytest.raises(InvalidToken):
        adapter.decrypt(stored)


def test_a_security_key_that_was_not_added_as_a_passkey_signs_nobody_in_alone(
    grace, monkeypatch, rf
):
    key = Authenticator(user=grace, type="webauthn")
    key.data = {
        "name": "Blue",
        "credential": {"clientExtensionResults": {"credProps": {"rk": False}}},
    }
    monkeypatch.setattr(PasskeyForm.__mro__[1], "clean_credential", lambda self: key)
    form = PasskeyForm({"credential": '{"id": "x"}'})
    assert not form.is_valid()
    key.data["credential"]["clientExtensionResults"]["credProps"]["rk"] = True
    assert PasskeyForm({"credential": '{"id": "x"}'}).is_valid()


def test_a_setting_of_another_name_does_not_start(settings):
    settings.REQUIRE_MFA = "admin"
    assert "REQUIRE_MFA" in safe_configuration()[0].msg
