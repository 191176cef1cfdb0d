"""How large a request's body may be, by its address, and who may send files: before it is read.

A JSON body takes about twenty times its size in memory once it is parsed, and an uploaded file lands on
disk before a view can refuse it.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from annotation.access import CAN_RUN, project_for

KIB, MIB = 2**10, 2**20
FORM, API = MIB, 512 * KIB
"""Of forms and of API requests, unless the address is one of these."""
LARGER = {
    "api:batch_comparisons": 20 * MIB,
    "api:prompts": 20 * MIB,
    "api:rounds": MIB,
}
UPLOADS = {"prompt_import", "gold_items"}
"""Pages of a project's admin that take files of up to IMPORT_MAX_MIB."""
WITH_BODY = ("POST", "PUT", "PATCH")


def body_limits(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: 413 for a larger body, and no upload by who may not import (404, as the page)."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.method in WITH_BODY:
            refusal = _refusal(request)
            if refusal is not None:
                return refusal
        return get_response(request)

    return middleware


def _refusal(request: HttpRequest) -> HttpResponseBase | None:
    try:
        match = resolve(request.path_info)
    except Resolver404:
        name, slug = "", ""
    else:
        name, slug = match.view_name, match.kwargs.get("slug", "")
    is_api = name.startswith("api:")
    limit = LARGER.get(name, API if is_api else FORM)
    # A small form of somebody who was signed out comes back to them: config/middleware.py.
    if name in UPLOADS and request.user.is_authenticated:
        project_for(request.user, slug, CAN_RUN)
        limit = settings.IMPORT_MAX_MIB * MIB
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isdigit() or int(length) > limit:
        text = f"The body is larger than {_size(limit)}; send it in parts."
        if is_api:
            return JsonResponse({"detail": text}, status=413)
        return HttpResponse(text, status=413, content_type="text/plain")
    return None


def _size(n: int) -> str:
    return f"{n // MIB} MiB" if n >= MIB else f"{n // KIB} KiB"
