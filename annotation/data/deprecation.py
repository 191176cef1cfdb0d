"""Saying that a version should not be used any more, and why. Its files stay as they are."""

from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.data.snapshot_files import SnapshotError
from annotation.models import Event, Snapshot


def deprecate(snapshot: Snapshot, by: Any, note: str) -> None:
    """Note why a version should not be used; SnapshotError without a reason."""
    note = " ".join(note.split())[:300]
    if not note:
        raise SnapshotError(
            "Say why this version should not be used: everybody who reads it sees it."
        )
    _store(snapshot, by, note, "deprecated data")


def undo_deprecation(snapshot: Snapshot, by: Any) -> None:
    """Take the note away."""
    if snapshot.is_deprecated:
        _store(snapshot, by, "", "took back a deprecation")


def _store(snapshot: Snapshot, by: Any, note: str, verb: str) -> None:
    with transaction.atomic():
        snapshot.deprecation_note = note
        snapshot.deprecated_at = timezone.now() if note else None
        snapshot.deprecated_by = by if note else None
        snapshot.save(update_fields=["deprecation_note", "deprecated_at", "deprecated_by"])
        Event.record(snapshot.project, by, verb, f"version {snapshot.version}", note=note)


def deprecation_sentence(snapshot: Snapshot) -> str:
    """The note as a sentence of its own, with its date; "" for a version without one."""
    if not snapshot.deprecated_at:
        return ""
    return (
        f"Version {snapshot.version} should not be used any more, since "
        f"{snapshot.deprecated_at:%Y-%m-%d}: {snapshot.deprecation_note}"
    )
