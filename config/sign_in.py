"""Signing in and a forgotten password, with the same work whether a name or address is known or not.

An answer's duration would otherwise tell who has an account.
"""

from typing import Any

from allauth.account.auth_backends import AuthenticationBackend
from allauth.account.forms import ResetPasswordForm
from allauth.account.internal.userkit import filter_users_by_email, get_user_by_username
from django.http import HttpRequest

from annotation.lib.mail import in_background, sends_mail
from annotation.models import User


class OneHashBackend(AuthenticationBackend):  # type: ignore[misc]
    """allauth's, with one account to try and so one password hash, whatever was typed.

    Its own tries a name, then an address, then each account with that address: who counts the hashes by
    the answer's duration learns which of them exist. Where accounts share an address, the one that
    verified it is meant, and the others sign in by name.
    """

    def _authenticate(self, request: HttpRequest | None, **credentials: Any) -> User | None:
        name, address = credentials.get("username") or "", credentials.get("email") or ""
        user = get_user_by_username(name) if name else None
        if user is None and (address or "@" in name):
            accounts = filter_users_by_email(address or name, prefer_verified=True, for_login=True)
            user = next(iter(accounts), None)
        checked: User | None = self._check_password(user, credentials["password"])
        return checked


class ForgottenPasswordForm(ResetPasswordForm):  # type: ignore[misc]
    """allauth's, which looks the address up and writes the mail after the answer is on its way."""

    def clean_email(self) -> str:
        address: str = self.cleaned_data["email"]
        return address

    def save(self, request: HttpRequest, **kwargs: Any) -> str:
        if sends_mail():
            in_background(lambda: self._look_up_and_send(request, **kwargs))
        return self.clean_email()

    def _look_up_and_send(self, request: HttpRequest, **kwargs: Any) -> None:
        super().clean_email()  # finds the accounts
        super().save(request, **kwargs)
