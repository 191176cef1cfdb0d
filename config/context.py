"""What every template may use."""

from django.conf import settings
from django.http import HttpRequest

# Where mail goes without EMAIL_URL, and the others that reach nobody's mailbox.
STAYS_HERE = {
    f"django.core.mail.backends.{kind}.EmailBackend"
    for kind in ("console", "dummy", "filebased", "locmem")
}


def site(request: HttpRequest) -> dict[str, object]:
    """The installation's name, whether a stranger may sign up, and whether mail leaves the machine."""
    return {
        "site_name": settings.SITE_NAME,
        "signup_open": settings.SIGNUP_OPEN,
        "sends_mail": settings.EMAIL_BACKEND not in STAYS_HERE,
    }
