"""Security events: sign-ins, failures, denials, downloads and the use of tokens.

Written as JSON lines by the handler of the logger "security" (config/security_log.py), apart from a
project's own log, which says who decided what.
"""

import logging
from typing import Any

log = logging.getLogger("security")


def note(kind: str, user: Any = None, **data: Any) -> None:
    """One event. `user` is a row of User or None; `data` must hold no secret and nobody's words."""
    who = {"user": user.pk, "name": user.get_username()} if getattr(user, "pk", None) else {}
    log.info(kind, extra={"event": {**who, **data}})
