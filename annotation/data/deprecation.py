"""Saying that a version should not be used any more, and why. Its files stay as they are.

The card that is downloaded, on its own, in the zip or by a push to a hub, has the note in front.
"""

import re
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.data.exporting import forget
from annotation.data.exports.forms import ARCHIVE
from annotation.data.snapshot_files import CARD, SUMS, SnapshotError, noted_card
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


def _write_card(snapshot: Snapshot) -> None:
    """Write the card with the note for downloads, or delete it.

    Versions of the first format have the card in SHA256SUMS: theirs stays as it is.
    """
    card, sums = noted_card(snapshot), snapshot.folder / SUMS
    if not snapshot.is_deprecated:
        card.unlink(missing_ok=True)
    elif sums.is_file() and f"  {CARD}\n" not in sums.read_text(encoding="utf-8"):
        start, front, text = snapshot.card.split("---\n", 2)
        note = f"> **Deprecated.** {as_markdown(deprecation_sentence(snapshot))}"
        card.parent.mkdir(exist_ok=True)
        card.write_text("---\n".join((start, front, f"\n{note}\n{text}")), encoding="utf-8")
    forget(snapshot, ARCHIVE)


def as_markdown(text: str) -> str:
    """Text in which nothing is a link, markup or another paragraph."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _store(snapshot: Snapshot, by: Any, note: str, verb: str) -> None:
    with transaction.atomic():
        snapshot.deprecation_note = note
        snapshot.deprecated_at = timezone.now() if note else None
        snapshot.deprecated_by = by if note else None
        snapshot.save(update_fields=["deprecation_note", "deprecated_at", "deprecated_by"])
        Event.record(snapshot.project, by, verb, f"version {snapshot.version}", note=note)
    _write_card(snapshot)


def deprecation_sentence(snapshot: Snapshot) -> str:
    """The note as a sentence of its own, with its date; "" for a version without one."""
    if not snapshot.deprecated_at:
        return ""
    return (
        f"Version {snapshot.version} should not be used any more, since "
        f"{snapshot.deprecated_at:%Y-%m-%d}: {snapshot.deprecation_note}"
    )
