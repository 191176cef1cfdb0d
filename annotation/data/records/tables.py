"""The tables of the data manager: how each reaches its project, and its filters as SQL.

`r` is the row itself; `c`, `b`, `p` and `a` are its comparison, batch, prompt and assignment.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from annotation.models import Comparison, Judgment, Prompt, Response

Condition = tuple[str, list[Any]]

_BATCH = "{join} annotation_batch b ON b.id = c.batch_id"
_PROMPT = "{join} annotation_prompt p ON p.id = c.prompt_id"
_RISKS = ("harmless", "harmful", "unknown")


@dataclass(frozen=True)
class Filter:
    """One filter of a table; `condition` is None for a value that means nothing."""

    label: str
    condition: Callable[[str], Condition | None]


@dataclass(frozen=True)
class Table:
    """One table: its rows as SQL, and the filters that it has."""

    model: type[Model]
    joins: str
    """To the batch, without the prompt."""
    prompt: str
    """The join that reaches the prompt as `p`; "" where `p` is not needed."""
    project: str
    tagged: str
    """The column of a tagging that names a row of it."""
    words: str
    """The word index that a search uses; comparisons are searched by their prompts."""
    filters: dict[str, Filter]
    sorts: dict[str, str]

    @property
    def name(self) -> str:
        return self.model._meta.db_table


def _number(column: str) -> Callable[[str], Condition | None]:
    def condition(value: str) -> Condition | None:
        is_id = value.isascii() and value.isdigit() and len(value) < 18
        return (f"{column} = %s", [int(value)]) if is_id else None

    return condition


def _text(column: str) -> Callable[[str], Condition | None]:
    return lambda value: (f"{column} = %s", [value])


def _one_of(**conditions: str) -> Callable[[str], Condition | None]:
    return lambda value: (conditions[value], []) if value in conditions else None


def _risk(column: str) -> Callable[[str], Condition | None]:
    def condition(value: str) -> Condition | None:
        stored = "" if value == "unknown" else value
        return (f"{column} = %s", [stored]) if value in _RISKS else None

    return condition


def _tag(column: str) -> Callable[[str], Condition | None]:
    def condition(value: str) -> Condition | None:
        tag = _number("t.tag_id")(value)
        if tag is None:
            return None
        sql = f"EXISTS (SELECT 1 FROM annotation_tagging t WHERE t.{column} = r.id AND {tag[0]})"  # noqa: S608
        return sql, tag[1]

    return condition


def _flagged(column: str) -> Callable[[str], Condition | None]:
    sql = (
        f"EXISTS (SELECT 1 FROM annotation_flag f WHERE f.{column} = r.id"  # noqa: S608
        " AND f.filter = %s AND f.score > 0)"
    )
    return lambda value: (sql, [value])


_EXCLUDED = _one_of(yes="r.exclusion_id IS NOT NULL", no="r.exclusion_id IS NULL")
_SPLIT = _one_of(**{split: f"p.split = '{split}'" for split in ("train", "eval", "heldout")})
_SORTS = {"newest": "Newest first", "oldest": "Oldest first"}
_OPEN_CASE = (
    "EXISTS (SELECT 1 FROM annotation_reviewcase v WHERE v.comparison_id = r.id"
    " AND v.state = '{state}')"
)

TABLES: dict[str, Table] = {
    "prompts": Table(
        model=Prompt,
        joins="",
        prompt="",
        project="r.project_id",
        tagged="prompt_id",
        words="prompts",
        filters={
            "split": Filter(
                "Split",
                _one_of(**{s: f"r.split = '{s}'" for s in ("train", "eval", "heldout")}),
            ),
            "risk": Filter("Risk", _risk("r.risk")),
            "category": Filter("Category", _text("r.category")),
            "source": Filter("Source", _number("r.source_id")),
            "compared": Filter(
                "Responses",
                _one_of(
                    yes="EXISTS (SELECT 1 FROM annotation_comparison x WHERE x.prompt_id = r.id)",
                    no="NOT EXISTS (SELECT 1 FROM annotation_comparison x WHERE x.prompt_id = r.id)",
                ),
            ),
            "flagged": Filter("Found by filter", _flagged("prompt_id")),
            "tag": Filter("Tag", _tag("prompt_id")),
            "excluded": Filter("Excluded", _EXCLUDED),
        },
        sorts=_SORTS | {"category": "By category"},
    ),
    "responses": Table(
        model=Response,
        joins="{join} annotation_comparison c ON c.id = r.comparison_id " + _BATCH,
        prompt=_PROMPT,
        project="b.project_id",
        tagged="response_id",
        words="responses",
        filters={
            "batch": Filter("Batch", _number("c.batch_id")),
            "model": Filter("Model", _text("r.source")),
            "risk": Filter("Risk", _risk("p.risk")),
            "flagged": Filter("Found by filter", _flagged("response_id")),
            "tag": Filter("Tag", _tag("response_id")),
            "excluded": Filter("Excluded", _EXCLUDED),
        },
        sorts=_SORTS,
    ),
    "comparisons": Table(
        model=Comparison,
        joins="{join} annotation_batch b ON b.id = r.batch_id",
        prompt="{join} annotation_prompt p ON p.id = r.prompt_id",
        project="b.project_id",
        tagged="comparison_id",
        words="",
        filters={
            "batch": Filter("Batch", _number("r.batch_id")),
            "state": Filter(
                "Judgments",
                _one_of(
                    unjudged="r.judged = 0 AND r.needed > 0",
                    unfinished="r.judged < r.needed",
                    finished="r.judged >= r.needed AND r.judged > 0",
                ),
            ),
            "review": Filter(
                "Review",
                _one_of(
                    open=_OPEN_CASE.format(state="open"),
                    decided=_OPEN_CASE.format(state="decided"),
                ),
            ),
            "risk": Filter("Risk", _risk("p.risk")),
            "split": Filter("Split", _SPLIT),
            "gold": Filter("Gold", _one_of(yes="r.gold_id IS NOT NULL", no="r.gold_id IS NULL")),
            "tag": Filter("Tag", _tag("comparison_id")),
            "excluded": Filter("Excluded", _EXCLUDED),
        },
        sorts=_SORTS,
    ),
    "judgments": Table(
        model=Judgment,
        joins="{join} annotation_assignment a ON a.id = r.assignment_id"
        " {join} annotation_comparison c ON c.id = a.comparison_id " + _BATCH,
        prompt=_PROMPT,
        project="b.project_id",
        tagged="judgment_id",
        words="judgments",
        filters={
            "batch": Filter("Batch", _number("c.batch_id")),
            "person": Filter("Person", _number("a.annotator_id")),
            "state": Filter(
                "State",
                _one_of(
                    counts="a.judgment_id = r.id AND r.excluded_at IS NULL",
                    excluded="r.excluded_at IS NOT NULL",
                    superseded="(a.judgment_id IS NULL OR a.judgment_id <> r.id)",
                ),
            ),
            "kind": Filter("Kind", _one_of(vote="NOT a.is_ruling", ruling="a.is_ruling")),
            "reason": Filter("Reason", _one_of(yes="r.reason <> ''", no="r.reason = ''")),
            "risk": Filter("Risk", _risk("p.risk")),
            "tag": Filter("Tag", _tag("judgment_id")),
        },
        sorts=_SORTS,
    ),
}
