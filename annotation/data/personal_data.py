"""One person's data: what there is, as a zip of JSON Lines, and its erasure.

Judgments are other people's work as well (datasets, rewards, agreement): they stay, under a tombstone
that nothing links to the person. Everything that says who the person was goes.
"""

import json
import re
import secrets
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import IO, Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib.admin.models import LogEntry
from django.contrib.auth.hashers import make_password
from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from annotation.data.snapshot_files import DEMONSTRATIONS, JUDGMENTS, RATINGS
from annotation.judge.leases import release_on_leaving
from annotation.lib.security_events import note
from annotation.models import (
    AccountNotice,
    ApiToken,
    Assignment,
    Dialogue,
    ErasureRequest,
    Event,
    Invitation,
    Judgment,
    Membership,
    Project,
    Question,
    SavedView,
    Snapshot,
    Turn,
    User,
    Withdrawal,
)
from annotation.projects.members import set_role

State = ErasureRequest.State
Row = dict[str, Any]

JUDGMENT_ID = re.compile(rb'"judgment_id": ?"([0-9a-f-]{36})"')
README = """The data of {name}, as of {at}.

One JSON object a line in each file: account, addresses, memberships, judgments (each revision),
questions, dialogues, tokens, sessions, notices, connections, second_factors, events (what you did, as the projects' logs
have it), saved_views, withdrawals, erasure_requests. Passwords and the secrets of tokens and second factors are not in it.
"""


class PersonalDataError(Exception):
    """Why somebody can't be erased now, in one sentence."""


def export(user: User, file: IO[bytes]) -> None:
    """Writes the zip of everything that is stored about this person, one file for each kind of row."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        about = README.format(name=user.username, at=timezone.now().isoformat(timespec="seconds"))
        packed.writestr("README.txt", about)
        for name, rows in _rows_by_kind(user):
            with packed.open(f"{name}.jsonl", "w") as lines:
                for row in rows:
                    lines.write(
                        json.dumps(row, ensure_ascii=False, default=_plain).encode() + b"\n"
                    )


def counts(user: User) -> dict[str, int]:
    """How many rows of each kind there are."""
    return {name: rows.count() for name, rows in _tables(user).items()}


def snapshots_with(user: User) -> list[Snapshot]:
    """The frozen versions whose files have judgments of this person's."""
    own = Judgment.objects.filter(assignment__annotator=user)
    judgments = {str(uid).encode() for uid in own.values_list("uid", flat=True)}
    projects = Project.objects.filter(batches__comparisons__assignments__annotator=user).distinct()
    return [
        snapshot
        for snapshot in Snapshot.objects.filter(project__in=projects).order_by("project", "version")
        if _holds(snapshot, judgments)
    ]


def ask_for_erasure(user: User) -> ErasureRequest:
    """The person's open request, made if there is none: asking twice is asking once."""
    request, is_new = ErasureRequest.objects.get_or_create(user=user, state=State.ASKED)
    if is_new:
        Event.record(None, user, "asked to be erased", user)
        note("erasure asked", user)
    return request


def withdraw_request(user: User) -> None:
    """Takes the person's open request back; nothing if there is none."""
    ErasureRequest.objects.filter(user=user, state=State.ASKED).update(
        state=State.WITHDRAWN, decided_at=timezone.now(), decided_by=user
    )


def refuse(request: ErasureRequest, by: User, reason: str) -> None:
    """Records that the person stays, and why."""
    with transaction.atomic():
        taken = ErasureRequest.objects.filter(pk=request.pk, state=State.ASKED).update(
            state=State.REFUSED, decided_at=timezone.now(), decided_by=by, reason=reason[:500]
        )
        if taken:
            Event.record(None, by, "refused to erase", request.user, reason=reason)


