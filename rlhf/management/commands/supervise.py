"""Web server, workers and sweeper on one machine, in one process that stops all of them."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from rlhf.workers.supervisor import PortBusy, Supervisor, web_server, workers_and_sweeper


class Command(BaseCommand):
    help = "Run the web server, the workers and the sweeper until Ctrl-C."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
        parser.add_argument("--port", type=int, default=8000, help="port to listen on")
        parser.add_argument("--no-web", action="store_true", help="workers and sweeper only")

    def handle(self, *args: Any, host: str, port: int, no_web: bool, **options: Any) -> None:
        children = workers_and_sweeper()
        if not no_web:
            try:
                children.insert(0, web_server(host, port))
            except PortBusy as error:
                raise CommandError(str(error)) from None
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        Supervisor(
            children,
            settings.BASE_DIR,
            grace=settings.JOB_STOP_GRACE_SECONDS + 10,
            on_restart=self.stderr.write,
        ).run()
