"""The answers of live dialogues: what `annotation/judge/candidates.py` asks for, written by policies."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.judge.candidates import AnswerReport, CandidateError, Serving, Writer
from annotation.models import DialogueCampaign, Message, Project
from rlhf.models import PolicyServer
from rlhf.serving import servers
from rlhf.serving.client import (
    BUSY,
    HOST,
    ServingError,
    external_headers,
    external_models,
    key_headers,
    stream_completion,
)

EXTERNAL = "external:"
"""Before the name of a model at POLICY_SERVER_URL; a policy of ours is named by its uid."""


class PolicyCandidates:
    """Candidates of live dialogues, from the policies that a campaign names."""

    def serving(self, campaign: DialogueCampaign) -> Serving:
        names = list(campaign.writing.get("policies", []))
        states = [self._state(campaign.batch.project, name) for name in names]
        if not states:
            return Serving("off", _("No policy was chosen for this campaign; ask an admin."))
        # All have to be up: if some were left out, annotators would know which ones answer.
        for state, sentence in (
            ("failed", _("A policy could not be started. An admin can see why; try again later.")),
            (
                "gone",
                _("The policy stopped responding. An admin can restart it; your text is kept."),
            ),
            ("off", _("The policy is switched off; ask an admin.")),
            ("starting", _("The policy is being loaded. You can write; sending waits for it.")),
        ):
            if state in states:
                return Serving(state, sentence)  # type: ignore[arg-type]
        return Serving("ready")

    def _state(self, project: Project, name: str) -> str:
        if name.startswith(EXTERNAL):
            try:
                return "ready" if name.removeprefix(EXTERNAL) in external_models() else "off"
            except ServingError:
                return "gone"
        server = servers.find_server(project, name)
        if server is None:
            return "off"
        if server.sleeps:
            return "starting" if servers.wake(server) else "off"
        return servers.health(server).state

    def writers(self, campaign: DialogueCampaign, n: int) -> list[Writer]:
        """Different policies first, then different temperatures: answers that can be compared."""
        writing = campaign.writing
        policies = list(writing.get("policies", []))
        if not policies:
            raise CandidateError(_("No policy was chosen for this campaign; ask an admin."))
        rng = random.SystemRandom()
        chosen = _draw(policies, n, rng)
        temperatures = _draw(list(writing.get("temperatures") or [1.0]), n, rng)
        length = int(writing.get("max_new_tokens", 128))
        return [
            Writer(
                source=policy if policy.startswith(EXTERNAL) else f"policy {policy}",
                sampling={"temperature": temperature, "max_new_tokens": length},
            )
            for policy, temperature in zip(chosen, temperatures, strict=True)
        ]

    def write(
        self, writer: Writer, messages: Sequence[Message], report: AnswerReport
    ) -> Iterator[str]:
        body: dict[str, Any] = {
            "messages": [dict(message) for message in messages],
            "temperature": writer.sampling["temperature"],
            "max_tokens": writer.sampling["max_new_tokens"],
            "stream": True,
        }
        if writer.source.startswith(EXTERNAL):
            body["model"] = writer.source.removeprefix(EXTERNAL)
            body["stream_options"] = {"include_usage": True}
            return stream_completion(
                settings.POLICY_SERVER_URL, body, report, headers=external_headers()
            )
        uid = writer.source.removeprefix("policy ")
        server = PolicyServer.objects.filter(checkpoint__uid=uid).select_related("checkpoint")
        return _stream_from_embedded(server.first(), body, report)


def _stream_from_embedded(
    server: PolicyServer | None, body: dict[str, Any], report: AnswerReport
) -> Iterator[str]:
    if server is None or server.port is None or server.state != PolicyServer.State.READY:
        raise CandidateError(BUSY)
    PolicyServer.objects.filter(pk=server.pk).update(used_at=timezone.now())
    body["model"] = str(server.folder / "model")
    usage: dict[str, int] = {}
    headers = key_headers(server.folder)
    url = f"http://{HOST}:{server.port}/v1"
    yield from stream_completion(url, body, report, headers=headers, usage=usage)
    limit = context_length(Path(server.checkpoint.path))
    used = usage.get("total_tokens", 0)
    # A further turn needs room for a question as well as for an answer.
    report.is_full = bool(limit) and used + 2 * body["max_tokens"] > limit


def context_length(folder: Path) -> int:
    """A model's context length in tokens, from its config.json; 0 if that has none."""
    try:
        config = json.loads((folder / "config.json").read_text())
        return int(config.get("max_position_embeddings") or 0)
    except (OSError, ValueError, AttributeError, TypeError):
        return 0


def _draw(items: list[Any], n: int, rng: random.Random) -> list[Any]:
    """`n` items in random order; none is repeated before all were drawn once."""
    drawn: list[Any] = []
    while len(drawn) < n:
        drawn += rng.sample(items, len(items))
    return drawn[:n]
