"""Single sign-on by OpenID Connect, against a real provider process (oidc-provider-mock)."""

import json
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
import requests
from allauth.socialaccount.models import SocialAccount
from django.test import Client

from annotation.models import User
from tests.factories import member
from tests.signing_in import sign_in_with_password

pytestmark = pytest.mark.django_db

PEOPLE = [
    {"sub": "ada-at-lab", "email": "ada@lab.example", "preferred_username": "ada", "name": "Ada"},
    {"sub": "nell-at-lab", "email": "nell@lab.example", "preferred_username": "nell"},
]


@pytest.fixture(scope="module")
def provider():
    """The address of a provider that knows Ada and Nell."""
    claims = [part for person in PEOPLE for part in ("--user-claims", json.dumps(person))]
    process = subprocess.Popen(
        [sys.executable, "-m", "oidc_provider_mock", "--port", "0", *claims],
        stderr=subprocess.PIPE,
        text=True,
    )
    address = next(
        (w.rstrip("/") for line in process.stderr for w in line.split() if w.startswith("http://")),
        "",
    )
    yield address
    process.terminate()
    process.wait(10)


@pytest.fixture(autouse=True)
def _configured(provider, settings):
    settings.OIDC_SERVER_URL = provider
    settings.SOCIALACCOUNT_PROVIDERS = {
        "openid_connect": {
            "OAUTH_PKCE_ENABLED": True,
            "APPS": [
                {
                    "provider_id": "sso",
                    "name": "Lab account",
                    "client_id": "ground-control",
                    "secret": "a secret of both",
                    "settings": {"server_url": provider},
                }
            ],
        }
    }


def by_provider(client, sub, process="login"):
    """What the browser does: our button, the provider's form, and the way back."""
    asked = client.post(f"/accounts/oidc/sso/login/?process={process}")
    assert asked.status_code == 302, asked.content
    assert "code_challenge=" in asked["Location"]
    answered = requests.post(
        asked["Location"], data={"sub": sub}, allow_redirects=False, timeout=10
    )
    back = urlsplit(answered.headers["Location"])
    return client.get(f"{back.path}?{back.query}")


def is_signed_in(client):
    return "_auth_user_id" in client.session


def test_a_person_connects_the_account_of_the_lab_and_is_signed_in_by_it(project, ada):
    client = Client()
    sign_in_with_password(client, ada)
    assert "Single sign-on" in client.get("/accounts/2fa/").content.decode()
    assert by_provider(client, "ada-at-lab", "connect").status_code == 302
    assert SocialAccount.objects.get().user == ada
    fresh = Client()
    assert "Continue with Lab account" in fresh.get("/accounts/login/").content.decode()
    by_provider(fresh, "ada-at-lab")
    assert fresh.session["_auth_user_id"] == str(ada.pk)
    assert client.get("/accounts/connections/").status_code == 200


def test_a_stranger_of_the_provider_gets_an_account_only_where_the_operator_says_so(settings):
    client = Client()
    page = by_provider(client, "nell-at-lab")
    assert "creates accounts" in page.content.decode()
    assert not is_signed_in(client)
    settings.OIDC_SIGNUP = True
    by_provider(client, "nell-at-lab")
    nell = User.objects.get(username="nell")
    assert is_signed_in(client)
    assert not nell.has_usable_password()


def test_an_address_that_the_provider_names_gives_nobody_else_s_account(settings, project, ada):
    """Ada's account here has the address of Ada there, and nobody connected the two."""
    settings.OIDC_SIGNUP = True
    User.objects.filter(pk=ada.pk).update(email="ada@lab.example")
    client = Client()
    by_provider(client, "ada-at-lab")
    assert client.session.get("_auth_user_id") != str(ada.pk)


def test_an_answer_that_nobody_asked_for_signs_nobody_in():
    client = Client()
    page = client.get("/accounts/oidc/sso/login/callback/?code=stolen&state=made-up")
    assert not is_signed_in(client)
    assert page.status_code in (200, 401)


@pytest.mark.parametrize("asks", [True, False])
def test_the_provider_s_second_factor_counts_where_the_operator_says_that_it_asks_for_one(
    asks, settings, project, ada
):
    member(project, "ada", "admin")
    client = Client()
    sign_in_with_password(client, ada)
    by_provider(client, "ada-at-lab", "connect")
    settings.REQUIRE_MFA, settings.OIDC_SECOND_FACTOR = "admins", asks
    fresh = Client()
    by_provider(fresh, "ada-at-lab")
    assert fresh.get("/").status_code == (200 if asks else 302)
    by_password = Client()
    sign_in_with_password(by_password, ada)
    assert by_password.get("/").status_code == 302


def test_a_provider_that_is_away_is_said_in_a_sentence(settings):
    settings.SOCIALACCOUNT_PROVIDERS["openid_connect"]["APPS"][0]["settings"] = {
        "server_url": "http://127.0.0.1:9"
    }
    answer = Client(raise_request_exception=False).post("/accounts/oidc/sso/login/")
    assert answer.status_code in (200, 503)
    assert "provider" in answer.content.decode()
