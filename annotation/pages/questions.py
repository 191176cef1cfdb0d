"""Questions about comparisons: asked while judging, answered by admins and reviewers, read in place."""

from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_JUDGE, CAN_REVIEW, project_view, role_of
from annotation.judge import questions as acts
from annotation.judge.assignment import own_assignment
from annotation.judge.requirements import JudgmentError
from annotation.models import Assignment, Membership, Project, Question
from annotation.request import who_asks, whole_number


@project_view(*CAN_JUDGE)
@require_http_methods(["GET", "POST"])
def ask_about(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One's own questions about one comparison with their answers, a new one, and a bookmark."""
    try:
        assignment = own_assignment(who_asks(request), project, uid)
    except Assignment.DoesNotExist as error:
        raise Http404("There is no such comparison of yours.") from error
    problem, typed = "", request.POST.get("text", "")
    if request.method == "POST" and request.POST.get("act") == "bookmark":
        marked = None if assignment.bookmarked_at else timezone.now()
        Assignment.objects.filter(pk=assignment.pk).update(bookmarked_at=marked)
        return redirect("ask_about", project.slug, uid)
    if request.method == "POST":
        try:
            acts.ask(assignment, typed)
        except JudgmentError as error:
            problem = str(error)
        else:
            messages.success(request, gettext("Your question is sent. The answer appears here."))
            return redirect("ask_about", project.slug, uid)
    asked_so_far = list(assignment.questions.all())
    acts.mark_seen(
        who_asks(request), project, [question.pk for question in asked_so_far if question.answer]
    )
    return render(
        request,
        "annotation/judge/ask.html",
        {
            "project": project,
            "assignment": assignment,
            "prompt": assignment.comparison.prompt,
            "questions": asked_so_far,
            "problem": problem,
            "typed": typed if problem else "",
            "most": acts.MAX_QUESTION,
        },
        status=422 if problem else 200,
    )


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def questions(request: HttpRequest, project: Project) -> HttpResponse:
    """Questions of annotators, those without an answer first; POST answers one.

    A reviewer sees no names, as in the review queue.
    """
    own = Question.objects.filter(assignment__comparison__batch__project=project)
    problem, failed = "", 0
    if request.method == "POST":
        question = get_object_or_404(own, pk=whole_number(request.POST.get("question")))
        try:
            acts.answer(question, request.POST.get("text", ""), who_asks(request))
        except JudgmentError as error:
            problem, failed = str(error), question.pk
        else:
            messages.success(request, gettext("Answered. Who asked sees it while judging."))
            return redirect("questions", project.slug)
    related = ("assignment__comparison__prompt", "assignment__annotator", "answered_by")
    rows = own.select_related(*related)
    return render(
        request,
        "annotation/review/questions.html",
        {
            "project": project,
            "open": rows.filter(answered_at=None).order_by("created_at")[:100],
            "page": Paginator(
                rows.filter(answered_at__isnull=False).order_by("-answered_at"), 20
            ).get_page(request.GET.get("page")),
            "shows_names": role_of(request) == Membership.Role.ADMIN,
            "problem": problem,
            "failed": failed,
            "typed": request.POST.get("text", ""),
            "most": acts.MAX_QUESTION,
        },
        status=422 if problem else 200,
    )
