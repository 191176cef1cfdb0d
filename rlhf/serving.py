"""Policies that answer people live, through an OpenAI-compatible server that already exists.

Embedded: `transformers serve` with continuous batching (`rlhf/training/serve.py`), started and
stopped here, one process for each policy, on the loopback address only. In production: any server at
POLICY_SERVER_URL (vLLM). The rest of the product meets both through `annotation/judge/candidates.py`.

A `PolicyServer` row says what is wanted; a `Keeper` (in `manage.py serve_policies`) makes it so.
"""

import http.client
import json
import logging
import os
import random
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.judge.candidates import CandidateError, Serving, Told, Writer
from annotation.models import DialogueCampaign, Event, Message, Project, User
from rlhf import processes
from rlhf.models import Checkpoint, PolicyServer
from rlhf.training.rundir.files import write_json

State = PolicyServer.State
log = logging.getLogger(__name__)

HOST = "127.0.0.1"
ANSWER_SECONDS = 60.0
"""Longest silence of a server while it answers."""
BEAT_SECONDS, SILENT_SECONDS = 1.0, 10.0
STARTS = 3
"""How often a server that dies is started again before it counts as failed."""
EXTERNAL = "external:"
IN_TURN = "This model can't write two answers side by side: the second follows the first."

BUSY = gettext_noop(
    "The policy can't be reached just now. Your message is kept: ask again in a moment."
)
BROKE_OFF = gettext_noop(
    "The policy stopped in the middle of its answer. Your message is kept: ask again."
)
TOO_LONG = gettext_noop("The conversation is too long for this policy: end it, then begin another.")


class ServingError(Exception):
    """What can't be served, in one sentence for a person."""


# --- Acts of an admin ---------------------------------------------------------------------------


def want(checkpoint: Checkpoint, by: User | None) -> PolicyServer:
    """Have this policy served from now on; a keeper starts it within a second or two."""
    if checkpoint.kind != Checkpoint.Kind.POLICY:
        raise ServingError(f"{checkpoint} is a {checkpoint.get_kind_display()}, not a policy.")
    with transaction.atomic():
        server, _ = PolicyServer.objects.select_for_update().get_or_create(checkpoint=checkpoint)
        others = PolicyServer.objects.filter(is_wanted=True).exclude(pk=server.pk).count()
        if others >= settings.POLICY_SERVERS_MAX:
            raise ServingError(
                f"{others} policies are served already, as many as POLICY_SERVERS_MAX allows; "
                "stop one first."
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


def unwant(checkpoint: Checkpoint, by: User | None) -> None:
    """Stop serving this policy."""
    with transaction.atomic():
        stopped = PolicyServer.objects.filter(checkpoint=checkpoint, is_wanted=True).update(
            is_wanted=False, sleeps=False
        )
        if stopped:
            Event.record(checkpoint.project, by, "stopped serving", checkpoint)


# --- How a server is ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Health:
    """How a server is, for an admin."""

    state: str
    """off, starting, ready, failed, gone or asleep."""
    sentence: str

    @property
    def badge(self) -> str:
        return {"ready": "go", "starting": "live", "failed": "no-go", "gone": "no-go"}.get(
            self.state, ""
        )


def health(server: PolicyServer | None) -> Health:
    """What a person should know about a server, and do about it."""
    if server is None:
        return Health("off", "Not served.")
    now = timezone.now()
    silent = server.seen_at is None or server.seen_at < now - timedelta(seconds=SILENT_SECONDS)
    if server.state == State.FAILED:
        return Health("failed", server.reason)
    if server.sleeps:
        return Health("asleep", "Stopped because nobody used it; the next dialogue wakes it.")
    if not server.is_wanted:
        if server.state == State.OFF or silent:
            return Health("off", "Not served.")
        return Health("starting", "It is being stopped.")
    if silent and server.wanted_at < now - timedelta(seconds=SILENT_SECONDS):
        return Health(
            "gone",
            "Nothing keeps it running: start manage.py serve_policies (manage.py supervise does).",
        )
    if server.state == State.READY and not silent:
        return Health("ready", f"It answers. {server.reason}".strip())
    since = (now - (server.started_at or server.wanted_at)).total_seconds()
    waited = f" for {since:.0f} s" if since < 3600 else ""
    why = f" {server.reason}" if server.reason else ""
    return Health("starting", f"The model is being loaded and warmed up{waited}.{why}")


def external_models() -> list[str]:
    """What the server at POLICY_SERVER_URL serves; ServingError if it can't be asked."""
    if not settings.POLICY_SERVER_URL:
        return []
    key = "serving:external"
    found: list[str] | str | None = cache.get(key)
    if found is None:
        try:
            with closing(_connect(settings.POLICY_SERVER_URL, timeout=5.0)) as link:
                link.request("GET", _path(settings.POLICY_SERVER_URL, "/models"), headers=_keys())
                answer = link.getresponse()
                data = json.loads(answer.read(1_000_000))
            if answer.status != 200:
                raise ValueError(f"it answered {answer.status}")
            found = [str(one["id"]) for one in data["data"]]
        except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException) as error:
            log.warning("POLICY_SERVER_URL does not answer: %s", error)
            found = f"The server at POLICY_SERVER_URL does not answer as it should: {error}."
        cache.set(key, found, 5)
    if isinstance(found, str):
        raise ServingError(found)
    return found


