"""A whole file, read into items that are unique, with a report; nothing is written."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from annotation.data.import_formats.items import JUDGMENTS, PROMPTS, read_items
from annotation.data.import_formats.report import ComparisonItem, ImportReport, PromptItem

N_EXAMPLES = 5


def read_prompts(
    file: Path | BinaryIO, *, format: str = "auto"
) -> tuple[list[PromptItem], ImportReport]:
    """Every prompt in the file, each once, and what is wrong."""
    report = ImportReport()
    items: dict[str, PromptItem] = {}
    for item in read_items(file, report, axis="", axes=("",), shape=format, contents=PROMPTS):
        if item.prompt.sha256 in items:
            report.n_duplicates += 1
        items.setdefault(item.prompt.sha256, item.prompt)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report


def read_comparisons(
    file: Path | BinaryIO, *, axis: str, axes: Sequence[str], format: str = "auto"
) -> tuple[list[ComparisonItem], ImportReport]:
    """Every vote on a comparison in the file, each once, and what is wrong.

    `axis` is what chosen/rejected and a tree's ranks were judged on; `axes` are those allowed.
    """
    report = ImportReport()
    items: dict[str, ComparisonItem] = {}
    for item in read_items(file, report, axis=axis, axes=axes, shape=format, contents=JUDGMENTS):
        digest = item.digest()
        if digest in items:
            report.n_duplicates += 1
        items.setdefault(digest, item)
    report.examples = list(items.values())[:N_EXAMPLES]
    return list(items.values()), report
