"""Pages about how far annotators can be relied on, how the work goes and what it costs."""

from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_REVIEW, CAN_RUN, project_view, role_of
from annotation.judge import qualification
from annotation.judge.answers import in_letters
from annotation.models import (
    Event,
    Judgment,
    Membership,
    Project,
    User,
)
from annotation.pages import answer_form
from annotation.protocols import SAFE_OR_NOT, called, is_mark, mark_on
from annotation.quality import interventions, review
from annotation.quality.assessment import assessment_of
from annotation.quality.interventions import QualityError
from annotation.quality.people import Person, people_of
from annotation.quality.throughput import throughput
from annotation.request import save_asked, who_asks, whole_number

ROWS_A_PAGE = 40


class PayForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Project
        fields = ["pay_per_hour", "currency"]
        labels = {
            "pay_per_hour": gettext_lazy("Pay per hour"),
            "currency": gettext_lazy("Currency"),
        }
        help_texts = {
            "pay_per_hour": gettext_lazy("Cost of an annotator's hour. Empty: unknown."),
            "currency": gettext_lazy("Three letters, such as EUR."),
        }

    def clean_currency(self) -> str:
        currency = str(self.cleaned_data["currency"]).upper()
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise forms.ValidationError(gettext("Three letters, such as EUR."))
        return currency


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def quality_page(request: HttpRequest, project: Project) -> HttpResponse:
    """Who can be relied on, how the work goes, and what it costs."""
    pay = PayForm(instance=project)
    if request.method == "POST":
        _only_admins(request)
        act = request.POST.get("act", "")
        if act != "pay":
            _act_on_member(request, project, act)
            return redirect("quality", project.slug)
        pay = PayForm(request.POST, instance=project)
        if pay.is_valid():
            save_asked(pay)
            Event.record(project, request.user, "changed project", project.name, fields=["pay"])
            messages.success(request, gettext("Saved."))
            return redirect("quality", project.slug)
    review.update_queue(
        project
    )  # Somebody else may have opened the queue last, so count the cases now.
    allow_outdated = "recalculated" not in request.GET
    assessment, is_current = assessment_of(project, allow_outdated=allow_outdated)
    people = people_of(project, assessment.profiles)
    by_category = assessment.by_category.items()
    return render(
        request,
        "annotation/quality/people.html",
        {
            "people": people,
            "compares": any(person.profile and person.profile.n_pairs for person in people),
            "suspects": [person for person in people if person.is_suspect],
            "work": throughput(project, people),
            "is_current": is_current,
            "agreement": _axes(project, assessment.agreement),
            "categories": [(name, _axes(project, measures)) for name, measures in by_category],
            "pay": pay,
            "may_act": role_of(request) in CAN_RUN,
            "n_cases": review.queue(project, who_asks(request)).count(),
            "project": Project.objects.get(pk=project.pk),
        },
        status=422 if pay.errors else 200,
    )


def _act_on_member(request: HttpRequest, project: Project, name: str) -> None:
    act = MEMBER_ACTS.get(name)
    if act is None:
        raise Http404("There is no such act.")
    member = get_object_or_404(
        project.memberships.select_related("user", "project"),
        pk=whole_number(request.POST.get("membership")),
    )
    try:
        message = act(member, who_asks(request), request.POST.get("reason", ""))
    except QualityError as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, message % {"who": member.user})


# --- What an admin does about a member: each returns the message that says so -------------------------


def _pause(member: Membership, by: User, reason: str) -> str:
    interventions.pause(member, by, reason)
    return gettext("%(who)s is paused and sees the reason.")


def _resume(member: Membership, by: User, reason: str) -> str:
    interventions.resume(member, by)
    return gettext("%(who)s is active again.")


def _retry(member: Membership, by: User, reason: str) -> str:
    qualification.give_another_attempt(member, by)
    return gettext("%(who)s may take the qualification round again.")


def _waive(member: Membership, by: User, reason: str) -> str:
    qualification.waive(member, by, reason)
    return gettext("%(who)s may work without the qualification round.")


MEMBER_ACTS = {"pause": _pause, "resume": _resume, "retry": _retry, "waive": _waive}