# --- The seam: annotation asks, this answers ---------------------------------------------------------


class PolicyCandidates:
    """Candidates of live dialogues, from the policies that a campaign names."""

    def serving(self, campaign: DialogueCampaign) -> Serving:
        names = list(campaign.writing.get("policies", []))
        states = [self._one(campaign.batch.project, name) for name in names]
        if not states:
            return Serving("off", _("No policy was chosen for this campaign; ask an admin."))
        # All have to be there: if one were left out, those that answer would be known.
        for state, sentence in (
            ("failed", _("A policy could not be started. An admin can see why; try again later.")),
            ("gone", _("The policy has gone. An admin can bring it back; your words are kept.")),
            ("off", _("The policy is switched off at the moment; ask an admin.")),
            ("starting", _("The policy is being loaded. You can write; sending waits for it.")),
        ):
            if state in states:
                return Serving(state, sentence)  # type: ignore[arg-type]
        return Serving("ready")

    def _one(self, project: Project, name: str) -> str:
        if name.startswith(EXTERNAL):
            try:
                return "ready" if name.removeprefix(EXTERNAL) in external_models() else "off"
            except ServingError:
                return "gone"
        server = server_of(project, name)
        if server is None:
            return "off"
        if server.sleeps:
            return "starting" if self._wake(server) else "off"
        return health(server).state

    def _wake(self, server: PolicyServer) -> bool:
        """Have a sleeping policy served again, if as many as may be are not served already."""
        if PolicyServer.objects.filter(is_wanted=True).count() >= settings.POLICY_SERVERS_MAX:
            return False
        now = timezone.now()
        PolicyServer.objects.filter(pk=server.pk, sleeps=True).update(
            is_wanted=True, sleeps=False, starts=0, wanted_at=now, used_at=now
        )
        return True

    def writers(self, campaign: DialogueCampaign, n: int) -> list[Writer]:
        """Different policies first, then different temperatures: what differs can be compared."""
        writing = campaign.writing
        policies = list(writing.get("policies", []))
        if not policies:
            raise CandidateError(_("No policy was chosen for this campaign; ask an admin."))
        chance = random.SystemRandom()
        chosen = _drawn(policies, n, chance)
        temperatures = _drawn(list(writing.get("temperatures") or [1.0]), n, chance)
        length = int(writing.get("max_new_tokens", 128))
        return [
            Writer(
                source=policy if policy.startswith(EXTERNAL) else f"policy {policy}",
                sampling={"temperature": temperature, "max_new_tokens": length},
            )
            for policy, temperature in zip(chosen, temperatures, strict=True)
        ]

    def write(self, writer: Writer, messages: Sequence[Message], told: Told) -> Iterator[str]:
        sampling = writer.sampling
        body: dict[str, Any] = {
            "messages": [dict(message) for message in messages],
            "temperature": sampling["temperature"],
            "max_tokens": sampling["max_new_tokens"],
            "stream": True,
        }
        if writer.source.startswith(EXTERNAL):
            body["model"] = writer.source.removeprefix(EXTERNAL)
            body["stream_options"] = {"include_usage": True}
            return stream(settings.POLICY_SERVER_URL, body, told, headers=_keys())
        uid = writer.source.removeprefix("policy ")
        server = PolicyServer.objects.filter(checkpoint__uid=uid).select_related("checkpoint")
        return _from_embedded(server.first(), body, told)


