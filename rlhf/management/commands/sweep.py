"""Sweep for due jobs, lost workers and overdue leases until stopped."""

import signal
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from rlhf.workers import sweeper


class Command(BaseCommand):
    help = "Sweep for due jobs, lost workers and overdue leases every SWEEP_SECONDS."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--once", action="store_true", help="sweep once and print what was done"
        )

    def handle(self, *args: Any, once: bool, **options: Any) -> None:
        if once:
            done = sweeper.sweep()
            self.stdout.write(", ".join(f"{n} {what}" for what, n in done.items()))
            return
        stop = False

        def on_signal(number: int, frame: FrameType | None) -> None:
            nonlocal stop
            stop = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, on_signal)
        sweeper.keep_sweeping(lambda: stop)
