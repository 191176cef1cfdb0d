"""`manage.py audit_judgments --acknowledged FILE`: is everything there that clients were told is?"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data.snapshot_files import damaged_files
from annotation.models import Project, Snapshot
from annotation.quality.audit import EXAMPLES, AuditError, audit, read_acknowledged


class Command(BaseCommand):
    help = (
        "Compare the answers that clients had acknowledged with what the database has, and recount "
        "every place and the hashes of frozen files. Ends with 1 if anything is lost, changed, "
        "doubled, over-assigned, miscounted or damaged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--acknowledged",
            type=Path,
            metavar="FILE",
            help="JSON Lines, one confirmed answer each: key, assignment, annotator, ranks",
        )
        parser.add_argument("--project", metavar="SLUG", help="only this project; else all")
        parser.add_argument("--json", action="store_true", help="figures as JSON, for scripts")

    def handle(self, *args: Any, **options: Any) -> None:
        project = None
        if slug := options["project"]:
            project = Project.objects.filter(slug=slug).first()
            if project is None:
                raise CommandError(f"There is no project “{slug}”.", returncode=2)
        path: Path | None = options["acknowledged"]
        try:
            if path is None:
                found = audit(project=project)
            else:
                with path.open(encoding="utf-8") as lines:
                    found = audit(read_acknowledged(lines), project)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} can't be read: {error}", returncode=2) from error
        except AuditError as error:
            raise CommandError(f"{path}: {error}", returncode=2) from error
        versions = Snapshot.objects.all() if project is None else project.snapshots.all()
        found.damaged += [
            f"{name} of version {one.version} of {one.project} is missing or was changed."
            for one in versions.select_related("project")
            for name in damaged_files(one)
        ]
        if options["json"]:
            self.stdout.write(json.dumps(found.as_dict()))
        else:
            self._report(found, compared=path is not None)
        if found.faults:
            raise CommandError(f"{found.faults} faults were found.", returncode=1)

    def _report(self, found: Any, *, compared: bool) -> None:
        figures = [("judgments in the database", found.judgments), ("extras", found.extras)]
        if compared:
            figures = [
                ("acknowledged by the server", found.acknowledged),
                *figures,
                ("stored, but the reply never arrived", found.unacknowledged),
            ]
        for name, n in figures:
            self.stdout.write(f"{name:<40}{n:>10,}")
        for name, sentences in found.findings():
            if not compared and name in ("lost", "changed", "doubled"):
                continue
            self.stdout.write(f"{name:<40}{len(sentences):>10,}")
            for sentence in sentences[:EXAMPLES]:
                self.stdout.write(f"    {sentence}")
            if len(sentences) > EXAMPLES:
                self.stdout.write(f"    and {len(sentences) - EXAMPLES:,} more")
