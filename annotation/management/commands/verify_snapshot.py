"""`manage.py verify_snapshot PROJECT [VERSION …]`: are the files what was frozen?"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data.verification import verify
from annotation.management.commands._versions import project_named, version_of


class Command(BaseCommand):
    help = (
        "Compute every hash of frozen versions again and compare their record with the database. "
        "Names damaged files; exits with 1 if there are any."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug")
        parser.add_argument("versions", nargs="*", type=int, help="default: all")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["project"])
        versions = [version_of(project, version) for version in options["versions"]]
        n_faults = 0
        for snapshot in versions or project.snapshots.order_by("version"):
            faults = verify(snapshot)
            n_faults += len(faults)
            state = "intact" if not faults else "DAMAGED"
            self.stdout.write(f"version {snapshot.version}: {state}, {len(snapshot.files)} files")
            for fault in faults:
                self.stdout.write(f"    {fault}")
        if n_faults:
            raise CommandError(f"{n_faults} faults were found.", returncode=1)
