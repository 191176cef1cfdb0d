"""The page that an invitation's link opens."""

from typing import Any

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from annotation.projects.members import InvitationError, accept, open_invitation
from annotation.request import who_asks


@require_http_methods(["GET", "POST"])
def invitation(request: HttpRequest, secret: str) -> HttpResponse:
    """Who is invited to what; POST joins. Every other link is a page that does not exist."""
    invited = open_invitation(secret)
    if invited is None:
        raise Http404("There is no such invitation.")
    # While this browser has it, an account can be opened even where sign-up is closed.
    request.session["invitation"] = secret
    if request.method == "POST" and request.user.is_authenticated:
        try:
            project = accept(secret, who_asks(request))
        except InvitationError as problem:
            raise Http404(str(problem)) from problem
        request.session.pop("invitation", None)
        messages.success(request, _("Welcome to %(project)s.") % {"project": project})
        return redirect("project", project.slug)
    context: dict[str, Any] = {"invitation": invited, "here": request.path}
    return render(request, "annotation/account/invitation.html", context)