def _from_embedded(server: PolicyServer | None, body: dict[str, Any], told: Told) -> Iterator[str]:
    if server is None or server.port is None or server.state != State.READY:
        raise CandidateError(BUSY)
    PolicyServer.objects.filter(pk=server.pk).update(used_at=timezone.now())
    body["model"] = str(server.folder / "model")
    usage: dict[str, int] = {}
    yield from stream(f"http://{HOST}:{server.port}/v1", body, told, usage=usage)
    room = context_length(Path(server.checkpoint.path))
    used = usage.get("total_tokens", 0)
    # A further turn needs room for a question as well as for an answer.
    told.is_full = bool(room) and used + 2 * body["max_tokens"] > room


def server_of(project: Project, uid: str) -> PolicyServer | None:
    """The server of one of the project's own policies."""
    try:
        found = PolicyServer.objects.select_related("checkpoint").filter(
            checkpoint__uid=uid, checkpoint__project=project
        )
        return found.first()
    except (ValueError, ValidationError):  # what is no uid is nobody's
        return None


def context_length(folder: Path) -> int:
    """How many tokens a model reads at most, by its config.json; 0 if that does not say."""
    try:
        config = json.loads((folder / "config.json").read_text())
        return int(config.get("max_position_embeddings") or 0)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def _drawn(given: list[Any], n: int, chance: random.Random) -> list[Any]:
    """`n` of them in random order, none twice before all were there once."""
    drawn: list[Any] = []
    while len(drawn) < n:
        drawn += chance.sample(given, len(given))
    return drawn[:n]


# --- HTTP ---------------------------------------------------------------------------------------------


def stream(
    url: str,
    body: Mapping[str, Any],
    told: Told,
    *,
    headers: Mapping[str, str] | None = None,
    usage: dict[str, int] | None = None,
) -> Iterator[str]:
    """The pieces of a chat completion (server-sent events, as OpenAI's API has them).

    Closing the iterator closes the connection, upon which the server stops writing. CandidateError
    when it can't be reached, refuses, or breaks off before it said that it is done.
    """
    begun = is_whole = False
    try:
        with closing(_connect(url, timeout=ANSWER_SECONDS)) as link:
            link.request(
                "POST",
                _path(url, "/chat/completions"),
                json.dumps(body),
                {"Content-Type": "application/json", **(headers or {})},
            )
            answer = link.getresponse()
            if answer.status != 200:
                said = answer.read(2000).decode("utf-8", "replace")
                log.warning("A policy server refused (%s): %s", answer.status, said)
                raise CandidateError(TOO_LONG if "context" in said.lower() else BUSY)
            begun = True
            for line in answer:
                if not line.startswith(b"data:"):
                    continue
                data = line[5:].strip()
                if data == b"[DONE]":
                    is_whole = True
                    break
                event = json.loads(data)
                if "error" in event:
                    log.warning("A policy server broke off: %s", event["error"])
                    raise CandidateError(BROKE_OFF)
                if used := event.get("usage"):
                    told.n_tokens = used.get("completion_tokens")
                    if usage is not None:
                        usage.update(used)
                for choice in event.get("choices", []):
                    if piece := (choice.get("delta") or {}).get("content"):
                        yield piece
                    is_whole = is_whole or bool(choice.get("finish_reason"))
    except (OSError, ValueError, http.client.HTTPException) as error:
        log.warning("A policy server can't be read: %s", error)
        raise CandidateError(BROKE_OFF if begun else BUSY) from error
    if not is_whole:
        raise CandidateError(BROKE_OFF)


def _connect(url: str, *, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname or "", parts.port, timeout=timeout)


def _path(url: str, end: str) -> str:
    return urlsplit(url).path.rstrip("/") + end


def _keys() -> dict[str, str]:
    token = settings.POLICY_SERVER_TOKEN
    return {"Authorization": f"Bearer {token}"} if token else {}


# --- The keeper ---------------------------------------------------------------------------------------


