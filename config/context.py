"""What every template may use."""

from django.conf import settings
from django.http import HttpRequest


def site(request: HttpRequest) -> dict[str, object]:
    """The installation's name, and whether a stranger may sign up."""
    return {"site_name": settings.SITE_NAME, "signup_open": settings.SIGNUP_OPEN}
