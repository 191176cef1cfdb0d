"""A configuration that would give passwords or accounts away does not start; a laptop's does."""

import os
import subprocess
import sys

import pytest

from config.checks import safe_configuration


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({}, []),
        ({"SIGNUP_OPEN": True}, []),
        ({"ALLOWED_HOSTS": ["lab.example"]}, ["E001"]),
        ({"ALLOWED_HOSTS": ["*"]}, ["E001"]),
        ({"ALLOWED_HOSTS": ["lab.example"], "HTTPS": True}, []),
        ({"ALLOWED_HOSTS": ["lab.example"], "HTTPS": True, "SIGNUP_OPEN": True}, ["E002"]),
        (
            {
                "ALLOWED_HOSTS": ["lab.example"],
                "HTTPS": True,
                "SIGNUP_OPEN": True,
                "ACCOUNT_EMAIL_VERIFICATION": "mandatory",
            },
            [],
        ),
        ({"ALLOWED_HOSTS": ["lab.example"], "HTTPS": True, "DEBUG": True}, ["E003"]),
        ({"ALLOWED_HOSTS": ["lab.example"], "HTTPS": True, "SECRET_KEY": "short"}, ["E004"]),
        ({"ALLOWED_HOSTS": ["lab.example"], "UNSAFE": True}, []),
    ],
)
def test_what_is_refused(settings, changes, numbers):
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    for name, value in changes.items():
        setattr(settings, name, value)
    assert [problem.id[-4:] for problem in safe_configuration()] == numbers


@pytest.mark.parametrize("command", [["manage.py", "check"], ["-c", "import config.wsgi"]])
def test_neither_a_command_nor_the_web_server_starts_it(tmp_path, command):
    environment = {
        **os.environ,
        "GROUND_CONTROL_DATA": str(tmp_path),
        "ALLOWED_HOSTS": "lab.example",
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    ended = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert "HTTPS=1" in ended.stderr
