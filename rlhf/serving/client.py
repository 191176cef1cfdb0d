"""Requests to an OpenAI-compatible server: its models, its health, and streamed answers."""

import logging
from collections.abc import Iterator, Mapping
from functools import cache as cache_forever
from pathlib import Path
from typing import Any

import httpx2
from django.conf import settings
from django.core.cache import cache
from django.utils.translation import gettext_noop

from annotation.judge.candidates import AnswerReport, CandidateError

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
KEY_FILE = "key"
"""In a served policy's folder: the key of its process."""
ANSWER_SECONDS = 60.0
"""Timeout of a server between two pieces of an answer."""
MODELS_SECONDS = 5
"""Cache time of an external server's list of models, and timeout of the request."""

BUSY = gettext_noop("The policy can't be reached. Your message is saved: retry in a moment.")
BROKE_OFF = gettext_noop("The policy stopped during its answer. Your message is saved: retry.")
TOO_LONG = gettext_noop(
    "The conversation is too long for this policy: end it, then start a new one."
)


class ServingError(Exception):
    """Why a policy can't be served, in one sentence for an admin."""


@cache_forever
def _client() -> httpx2.Client:
    """One client per process: building one loads all certificates, which takes 0.1 s."""
    return httpx2.Client(trust_env=False, timeout=ANSWER_SECONDS)


def stream_completion(
    url: str,
    body: Mapping[str, Any],
    report: AnswerReport,
    *,
    headers: Mapping[str, str] | None = None,
    usage: dict[str, int] | None = None,
) -> Iterator[str]:
    """The text of a chat completion in pieces, as the server writes it.

    `report` and `usage` receive the token counts. Closing the iterator closes the connection, and
    the server stops generating. CandidateError when the server can't be reached, refuses, or ends
    the stream before it has said that the answer is complete.
    """
    has_begun = is_complete = False
    request = _client().sse(
        f"{url}/chat/completions", method="POST", json=dict(body), headers=headers
    )
    try:
        with request as events:
            if events.response.status_code != 200:
                raise CandidateError(_reason_of_refusal(events.response))
            has_begun = True
            for event in events:
                if event.data == "[DONE]":
                    is_complete = True
                    break
                chunk: Any = event.json()
                if "error" in chunk:
                    # Its text may quote the conversation, which has no place in a log.
                    log.warning("A policy server broke off with an error.")
                    raise CandidateError(BROKE_OFF)
                if counts := chunk.get("usage"):
                    report.n_tokens = counts.get("completion_tokens")
                    if usage is not None:
                        usage.update(counts)
                for choice in chunk.get("choices", []):
                    if text := (choice.get("delta") or {}).get("content"):
                        yield text
                    is_complete = is_complete or bool(choice.get("finish_reason"))
                    report.is_cut_off |= choice.get("finish_reason") == "length"
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        log.warning("A policy server can't be read: %s", error)
        raise CandidateError(BROKE_OFF if has_begun else BUSY) from error
    if not is_complete:
        raise CandidateError(BROKE_OFF)


def _reason_of_refusal(response: httpx2.Response) -> str:
    response.read()
    text = response.text[:2000]
    # Not the text: it may quote the conversation.
    log.warning("A policy server refused with status %s.", response.status_code)
    return TOO_LONG if "context" in text.lower() else BUSY


def key_headers(folder: Path) -> dict[str, str]:
    """What the embedded server of this folder wants to see; nothing if it has no key yet."""
    try:
        return {"Authorization": f"Bearer {(folder / KEY_FILE).read_text()}"}
    except OSError:
        return {}


def is_healthy(port: int) -> bool:
    """True if the server on this port of this machine reports that it is healthy."""
    try:
        response = _client().get(f"http://{HOST}:{port}/health", timeout=5.0)
    except httpx2.HTTPError:
        return False
    return response.status_code == 200


# --- The server at POLICY_SERVER_URL ----------------------------------------------------------


def external_models() -> list[str]:
    """The models of the server at POLICY_SERVER_URL; ServingError if it can't list them."""
    if not settings.POLICY_SERVER_URL:
        return []
    key = "serving:external"
    models: list[str] | str | None = cache.get(key)
    if models is None:
        try:
            response = _client().get(
                f"{settings.POLICY_SERVER_URL}/models",
                headers=external_headers(),
                timeout=MODELS_SECONDS,
            )
            response.raise_for_status()
            models = [str(model["id"]) for model in response.json()["data"]]
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError) as error:
            log.warning("POLICY_SERVER_URL does not answer: %s", error)
            models = f"The server at POLICY_SERVER_URL does not list its models: {error}."
        cache.set(key, models, MODELS_SECONDS)
    if isinstance(models, str):
        raise ServingError(models)
    return models


def external_headers() -> dict[str, str]:
    token = settings.POLICY_SERVER_TOKEN
    return {"Authorization": f"Bearer {token}"} if token else {}
