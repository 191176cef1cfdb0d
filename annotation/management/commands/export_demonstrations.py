"""`manage.py export_demonstrations PROJECT FILE`: written responses, for the stage `sft`."""

import json
import os
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.models import Project


class Command(BaseCommand):
    help = "Write the responses that people wrote as data/demonstrations.jsonl of a run folder."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("file", type=Path, help="must not exist yet")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            raise CommandError(f"There is no project “{options['project']}”.", returncode=2)
        path: Path = options["file"]
        if path.exists():
            raise CommandError(f"{path} already exists; give another name.", returncode=2)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        count = 0
        try:
            with temporary.open("w", encoding="utf-8") as file:
                for row in demonstrations(project):
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    count += 1
            if not count:
                raise CommandError(
                    f"“{project.slug}” has no written response that training may see.",
                    returncode=2,
                )
            temporary.replace(path)
        except OSError as error:
            raise CommandError(f"{path} can't be written: {error}", returncode=2) from error
        finally:
            temporary.unlink(missing_ok=True)
        self.stdout.write(f"{count} demonstrations written to {path}.")
