"""Pages about how one person works: preferences, API tokens and their own progress."""

from datetime import timedelta
from statistics import median
from typing import Any

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
)
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import (
    require_GET,
    require_http_methods,
    require_POST,
)

from annotation import tokens
from annotation.access import CAN_JUDGE, project_view
from annotation.judge.assignment import release_unwanted
from annotation.lib.languages import english_only
from annotation.models import (
    ApiToken,
    Assignment,
    Batch,
    Judgment,
    Membership,
    Project,
    User,
)
from annotation.pages.account_forms import PreferencesForm, TokenForm
from annotation.quality.assessment import agreement_until_today
from annotation.request import save_asked, who_asks


@login_required
def preferences(request: HttpRequest) -> HttpResponse:
    """Language, single keys, harmful material, breaks: kept with the person, whatever the browser."""
    user = User.objects.get(pk=who_asks(request).pk)
    form = PreferencesForm(request.POST or None, instance=user)
    if request.method == "POST" and form.is_valid():
        save_asked(form)
        release_unwanted(user)
        with translation.override(user.language or translation.get_language()):
            messages.success(request, _("Saved."))
        return redirect("preferences")
    status = 422 if request.method == "POST" else 200
    return render(request, "annotation/account/preferences.html", {"form": form}, status=status)


@require_POST
@login_required
def shortcuts(request: HttpRequest) -> HttpResponse:
    """Switch single-key shortcuts on or off for this person (WCAG 2.1.4)."""
    user = who_asks(request)
    user.shortcuts_enabled = request.POST.get("enabled") == "on"
    user.save(update_fields=["shortcuts_enabled"])
    back = request.POST.get("back", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}):
        back = reverse("home")
    return redirect(back)


@english_only
@login_required
@require_http_methods(["GET", "POST"])
@reauthentication_required(allow_get=True)  # type: ignore[untyped-decorator]
def token_list(request: HttpRequest) -> HttpResponse:
    """Tokens of the person who asks. A new one is shown in the answer that made it, never again."""
    form, plain = TokenForm(request.POST or None), ""
    if request.method == "POST":
        if form.is_valid():
            _, plain = tokens.create_token(request.user, **form.cleaned_data)
            form = TokenForm()
        else:
            return render(
                request, "annotation/account/tokens.html", _token_page(request, form), status=422
            )
    return render(
        request, "annotation/account/tokens.html", _token_page(request, form) | {"plain": plain}
    )


def _token_page(request: HttpRequest, form: TokenForm) -> dict[str, Any]:
    mine = ApiToken.objects.filter(user=request.user)
    return {"form": form, "tokens": mine, "api_root": request.build_absolute_uri("/api/v1/")}


@english_only
@login_required
@require_POST
def token_revoke(request: HttpRequest, prefix: str) -> HttpResponse:
    token = ApiToken.objects.filter(user=request.user, token_key=prefix).first()
    if token is None:
        raise Http404("You have no such token.")
    tokens.revoke_token(token)
    messages.success(request, f"Revoked {token.name}.")
    return redirect("tokens")


# With fewer shared comparisons the agreement says more about the others than about this person.
ENOUGH_SHARED = 20


@project_view(*CAN_JUDGE)
@require_GET
def my_progress(request: HttpRequest, project: Project) -> HttpResponse:
    """The person's own judgments, speed and agreement; nothing about gold, no names."""
    me = who_asks(request)
    by_person = agreement_until_today(project)
    own = by_person.get(me.pk)
    others = [
        other.value
        for pk, other in by_person.items()
        if pk != me.pk and other.value is not None and other.n >= ENOUGH_SHARED
    ]
    mine = Judgment.objects.of_project(project).filter(
        current_for__isnull=False, assignment__annotator=me, assignment__is_ruling=False
    )
    seconds = [s for s in mine.values_list("seconds", flat=True) if s is not None]
    days = _days(mine)
    return render(
        request,
        "annotation/account/progress.html",
        {
            "project": project,
            "membership": Membership.objects.filter(user=me, project=project).first(),
            "n": mine.count(),
            "n_skipped": Assignment.objects.filter(
                annotator=me,
                comparison__batch__project=project,
                state=Assignment.State.SKIPPED,
                is_ruling=False,
            ).count(),
            "median_seconds": median(seconds) if seconds else None,
            "agreement": own if own and own.n >= ENOUGH_SHARED else None,
            "compares": bool(own and own.n_pairs),
            "enough": ENOUGH_SHARED,
            "team": median(others) if len(others) >= 2 else None,
            "days": days,
            "most": max((n for _, n in days), default=0),
            "is_open": project.batches.filter(state=Batch.State.OPEN).exists(),
        },
    )


def _days(mine: Any) -> list[tuple[Any, int]]:
    """Judgments a day over the last fourteen days, today last."""
    today = timezone.localdate()
    per_day = dict.fromkeys((today - timedelta(days=13 - i) for i in range(14)), 0)
    since = timezone.now() - timedelta(days=15)
    for at in mine.filter(created_at__gte=since).values_list("created_at", flat=True):
        day = timezone.localtime(at).date()
        if day in per_day:
            per_day[day] += 1
    return list(per_day.items())
