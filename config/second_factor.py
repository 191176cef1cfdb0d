"""A second factor: who must have one, how its secrets are kept, and which keys sign in alone.

The pages and the checks are allauth's (`allauth.mfa`): codes of an authenticator app (TOTP), passkeys and
security keys (WebAuthn), recovery codes.
"""

import base64
import hashlib
from collections.abc import Callable
from typing import Any

from allauth.account.internal.flows.login import get_authentication_records
from allauth.account.signals import email_added, email_changed, email_removed
from allauth.mfa import signals
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn.forms import LoginWebAuthnForm
from allauth.socialaccount.signals import social_account_added, social_account_removed
from cryptography.fernet import Fernet
from django.conf import settings
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.utils.translation import gettext as _

from annotation.lib.security_events import note
from annotation.models import User
from annotation.notices import Kind, tell

OPEN_PATHS = ("/accounts/", "/static/")
"""Where somebody who lacks a second factor still gets to: to set one up, and to sign out."""


class SecondFactorAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets are encrypted with MFA_KEY; the installation has its own name in people's apps."""

    def encrypt(self, text: str) -> str:
        return _fernet().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        """cryptography.fernet.InvalidToken where MFA_KEY is another than when it was stored."""
        return _fernet().decrypt(encrypted_text.encode()).decode()

    def get_totp_issuer(self) -> str:
        return str(settings.SITE_NAME)

    def generate_authenticator_name(self, user: Any, type: Any) -> str:
        """What the form proposes for a new key."""
        n = Authenticator.objects.filter(user_id=user.pk, type=type).count() + 1
        return _("Key %(n)s") % {"n": n}

    def _get_site_name(self) -> str:
        return str(settings.SITE_NAME)


def _fernet() -> Fernet:
    key = hashlib.sha256(b"ground-control second factor " + settings.MFA_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))


class PasskeyForm(LoginWebAuthnForm):  # type: ignore[misc]
    """Signing in with a key alone: only with one that its owner added as a passkey."""

    def clean_credential(self) -> Any:
        authenticator = super().clean_credential()
        if authenticator.wrap().is_passwordless is False:
            note("sign-in failed", authenticator.user, by="security key")
            raise SecondFactorAdapter().validation_error("incorrect_code")
        return authenticator


def require_second_factor(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: leads who must have a second factor (REQUIRE_MFA) and has none to its page."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if not must_set_up(request) or request.path.startswith(OPEN_PATHS):
            return get_response(request)
        if request.path.startswith("/api/"):
            detail = "Your role asks for a second factor. Set one up under Account → Security."
            return JsonResponse({"detail": detail}, status=403)
        if request.method == "GET" and "HX-Request" not in request.headers:
            return redirect("mfa_index")
        return HttpResponse(
            _("Your role asks for a second factor. Set one up under Account → Security."),
            status=403,
            content_type="text/plain",
        )

    return middleware


def must_set_up(request: HttpRequest) -> bool:
    """Whether this session needs a second factor that its person has not set up."""
    user = request.user
    return (
        settings.REQUIRE_MFA != "nobody"
        and isinstance(user, User)
        and user.lacks_second_factor
        and not _came_by_a_provider_that_asks(request)
    )


def _came_by_a_provider_that_asks(request: HttpRequest) -> bool:
    if not settings.OIDC_SECOND_FACTOR:
        return False
    records = get_authentication_records(request, request.user)
    return any(record.get("method") == "socialaccount" for record in records)


def _name_of(authenticator: Authenticator) -> str:
    names = {
        Authenticator.Type.TOTP: _("Authenticator app"),
        Authenticator.Type.WEBAUTHN: _("Passkeys and security keys"),
        Authenticator.Type.RECOVERY_CODES: _("Recovery codes"),
    }
    return names[authenticator.type]


@receiver(signals.authenticator_added)
def _added(sender: Any, user: Any, authenticator: Authenticator, **_: Any) -> None:
    note("second factor added", user, factor=authenticator.type)
    if (
        authenticator.type != Authenticator.Type.RECOVERY_CODES
    ):  # they come with the first other one
        tell(user, Kind.FACTOR, _name_of(authenticator))


@receiver(signals.authenticator_removed)
def _removed(sender: Any, user: Any, authenticator: Authenticator, **_: Any) -> None:
    note("second factor removed", user, factor=authenticator.type)
    tell(user, Kind.FACTOR, _name_of(authenticator))


@receiver(signals.authenticator_reset)
def _reset(sender: Any, user: Any, authenticator: Authenticator, **_: Any) -> None:
    note("second factor renewed", user, factor=authenticator.type)
    tell(user, Kind.FACTOR, _name_of(authenticator))


@receiver(signals.authentication_failed)
def _failed(sender: Any, user: Any, authenticator: Authenticator, **_: Any) -> None:
    note("second factor failed", user, factor=authenticator.type)


@receiver([social_account_added, social_account_removed])
def _connection(sender: Any, signal: Any, **data: Any) -> None:
    if signal is social_account_added:
        user, kind = data["sociallogin"].user, "single sign-on connected"
    else:
        user, kind = data["socialaccount"].user, "single sign-on disconnected"
    note(kind, user)
    tell(user, Kind.CONNECTION)


@receiver([email_added, email_removed])
def _address(sender: Any, user: Any, email_address: Any, **_: Any) -> None:
    note("address changed", user)
    tell(user, Kind.ADDRESS, email_address.email, former_address=email_address.email)


@receiver(email_changed)
def _primary_address(
    sender: Any, user: Any, from_email_address: Any, to_email_address: Any, **_: Any
) -> None:
    """Told where the person reads it still: an intruder's own address would tell nobody."""
    note("address changed", user)
    former = from_email_address.email if from_email_address else ""
    tell(user, Kind.ADDRESS, to_email_address.email, former_address=former)
