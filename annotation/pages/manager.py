"""The data manager: prompts, responses, comparisons and judgments by filters and words, and acts on many.

Everybody who reads the data sees it and saves views; only admins act on rows.
"""

import uuid
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from annotation.access import CAN_JUDGE, CAN_READ_DATA, CAN_RUN, project_view, role_of
from annotation.data.records.paging import ids_of, page_of
from annotation.data.records.tables import TABLES
from annotation.lib.languages import english_only
from annotation.lib.text import storable
from annotation.models import BulkAct, Project, SavedView, User
from annotation.pages.batch_forms import fits
from annotation.pages.identities import Identities
from annotation.pages.manager_columns import COLUMNS, Rows, columns_of
from annotation.pages.manager_filters import Filters, read_filters
from annotation.protocols import DIALOGUE, PRESETS, Preset
from annotation.quality import bulk_acts
from annotation.quality.bulk_acts import MOST, BulkError
from annotation.request import who_asks, whole_number

ROWS_A_PAGE = 50
ACTS_SHOWN = 6
VIEWS_OF_ONE = 50
TITLES = {
    "prompts": "Prompts",
    "responses": "Responses",
    "comparisons": "Comparisons",
    "judgments": "Judgments",
}
# Parts of an address that say where in the list one is, not what the list holds.
PLACE = ("after", "before")


def address_of(project: Project, table: str) -> str:
    """The page of a table; prompts have had theirs since before there were tables."""
    if table == "prompts":
        return reverse("prompts", args=[project.slug])
    return reverse("records", args=[project.slug, table])


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def records(request: HttpRequest, project: Project, table: str) -> HttpResponse:
    """One table: a page of its rows, its filters, columns and views, and the acts of an admin."""
    _check_table(table)
    names = Identities(project, role_of(request))
    filters = read_filters(project, table, names, request.GET)
    columns = columns_of(table, request.GET.getlist("col"), names)
    page = page_of(project, filters.query, ROWS_A_PAGE)
    rows = Rows(project, table, page.ids, names, who_asks(request))
    kept = _without(request.GET, *PLACE)
    template = "annotation/data/records.html"
    return render(
        request,
        f"{template}#list" if request.htmx else template,  # type: ignore[attr-defined]
        {
            "table": table,
            "tables": [(key, title, address_of(project, key)) for key, title in TITLES.items()],
            "title": TITLES[table],
            "here": address_of(project, table),
            "fields": filters.fields,
            "problems": filters.problems,
            "is_narrowed": filters.is_narrowed,
            "has_rows": bool(page.ids) or filters.is_narrowed,
            "q": filters.query.words,
            "sort": filters.query.sort,
            "sorts": TABLES[table].sorts.items(),
            "columns": columns,
            "all_columns": [
                (key, column.label, key in columns) for key, column in COLUMNS[table].items()
            ],
            "rows": [
                (row.pk, [(column.label, column.cell(row, rows)) for column in columns.values()])
                for row in rows.rows
            ],
            "page": page,
            "following": _link(kept, "after", page.following.as_text()) if page.following else "",
            "previous": _link(kept, "before", page.previous.as_text()) if page.previous else "",
            "query": kept.urlencode(),
            "may_act": role_of(request) in CAN_RUN,
            **_views(project, table, who_asks(request)),
            **(_acts(project, table) if role_of(request) in CAN_RUN else {}),
        },
    )


def _check_table(table: str) -> None:
    if table not in TABLES:
        raise Http404("There is no such table.")


def _without(query: QueryDict, *names: str) -> QueryDict:
    kept = query.copy()
    for name in names:
        kept.pop(name, None)
    return kept


def _link(query: QueryDict, name: str, value: str) -> str:
    linked = query.copy()
    linked[name] = value
    return f"?{linked.urlencode()}"


def _views(project: Project, table: str, reader: User) -> dict[str, Any]:
    views = project.saved_views.filter(table=table).select_related("user")
    return {
        "own_views": [view for view in views if view.user_id == reader.pk],
        "shared_views": [view for view in views if view.is_shared and view.user_id != reader.pk],
    }


