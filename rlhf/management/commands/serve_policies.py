"""Start and stop the servers of policies that people talk to, as the pages ask."""

from typing import Any

from django.core.management.base import BaseCommand

from rlhf.serving.keeper import run_keeper


class Command(BaseCommand):
    help = "Keep the policies that people talk to running, until Ctrl-C."

    def handle(self, *args: Any, **options: Any) -> None:
        run_keeper(self.stderr.write)
