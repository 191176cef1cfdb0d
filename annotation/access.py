"""Who may see what: the one place where a view or an endpoint fetches a project for a person.

A project that this person may not see answers 404, so that its existence is not given away.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase

from annotation.models import Membership, Project, User, hot_queries

Role = Membership.Role

# What a role may do contains what the roles on its right may do in the same line.
CAN_JUDGE = (Role.ADMIN, Role.REVIEWER, Role.ANNOTATOR)
CAN_READ_DATA = (Role.ADMIN, Role.RESEARCHER, Role.REVIEWER)
CAN_EXPORT = (Role.ADMIN, Role.RESEARCHER)
CAN_REVIEW = (Role.ADMIN, Role.REVIEWER)
CAN_RUN = (Role.ADMIN,)
ANY_ROLE = tuple(Role)


def project_for(user: Any, slug: str, roles: tuple[str, ...] = ANY_ROLE) -> Project:
    """The project, if this user has one of the roles in it; otherwise Http404."""
    membership = hot_queries.membership(user.pk, slug) if user.is_authenticated else None
    if membership is None or membership.role not in roles:
        raise Http404("There is no such project, or you are not a member of it.")
    project: Project = membership.project
    project.own_membership = membership
    return project


def role_in(user: Any, project: Project) -> str:
    """This user's role in the project, "" if none."""
    membership = project.own_membership
    if membership is None or membership.user_id != user.pk:
        membership = Membership.objects.filter(user=user, project=project).first()
    return membership.role if membership else ""


def role_of(request: HttpRequest) -> str:
    """The role of who asks, in the project that `project_view` fetched for them."""
    role: str = request.role  # type: ignore[attr-defined]
    return role


def may_create_projects(user: User) -> bool:
    """True for staff and for admins of any project."""
    return user.is_admin


def project_view(
    *roles: str,
) -> Callable[[Callable[..., HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """A page of one project: signs in first, then hands the view the project instead of the slug."""

    def decorate(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @login_required
        @wraps(view)
        def inner(request: HttpRequest, slug: str, *args: Any, **kwargs: Any) -> HttpResponseBase:
            project = project_for(request.user, slug, roles or ANY_ROLE)
            # base.html shows the project and the pages that the role may open.
            request.project = project  # type: ignore[attr-defined]
            request.role = role_in(request.user, project)  # type: ignore[attr-defined]
            return view(request, project, *args, **kwargs)

        return inner

    return decorate
