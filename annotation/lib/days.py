"""The day of limits and of daily figures: the server's, whatever zone a browser says it is in."""

from datetime import datetime

from django.utils import timezone


def last_midnight() -> datetime:
    """When the day began on the server (setting TIME_ZONE). A browser's zone would move a limit."""
    now = timezone.localtime(timezone=timezone.get_default_timezone())
    return now.replace(hour=0, minute=0, second=0, microsecond=0)
