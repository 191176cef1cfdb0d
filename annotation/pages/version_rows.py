"""The rows of a frozen version with filter, order and search, its columns, and its statistics as pictures."""

import json
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_GET

from annotation.access import CAN_READ_DATA, project_view
from annotation.data.snapshot_files import JUDGMENTS, SnapshotError, config_name
from annotation.data.version_rows import (
    Histogram,
    RowPage,
    RowQuery,
    facets_of,
    files_of,
    first_places,
    lengths_of,
    longer_wins,
    open_file,
    rows_of,
    schema_of,
    sortable,
)
from annotation.lib.languages import english_only
from annotation.lib.numbers import share as in_percent
from annotation.models import Project, Snapshot
from annotation.request import whole_number

ROWS_A_PAGE = 25
SHOWN_CHARACTERS = 600
MAX_WORDS = 200
# The picture's own units.
WIDTH, HEIGHT = 480, 120


@english_only
@project_view(*CAN_READ_DATA)
@require_GET
def snapshot_rows(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """One file of a version: a page of its rows, or with `part=statistics` its pictures alone."""
    chosen = get_object_or_404(Snapshot, project=project, version=version)
    files = files_of(chosen)
    if not files:
        raise Http404("This version has no tables.")
    file = request.GET.get("file", "")
    file = file if file in files else files[0]
    context: dict[str, Any] = {
        "snapshot": chosen,
        "files": [(name, config_name(name)) for name in files],
        "file": file,
    }
    template = "annotation/data/version_rows.html"
    try:
        if request.GET.get("part") == "statistics":
            context["pictures"] = _pictures(chosen, file)
            return render(request, f"{template}#statistics", context)
        context |= _rows(request, chosen, file)
    except SnapshotError as error:
        context["problem"] = str(error)
    is_part = request.htmx and "problem" not in context  # type: ignore[attr-defined]
    return render(request, f"{template}#list" if is_part else template, context)


def _rows(request: HttpRequest, chosen: Snapshot, file: str) -> dict[str, Any]:
    parquet = open_file(chosen, file)
    facets = facets_of(chosen, file)
    filters = {name: request.GET.get(f"is-{name}", "") for name in facets}
    words = request.GET.get("q", "").strip()[:MAX_WORDS]
    sort = request.GET.get("sort", "")
    column, is_falling = sort.removeprefix("-"), sort.startswith("-")
    # Words are looked for in the order of the file: sorting as well would read every text first.
    is_sorted = column in sortable(parquet) and not words
    query = RowQuery(
        file,
        words=words,
        filters={name: value for name, value in filters.items() if value in dict(facets[name])},
        sort=column if is_sorted else "",
        is_falling=is_falling,
        start=min(whole_number(request.GET.get("start")), parquet.metadata.num_rows),
    )
    page = rows_of(parquet, query, ROWS_A_PAGE)
    kept = request.GET.copy()
    kept.pop("start", None)
    return {
        "schema": schema_of(parquet),
        "sorts": [(key, label) for name in sortable(parquet) for key, label in _orders(name)],
        "sort": sort if is_sorted else "",
        "q": words,
        "filters": [(name, query.filters.get(name, ""), values) for name, values in facets.items()],
        "is_narrowed": bool(words or query.filters),
        "page": page,
        "start": query.start,
        "columns": _columns(page, parquet.schema_arrow.names),
        "rows": [(number, _cells(row)) for number, row in page.rows],
        "kept": kept.urlencode(),
    }


def _orders(name: str) -> list[tuple[str, str]]:
    return [(name, f"{name}, rising"), (f"-{name}", f"{name}, falling")]


def _columns(page: RowPage, names: list[str]) -> list[str]:
    """Texts first: they are what a person reads; ids last."""
    ids = [name for name in names if name.endswith("_id")]
    return [name for name in names if name not in ids] + ids


def _cells(row: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Name, text and whether it is prose, in the order of `_columns`."""
    names = [name for name in row if not name.endswith("_id")]
    names += [name for name in row if name.endswith("_id")]
    return [(name, *_text(row[name])) for name in names]


def _text(value: Any) -> tuple[str, bool]:
    if value is None:
        return "–", False
    if isinstance(value, str):
        return value[:SHOWN_CHARACTERS], len(value) > 40
    if isinstance(value, list) and value and isinstance(value[0], dict) and "content" in value[0]:
        turns = "\n\n".join(
            f"{turn['role']}: {turn['content']}" if len(value) > 1 else turn["content"]
            for turn in value
        )
        return turns[-SHOWN_CHARACTERS:], True
    if isinstance(value, list) and value and isinstance(value[0], str):
        lines = (f"{place}. {text[:200]}" for place, text in enumerate(value, start=1))
        return "\n".join(lines)[:SHOWN_CHARACTERS], True
    if isinstance(value, float):
        return f"{value:g}", False
    return json.dumps(value, ensure_ascii=False)[:SHOWN_CHARACTERS], False


# --- Pictures -----------------------------------------------------------------------------------------


def _pictures(chosen: Snapshot, file: str) -> list[dict[str, Any]]:
    """Each picture: a title that says what it shows, bars, and the numbers as a list."""
    names = set(open_file(chosen, file).schema_arrow.names)
    pictures = []
    for column, what in (
        ("messages", "prompts"), ("prompt", "prompts"), ("responses", "responses"),
        ("response", "responses"), ("chosen", "chosen responses"), ("rejected", "rejected responses"),
    ):  # fmt: skip
        if column in names:
            pictures.append(_of_lengths(lengths_of(chosen, file, column), what))
    if file == JUDGMENTS:
        for axis, shares in first_places(chosen, file).items():
            pictures.append(_of_places(axis, shares))
    if {"chosen", "rejected"} <= names and (longer := longer_wins(chosen, file)):
        share, n = longer
        note = f"The longer response was chosen in {in_percent(share)} of {n:,} pairs of different lengths."
        pictures.append({"title": "Length bias", "note": note, "bars": [], "ends": []})
    for name, values in facets_of(chosen, file).items():
        if name != "annotator":
            pictures.append(_of_values(name, values))
    return pictures


def _bars(counts: list[float], labels: list[str]) -> list[dict[str, Any]]:
    # A few wide bars say no more than narrow ones.
    width = min(WIDTH / max(1, len(counts)), WIDTH / 6)
    highest = max(counts, default=0) or 1
    return [
        {
            "x": round(place * width + 1, 1),
            "y": round(HEIGHT * (1 - count / highest), 1),
            "width": round(max(1.0, width - 2), 1),
            "height": round(HEIGHT * count / highest, 1),
            "label": label,
        }
        for place, (count, label) in enumerate(zip(counts, labels, strict=True))
    ]


def _of_lengths(lengths: Histogram, what: str) -> dict[str, Any]:
    last = len(lengths.counts) - 1
    labels = [
        f"{place * lengths.step:,}–{(place + 1) * lengths.step - 1:,} characters: {count:,}"
        if place < last
        else f"{place * lengths.step:,} characters or more: {count:,}"
        for place, count in enumerate(lengths.counts)
    ]
    note = (
        f"Median {lengths.median:,.0f} characters, longest {lengths.longest:,}; n = {lengths.n:,}."
    )
    counts = [float(count) for count in lengths.counts]
    return {
        "title": f"Lengths of {what}",
        "note": note,
        "bars": _bars(counts, labels),
        "ends": ["0", f"{last * lengths.step:,}+"],
    }


def _of_places(axis: str, shares: list[float]) -> dict[str, Any]:
    labels = [
        f"response {place}: {in_percent(share, 1)}" for place, share in enumerate(shares, start=1)
    ]
    note = f"Share of rankings that put each response of a row first; {in_percent(1 / len(shares))} by chance."
    return {
        "title": f"First places by position, {axis}",
        "note": note,
        "bars": _bars(shares, labels),
        "ends": ["response 1", f"response {len(shares)}"],
        "figures": [in_percent(share) for share in shares],
    }


def _of_values(name: str, values: list[tuple[str, int]]) -> dict[str, Any]:
    labels = [f"{value}: {n:,}" for value, n in values]
    counts = [float(n) for _, n in values]
    return {
        "title": name.capitalize(),
        "note": " · ".join(labels[:8]),
        "bars": _bars(counts, labels),
        "ends": [values[0][0][:24], values[-1][0][:24]],
    }
