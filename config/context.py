"""Context variables of every template."""

from django.conf import settings
from django.http import HttpRequest

from annotation.lib.mail import sends_mail


def site(request: HttpRequest) -> dict[str, object]:
    """The installation's name, whether strangers may sign up, and whether mail is sent."""
    return {
        "site_name": settings.SITE_NAME,
        "signup_open": settings.SIGNUP_OPEN,
        "sends_mail": sends_mail(),
        "single_sign_on": bool(settings.OIDC_SERVER_URL),
    }
