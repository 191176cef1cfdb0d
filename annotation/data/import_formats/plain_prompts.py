"""Prompts of one turn: a text, an instruction with an optional input, a list of turns."""

from annotation.data.import_formats.fields import TEXT_KEYS, checked_text
from annotation.data.import_formats.messages import prompt_item
from annotation.data.import_formats.report import ImportReport, PromptItem, Row, RowError


def plain_prompt(row: Row, report: ImportReport) -> PromptItem:
    key = next((key for key in TEXT_KEYS if key in row), "prompt")
    text = checked_text(row.get(key), key)
    return prompt_item(row, [{"role": "user", "content": text}], report)


def instruction_prompt(row: Row, report: ImportReport) -> PromptItem:
    instruction = checked_text(row.get("instruction"), "instruction")
    given = row.get("input") or ""
    instances = row.get("instances")
    if not given and isinstance(instances, list) and instances and isinstance(instances[0], dict):
        given = instances[0].get("input") or ""
    given = checked_text(given, "input", may_be_empty=True)
    text = f"{instruction}\n\n{given}" if given.strip() else instruction
    return prompt_item(row, [{"role": "user", "content": checked_text(text, "the prompt")}], report)


def first_turn_prompt(row: Row, report: ImportReport) -> PromptItem:
    """MT-Bench: later turns build on a response to the first, which the file does not have."""
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        raise RowError("turns is not a list of texts.")
    if len(turns) > 1:
        report.notes["first turn only (later turns need a response)"] += 1
    text = checked_text(turns[0], "the first turn")
    return prompt_item(row, [{"role": "user", "content": text}], report)
