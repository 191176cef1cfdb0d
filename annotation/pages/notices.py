"""A person says that they have seen what happened with their account."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from annotation.notices import see
from annotation.request import who_asks


@require_POST
@login_required
def notices_seen(request: HttpRequest) -> HttpResponse:
    see(who_asks(request), request.session)
    return redirect("mfa_index")
