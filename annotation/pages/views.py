"""Pages where people judge, and a project's own pages."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Count, F, Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext, gettext_noop
from django.views.decorators.http import require_GET, require_POST, require_safe

from annotation.access import CAN_JUDGE, CAN_RUN, project_view
from annotation.judge.assignment import (
    WAITING_COUNTED,
    limit_reached,
    next_assignment,
    own_assignment,
    own_row,
    peek_next,
    release,
    release_untouched,
    renew,
    responses_of,
    selection,
    waiting,
)
from annotation.judge.submitting import (
    MAX_REASON,
    MAX_REWRITE,
    MAX_SKIP_REASON,
    Answer,
    JudgmentConflict,
    JudgmentError,
    in_letters,
    letters_of,
    ranking_line,
    reopen,
    save_draft,
    skip,
    submit_judgment,
    undo_last,
)
from annotation.lib.prepared import Prepared
from annotation.models import (
    Assignment,
    Batch,
    Event,
    Interface,
    Judgment,
    Membership,
    Project,
    User,
)
from annotation.pages import answer_form as faces
from annotation.pages.project_forms import MemberForm, NewProjectForm, ProjectForm
from annotation.projects.batches import batch_progress
from annotation.projects.guidelines import change_guidelines, news_for
from annotation.protocols import COMPARING, DIALOGUE, WRITING
from annotation.quality.people import outlook
from annotation.request import who_asks, whole_number

State = Assignment.State
BATCHES_SHOWN = 20


# --- Home and projects ----------------------------------------------------------------------------


@login_required
def home(request: HttpRequest) -> HttpResponse:
    memberships = list(
        Membership.objects.filter(user=who_asks(request))
        .select_related("project")
        .order_by("project")
    )
    only = memberships[0] if len(memberships) == 1 else None
    if only and only.role == Membership.Role.ANNOTATOR:
        return redirect("judge", only.project.slug)
    cards = [_card(who_asks(request), membership) for membership in memberships]
    return render(
        request, "annotation/home.html", {"cards": cards, "may_create": _may_create(request)}
    )


@login_required
def project_new(request: HttpRequest) -> HttpResponse:
    if not _may_create(request):
        raise Http404("Only staff and admins of a project start new projects.")
    form = NewProjectForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            project = form.save()
            Membership.objects.create(
                user=who_asks(request), project=project, role=Membership.Role.ADMIN
            )
            Event.record(project, request.user, "created project", project.name)
        messages.success(request, f"{project.name} is there. Add people, then import prompts.")
        return redirect("project_settings", project.slug)
    return render(request, "annotation/projects/new.html", {"form": form})


@project_view()
def project(request: HttpRequest, project: Project) -> HttpResponse:
    # Each is counted anew, so the older ones only for who asks for them.
    made_here = project.batches.filter(is_imported=False, qualification=None)
    shows_all = request.GET.get("batches") == "all"
    n_batches = made_here.count()
    batches = list(made_here if shows_all else made_here[:BATCHES_SHOWN])
    # Who judges must not learn what an engine thinks of a comparison, or that there is one.
    sees_selection = _role(request) in (Membership.Role.ADMIN, Membership.Role.RESEARCHER)
    return render(
        request,
        "annotation/projects/project.html",
        {
            "project": project,
            "batches": [
                (
                    batch,
                    progress,
                    outlook(batch, progress)
                    if batch.state == Batch.State.OPEN and batch.face != DIALOGUE
                    else None,
                    selection(batch)
                    if sees_selection
                    and batch.state == Batch.State.OPEN
                    and batch.face in COMPARING
                    else None,
                )
                for batch, progress in ((batch, batch_progress(batch)) for batch in batches)
            ],
            "n_batches": n_batches,
            "shows_all": shows_all or n_batches <= BATCHES_SHOWN,
            "is_moving": any(batch.state == Batch.State.OPEN for batch in batches),
            "people": _people(project),
            "waiting": _at_least(waiting(who_asks(request), project)),
            "mine": _judged_by(who_asks(request), project).count(),
            "mine_today": _judged_today(who_asks(request), project),
            "n_prompts": project.prompts.count(),
            "random_percent": round(100 * project.random_share),
            "may_judge": _role(request) in CAN_JUDGE,
            "campaigns": _talks(project),
        },
    )


@project_view(*CAN_RUN)
def project_settings(request: HttpRequest, project: Project) -> HttpResponse:
    act = request.POST.get("act", "") if request.method == "POST" else ""
    form = ProjectForm(request.POST if act == "save" else None, instance=project)
    member_form = MemberForm(request.POST if act == "add" else None)
    if act == "save" and form.is_valid():
        again = _save_project(form, who_asks(request))
        told = f" {again} comparisons are judged once more." if again else ""
        messages.success(request, f"Saved.{told}")
        return redirect("project_settings", project.slug)
    if act == "add" and member_form.is_valid():
        who, role = member_form.cleaned_data["who"], member_form.cleaned_data["role"]
        if problem := _set_role(project, who, role, who_asks(request)):
            messages.error(request, problem)
        else:
            messages.success(request, f"{who} is now {role} here.")
        return redirect("project_settings", project.slug)
    if act == "remove":
        membership = get_object_or_404(
            project.memberships, pk=whole_number(request.POST.get("membership"))
        )
        if problem := _set_role(project, membership.user, None, who_asks(request)):
            messages.error(request, problem)
        else:
            messages.success(request, f"{membership.user} left the project; their judgments stay.")
        return redirect("project_settings", project.slug)
    # An invalid form changed the instance in memory: the frame shows the project as it is.
    request.project = Project.objects.get(pk=project.pk)  # type: ignore[attr-defined]
    members = project.memberships.select_related("user").order_by("role", "user__username")
    return render(
        request,
        "annotation/projects/settings.html",
        {"project": project, "form": form, "member_form": member_form, "members": members},
        status=422 if act else 200,
    )


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


# --- Judging --------------------------------------------------------------------------------------


@project_view(*CAN_JUDGE)
@require_safe
def judge(request: HttpRequest, project: Project) -> HttpResponse:
    """The comparison that this person judges now, or what there is instead."""
    if request.method == "HEAD":  # A page asks whether somebody is there before it goes on.
        return HttpResponse()
    assignment = next_assignment(who_asks(request), project)
    if assignment is None and project.interface == Interface.DIALOGUE:
        return redirect("dialogues", project.slug)
    if assignment is None:
        return render(request, "annotation/judge/done.html", _nothing(request, project))
    context = _slot(request, project, assignment)
    # What changed in the guidelines is shown once, before the first comparison under the new ones.
    context["news"] = news_for(project.memberships.get(user=who_asks(request)))
    return render(request, "annotation/judge/judge.html", context)


@project_view(*CAN_JUDGE)
@require_GET
def judge_after(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """The comparison after `uid`, so that it is there before it is needed; 204 if there is none.

    A page that says it has n responses has all that is asked of each of them, and is sent no more
    than what differs: static/js/judge/likeness.js puts the rest in.
    """
    current = _own(request, project, uid, own_row)
    after = peek_next(who_asks(request), project, current)
    if after is None:
        return HttpResponse(status=204)
    context = _slot(request, project, after)
    context["has"] = whole_number(request.headers.get("X-Has-Responses"))
    return render(request, "annotation/judge/judge.html#slot", context)


@project_view(*CAN_JUDGE)
def judge_one(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One comparison of this person's: GET shows it, POST does what the pressed button says."""
    assignment = _own(request, project, uid)
    if assignment.comparison.is_live:  # It is judged where it came into being.
        return redirect("dialogue", project.slug, assignment.comparison.turn.dialogue.uid)
    if request.method != "POST":
        return render(request, "annotation/judge/judge.html", _slot(request, project, assignment))
    was_judged = assignment.state == State.JUDGED
    try:
        saved = _act(request, assignment)
    except JudgmentError as problem:
        status = 409 if isinstance(problem, JudgmentConflict) else 422
        if _wants_json(request):
            return JsonResponse({"problem": str(problem)}, status=status)
        context = _slot(request, project, assignment, faces.posted(request.POST, assignment))
        return render(
            request,
            "annotation/judge/judge.html",
            context | {"problem": str(problem)},
            status=status,
        )
    if _wants_json(request):
        return JsonResponse(saved | _progress(who_asks(request), project))
    if request.POST.get("act") == "draft":
        messages.success(request, gettext("Your draft is saved."))
        return redirect("judge_one", project.slug, assignment.uid)
    if was_judged:
        messages.success(request, gettext("Your correction is saved."))
        return redirect("history", project.slug)
    return redirect("judge", project.slug)


