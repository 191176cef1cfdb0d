"""Second factors in a real browser: codes of an authenticator app, passkeys, security keys.

The authenticator is Chromium's own virtual one, and the codes are calculated as a phone does (RFC 6238).
"""

import base64
import hashlib
import hmac
import struct
import time

import pytest
from allauth.mfa.models import Authenticator

from tests.browser.test_pages import assert_sound_in_every_look

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PASSWORD = "a long enough password"


def code_of(secret, at=None):
    """The six digits that an app shows at a time, by RFC 6238."""
    counter = struct.pack(">Q", int(at or time.time()) // 30)
    mac = hmac.new(base64.b32decode(secret), counter, hashlib.sha1).digest()
    offset = mac[-1] & 15
    number = struct.unpack(">I", mac[offset : offset + 4])[0] & 0x7FFFFFFF
    return f"{number % 10**6:06}"


def virtual_key(page, *, is_passkey):
    """A virtual authenticator, as `{"id": …, "session": …}`; a passkey is kept on it and knows its owner."""
    session = page.context.new_cdp_session(page)
    session.send("WebAuthn.enable")
    options = {
        "protocol": "ctap2",
        "transport": "internal" if is_passkey else "usb",
        "hasResidentKey": is_passkey,
        "hasUserVerification": is_passkey,
        "isUserVerified": is_passkey,
        "automaticPresenceSimulation": True,
    }
    session.send("WebAuthn.addVirtualAuthenticator", {"options": options})
    return session


def sign_in_by_password(page, base):
    page.goto(f"{base}/accounts/login/")
    page.get_by_label("Login").fill("grace")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def sign_out(page):
    page.locator(".menu > summary", has_text="grace").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/accounts/login/")


def confirm(page):
    """Gives the password again where a page asks for it."""
    if "reauthenticate" in page.url:
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Confirm").click()


def test_an_admin_sets_up_an_app_and_signs_in_with_its_code_or_a_recovery_code(
    watched, live_server, grace, settings
):
    settings.REQUIRE_MFA = "admins"
    base, page = live_server.url, watched
    sign_in_by_password(page, base)
    page.wait_for_url("**/accounts/2fa/")  # and nowhere else before there is a second factor
    assert page.get_by_text("Your role asks for a second factor").is_visible()
    assert_sound_in_every_look(page, f"{base}/accounts/2fa/")
    page.get_by_role("link", name="Set up").click()
    confirm(page)
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    secret = page.locator("#totp-secret").inner_text()
    page.get_by_label("Authenticator code").fill("000000")
    page.get_by_role("button", name="Turn on").click()
    assert page.get_by_text("Incorrect code").is_visible()
    page.get_by_label("Authenticator code").fill(code_of(secret))
    page.get_by_role("button", name="Turn on").click()
    page.wait_for_url("**/recovery-codes/")
    recovery = page.locator("#recovery-codes").inner_text().split()
    assert len(recovery) == 10
    page.get_by_role("link", name="I have saved them").click()
    stored = Authenticator.objects.get(type="totp").data["secret"]
    assert secret not in stored  # encrypted

    sign_out(page)
    for code in (code_of(secret, time.time() + 30), recovery[3]):
        sign_in_by_password(page, base)
        page.wait_for_url("**/2fa/authenticate/")
        page.get_by_label("Code").fill(code)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{base}/")
        sign_out(page)
    # A recovery code works once.
    sign_in_by_password(page, base)
    page.get_by_label("Code").fill(recovery[3])
    page.get_by_role("button", name="Sign in").click()
    assert page.get_by_text("Incorrect code").is_visible()


def test_a_passkey_signs_in_alone_and_a_security_key_only_after_the_password(
    watched, live_server, grace
):
    base, page = live_server.url, watched
    key = virtual_key(page, is_passkey=True)
    sign_in_by_password(page, base)
    page.wait_for_url(f"{base}/")
    page.goto(f"{base}/accounts/2fa/webauthn/add/")
    confirm(page)
    page.get_by_label("Name").fill("Work laptop")
    page.get_by_label("Sign in with it alone").check()
    page.get_by_role("button", name="Add", exact=True).click()
    page.wait_for_url("**/recovery-codes/")
    sign_out(page)
    page.get_by_role("button", name="Use a passkey").click()
    page.wait_for_url(f"{base}/")
    assert_sound_in_every_look(page, f"{base}/accounts/2fa/")
    assert page.get_by_text("Work laptop").is_visible()
    sign_out(page)
    # The device is away: said on the page, and nothing is lost.
    key.send("WebAuthn.disable")
    virtual_key(page, is_passkey=False)
    page.get_by_role("button", name="Use a passkey").click()
    page.get_by_text("No passkey was used").wait_for()

    Authenticator.objects.filter(type="webauthn").delete()
    sign_in_by_password(page, base)
    page.wait_for_url(f"{base}/")
    page.goto(f"{base}/accounts/2fa/webauthn/add/")
    confirm(page)
    page.get_by_label("Name").fill("Blue key")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("Blue key").wait_for()
    sign_out(page)
    sign_in_by_password(page, base)
    page.wait_for_url("**/2fa/authenticate/")
    assert_sound_in_every_look(page, page.url)
    page.get_by_role("button", name="Use a security key").click()
    page.wait_for_url(f"{base}/")
