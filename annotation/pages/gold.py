"""The page of gold items: how often they come, and the upload that adds more."""

import json
from collections.abc import Iterator
from copy import copy
from typing import Any

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_RUN, project_view
from annotation.judge.answers import ranking_line
from annotation.judge.gold_mixing import add_gold_to_open_batches
from annotation.judge.gold_scores import KNOWABLE, ORDERED
from annotation.judge.qualification import (
    must_qualify,
    open_qualification,
    qualification_items,
)
from annotation.models import Event, GoldItem, Membership, Project, User
from annotation.models.judging import LETTERS
from annotation.protocols import SAFE_OR_NOT, called, is_mark
from annotation.quality.gold_items import (
    NOTHING_KNOWN,
    GoldError,
    add_gold_items,
    axes_of_list,
)
from annotation.request import save_asked, who_asks, whole_number

ROWS_A_PAGE = 40
NAMES_SHOWN = 12


MAX_GOLD_BYTES = 5_000_000


# A button's act to the field of the item that it switches.
ITEM_SWITCHES = {"mixed": "is_mixed", "qualification": "is_qualification", "active": "is_active"}


class GoldForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = Project
        fields = ["gold_every", "qualification_pass"]
        labels = {
            "gold_every": gettext_lazy("Comparisons per gold item"),
            "qualification_pass": gettext_lazy("Qualification threshold (percent)"),
        }
        help_texts = {
            "gold_every": gettext_lazy("2 to 100; 0 turns gold items off. 10 is common."),
            "qualification_pass": gettext_lazy(
                "0 turns the qualification round off. Current annotators take the round "
                "too, unless you waive it."
            ),
        }

    stops = forms.BooleanField(
        required=False, label=gettext_lazy("Stop current annotators until they pass")
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.stopped = _stopped(self.instance) if not self.instance.qualification_pass else []
        if self.stopped:
            names = ", ".join(user.get_username() for user in self.stopped[:NAMES_SHOWN])
            more = len(self.stopped) - NAMES_SHOWN
            self.fields["stops"].help_text = gettext(
                "With a threshold they get no work until they pass: %(names)s."
            ) % {"names": names + (f" (+ {more})" if more > 0 else "")}
        else:
            del self.fields["stops"]

    def clean_gold_every(self) -> int:
        every = int(self.cleaned_data["gold_every"])
        if every == 1:
            raise forms.ValidationError(
                gettext("Give 2 or more: with 1, every comparison would be gold.")
            )
        return every

    def clean(self) -> dict[str, Any]:
        given = super().clean() or {}
        if self.instance.interface not in KNOWABLE:
            if given.get("gold_every"):
                self.add_error("gold_every", gettext(NOTHING_KNOWN))
            if given.get("qualification_pass"):
                reasons = (gettext(NOTHING_KNOWN), gettext("Nobody could pass."))
                self.add_error("qualification_pass", " ".join(reasons))
        elif given.get("qualification_pass") and not qualification_items(self.instance):
            self.add_error(
                "qualification_pass", gettext("Add items to the qualification round first.")
            )
        elif given.get("qualification_pass") and self.stopped and not given.get("stops"):
            self.add_error(
                "stops",
                gettext("Check this box to confirm, or waive the round for them under Quality."),
            )
        return given


@project_view(*CAN_RUN)
@require_http_methods(["GET", "POST"])
def gold_items(request: HttpRequest, project: Project) -> HttpResponse:
    """The items, how often they come, and the file that adds more."""
    form, problem = GoldForm(instance=project), ""
    act = request.POST.get("act", "") if request.method == "POST" else ""
    if act == "settings":
        form = GoldForm(request.POST, instance=project)
        if form.is_valid():
            _save_settings(request, project, form)
            return redirect("gold_items", project.slug)
    elif act == "import":
        try:
            _import_items(request, project)
        except GoldError as error:
            problem = str(error)
        else:
            return redirect("gold_items", project.slug)
    elif act in ITEM_SWITCHES:
        _switch_item(request, project, ITEM_SWITCHES[act])
        return redirect("gold_items", project.slug)
    elif act:
        raise Http404("There is no such act.")
    active = project.gold_items.filter(is_active=True)
    items = project.gold_items.select_related("prompt", "created_by").order_by("-pk")
    page = Paginator(items, ROWS_A_PAGE).get_page(request.GET.get("page"))
    return render(
        request,
        "annotation/gold/items.html",
        {
            "form": form,
            "problem": problem,
            "given": request.POST.get("rows", "") if problem else "",
            "page": page,
            "rows": [(item, _known(project, item)) for item in page],
            "n_mixed": active.filter(is_mixed=True).count(),
            "n_qualification": active.filter(is_qualification=True).count(),
            "axes": project.axis_keys if project.interface in ORDERED else [],
            "axes_of_list": axes_of_list(project),
            "attributes": project.effective_protocol.attributes,
            "asks_safety": project.effective_protocol.safety,
            "example": _example(project),
            "project": Project.objects.get(pk=project.pk),
        },
        status=422 if form.errors or problem else 200,
    )


def _stopped(project: Project) -> list[User]:
    """Annotators at work who would have to pass the round first if one were switched on now."""
    with_round = copy(project)
    with_round.qualification_pass = 1
    members = project.memberships.filter(role=Membership.Role.ANNOTATOR).select_related("user")
    return [
        member.user
        for member in members
        if not must_qualify(member, project) and must_qualify(member, with_round)
    ]


def _save_settings(request: HttpRequest, project: Project, form: GoldForm) -> None:
    save_asked(form)
    add_gold_to_open_batches(project)
    if project.qualification_pass:
        open_qualification(project)
    fields = [name for name in form.changed_data if name != "stops"]
    Event.record(project, who_asks(request), "changed project", project.name, fields=fields)
    messages.success(request, gettext("Saved."))


def _import_items(request: HttpRequest, project: Project) -> None:
    n_added, n_known = add_gold_items(project, _rows(request), who_asks(request))
    message = ngettext("Added %(n)s gold item.", "Added %(n)s gold items.", n_added)
    message %= {"n": n_added}
    if n_known:
        message += " " + gettext("%(n)s duplicates skipped.") % {"n": n_known}
    messages.success(request, message)


def _switch_item(request: HttpRequest, project: Project, field: str) -> None:
    item = get_object_or_404(project.gold_items, pk=whole_number(request.POST.get("item")))
    is_on = not getattr(item, field)
    setattr(item, field, is_on)
    item.save(update_fields=[field])
    add_gold_to_open_batches(project)
    Event.record(project, who_asks(request), "changed gold item", item.pk, **{field: is_on})


def _rows(request: HttpRequest) -> Iterator[Any]:
    """Rows of the chosen file or of the text: a JSON list, or one object a line."""
    file = request.FILES.get("file")
    if file is not None:
        if file.size is None or file.size > MAX_GOLD_BYTES:
            raise GoldError(gettext("The file is larger than 5 MB; split it."))
        try:
            text = file.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise GoldError(gettext("The file is not UTF-8 text.")) from error
    else:
        text = request.POST.get("rows", "")
    text = text.strip()
    if not text:
        raise GoldError(gettext("Choose a file, or write at least one row."))
    if text.startswith("["):
        yield from _json(text)
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield _json(line, number)


def _json(text: str, line: int = 1) -> Any:
    """The JSON value of a text; `line` is its first line in the file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = gettext(
            "Line %(line)s, character %(column)s: this is not JSON. Look for a missing quote, comma "
            "or bracket just before it."
        ) % {"line": line + error.lineno - 1, "column": error.colno}
        raise GoldError(message) from error
    except (ValueError, RecursionError) as error:
        message = gettext(
            "Line %(line)s is not readable JSON: a number is too long, or the nesting is too deep."
        )
        raise GoldError(message % {"line": line}) from error


def _example(project: Project) -> str:
    """An example row for the questions of this project."""
    row: dict[str, Any] = {"prompt": "What is 2 + 2?", "responses": ["4", "5"]}
    if project.interface in ORDERED:
        axes = axes_of_list(project)
        row["ranks"] = {key: [1, 2] for key in axes} if len(project.axis_keys) > 1 else [1, 2]
    else:
        row["marks"] = {
            mark.key: [mark.high, mark.low] for mark in project.effective_protocol.attributes[:1]
        }
        row |= {"safe": [True, True]} if project.effective_protocol.safety else {}
    return json.dumps(row)


def _known(project: Project, item: GoldItem) -> list[dict[str, str]]:
    """The known answer of an item, one line for each axis and mark."""
    marks = [
        {
            "key": measure,
            "name": called(measure),
            "line": ", ".join(
                f"{LETTERS[place]} {_mark_in_words(measure, value)}"
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


def _mark_in_words(measure: str, value: int) -> str:
    if measure != SAFE_OR_NOT:
        return str(value)
    return gettext("safe") if value else gettext("unsafe")
