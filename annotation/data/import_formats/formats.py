"""Every format that can be imported, and which one a row is in."""

from collections.abc import Callable, Iterable

from annotation.data.import_formats.conversations import conversation_prompt, transcript_prompt
from annotation.data.import_formats.fields import CONTEXT_KEYS, ID_KEYS, TEXT_KEYS
from annotation.data.import_formats.messages import TURN
from annotation.data.import_formats.pairs import PROMPT_KEYS, SCORES, transcript_pair, trl_pair
from annotation.data.import_formats.plain_prompts import (
    first_turn_prompt,
    instruction_prompt,
    plain_prompt,
)
from annotation.data.import_formats.rankings import ranking
from annotation.data.import_formats.report import (
    ComparisonItem,
    ImportReport,
    PromptItem,
    Row,
    RowError,
)
from annotation.data.import_formats.trees import tree_comparisons, tree_prompt
from annotation.data.import_formats.votes import VOTE_KEYS

PROMPT_FORMATS: dict[str, Callable[[Row, ImportReport], PromptItem]] = {
    "plain": plain_prompt,
    "conversation": conversation_prompt,
    "transcript": transcript_prompt,
    "instructions": instruction_prompt,
    "turns": first_turn_prompt,
    "tree": tree_prompt,
}

COMPARISON_FORMATS: dict[str, Callable[[Row, str, ImportReport], Iterable[ComparisonItem]]] = {
    "transcript": transcript_pair,
    "trl": trl_pair,
    "tree": tree_comparisons,
    "ranking": ranking,
}

LABELS = {*ID_KEYS, "category", "risk", "split", "skill", "priority"}
PAIR = {"prompt", "chosen", "rejected"}
# The columns that each format reads; the report names any other column that is not empty.
PROMPT_COLUMNS = {
    "plain": {*LABELS, *TEXT_KEYS, *CONTEXT_KEYS},
    "conversation": {*LABELS, "messages", "prompt", "system"},
    "transcript": {*LABELS, *PAIR, "system"},
    "instructions": {*LABELS, *CONTEXT_KEYS, "instruction", "instances"},
    "turns": {*LABELS, *CONTEXT_KEYS, "turns"},
    "tree": {*LABELS, "prompt"},
}
COMPARISON_COLUMNS = {
    "transcript": {*LABELS, *PAIR, *VOTE_KEYS, "system"},
    "trl": {*LABELS, *PAIR, *VOTE_KEYS, *CONTEXT_KEYS, *PROMPT_KEYS, *SCORES[0], *SCORES[1]},
    "tree": {*LABELS, "prompt"},
    "ranking": {
        *LABELS,
        *VOTE_KEYS,
        *("messages", "prompt", "responses", "ranks", "unranked", "system"),
    },
}

FORMAT_NAMES = {
    "plain": "one prompt a row",
    "conversation": "conversations (messages with roles)",
    "transcript": "Human/Assistant transcripts (HH-RLHF)",
    "instructions": "instructions with an optional input",
    "turns": "questions with turns (MT-Bench)",
    "tree": "message trees (OpenAssistant)",
    "trl": "prompt, chosen, rejected (TRL)",
    "ranking": "rankings of several responses",
}


def detect_prompts(row: Row) -> str:
    """Which of PROMPT_FORMATS this row is in; RowError when none."""
    prompt = row.get("prompt")
    if isinstance(prompt, dict) and "text" in prompt:
        return "tree"
    if "messages" in row or isinstance(prompt, list):
        return "conversation"
    if isinstance(prompt, str):
        is_transcript = TURN.match(prompt) and ("chosen" in row or "\n\nAssistant:" in prompt)
        return "transcript" if is_transcript else "plain"
    if isinstance(row.get("chosen"), str) and "rejected" in row:
        return "transcript"
    if "turns" in row:
        return "turns"
    if "instruction" in row and any(key in row for key in ("input", "context", "instances")):
        return "instructions"
    if any(isinstance(row.get(key), str) for key in TEXT_KEYS):
        return "plain"
    raise RowError(f"no prompt was found; the row has {_keys(row)}.")


def detect_comparisons(row: Row) -> str:
    """Which of COMPARISON_FORMATS this row is in; RowError when none."""
    prompt = row.get("prompt")
    if "responses" in row and "ranks" in row:
        return "ranking"
    if isinstance(prompt, dict) and "replies" in prompt:
        return "tree"
    if "chosen" in row and "rejected" in row:
        text = prompt if isinstance(prompt, str) else row["chosen"] if prompt is None else None
        return "transcript" if isinstance(text, str) and TURN.match(text) else "trl"
    raise RowError(f"no comparison was found; the row has {_keys(row)}.")


def _keys(row: Row) -> str:
    names = ", ".join(repr(str(key)[:30]) for key in list(row)[:8])
    return names or "no fields"
