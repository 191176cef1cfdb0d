"""Configurations that must not meet the internet: refused at the start, each in one sentence.

Django runs these checks before every command but few, and the web server before its first request
(config/wsgi.py). A laptop on localhost passes them with nothing set.
"""

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

LOCAL_HOSTS = {"localhost", "127.0.0.1", "[::1]", "testserver"}


def is_public() -> bool:
    """Whether the installation answers to a name that other machines may use."""
    return bool(set(settings.ALLOWED_HOSTS) - LOCAL_HOSTS)


@register(Tags.security)
def safe_configuration(app_configs: Any = None, **_: Any) -> list[CheckMessage]:
    """Why this configuration is refused; UNSAFE=1 starts it all the same, for a network of one's own."""
    if settings.UNSAFE:
        return []
    return [Error(text, id=f"ground_control.E{number:03}") for number, text in _problems()]


def _problems() -> list[tuple[int, str]]:
    problems = []
    if is_public() and not settings.HTTPS:
        hosts = ", ".join(sorted(set(settings.ALLOWED_HOSTS) - LOCAL_HOSTS))
        problems.append(
            (
                1,
                (
                    f"ALLOWED_HOSTS has {hosts}, and passwords would travel readable: put a proxy with "
                    "HTTPS in front and set HTTPS=1, or UNSAFE=1 in a network that you trust."
                ),
            )
        )
    if settings.SIGNUP_OPEN and is_public() and settings.ACCOUNT_EMAIL_VERIFICATION != "mandatory":
        problems.append(
            (
                2,
                (
                    "SIGNUP_OPEN lets strangers open accounts with anybody's address: set "
                    "ACCOUNT_EMAIL_VERIFICATION=mandatory and EMAIL_URL."
                ),
            )
        )
    if settings.DEBUG and is_public():
        problems.append((3, "DEBUG shows settings and code to visitors: leave it off."))
    if is_public() and len(settings.SECRET_KEY) < 32:
        problems.append((4, "SECRET_KEY is short: use at least 32 random characters, or none."))
    if settings.REQUIRE_MFA not in ("nobody", "admins", "everybody"):
        problems.append(
            (5, f"REQUIRE_MFA is nobody, admins or everybody, not “{settings.REQUIRE_MFA}”.")
        )
    if is_public() and settings.OIDC_SERVER_URL.startswith("http:"):
        problems.append((6, "OIDC_SERVER_URL without HTTPS lets anybody sign in: use https://."))
    return problems
