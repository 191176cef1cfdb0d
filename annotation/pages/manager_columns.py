"""The columns of the data manager: what a cell of each says about a row."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Prefetch
from django.urls import reverse
from django.utils import dateformat, timezone

from annotation.data.filters.table import FILTERS
from annotation.judge.answers import in_letters
from annotation.models import (
    Assignment,
    Comparison,
    Flag,
    Judgment,
    Project,
    Prompt,
    Response,
    ReviewCase,
    Tagging,
    User,
)
from annotation.pages import answer_form
from annotation.pages.identities import Identities

SHOWN_CHARACTERS = 220
HARMFUL = "(harmful content: open it to read)"


@dataclass(frozen=True)
class Cell:
    """What a cell shows: a text, perhaps a link, and badges with their classes."""

    text: str = ""
    href: str = ""
    badges: list[tuple[str, str]] = field(default_factory=list)
    kind: str = ""
    """The class of the cell: number, prose-cell or wide-cell."""


@dataclass(frozen=True)
class Column:
    """A column: its name, how its cell is made, and whether it is shown unless somebody chose."""

    label: str
    cell: "Callable[[Any, Rows], Cell]"
    is_default: bool = True


class Rows:
    """The rows of a page, and what their cells need, fetched with a few queries for all."""

    def __init__(
        self, project: Project, table: str, ids: list[int], names: Identities, reader: User
    ) -> None:
        self.project, self.table, self.names, self.reader = project, table, names, reader
        model, related, field_name = _MODELS[table]
        rows = model.objects.select_related(*related).in_bulk(ids)
        self.rows = [rows[pk] for pk in ids if pk in rows]
        self.tags = _by_target(
            Tagging.objects.filter(**{f"{field_name}__in": ids}).values_list(
                f"{field_name}_id", "tag__name"
            )
        )
        self.flags: dict[int, list[str]] = {}
        if field_name in ("prompt", "response"):
            flags = Flag.objects.filter(**{f"{field_name}__in": ids}, score__gt=0)
            self.flags = _by_target(flags.values_list(f"{field_name}_id", "filter"))
        self.n_comparisons: dict[int, int] = {}
        self.cases: dict[int, ReviewCase] = {}
        if table == "prompts":
            counts = Comparison.objects.filter(prompt__in=ids).values_list("prompt").order_by()
            self.n_comparisons = dict(counts.annotate(n=Count("pk")))
        if table == "comparisons":
            cases = ReviewCase.objects.filter(comparison__in=ids)
            self.cases = {case.comparison_id: case for case in cases}
        self._answers = self._read_answers() if table == "judgments" else {}

    def _read_answers(self) -> dict[int, list[dict[str, str]]]:
        """The lines of each judgment, with letters in the order of the responses' ids."""
        comparisons = Comparison.objects.select_related("batch__project").prefetch_related(
            Prefetch("responses", Response.objects.only("pk", "comparison").order_by("pk"))
        )
        by_id = comparisons.in_bulk({row.assignment.comparison_id for row in self.rows})
        answers = {}
        for row in self.rows:
            comparison = by_id[row.assignment.comparison_id]
            ids = [response.pk for response in comparison.responses.all()]
            seen = Assignment(comparison=comparison, shown_order=ids)
            answers[row.pk] = answer_form.summary(seen, in_letters(seen, row))
        return answers

    def answer(self, judgment: Judgment) -> str:
        lines = (
            f"{line['name']}: {line['line']}" for line in self._answers[judgment.pk] if line["line"]
        )
        return " · ".join(lines)

    def text(self, text: str, prompt: Prompt, href: str) -> Cell:
        """The beginning of a text with a link; covered where the reader wants harmful texts covered."""
        shown = HARMFUL if self.reader.covers(prompt) else text[:SHOWN_CHARACTERS]
        return Cell(shown or "(empty)", href, kind="prose-cell")

    def address(self, name: str, *arguments: Any) -> str:
        return reverse(name, args=[self.project.slug, *arguments])


def _by_target(pairs: Iterable[tuple[int, str]]) -> dict[int, list[str]]:
    by_target: dict[int, list[str]] = defaultdict(list)
    for target, name in pairs:
        by_target[target].append(name)
    return by_target


