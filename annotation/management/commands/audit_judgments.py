"""`manage.py audit_judgments --acknowledged FILE`: is every acknowledged answer in the database?"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data.verification import verify
from annotation.models import Project, Snapshot
from annotation.quality.audit import EXAMPLES, Audit, AuditError, audit, read_acknowledged


class Command(BaseCommand):
    help = (
        "Compare acknowledged answers with the database, recount every place and check the hashes "
        "of frozen files. Exits with 1 if anything is lost, changed, doubled, over-assigned, "
        "miscounted or damaged."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--acknowledged",
            type=Path,
            metavar="FILE",
            help="JSON Lines, one acknowledged answer each: key, assignment, annotator, ranks",
        )
        parser.add_argument("--project", metavar="SLUG", help="only this project; default: all")
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
                result = audit(project=project)
            else:
                with path.open(encoding="utf-8") as lines:
                    result = audit(read_acknowledged(lines), project)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} can't be read: {error}", returncode=2) from error
        except AuditError as error:
            raise CommandError(f"{path}: {error}", returncode=2) from error
        versions = Snapshot.objects.all() if project is None else project.snapshots.all()
        result.damaged += [
            f"{version.project}, version {version.version}: {fault}"
            for version in versions.select_related("project")
            for fault in verify(version)
        ]
        if options["json"]:
            self.stdout.write(json.dumps(result.as_dict()))
        else:
            self._report(result, compared=path is not None)
        if result.faults:
            raise CommandError(f"{result.faults} faults were found.", returncode=1)

    def _report(self, result: Audit, *, compared: bool) -> None:
        counts = [("judgments in the database", result.judgments), ("extras", result.extras)]
        if compared:
            counts = [
                ("acknowledged by the server", result.acknowledged),
                *counts,
                ("stored, but the reply never arrived", result.unacknowledged),
            ]
        for name, n in counts:
            self.stdout.write(f"{name:<40}{n:>10,}")
        for name, sentences in result.findings():
            if not compared and name in ("lost", "changed", "doubled"):
                continue
            self.stdout.write(f"{name:<40}{len(sentences):>10,}")
            for sentence in sentences[:EXAMPLES]:
                self.stdout.write(f"    {sentence}")
            if len(sentences) > EXAMPLES:
                self.stdout.write(f"    and {len(sentences) - EXAMPLES:,} more")
