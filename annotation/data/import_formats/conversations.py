"""Prompts that are conversations: message lists, and Human/Assistant transcripts."""

from annotation.data.import_formats.fields import parse_json
from annotation.data.import_formats.messages import (
    checked_messages,
    prompt_item,
    shared_beginning,
    transcript,
    until_last_user_turn,
    with_system,
)
from annotation.data.import_formats.report import ImportReport, PromptItem, Row


def conversation_prompt(row: Row, report: ImportReport) -> PromptItem:
    key = "messages" if "messages" in row else "prompt"
    value = row.get(key)
    if isinstance(value, str) and value.lstrip().startswith("["):  # a CSV cell
        value = parse_json(value)
    return prompt_item(row, with_system(row, checked_messages(value, key)), report)


def transcript_prompt(row: Row, report: ImportReport) -> PromptItem:
    if isinstance(row.get("prompt"), str):
        messages = transcript(row["prompt"], "prompt")
    else:
        messages = shared_beginning(
            transcript(row.get("chosen"), "chosen"), transcript(row.get("rejected"), "rejected")
        )
    return prompt_item(row, with_system(row, until_last_user_turn(messages)), report)
