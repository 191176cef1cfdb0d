"""The log of security events, as JSON lines; and the request id in every log line.

One file a day in `security/` of the data folder, kept for SECURITY_LOG_DAYS. Appended in one write, so
that several processes share a file. `manage.py security_events` prints them.
"""

import json
import logging
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from allauth.account.signals import user_logged_in
from django.contrib.auth.signals import user_logged_out, user_login_failed
from django.dispatch import receiver
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from annotation.lib.request_context import RequestContext, current
from annotation.lib.security_events import note

DENIED = (401, 403, 429)
DOWNLOADS = {
    "snapshot_download",
    "snapshot_archive",
    "snapshot_form",
    "source_document",
    "my_data_download",
    "metrics_csv",
    "panel_csv",
    "api:judgments",
    "api:ratings",
    "api:demonstrations",
    "api:quality_votes",
    "api:snapshot_archive",
    "api:snapshot_file",
    "api:snapshot_form",
}
"""Addresses by which data leaves."""


class DailyJsonLines(logging.Handler):
    """Appends to `folder/2026-11-30.jsonl`, and deletes files of more than `days` ago."""

    def __init__(self, folder: str, days: int) -> None:
        super().__init__()
        self.folder, self.days, self.swept = Path(folder), days, ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            at = datetime.fromtimestamp(record.created, UTC)
            self._append(f"{at:%Y-%m-%d}", as_line(record, at))
        except OSError:
            self.handleError(record)

    def _append(self, day: str, line: bytes) -> None:
        path = self.folder / f"{day}.jsonl"
        if self.swept != day:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._sweep(day)
            self.swept = day
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)

    def _sweep(self, day: str) -> None:
        oldest = datetime.fromisoformat(day) - timedelta(days=self.days)
        for path in self.folder.glob("????-??-??.jsonl"):
            if path.stem < f"{oldest:%Y-%m-%d}":
                path.unlink(missing_ok=True)


def as_line(record: logging.LogRecord, at: datetime) -> bytes:
    """`{"at", "event", "address", "request", …}` of a record of the logger "security"."""
    request = current.get()
    row = {
        "at": at.isoformat(timespec="milliseconds"),
        "event": record.getMessage(),
        "address": request.address,
        "request": request.id,
        **getattr(record, "event", {}),
    }
    return json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"


class AddRequest(logging.Filter):
    """Gives each record the `request` that is being answered, "-" outside of one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = current.get().id or "-"
        return True


def request_ids(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware: a random id for each request; denials and downloads become security events."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request_id = secrets.token_hex(8)
        token = current.set(RequestContext(request_id, request.META.get("REMOTE_ADDR", "")))
        try:
            response = get_response(request)
            response["X-Request-Id"] = request_id
            _note_outcome(request, response)
            return response
        finally:
            current.reset(token)

    return middleware


def _note_outcome(request: HttpRequest, response: HttpResponseBase) -> None:
    match = request.resolver_match
    name = match.view_name if match else ""
    if response.status_code in DENIED:
        kind = "denied"
    elif name in DOWNLOADS and response.status_code in (200, 206):
        kind = "download"
    else:
        return
    user = getattr(request, "user", None)
    data = {"page": name, "project": (match.kwargs if match else {}).get("slug", "")}
    # A token's owner is known to the API alone, which notes its use (annotation/tokens.py).
    note(kind, user, status=response.status_code, method=request.method, **data)


@receiver(user_logged_in)
def _signed_in(sender: Any, user: Any, **_: Any) -> None:
    note("signed in", user)


@receiver(user_logged_out)
def _signed_out(sender: Any, user: Any, **_: Any) -> None:
    note("signed out", user)


@receiver(user_login_failed)
def _failed(sender: Any, credentials: Any, **_: Any) -> None:
    # Not the name that was typed: people type passwords into that field.
    note("sign-in failed", by="e-mail" if "email" in credentials else "name")
