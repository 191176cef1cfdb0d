"""A mailbox: a backend that counts as one that sends, and the messages that reached it."""

import time

from django.core.mail.backends.base import BaseEmailBackend

messages = []
NAME = "tests.mailbox.Mailbox"


class Mailbox(BaseEmailBackend):
    def send_messages(self, email_messages):
        messages.extend(email_messages)
        return len(email_messages)


def wait_for(n, seconds=5.0):
    """The messages once there are `n` of them: each is sent by a thread of its own."""
    end = time.monotonic() + seconds
    while len(messages) < n and time.monotonic() < end:
        time.sleep(0.01)
    return list(messages)