def _acts(project: Project, table: str) -> dict[str, Any]:
    """What the acts of an admin offer, and the latest ones, which can be undone."""
    members = User.objects.filter(
        memberships__project=project, memberships__role__in=CAN_JUDGE, is_simulated=False
    )
    return {
        "key": uuid.uuid4(),
        "most": MOST,
        "tags": project.tags.all(),
        "presets": [(preset.key, preset.title) for preset in _presets(project)],
        "people": members.order_by("username"),
        "own_batches": project.batches.filter(is_by_hand=True).exclude(state="closed"),
        "overlap": project.overlap,
        "acts": project.bulk_acts.filter(table=table).select_related("by", "undone_by")[
            :ACTS_SHOWN
        ],
    }


def _presets(project: Project) -> list[Preset]:
    """The tasks that can be asked about rows of this project."""
    return [
        preset
        for preset in PRESETS.values()
        if preset.interface != DIALOGUE and fits(preset.key, project)
    ]


# --- Acts on rows ---------------------------------------------------------------------------------------


@english_only
@project_view(*CAN_RUN)
@require_POST
def records_act(request: HttpRequest, project: Project, table: str) -> HttpResponse:
    """Do to the selected rows, or to all that fit the filters, what the pressed button says."""
    _check_table(table)
    act = ACTS.get(request.POST.get("act", ""))
    sent = QueryDict(request.POST.get("query", "")[:4000])
    filters = read_filters(project, table, Identities(project, role_of(request)), sent)
    try:
        if act is None or (table != "prompts" and act in (_risk, _category)):
            raise BulkError("Choose what to do with the rows.")
        key = UUID(request.POST.get("key", ""))
        made = act(request, project, table, _selected(request, project, filters), key)
    except ValueError as error:
        text = str(error) if isinstance(error, BulkError) else "Reload the page and try again."
        messages.error(request, text)
    else:
        messages.success(request, _sentence(made))
        if made.kind == BulkAct.Kind.BATCH:
            return redirect("batch", project.slug, made.before["batch"])
    query = _without(sent, *PLACE).urlencode()
    return redirect(address_of(project, table) + (f"?{query}" if query else ""))


def _selected(request: HttpRequest, project: Project, filters: Filters) -> Sequence[int]:
    if request.POST.get("scope") != "all":
        return [pk for pk in map(whole_number, request.POST.getlist("row")) if pk]
    if filters.problems:  # Without the filter that failed, rows would be hit that nobody meant.
        raise BulkError(filters.problems[0])
    ids = ids_of(project, filters.query, MOST)
    if ids is None:
        raise BulkError(f"More than {MOST:,} rows match: narrow the filters.")
    return ids


def _sentence(act: BulkAct) -> str:
    if act.kind == BulkAct.Kind.BATCH:
        text = (
            f"{act.n:,} comparisons are asked about in {act.value}."
            if act.n != 1
            else f"1 comparison is asked about in {act.value}."
        )
        if left_out := act.before.get("left_out"):
            text += (
                f" {left_out:,} of the selected rows are left out: held out, not signed off, excluded, "
                "too few responses, or the same prompt twice."
            )
        return text
    noun = act.table if act.n != 1 else act.table.removesuffix("s")
    detail = {
        BulkAct.Kind.EXCLUDE: f"excluded: {act.reason}",
        BulkAct.Kind.TAG: f"tagged “{act.value}”",
        BulkAct.Kind.UNTAG: f"no longer tagged “{act.value}”",
        BulkAct.Kind.RISK: f"now {act.value or 'of unknown risk'}",
        BulkAct.Kind.CATEGORY: f"now in “{act.value}”" if act.value else "now in no category",
    }[BulkAct.Kind(act.kind)]
    return f"{act.n:,} {noun} {detail}."


Act = Callable[[HttpRequest, Project, str, Sequence[int], UUID], BulkAct]


