"""One address for a client: behind proxies, without one, and with headers that it wrote itself."""

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import reverse
from rest_framework.throttling import UserRateThrottle

from config.client_address import Trusted, client_address
from tests.factories import UserFactory

PASSWORD = "a long enough password"


def seen(peer, trusted, settings, **headers):
    settings.TRUSTED_PROXIES = trusted
    request = RequestFactory().get("/", REMOTE_ADDR=peer, **headers)
    client_address(lambda _: HttpResponse())(request)
    return request


@pytest.mark.parametrize(
    ("peer", "trusted", "forwarded", "address"),
    [
        ("192.0.2.7", [], "203.0.113.9", "192.0.2.7"),
        ("192.0.2.7", ["10.0.0.0/8"], "203.0.113.9", "192.0.2.7"),
        ("10.1.2.3", ["10.0.0.0/8"], "203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", ["10.0.0.0/8"], "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", ["10.0.0.0/8"], "1.2.3.4, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("10.1.2.3", ["10.0.0.0/8"], "made up, 10.9.9.9", "10.9.9.9"),
        ("10.1.2.3", ["10.0.0.0/8"], "", "10.1.2.3"),
        ("", ["unix"], "203.0.113.9", "203.0.113.9"),
        ("", ["unix"], "", "127.0.0.1"),
        ("", [], "203.0.113.9", "127.0.0.1"),
        ("::ffff:10.1.2.3", ["10.0.0.0/8"], "[2001:db8::1]:443", "2001:db8::1"),
        ("10.1.2.3", ["10.0.0.0/8"], "203.0.113.9:5000", "203.0.113.9"),
    ],
)
def test_an_address_is_what_a_trusted_proxy_says(peer, trusted, forwarded, address, settings):
    headers = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}
    request = seen(peer, trusted, settings, **headers)
    assert request.META["REMOTE_ADDR"] == address
    # What the API's limits count by.
    assert UserRateThrottle().get_ident(request) == address


def test_only_a_trusted_proxy_says_that_a_request_came_by_https(settings):
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    for peer, is_secure in (("192.0.2.7", False), ("10.1.2.3", True)):
        request = seen(peer, ["10.1.2.3"], settings, HTTP_X_FORWARDED_PROTO="https")
        assert request.is_secure() == is_secure


def test_a_proxy_that_is_no_address_is_refused_at_the_start():
    with pytest.raises(ImproperlyConfigured, match="TRUSTED_PROXIES"):
        Trusted(["proxy.example"])


def sign_in(client, name, password, address, **peer):
    sent = {"login": name, "password": password}
    peer = peer or {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": address}
    return client.post(reverse("account_login"), sent, **peer)


@pytest.mark.django_db
def test_wrong_tries_of_one_client_do_not_lock_another_behind_the_same_proxy(client, settings):
    settings.TRUSTED_PROXIES = ["10.0.0.1"]
    UserFactory(username="ada")
    for number in range(12):
        sign_in(client, f"nobody{number}", "wrong", "203.0.113.1")
    assert sign_in(client, "ada", PASSWORD, "203.0.113.1").status_code != 302
    assert sign_in(client, "ada", PASSWORD, "203.0.113.2").status_code == 302


@pytest.mark.django_db
def test_a_client_gets_no_new_tries_by_writing_another_address(client, settings):
    settings.TRUSTED_PROXIES = ["10.0.0.1"]
    UserFactory(username="ada")
    for number in range(12):
        sign_in(client, f"nobody{number}", "wrong", f"198.51.100.{number}, 203.0.113.1")
    assert sign_in(client, "ada", PASSWORD, "198.51.100.99, 203.0.113.1").status_code != 302


@pytest.mark.django_db
def test_people_sign_in_through_a_unix_socket(client):
    UserFactory(username="ada")
    assert sign_in(client, "ada", PASSWORD, "", REMOTE_ADDR="").status_code == 302


@pytest.mark.django_db
def test_the_admin_site_has_no_door_of_its_own(client):
    UserFactory(username="root", is_staff=True)
    admin_door = "/admin/login/"
    answer = client.get(admin_door)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/accounts/login/")
    for _ in range(6):
        client.post(reverse("account_login"), {"login": "root", "password": "wrong"})
    # Locked at the one door: the other one leads there.
    answer = client.post(admin_door, {"username": "root", "password": PASSWORD})
    assert answer.status_code == 302
    assert "_auth_user_id" not in client.session
    assert sign_in(client, "root", PASSWORD, "", REMOTE_ADDR="127.0.0.1").status_code != 302


@pytest.mark.django_db
def test_staff_reach_the_admin_site_and_nobody_else(client):
    staff = UserFactory(is_staff=True, is_superuser=True)
    client.force_login(staff)
    assert client.get("/admin/").status_code == 200
    assert client.get("/admin/password_change/")["Location"] == "/accounts/password/change/"
    client.force_login(UserFactory())
    assert client.get("/admin/login/").status_code == 403
    assert client.get("/admin/").status_code in (302, 403)
