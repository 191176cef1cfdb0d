"""Prompts of one turn: a text, an instruction with an optional input, a list of turns."""

from annotation.data.import_formats.fields import TEXT_KEYS, checked_text
from annotation.data.import_formats.messages import prompt_item, prompt_of_texts
from annotation.data.import_formats.report import ImportReport, PromptItem, Row, RowError


def plain_prompt(row: Row, report: ImportReport) -> PromptItem:
    key = next((key for key in TEXT_KEYS if key in row), "prompt")
    return prompt_item(row, prompt_of_texts(row, checked_text(row.get(key), key)), report)


def instruction_prompt(row: Row, report: ImportReport) -> PromptItem:
    instruction = checked_text(row.get("instruction"), "instruction")
    instances = row.get("instances")
    if isinstance(instances, list) and instances and isinstance(instances[0], dict):
        row = {**row, "input": row.get("input") or instances[0].get("input")}
    return prompt_item(row, prompt_of_texts(row, instruction), report)


def first_turn_prompt(row: Row, report: ImportReport) -> PromptItem:
    """MT-Bench: later turns build on a response to the first, which the file does not have."""
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        raise RowError("turns is not a list of texts.")
    if len(turns) > 1:
        report.notes["first turn only (later turns need a response)"] += 1
    messages = prompt_of_texts(row, checked_text(turns[0], "the first turn"))
    return prompt_item(row, messages, report)
