"""The log of a public installation has what failed and where, and nobody's words."""

import logging
import os
import subprocess
import sys

import pytest

from config.private_log import Lines, PrivateLines

WORDS = "my doctor said that I"


def record_of(failing):
    try:
        failing()
    except (RuntimeError, ValueError):
        logger = logging.getLogger("test")
        return logger.makeRecord("test", 40, __file__, 1, "Failed %s", ("a job",), sys.exc_info())


def refused_row():
    raise ValueError(f"Failing row contains (7, {WORDS})")


def chained():
    try:
        refused_row()
    except ValueError as error:
        raise RuntimeError(f"while storing {WORDS}") from error


def test_messages_of_exceptions_are_withheld_and_places_are_not():
    record = record_of(chained)
    record.exc_text = f"what another handler wrote: {WORDS}"
    line = PrivateLines("%(message)s").format(record)
    assert WORDS not in line
    for part in (
        "Failed a job",
        "ValueError",
        "RuntimeError",
        "refused_row",
        "test_private_log.py",
    ):
        assert part in line
    assert not record.exc_text
    assert WORDS in Lines("%(message)s").format(record)


@pytest.mark.parametrize("kind", [Lines, PrivateLines])
def test_a_link_that_lets_in_is_never_logged(kind):
    for path in ("/invitations/s3cret/", "/accounts/password/reset/key/s3cret-part/"):
        record = logging.makeLogRecord({"msg": "Not Found: %s", "args": (path,)})
        assert "s3cret" not in kind("%(message)s").format(record)


@pytest.mark.parametrize(("hosts", "withheld"), [("localhost", False), ("lab.example", True)])
def test_a_public_installation_withholds_and_a_laptop_shows(hosts, withheld, tmp_path):
    code = (
        "import django, logging; django.setup()\n"
        "try: raise ValueError('words of ada')\n"
        "except ValueError: logging.getLogger('django.request').exception('failed')"
    )
    environment = {
        **os.environ,
        "GROUND_CONTROL_DATA": str(tmp_path),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "ALLOWED_HOSTS": hosts,
        "HTTPS": "1",
    }
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "ValueError" in ended.stderr
    assert ("words of ada" not in ended.stderr) == withheld
