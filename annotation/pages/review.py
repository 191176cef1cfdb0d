"""Pages of the review queue: its cases, and one case with its votes and the decision."""

import uuid
from collections import Counter
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext, ngettext
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_REVIEW, project_view
from annotation.judge.answers import MAX_REWRITE, Answer, in_letters
from annotation.judge.requirements import JudgmentError
from annotation.models import (
    Assignment,
    Judgment,
    Project,
    Response,
    ReviewCase,
    User,
)
from annotation.pages import answer_form
from annotation.protocols import COMPARING, PAIR, RANK, RATE, SAFE_OR_NOT, mark_on
from annotation.quality import review
from annotation.quality.assessment import assessment_of, claim_recalculation
from annotation.quality.disagreement import disagreement
from annotation.quality.interventions import QualityError, ask_again
from annotation.quality.response_consensus import consensus_on_responses
from annotation.quality.votes import votes_of
from annotation.request import who_asks, whole_number
from annotation.statistics.profiles import Profile

# One key for each of ReviewCase.GROUNDS; none is `o`, which uncovers.
GROUND_KEYS = "gfsuex"
CASES_A_PAGE = 30


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def review_queue(request: HttpRequest, project: Project) -> HttpResponse:
    """Cases to decide, the most urgent first, and those decided recently.

    POST does to the selected cases what the pressed button says.
    """
    review.update_queue(project)
    reason, me = _queue_reason(request), who_asks(request)
    if request.method == "POST":
        _do_to_many(request, project)
        return redirect(reverse("review_queue", args=[project.slug]) + _filter(reason))
    cases = review.queue(project, me, reason=reason)
    if request.GET.get("mine"):
        cases = cases.filter(assignee=me)
    related = ("comparison__prompt", "comparison__batch__project", "assignee")
    page = Paginator(cases.select_related(*related), CASES_A_PAGE).get_page(request.GET.get("page"))
    votes = review.votes_by_comparison(case.comparison_id for case in page)
    decided = (
        review.readable_cases(project, who_asks(request))
        .filter(state=ReviewCase.State.DECIDED)
        .select_related("comparison__prompt", "decided_by")
        .order_by("-decided_at")[:10]
    )
    return render(
        request,
        "annotation/review/queue.html",
        {
            "page": page,
            "rows": [_row(case, votes[case.comparison_id]) for case in page],
            "mine": bool(request.GET.get("mine")),
            "n_mine": review.queue(project, me).filter(assignee=me).count(),
            "reviewers": _reviewers(project),
            "key": uuid.uuid4(),
            "grounds": [(value, gettext(name)) for value, name in ReviewCase.GROUNDS.items()],
            "decided": [(case, _ground(case)) for case in decided],
            "reason": reason,
            "filter": _filter(reason),
            "reasons": [(key, gettext(name)) for key, name in ReviewCase.REASONS.items()],
            "first": review.next_case(project, me, reason=reason),
            "avoids": who_asks(request).harmful_material == User.HarmfulMaterial.AVOID,
        },
    )


def _row(case: ReviewCase, votes: list[Judgment]) -> dict[str, Any]:
    """A case in the queue: what tells it from the others."""
    return {
        "case": case,
        "reasons": _reasons(case),
        "n_votes": len(votes),
        "disagreement": disagreement(votes) if len(votes) > 1 else None,
    }


def _reviewers(project: Project) -> list[User]:
    members = project.memberships.filter(role__in=CAN_REVIEW).select_related("user")
    return [member.user for member in members.order_by("user__username")]


def _do_to_many(request: HttpRequest, project: Project) -> None:
    """Assign the selected cases, ask one more person about them, or decide them by their consensus.

    What can't be done to a case leaves it as it is, and is said once for each reason.
    """
    me, act = who_asks(request), request.POST.get("act", "")
    wanted = [whole_number(pk) for pk in request.POST.getlist("case")][:CASES_A_PAGE]
    cases = list(
        review.queue(project, me)
        .filter(pk__in=wanted)
        .select_related("comparison__prompt", "comparison__batch__project")
    )
    if not cases:
        messages.warning(request, gettext("No case is selected, or others decided them meanwhile."))
        return
    problems: Counter[str] = Counter()
    done = 0
    if act == "assign":
        to = next(
            (user for user in _reviewers(project) if str(user.pk) == request.POST.get("to")), None
        )
        done = review.assign(cases, to, me)
    else:
        for case in cases:
            try:
                BULK_ACTS[act](request, case) if act in BULK_ACTS else _unknown_act(request, case)
            except (JudgmentError, QualityError) as error:
                problems[str(error)] += 1
            else:
                done += 1
    if done:
        text = ngettext("%(n)s case done.", "%(n)s cases done.", done)
        messages.success(request, text % {"n": done})
    for problem, n in problems.items():
        messages.warning(request, gettext("%(n)s × %(why)s") % {"n": n, "why": problem})


