"""`manage.py person export|erase|inactive`: one person's data, from the command line."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data import personal_data
from annotation.data.personal_data import PersonalDataError
from annotation.models import User


class Command(BaseCommand):
    help = "Export or erase one person's data, or list people who have not signed in for long."

    def add_arguments(self, parser: ArgumentParser) -> None:
        acts = parser.add_subparsers(dest="act", required=True)
        export = acts.add_parser("export", help="everything about a person, as a zip of JSON Lines")
        export.add_argument("name")
        export.add_argument("file", type=Path)
        erase = acts.add_parser(
            "erase", help="erase a person; their judgments stay under a tombstone"
        )
        erase.add_argument("name")
        inactive = acts.add_parser("inactive", help="people who have not signed in for --days")
        inactive.add_argument("--days", type=int, required=True)
        inactive.add_argument("--erase", action="store_true", help="erase them, with --reason")
        for parser_of_act in (erase, inactive):
            parser_of_act.add_argument("--reason", default="", help="kept with the decision")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["act"] == "inactive":
            self._inactive(options)
            return
        user = User.objects.filter(username=options["name"]).first()
        if user is None:
            raise CommandError(f"There is no account “{options['name']}”.", returncode=2)
        if options["act"] == "export":
            with options["file"].open("xb") as file:
                personal_data.export(user, file)
            self.stdout.write(f"{options['file']} written.")
        else:
            self._erase(user, options["reason"])

    def _inactive(self, options: dict[str, Any]) -> None:
        if options["days"] < 1:
            raise CommandError("--days is 1 or more.", returncode=2)
        for user in personal_data.inactive_since(options["days"]):
            if options["erase"]:
                self._erase(user, options["reason"])
            else:
                at = f"{user.last_login:%Y-%m-%d}" if user.last_login else "never"
                self.stdout.write(f"{user.username}\tlast sign-in {at}")

    def _erase(self, user: User, reason: str) -> None:
        if not reason:
            raise CommandError("Give the --reason: it is kept with the decision.", returncode=2)
        name = user.username
        try:
            request = personal_data.erase(user, None, reason)
        except PersonalDataError as problem:
            raise CommandError(str(problem), returncode=1) from problem
        self.stdout.write(
            f"{name} is erased. {request.report['judgments_kept']} judgments stay under a tombstone; "
            f"snapshots that hold some: {', '.join(request.report['snapshots']) or 'none'}."
        )