def erase(user: User, by: User | None, reason: str) -> ErasureRequest:
    """Erases the person and records the decision; PersonalDataError where somebody must follow first.

    `report` of the answer says what was deleted, what stays, and which snapshots hold their judgments.
    """
    report: Row = {"snapshots": [str(snapshot) for snapshot in snapshots_with(user)]}
    with transaction.atomic():
        user = User.objects.select_for_update().get(pk=user.pk)
        if user.tombstone:
            raise PersonalDataError(f"{user} has been erased already.")
        _check_others_remain(user)
        release_on_leaving(user)
        for membership in list(user.memberships.select_related("project")):
            if problem := set_role(membership.project, user, None, by or user):
                raise PersonalDataError(f"{membership.project}: {problem}")
        report["judgments_kept"] = Judgment.objects.filter(assignment__annotator=user).count()
        tombstone = secrets.token_hex(8)
        report["deleted"] = _delete_rows(user)
        _forget_names(user, f"erased-{tombstone}")
        _empty(user, tombstone)
        request, _ = ErasureRequest.objects.get_or_create(user=user, state=State.ASKED)
        request.state, request.report, request.reason = State.DONE, report, reason[:500]
        request.decided_at, request.decided_by = timezone.now(), by
        request.save()
        Event.record(None, by, "erased a person", f"erased-{tombstone}", reason=reason, **report)
    note("person erased", by, tombstone=tombstone)
    return request


def inactive_since(days: int) -> "QuerySet[User]":
    """People who have not signed in for so many days, and were not erased."""
    before = timezone.now() - timedelta(days=days)
    return User.objects.filter(
        Q(last_login__lt=before) | Q(last_login=None, date_joined__lt=before),
        tombstone="",
        is_simulated=False,
    ).order_by("username")


def _tables(user: User) -> dict[str, "QuerySet[Any]"]:
    return {
        "addresses": EmailAddress.objects.filter(user=user),
        "memberships": Membership.objects.filter(user=user),
        "judgments": Judgment.objects.filter(assignment__annotator=user).order_by("pk"),
        "questions": Question.objects.filter(assignment__annotator=user).order_by("pk"),
        "dialogues": Turn.objects.filter(dialogue__annotator=user).order_by("pk"),
        "tokens": ApiToken.objects.filter(user=user),
        "sessions": UserSession.objects.filter(user=user),
        "notices": AccountNotice.objects.filter(user=user),
        "connections": SocialAccount.objects.filter(user=user),
        "second_factors": Authenticator.objects.filter(user=user),
        "events": Event.objects.filter(actor=user).order_by("pk"),
        "saved_views": SavedView.objects.filter(user=user),
        "withdrawals": Withdrawal.objects.filter(person=user),
        "erasure_requests": ErasureRequest.objects.filter(user=user),
    }


# What leaves of each kind of row; no secrets, and nothing of other people.
FIELDS = {
    "addresses": ("email", "verified", "primary"),
    "memberships": ("project__slug", "role", "skills", "created_at", "paused_at", "paused_reason"),
    "judgments": (
        "uid",
        "assignment__comparison__batch__project__slug",
        "assignment__comparison_id",
        "revision",
        "ranks",
        "flags",
        "strength",
        "ratings",
        "safety",
        "rewrite",
        "reason",
        "seconds",
        "guideline_version",
        "created_at",
        "excluded_at",
        "excluded_reason",
    ),
    "questions": ("assignment__comparison_id", "text", "created_at", "answer", "answered_at"),
    "dialogues": ("dialogue__uid", "number", "text", "went_on", "created_at"),
    "tokens": (
        "name",
        "token_key",
        "scopes",
        "created",
        "expiry",
        "last_used_at",
        "last_used_from",
    ),
    "sessions": ("ip", "user_agent", "created_at", "last_seen_at"),
    "notices": ("kind", "detail", "address", "at", "seen_at"),
    "connections": ("provider", "uid", "date_joined", "last_login"),
    "second_factors": ("type", "created_at", "last_used_at"),
    "events": ("project__slug", "verb", "target", "at"),
    "saved_views": ("project__slug", "table", "name", "query", "is_shared", "created_at"),
    "withdrawals": ("project__slug", "note", "n_judgments", "versions", "created_at"),
    "erasure_requests": ("state", "asked_at", "decided_at", "reason"),
}
ACCOUNT = (
    "username",
    "first_name",
    "last_name",
    "email",
    "date_joined",
    "last_login",
    "is_active",
    "is_staff",
    "language",
    "harmful_material",
    "break_minutes",
    "shortcuts_enabled",
)


