"""Import prompts from a file: all of them, or none with a list of what is wrong."""

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data.import_formats.formats import PROMPT_FORMATS
from annotation.data.import_formats.report import ImportReport
from annotation.data.imports import import_prompts
from annotation.models import Project, User


def add_source_arguments(parser: CommandParser) -> None:
    """The arguments of both import commands."""
    parser.add_argument("project", help="the project's short name (its slug)")
    parser.add_argument(
        "file",
        type=Path,
        help="a file (JSON Lines, JSON, CSV, Excel, Parquet, Arrow; gzip, zstd, zip), or a folder",
    )
    parser.add_argument("--source", required=True, help="the dataset's name")
    parser.add_argument("--licence", default="", help="for example Apache-2.0")
    parser.add_argument("--url", default="")
    parser.add_argument("--by", help="username of the person who imports")
    parser.add_argument(
        "--sign-off",
        action="store_true",
        help="the person named by --by read the license and allows training on it",
    )
    parser.add_argument(
        "--split",
        choices=["auto", "train", "eval", "heldout"],
        help="where new prompts go, unless their row says so",
    )


def source_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """project, file and the other arguments of the import; CommandError for what does not exist."""
    project = Project.objects.filter(slug=options["project"]).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
        raise CommandError(f"There is no project {options['project']!r}; there are: {known}.")
    if not options["file"].exists():
        raise CommandError(f"There is no file or folder {options['file']}.")
    person = None
    if options["by"]:
        person = User.objects.filter(username=options["by"]).first()
        if person is None:
            raise CommandError(f"There is no user {options['by']!r}.")
    if options["sign_off"] and person is None:
        raise CommandError("--sign-off needs --by: a source is signed off by a person.")
    return {
        "project": project,
        "file": options["file"],
        "source": {
            "name": options["source"],
            "licence": options["licence"],
            "url": options["url"],
        },
        "by": person,
        "sign_off": options["sign_off"],
    }


def print_report(command: BaseCommand, report: ImportReport, noun: str) -> None:
    """Print the report; CommandError, and so exit code 1, when nothing was imported."""
    if not report.ok:
        for problem in report.problems:
            command.stderr.write(str(problem))
        more = report.n_problems - len(report.problems)
        if more:
            command.stderr.write(f"… and {more} more.")
        raise CommandError(f"Nothing was imported: {report.n_problems} problems.")
    command.stdout.write(
        f"Imported {report.n_imported} {noun} from {report.n_rows} rows "
        f"({report.format_name}) in {report.seconds:.2f} s; {report.n_duplicates} duplicates skipped."
    )
    for remark in report.remarks:
        command.stdout.write(f"  {remark}")
    if report.source and not report.source.is_signed_off:
        command.stdout.write("  The source is not signed off: training does not see it yet.")


class Command(BaseCommand):
    help = __doc__ or ""

    def add_arguments(self, parser: CommandParser) -> None:
        add_source_arguments(parser)
        parser.add_argument("--format", choices=["auto", *PROMPT_FORMATS], default="auto")

    def handle(self, *args: Any, **options: Any) -> None:
        report = import_prompts(
            **source_arguments(options),
            format=options["format"],
            split=options["split"] or "auto",
        )
        print_report(self, report, "prompts")
