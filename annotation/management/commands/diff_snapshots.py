"""`manage.py diff_snapshots PROJECT A B`: what differs between two frozen versions."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data.snapshot_diff import SnapshotDiff, diff
from annotation.management.commands._versions import project_named, version_of


class Command(BaseCommand):
    help = "Compare two frozen versions: rows by their keys, columns, figures and settings."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug")
        parser.add_argument("a", type=int, metavar="VERSION")
        parser.add_argument("b", type=int, metavar="VERSION")
        parser.add_argument(
            "--json", action="store_true", help="with examples of rows, for scripts"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["project"])
        try:
            difference = diff(*(version_of(project, options[name]) for name in ("a", "b")))
        except OSError as error:
            raise CommandError(f"A file is missing: {error.filename}.", returncode=1) from error
        if options["json"]:
            self.stdout.write(json.dumps(difference.as_json(), ensure_ascii=False, indent=1))
        else:
            self._report(difference)

    def _report(self, difference: SnapshotDiff) -> None:
        for table in difference.tables:
            self.stdout.write(
                f"{table.name}: {table.rows_a:,} -> {table.rows_b:,} rows, {table.added:,} added, "
                f"{table.removed:,} removed, {table.changed:,} changed"
            )
            for column in table.columns:
                self.stdout.write(
                    "    column {}: {} -> {}".format(*(part or "–" for part in column))
                )
        for title, changes in (("figures", difference.figures), ("settings", difference.settings)):
            self.stdout.write(f"{title}: {len(changes)} differ")
            for name, before, after in changes:
                self.stdout.write(f"    {name}: {before} -> {after}")
