"""Single sign-on in a real browser: our content security policy lets the button lead to the provider."""

import copy

import pytest
from allauth.socialaccount.models import SocialAccount

from tests.config.test_single_sign_on import _configured, provider  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_a_person_connects_their_account_and_comes_back_by_it(
    page,
    live_server,
    sign_in,
    ada,
    settings,
    provider,  # noqa: F811
    refused,
):
    policy = copy.deepcopy(settings.CONTENT_SECURITY_POLICY)
    policy["DIRECTIVES"]["form-action"].append(provider)  # as settings.py does with OIDC_SERVER_URL
    settings.CONTENT_SECURITY_POLICY = policy
    sign_in(ada)
    page.goto(f"{live_server.url}/accounts/2fa/")
    page.get_by_role("button", name="Continue with Lab account").click()
    page.get_by_role("button", name="ada-at-lab").click()
    # What lets in later asks for the password, and goes on where it was.
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Confirm").click()
    page.wait_for_url(f"{live_server.url}/accounts/connections/")
    assert SocialAccount.objects.get().user == ada
    page.context.clear_cookies()
    page.goto(f"{live_server.url}/accounts/login/")
    page.get_by_role("button", name="Continue with Lab account").click()
    page.get_by_role("button", name="ada-at-lab").click()
    page.wait_for_url(lambda url: url.startswith(live_server.url) and "/accounts/" not in url)
    assert page.locator(".menu > summary", has_text="ada").is_visible()
    assert refused == []
