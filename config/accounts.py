"""Who may sign up, and what happens at sign-out."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.conf import settings
from django.http import HttpRequest

from annotation.judge.leases import release_on_leaving
from annotation.models import User
from annotation.projects.members import open_invitation
from config.client_address import LOCAL
from config.context import sends_mail


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """An admin creates accounts or invites, unless SIGNUP_OPEN lets strangers sign up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        secret = request.session.get("invitation", "")
        return bool(settings.SIGNUP_OPEN) or (secret and open_invitation(secret) is not None)

    def get_client_ip(self, request: HttpRequest) -> str:
        """As config/client_address.py found it; a program without a request of the web is local."""
        return request.META.get("REMOTE_ADDR") or LOCAL

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Nothing where no mail is set up: a link to a new password has no place in a log."""
        if sends_mail():
            super().send_mail(template_prefix, email, context)

    def logout(self, request: HttpRequest) -> None:
        """Releases the person's unopened assignments, so that nobody has to wait for the lease."""
        if isinstance(request.user, User):
            release_on_leaving(request.user)
        super().logout(request)


class SingleSignOnAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]
    """The provider signs in to an account that its owner connected, or, with OIDC_SIGNUP, opens one."""

    def is_open_for_signup(self, request: HttpRequest, sociallogin: Any) -> bool:
        return bool(settings.OIDC_SIGNUP) or super().is_open_for_signup(request, sociallogin)
