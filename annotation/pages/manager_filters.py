"""The filters of the data manager as fields of a form: their choices, and what a query string means."""

from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.http import QueryDict

from annotation.data.filters.table import FILTERS
from annotation.data.records.paging import Key, Query, words_of
from annotation.data.records.tables import TABLES
from annotation.models import Project, Prompt, User
from annotation.pages.identities import Identities

NOT_FILTERED = "so the list is not filtered by it."
MAX_WORDS_LENGTH = 200
# A page that carried every name would weigh more than its rows; any other can be typed.
SUGGESTED = 100
LISTED = 200

Choices = list[tuple[str, str]]

_YES_NO = [("yes", "yes"), ("no", "no")]
_FIXED: dict[str, Choices] = {
    "split": [(value, label.lower()) for value, label in Prompt.Split.choices],
    "risk": [("harmless", "harmless"), ("harmful", "harmful"), ("unknown", "not known")],
    "compared": [("yes", "has responses"), ("no", "has none")],
    "excluded": _YES_NO,
    "gold": _YES_NO,
    "reason": [("yes", "given"), ("no", "not given")],
    "review": [("open", "open"), ("decided", "decided")],
    "kind": [("vote", "vote"), ("ruling", "ruling of a reviewer")],
}
_STATES: dict[str, Choices] = {
    "comparisons": [
        ("unjudged", "not judged"),
        ("unfinished", "not finished"),
        ("finished", "finished"),
    ],
    "judgments": [
        ("counts", "counts"),
        ("superseded", "superseded or withdrawn"),
        ("excluded", "excluded"),
    ],
}


@dataclass(frozen=True)
class FilterField:
    """One filter of the form. `choices` is None for a text, which `suggestions` help to type."""

    key: str
    label: str
    value: str
    choices: Choices | None
    suggestions: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Filters:
    """What a query string asks for, the form that says so, and what in it means nothing."""

    query: Query
    fields: list[FilterField]
    problems: list[str]
    is_narrowed: bool


def read_filters(project: Project, table: str, names: Identities, sent: QueryDict) -> Filters:
    """Filters, words, order and place of a page; a filter that means nothing is left out and named."""
    spec = TABLES[table]
    chosen: dict[str, str] = {}
    fields, problems = [], []
    for key, filter_of in spec.filters.items():
        if key == "model" and not names.shows_writers:
            continue
        value = sent.get(key, "")
        if key == "category":
            choices, suggestions = None, categories(project)
            is_known = not value or project.prompts.filter(category=value).exists()
            problem = f"There is no category “{value[:60]}” here, {NOT_FILTERED}"
        else:
            choices, suggestions = _choices(project, table, key, names), []
            is_known = not value or value in dict(choices)
            problem = f"“{value[:60]}” is none of the choices, {NOT_FILTERED}"
        if value and is_known:
            chosen[key] = value
        elif value:
            problems.append(problem)
        fields.append(FilterField(key, filter_of.label, value, choices, suggestions))
    words = sent.get("q", "").strip()
    if len(words) > MAX_WORDS_LENGTH:
        problems.append(f"A search takes at most {MAX_WORDS_LENGTH} characters, {NOT_FILTERED}")
        words = ""
    elif words and not words_of(words):
        problems.append(f"A search needs a letter or a digit, {NOT_FILTERED}")
        words = ""
    sort = sent.get("sort", "")
    sort = sort if sort in spec.sorts and not (words and sort == "category") else "newest"
    query = Query(
        table=table,
        filters=_resolved(project, names, chosen),
        words=words,
        sort=sort,
        after=Key.read(sent.get("after", "")),
        before=Key.read(sent.get("before", "")),
    )
    return Filters(query, fields, problems, is_narrowed=bool(chosen or words))


def _resolved(project: Project, names: Identities, chosen: dict[str, str]) -> dict[str, str]:
    """The filters with a person's id for the name that the reader may see."""
    if "person" not in chosen:
        return chosen
    ids = {names.person(user).name: user.pk for user in _people(project)}
    return chosen | {"person": str(ids[chosen["person"]])}


def _choices(project: Project, table: str, key: str, names: Identities) -> Choices:
    if key == "state":
        return _STATES[table]
    if key in _FIXED:
        return _FIXED[key]
    rows: Any
    if key == "flagged":
        return [(key, chosen.name) for key, chosen in FILTERS.items()]
    if key == "source":
        rows = project.sources.order_by("name").values_list("pk", "name")
    elif key == "batch":
        rows = project.batches.order_by("-created_at").values_list("pk", "name")
    elif key == "tag":
        rows = project.tags.values_list("pk", "name")
    elif key == "person":
        return [(name, name) for name in (names.person(user).name for user in _people(project))]
    else:
        return names.models()
    return [(str(pk), name) for pk, name in rows[:LISTED]]


def _people(project: Project) -> list[User]:
    members = User.objects.filter(memberships__project=project).exclude(assignments=None)
    return list(members.order_by("username").distinct()[:LISTED])


def categories(project: Project) -> list[str]:
    """The first SUGGESTED categories by name, each looked up in the index: a count reads every prompt."""
    table = Prompt._meta.db_table
    sql = f"""WITH RECURSIVE names(name) AS (
        SELECT MIN(category) FROM {table} WHERE project_id = %s AND category > ''
        UNION ALL
        SELECT (SELECT MIN(category) FROM {table} WHERE project_id = %s AND category > name)
        FROM names WHERE name IS NOT NULL
    ) SELECT name FROM names WHERE name IS NOT NULL LIMIT %s"""  # noqa: S608 - a name of our own
    with connection.cursor() as cursor:
        cursor.execute(sql, [project.pk, project.pk, SUGGESTED])
        return [name for (name,) in cursor.fetchall()]
