"""A person sees where they are signed in and ends it; who does nothing is signed out."""

import time

import pytest
from allauth.usersessions.models import UserSession
from django.test import Client

from annotation.models import Event
from annotation.pages.sessions import device_name

pytestmark = pytest.mark.django_db

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
EDGE = "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/140.0 Safari/537.36 Edg/140.0"


def signed_in(person, **headers):
    client = Client(**headers)
    client.post(
        "/accounts/login/", {"login": person.username, "password": "a long enough password"}
    )
    assert "_auth_user_id" in client.session
    return client


def test_each_session_is_listed_and_can_be_ended(ada, ben):
    here = signed_in(ada, HTTP_USER_AGENT=FIREFOX, REMOTE_ADDR="203.0.113.1")
    there = signed_in(ada, HTTP_USER_AGENT=EDGE, REMOTE_ADDR="203.0.113.2")
    stranger = signed_in(ben)
    page = here.get("/account/sessions/").content.decode()
    for word in ("Firefox, Linux", "Edge, Windows", "203.0.113.1", "203.0.113.2", "this one"):
        assert word in page
    theirs = UserSession.objects.get(user=ben)
    assert here.post("/account/sessions/", {"session": theirs.pk}).status_code == 404
    assert stranger.get("/account/sessions/").status_code == 200
    other = UserSession.objects.get(ip="203.0.113.2")
    assert here.post("/account/sessions/", {"session": other.pk}).status_code == 302
    assert there.get("/account/sessions/").status_code == 302
    assert here.get("/account/sessions/").status_code == 200
    assert Event.objects.filter(verb="ended sessions", actor=ada).exists()


def test_a_session_from_before_there_was_a_list_is_on_it(ada, client):
    client.force_login(ada)
    UserSession.objects.all().delete()
    assert "this one" in client.get("/account/sessions/").content.decode()


def test_all_others_end_at_once(ada):
    here, one, two = signed_in(ada), signed_in(ada), signed_in(ada)
    here.post("/account/sessions/")
    assert [c.get("/").status_code for c in (one, two)] == [302, 302]
    assert here.get("/account/sessions/").status_code == 200


def test_a_new_password_ends_the_other_sessions(ada):
    here, other = signed_in(ada), signed_in(ada)
    new = "another long enough one"
    sent = {"oldpassword": "a long enough password", "password1": new, "password2": new}
    here.post("/accounts/password/change/", sent)
    assert other.get("/account/sessions/").status_code == 302
    assert here.get("/account/sessions/").status_code == 200


def test_who_does_nothing_is_signed_out(ada, monkeypatch):
    client = signed_in(ada)
    now = time.time()

    def after(minutes):
        monkeypatch.setattr(time, "time", lambda: now + 60 * minutes)

    after(700)
    assert client.get("/account/sessions/").status_code == 200
    after(1400)  # Counted from the last act, not from signing in.
    assert client.get("/account/sessions/").status_code == 200
    after(2000)  # A page that updates itself is no act.
    assert client.get("/account/sessions/", HTTP_HX_REQUEST="true").status_code == 200
    after(2200)
    assert client.get("/account/sessions/").status_code == 302


def test_a_program_without_a_name_has_some_of_its_text():
    assert device_name("curl/8.5.0") == "curl/8.5.0"
    assert device_name("") == "Unknown program"