def _exclude(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    reason = request.POST.get("reason", "")
    return bulk_acts.exclude(project, table, ids, reason, who_asks(request), key)


def _tag(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    keeps_out = request.POST.get("keeps_out") == "on"
    name, by = request.POST.get("tag_name", ""), who_asks(request)
    return bulk_acts.tag(project, table, ids, name, by, key, keeps_out=keeps_out)


def _untag(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    name = request.POST.get("untag_name", "")
    return bulk_acts.untag(project, table, ids, name, who_asks(request), key)


def _risk(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    return bulk_acts.set_risk(
        project, ids, request.POST.get("new_risk", "-"), who_asks(request), key
    )


def _category(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    category = request.POST.get("new_category", "")
    return bulk_acts.set_category(project, ids, category, who_asks(request), key)


def _ask(
    request: HttpRequest, project: Project, table: str, ids: Sequence[int], key: UUID
) -> BulkAct:
    sent = request.POST
    batch = person = None
    if sent.get("batch"):
        batch = project.batches.filter(pk=whole_number(sent.get("batch"))).first()
        if batch is None:
            raise BulkError("There is no such batch in this project.")
    if sent.get("only_for"):
        person = User.objects.filter(pk=whole_number(sent.get("only_for"))).first()
        if person is None:
            raise BulkError("There is no such person in this project.")
    preset = sent.get("preset", "")
    overlap = 1 if person is not None else whole_number(sent.get("overlap")) or project.overlap
    if preset and preset not in {possible.key for possible in _presets(project)}:
        raise BulkError("There is no such task.")
    if overlap > 20:
        raise BulkError("At most 20 people judge a comparison.")
    return bulk_acts.ask(
        project,
        table,
        ids,
        who_asks(request),
        key,
        name=sent.get("name", ""),
        preset=preset,
        overlap=overlap,
        only_for=person,
        batch=batch,
    )


ACTS: dict[str, Act] = {
    "exclude": _exclude,
    "tag": _tag,
    "untag": _untag,
    "risk": _risk,
    "category": _category,
    "batch": _ask,
}


@english_only
@project_view(*CAN_RUN)
@require_POST
def act_undo(request: HttpRequest, project: Project, pk: int) -> HttpResponse:
    """Take an act back."""
    act = get_object_or_404(BulkAct, project=project, pk=pk)
    try:
        n = bulk_acts.undo(act, who_asks(request))
    except BulkError as error:
        messages.error(request, str(error))
    else:
        text = f"Undone: {_sentence(act)}" if n else "That was undone before."
        messages.success(request, text)
    back = request.POST.get("back", "")
    if url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}):
        return redirect(back)
    return redirect(address_of(project, act.table))


# --- Saved views --------------------------------------------------------------------------------------


@english_only
@project_view(*CAN_READ_DATA)
@require_POST
def records_views(request: HttpRequest, project: Project, table: str) -> HttpResponse:
    """Save the filters, columns and order under a name, or delete a view of one's own."""
    _check_table(table)
    me = who_asks(request)
    here = address_of(project, table)
    if request.POST.get("act") == "delete":
        pk = whole_number(request.POST.get("view"))
        get_object_or_404(SavedView, project=project, user=me, table=table, pk=pk).delete()
        messages.success(request, "The view is deleted.")
        return redirect(here)
    name = " ".join(storable(request.POST.get("name", "")).split())
    query = _without(QueryDict(request.POST.get("query", "")[:4000]), *PLACE).urlencode()
    mine = project.saved_views.filter(user=me, table=table)
    if not name or len(name) > 60:
        messages.error(request, "Name the view, with at most 60 characters.")
    elif mine.exclude(name=name).count() >= VIEWS_OF_ONE:
        messages.error(request, f"At most {VIEWS_OF_ONE} views of a table: delete one first.")
    else:
        is_shared = request.POST.get("is_shared") == "on"
        mine.update_or_create(
            name=name,
            defaults={"query": query, "is_shared": is_shared},
            create_defaults={
                "project": project,
                "user": me,
                "table": table,
                "query": query,
                "is_shared": is_shared,
            },
        )
        messages.success(request, f"The view “{name}” is saved.")
    return redirect(here + (f"?{query}" if query else ""))