_MODELS: dict[str, tuple[Any, tuple[str, ...], str]] = {
    "prompts": (Prompt, ("source", "exclusion"), "prompt"),
    "responses": (Response, ("comparison__prompt", "comparison__batch", "exclusion"), "response"),
    "comparisons": (Comparison, ("prompt", "batch", "exclusion"), "comparison"),
    "judgments": (
        Judgment,
        (
            "assignment__annotator",
            "assignment__comparison__prompt",
            "assignment__comparison__batch",
        ),
        "judgment",
    ),
}


# --- Cells ------------------------------------------------------------------------------------------


def _prompt_of(row: Any) -> Prompt:
    if isinstance(row, Prompt):
        return row
    prompt = row.assignment.comparison.prompt if isinstance(row, Judgment) else row.prompt
    assert isinstance(prompt, Prompt)
    return prompt


def _prompt(row: Any, rows: Rows) -> Cell:
    prompt = row.comparison.prompt if isinstance(row, Response) else _prompt_of(row)
    if isinstance(row, Comparison):
        href = rows.address("comparison", row.pk)
    elif isinstance(row, Judgment):
        href = rows.address("comparison", row.assignment.comparison_id)
    else:
        href = rows.address("prompt", prompt.uid)
    return rows.text(prompt.text, prompt, href)


def _response(row: Response, rows: Rows) -> Cell:
    return rows.text(row.text, row.comparison.prompt, rows.address("comparison", row.comparison_id))


def _split(row: Any, rows: Rows) -> Cell:
    return Cell(_prompt_of(row).get_split_display().lower())


def _category(row: Any, rows: Rows) -> Cell:
    return Cell(_prompt_of(row).category or "–")


def _risk(row: Any, rows: Rows) -> Cell:
    prompt = row.comparison.prompt if isinstance(row, Response) else _prompt_of(row)
    if not prompt.risk:
        return Cell("not known")
    kind = "no-go" if prompt.risk == Prompt.Risk.HARMFUL else "go"
    return Cell(badges=[(prompt.risk, kind)])


def _source(row: Prompt, rows: Rows) -> Cell:
    return Cell(row.source.name, rows.address("source", row.source_id), kind="wide-cell")


def _batch(row: Any, rows: Rows) -> Cell:
    if isinstance(row, Judgment):
        batch = row.assignment.comparison.batch
    else:
        batch = row.batch if isinstance(row, Comparison) else row.comparison.batch
    return Cell(batch.name, rows.address("batch", batch.pk))


def _tags(row: Any, rows: Rows) -> Cell:
    return Cell(badges=[(name, "") for name in rows.tags.get(row.pk, [])])


def _flags(row: Any, rows: Rows) -> Cell:
    names = [FILTERS[key].name for key in rows.flags.get(row.pk, []) if key in FILTERS]
    return Cell(badges=[(name, "caution") for name in names])


def _excluded(row: Any, rows: Rows) -> Cell:
    if row.exclusion is None:
        return Cell()
    return Cell(row.exclusion.reason, badges=[("excluded", "caution")])


def _created(row: Any, rows: Rows) -> Cell:
    return Cell(
        dateformat.format(timezone.localtime(row.created_at), "j M Y, H:i T"), kind="wide-cell"
    )


def _state_of_judgment(row: Judgment, rows: Rows) -> Cell:
    if row.excluded_at is not None:
        return Cell(row.excluded_reason, badges=[("excluded", "caution")])
    if row.assignment.judgment_id == row.pk:
        return Cell(badges=[("counts", "go")])
    replaced = row.assignment.judgment_id is not None
    return Cell(badges=[("superseded" if replaced else "withdrawn", "")])


def _person(row: Judgment, rows: Rows) -> Cell:
    assignment = row.assignment
    identity = rows.names.person(
        assignment.annotator,
        is_imported=assignment.comparison.batch.is_imported,
        is_ruling=assignment.is_ruling,
    )
    href = rows.address("quality_person", identity.page) if identity.page else ""
    badges = [("simulated", "simulated")] if identity.is_simulated else []
    return Cell(identity.name, href, badges)


