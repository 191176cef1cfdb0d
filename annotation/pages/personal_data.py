"""One's own data: what is stored, as a download, and the wish to be erased. Staff decide about it."""

import tempfile
from typing import Any

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import DatabaseError
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from annotation.data import personal_data
from annotation.data.personal_data import PersonalDataError
from annotation.lib.languages import english_only
from annotation.models import ErasureRequest
from annotation.notices import Kind, tell
from annotation.request import who_asks, whole_number

SPOOL_BYTES = 8 * 2**20


@login_required
@require_http_methods(["GET", "POST"])
def my_data(request: HttpRequest) -> HttpResponse:
    """What is stored about who asks; POST takes their open request for erasure back."""
    user = who_asks(request)
    if request.method == "POST":
        personal_data.withdraw_request(user)
        messages.success(request, _("Your request is withdrawn."))
        return redirect("my_data")
    context = {
        **personal_data.counts(user),
        "asked": user.erasure_requests.filter(state=ErasureRequest.State.ASKED).first(),
        "last": user.erasure_requests.exclude(state=ErasureRequest.State.ASKED).first(),
    }
    return render(request, "annotation/account/data.html", context)


@login_required
@require_GET
@reauthentication_required  # type: ignore[untyped-decorator]
def my_data_download(request: HttpRequest) -> HttpResponseBase:
    user = who_asks(request)
    # In memory as long as it is small; the response closes the file.
    file = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115
    personal_data.export(user, file)
    file.seek(0)
    tell(user, Kind.EXPORT)
    return FileResponse(
        file, as_attachment=True, filename=f"{user.username}-{timezone.now():%Y-%m-%d}.zip"
    )


@require_POST
@login_required
@reauthentication_required  # type: ignore[untyped-decorator]
def ask_for_erasure(request: HttpRequest) -> HttpResponse:
    personal_data.ask_for_erasure(who_asks(request))
    messages.success(request, _("The operator decides about your request, and you are told."))
    return redirect("my_data")


@english_only
@login_required
@require_http_methods(["GET", "POST"])
@reauthentication_required(allow_get=True)  # type: ignore[untyped-decorator]
def erasures(request: HttpRequest) -> HttpResponse:
    """Requests that wait for a decision, and those that were decided. For superusers."""
    if not who_asks(request).is_superuser:
        raise Http404("There is no such page.")
    if request.method == "POST":
        return _decide(request)
    return render(request, "annotation/account/erasures.html", _page())


def _page() -> dict[str, Any]:
    requests = ErasureRequest.objects.select_related("user", "decided_by")
    waiting = [
        {
            "request": row,
            "counts": personal_data.counts(row.user),
            "snapshots": personal_data.snapshots_with(row.user),
        }
        for row in requests.filter(state=ErasureRequest.State.ASKED)
    ]
    return {"waiting": waiting, "decided": requests.exclude(state=ErasureRequest.State.ASKED)[:50]}


def _decide(request: HttpRequest) -> HttpResponse:
    pk, reason = whole_number(request.POST.get("request")), request.POST.get("reason", "").strip()
    row = ErasureRequest.objects.filter(pk=pk, state=ErasureRequest.State.ASKED).first()
    by = who_asks(request)
    if row is None:
        messages.info(request, "This request was decided or withdrawn already.")
    elif not reason:
        messages.error(request, "Give the reason of the decision: it is kept.")
    elif request.POST.get("act") == "erase":
        try:
            name = str(row.user)
            personal_data.erase(row.user, by, reason)
            messages.success(request, f"{name} is erased. Their judgments stay under a tombstone.")
        except (PersonalDataError, DatabaseError) as problem:
            messages.error(request, str(problem))
    else:
        personal_data.refuse(row, by, reason)
        tell(row.user, Kind.ERASURE, reason)
        messages.success(request, f"{row.user} is told that they stay, and why.")
    return redirect("erasures")
