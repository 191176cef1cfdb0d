"""Every shape of rows that can be imported, the most particular first.

To read another shape, write a `Shape` in the module of its family and add it here.
"""

from collections.abc import Callable, Iterable, Sequence

from annotation.data.import_formats.exports_of_tools import TOOLS
from annotation.data.import_formats.formats import (
    COMPARISON_COLUMNS,
    COMPARISON_FORMATS,
    FORMAT_NAMES,
    PROMPT_COLUMNS,
    PROMPT_FORMATS,
    detect_comparisons,
    detect_prompts,
)
from annotation.data.import_formats.rated_responses import RATED
from annotation.data.import_formats.report import ComparisonItem, Row, RowError
from annotation.data.import_formats.scored_pairs import SCORED_PAIRS
from annotation.data.import_formats.shape import Context, Shape, has
from annotation.data.import_formats.trees import tree_comparisons, tree_of_messages
from annotation.data.import_formats.unjudged_files import UNJUDGED


def _detected(detect: Callable[[Row], str], name: str) -> Callable[[Row], bool]:
    def recognizes(row: Row) -> bool:
        try:
            return detect(row) == name
        except RowError:
            return False

    return recognizes


def _comparisons(name: str) -> Shape:
    def read(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
        return COMPARISON_FORMATS[name](rows[0], context.axis, context.report)

    return Shape(
        title=FORMAT_NAMES[name],
        recognizes=_detected(detect_comparisons, name),
        read=read,
        columns=frozenset(COMPARISON_COLUMNS[name]),
    )


def _prompts(name: str) -> Shape:
    def read(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
        return [ComparisonItem(PROMPT_FORMATS[name](rows[0], context.report), [], {})]

    return Shape(
        title=FORMAT_NAMES[name],
        recognizes=_detected(detect_prompts, name),
        read=read,
        columns=frozenset(PROMPT_COLUMNS[name]),
    )


def _tree_messages(rows: Sequence[Row], context: Context) -> Iterable[ComparisonItem]:
    return tree_comparisons(tree_of_messages(rows), context.axis, context.report)


PROMPTS_ONLY = {
    # Under other names than the pairs of the same form.
    "prompt tree": _prompts("tree"),
    "conversation": _prompts("conversation"),
    "prompt transcript": _prompts("transcript"),
    "turns": _prompts("turns"),
    "instructions": _prompts("instructions"),
    "plain": _prompts("plain"),
}

SHAPES: dict[str, Shape] = {
    "ranking": _comparisons("ranking"),
    "tree": _comparisons("tree"),
    **TOOLS,
    **RATED,
    **SCORED_PAIRS,
    "tree messages": Shape(
        title="messages of trees, one a row (OpenAssistant)",
        recognizes=has("message_id", "parent_id", "text", "role"),
        read=_tree_messages,
        columns=frozenset(
            {"message_id", "parent_id", "text", "role", "rank", "deleted", "message_tree_id"}
            | {"lang", "tree_state", "model_name"}
        ),
        group=lambda row: row.get("message_tree_id"),
        group_size=5_000,
    ),
    "transcript": _comparisons("transcript"),
    "trl": _comparisons("trl"),
    **UNJUDGED,
    **PROMPTS_ONLY,
}


def recognized(row: Row) -> str:
    """The name of the first shape that this row has; RowError with all of them if there is none."""
    for name, shape in SHAPES.items():
        if shape.recognizes(row):
            return name
    columns = ", ".join(repr(str(key)[:30]) for key in list(row)[:8]) or "no fields"
    raise RowError(f"the row has {columns}, which is no shape that is read: {titles()}.")


def titles() -> str:
    """What is read, as a list in words."""
    return "; ".join(dict.fromkeys(shape.title for shape in SHAPES.values()))
