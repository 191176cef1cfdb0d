"""Rollouts by a server with OpenAI's completions protocol and vLLM's extensions (docs/decisions/0024).

The server holds the base model; before every rollout it is given the current LoRA adapters, by a
path that both sides see. Prompts go and responses come as token ids, so no text is tokenized twice.

Its address and key come from the environment, never from a run's configuration: a person who may
start runs must not choose what this machine connects to. The key is in no file, log or message.
"""

import contextlib
import http.client
import json
import math
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rlhf.training.configs import PPOConfig
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir.errors import InputError
from rlhf.training.sampling import Sampled

URL, TOKEN, FOLDER = "ROLLOUT_SERVER_URL", "ROLLOUT_SERVER_TOKEN", "ROLLOUT_SERVER_FOLDER"

CONCURRENT_PROMPTS = 64
"""Prompts that are sent at the same time; the server batches them."""

MOST_BYTES = 1 << 26
"""The longest response body that is read."""

LORA_HINT = "start vLLM with --enable-lora, --max-lora-rank of at least lora.rank, and "
LORA_HINT += "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment"


class Server:
    """The server at `ROLLOUT_SERVER_URL`, which answers prompts with the policy's current adapters.

    Errors of the server are an `InputError` of one sentence; the run resumes from its last
    checkpoint.
    """

    def __init__(self, policy: Policy, config: PPOConfig) -> None:
        if not config.lora.rank:
            raise InputError(
                "rollout.engine = server sends LoRA adapters to the server before each rollout, but "
                "lora.rank is 0, and all weights can't be sent over its HTTP interface; set "
                "lora.rank, or rollout.engine to own or continuous."
            )
        self.policy, self.config = policy, config
        self.link = Link(
            os.environ.get(URL, ""), os.environ.get(TOKEN, ""), config.rollout.server_timeout
        )
        self._check_model()
        try:
            self.folder = tempfile.TemporaryDirectory(
                prefix="adapters-", dir=os.environ.get(FOLDER) or None
            )
        except OSError as error:
            raise InputError(f"{FOLDER} can't be written to: {error}.") from None
        self.name = f"ground-control-{uuid.uuid4().hex[:12]}"
        self.version = 0
        weakref.finalize(self, _forget, self.link, self.name)

    def sample(self, prompts: Sequence[Sequence[int]], k: int, *, seed: int) -> list[list[Sampled]]:
        """k responses to each prompt. Each prompt has its own random seed; rounding still depends on
        what else the server computes at the time."""
        self._push()
        with ThreadPoolExecutor(min(len(prompts), CONCURRENT_PROMPTS)) as pool:
            requests = [
                pool.submit(self._complete, prompt, k, (seed + i) % 2**48)
                for i, prompt in enumerate(prompts)
            ]
            try:
                return [request.result() for request in requests]
            except InputError:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _check_model(self) -> None:
        models = self.link.get("/models")
        try:
            served = {
                str(m.get(key)) for m in models["data"] for key in ("id", "root") if m.get(key)
            }
        except (TypeError, KeyError, AttributeError):
            raise InputError(
                f"The rollout server at {self.link.host} does not list its models as OpenAI's "
                "protocol says; is it a vLLM server?"
            ) from None
        policy = self.config.policy
        if not {policy, str(Path(policy).resolve())} & served:
            raise InputError(
                f"The rollout server at {self.link.host} serves {', '.join(sorted(served)) or 'nothing'}"
                f", not the policy {policy}; start it with that model (vllm serve {policy})."
            )

    def _push(self) -> None:
        """Replace the server's adapters by the current ones."""
        self.version += 1
        folder = Path(self.folder.name) / f"v{self.version}"
        self.policy.model.save_pretrained(folder, save_embedding_layers=False)
        self.link.post(
            "/load_lora_adapter",
            {"lora_name": self.name, "lora_path": str(folder), "load_inplace": True},
            what="the adapters",
            hint=LORA_HINT,
        )
        shutil.rmtree(folder.with_name(f"v{self.version - 1}"), ignore_errors=True)

    def _complete(self, prompt: Sequence[int], k: int, seed: int) -> list[Sampled]:
        answer = self.link.post(
            "/completions",
            {
                "model": self.name,
                "prompt": list(prompt),
                "n": k,
                "seed": seed,
                "max_tokens": self.config.rollout.max_new_tokens,
                "temperature": self.config.rollout.temperature,
                # A model's generation_config.json would set these otherwise.
                "top_p": 1.0,
                "top_k": -1,
                "min_p": 0.0,
                "repetition_penalty": 1.0,
                "presence_penalty": 0.0,
                "frequency_penalty": 0.0,
                "stop_token_ids": self.policy.stop_ids,
                "logprobs": 1,
                "return_token_ids": True,
                # The cache of earlier adapters of the same name belongs to another policy.
                "cache_salt": f"{self.name}-v{self.version}",
            },
            what="a prompt",
            hint="see its log",
        )
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or len(choices) != k:
            raise self._wrong(f"did not return {k} responses to a prompt")
        try:
            return [
                self._sampled(choice, prompt)
                for choice in sorted(choices, key=lambda c: c["index"])
            ]
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise self._wrong(f"left out or garbled {error} of a response") from None

    def _sampled(self, choice: dict[str, Any], prompt: Sequence[int]) -> Sampled:
        tokens, prompt_ids = choice.get("token_ids"), choice.get("prompt_token_ids")
        if not tokens or prompt_ids is None:
            raise self._wrong("returns no token ids")
        if list(prompt_ids) != list(prompt):
            raise self._wrong("read other token ids than it was sent; it has another tokenizer")
        known = self.policy.model.get_input_embeddings().num_embeddings
        if any(type(token) is not int or not 0 <= token < known for token in tokens):
            raise self._wrong("returned token ids that the policy does not have")
        logprobs = [float(p) for p in choice["logprobs"]["token_logprobs"]]
        if len(logprobs) != len(tokens) or not all(map(math.isfinite, logprobs)):
            raise self._wrong("returned log-probabilities that do not belong to its tokens")
        ends = [i for i, token in enumerate(tokens) if token in self.policy.stop_ids]
        if ends and ends[0] != len(tokens) - 1:
            raise self._wrong("went on after a token that ends a response")
        if not ends and len(tokens) < self.config.rollout.max_new_tokens:
            raise self._wrong(
                f"ended a response after {len(tokens)} tokens (finish_reason "
                f"{choice.get('finish_reason')!r}) without a token that ends one; give it a larger "
                "--max-model-len, and no stop strings"
            )
        return Sampled(tokens, logprobs, bool(ends))

    def _wrong(self, what: str) -> InputError:
        return InputError(
            f"The rollout server at {self.link.host} {what}; PPO needs vLLM's completions protocol "
            "with return_token_ids (0.10.2 and later)."
        )


