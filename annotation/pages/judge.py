"""The judging pages: the current and the next comparison, undo, and the history."""

import json
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import F, Q
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from django.utils.text import Truncator
from django.utils.translation import gettext, gettext_noop
from django.views.decorators.http import require_GET, require_POST, require_safe

from annotation.access import CAN_JUDGE, project_view
from annotation.judge.answers import (
    MAX_REASON,
    MAX_REWRITE,
    MAX_SKIP_REASON,
    in_letters,
    ranking_line,
)
from annotation.judge.assignment import (
    WAITING_COUNTED,
    next_assignment,
    own_assignment,
    own_row,
    peek_next,
    waiting,
)
from annotation.judge.drafts import save_draft
from annotation.judge.leases import release, release_untouched
from annotation.judge.permission import limit_reached, may_work, renew
from annotation.judge.questions import unseen_answers
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import (
    AnsweredElsewhere,
    JudgmentConflict,
    last_done,
    reopen,
    skip,
    submit_judgment,
    undo_last,
)
from annotation.models import (
    Assignment,
    Batch,
    Interface,
    Judgment,
    Membership,
    Project,
    Response,
    User,
)
from annotation.pages import answer_form
from annotation.pages.workload import has_open_dialogues, judged_by, judged_today
from annotation.projects.guidelines import unseen_change
from annotation.protocols import WRITING
from annotation.request import who_asks, whole_number

State = Assignment.State
SHORT = 120  # characters
COMPARISON_PAGE = "annotation/judge/comparison.html"


SKIP_REASONS = [
    gettext_noop("I can't judge this subject"),
    gettext_noop("I don't understand the request"),
    gettext_noop("The responses can't be compared"),
    gettext_noop("I would rather not read this"),
]


@project_view(*CAN_JUDGE)
@require_safe
def judge(request: HttpRequest, project: Project) -> HttpResponse:
    """The comparison that this person judges now, or the reason why there is none."""
    if request.method == "HEAD":  # A page asks whether somebody is there before it goes on.
        return HttpResponse()
    assignment = next_assignment(who_asks(request), project)
    if assignment is None and project.interface == Interface.DIALOGUE:
        return redirect("dialogues", project.slug)
    if assignment is None:
        return render(request, "annotation/judge/done.html", _nothing_context(request, project))
    context = _comparison_context(request, project, assignment)
    # What changed in the guidelines is shown once, before the first comparison under the new ones.
    context["answers"] = unseen_answers(who_asks(request), project)
    context["news"] = unseen_change(project.memberships.get(user=who_asks(request)))
    return render(request, COMPARISON_PAGE, context)


