"""Pages about quality: people and pace, gold, the review queue, and one's own progress."""

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from statistics import median
from typing import Any
from uuid import UUID

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.views.decorators.http import require_GET, require_http_methods

from annotation.access import CAN_JUDGE, CAN_REVIEW, CAN_RUN, project_view
from annotation.judge import gold
from annotation.judge.submitting import (
    LETTERS,
    MAX_REWRITE,
    Answer,
    JudgmentError,
    in_letters,
    letters_of,
    ranking_line,
)
from annotation.models import (
    Assignment,
    Batch,
    Event,
    GoldItem,
    Judgment,
    Membership,
    Project,
    Response,
    ReviewCase,
    User,
)
from annotation.pages import answer_form as faces
from annotation.protocols import COMPARING, PAIR, RANK, RATE, SAFE_OR_NOT, called, is_mark, mark_on
from annotation.quality import people as quality
from annotation.quality import review
from annotation.request import save_asked, who_asks, whole_number

ROWS_A_PAGE = 40
MAX_GOLD_BYTES = 5_000_000
# With fewer shared comparisons a share of them says more about the others than about oneself.
ENOUGH_SHARED = 20


class PayForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Project
        fields = ["pay_per_hour", "currency"]
        labels = {
            "pay_per_hour": gettext_lazy("Pay per hour"),
            "currency": gettext_lazy("Currency"),
        }
        help_texts = {
            "pay_per_hour": gettext_lazy(
                "What an hour of an annotator's work costs; empty: not known."
            ),
            "currency": gettext_lazy("Three letters, such as EUR."),
        }

    def clean_currency(self) -> str:
        currency = str(self.cleaned_data["currency"]).upper()
        if not (len(currency) == 3 and currency.isascii() and currency.isalpha()):
            raise forms.ValidationError(gettext("Three letters, such as EUR."))
        return currency


class GoldForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Project
        fields = ["gold_every", "qualification_pass"]
        labels = {
            "gold_every": gettext_lazy("One gold item in every … comparisons"),
            "qualification_pass": gettext_lazy("Qualification: per cent right to pass"),
        }
        help_texts = {
            "gold_every": gettext_lazy("From 2 to 100; 0 mixes none in. 10 is a common choice."),
            "qualification_pass": gettext_lazy(
                "0 lets everybody begin at once. Whoever has judged here before takes the round as "
                "well, unless you waive it."
            ),
        }

    def clean_gold_every(self) -> int:
        every = int(self.cleaned_data["gold_every"])
        if every == 1:
            raise forms.ValidationError(
                gettext("With 1 there would be no work at all; 2 is the least.")
            )
        return every

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if self.instance.interface not in gold.KNOWABLE:
            if given.get("gold_every"):
                self.add_error("gold_every", gettext(gold.NOTHING_KNOWN))
            if given.get("qualification_pass"):
                told = (gettext(gold.NOTHING_KNOWN), gettext("Nobody could pass."))
                self.add_error("qualification_pass", " ".join(told))
        elif given.get("qualification_pass") and not gold.for_qualification(self.instance):
            self.add_error(
                "qualification_pass", gettext("Mark some items for the qualification round first.")
            )
        return given


# --- People and pace ----------------------------------------------------------------------------------


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def quality_page(request: HttpRequest, project: Project) -> HttpResponse:
    """Who can be relied on, how the work goes, and what it costs."""
    pay = PayForm(instance=project)
    if request.method == "POST":
        _only_admins(request)
        act = request.POST.get("act", "")
        if act == "pay":
            pay = PayForm(request.POST, instance=project)
            if pay.is_valid():
                save_asked(pay)
                Event.record(project, request.user, "changed project", project.name, fields=["pay"])
                messages.success(request, gettext("Saved."))
                return redirect("quality", project.slug)
        else:
            _act_on_member(request, project, act)
            return redirect("quality", project.slug)
    review.refresh(project)  # The number of cases is of now, whoever looked at the queue last.
    figures, is_of_now = quality.figures_of(project, at_once="anew" not in request.GET)
    found = quality.people(project, figures.profiles)
    return render(
        request,
        "annotation/quality/quality.html",
        {
            "people": found,
            "compares": any(of.profile and of.profile.n_pairs for of in found),
            "suspects": [person for person in found if person.is_suspect],
            "work": quality.throughput(project, found),
            "is_of_now": is_of_now,
            "agreement": _axes(project, figures.agreement),
            "categories": [(name, _axes(project, of)) for name, of in figures.by_category.items()],
            "pay": pay,
            "may_act": request.role in CAN_RUN,  # type: ignore[attr-defined]
            "n_cases": review.queue(project, who_asks(request)).count(),
            "project": Project.objects.get(pk=project.pk),
        },
        status=422 if pay.errors else 200,
    )


