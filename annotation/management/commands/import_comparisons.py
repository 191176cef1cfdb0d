"""Import comparisons with their judgments from a file, as a closed batch."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from annotation.data.import_formats.formats import COMPARISON_FORMATS
from annotation.data.imports import import_comparisons
from annotation.management.commands.import_prompts import (
    add_source_arguments,
    print_report,
    source_arguments,
)


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: CommandParser) -> None:
        add_source_arguments(parser)
        parser.add_argument(
            "--axis", required=True, help="what chosen/rejected and ranks were judged on"
        )
        parser.add_argument("--format", choices=["auto", *COMPARISON_FORMATS], default="auto")

    def handle(self, *args: Any, **options: Any) -> None:
        report = import_comparisons(
            **source_arguments(options),
            axis=options["axis"],
            format=options["format"],
            split=options["split"] or "train",
        )
        print_report(self, report, "comparisons")