def _judged(row: Comparison, rows: Rows) -> Cell:
    return Cell(f"{row.judged} / {row.needed}", kind="number")


def _state_of_comparison(row: Comparison, rows: Rows) -> Cell:
    badges = []
    if row.gold_id is not None:
        badges.append(("gold", "caution"))
    if row.is_ruled:
        badges.append(("decided by review", "live"))
    case = rows.cases.get(row.pk)
    if case is not None and case.state == ReviewCase.State.OPEN:
        badges.append(("review open", "caution"))
    return Cell(badges=badges)


def _number(name: str) -> Callable[[Any, Rows], Cell]:
    def cell(row: Any, rows: Rows) -> Cell:
        value = getattr(row, name)
        text = "–" if value is None else f"{value:,.0f}"
        return Cell(text, kind="number")

    return cell


COLUMNS: dict[str, dict[str, Column]] = {
    "prompts": {
        "prompt": Column("Prompt", _prompt),
        "split": Column("Split", _split),
        "category": Column("Category", _category),
        "risk": Column("Risk", _risk),
        "source": Column("Source", _source),
        "comparisons": Column(
            "Comparisons",
            lambda row, rows: Cell(f"{rows.n_comparisons.get(row.pk, 0):,}", kind="number"),
        ),
        "flags": Column("Found by filters", _flags, is_default=False),
        "turns": Column(
            "Turns",
            lambda row, rows: Cell(str(len(row.messages)), kind="number"),
            is_default=False,
        ),
        "tags": Column("Tags", _tags),
        "excluded": Column("Excluded", _excluded),
        "created": Column("Imported", _created, is_default=False),
    },
    "responses": {
        "response": Column("Response", _response),
        "prompt": Column("Prompt", _prompt),
        "model": Column("Model", lambda row, rows: Cell(rows.names.writer(row.source) or "–")),
        "batch": Column("Batch", _batch),
        "tokens": Column("Tokens", _number("n_tokens")),
        "finished": Column(
            "Ending",
            lambda row, rows: Cell(badges=[("cut off", "caution")] if row.is_cut_off else []),
            is_default=False,
        ),
        "risk": Column("Risk", _risk, is_default=False),
        "flags": Column("Found by filters", _flags, is_default=False),
        "tags": Column("Tags", _tags),
        "excluded": Column("Excluded", _excluded),
    },
    "comparisons": {
        "prompt": Column("Comparison", _prompt),
        "batch": Column("Batch", _batch),
        "judged": Column("Judged", _judged),
        "state": Column("State", _state_of_comparison),
        "risk": Column("Risk", _risk),
        "category": Column("Category", _category, is_default=False),
        "split": Column("Split", _split, is_default=False),
        "score": Column("Score", _number("score"), is_default=False),
        "tags": Column("Tags", _tags),
        "excluded": Column("Excluded", _excluded),
    },
    "judgments": {
        "prompt": Column("Comparison", _prompt),
        "person": Column("Person", _person),
        "answer": Column("Answer", lambda row, rows: Cell(rows.answer(row), kind="wide-cell")),
        "reason": Column("Reason", lambda row, rows: Cell(row.reason[:SHOWN_CHARACTERS])),
        "seconds": Column("Seconds", _number("seconds")),
        "batch": Column("Batch", _batch),
        "revision": Column("Revision", _number("revision"), is_default=False),
        "guidelines": Column("Guidelines", _number("guideline_version"), is_default=False),
        "state": Column("State", _state_of_judgment),
        "tags": Column("Tags", _tags),
        "created": Column("When", _created),
    },
}


def columns_of(table: str, chosen: list[str], names: Identities) -> dict[str, Column]:
    """The chosen columns in the table's order, or its defaults; the first one is always there."""
    columns = {
        key: column
        for key, column in COLUMNS[table].items()
        if key != "model" or names.shows_writers
    }
    wanted = [key for key in chosen if key in columns]
    first = next(iter(columns))
    return {
        key: column
        for key, column in columns.items()
        if key == first or (key in wanted if wanted else column.is_default)
    }
