"""A frozen version, or a form of one, sent to a hub repository or a bucket by a thread of the server.

First the plan: which files go where. Sending names the plan that was looked at, so that nobody sends what
they have not seen. A token is kept in memory for as long as the thread runs, and nowhere else.
"""

import hashlib
import json
import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from annotation.data.deprecation import deprecation_sentence
from annotation.data.destinations import hub, s3
from annotation.data.destinations.target import Outgoing, SendError, Target, check_allowed
from annotation.data.exporting import files_of, made_or_small
from annotation.data.licences import licence_of
from annotation.data.snapshot_files import SnapshotError, recorded_sha256, snapshot_file
from annotation.data.verification import verify
from annotation.lib.heartbeat import Heartbeat, is_stale
from annotation.lib.security_events import note
from annotation.models import Event, Project, Push, Snapshot

State = Push.State
STALE_AFTER = timedelta(minutes=3)
PROGRESS_SECONDS = 1.0
FAILED = "It could not be sent; the server's log has the reason."
INTERRUPTED = "The server was stopped while it sent this. Send it again: what is there is kept."

log = logging.getLogger(__name__)


class Plan(NamedTuple):
    """What would be sent where. `key` names it."""

    target: str
    is_private: bool
    files: list[Outgoing]
    key: str

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def plan(
    snapshot: Snapshot, target: str, *, form: str = "", axis: str = "", is_private: bool, by: Any
) -> Plan:
    """What would be sent; nothing is, and nobody outside is asked. SendError if it may not be sent."""
    place = check_allowed(target, settings.PUSH_ALLOWED, snapshot.project.slug)
    if snapshot.is_deprecated:
        raise SendError(f"{deprecation_sentence(snapshot)} Send a newer one.")
    if place.kind == "hub" and not is_private:
        _check_sharing(snapshot)
    files = _files(snapshot, form, axis, by)
    content = [target, is_private, [(file.name, file.sha256) for file in files]]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    return Plan(target, is_private, files, key)


def _check_sharing(snapshot: Snapshot) -> None:
    rows = {entry["source"]: licence_of(entry["licence"]) for entry in snapshot.licences}
    if kept := sorted(name for name, row in rows.items() if row and not row.sharing):
        raise SendError(
            f"The license of {', '.join(kept[:3])} does not allow passing texts on: send it private."
        )


def _files(snapshot: Snapshot, form: str, axis: str, by: Any) -> list[Outgoing]:
    if form:
        export = made_or_small(snapshot, form, axis, by=by)
        if export is None:
            raise SendError(
                "This form is large: download it once, so that it is made, then send it."
            )
        recorded = {file["name"]: file for file in export.files}
        paths = files_of(export)
    else:
        paths = [(file["name"], snapshot_file(snapshot, file["name"])) for file in snapshot.files]
        recorded = {
            name: {"bytes": path.stat().st_size, "sha256": recorded_sha256(snapshot, name)}
            for name, path in paths
        }
    return [
        Outgoing(name, str(path), recorded[name]["bytes"], recorded[name]["sha256"])
        for name, path in paths
    ]


def look(chosen: Plan, snapshot: Snapshot, token: str) -> str:
    """What there is at the target now, as one sentence, asked with the token. SendError as it answers."""
    target = _target(chosen.target, snapshot)
    if target.kind == "hub":
        return hub.look(target, token, is_private=chosen.is_private)
    return s3.look(target, chosen.files)


def _target(text: str, snapshot: Snapshot) -> Target:
    return check_allowed(text, settings.PUSH_ALLOWED, snapshot.project.slug)


def start(
    snapshot: Snapshot,
    chosen: Plan,
    *,
    form: str,
    axis: str,
    token: str,
    key: str,
    by: Any,
    in_thread: bool = True,
) -> Push:
    """Record a sending and begin it in a thread, unless the caller calls `send`.

    SendError where it is not the plan that was looked at, and while this version is being sent to the
    same target.
    """
    if key != chosen.key:
        raise SendError("Look at the plan first: what would be sent is not what you saw.")
    if _target(chosen.target, snapshot).kind == "hub" and not token:
        raise SendError("A hub repository is written with your token: give one with write access.")
    with transaction.atomic():
        Project.objects.lock(snapshot.project_id)
        running = [push for push in latest(snapshot) if push.is_writing]
        if any(push.target == chosen.target for push in running):
            raise SendError("This version is being sent there already.")
        push = Push.objects.create(
            snapshot=snapshot,
            form=form,
            axis=axis,
            target=chosen.target,
            is_private=chosen.is_private,
            total=chosen.bytes,
            created_by=by,
        )
        Event.record(
            snapshot.project,
            by,
            "sent data",
            chosen.target,
            snapshot=snapshot.pk,
            form=form,
            is_private=chosen.is_private,
        )
        note("data sent", by, project=snapshot.project.slug, target=chosen.target)
        if in_thread:
            thread = threading.Thread(
                target=_in_thread, args=(push, chosen, token), name="push", daemon=True
            )
            transaction.on_commit(thread.start)
    return push


def latest(snapshot: Snapshot) -> Sequence[Push]:
    """The pushes of a version, the newest first; what died is marked as failed."""
    pushes = list(snapshot.pushes.select_related("created_by")[:20])
    for push in pushes:
        if push.is_writing and is_stale(push.beat_at, STALE_AFTER):
            row = Push.objects.filter(pk=push.pk, state=State.WRITING, beat_at=push.beat_at)
            row.update(state=State.FAILED, reason=INTERRUPTED)
            push.refresh_from_db()
    return pushes


def send(push: Push, chosen: Plan, token: str) -> None:
    """Send a plan; the row says how it ended. A damaged file is not sent."""
    row = Push.objects.filter(pk=push.pk)
    lock, n_sent = threading.Lock(), 0

    def add(n: int) -> None:  # boto3 calls it from several threads
        nonlocal n_sent
        with lock:
            n_sent += n

    heartbeat = Heartbeat(
        lambda: row.update(done=min(n_sent, push.total), beat_at=timezone.now()),
        every=PROGRESS_SECONDS,
        name="push-progress",
    )
    snapshot = push.snapshot
    try:
        with heartbeat:
            if not push.form and (faults := verify(snapshot)):
                raise SendError(
                    f"This version is not as it was frozen: {' '.join(map(str, faults))}"
                )
            target = _target(chosen.target, snapshot)
            if target.kind == "hub":
                url = hub.send(
                    target,
                    chosen.files,
                    token,
                    is_private=chosen.is_private,
                    message=f"Version {snapshot.version}, {snapshot.sha256}",
                    on_progress=add,
                )
            else:
                url = s3.send(target, chosen.files, on_progress=add)
    except SnapshotError as error:
        row.update(state=State.FAILED, reason=str(error)[:300])
    except Exception:
        row.update(state=State.FAILED, reason=FAILED)
        raise
    else:
        row.update(state=State.DONE, done=push.total, url=url[:500])
    push.refresh_from_db()


def _in_thread(push: Push, chosen: Plan, token: str) -> None:
    try:
        send(push, chosen, token)
    except Exception:
        log.exception("A version could not be sent to %s.", push.target)
    finally:
        connection.close()
