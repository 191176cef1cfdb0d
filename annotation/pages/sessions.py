"""Where a person is signed in: each session can be ended from here."""

from typing import Any

from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from annotation.lib.security_events import note
from annotation.models import Event
from annotation.request import who_asks, whole_number

# The first that a user agent's text names; most name others as well.
BROWSERS = {
    "Edg": "Edge",
    "OPR": "Opera",
    "Firefox": "Firefox",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "Mac OS": "macOS",
    "Linux": "Linux",
}


@login_required
@require_http_methods(["GET", "POST"])
def sessions(request: HttpRequest) -> HttpResponse:
    """The sessions of who asks; POST ends one by its id, or without one all but this."""
    if not UserSession.objects.filter(session_key=request.session.session_key).exists():
        UserSession.objects.create_from_request(request)  # begun before there was a list
    own = UserSession.objects.purge_and_list(who_asks(request))
    if request.method == "POST":
        return _end(request, own)
    rows = [
        {
            "session": session,
            "name": device_name(session.user_agent),
            "is_current": session.session_key == request.session.session_key,
        }
        for session in sorted(own, key=lambda session: session.last_seen_at, reverse=True)
    ]
    return render(request, "annotation/account/sessions.html", {"rows": rows})


def _end(request: HttpRequest, own: list[Any]) -> HttpResponse:
    others = [session for session in own if session.session_key != request.session.session_key]
    if "session" in request.POST:
        pk = whole_number(request.POST["session"])
        others = [session for session in others if session.pk == pk]
        if not others:
            raise Http404("You have no such session.")
    for session in others:
        session.end()
    if others:
        Event.record(None, request.user, "ended sessions", len(others))
        note("sessions ended", request.user, n=len(others))
        text = ngettext("%(n)s session ended.", "%(n)s sessions ended.", len(others))
        messages.success(request, text % {"n": len(others)})
    else:
        messages.success(request, _("There is no other session."))
    return redirect("sessions")


def device_name(user_agent: str) -> str:
    """Browser and system for a person to recognize: “Firefox, Linux”."""
    parts = [
        next((name for word, name in known.items() if word in user_agent), "")
        for known in (BROWSERS, SYSTEMS)
    ]
    return ", ".join(filter(None, parts)) or user_agent[:40] or _("Unknown program")