class Link:
    """JSON over HTTP to one server: no redirects, no proxies, the key in a header only."""

    def __init__(self, url: str, token: str, timeout: float) -> None:
        if not url:
            raise InputError(
                f"rollout.engine is server, but {URL} is not set in the environment; set it to the "
                "server's address, such as http://gpu:8000/v1."
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise InputError(
                f"{URL} must be an address that begins with http:// or https:// and holds no user, "
                f"key or question mark; a key goes into {TOKEN}."
            )
        if not token.isascii() or not token.isprintable():
            raise InputError(f"{TOKEN} holds characters that no HTTP header can; check it.")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self.kind, self.name, self.port = kinds[parts.scheme], parts.hostname, port
        self.host = parts.hostname if port is None else f"{parts.hostname}:{port}"
        self.path = parts.path.rstrip("/")
        self.headers = {"Content-Type": "application/json"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.timeout = timeout

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        return self._call("GET", path, None, "its list of models", "see its log", self.timeout)

    def post(
        self, path: str, body: dict[str, Any], *, what: str, hint: str, timeout: float = 0.0
    ) -> Any:
        """The server's answer to a body: JSON, or text; `what` and `hint` are for the error."""
        return self._call("POST", path, body, what, hint, timeout or self.timeout)

    def _call(self, method: str, path: str, body: Any, what: str, hint: str, timeout: float) -> Any:
        link = self.kind(self.name, self.port, timeout=timeout)
        retry = "check the server and start the run again; it resumes from its last checkpoint."
        try:
            with contextlib.closing(link):
                sent = None if body is None else json.dumps(body)
                link.request(method, f"{self.path}{path}", body=sent, headers=self.headers)
                response = link.getresponse()
                content = response.read(MOST_BYTES + 1)
        except TimeoutError:
            raise InputError(
                f"The rollout server at {self.host} did not answer within {timeout:g} seconds; {retry}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise InputError(
                f"The rollout server at {self.host} is gone ({type(error).__name__}); {retry}"
            ) from None
        if len(content) > MOST_BYTES:
            raise InputError(f"The rollout server at {self.host} answers without end; {retry}")
        text = content.decode("utf-8", errors="replace")
        if response.status in (401, 403):
            raise InputError(f"The rollout server at {self.host} refuses our key; set {TOKEN}.")
        if response.status != 200:
            reason = " ".join(text.split())[:200]
            raise InputError(
                f"The rollout server at {self.host} refused {what} ({response.status}: {reason}); "
                f"{hint}."
            )
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text


def _forget(link: Link, name: str) -> None:
    """Remove the adapters of a finished run from the server, if it still answers."""
    with contextlib.suppress(InputError):
        link.post(
            "/unload_lora_adapter",
            {"lora_name": name},
            what="the adapters",
            hint="they stay loaded",
            timeout=5.0,
        )
