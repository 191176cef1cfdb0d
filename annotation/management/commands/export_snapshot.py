"""`manage.py export_snapshot PROJECT VERSION --form NAME FOLDER`: a frozen version in another form."""

import tempfile
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data.export_forms import choices, write_form
from annotation.data.snapshot_files import SnapshotError
from annotation.models import Snapshot


class Command(BaseCommand):
    help = "Write a frozen version in the form of another tool; without --form, list the forms."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("version", type=int)
        parser.add_argument("folder", type=Path, nargs="?", help="must not exist yet")
        parser.add_argument("--form", default="")
        parser.add_argument("--axis", default="", help="default: the first that has rows")

    def handle(self, *args: Any, **options: Any) -> None:
        snapshot = (
            Snapshot.objects.filter(project__slug=options["project"], version=options["version"])
            .select_related("project")
            .first()
        )
        if snapshot is None:
            raise CommandError(
                f"There is no version {options['version']} of “{options['project']}”.", returncode=2
            )
        if not options["form"]:
            for choice in choices(snapshot):
                axes = f" ({', '.join(choice.axes)})" if choice.axes else ""
                self.stdout.write(f"{choice.key:<18}{choice.why_not or choice.form.purpose}{axes}")
            return
        folder: Path | None = options["folder"]
        if folder is None:
            raise CommandError("Name the folder to write to, after the version.", returncode=2)
        if folder.exists():
            raise CommandError(f"{folder} already exists; give another name.", returncode=2)
        self._write(snapshot, folder, options["form"], options["axis"])

    def _write(self, snapshot: Snapshot, folder: Path, form: str, axis: str) -> None:
        try:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as partial:
                written = Path(partial) / "files"
                written.mkdir()
                output = write_form(snapshot, form, axis, written)
                written.rename(folder)
        except SnapshotError as error:
            raise CommandError(str(error), returncode=2) from error
        except OSError as error:
            raise CommandError(f"{folder} can't be written: {error}", returncode=2) from error
        for name, rows in output.rows.items():
            self.stdout.write(f"{folder / name}: {rows} rows")
        for reason, n in output.left_out.items():
            self.stdout.write(f"left out: {n} × {reason}")
