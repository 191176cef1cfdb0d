"""Keys to the REST API: made, checked and revoked. Only a SHA-512 digest is ever stored."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from knox.auth import TokenAuthentication as KnoxAuthentication
from knox.crypto import hash_token
from rest_framework import exceptions

from annotation.lib.security_events import note
from annotation.models import ApiToken, Event
from annotation.notices import Kind, tell

# Writing `last_used_at` on every call would make each read of the API a write.
LAST_USED_RESOLUTION = timedelta(minutes=1)


class TokenAuthentication(KnoxAuthentication):  # type: ignore[misc]
    """`Authorization: Token gc_…`, as knox checks it; remembers when each token was last used."""

    def authenticate(self, request: Any) -> Any:
        # knox hands on the header alone, and the last use is noted with the client's address.
        self.address = request.META.get("REMOTE_ADDR") or None
        return super().authenticate(request)

    def authenticate_credentials(self, token: bytes) -> tuple[Any, Any]:
        try:
            digest = hash_token(token.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise exceptions.AuthenticationFailed("Invalid token.") from error
        # A look-up by the digest of a long random text: its duration reveals nothing about other
        # tokens.
        auth_token = ApiToken.objects.filter(digest=digest).select_related("user").first()
        if auth_token is None or self._cleanup_token(auth_token):
            raise exceptions.AuthenticationFailed("Invalid token.")
        user, _ = self.validate_user(auth_token)
        if user.lacks_second_factor:
            raise exceptions.AuthenticationFailed(
                "The token's owner must set up a second factor first: Account → Security."
            )
        now = timezone.now()
        if not auth_token.last_used_at or now - auth_token.last_used_at > LAST_USED_RESOLUTION:
            ApiToken.objects.filter(pk=auth_token.pk).update(
                last_used_at=now, last_used_from=self.address
            )
            note("token used", user, token=auth_token.token_key)
        return user, auth_token

    def _cleanup_token(self, auth_token: Any) -> bool:
        """Whether it has run out, and is gone. Knox looks at a person's other tokens each time too."""
        if not auth_token.is_expired:
            return False
        auth_token.delete()
        return True


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI description names the header."""

    target_class = "annotation.tokens.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token gc_…`: create one under Account → API tokens.",
        }


def create_token(
    user: Any, *, name: str, days: int, scopes: Iterable[str] = (ApiToken.Scope.READ,)
) -> tuple[ApiToken, str]:
    """A new token and its plain text, which exists only in this answer.

    It lives for `days`, at most TOKEN_MAX_DAYS. ValueError for a scope that does not exist, or none.
    """
    chosen = [scope for scope in ApiToken.Scope.values if scope in set(scopes)]
    if not chosen or set(scopes) - set(chosen):
        raise ValueError(f"A token has scopes among {', '.join(ApiToken.Scope.values)}.")
    expiry = timedelta(days=max(1, min(days, settings.TOKEN_MAX_DAYS)))
    with transaction.atomic():
        token, plain = ApiToken.objects.create(user=user, expiry=expiry, name=name, scopes=chosen)
        Event.record(None, user, "made API token", name, prefix=token.token_key, scopes=chosen)
    note("token made", user, token=token.token_key, scopes=chosen)
    tell(user, Kind.TOKEN, name)
    return token, plain


class RevokeOnNewPassword:
    """Among the password validators, as Django tells those of every new password.

    Somebody who sets a new one because the old one got around also wants what was made with it gone. A
    password that is only hashed again at sign-in is no new one.
    """

    def validate(self, password: str, user: Any = None) -> None:
        """Every password will do."""

    def password_changed(self, password: str, user: Any = None) -> None:
        note("password changed", user)
        if user.last_login:  # else an account that is just being made
            tell(user, Kind.PASSWORD)
        for token in ApiToken.objects.filter(user=user):
            revoke_token(token)

    def get_help_text(self) -> str:
        return ""


def revoke_token(token: ApiToken) -> None:
    """Delete the token; programs that use it are refused from now on."""
    with transaction.atomic():
        Event.record(None, token.user, "revoked API token", token.name, prefix=token.token_key)
        token.delete()
    note("token revoked", token.user, token=token.token_key)
