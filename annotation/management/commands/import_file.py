"""Import prompts, responses and judgments from a file or a folder of any kind that is read."""

import csv
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data.exports.spreadsheets import escape_formula
from annotation.data.import_formats.items import EVERYTHING, PROMPTS
from annotation.data.import_formats.report import ImportReport, Problem
from annotation.data.import_formats.shapes import SHAPES
from annotation.data.import_preview import REFUSED_COLUMNS
from annotation.data.imports import import_file, import_in_steps
from annotation.lib.process_limits import LimitReached, hold_this_process
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
            "--axis", default="", help="what a preference is about (default: first)"
        )
        parser.add_argument("--contents", choices=[EVERYTHING, PROMPTS], default=EVERYTHING)
        parser.add_argument("--shape", choices=["auto", *SHAPES], default="auto")
        parser.add_argument(
            "--column",
            action="append",
            default=[],
            metavar="NAME=MEANING",
            help="what a column is, such as frage=prompt; NAME= leaves it out",
        )
        parser.add_argument(
            "--good-rows", action="store_true", help="leave refused rows out instead of stopping"
        )
        parser.add_argument("--refused", type=Path, help="write the refused rows to this CSV file")
        parser.add_argument(
            "--in-steps",
            action="store_true",
            help="for large files: write 500 rows at a time, with progress. Started again after it "
            "was stopped, it goes on where it was.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        memory_gib = settings.IMPORT_MAX_MEMORY_GIB
        try:
            hold_this_process(minutes=settings.IMPORT_MAX_MINUTES, memory_gib=memory_gib)
            self._import(options)
        except LimitReached as problem:
            raise CommandError(f"{problem} IMPORT_MAX_MINUTES is the limit.") from problem
        except MemoryError as problem:
            raise CommandError(
                f"It needs more than IMPORT_MAX_MEMORY_GIB ({memory_gib:g}) of memory; try --in-steps."
            ) from problem

    def _import(self, options: dict[str, Any]) -> None:
        columns = {}
        for pair in options["column"]:
            name, separator, meaning = pair.partition("=")
            if not separator:
                raise CommandError(f"--column is NAME=MEANING, not {pair!r}.")
            columns[name] = meaning
        report = ImportReport()
        refused = options["refused"]
        with open(refused or "/dev/null", "w", encoding="utf-8-sig", newline="") as file:  # noqa: PTH123
            writer = csv.writer(file)
            writer.writerow(REFUSED_COLUMNS)

            def keep(problem: Problem) -> None:
                cells = (
                    problem.line or "",
                    problem.file,
                    problem.field,
                    problem.reason,
                    problem.text,
                )
                writer.writerow([escape_formula(str(cell)) for cell in cells])

            report.on_problem = keep
            given: dict[str, Any] = {
                **source_arguments(options),
                "axis": options["axis"],
                "shape": options["shape"],
                "contents": options["contents"],
                "columns": columns,
                "split": options["split"] or "",
                "only_good_rows": options["good_rows"],
                "report": report,
            }
            if options["in_steps"]:
                import_in_steps(**given, on_progress=self._print_progress)
            else:
                import_file(**given)
        if options["good_rows"] and not report.concerns_file and report.n_problems:
            self.stdout.write(f"{report.n_problems:,} refused rows were left out.")
            report.n_problems = 0
        print_report(self, report, "items")

    def _print_progress(self, n_items: int) -> None:
        if n_items % 10_000 == 0:
            self.stdout.write(f"  {n_items:,} items …")
            self.stdout.flush()