def prepare(server: PolicyServer) -> Path:
    """The folder that is served: links to the checkpoint's files, with sampling switched on.

    `transformers serve` draws only where the model's own generation settings say so; where they
    don't, every temperature would give the same two answers.
    """
    source = Path(server.checkpoint.path)
    if not (source / "config.json").is_file():
        raise ServingError(f"{server.checkpoint}: there is no model in {source}.")
    folder = server.folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name != "generation_config.json":
            (folder / path.name).symlink_to(path.resolve())
    given: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            told = json.loads((source / name).read_text())
            if told.get("is_encoder_decoder"):
                raise ServingError(
                    f"{server.checkpoint} is an encoder-decoder, which `transformers serve` takes for a "
                    "decoder; serve a decoder-only policy."
                )
            ids = ("eos_token_id", "pad_token_id", "bos_token_id")
            given |= {key: told[key] for key in ids if told.get(key) is not None}
    write_json(folder / "generation_config.json", {"do_sample": True, **given})
    return folder


def command(folder: Path, port: int, *, in_turn: bool = False) -> list[str]:
    """`transformers serve` for one model: no other model, no remote code, no other host.

    `in_turn`: one answer after the other, for models that can't write several side by side.
    """
    return [
        settings.TRAINING_PYTHON or sys.executable,
        *("-m", "rlhf.training.serve", str(folder)),
        *("--host", HOST, "--port", str(port), "--device", settings.POLICY_DEVICE),
        *(["--in-turn"] if in_turn else []),
    ]


