"""`manage.py security_events`: the security events as JSON lines, oldest first."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Print the security events that are kept, one JSON object a line, for a log collector."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--since", default="", metavar="2026-11-30", help="from this day (UTC)")

    def handle(self, *args: Any, since: str, **options: Any) -> None:
        for path in sorted(Path(settings.SECURITY_LOG_DIR).glob("*.jsonl")):
            if path.stem >= since:
                with path.open(encoding="utf-8", errors="replace") as file:
                    sys.stdout.writelines(file)
