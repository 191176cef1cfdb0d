"""Context variables of every template."""

from django.conf import settings
from django.http import HttpRequest

# Backends that send nothing to a mailbox; the console's is the default without EMAIL_URL.
LOCAL_EMAIL_BACKENDS = {
    f"django.core.mail.backends.{kind}.EmailBackend"
    for kind in ("console", "dummy", "filebased", "locmem")
}


def sends_mail() -> bool:
    """Whether mail reaches a mailbox (with EMAIL_URL)."""
    return settings.EMAIL_BACKEND not in LOCAL_EMAIL_BACKENDS


def site(request: HttpRequest) -> dict[str, object]:
    """The installation's name, whether strangers may sign up, and whether mail is sent."""
    return {
        "site_name": settings.SITE_NAME,
        "signup_open": settings.SIGNUP_OPEN,
        "sends_mail": sends_mail(),
        "single_sign_on": bool(settings.OIDC_SERVER_URL),
    }
