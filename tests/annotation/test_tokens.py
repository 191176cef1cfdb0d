"""Tokens: made with the password, for some scopes and some time, and gone with the password."""

import re
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.urls import get_resolver
from django.utils import timezone

from annotation import scopes
from annotation.models import ApiToken
from annotation.tokens import create_token
from tests.factories import judged
from tests.signing_in import PASSWORD, sign_in_with_password

pytestmark = pytest.mark.django_db
Scope = ApiToken.Scope
ROOT = "/api/v1/projects/apollo/"


@pytest.fixture
def asks(client):
    def ask(person, method, address, *given, **data):
        _, plain = create_token(person, name="script", days=1, scopes=given)
        header = {"headers": {"Authorization": f"Token {plain}"}}
        call = getattr(client, method)
        return call(ROOT + address, **header, **data).status_code

    return ask


@pytest.mark.parametrize(
    ("method", "address", "scope"),
    [
        ("get", "batches/", Scope.READ),
        ("get", "rounds/", Scope.READ),
        ("get", "judgments/", Scope.EXPORT),
        ("get", "quality/votes/", Scope.EXPORT),
        ("post", "judging/next/", Scope.JUDGE),
        ("get", "judging/next/", Scope.JUDGE),
        ("post", "batches/", Scope.WRITE),
        ("post", "snapshots/", Scope.WRITE),
        ("get", "assignment/", Scope.READ),
        ("patch", "assignment/", Scope.ADMIN),
        ("post", "rounds/", Scope.ADMIN),
    ],
)
def test_a_token_does_what_its_scopes_say_and_no_more(
    project, ada, grace, asks, method, address, scope
):
    judged(project, by=ada)
    others = [other for other in Scope.values if other != scope]
    assert asks(grace, method, address, *others) == 403
    assert asks(grace, method, address, scope) != 403


def test_scopes_add_nothing_to_a_role(project, ada, asks):
    assert asks(ada, "get", "judgments/", *Scope.values) == 404


def test_every_address_that_has_a_scope_of_its_own_exists():
    names = {entry.name for entry in get_resolver("annotation.api_urls").url_patterns}
    assert set(scopes.ASKED) <= names


def test_a_refused_token_says_which_scope_is_missing(project, grace, client):
    _, plain = create_token(grace, name="script", days=1, scopes=[Scope.READ])
    answer = client.get(ROOT + "judgments/", headers={"Authorization": f"Token {plain}"})
    assert answer.status_code == 403
    assert "export" in answer.json()["detail"]


def test_a_token_notes_when_and_from_where_it_was_used(project, grace, client):
    token, plain = create_token(grace, name="script", days=1)
    header = {"Authorization": f"Token {plain}"}
    assert (
        client.get(ROOT + "batches/", headers=header, REMOTE_ADDR="203.0.113.4").status_code == 200
    )
    token.refresh_from_db()
    assert token.last_used_from == "203.0.113.4"
    assert timezone.now() - token.last_used_at < timedelta(minutes=1)


def test_a_token_lives_no_longer_than_the_operator_allows(grace, settings, client):
    settings.TOKEN_MAX_DAYS = 10
    token, _ = create_token(grace, name="script", days=400)
    assert token.expiry <= timezone.now() + timedelta(days=10)
    sign_in_with_password(client, grace)
    page = client.get("/account/tokens/").content.decode()
    assert 'value="7"' in page
    assert 'value="30"' not in page


@pytest.mark.parametrize("given", [[], ["everything"], ["read", "root"]])
def test_a_token_without_a_known_scope_is_not_made(grace, given):
    with pytest.raises(ValueError, match="scopes"):
        create_token(grace, name="script", days=1, scopes=given)


def test_a_session_alone_makes_no_token(grace, client):
    client.force_login(grace)
    assert client.get("/account/tokens/").status_code == 200
    sent = {"name": "mine", "days": "7", "scopes": ["read"]}
    answer = client.post("/account/tokens/", sent)
    assert answer.status_code == 302
    assert "/reauthenticate/" in answer["Location"]
    assert not ApiToken.objects.exists()
    # With the password the form that was sent is done.
    answer = client.post(answer["Location"], {"password": PASSWORD, "next": "/account/tokens/"})
    assert ApiToken.objects.get().scopes == ["read"]
    assert re.search(r"gc_\w{20}", answer.content.decode())


def test_a_new_password_revokes_every_token_however_it_is_set(grace, ada, client):
    kept, _ = create_token(ada, name="another's", days=1)
    create_token(grace, name="script", days=1)
    sign_in_with_password(client, grace)
    new = "another long enough one"
    sent = {"oldpassword": PASSWORD, "password1": new, "password2": new}
    assert client.post("/accounts/password/change/", sent).status_code == 302
    assert list(ApiToken.objects.all()) == [kept]
    create_token(grace, name="script", days=1)
    grace.refresh_from_db()
    grace.set_password("and a third one for her")
    grace.save()
    assert list(ApiToken.objects.all()) == [kept]


def test_a_password_that_is_only_hashed_anew_revokes_nothing(grace, settings, client):
    token, _ = create_token(grace, name="script", days=1)
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]
    before = grace.password
    client.post("/accounts/login/", {"login": "grace", "password": PASSWORD})
    grace.refresh_from_db()
    assert grace.password != before
    assert ApiToken.objects.get() == token


def test_expired_sessions_can_be_cleared():
    call_command("clearsessions")