def _rows_by_kind(user: User) -> Iterator[tuple[str, Iterable[Row]]]:
    yield "account", User.objects.filter(pk=user.pk).values(*ACCOUNT)
    for name, rows in _tables(user).items():
        yield name, rows.values(*FIELDS[name]).iterator(chunk_size=500)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _holds(snapshot: Snapshot, judgments: set[bytes]) -> bool:
    """Whether one of its rows is one of these judgments: ids stay, pseudonyms can be rotated."""
    for kind in (JUDGMENTS, RATINGS, DEMONSTRATIONS):
        path = snapshot.folder / f"{kind}.jsonl"
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if any(judgments.intersection(JUDGMENT_ID.findall(line)) for line in file):
                return True
    return False


def _check_others_remain(user: User) -> None:
    others = User.objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and not others.exists():
        raise PersonalDataError(f"{user} is the only superuser; make somebody else one first.")


def _delete_rows(user: User) -> dict[str, int]:
    """Ends sessions and tokens, and deletes what only says who the person was."""
    deleted = {"sessions": 0}
    for session in UserSession.objects.filter(user=user):
        session.end()
        deleted["sessions"] += 1
    tables = _tables(user)
    gone = (
        "addresses",
        "questions",
        "tokens",
        "notices",
        "connections",
        "second_factors",
        "saved_views",
    )
    for name in gone:
        deleted[name] = tables[name].count()
        tables[name].delete()
    LogEntry.objects.filter(Q(user=user) | _about(user)).delete()
    Assignment.objects.filter(annotator=user).exclude(draft={}).update(draft={})
    Assignment.objects.filter(annotator=user).update(bookmarked_at=None)
    Dialogue.objects.filter(annotator=user).exclude(draft="").update(draft="")
    return deleted


def _about(user: User) -> Q:
    meta = User._meta
    return Q(
        content_type__app_label=meta.app_label,
        content_type__model=meta.model_name,
        object_id=str(user.pk),
    )


def _forget_names(user: User, instead: str) -> None:
    """Puts the tombstone in place of the name and addresses in logs of projects and invitations."""
    words = {user.username, user.email, user.get_full_name()} - {""}
    pattern = re.compile(
        "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE
    )
    named = Q()
    for word in words:
        named |= Q(target__icontains=word) | Q(data__icontains=word)
    for event in Event.objects.filter(named).iterator(chunk_size=500):
        event.target = pattern.sub(instead, event.target)[:200]
        event.data = _replaced(event.data, pattern, instead)
        event.save(update_fields=["target", "data"])
    for invitation in Invitation.objects.filter(Q(accepted_by=user) | Q(who__in=words)):
        invitation.who = instead
        invitation.save(update_fields=["who"])


def _replaced(value: Any, pattern: "re.Pattern[str]", instead: str) -> Any:
    if isinstance(value, str):
        return pattern.sub(instead, value)
    if isinstance(value, list):
        return [_replaced(part, pattern, instead) for part in value]
    if isinstance(value, dict):
        return {key: _replaced(part, pattern, instead) for key, part in value.items()}
    return value


def _empty(user: User, tombstone: str) -> None:
    """The account's row stays, as judgments refer to it, and says nothing about anybody."""
    user.groups.clear()
    user.user_permissions.clear()
    # Not by save(): there is no new password to tell anybody of.
    User.objects.filter(pk=user.pk).update(
        username=f"erased-{tombstone}",
        tombstone=tombstone,
        first_name="",
        last_name="",
        email="",
        password=make_password(None),
        is_active=False,
        is_staff=False,
        is_superuser=False,
        language="",
        last_login=None,
    )
