"""`manage.py push_snapshot PROJECT VERSION TARGET`: send a frozen version; without --send, say what."""

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data import pushing
from annotation.data.snapshot_files import SnapshotError
from annotation.models import Push, Snapshot


class Command(BaseCommand):
    help = (
        "Send a frozen version to a hub repository or a bucket. A dry run unless --send is given."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", metavar="SLUG")
        parser.add_argument("version", type=int)
        parser.add_argument("target", help="hf://datasets/ORGANIZATION/NAME or s3://BUCKET/PREFIX/")
        parser.add_argument("--form", default="", help="default: the version as it was frozen")
        parser.add_argument("--axis", default="")
        parser.add_argument("--public", action="store_true")
        parser.add_argument(
            "--send", action="store_true", help="a hub's token is read from HF_TOKEN"
        )

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
        token = os.environ.get("HF_TOKEN", "")
        form, axis = options["form"], options["axis"]
        try:
            chosen = pushing.plan(
                snapshot,
                options["target"],
                form=form,
                axis=axis,
                is_private=not options["public"],
                by=None,
            )
            for file in chosen.files:
                self.stdout.write(f"{file.bytes:>14,}  {file.name}")
            self.stdout.write(f"{chosen.bytes:>14,}  bytes to {chosen.target}")
            self.stdout.write(pushing.look(chosen, snapshot, token))
            if not options["send"]:
                self.stdout.write("Nothing was sent: a dry run. --send sends it.")
                return
            push = pushing.start(
                snapshot, chosen, form=form, axis=axis, token=token, key=chosen.key, by=None,
                in_thread=False,
            )  # fmt: skip
        except SnapshotError as error:
            raise CommandError(str(error), returncode=2) from error
        pushing.send(push, chosen, token)
        if push.state == Push.State.FAILED:
            raise CommandError(push.reason)
        self.stdout.write(f"Sent: {push.url}")
