"""One server process: the folder it serves, its command, its first answer, its log."""

import json
import os
import secrets
import shutil
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.judge.candidates import AnswerReport, CandidateError
from rlhf.models import PolicyServer
from rlhf.serving.client import (
    HOST,
    KEY_FILE,
    ServingError,
    key_headers,
    stream_completion,
)
from rlhf.training.rundir.files import write_json


def prepare_folder(server: PolicyServer) -> Path:
    """The folder that is served: links to the checkpoint's files, with sampling switched on.

    `transformers serve` samples only if the model's generation config has `do_sample`; without it
    both answers would be the same at every temperature.
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
    token_ids: dict[str, Any] = {}
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            config = json.loads((source / name).read_text())
            if config.get("is_encoder_decoder"):
                raise ServingError(
                    f"{server.checkpoint} is an encoder-decoder, which `transformers serve` doesn't "
                    "support; serve a decoder-only policy."
                )
            keys = ("eos_token_id", "pad_token_id", "bos_token_id")
            token_ids |= {key: config[key] for key in keys if config.get(key) is not None}
    write_json(folder / "generation_config.json", {"do_sample": True, **token_ids})
    return folder


def command(folder: Path, port: int, *, in_turn: bool = False) -> list[str]:
    """`transformers serve` for one model: no other model, no remote code, no other host.

    `in_turn`: one answer after the other, for models that can't generate several in parallel.
    """
    return [
        settings.TRAINING_PYTHON or sys.executable,
        *("-m", "rlhf.training.serve", str(folder)),
        *("--host", HOST, "--port", str(port), "--device", settings.POLICY_DEVICE),
        *(["--in-turn"] if in_turn else []),
    ]


def new_key(server: PolicyServer) -> str:
    """A random key for the process that starts now, kept next to its folder for this product alone."""
    path = server.folder / KEY_FILE
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        key = secrets.token_urlsafe(32)
        file.write(key)
    return key


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def last_log_line(server: PolicyServer) -> str:
    """The last line of a server's log, for a person to read."""
    try:
        text = (server.folder / "log.txt").read_text(errors="replace")
    except OSError:
        return "it left no log"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-200:] if lines else "its log is empty"


class WarmUp:
    """A first answer, asked for in a thread before the server counts as ready.

    It takes seconds, and a model that can't be run fails here, not in front of a person.
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
            headers = key_headers(folder.parent)
            url = f"http://{HOST}:{port}/v1"
            for _text in stream_completion(url, body, AnswerReport(), headers=headers):
                pass
        except CandidateError as problem:
            self.problem = str(problem)
        finally:
            self.is_done = True
