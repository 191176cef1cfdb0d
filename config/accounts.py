"""Who may sign up, and what happens at sign-in and sign-out."""

import hashlib
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.contrib.sites.shortcuts import get_current_site
from django.http import HttpRequest, HttpResponse

from annotation.judge.leases import release_on_leaving
from annotation.lib.mail import deliver
from annotation.models import User
from annotation.notices import Kind, note_unseen, tell
from annotation.pages.sessions import device_name
from annotation.projects.members import open_invitation
from config.client_address import LOCAL

KNOWN = "known_device"
"""The cookie by which a browser is known: marks of the people who signed in with it."""
KNOWN_SECONDS = 365 * 86_400


def _mark_of(user: User) -> str:
    """Changes with the password: somebody with a new one is told of each device again."""
    return hashlib.sha256(f"{user.pk} {user.get_session_auth_hash()}".encode()).hexdigest()[:16]


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """An admin creates accounts or invites, unless SIGNUP_OPEN lets strangers sign up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        secret = request.session.get("invitation", "")
        return bool(settings.SIGNUP_OPEN) or (secret and open_invitation(secret) is not None)

    def get_client_ip(self, request: HttpRequest) -> str:
        """As config/client_address.py found it; a program without a request of the web is local."""
        return request.META.get("REMOTE_ADDR") or LOCAL

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Without waiting for the mail server."""
        site = get_current_site(self.request)
        context = {"request": self.request, "email": email, "current_site": site, **context}
        deliver(self.render_mail(template_prefix, email, context))

    def post_login(self, request: HttpRequest, user: User, **kwargs: Any) -> HttpResponse:
        """Tells the person of a sign-in from a browser that was not theirs before."""
        response: HttpResponse = super().post_login(request, user, **kwargs)
        note_unseen(user, request.session)
        known = (request.get_signed_cookie(KNOWN, "", max_age=KNOWN_SECONDS) or "").split(".")
        mark = _mark_of(user)
        if mark not in known:
            device = device_name(request.headers.get("User-Agent", ""))
            tell(user, Kind.SIGN_IN, device, but_not=request.session.session_key or "")
        # Several people may share a browser; the one who signed in last comes first.
        known = [mark, *[other for other in known if other and other != mark]][:8]
        response.set_signed_cookie(
            KNOWN,
            ".".join(known),
            max_age=KNOWN_SECONDS,
            secure=settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Lax",
        )
        return response

    def logout(self, request: HttpRequest) -> None:
        """Releases the person's unopened assignments, so that nobody has to wait for the lease."""
        if isinstance(request.user, User):
            release_on_leaving(request.user)
        super().logout(request)


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """The provider signs in to an account that its owner connected, or, with OIDC_SIGNUP, opens one."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return bool(settings.OIDC_SIGNUP) or super().is_open_for_signup(request, sociallogin)
