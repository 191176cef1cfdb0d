"""Who belongs to a project: roles, and invitations by a link.

An admin can name accounts that they know already. Anybody else gets a link, whether the account exists
or not, so that no page tells which ones do. An e-mail address counts once its owner has verified it:
anybody can type somebody else's into their own account.
"""

import hashlib
import secrets
from datetime import timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotation.judge.leases import release
from annotation.lib.mail import deliver, sends_mail
from annotation.models import Assignment, Event, Invitation, Membership, Project, User

LINK_DAYS = 7
MOST_OPEN = 200


class InvitationError(Exception):
    """Why an invitation can't be accepted, in one sentence."""


def known_account(project: Project, who: str, by: User) -> User | None:
    """The account of this user name or verified address, if `by` knows of it already.

    That is: somebody in one of their projects, somebody who was in this one, or, for staff, anybody.
    """
    verified = EmailAddress.objects.filter(email__iexact=who, verified=True).values("user")
    # Anybody can choose somebody's address as their user name: an address is only ever an address.
    is_named = Q(pk__in=verified) if "@" in who else Q(username=who) | Q(pk__in=verified)
    users = list(User.objects.filter(is_named)[:2])
    if len(users) != 1:
        return None
    user = users[0]
    own = by.memberships.values("project")
    is_known = (
        by.is_staff
        or user.memberships.filter(project__in=own).exists()
        or project.events.filter(verb="removed member", data__user=user.pk).exists()
    )
    return user if is_known else None


def invite(project: Project, who: str, role: str, by: User) -> str:
    """A new invitation; returns the secret of its link, which exists nowhere else.

    InvitationError if too many are open: an address may be a stranger's, who gets a mail.
    """
    now = timezone.now()
    if project.invitations.filter(accepted_at=None, expires_at__gt=now).count() >= MOST_OPEN:
        raise InvitationError(f"{MOST_OPEN} invitations are open: withdraw some, or wait.")
    secret = secrets.token_urlsafe(24)
    with transaction.atomic():
        Invitation.objects.create(
            project=project,
            role=role,
            who=who,
            secret_sha256=_hash(secret),
            created_by=by,
            expires_at=timezone.now() + timedelta(days=LINK_DAYS),
        )
        Event.record(project, by, "invited", who, role=role)
    return secret


def withdraw_invitation(project: Project, pk: int, by: User) -> bool:
    """End an invitation that nobody has accepted; True if there was one."""
    rows = Invitation.objects.filter(project=project, pk=pk, accepted_at=None)
    invitation = rows.first()
    if invitation is None:
        return False
    with transaction.atomic():
        rows.delete()
        Event.record(project, by, "withdrew invitation", invitation.who)
    return True


def send_by_mail(project: Project, who: str, link: str, by: User) -> bool:
    """Send an invitation's link to an address, where mail is set up; True if it is on its way."""
    if not sends_mail() or not _is_address(who):
        return False
    body = (
        f"{by} invites you to judge in “{project.name}” ({settings.SITE_NAME}).\n\n"
        f"{link}\n\nThe link works once and for {LINK_DAYS} days. You may ignore this message."
    )
    subject = f"{settings.SITE_NAME}: invitation to {_one_line(project.name)}"
    deliver(EmailMessage(subject, body, to=[who]))
    return True


def _is_address(who: str) -> bool:
    try:
        validate_email(who)
    except ValidationError:
        return False
    return True


def _one_line(text: str) -> str:
    return " ".join(text.split())


def open_invitation(secret: str) -> Invitation | None:
    """The invitation of this link, while it can be accepted."""
    rows = Invitation.objects.select_related("project", "created_by")
    invitation = rows.filter(
        secret_sha256=_hash(secret), accepted_at=None, expires_at__gt=timezone.now()
    ).first()
    if invitation is None or invitation.created_by is None:
        return None
    # Who is no admin any more lets nobody in.
    still = invitation.project.memberships.filter(
        user=invitation.created_by, role=Membership.Role.ADMIN
    )
    return invitation if still.exists() or invitation.created_by.is_staff else None


def accept(secret: str, user: User) -> Project:
    """This person joins with the role of the invitation, which is then used up."""
    with transaction.atomic():
        invitation = open_invitation(secret)
        now = timezone.now()
        taken = invitation is not None and Invitation.objects.filter(
            pk=invitation.pk, accepted_at=None
        ).update(accepted_at=now, accepted_by=user)
        if invitation is None or not taken:
            raise InvitationError("This link has been used or has expired. Ask for a new one.")
        project = invitation.project
        # A member keeps the role that they have: a link only lets people in.
        if not project.memberships.filter(user=user).exists():
            assert invitation.created_by is not None
            set_role(project, user, invitation.role, invitation.created_by)
        Event.record(project, user, "accepted invitation", invitation.who)
    return project


@transaction.atomic
def set_role(project: Project, who: User, role: str | None, by: User) -> str:
    """Give somebody a role or, with None, remove them. Returns the problem, "" when it is done."""
    admins = list(
        project.memberships.select_for_update()
        .filter(role=Membership.Role.ADMIN)
        .values_list("user_id", flat=True)
    )
    if role != Membership.Role.ADMIN and admins == [who.pk]:
        return f"{who} is the only admin; make somebody else admin first."
    member = project.memberships.filter(user=who).first()
    if role is None:
        project.memberships.filter(user=who).delete()
        assignments = Assignment.objects.open_for(who)
        for assignment in assignments.filter(comparison__batch__project=project):
            release(assignment)
        knows_gold = member is not None and member.knows_gold
        Event.record(project, by, "removed member", who, user=who.pk, knows_gold=knows_gold)
    else:
        member = member or Membership(
            user=who,
            project=project,
            # Somebody who knew the gold items still knows them after leaving and coming back.
            knows_gold=project.events.filter(
                verb="removed member", data__user=who.pk, data__knows_gold=True
            ).exists(),
        )
        member.role = role
        member.save(update_fields=["role"] if member.pk else None)
        Event.record(project, by, "set role", who, role=role)
    return ""


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
