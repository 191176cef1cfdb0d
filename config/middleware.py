"""Middleware for every response: caching, language, single sign-on, forms sent after signing out."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.utils import timezone, translation
from django.utils.http import url_has_allowed_host_and_scheme
from requests import RequestException

from config.labels import label_of

log = logging.getLogger(__name__)


def private_pages(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """No browser or proxy on a shared machine stores the pages of a signed-in person."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.user.is_authenticated and "Cache-Control" not in response:
            response["Cache-Control"] = "private, no-store"
        return response

    return middleware


def reject_null_bytes(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """400 for an address with a null byte, which PostgreSQL can't look up."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("a null byte in the address")
        return get_response(request)

    return middleware


class ProviderAway:
    """A provider of single sign-on that does not answer: said on a page, and in the log without a trace."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, RequestException):
            return None
        log.error("The provider of single sign-on does not answer: %s", type(exception).__name__)
        return render(request, "socialaccount/authentication_error.html", status=503)


class OwnLanguage:
    """A person who chose a language gets it in every browser; others get what the browser prefers.

    Pages marked by `annotation.lib.languages.english_only` are English for everybody; the bar at their
    top stays in the person's language (`request.own_language`).
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if chosen := getattr(request.user, "language", ""):
            self._use(request, chosen)
        request.own_language = translation.get_language()  # type: ignore[attr-defined]
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        if getattr(view, "is_english_only", False):
            self._use(request, "en")

    def _use(self, request: HttpRequest, language: str) -> None:
        translation.activate(language)
        request.LANGUAGE_CODE = language


def own_time_zone(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Times are shown in the zone of the browser, which static/js/site.js says in a cookie.

    A zone that nobody knows is ignored. Days of limits are the server's (`annotation.lib.days`).
    """

    def middleware(request: HttpRequest) -> HttpResponseBase:
        zone = request.COOKIES.get("timezone", "")
        if zone not in _zones():
            return get_response(request)
        with timezone.override(ZoneInfo(zone)):
            return get_response(request)

    return middleware


@cache
def _zones() -> set[str]:
    return available_timezones()


def signed_out(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """A form sent after the session ended comes back with everything that was typed.

    A redirect to the sign-in page would lose it, and lead back to an address that may only take
    forms. A request of htmx gets 401: the sign-in page has no place in the middle of another page.
    """
    sign_in = resolve_url(settings.LOGIN_URL)

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_part = bool(request.htmx)  # type: ignore[attr-defined]
        if (
            response.status_code != 302
            or not response.get("Location", "").startswith(f"{sign_in}?")
            or (request.method in ("GET", "HEAD") and not is_part)
            # A password is typed again, never sent back in a page.
            or any("password" in name for name in request.POST)
        ):
            return response
        if is_part:
            return HttpResponse(status=401)
        sent = [
            (name, label_of(request, name), value)
            for name, values in request.POST.lists()
            if name != "csrfmiddlewaretoken"
            for value in values
        ]
        context = {
            "sent": sent,
            "files": [file.name for _, files in request.FILES.lists() for file in files],
            "back": _page_before(request),
        }
        return render(request, "signed_out.html", context, status=401)

    return middleware


def _page_before(request: HttpRequest) -> str:
    """The page of the form, from the Referer header; "/" without one."""
    before = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(before, allowed_hosts={request.get_host()}):
        return "/"
    parts = urlsplit(before)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