# --- One annotator ------------------------------------------------------------------------------------


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def quality_person(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """One annotator: every figure with what it rests on, and their judgments, which can be taken out."""
    allow_outdated = "recalculated" not in request.GET
    assessment, is_current = assessment_of(project, allow_outdated=allow_outdated)
    people = people_of(project, assessment.profiles, only=pk)
    if not people:
        raise Http404("Nobody with this number has judged here.")
    [person] = people
    judgments = (
        Judgment.objects.of_project(project)
        .filter(current_for__isnull=False, assignment__annotator=pk, assignment__is_ruling=False)
        .order_by("-pk")
    )
    if request.method == "POST":
        _only_admins(request)
        return _act_on_judgments(request, project, person, judgments)
    judgments = judgments.select_related(
        "assignment__comparison__prompt", "assignment__comparison__batch__project"
    )
    page = Paginator(judgments, ROWS_A_PAGE).get_page(request.GET.get("page"))
    names = _names(project)
    marks = person.profile.marks if person.profile else ()
    return render(
        request,
        "annotation/quality/person.html",
        {
            "person": person,
            "marks": [(names.get(mark.measure, called(mark.measure)), mark) for mark in marks],
            "is_current": is_current,
            "agreement": _axes(project, assessment.agreement_of(project, person.user)),
            "page": page,
            "rows": [(judgment, _answer_lines(judgment)) for judgment in page],
            "may_act": role_of(request) in CAN_RUN,
            "project": project,
        },
    )


def _answer_lines(judgment: Judgment) -> list[dict[str, str]]:
    assignment = judgment.assignment
    return answer_form.summary(assignment, in_letters(assignment, judgment))


def _act_on_judgments(
    request: HttpRequest, project: Project, person: Person, judgments: Any
) -> HttpResponse:
    name = request.POST.get("act", "")
    is_about_all = name.endswith("-all")
    act = JUDGMENT_ACTS.get(name)
    if act is None:
        raise Http404("There is no such act.")
    back = redirect("quality_person", project.slug, person.user.pk)
    chosen = [whole_number(pk) for pk in request.POST.getlist("judgment")]
    wanted = judgments if is_about_all else judgments.filter(pk__in=chosen)
    ids = list(wanted.values_list("pk", flat=True))
    if not ids:
        messages.warning(request, gettext("Choose at least one judgment."))
        return back
    try:
        messages.success(request, act(request, project, ids))
    except QualityError as problem:
        messages.error(request, str(problem))
    return back


def _exclude(request: HttpRequest, project: Project, ids: list[int]) -> str:
    reason, ask_again = request.POST.get("reason", ""), request.POST.get("ask_again") == "on"
    n = interventions.exclude(project, ids, who_asks(request), reason, ask_again=ask_again)
    message = gettext("%(n)s excluded from exports and statistics, and kept on record.")
    message %= {"n": n}
    if ask_again and n:
        message += " " + gettext("They are reassigned to others.")
    return message


def _include(request: HttpRequest, project: Project, ids: list[int]) -> str:
    n = interventions.include(project, ids, who_asks(request))
    return gettext("%(n)s restored.") % {"n": n}


def _ask_for_review(request: HttpRequest, project: Project, ids: list[int]) -> str:
    n = review.ask_for_reviews(project, ids, who_asks(request))
    return gettext("%(n)s sent to review.") % {"n": n}


JUDGMENT_ACTS = {
    "exclude": _exclude,
    "exclude-all": _exclude,
    "include": _include,
    "include-all": _include,
    "review": _ask_for_review,
}


# --- Small questions ----------------------------------------------------------------------------------


def _axes(project: Project, figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Agreement on each axis and on each thing that is marked, as it is called."""
    names = _names(project)
    others = [measure for measure in figures if is_mark(measure) and measure not in names]
    return [
        (names.get(measure, called(measure)), figures[measure])
        for measure in (*names, *others)
        if measure in figures
    ]


def _names(project: Project) -> dict[str, str]:
    """What people agree on here, as it is called, in the order in which it is asked."""
    names = {axis["key"]: gettext(axis["name"]) for axis in project.axes}
    # HelpSteer has an axis and an attribute of the same name.
    for attribute in project.effective_protocol.attributes:
        name = gettext(attribute.name)
        names[mark_on(attribute.key)] = gettext("%(name)s (rating)") % {"name": name}
    return names | {SAFE_OR_NOT: gettext("Safe or unsafe (vote)")}


def _only_admins(request: HttpRequest) -> None:
    if role_of(request) not in CAN_RUN:
        raise Http404("Only admins change people's work.")
