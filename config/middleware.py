"""What every answer carries, whichever app made it."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render, resolve_url
from django.utils import translation
from django.utils.http import url_has_allowed_host_and_scheme

from config.labels import label_of


def private_pages(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Pages for a signed-in person are never stored by a browser or proxy on a shared machine."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        if request.user.is_authenticated and "Cache-Control" not in response:
            response["Cache-Control"] = "private, no-store"
        return response

    return middleware


def readable(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """An address with a zero byte is refused at once: PostgreSQL breaks where it is looked up."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
            raise BadRequest("a zero byte in the address")
        return get_response(request)

    return middleware


class OwnLanguage:
    """Who chose a language gets it in every browser; everybody else gets what the browser asks for.

    Pages that are in no catalogue yet (`locale/make.py` lists those that are) stay English as a
    whole: translated by the words that they share with others, half of each would be German.
    """

    # Modules of such pages, and single ones.
    ENGLISH = frozenset(
        {
            "annotation.pages.account.token_list",
            "annotation.pages.account.token_revoke",
            "annotation.pages.assignment",
            "annotation.pages.batches",
            "annotation.pages.data",
            "annotation.pages.projects.project_new",
            "annotation.pages.projects.project_settings",
            "config.api_reference",
            "rlhf.pages.campaigns",
            "rlhf.pages.dashboard",
            "rlhf.pages.launch",
            "rlhf.pages.mission_control",
            "rlhf.pages.models",
            "rlhf.pages.reward_round",
            "rlhf.pages.round",
            "rlhf.pages.round_acts",
            "rlhf.pages.samples",
            "rlhf.pages.selection",
        }
    )

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]):
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if chosen := getattr(request.user, "language", ""):
            self._use(request, chosen)
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> None:
        if not self.ENGLISH.isdisjoint({view.__module__, f"{view.__module__}.{view.__name__}"}):
            self._use(request, "en")

    def _use(self, request: HttpRequest, language: str) -> None:
        translation.activate(language)
        request.LANGUAGE_CODE = language


def signed_out(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Who sends a form after their session ended gets it back with all they typed.

    The way to the sign-in page would drop it, and lead back to an address that may only take forms.
    A part of a page (htmx) is told 401: the sign-in page has no place in the middle of another one.
    """
    sign_in = resolve_url(settings.LOGIN_URL)

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        is_part = bool(request.htmx)  # type: ignore[attr-defined]
        if (
            response.status_code != 302
            or not response.get("Location", "").startswith(f"{sign_in}?")
            or (request.method in ("GET", "HEAD") and not is_part)
            # A password is typed again rather than sent back to lie in a page.
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
            "files": [file.name for _, of in request.FILES.lists() for file in of],
            "back": _page_before(request),
        }
        return render(request, "signed_out.html", context, status=401)

    return middleware


def _page_before(request: HttpRequest) -> str:
    """The page of ours that the form was on; "/" where the browser doesn't say."""
    before = request.headers.get("Referer", "")
    if not url_has_allowed_host_and_scheme(before, allowed_hosts={request.get_host()}):
        return "/"
    parts = urlsplit(before)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
