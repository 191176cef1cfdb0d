"""Tells a person what happened with their account: by mail, and on every page until they have seen it.

For pages a number in the session says that there is something new, so that no page asks the database.
"""

from datetime import timedelta
from importlib import import_module
from typing import Any

from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from annotation.lib.mail import deliver
from annotation.lib.request_context import current
from annotation.models import AccountNotice, User

UNSEEN = "account_notices"
"""In a session: how many notices its person has not seen."""

Kind = AccountNotice.Kind


def tell(
    user: User, kind: str, detail: str = "", *, but_not: str = "", former_address: str = ""
) -> None:
    """One notice. `but_not` is the session that it is about, by default the one that asks: who did
    something does not get to confirm it. A mail goes to `former_address` too.
    """
    but_not = but_not or current.get().session
    if user.is_simulated:
        return
    now = timezone.now()
    with transaction.atomic():
        AccountNotice.objects.filter(
            user=user, at__lt=now - timedelta(days=settings.SECURITY_LOG_DAYS)
        ).delete()
        notice = AccountNotice.objects.create(
            user=user, kind=kind, detail=detail[:120], address=current.get().address or None
        )
        transaction.on_commit(lambda: _mark_sessions(user, but_not))
    for address in {EmailAddress.objects.get_primary_email(user), former_address} - {"", None}:
        deliver(_mail(user, notice, address))


def note_unseen(user: User, session: Any) -> None:
    """Gives a session that begins the number of notices that its person has not seen."""
    session[UNSEEN] = AccountNotice.objects.filter(user=user, seen_at=None).count()


def see(user: User, session: Any) -> None:
    """The person has seen them all; `session` is the one in which they said so."""
    AccountNotice.objects.filter(user=user, seen_at=None).update(seen_at=timezone.now())
    session[UNSEEN] = 0
    _mark_sessions(user, session.session_key)


def _mark_sessions(user: User, but_not: str) -> None:
    store = import_module(settings.SESSION_ENGINE).SessionStore
    n_unseen = AccountNotice.objects.filter(user=user, seen_at=None).count()
    for row in UserSession.objects.filter(user=user).exclude(session_key=but_not):
        session = store(row.session_key)
        if session.get(UNSEEN, 0) != n_unseen and "_auth_user_id" in session:
            session[UNSEEN] = n_unseen
            session.save()


def _mail(user: User, notice: AccountNotice, address: str) -> EmailMessage:
    """In the person's language. No link: people learn not to follow those in mails about passwords."""
    with translation.override(user.language or settings.LANGUAGE_CODE):
        lines = [
            _("This happened with your account %(name)s of %(site)s:")
            % {"name": user.username, "site": settings.SITE_NAME},
            f"  {notice}",
            _("  from the address %(address)s, %(at)s UTC")
            % {"address": notice.address or "-", "at": f"{notice.at:%Y-%m-%d %H:%M}"},
            _(
                "If that was not you: sign in, end all other sessions and change your password. "
                "If you cannot sign in, write to the operator at once."
            ),
        ]
        subject = f"{settings.SITE_NAME}: {notice.get_kind_display()}"
        return EmailMessage(subject, "\n\n".join(lines) + "\n", to=[address])