@project_view(*CAN_JUDGE)
@require_POST
def judge_undo(request: HttpRequest, project: Project) -> HttpResponse:
    """Take the last judgment back; with `uid`, open that skipped or judged one again."""
    try:
        if uid := request.POST.get("uid"):
            chosen = _own(request, project, UUID(uid))
            if chosen.comparison.is_live:  # It is taken back where it came into being.
                return redirect("dialogue", project.slug, chosen.comparison.turn.dialogue.uid)
            reopened: Assignment | None = reopen(chosen)
        else:
            reopened = undo_last(who_asks(request), project)
    except ValueError as error:
        raise Http404("There is no such comparison.") from error
    except JudgmentError as problem:
        messages.error(request, str(problem))
        return redirect("history", project.slug)
    if reopened is None:
        messages.warning(
            request, gettext("There is no judgment of yours that could be taken back.")
        )
    else:
        messages.success(request, gettext("Taken back: here it is again, as you left it."))
    return redirect("judge", project.slug)


@project_view(*CAN_JUDGE)
@require_GET
def history(request: HttpRequest, project: Project) -> HttpResponse:
    """What this person judged and skipped here, newest first."""
    mine = (
        Assignment.objects.filter(
            # What was said in a dialogue and withdrawn is gone; rulings are on the review page.
            Q(state=State.JUDGED) | Q(state=State.SKIPPED, comparison__is_live=False),
            annotator=who_asks(request),
            comparison__batch__project=project,
            is_ruling=False,
        )
        .select_related("judgment", "comparison__prompt", "comparison__batch__project")
        .prefetch_related("judgments")
        .order_by(F("judgment__created_at").desc(nulls_last=True), "-leased_at")
    )
    page = Paginator(mine, 30).get_page(request.GET.get("page"))
    rows = [
        {
            "assignment": assignment,
            "lines": faces.told(assignment, _answer(assignment)),
            "flags": _flag_names(_answer(assignment)),
            "is_open": assignment.comparison.batch.state == Batch.State.OPEN,
            "former": _former(assignment),
            "skipped": assignment.skip_reason and gettext(assignment.skip_reason),
        }
        for assignment in page
    ]
    return render(request, "annotation/judge/history.html", {"page": page, "rows": rows})


