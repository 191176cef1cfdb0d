"""OpenAssistant's message trees: the root as a prompt, and the ranked replies as comparisons."""

from collections.abc import Iterable, Sequence
from typing import Any

from annotation.data.import_formats.fields import checked_text, whole_number
from annotation.data.import_formats.messages import MAX_MESSAGES, ROLES, prompt_item
from annotation.data.import_formats.rankings import dense_ranks
from annotation.data.import_formats.report import (
    ComparisonItem,
    ImportReport,
    PromptItem,
    Row,
    RowError,
    SkipRow,
)
from annotation.models import MAX_RESPONSES, Message

Node = dict[str, Any]


def tree_prompt(row: Row, report: ImportReport) -> PromptItem:
    text = checked_text(_root(row).get("text"), "prompt")
    return prompt_item(row, [{"role": "user", "content": text}], report)


def tree_comparisons(row: Row, axis: str, report: ImportReport) -> Iterable[ComparisonItem]:
    """A comparison for each message of the user with two or more ranked replies (0 is best)."""
    waiting: list[tuple[Node, list[Message]]] = [(_root(row), [])]
    has_comparison = False
    while waiting:
        node, before = waiting.pop(0)
        role = ROLES.get(str(node.get("role")))
        if role is None:
            raise RowError("a message in the tree has no role prompter or assistant.")
        text = checked_text(node.get("text"), "a message in the tree", may_be_empty=True)
        messages: list[Message] = [*before, {"role": role, "content": text}]
        if len(messages) > MAX_MESSAGES:
            raise RowError(f"the tree is more than {MAX_MESSAGES} messages deep.")
        replies = _replies(node)
        waiting += [(reply, messages) for reply in replies]
        if role == "user":
            comparison = _ranked_replies(row, messages, replies, axis, report)
            if comparison:
                has_comparison = True
                yield comparison
    if not has_comparison:
        raise SkipRow("a tree without ranked replies")


def _root(row: Row) -> Node:
    root = row.get("prompt")
    if not isinstance(root, dict):
        raise RowError("prompt is not the root of a message tree.")
    return root


def _replies(node: Node) -> list[Node]:
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise RowError("replies is not a list of messages.")
    return [reply for reply in replies if not reply.get("deleted")]


def _ranked_replies(
    row: Row, messages: list[Message], replies: list[Node], axis: str, report: ImportReport
) -> ComparisonItem | None:
    ranked = [
        {**reply, "rank": whole_number(reply["rank"])}
        for reply in replies
        if reply.get("rank") is not None
    ]
    if any(reply["rank"] is None for reply in ranked):
        raise RowError("a rank is not a whole number.")
    if len(ranked) < len(replies) and ranked:
        report.notes["a reply without a rank was left out"] += len(replies) - len(ranked)
    by_text: dict[str, Node] = {}
    for reply in sorted(ranked, key=lambda reply: reply["rank"]):
        text = checked_text(reply.get("text"), "a reply", may_be_empty=True)
        if text in by_text:
            report.notes["a reply with the same text as a better one was left out"] += 1
        by_text.setdefault(text, reply)
    if len(by_text) > MAX_RESPONSES:
        report.notes[f"only the best {MAX_RESPONSES} replies were imported"] += 1
    best = list(by_text.items())[:MAX_RESPONSES]
    if len(best) < 2:
        return None
    tree_id = {key: row[key] for key in ("message_tree_id",) if key in row}
    responses = [(text, str(reply.get("model_name") or "")[:80]) for text, reply in best]
    ranks = dense_ranks([reply["rank"] for _, reply in best])
    return ComparisonItem(prompt_item(tree_id, messages, report), responses, {axis: ranks})


def tree_of_messages(rows: Sequence[Row]) -> Row:
    """The tree that a file with one message a row has; RowError for a reply without its parent."""
    nodes = {str(row["message_id"]): {**row, "replies": []} for row in rows}
    roots = []
    for node in nodes.values():
        parent = node.get("parent_id")
        if parent in (None, ""):
            roots.append(node)
        elif str(parent) in nodes:
            nodes[str(parent)]["replies"].append(node)
        else:
            raise RowError("a reply comes without the message that it answers; sort by tree.")
    if len(roots) != 1:
        raise RowError("the rows of a tree have no message without a parent, or several.")
    return {"message_tree_id": rows[0].get("message_tree_id"), "prompt": roots[0]}
