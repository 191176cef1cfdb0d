"""Sessions end: after SESSION_IDLE_MINUTES without a person's act, and after SESSION_DAYS in any case."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.signals import user_logged_in
from django.dispatch import receiver
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from annotation.lib.request_context import current

SEEN = "last_seen"
RESOLUTION = 300.0
"""Seconds after which `last seen` is written again: each write is one of the database."""


def end_idle_sessions(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: signs out who did nothing for too long. What a page asks by itself is no act."""
    limit = 60.0 * settings.SESSION_IDLE_MINUTES
    resolution = min(RESOLUTION, limit / 10)

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.user.is_authenticated:
            current.set(replace(current.get(), session=request.session.session_key or ""))
            idle = time.time() - request.session.get(SEEN, 0.0)
            if idle > limit and SEEN in request.session:
                logout(request)
            elif idle > resolution and _is_act(request):
                _note(request)
        return get_response(request)

    return middleware


def _is_act(request: HttpRequest) -> bool:
    # A page that updates itself, or asks whether somebody is there, is open and maybe forgotten.
    asks_itself = request.method in ("GET", "HEAD") and "HX-Request" in request.headers
    return not asks_itself and request.method != "HEAD"


def _note(request: HttpRequest) -> None:
    request.session[SEEN] = time.time()
    rows = UserSession.objects.filter(session_key=request.session.session_key)
    if not rows.update(last_seen_at=timezone.now(), ip=request.META["REMOTE_ADDR"]):
        UserSession.objects.create_from_request(request)  # begun before there was a list


@receiver(user_logged_in)
def _begin(sender: Any, request: HttpRequest, **_: Any) -> None:
    request.session[SEEN] = time.time()