def _former(assignment: Assignment) -> list[dict[str, Any]]:
    """What this person said before, newest first: corrections keep it, and it counts no more."""
    return [
        {"judgment": old, "lines": faces.told(assignment, in_letters(assignment, old))}
        for old in sorted(assignment.judgments.all(), key=lambda one: -one.revision)
        if old.pk != assignment.judgment_id
    ]


def _act(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    """Do what the pressed button says; what the page needs to know afterwards."""
    # A reason to skip is itself a button, so that skipping is one press, with or without script.
    act = "skip" if "skip" in request.POST else request.POST.get("act", "send")
    if act == "send":
        try:
            once = UUID(request.POST.get("key", ""))
        except ValueError as error:
            raise JudgmentError(
                gettext("The form has no valid key; load the page again.")
            ) from error
        answer = Answer.from_letters(assignment, faces.posted(request.POST, assignment))
        submit_judgment(assignment, by=who_asks(request), answer=answer, key=once)
        return {"sent": True, "is_extra": assignment.is_extra}
    if act == "skip":
        reason = request.POST.get("skip", "")
        skip(assignment, request.POST.get("skip_other", "") if reason == "other" else reason)
        return {"skipped": True}
    if act == "draft":
        save_draft(assignment, faces.posted(request.POST, assignment))
        return {"saved": True, "lease_until": assignment.lease_until.timestamp()}
    if act == "renew":
        renewed = renew(assignment)
        lease = assignment.lease_until
        return {"renewed": renewed, "lease_until": lease.timestamp(), "lease": lease.isoformat()}
    if act == "release":
        if "lease" in request.POST:
            return {"released": release_untouched(assignment, request.POST["lease"])}
        release(assignment)
        return {"released": True}
    raise JudgmentError(gettext("The page asked for something unknown; load it again."))


def _slot(
    request: HttpRequest,
    project: Project,
    assignment: Assignment,
    draft: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the judge page shows. Responses have letters and texts here, and nothing else."""
    if draft is None:
        draft = _answer(assignment)
    ranks, flags = draft.get("ranks", {}), draft.get("flags", {})
    texts = {response.pk: response.text for response in responses_of(assignment.comparison)}
    letters = letters_of(assignment)
    asked = faces.shown(assignment, draft)
    axes = _axes(project)
    harms = [(value, gettext(name)) for value, name in Judgment.HARM_CATEGORIES.items()]
    responses = []
    for pk in assignment.shown_order:
        letter = letters[str(pk)]
        given = {flag["kind"]: flag.get("category", "") for flag in flags.get(letter, [])}
        responses.append(
            {
                "letter": letter,
                "text": texts[pk],
                "axes": [
                    {"axis": axis, "rank": ranks.get(axis["key"], {}).get(letter)} for axis in axes
                ],
                "flagged": {
                    "flags": [
                        (kind, gettext(name), kind in given)
                        for kind, name in Judgment.FLAGS.items()
                    ],
                    "harm": given.get("unsafe", ""),
                    "harms": harms,
                    "n_flags": len(given),
                },
                "asked": asked["votes"].get(letter),
                "set": json.dumps(fields) if (fields := faces.fields_of(letter, draft)) else "",
            }
        )
    k = len(responses)
    return {
        "project": project,
        "assignment": assignment,
        "is_correction": assignment.state == State.JUDGED,
        "messages_of_prompt": assignment.comparison.prompt.messages,
        "batch": assignment.comparison.batch,
        "responses": responses,
        "k": k,
        "rank_numbers": range(1, k + 1),
        "lines": _lines(axes, draft),
        "told": faces.told(assignment, draft),
        **asked,
        "draft": draft,
        # In milliseconds, by the server's clock: the browser keeps drafts as well, and the newer wins.
        "saved_at": _milliseconds(_said_at(assignment)),
        "now": _milliseconds(timezone.now()),
        "lease": assignment.lease_until.isoformat(),
        "key": uuid.uuid4(),
        "has": 0,
        "writes": "js/judge/writing.js" if asked["face"] in WRITING else "",
        "skip_reasons": [(reason, gettext(reason)) for reason in SKIP_REASONS],
        "axes": axes,
        "is_covered": who_asks(request).covers(assignment.comparison.prompt),
        "key_rewrite": "e" if k < 5 else "v",
        "key_guidelines": "g" if k < 7 else "m",
        "limits": {"rewrite": MAX_REWRITE, "reason": MAX_REASON, "skip": MAX_SKIP_REASON},
        # Asked for by the whole page only, not by the next comparison that is fetched ahead.
        "progress": SimpleLazyObject(lambda: _progress(who_asks(request), project)),
    }


SKIP_REASONS = [
    gettext_noop("I can't judge this subject"),
    gettext_noop("I don't understand the request"),
    gettext_noop("The responses can't be compared"),
    gettext_noop("I would rather not read this"),
]


def _answer(assignment: Assignment) -> dict[str, Any]:
    """What this person said or drafted, in letters."""
    if assignment.state == State.JUDGED and assignment.judgment is not None:
        return in_letters(assignment, assignment.judgment)
    return dict(assignment.draft)


def _said_at(assignment: Assignment) -> datetime | None:
    """When this person said or drafted that."""
    if assignment.state == State.JUDGED and assignment.judgment is not None:
        return assignment.judgment.created_at
    return assignment.draft_saved_at


def _milliseconds(moment: datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment else 0


def _lines(axes: list[dict[str, str]], answer: dict[str, Any]) -> list[dict[str, str]]:
    ranks = answer.get("ranks", {})
    return [{**axis, "line": ranking_line(ranks.get(axis["key"], {}))} for axis in axes]


def _axes(project: Project) -> list[dict[str, str]]:
    """The axes in the page's language, where they are the product's own; a project's stay as given."""
    return [
        {name: gettext(text) if text and name != "key" else text for name, text in axis.items()}
        for axis in project.axes
    ]


def _flag_names(answer: dict[str, Any]) -> list[str]:
    return [
        f"{letter}: {gettext(Judgment.FLAGS[flag['kind']])}"
        for letter, of in answer.get("flags", {}).items()
        for flag in of
    ]


def _progress(user: User, project: Project) -> dict[str, int]:
    today, left = _judged_today(user, project), waiting(user, project)
    more = left >= WAITING_COUNTED  # The rest is not counted.
    return {"today": today, "waiting": left, "of": today + left, "more": more}


def _at_least(n: int) -> int | str:
    """A number of comparisons for people to read: beyond WAITING_COUNTED nobody counted."""
    return n if n < WAITING_COUNTED else f"{n}+"


def _nothing(request: HttpRequest, project: Project) -> dict[str, Any]:
    user = who_asks(request)
    with_others = (
        Assignment.objects.filter(
            comparison__batch__project=project,
            comparison__batch__state=Batch.State.OPEN,
            state=State.LEASED,
        )
        .exclude(annotator=user)
        .count()
    )
    return {
        "project": project,
        "limit": limit_reached(user, project, project.own_membership),
        "today": _judged_today(user, project),
        "with_others": with_others,
        "open_batches": project.batches.filter(
            state=Batch.State.OPEN, dialogue_campaign=None, qualification=None
        ).count(),
        "campaigns": _talks(project),
        "membership": Membership.objects.filter(user=user, project=project).first(),
        "ever": _judged_by(user, project).exists(),
    }


# --- Small questions ------------------------------------------------------------------------------


def _role(request: HttpRequest) -> str:
    role: str = request.role  # type: ignore[attr-defined]
    return role


def _own(
    request: HttpRequest,
    project: Project,
    uid: UUID,
    fetch: Callable[[User, Project, UUID], Assignment] = own_assignment,
) -> Assignment:
    """This person's own assignment in this project, or 404."""
    try:
        return fetch(who_asks(request), project, uid)
    except Assignment.DoesNotExist as error:
        raise Http404("There is no such comparison of yours.") from error


def _wants_json(request: HttpRequest) -> bool:
    # A beacon, sent as a page is left, can't set headers.
    return (
        request.headers.get("Accept", "").startswith("application/json") or "json" in request.POST
    )


def _may_create(request: HttpRequest) -> bool:
    user = who_asks(request)
    return (
        user.is_staff
        or user.is_superuser
        or Membership.objects.filter(user=user, role=Membership.Role.ADMIN).exists()
    )


def _judged_by(user: Any, project: Any) -> Any:
    return Judgment.objects.current().filter(
        assignment__annotator=user, assignment__comparison__batch__project=project
    )


_judged_since = Prepared(
    lambda user, project, start: _judged_by(user, project).filter(created_at__gte=start)
)


def _judged_today(user: User, project: Project) -> int:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    return _judged_since.count(user=user.pk, project=project.pk, start=midnight)


def _people(project: Project) -> dict[str, int]:
    counts: dict[str, int] = project.memberships.aggregate(
        **{role: Count("pk", filter=Q(role=role)) for role in Membership.Role.values},
        simulated=Count("pk", filter=Q(user__is_simulated=True)),
    )
    return counts


def _talks(project: Project) -> bool:
    """Whether there is a campaign in which people talk to a policy."""
    open_ones = project.batches.filter(state=Batch.State.OPEN, dialogue_campaign__isnull=False)
    found: bool = open_ones.exists()
    return found


def _card(user: User, membership: Membership) -> dict[str, Any]:
    """What this person can do next in one project."""
    project, role = membership.project, membership.role
    open_batches = list(project.batches.filter(state=Batch.State.OPEN, qualification=None)[:3])
    return {
        "project": project,
        "role": role,
        "role_name": membership.get_role_display(),
        "waiting": _at_least(waiting(user, project)) if role in CAN_JUDGE else 0,
        "today": _judged_today(user, project),
        "batches": [(batch, batch_progress(batch)) for batch in open_batches],
        "n_prompts": project.prompts.count(),
        "n_unsigned": project.sources.waiting().count(),
        "may_judge": role in CAN_JUDGE,
    }


@transaction.atomic
def _save_project(form: ProjectForm, by: User) -> int:
    """Save what changed; how many comparisons are judged once more because the guidelines did."""
    project, changed = form.save(commit=False), list(form.changed_data)
    again = 0
    if "guidelines" in changed:
        share = (form.cleaned_data.get("judge_again") or 0) / 100
        again = change_guidelines(project, project.guidelines, by=by, share=share)
    # The guidelines are written above, under a lock and with their version. Columns that this form
    # does not ask for may have been changed meanwhile.
    columns = {*ProjectForm.Meta.fields, "interface", "protocol", "axes"} - {"guidelines"}
    project.save(update_fields=columns)
    if changed:
        Event.record(project, by, "changed project", project.name, fields=changed)
    return again


@transaction.atomic
def _set_role(project: Project, who: User, role: str | None, by: User) -> str:
    """Give somebody a role or, with None, take them out; why not, "" if it was done."""
    admins = list(
        project.memberships.select_for_update()
        .filter(role=Membership.Role.ADMIN)
        .values_list("user_id", flat=True)
    )
    if role != Membership.Role.ADMIN and admins == [who.pk]:
        return f"{who} is the project's only admin; make somebody else admin first."
    member = project.memberships.filter(user=who).first()
    if role is None:
        project.memberships.filter(user=who).delete()
        for held in Assignment.objects.open_for(who).filter(comparison__batch__project=project):
            release(held)
        seen = member is not None and member.knows_gold
        Event.record(project, by, "removed member", who, user=who.pk, knows_gold=seen)
    else:
        member = member or Membership(
            user=who,
            project=project,
            # Whoever saw which comparisons are gold has not forgotten it by having been away.
            knows_gold=project.events.filter(
                verb="removed member", data__user=who.pk, data__knows_gold=True
            ).exists(),
        )
        member.role = role
        member.save(update_fields=["role"] if member.pk else None)
        Event.record(project, by, "set role", who, role=role)
    return ""