@project_view(*CAN_JUDGE)
@require_GET
def judge_after(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """The comparison after `uid`, so that it is there before it is needed; 204 if there is none.

    A page that says it has n responses has all that is asked of each of them, and is sent no more
    than what differs: static/js/judge/repeated_parts.js puts the rest in.
    """
    current = _own(request, project, uid, own_row)
    after = peek_next(who_asks(request), project, current)
    if after is None:
        return HttpResponse(status=204)
    context = _comparison_context(request, project, after)
    context["has"] = whole_number(request.headers.get("X-Has-Responses"))
    return render(request, "annotation/judge/comparison.html#slot", context)


@project_view(*CAN_JUDGE)
def judge_one(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One comparison of this person's: GET shows it, POST does what the pressed button says."""
    assignment = _own(request, project, uid)
    if assignment.comparison.is_live:  # It is judged in its dialogue.
        return redirect("dialogue", project.slug, assignment.comparison.turn.dialogue.uid)
    if request.method != "POST":
        return render(request, COMPARISON_PAGE, _comparison_context(request, project, assignment))
    # A reason to skip is itself a button, so that skipping is one press, with or without script.
    pressed = "skip" if "skip" in request.POST else request.POST.get("act", "send")
    act = ACTS.get(pressed, _unknown_act)
    was_judged = assignment.state == State.JUDGED
    try:
        outcome = act(request, assignment)
    except JudgmentError as problem:
        return _refused(request, project, assignment, problem)
    if was_judged and pressed == "send":
        messages.success(request, gettext("Your correction is saved."))
    if _wants_json(request):
        return JsonResponse(outcome | _progress(who_asks(request), project))
    if pressed == "draft":
        messages.success(request, gettext("Your draft is saved."))
        return redirect("judge_one", project.slug, assignment.uid)
    return redirect("history" if was_judged else "judge", project.slug)


# --- What the buttons of a comparison do: each returns what the page's script needs to know -------


def _send(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    try:
        key = UUID(request.POST.get("key", ""))
    except ValueError as error:
        raise JudgmentError(gettext("The form has no valid key. Reload the page.")) from error
    answer = answer_form.answer_from_form(request.POST, assignment)
    seen = request.POST.get("seen", "")
    submit_judgment(
        assignment,
        by=who_asks(request),
        answer=answer,
        key=key,
        seen=int(seen) if seen.isdecimal() else None,
    )
    return {"sent": True, "is_extra": assignment.is_extra}


def _skip(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    reason = request.POST.get("skip", "")
    skip(assignment, request.POST.get("skip_other", "") if reason == "other" else reason)
    return {"skipped": True}


def _save_draft(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    save_draft(assignment, answer_form.answer_from_form(request.POST, assignment))
    return {"saved": True, "lease_until": assignment.lease_until.timestamp()}


def _renew(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    renewed = renew(assignment)
    lease = assignment.lease_until
    return {"renewed": renewed, "lease_until": lease.timestamp(), "lease": lease.isoformat()}


def _release(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    if "lease" in request.POST:
        return {"released": release_untouched(assignment, request.POST["lease"])}
    release(assignment)
    return {"released": True}


def _unknown_act(request: HttpRequest, assignment: Assignment) -> dict[str, Any]:
    raise JudgmentError(gettext("Unknown action. Reload the page."))


ACTS = {
    "send": _send,
    "skip": _skip,
    "draft": _save_draft,
    "renew": _renew,
    "release": _release,
}


def _refused(
    request: HttpRequest, project: Project, assignment: Assignment, problem: JudgmentError
) -> HttpResponse:
    """The reason, and to a person the page with all that they sent."""
    status = 409 if isinstance(problem, JudgmentConflict) else 422
    sent = answer_form.answer_from_form(request.POST, assignment)
    choice = None
    if isinstance(problem, AnsweredElsewhere):
        assignment.refresh_from_db()
        choice = _choice(request, assignment, problem.current, sent)
    if _wants_json(request):
        return JsonResponse({"problem": str(problem), "choice": choice}, status=status)
    context = _comparison_context(request, project, assignment, sent)
    context |= {"problem": str(problem), "choice": choice}
    return render(request, COMPARISON_PAGE, context, status=status)


def _choice(
    request: HttpRequest, assignment: Assignment, current: Judgment, sent: dict[str, Any]
) -> dict[str, Any]:
    """Two answers of one person to one comparison, as text: what counts now and what was sent."""
    prompt = assignment.comparison.prompt
    return {
        "prompt": "" if who_asks(request).covers(prompt) else Truncator(prompt.text).chars(140),
        "revision": current.revision,
        "counts": answer_form.as_text(assignment, in_letters(assignment, current)),
        "sent": answer_form.as_text(assignment, sent),
    }


def _wants_json(request: HttpRequest) -> bool:
    # A beacon, sent as a page is left, can't set headers.
    return (
        request.headers.get("Accept", "").startswith("application/json") or "json" in request.POST
    )


# --- Undo and history -----------------------------------------------------------------------------


@project_view(*CAN_JUDGE)
@require_POST
def judge_undo(request: HttpRequest, project: Project) -> HttpResponse:
    """Take the last judgment or skip back; with `uid`, open that skipped or judged one again.

    With `uid`, sending it twice does it once: a page that heard no answer may send it again.
    """
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
        if _wants_json(request):
            return JsonResponse({"problem": str(problem)}, status=422)
        messages.error(request, str(problem))
        return redirect("history", project.slug)
    if reopened is None:
        messages.warning(request, gettext("No judgment to undo."))
    elif reopened.skip_reason:
        messages.success(request, gettext("Skipped comparison reopened."))
    else:
        messages.success(request, gettext("Judgment reopened."))
    if _wants_json(request):
        return JsonResponse({"undone": True} | _progress(who_asks(request), project))
    return redirect("judge", project.slug)


@project_view(*CAN_JUDGE)
@require_GET
def history(request: HttpRequest, project: Project) -> HttpResponse:
    """This person's judgments and skips in the project, newest first."""
    only_marked = bool(request.GET.get("bookmarked"))
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
    if only_marked:
        mine = mine.filter(bookmarked_at__isnull=False)
    page = Paginator(mine, 30).get_page(request.GET.get("page"))
    ongoing = may_work(who_asks(request), project).ongoing_attempt
    rows = [
        {
            "assignment": assignment,
            "lines": answer_form.summary(assignment, _answer(assignment)),
            "flags": _flag_names(_answer(assignment)),
            "is_open": assignment.comparison.batch.state == Batch.State.OPEN,
            "is_settled": assignment.comparison.batch.qualification not in (None, ongoing),
            "former": _former(assignment),
            "skipped": assignment.skip_reason and gettext(assignment.skip_reason),
        }
        for assignment in page
    ]
    return render(
        request,
        "annotation/judge/history.html",
        {"page": page, "rows": rows, "only_marked": only_marked},
    )


def _former(assignment: Assignment) -> list[dict[str, Any]]:
    """What this person said before, newest first: corrections keep it, and it counts no more."""
    return [
        {
            "judgment": earlier,
            "lines": answer_form.summary(assignment, in_letters(assignment, earlier)),
        }
        for earlier in sorted(assignment.judgments.all(), key=lambda judgment: -judgment.revision)
        if earlier.pk != assignment.judgment_id
    ]


def _nothing_context(request: HttpRequest, project: Project) -> dict[str, Any]:
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
        "today": judged_today(user, project),
        "with_others": with_others,
        "open_batches": project.batches.filter(
            state=Batch.State.OPEN, dialogue_campaign=None, qualification=None
        ).count(),
        "campaigns": has_open_dialogues(project),
        "membership": Membership.objects.filter(user=user, project=project).first(),
        "ever": judged_by(user, project).exists(),
        "last": _last_uid(user, project),
    }


def _comparison_context(
    request: HttpRequest,
    project: Project,
    assignment: Assignment,
    draft: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What the judge page shows. Responses have letters and texts here, whether they were cut off,
    and nothing that tells who wrote them."""
    if draft is None:
        draft = _answer(assignment)
    ranks, flags = draft.get("ranks", {}), draft.get("flags", {})
    shown = {response.pk: response for response in assignment.comparison.ordered_responses()}
    letters = assignment.letters
    questions = answer_form.questions(assignment, draft)
    axes = _axes(project)
    harms = [(value, gettext(name)) for value, name in Judgment.HARM_CATEGORIES.items()]
    responses = []
    for pk in assignment.shown_order:
        letter = letters[str(pk)]
        flagged = {flag["kind"]: flag.get("category", "") for flag in flags.get(letter, [])}
        responses.append(
            {
                "letter": letter,
                "text": shown[pk].text,
                "is_cut_off": shown[pk].is_cut_off,
                "axes": [
                    {"axis": axis, "rank": ranks.get(axis["key"], {}).get(letter)} for axis in axes
                ],
                "flagged": {
                    "flags": [
                        (kind, gettext(name), kind in flagged)
                        for kind, name in Judgment.FLAGS.items()
                    ],
                    "harm": flagged.get("unsafe", ""),
                    "harms": harms,
                    "n_flags": len(flagged),
                },
                "mark_questions": questions["marks"].get(letter),
                "set": json.dumps(set_fields)
                if (set_fields := answer_form.filled_fields(letter, draft))
                else "",
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
        "is_short": k > 1 and not questions["asks_marks"] and all(map(_is_short, shown.values())),
        "rank_numbers": range(1, k + 1),
        "lines": _lines(axes, draft),
        "answer_lines": answer_form.summary(assignment, draft),
        **questions,
        "draft": draft,
        # In milliseconds, by the server's clock: the browser keeps drafts as well, and the newer wins.
        "saved_at": _milliseconds(_said_at(assignment)),
        "now": _milliseconds(timezone.now()),
        "lease": assignment.lease_until.isoformat(),
        "key": uuid.uuid4(),
        "seen": assignment.judgment.revision if assignment.judgment is not None else 0,
        "last": SimpleLazyObject(lambda: _last_uid(who_asks(request), project)),
        "has": 0,
        "writes": "js/judge/writing.js" if questions["interface"] in WRITING else "",
        "skip_reasons": [(reason, gettext(reason)) for reason in SKIP_REASONS],
        "axes": axes,
        "is_covered": who_asks(request).covers(assignment.comparison.prompt),
        "key_rewrite": "e" if k < 5 else "v",
        "key_guidelines": "g" if k < 7 else "m",
        "limits": {"rewrite": MAX_REWRITE, "reason": MAX_REASON, "skip": MAX_SKIP_REASON},
        # Asked for by the whole page only, not by the next comparison that is fetched ahead.
        "progress": SimpleLazyObject(lambda: _progress(who_asks(request), project)),
    }


def _is_short(response: Response) -> bool:
    """Whether a response fits on one line, so that the page can show one response a row."""
    return len(response.text) <= SHORT and "\n" not in response.text.strip()


def _answer(assignment: Assignment) -> dict[str, Any]:
    """This person's answer or draft, by response letter."""
    if assignment.state == State.JUDGED and assignment.judgment is not None:
        return in_letters(assignment, assignment.judgment)
    return dict(assignment.draft)


def _said_at(assignment: Assignment) -> datetime | None:
    """When this person said or drafted that."""
    if assignment.state == State.JUDGED and assignment.judgment is not None:
        return assignment.judgment.created_at
    return assignment.draft_saved_at


def _milliseconds(time: datetime | None) -> int:
    return int(time.timestamp() * 1000) if time else 0


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
        for letter, raised in answer.get("flags", {}).items()
        for flag in raised
    ]


def _last_uid(user: User, project: Project) -> str:
    """What "undo" reopens; "" if there is nothing."""
    last = last_done(user, project)
    return str(last.uid) if last else ""


def _progress(user: User, project: Project) -> dict[str, int]:
    today, left = judged_today(user, project), waiting(user, project)
    more = left >= WAITING_COUNTED  # The rest is not counted.
    return {"today": today, "waiting": left, "of": today + left, "more": more}


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
