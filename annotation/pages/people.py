"""The people of a project: who they are in it, what they do, and who is invited."""

from datetime import datetime
from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone

from annotation.access import CAN_RUN, project_view
from annotation.data.preferences import annotator_id
from annotation.lib.languages import english_only
from annotation.lib.mail import sends_mail
from annotation.models import Assignment, Invitation, Judgment, Membership, Project, User
from annotation.pages.project_forms import MemberForm
from annotation.projects import members
from annotation.request import who_asks, whole_number


@english_only
@project_view(*CAN_RUN)
def people(request: HttpRequest, project: Project) -> HttpResponse:
    """Members and open invitations; each button has its own act."""
    form = MemberForm()
    act = request.POST.get("act", "") if request.method == "POST" else ""
    if act == "add":
        form = MemberForm(request.POST)
        if form.is_valid():
            _add(request, project, form.cleaned_data["who"], form.cleaned_data["role"])
            return redirect("people", project.slug)
    elif act in MEMBER_ACTS:
        member = get_object_or_404(
            project.memberships.select_related("user"),
            pk=whole_number(request.POST.get("membership")),
        )
        MEMBER_ACTS[act](request, project, member.user)
        return redirect("people", project.slug)
    elif act in ("withdraw", "renew"):
        _end_invitation(request, project, anew=act == "renew")
        return redirect("people", project.slug)
    wanted = request.GET.get("q", "").strip()
    rows = [row for row in _rows(project) if _is_named(row, wanted)]
    return render(
        request,
        "annotation/projects/people.html",
        {
            "project": project,
            "rows": rows,
            "wanted": wanted,
            "n_people": project.memberships.count(),
            "invitations": project.invitations.filter(accepted_at=None).select_related(
                "created_by"
            ),
            "now": timezone.now(),
            "form": form,
            "roles": Membership.Role.choices,
            "mails": sends_mail(),
            "days": members.LINK_DAYS,
        },
        status=422 if act else 200,
    )


def _rows(project: Project) -> list[dict[str, Any]]:
    """Each member with what they did in the project and when they were last here."""
    memberships = list(
        project.memberships.select_related("user").order_by("role", "user__username")
    )
    users = [member.user_id for member in memberships]
    judged: dict[int, dict[str, Any]] = {
        row["assignment__annotator"]: {"n": row["n"], "last": row["last"]}
        for row in Judgment.objects.current()
        .of_project(project)
        .filter(assignment__is_ruling=False)
        .values("assignment__annotator")
        .annotate(n=Count("pk"), last=Max("created_at"))
    }
    leases: dict[int, int] = dict(
        Assignment.objects.filter(comparison__batch__project=project, state=Assignment.State.LEASED)
        .values_list("annotator")
        .annotate(n=Count("pk"))
    )
    sessions: dict[int, datetime] = dict(
        UserSession.objects.filter(user__in=users)
        .values_list("user")
        .annotate(last=Max("last_seen_at"))
    )
    return [
        {
            "member": member,
            "user": member.user,
            "n": judged.get(member.user_id, {}).get("n", 0),
            "held": leases.get(member.user_id, 0),
            "seen_at": _latest(
                sessions.get(member.user_id),
                member.user.last_login,
                judged.get(member.user_id, {}).get("last"),
            ),
            "pseudonym": annotator_id(project, member.user),
            "limits": [
                f"{most} {per}"
                for most, per in (
                    (_first(member.daily_limit, project.daily_limit), "a day"),
                    (_first(member.total_limit, project.total_limit), "in total"),
                )
                if most is not None
            ],
        }
        for member in memberships
    ]


def _first(own: int | None, common: int | None) -> int | None:
    return common if own is None else own


def _latest(*times: datetime | None) -> datetime | None:
    return max((time for time in times if time is not None), default=None)


def _is_named(row: dict[str, Any], wanted: str) -> bool:
    """Whether a search finds this person: by user name or by the name that exports show."""
    names = (row["user"].username, row["pseudonym"])
    return not wanted or any(wanted.casefold() in name.casefold() for name in names)


# --- What the buttons do ----------------------------------------------------------------------------


def _add(request: HttpRequest, project: Project, who: str, role: str) -> None:
    by = who_asks(request)
    user = members.known_account(project, who, by)
    if user is None:
        # The same for an account that exists and one that does not.
        _invite(request, project, who, role)
    elif problem := members.set_role(project, user, role, by):
        messages.error(request, problem)
    else:
        messages.success(request, f"{user} is now {role}.")


def _invite(request: HttpRequest, project: Project, who: str, role: str) -> None:
    by = who_asks(request)
    try:
        secret = members.invite(project, who, role, by)
    except members.InvitationError as problem:
        messages.error(request, str(problem))
        return
    link = request.build_absolute_uri(reverse("invitation", args=[secret]))
    if members.send_by_mail(project, who, link, by):
        messages.success(request, f"The invitation is on its way to {who}.")
    text = f"Send this link to {who}. It works once, until {members.LINK_DAYS} days from now:"
    messages.success(request, f"{text} {link}")


def _change_role(request: HttpRequest, project: Project, user: User) -> None:
    role = request.POST.get("role", "")
    if role not in Membership.Role.values:
        messages.error(request, "There is no such role.")
    elif problem := members.set_role(project, user, role, who_asks(request)):
        messages.error(request, problem)
    else:
        messages.success(request, f"{user} is now {role}.")


def _remove(request: HttpRequest, project: Project, user: User) -> None:
    if problem := members.set_role(project, user, None, who_asks(request)):
        messages.error(request, problem)
    else:
        messages.success(request, f"{user} left the project; their judgments are kept.")


MEMBER_ACTS = {"role": _change_role, "remove": _remove}


def _end_invitation(request: HttpRequest, project: Project, *, anew: bool) -> None:
    """Withdraw an invitation; with `anew` a new link takes its place, as the old one is only a hash."""
    pk = whole_number(request.POST.get("invitation"))
    invitation = get_object_or_404(Invitation, project=project, pk=pk)
    if not members.withdraw_invitation(project, pk, who_asks(request)):
        messages.warning(request, "This invitation was accepted meanwhile.")
    elif anew:
        _invite(request, project, invitation.who, invitation.role)
    else:
        messages.success(request, f"The invitation of {invitation.who} is withdrawn.")
