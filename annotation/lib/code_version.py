"""The version of this code, for the rows that say what made them."""

import functools
import subprocess
from collections.abc import Sequence

from django.conf import settings


@functools.cache
def code_version() -> str:
    """The commit of this code, or the package's version where there is no repository."""
    command: Sequence[str] = ("git", "describe", "--always", "--dirty")
    try:
        described = subprocess.run(
            command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return settings.VERSION
    return described.stdout.strip()[:60] or settings.VERSION