def _act_on_member(request: HttpRequest, project: Project, act: str) -> None:
    me = who_asks(request)
    member = get_object_or_404(
        project.memberships.select_related("user", "project"),
        pk=whole_number(request.POST.get("membership")),
    )
    reason = request.POST.get("reason", "")
    try:
        if act == "pause":
            quality.pause(member, me, reason)
            told = gettext("%(who)s is paused and is told why.")
        elif act == "resume":
            quality.resume(member, me)
            told = gettext("%(who)s goes on.")
        elif act == "retry":
            gold.let_try_again(member, me)
            told = gettext("%(who)s may take the qualification round again.")
        elif act == "waive":
            gold.waive(member, me, reason)
            told = gettext("%(who)s may work without the qualification round.")
        else:
            raise Http404("There is no such act.")
    except quality.QualityError as problem:
        messages.error(request, str(problem))
    else:
        messages.success(request, told % {"who": member.user})


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def quality_person(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """One annotator: every figure with what it rests on, and their judgments, which can be taken out."""
    figures, is_of_now = quality.figures_of(project, at_once="anew" not in request.GET)
    found = quality.people(project, figures.profiles, only=pk)
    if not found:
        raise Http404("Nobody with this number has judged here.")
    [person] = found
    mine = (
        Judgment.objects.of_project(project)
        .filter(current_for__isnull=False, assignment__annotator=pk, assignment__is_ruling=False)
        .order_by("-pk")
    )
    if request.method == "POST":
        _only_admins(request)
        return _act_on_judgments(request, project, person, mine)
    page = Paginator(
        mine.select_related(
            "assignment__comparison__prompt", "assignment__comparison__batch__project"
        ),
        ROWS_A_PAGE,
    ).get_page(request.GET.get("page"))
    names = _names(project)
    return render(
        request,
        "annotation/quality/person.html",
        {
            "person": person,
            "marks": [
                (names.get(of.measure, called(of.measure)), of)
                for of in (person.profile.marks if person.profile else ())
            ],
            "is_of_now": is_of_now,
            "agreement": _axes(project, figures.agreement_of(project, person.user)),
            "page": page,
            "rows": [
                (
                    judgment,
                    faces.told(judgment.assignment, in_letters(judgment.assignment, judgment)),
                )
                for judgment in page
            ],
            "may_act": request.role in CAN_RUN,  # type: ignore[attr-defined]
            "project": project,
        },
    )


def _act_on_judgments(
    request: HttpRequest, project: Project, person: quality.Person, mine: Any
) -> HttpResponse:
    act, reason = request.POST.get("act", ""), request.POST.get("reason", "")
    chosen = [whole_number(pk) for pk in request.POST.getlist("judgment")]
    wanted = mine if act.endswith("-all") else mine.filter(pk__in=chosen)
    ids = list(wanted.values_list("pk", flat=True))
    back = redirect("quality_person", project.slug, person.user.pk)
    if not ids:
        messages.warning(request, gettext("Choose at least one judgment."))
        return back
    try:
        if act in ("exclude", "exclude-all"):
            again = request.POST.get("ask_again") == "on"
            n = quality.exclude(project, ids, who_asks(request), reason, ask_again=again)
            told = gettext(
                "%(n)s taken out: no export and no figure has them; they stay on record."
            ) % {"n": n}
            if again and n:
                told += " " + gettext("Their places are free for others.")
            messages.success(request, told)
        elif act in ("include", "include-all"):
            n = quality.include(project, ids, who_asks(request))
            messages.success(request, gettext("%(n)s count again.") % {"n": n})
        elif act == "review":
            n = review.ask_for_reviews(project, ids, who_asks(request))
            messages.success(request, gettext("%(n)s put into the review queue.") % {"n": n})
        else:
            raise Http404("There is no such act.")
    except quality.QualityError as problem:
        messages.error(request, str(problem))
    return back


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
    for one in project.rules.attributes:
        names[mark_on(one.key)] = gettext("%(name)s (mark)") % {"name": gettext(one.name)}
    return names | {SAFE_OR_NOT: gettext("Safe or unsafe (vote)")}


# --- Gold -----------------------------------------------------------------------------------------------


@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def gold_items(request: HttpRequest, project: Project) -> HttpResponse:
    """The items, how often they come, and the file that adds more."""
    form, problem = GoldForm(instance=project), ""
    me = who_asks(request)
    act = request.POST.get("act", "") if request.method == "POST" else ""
    if act == "settings":
        form = GoldForm(request.POST, instance=project)
        if form.is_valid():
            save_asked(form)
            gold.sow_everywhere(project)
            if project.qualification_pass:
                gold.open_round(project)
            Event.record(project, me, "changed project", project.name, fields=form.changed_data)
            messages.success(request, gettext("Saved."))
            return redirect("gold_items", project.slug)
    elif act == "import":
        try:
            added, there = gold.add_items(project, _rows(request), me)
        except gold.GoldError as error:
            problem = str(error)
        else:
            told = ngettext("Added %(n)s gold item.", "Added %(n)s gold items.", added)
            told %= {"n": added}
            if there:
                told += " " + gettext("%(n)s were there already.") % {"n": there}
            messages.success(request, told)
            return redirect("gold_items", project.slug)
    elif act in GOLD_ACTS:
        item = get_object_or_404(project.gold_items, pk=whole_number(request.POST.get("item")))
        name = GOLD_ACTS[act]
        setattr(item, name, not getattr(item, name))
        item.save(update_fields=[name])
        gold.sow_everywhere(project)
        Event.record(project, me, "changed gold item", item.pk, **{name: getattr(item, name)})
        return redirect("gold_items", project.slug)
    elif act:
        raise Http404("There is no such act.")
    items = project.gold_items.select_related("prompt", "created_by").order_by("-pk")
    page = Paginator(items, ROWS_A_PAGE).get_page(request.GET.get("page"))
    return render(
        request,
        "annotation/quality/gold.html",
        {
            "form": form,
            "problem": problem,
            "given": request.POST.get("rows", "") if problem else "",
            "page": page,
            "rows": [(item, _known(project, item)) for item in page],
            "n_mixed": project.gold_items.filter(is_active=True, is_mixed=True).count(),
            "n_qualification": project.gold_items.filter(
                is_active=True, is_qualification=True
            ).count(),
            "axes": project.axis_keys if project.interface in gold.ORDERED else [],
            "attributes": project.rules.attributes,
            "asks_safety": project.rules.safety,
            "example": _example(project),
            "project": Project.objects.get(pk=project.pk),
        },
        status=422 if form.errors or problem else 200,
    )


GOLD_ACTS = {"mixed": "is_mixed", "qualification": "is_qualification", "active": "is_active"}


def _rows(request: HttpRequest) -> Iterator[Any]:
    """Rows of the chosen file or of the text: a JSON list, or one object a line."""
    file = request.FILES.get("file")
    if file is not None:
        if file.size is None or file.size > MAX_GOLD_BYTES:
            raise gold.GoldError(gettext("The file is larger than 5 MB; divide it."))
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise gold.GoldError(gettext("The file is not UTF-8 text.")) from error
    else:
        text = request.POST.get("rows", "")
    text = text.strip()
    if not text:
        raise gold.GoldError(gettext("Choose a file, or write at least one row."))
    if text.startswith("["):
        yield from _json(text)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _json(line, number)


def _json(text: str, line: int = 1) -> Any:
    """What a text says; `line` is where in the file it begins."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        told = gettext(
            "Line %(line)s, character %(column)s: this is not JSON. Look for a missing quote, comma "
            "or bracket just before it."
        ) % {"line": line + error.lineno - 1, "column": error.colno}
        raise gold.GoldError(told) from error
    except (ValueError, RecursionError) as error:
        told = gettext(
            "Line %(line)s is not JSON that can be read: a number is too long, or brackets lie too "
            "deep in one another."
        )
        raise gold.GoldError(told % {"line": line}) from error


def _example(project: Project) -> str:
    """A row as one might write it, of what this project asks."""
    row: dict[str, Any] = {"prompt": "What is 2 + 2?", "responses": ["4", "5"]}
    if project.interface in gold.ORDERED:
        row["ranks"] = [1, 2]
    else:
        row["marks"] = {one.key: [one.high, one.low] for one in project.rules.attributes[:1]}
        row |= {"safe": [True, True]} if project.rules.safety else {}
    return json.dumps(row)


def _known(project: Project, item: GoldItem) -> list[dict[str, str]]:
    """What is known of an item, a line for each axis and mark."""
    marks = [
        {
            "key": measure,
            "name": called(measure),
            "line": ", ".join(
                f"{LETTERS[place]} {_said(measure, value)}"
                for place, value in enumerate(values)
                if value is not None
            ),
        }
        for measure, values in item.expected.items()
        if is_mark(measure)
    ]
    return marks + [
        {
            "key": axis["key"],
            "name": gettext(axis["name"]),
            "line": ranking_line(
                {
                    LETTERS[i]: rank
                    for i, rank in enumerate(item.expected.get(axis["key"], ()))
                    if rank is not None
                }
            ),
        }
        for axis in project.axes
    ]


def _said(measure: str, value: int) -> str:
    if measure != SAFE_OR_NOT:
        return str(value)
    return gettext("safe") if value else gettext("unsafe")


# --- The review queue -----------------------------------------------------------------------------------------


@project_view(*CAN_REVIEW)
@require_GET
def review_queue(request: HttpRequest, project: Project) -> HttpResponse:
    """What needs a decision, the most urgent first, and what was decided lately."""
    review.refresh(project)
    reason = _asked_reason(request)
    cases = review.queue(project, who_asks(request), reason=reason)
    page = Paginator(cases.select_related("comparison__prompt", "comparison__batch"), 30).get_page(
        request.GET.get("page")
    )
    decided = (
        review.readable(project, who_asks(request))
        .filter(state=ReviewCase.State.DECIDED)
        .select_related("comparison__prompt", "decided_by")
        .order_by("-decided_at")[:10]
    )
    return render(
        request,
        "annotation/review/queue.html",
        {
            "page": page,
            "rows": [(case, _reasons(case)) for case in page],
            "decided": [(case, _ground(case)) for case in decided],
            "reason": reason,
            "filter": _filter(reason),
            "reasons": [(key, gettext(name)) for key, name in ReviewCase.REASONS.items()],
            "first": cases.first(),
            "avoids": who_asks(request).harmful_material == User.HarmfulMaterial.AVOID,
        },
    )


@project_view(*CAN_REVIEW)
@require_http_methods(["GET", "POST"])
def review_case(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One comparison with everything said about it; a decision by keyboard, and back."""
    case = get_object_or_404(
        project.review_cases.select_related(
            "comparison__prompt", "comparison__batch__project", "decided_by"
        ),
        uid=uid,
    )
    me, problem, reason = who_asks(request), "", _asked_reason(request)
    here = reverse("review_case", args=[project.slug, case.uid]) + _filter(reason)
    votes = review.votes_on(case.comparison)
    if request.method == "POST":
        if request.POST.get("act") == "undo":
            review.undo(case, me)
            messages.success(request, gettext("Taken back: the votes count again, and it is open."))
            return redirect(here)
        if request.POST.get("act") == "again":
            try:
                quality.ask_again(case.comparison, me, "review")
            except quality.QualityError as error:
                messages.error(request, str(error))
            else:
                messages.success(request, gettext("One more person is asked."))
            return redirect(here)
        try:
            _decide(request, case, votes)
        except JudgmentError as error:
            problem = str(error)
        else:
            following = review.queue(project, me, reason=reason).first()
            messages.success(request, gettext("Decided. The votes are kept beside it."))
            if following is None:
                return redirect(reverse("review_queue", args=[project.slug]) + _filter(reason))
            return redirect(
                reverse("review_case", args=[project.slug, following.uid]) + _filter(reason)
            )
    posted = request.POST.copy()
    if posted.get("seen", _seen(votes)) != _seen(votes):
        posted.pop("choice", None)  # The number that was chosen may be somebody else's vote now.
    context = _case(project, case, votes, me, posted, reason)
    context |= {"problem": problem, "posted": posted, "filter": _filter(reason)}
    return render(request, "annotation/review/case.html", context, status=422 if problem else 200)


def _asked_reason(request: HttpRequest) -> str:
    """The reason that the queue is narrowed to; "" for none, and for what is no reason."""
    reason = request.GET.get("reason", "")
    return reason if reason in ReviewCase.REASONS else ""


def _filter(reason: str) -> str:
    """What addresses of the queue and of its cases end with, so that the filter goes along."""
    return f"?reason={reason}" if reason else ""


def _decide(request: HttpRequest, case: ReviewCase, votes: list[Judgment]) -> None:
    posted = request.POST
    choice, note = posted.get("choice", ""), posted.get("note", "")
    try:
        key = UUID(posted.get("key", ""))
    except ValueError as error:
        raise JudgmentError(gettext("The form has no valid key; load the page again.")) from error
    if posted.get("seen", _seen(votes)) != _seen(votes):
        raise JudgmentError(
            gettext("The votes changed while you read them: here they are as they are now.")
        )
    reviewed = _reviewed(case)
    rules = case.comparison.batch.rules
    if choice == "own":
        said = faces.posted(posted, reviewed)
        answer = Answer.from_letters(
            reviewed, said | {"reason": "" if rules.reason == "none" else note}
        )
    elif choice == "consensus":
        answer = _consensus(case, votes) or Answer()
    elif 1 <= whole_number(choice) <= len(votes):
        answer = review.as_answer(votes[whole_number(choice) - 1])
    else:
        raise JudgmentError(gettext("Choose a vote, the consensus or an answer of your own."))
    ground = posted.get("ground", "")
    review.decide(case, who_asks(request), answer=answer, ground=ground, key=key, note=note)


def _seen(votes: list[Judgment]) -> str:
    """Which votes a page shows, in their order: a choice names one by its number."""
    return "-".join(str(vote.pk) for vote in votes)


def _reviewed(case: ReviewCase) -> Assignment:
    """The comparison as a reviewer sees it: responses in the order of their ids. Never saved."""
    ids = list(case.comparison.responses.order_by("pk").values_list("pk", flat=True))
    return Assignment(comparison=case.comparison, shown_order=ids)


def _consensus(case: ReviewCase, votes: list[Judgment]) -> Answer | None:
    """What everybody's votes come to, weighed by reliability, as an answer.

    None where an answer is more than that, how strongly or why, and where a part is undecided.
    """
    rules, face = case.comparison.batch.rules, case.comparison.batch.face
    says_only_which = face == PAIR and len(rules.scale.levels) == 1
    if not (face in (RANK, RATE) or says_only_which) or rules.reason == "required":
        return None
    figures, _ = quality.figures_of(case.project, at_once=True)
    # Who is known how well may be of a while ago; the votes are those of now.
    found = figures.known.weighing(quality.votes_of(case.project, comparison=case.comparison)[0])
    ranks = {}
    for axis in case.project.axis_keys if face in COMPARING else ():
        of = found.consensus(axis, case.comparison_id)
        if of is not None:
            ranks[axis] = {str(pk): rank for pk, rank in of.ranks.items()}
            if says_only_which and len(set(of.ranks.values())) == 1 and not rules.scale.tie:
                return None
    ratings: dict[str, dict[str, int]] = {}
    safety: dict[str, dict[str, Any]] = {}
    keys = [str(pk) for pk in _reviewed(case).shown_order]
    people = [(vote.assignment.annotator_id, vote.ratings, vote.safety) for vote in votes]
    for key, said in zip(keys, quality.said_of_each(found, keys, people), strict=True):
        values = {measure: of.value for measure, of in said.marks.items()}
        for one in rules.attributes:
            value = values.get(mark_on(one.key))
            if value is not None:
                ratings.setdefault(key, {})[one.key] = value
            elif one.is_required:
                return None
        if rules.safety:
            is_safe, harms = values.get(SAFE_OR_NOT), said.main_harms
            if is_safe is None or (not is_safe and rules.harms and not harms):
                return None
            safety[key] = {"safe": bool(is_safe), "harms": [] if is_safe else harms}
    answer = Answer(ranks=ranks, ratings=ratings, safety=safety)
    return answer if ranks or ratings or safety else None


def _case(
    project: Project,
    case: ReviewCase,
    votes: list[Judgment],
    me: User,
    posted: QueryDict,
    reason: str,
) -> dict[str, Any]:
    reviewed = _reviewed(case)
    letters = letters_of(reviewed)
    texts = dict(Response.objects.filter(pk__in=reviewed.shown_order).values_list("pk", "text"))
    consensus = _consensus(case, votes)
    flagged: dict[str, list[str]] = {}
    for vote in votes:
        for pk, of in vote.flags.items():
            flagged.setdefault(pk, []).extend(
                gettext(Judgment.FLAGS.get(flag["kind"], flag["kind"])).lower() for flag in of
            )

    def lines(judgment: Judgment) -> list[dict[str, str]]:
        return faces.told(reviewed, in_letters(reviewed, judgment))

    ruling = (
        Judgment.objects.filter(
            current_for__isnull=False,
            assignment__comparison=case.comparison_id,
            assignment__is_ruling=True,
        )
        .select_related("assignment")
        .first()
    )
    own_words: dict[str, Any] = {}
    if posted.get("choice") == "own":
        own_words = faces.posted(posted, reviewed)
    elif ruling is not None:
        own_words = in_letters(reviewed, ruling)
    asked = faces.shown(reviewed, own_words)
    figures, is_of_now = quality.figures_of(project, at_once=True)
    profiles = figures.profiles
    own = any(vote.assignment.annotator_id == me.pk for vote in votes)
    queue = review.queue(project, me, reason=reason)
    after = queue.exclude(pk=case.pk).first()
    return {
        "case": case,
        "reckon": not is_of_now and quality.may_reckon(project),
        "project": project,
        "reasons": _reasons(case),
        "is_covered": me.covers(case.comparison.prompt),
        "messages_of_prompt": case.comparison.prompt.messages,
        "responses": [
            {
                "letter": letters[str(pk)],
                "text": texts[pk],
                "flags": _tallied(flagged.get(str(pk), [])),
                "asked": asked["votes"].get(letters[str(pk)]),
            }
            for pk in reviewed.shown_order
        ],
        "seen": _seen(votes),
        "votes": [
            {
                "number": number,
                "lines": lines(vote),
                "text": vote.rewrite,
                "reason": vote.reason,
                "conflicts": vote.conflicts,
                "reliability": profiles[vote.assignment.annotator_id].reliability
                if vote.assignment.annotator_id in profiles
                else None,
            }
            for number, vote in enumerate(votes, start=1)
        ],
        "consensus": faces.told(
            reviewed,
            {
                "ranks": {
                    axis: {letters[pk]: rank for pk, rank in of.items() if pk in letters}
                    for axis, of in consensus.ranks.items()
                },
                "ratings": {letters[pk]: of for pk, of in consensus.ratings.items()},
                "safety": {letters[pk]: of for pk, of in consensus.safety.items()},
            },
        )
        if consensus
        else [],
        "ruling": ruling,
        "ruling_lines": lines(ruling) if ruling else [],
        "draft": own_words,
        "orders": [
            {
                **axis,
                "ranks": [
                    (letter, own_words.get("ranks", {}).get(axis["key"], {}).get(letter))
                    for letter in letters.values()
                ],
            }
            for axis in project.axes
            if asked["face"] == RANK
        ],
        "limits": {"rewrite": MAX_REWRITE},
        "ground_name": _ground(case),
        "grounds": [
            (value, gettext(name), key)
            for (value, name), key in zip(ReviewCase.GROUNDS.items(), "gfouex", strict=True)
        ],
        "numbers": range(1, len(letters) + 1),
        **{name: asked[name] for name in ("face", "rules", "pairs", "asks_votes")},
        "key": uuid.uuid4(),
        "may_decide": not own,
        "after": after,
        "n_left": queue.count(),
    }


def _tallied(flags: list[str]) -> list[str]:
    """Each flag once, with how many people raised it."""
    return [f"{flag} × {n}" if n > 1 else flag for flag, n in Counter(flags).items()]


def _reasons(case: ReviewCase) -> list[str]:
    return [gettext(ReviewCase.REASONS.get(reason, reason)) for reason in case.reasons]


def _ground(case: ReviewCase) -> str:
    """Why it was decided so; nothing while it is open."""
    return gettext(ReviewCase.GROUNDS[case.ground]) if case.ground in ReviewCase.GROUNDS else ""


# --- One's own progress -------------------------------------------------------------------------------------------


@project_view(*CAN_JUDGE)
@require_GET
def my_progress(request: HttpRequest, project: Project) -> HttpResponse:
    """How much one has judged, how fast and how far one agrees; nothing about gold, no names."""
    me = who_asks(request)
    found = quality.assessed(project, lately=True)
    profile = found.profiles.get(me.pk)
    others = [
        of.agreement.value
        for who, of in found.profiles.items()
        if who != me.pk and of.agreement.value is not None and of.agreement.n >= ENOUGH_SHARED
    ]
    mine = Judgment.objects.of_project(project).filter(
        current_for__isnull=False, assignment__annotator=me, assignment__is_ruling=False
    )
    seconds = [s for s in mine.values_list("seconds", flat=True) if s is not None]
    days = _days(mine)
    return render(
        request,
        "annotation/account/my_progress.html",
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
            "agreement": profile.agreement
            if profile and profile.agreement.n >= ENOUGH_SHARED
            else None,
            "compares": bool(profile and profile.n_pairs),
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


def _only_admins(request: HttpRequest) -> None:
    if request.role not in CAN_RUN:  # type: ignore[attr-defined]
        raise Http404("Only admins change people's work.")