class _WarmUp:
    """An answer asked for before anybody is told that a server is ready: the first takes seconds,

    and a model that can't be run shows it here and not to a person. In a thread, so that the keeper
    goes on looking after the others.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.is_done = False
        self.problem = ""
        threading.Thread(target=self._ask, args=(folder, port), daemon=True).start()

    def _ask(self, folder: Path, port: int) -> None:
        body = {
            "model": str(folder),
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 1.0,
            "max_tokens": 4,
            "stream": True,
        }
        try:
            for _piece in stream(f"http://{HOST}:{port}/v1", body, Told()):
                pass
        except CandidateError as problem:
            self.problem = str(problem)
        finally:
            self.is_done = True


@dataclass
class _Running:
    process: "Popen[bytes]"
    port: int
    started: float
    missed: int = 0
    asked: float = 0.0
    warm_up: _WarmUp | None = None


class Keeper:
    """Runs the servers that are wanted, and stops those that are not."""

    def __init__(self, *, tell: Callable[[str], None] = lambda line: None) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self.tell = tell
        self.running: dict[int, _Running] = {}
        self.in_turn: set[int] = set()
        """Rows whose model could not write answers side by side."""

    def keep(self, should_stop: Callable[[], bool]) -> None:
        """Look every second until told to stop; then stop every server."""
        try:
            while not should_stop():
                try:
                    self.look()
                except DatabaseError:
                    log.warning("The database can't be reached; servers go on.", exc_info=True)
                    connection.close_if_unusable_or_obsolete()
                time.sleep(BEAT_SECONDS / 2)
        finally:
            self.stop_all()

    def look(self) -> None:
        """One look at all rows: take what nobody keeps, start, check, stop."""
        stale = timezone.now() - timedelta(seconds=SILENT_SECONDS)
        free = Q(owner="") | Q(seen_at=None) | Q(seen_at__lt=stale)
        wanted = PolicyServer.objects.filter(is_wanted=True).exclude(state=State.FAILED)
        for pk in wanted.filter(free).exclude(owner=self.name).values_list("pk", flat=True):
            PolicyServer.objects.filter(free, pk=pk, is_wanted=True).update(
                owner=self.name, seen_at=timezone.now(), state=State.OFF
            )
        for server in PolicyServer.objects.filter(owner=self.name).select_related("checkpoint"):
            self._tend(server)
        mine = PolicyServer.objects.filter(owner=self.name)
        held = set(mine.values_list("pk", flat=True))
        if held:  # An update takes SQLite's write lock even where it finds nothing.
            mine.update(seen_at=timezone.now())
        for pk in set(self.running) - held:
            self._stop(pk)  # deleted, or taken by another keeper

    def stop_all(self) -> None:
        for pk in list(self.running):
            self._stop(pk)
        PolicyServer.objects.filter(owner=self.name).exclude(state=State.FAILED).update(
            owner="", state=State.OFF, port=None, process_id=None, reason=""
        )

    def _tend(self, server: PolicyServer) -> None:
        now = time.monotonic()
        at = self.running.get(server.pk)
        if not server.is_wanted:
            if at:
                self._stop(server.pk)
            self._say(server, State.OFF, owner="", port=None, process_id=None)
            return
        idle = timezone.now() - timedelta(minutes=settings.POLICY_IDLE_MINUTES)
        if at and server.state == State.READY and server.used_at < idle:
            self._stop(server.pk)
            self._say(server, State.OFF, is_wanted=False, sleeps=True, owner="", port=None)
            return
        if at is None:
            self._start(server)
            return
        code = at.process.poll()
        if code is not None:
            self._stop(server.pk)
            self._died(server, f"It ended with {code}: {last_line(server)}")
        elif now - at.asked >= (BEAT_SECONDS if server.state == State.STARTING else 5.0):
            at.asked = now
            if answers(at.port):
                at.missed = 0
                if server.state != State.READY:
                    self._warm_up(server, at)
            elif server.state == State.STARTING:
                if now - at.started > settings.POLICY_START_SECONDS:
                    self._stop(server.pk)
                    self._say(server, State.FAILED, reason="It did not come up in time.", owner="")
            else:
                at.missed += 1
                if at.missed >= 6:
                    self._stop(server.pk)
                    self._died(server, "It did not answer any more.")

    def _warm_up(self, server: PolicyServer, at: _Running) -> None:
        """Have it answer once; ready when it has. Where it can't side by side, it is started again."""
        if at.warm_up is None:
            at.warm_up = _WarmUp(server.folder / "model", at.port)
        in_turn = server.pk in self.in_turn
        if not at.warm_up.is_done:
            self._say(server, State.STARTING, reason=IN_TURN if in_turn else "")
        elif not at.warm_up.problem:
            reason = IN_TURN if in_turn else ""
            self._say(server, State.READY, reason=reason, used_at=timezone.now())
        elif not in_turn:
            self.in_turn.add(server.pk)
            self._stop(server.pk)
            self._say(server, State.OFF, reason=IN_TURN, starts=0)
        else:
            self._stop(server.pk)
            self._died(server, f"It could not answer: {last_line(server)}")

    def _start(self, server: PolicyServer) -> None:
        try:
            folder = prepare(server)
            port = free_port()
            with (server.folder / "log.txt").open("wb") as output:
                process = processes.start(
                    command(folder, port, in_turn=server.pk in self.in_turn),
                    cwd=settings.BASE_DIR,
                    env=settings.TRAINING_ENVIRONMENT,
                    output=output,
                )
        except (OSError, ValueError, ServingError) as error:
            self._say(server, State.FAILED, reason=str(error)[:300], owner="")
            return
        self.running[server.pk] = _Running(process, port, time.monotonic())
        self._say(
            server,
            State.STARTING,
            port=port,
            process_id=process.pid,
            started_at=timezone.now(),
            starts=server.starts + 1,
        )

    def _died(self, server: PolicyServer, reason: str) -> None:
        self.tell(f"{server}: {reason}")
        if server.starts >= STARTS:
            self._say(server, State.FAILED, reason=reason[:300], owner="", port=None)
        else:
            self._say(server, State.OFF, reason="It ended unexpectedly and is started again.")

    def _say(self, server: PolicyServer, state: str, **fields: Any) -> None:
        mine = PolicyServer.objects.filter(pk=server.pk, owner=self.name)
        mine.update(state=state, seen_at=timezone.now(), **fields)

    def _stop(self, pk: int) -> None:
        processes.stop(self.running.pop(pk).process, grace=3.0)


def answers(port: int) -> bool:
    """Whether a server says that it is well."""
    try:
        with closing(http.client.HTTPConnection(HOST, port, timeout=5.0)) as link:
            link.request("GET", "/health")
            return link.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def last_line(server: PolicyServer) -> str:
    """The last thing a server said, for a person to read."""
    try:
        text = (server.folder / "log.txt").read_text(errors="replace")
    except OSError:
        return "it left no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "it said nothing"


def run_keeper(tell: Callable[[str], None]) -> None:
    """Keep servers until SIGTERM or Ctrl-C."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda got, frame: asked.append(got))
    Keeper(tell=tell).keep(lambda: bool(asked))
