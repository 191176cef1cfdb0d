"""List the run folders that nothing needs any more; with --delete, remove them."""

from collections import defaultdict
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat, pluralize

from rlhf import pruning


class Command(BaseCommand):
    help = (
        "List the run folders that nothing needs any more and the space they take; "
        "with --delete, remove them. Models, samples, curves and logs that a page leads to stay."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--days", type=float, default=7.0, help="only work that ended longer ago (default: 7)"
        )
        parser.add_argument("--delete", action="store_true", help="remove them")

    def handle(self, *args: Any, days: float, delete: bool, **options: Any) -> None:
        if not 0 <= days <= 36_500:
            raise CommandError("--days must be between 0 and 36500.")
        unneeded = pruning.unneeded_folders(older_than=timedelta(days=days))
        free = filesizeformat(pruning.freed_bytes(folder.path for folder in unneeded)).replace(
            "\xa0", " "
        )
        reasons: dict[str, list[str]] = defaultdict(list)
        for folder in unneeded:
            reasons[folder.why].append(str(folder.path))
        for why, paths in reasons.items():
            self.stdout.write(f"{why}:")
            for path in paths:
                self.stdout.write(f"  {path}")
        folders = f"{len(unneeded)} folder{pluralize(len(unneeded))}"
        if not unneeded:
            self.stdout.write("Nothing can go: every run folder is needed or too young.")
        elif delete:
            pruning.remove(unneeded)
            self.stdout.write(f"Removed {folders}, which freed {free}.")
        else:
            self.stdout.write(
                f"{folders} can go, which would free {free}. Nothing is removed yet: "
                "say so with --delete."
            )
