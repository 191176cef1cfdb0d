"""Who is signed in, looked up on every page with questions that are compiled once (prepared.py)."""

from typing import Any

from allauth.account.auth_backends import AuthenticationBackend
from django.contrib.auth import backends
from django.contrib.sessions.backends import db
from django.contrib.sessions.models import Session
from django.utils import timezone

from annotation.lib.prepared import Prepared
from annotation.models import User

_session = Prepared(lambda key, now: Session.objects.filter(session_key=key, expire_date__gt=now))
_user = Prepared(lambda pk: User.objects.filter(pk=pk))


class SessionStore(db.SessionStore):
    """Django's sessions in the database."""

    def _get_session_from_db(self) -> Session | None:
        found = _session.first(key=self.session_key, now=timezone.now())
        if found is None:
            self._session_key = None
        return found


class _Fetch:
    def get_user(self, user_id: Any) -> User | None:
        user = _user.first(pk=user_id)
        return user if user is not None and self.user_can_authenticate(user) else None  # type: ignore[attr-defined]


class ModelBackend(_Fetch, backends.ModelBackend):
    """Django's users and passwords."""


class AccountBackend(_Fetch, AuthenticationBackend):  # type: ignore[misc]
    """allauth's: by name or by address."""