def _decide_by_consensus(request: HttpRequest, case: ReviewCase) -> None:
    consensus = _consensus(case, review.votes_on(case.comparison))
    if consensus is None:
        raise JudgmentError(gettext("There is no consensus: decide it on its own page."))
    try:
        key = uuid.uuid5(UUID(request.POST.get("key", "")), str(case.uid))
    except ValueError as error:
        raise JudgmentError(gettext("The form has no valid key. Reload the page.")) from error
    ground, note = request.POST.get("ground", ""), request.POST.get("note", "")
    review.decide(case, who_asks(request), answer=consensus, ground=ground, key=key, note=note)


def _ask_about(request: HttpRequest, case: ReviewCase) -> None:
    ask_again(case.comparison, who_asks(request), "review")


def _unknown_act(request: HttpRequest, case: ReviewCase) -> None:
    raise JudgmentError(gettext("Unknown action. Reload the page."))


BULK_ACTS = {"consensus": _decide_by_consensus, "again": _ask_about}


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def review_case(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One comparison with every vote on it; a decision by keyboard, and back."""
    case = get_object_or_404(
        project.review_cases.select_related(
            "comparison__prompt", "comparison__batch__project", "decided_by", "assignee"
        ),
        uid=uid,
    )
    problem, reason = "", _queue_reason(request)
    votes = review.votes_on(case.comparison)
    if request.method == "POST":
        act = CASE_ACTS.get(request.POST.get("act", ""), _decide)
        try:
            next_case = act(request, case, votes, reason)
        except JudgmentError as error:
            problem = str(error)
        else:
            return redirect(_case_or_queue_url(project, next_case, reason))
    posted = request.POST.copy()
    if posted.get("seen", _seen(votes)) != _seen(votes):
        posted.pop("choice", None)  # The number that was chosen may be somebody else's vote now.
    context = _case_context(project, case, votes, who_asks(request), posted, reason)
    context |= {"problem": problem, "posted": posted, "filter": _filter(reason)}
    return render(request, "annotation/review/case.html", context, status=422 if problem else 200)


# --- What the buttons of a case do: each returns the case to show next, or None for the queue -----


def _undo(
    request: HttpRequest, case: ReviewCase, votes: list[Judgment], reason: str
) -> ReviewCase | None:
    review.undo_decision(case, who_asks(request))
    messages.success(request, gettext("Case reopened; the votes count again."))
    return case


def _ask_one_more(
    request: HttpRequest, case: ReviewCase, votes: list[Judgment], reason: str
) -> ReviewCase | None:
    try:
        ask_again(case.comparison, who_asks(request), "review")
    except QualityError as error:
        messages.error(request, str(error))
    else:
        messages.success(request, gettext("One more annotator is assigned."))
    return case


def _decide(
    request: HttpRequest, case: ReviewCase, votes: list[Judgment], reason: str
) -> ReviewCase | None:
    posted = request.POST
    choice, note = posted.get("choice", ""), posted.get("note", "")
    try:
        key = UUID(posted.get("key", ""))
    except ValueError as error:
        raise JudgmentError(gettext("The form has no valid key. Reload the page.")) from error
    if posted.get("seen", _seen(votes)) != _seen(votes):
        raise JudgmentError(
            gettext("The votes changed since you opened the case. Check them again.")
        )
    if choice == "own":
        answer = _own_answer(request, case, note)
    elif choice == "consensus":
        answer = _consensus(case, votes) or Answer()
    elif 1 <= whole_number(choice) <= len(votes):
        answer = review.as_answer(votes[whole_number(choice) - 1])
    else:
        raise JudgmentError(gettext("Select a vote, the consensus or your own answer."))
    ground, me = posted.get("ground", ""), who_asks(request)
    review.decide(case, me, answer=answer, ground=ground, key=key, note=note)
    messages.success(request, gettext("Decision saved. The votes are kept."))
    return review.next_case(case.project, me, reason=reason)


def _take(
    request: HttpRequest, case: ReviewCase, votes: list[Judgment], reason: str
) -> ReviewCase | None:
    """Assign it to oneself, or give it back."""
    me = who_asks(request)
    review.assign([case], None if case.assignee_id == me.pk else me, me)
    return case


CASE_ACTS = {"undo": _undo, "again": _ask_one_more, "take": _take}


def _own_answer(request: HttpRequest, case: ReviewCase, note: str) -> Answer:
    reviewed = _reviewed(case)
    takes_reason = case.comparison.batch.effective_protocol.reason != "none"
    answer = answer_form.answer_from_form(request.POST, reviewed) | {
        "reason": note if takes_reason else ""
    }
    return Answer.from_letters(reviewed, answer)


def _case_or_queue_url(project: Project, case: ReviewCase | None, reason: str) -> str:
    if case is None:
        return reverse("review_queue", args=[project.slug]) + _filter(reason)
    return reverse("review_case", args=[project.slug, case.uid]) + _filter(reason)


def _queue_reason(request: HttpRequest) -> str:
    """The reason that the queue is narrowed to; "" for none, and for what is no reason."""
    reason = request.GET.get("reason", "")
    return reason if reason in ReviewCase.REASONS else ""


def _filter(reason: str) -> str:
    """What addresses of the queue and of its cases end with, so that the filter goes along."""
    return f"?reason={reason}" if reason else ""


def _seen(votes: list[Judgment]) -> str:
    """The votes of a page in order; a choice names a vote by its number."""
    return "-".join(str(vote.pk) for vote in votes)


def _reviewed(case: ReviewCase) -> Assignment:
    """The comparison as a reviewer sees it: responses in the order of their ids. Never saved."""
    ids = list(case.comparison.responses.order_by("pk").values_list("pk", flat=True))
    return Assignment(comparison=case.comparison, shown_order=ids)


def _consensus(case: ReviewCase, votes: list[Judgment]) -> Answer | None:
    """The consensus of all votes, weighted by reliability.

    None where an answer is more than that, how strongly or why, and where a part is undecided.
    """
    protocol, interface = (
        case.comparison.batch.effective_protocol,
        case.comparison.batch.effective_interface,
    )
    says_only_which = interface == PAIR and len(protocol.scale.levels) == 1
    if not (interface in (RANK, RATE) or says_only_which) or protocol.reason == "required":
        return None
    assessment, _ = assessment_of(case.project, allow_outdated=True)
    # Each person's reliability may be some minutes old; the votes are the current ones.
    current_votes = votes_of(case.project, comparison=case.comparison)[0]
    weighed = assessment.known.weighing(current_votes)
    ranks = {}
    for axis in case.project.axis_keys if interface in COMPARING else ():
        ranking = weighed.consensus(axis, case.comparison_id)
        if ranking is not None:
            ranks[axis] = {str(pk): rank for pk, rank in ranking.ranks.items()}
            if says_only_which and len(set(ranking.ranks.values())) == 1 and not protocol.scale.tie:
                return None
    ratings: dict[str, dict[str, int]] = {}
    safety: dict[str, dict[str, Any]] = {}
    keys = [str(pk) for pk in _reviewed(case).shown_order]
    people = [(vote.assignment.annotator_id, vote.ratings, vote.safety) for vote in votes]
    each_response = consensus_on_responses(weighed, keys, people)
    for key, response in zip(keys, each_response, strict=True):
        values = {measure: mark.value for measure, mark in response.marks.items()}
        for attribute in protocol.attributes:
            value = values.get(mark_on(attribute.key))
            if value is not None:
                ratings.setdefault(key, {})[attribute.key] = value
            elif attribute.is_required:
                return None
        if protocol.safety:
            is_safe, harms = values.get(SAFE_OR_NOT), response.main_harms
            if is_safe is None or (not is_safe and protocol.harms and not harms):
                return None
            safety[key] = {"safe": bool(is_safe), "harms": [] if is_safe else harms}
    answer = Answer(ranks=ranks, ratings=ratings, safety=safety)
    return answer if ranks or ratings or safety else None


def _case_context(
    project: Project,
    case: ReviewCase,
    votes: list[Judgment],
    me: User,
    posted: QueryDict,
    reason: str,
) -> dict[str, Any]:
    reviewed = _reviewed(case)
    letters = reviewed.letters
    consensus = _consensus(case, votes)
    ruling = _ruling(case)
    own_answer: dict[str, Any] = {}
    if posted.get("choice") == "own":
        own_answer = answer_form.answer_from_form(posted, reviewed)
    elif ruling is not None:
        own_answer = in_letters(reviewed, ruling)
    questions = answer_form.questions(reviewed, own_answer)
    assessment, is_current = assessment_of(project, allow_outdated=True)
    queue = review.queue(project, me, reason=reason)
    return {
        "case": case,
        "recalculates": not is_current and claim_recalculation(project),
        "project": project,
        "reasons": _reasons(case),
        "is_covered": me.covers(case.comparison.prompt) and "uncovered" not in posted,
        "messages_of_prompt": case.comparison.prompt.messages,
        "responses": _responses(reviewed, votes, questions),
        "seen": _seen(votes),
        "votes": _votes(reviewed, votes, assessment.profiles),
        "consensus": _consensus_lines(reviewed, consensus) if consensus else [],
        "ruling": ruling,
        "ruling_lines": _lines(reviewed, ruling) if ruling else [],
        "draft": own_answer,
        "orders": _orders(project, letters, own_answer) if questions["interface"] == RANK else [],
        "limits": {"rewrite": MAX_REWRITE},
        "ground_name": _ground(case),
        "grounds": [
            (value, gettext(name), key)
            for (value, name), key in zip(ReviewCase.GROUNDS.items(), GROUND_KEYS, strict=True)
        ],
        "numbers": range(1, len(letters) + 1),
        **{name: questions[name] for name in ("interface", "protocol", "pairs", "asks_marks")},
        "key": uuid.uuid4(),
        "may_decide": all(vote.assignment.annotator_id != me.pk for vote in votes),
        "after": queue.filter(Q(assignee=None) | Q(assignee=me)).exclude(pk=case.pk).first(),
        "n_left": queue.count(),
    }


def _ruling(case: ReviewCase) -> Judgment | None:
    return (
        Judgment.objects.filter(
            current_for__isnull=False,
            assignment__comparison=case.comparison_id,
            assignment__is_ruling=True,
        )
        .select_related("assignment")
        .first()
    )


def _responses(
    reviewed: Assignment, votes: list[Judgment], questions: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each response with its text, the flags that people raised, and what is asked of it."""
    letters = reviewed.letters
    shown = Response.objects.in_bulk(reviewed.shown_order)
    flag_names: dict[str, list[str]] = {}
    for vote in votes:
        for pk, flags in vote.flags.items():
            names = [gettext(Judgment.FLAGS.get(flag["kind"], flag["kind"])) for flag in flags]
            flag_names.setdefault(pk, []).extend(name.lower() for name in names)
    return [
        {
            "letter": letters[str(pk)],
            "text": shown[pk].text,
            "is_cut_off": shown[pk].is_cut_off,
            "flags": _tallied(flag_names.get(str(pk), [])),
            "mark_questions": questions["marks"].get(letters[str(pk)]),
        }
        for pk in reviewed.shown_order
    ]


def _votes(
    reviewed: Assignment, votes: list[Judgment], profiles: Mapping[Any, Profile]
) -> list[dict[str, Any]]:
    rows = []
    for number, vote in enumerate(votes, start=1):
        profile = profiles.get(vote.assignment.annotator_id)
        rows.append(
            {
                "number": number,
                "lines": _lines(reviewed, vote),
                "text": vote.rewrite,
                "reason": vote.reason,
                "conflicts": vote.conflicts,
                "reliability": profile.reliability if profile else None,
            }
        )
    return rows


def _lines(reviewed: Assignment, judgment: Judgment) -> list[dict[str, str]]:
    return answer_form.summary(reviewed, in_letters(reviewed, judgment))


def _consensus_lines(reviewed: Assignment, consensus: Answer) -> list[dict[str, str]]:
    letters = reviewed.letters
    ranks = {
        axis: {letters[pk]: rank for pk, rank in ranks.items() if pk in letters}
        for axis, ranks in consensus.ranks.items()
    }
    ratings = {letters[pk]: marks for pk, marks in consensus.ratings.items()}
    safety = {letters[pk]: vote for pk, vote in consensus.safety.items()}
    return answer_form.summary(reviewed, {"ranks": ranks, "ratings": ratings, "safety": safety})


def _orders(
    project: Project, letters: dict[str, str], answer: dict[str, Any]
) -> list[dict[str, Any]]:
    """Each axis with the rank of each letter in the reviewer's own answer."""
    ranks = answer.get("ranks", {})
    return [
        {
            **axis,
            "ranks": [
                (letter, ranks.get(axis["key"], {}).get(letter)) for letter in letters.values()
            ],
        }
        for axis in project.axes
    ]


def _tallied(flags: list[str]) -> list[str]:
    """Each flag once, with how many people raised it."""
    return [f"{flag} × {n}" if n > 1 else flag for flag, n in Counter(flags).items()]


def _reasons(case: ReviewCase) -> list[str]:
    return [gettext(ReviewCase.REASONS.get(reason, reason)) for reason in case.reasons]


def _ground(case: ReviewCase) -> str:
    """The ground of the decision; empty while the case is open."""
    return gettext(ReviewCase.GROUNDS[case.ground]) if case.ground in ReviewCase.GROUNDS else ""
