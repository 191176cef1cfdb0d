"""What a token may do: each address of the API asks for one scope, no matter whose token it is.

A token's scopes only narrow what its owner may do in a project (annotation/access.py); they add
nothing. Requests with a session are people at a browser, guarded by CSRF tokens, and have all.
"""

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from annotation.models import ApiToken

Scope = ApiToken.Scope

# By the name of an address; (reading it, anything else). What is not listed is read with `read`, and
# changes with `admin`.
ASKED: dict[str, tuple[Scope, Scope]] = {
    **{
        f"judging_{act}": (Scope.JUDGE, Scope.JUDGE)
        for act in ("next", "undo", "submit", "skip", "draft", "renew", "release")
    },
    **dict.fromkeys(
        (
            "judgments",
            "ratings",
            "demonstrations",
            "quality_votes",
            "snapshot_archive",
            "snapshot_file",
            "snapshot_form",
            "snapshot_diff",
        ),
        (Scope.EXPORT, Scope.ADMIN),
    ),
    "snapshots": (Scope.READ, Scope.WRITE),
    "snapshot_pushes": (Scope.READ, Scope.EXPORT),
    "prompts": (Scope.READ, Scope.WRITE),
    "batches": (Scope.READ, Scope.WRITE),
    "batch_comparisons": (Scope.READ, Scope.WRITE),
    "batch_open": (Scope.READ, Scope.WRITE),
    "batch_close": (Scope.READ, Scope.WRITE),
}


def asked_scope(name: str, method: str) -> Scope:
    """The scope that a request to this address needs."""
    reading, changing = ASKED.get(name, (Scope.READ, Scope.ADMIN))
    return reading if method in SAFE_METHODS else changing


class HasScope(BasePermission):
    """Refuses a token without the scope of the address."""

    message = ""

    def has_permission(self, request: Request, view: Any) -> bool:
        token = request.auth
        if not isinstance(token, ApiToken):
            return True
        match = request.resolver_match
        scope = asked_scope(match.url_name or "" if match else "", request.method or "")
        self.message = f"This token has no scope “{scope}”. Create one that has it."
        return scope in token.scopes
