"""`manage.py withdraw_person PROJECT USER`: none of a person's judgments is used from now on."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.management.commands._versions import project_named
from annotation.models import Snapshot
from annotation.quality.withdrawal import models_trained_on, people_who_judged, withdraw


class Command(BaseCommand):
    help = (
        "Take all judgments of a person out of a project, deprecate the versions that hold them, freeze "
        "one without them, and list the models that were trained on the old ones."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug")
        parser.add_argument("person", metavar="USER", help="user name")
        parser.add_argument("--note", default="", help="for the record")

    def handle(self, *args: Any, **options: Any) -> None:
        project = project_named(options["project"])
        person = people_who_judged(project).filter(username=options["person"]).first()
        if person is None:
            raise CommandError(f"“{options['person']}” judged nothing here.", returncode=2)
        done = withdraw(project, person, None, options["note"])
        self.stdout.write(f"{done.withdrawal.n_judgments:,} judgments are withdrawn.")
        for snapshot, n, models in models_trained_on(done.withdrawal):
            names = ", ".join(str(model) for model in models) or "no model"
            self.stdout.write(f"version {snapshot.version}: {n:,} rows, trained on it: {names}")
        if isinstance(done.made, Snapshot):
            self.stdout.write(f"Version {done.made.version} is frozen without them.")
        elif done.why_none:
            self.stdout.write(f"No version without them was frozen: {done.why_none}")
