"""Starting and stopping served policies, and their health.

An admin sets the desired state in a `PolicyServer` row; a `Keeper` (in `manage.py serve_policies`)
starts and stops the processes accordingly.
"""

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from annotation.lib.heartbeat import is_stale
from annotation.models import Event, Project, User
from rlhf.models import Checkpoint, PolicyServer
from rlhf.serving.client import ServingError

State = PolicyServer.State

SILENT_AFTER = timedelta(seconds=10)
"""The keeper counts as dead if its last heartbeat is older than this."""


def start_serving(checkpoint: Checkpoint, by: User | None) -> PolicyServer:
    """Request that this policy is served; a keeper starts the process within about two seconds."""
    if checkpoint.kind != Checkpoint.Kind.POLICY:
        raise ServingError(f"{checkpoint} is a {checkpoint.get_kind_display()}, not a policy.")
    with transaction.atomic():
        server, _ = PolicyServer.objects.select_for_update().get_or_create(checkpoint=checkpoint)
        others = PolicyServer.objects.filter(is_wanted=True).exclude(pk=server.pk).count()
        if others >= settings.POLICY_SERVERS_MAX:
            raise ServingError(
                f"{others} policies are served already, and POLICY_SERVERS_MAX is "
                f"{settings.POLICY_SERVERS_MAX}; stop one first."
            )
        if server.is_wanted and server.state != State.FAILED:
            return server
        server.is_wanted, server.sleeps, server.starts = True, False, 0
        server.wanted_at = server.used_at = timezone.now()
        if server.state == State.FAILED:
            server.state, server.owner = State.OFF, ""
        server.reason = ""
        server.save()
        Event.record(checkpoint.project, by, "started serving", checkpoint)
    return server


def stop_serving(checkpoint: Checkpoint, by: User | None) -> None:
    """Stop serving this policy."""
    with transaction.atomic():
        stopped = PolicyServer.objects.filter(checkpoint=checkpoint, is_wanted=True).update(
            is_wanted=False, sleeps=False
        )
        if stopped:
            Event.record(checkpoint.project, by, "stopped serving", checkpoint)


def wake(server: PolicyServer) -> bool:
    """Request that a sleeping policy is served again; False at the limit POLICY_SERVERS_MAX."""
    if PolicyServer.objects.filter(is_wanted=True).count() >= settings.POLICY_SERVERS_MAX:
        return False
    now = timezone.now()
    PolicyServer.objects.filter(pk=server.pk, sleeps=True).update(
        is_wanted=True, sleeps=False, starts=0, wanted_at=now, used_at=now
    )
    return True


def find_server(project: Project, uid: str) -> PolicyServer | None:
    """The server of the project's policy of this uid."""
    servers = PolicyServer.objects.select_related("checkpoint")
    try:
        return servers.filter(checkpoint__uid=uid, checkpoint__project=project).first()
    except (ValueError, ValidationError):  # not a uid at all
        return None


@dataclass(frozen=True)
class Health:
    """A server's state with a sentence for an admin."""

    state: str
    """off, starting, ready, failed, gone or asleep."""
    sentence: str

    @property
    def badge(self) -> str:
        return {"ready": "go", "starting": "live", "failed": "no-go", "gone": "no-go"}.get(
            self.state, ""
        )

    @property
    def can_stop(self) -> bool:
        return self.state in ("starting", "ready", "gone", "asleep")


def health(server: PolicyServer | None) -> Health:
    """The server's health; `server` is None for a policy that was never served."""
    if server is None:
        return Health("off", "Not served.")
    now = timezone.now()
    silent = is_stale(server.seen_at, SILENT_AFTER)
    if server.state == State.FAILED:
        return Health("failed", server.reason)
    if server.sleeps:
        return Health("asleep", "Stopped because nobody used it; the next dialogue wakes it.")
    if not server.is_wanted:
        if server.state == State.OFF or silent:
            return Health("off", "Not served.")
        return Health("starting", "Stopping.")
    if silent and is_stale(server.wanted_at, SILENT_AFTER):
        return Health(
            "gone",
            "No keeper runs it: start manage.py serve_policies (manage.py supervise includes it).",
        )
    if server.state == State.READY and not silent:
        return Health("ready", f"Ready to answer. {server.reason}".strip())
    since = (now - (server.started_at or server.wanted_at)).total_seconds()
    waited = f" for {since:.0f} s" if since < 3600 else ""
    why = f" {server.reason}" if server.reason else ""
    return Health("starting", f"The model is being loaded and warmed up{waited}.{why}")
