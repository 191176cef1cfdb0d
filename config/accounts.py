"""Who may open an account, and what signing out leaves behind."""

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest

from annotation.judge.assignment import release_on_leaving
from annotation.models import User


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Accounts are made by an admin, unless SIGNUP_OPEN says that strangers may sign up."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.SIGNUP_OPEN)

    def logout(self, request: HttpRequest) -> None:
        """Who goes gives back what they have not begun: others need not wait for its lease."""
        if isinstance(request.user, User):
            release_on_leaving(request.user)
        super().logout(request)
