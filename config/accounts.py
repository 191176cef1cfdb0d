"""Who may sign up, and what happens at sign-out."""

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest

from annotation.judge.leases import release_on_leaving
from annotation.models import User
from config.client_address import LOCAL


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """An admin creates accounts, unless SIGNUP_OPEN lets strangers sign up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.SIGNUP_OPEN)

    def get_client_ip(self, request: HttpRequest) -> str:
        """As config/client_address.py found it; a program without a request of the web is local."""
        return request.META.get("REMOTE_ADDR") or LOCAL

    def logout(self, request: HttpRequest) -> None:
        """Releases the person's unopened assignments, so that nobody has to wait for the lease."""
        if isinstance(request.user, User):
            release_on_leaving(request.user)
        super().logout(request)
