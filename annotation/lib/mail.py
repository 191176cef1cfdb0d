"""Mail of the product to people: whether it is sent at all, and without making a request wait."""

import logging
from collections.abc import Callable
from contextvars import copy_context
from threading import Thread

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connections

LOCAL_BACKENDS = {
    f"django.core.mail.backends.{kind}.EmailBackend"
    for kind in ("console", "dummy", "filebased", "locmem")
}
"""Backends that send nothing to a mailbox; the console's is the default without EMAIL_URL."""

log = logging.getLogger(__name__)


def sends_mail() -> bool:
    """Whether mail reaches a mailbox (with EMAIL_URL)."""
    return settings.EMAIL_BACKEND not in LOCAL_BACKENDS


def deliver(message: EmailMessage) -> None:
    """Sends in a thread of its own. Nothing where no mail is set up: links have no place in a log.

    An answer that waited for the mail server would tell who has an account by its duration. A server
    that refuses is one line in the log, and no failure of what the person did.
    """
    if sends_mail():
        in_background(lambda: _send(message))


def in_background(act: Callable[[], object]) -> None:
    """Runs `act` in a thread that knows the request and gives its database connection back."""
    context = copy_context()

    def run() -> None:
        try:
            context.run(act)
        finally:
            connections.close_all()

    Thread(target=run, daemon=True).start()


def _send(message: EmailMessage) -> None:
    try:
        message.send()
    except OSError as problem:  # what smtplib raises is one, too
        log.error("A mail could not be sent: %s", type(problem).__name__)
