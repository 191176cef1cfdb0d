"""`transformers serve` for one policy: concurrent answers, each at its own temperature.

    GROUND_CONTROL_SERVER_KEY=… python -m rlhf.training.serve <model folder> --port 8001 --device cpu

transformers 5.23 has continuous batching (Yu et al. 2022, Orca). Its engine accepts a temperature per
request, but its server passes only the first request's (`init_cb`). This module passes each one. A
model that the engine does not support is served one answer at a time, transformers' own fallback.

Requests have no random seed: all answers share one generator, so a seed would not determine an answer.
"""

import argparse
import copy
import os
from typing import Any

import torch
from fastapi import HTTPException
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.cli import serve
from transformers.cli.serving import server, utils

from rlhf.training.language_models.devices import (
    choose_device,
    describe_precision,
    is_bfloat16_faster,
)
from rlhf.training.server_guard import KEY, Guard

PAGE_TOKENS = 32
"""Tokens in a page of the cache: a short conversation wastes at most one page."""
CONCURRENT_ANSWERS = 16
"""Answers written at the same time; further requests wait."""
CACHED_TOKENS = 16_384
"""The cache's size in tokens for all answers together, at least one full context: 2 GiB for Llama 3 8B
in bfloat16. The engine's default is a share of the whole memory."""
LEAST_TEMPERATURE = 0.01
"""Logits divided by less may overflow; at this value sampling is almost greedy."""


class OwnTemperatures(utils.CBGenerateManager):
    """transformers' manager, with each request's own temperature passed to the engine."""

    _temperature = 1.0

    def init_cb(self, model: PreTrainedModel, gen_config: GenerationConfig) -> None:
        """Start the engine at the first request."""
        if self._cb is not None:
            return
        shared = copy.deepcopy(gen_config)
        # With temperature 1 the engine would ignore the requests' temperatures.
        shared.temperature, shared.do_sample = 0.5, True
        room = context_length(model)
        tokens = max(room, min(CONCURRENT_ANSWERS * room, CACHED_TOKENS))
        self._cb_config = ContinuousBatchingConfig(
            per_request_processors=True,
            page_size=PAGE_TOKENS,
            num_blocks=-(-tokens // PAGE_TOKENS),
            max_batch_tokens=max(256, min(room, 2048)),
            max_requests_per_batch=CONCURRENT_ANSWERS,
        )
        super().init_cb(model, shared)
        engine: Any = self._cb
        add = engine.add_request

        def add_with_temperature(*args: Any, **kwargs: Any) -> Any:
            return add(*args, **kwargs, temperature=self._temperature)

        engine.add_request = add_with_temperature

    def generate_streaming(
        self, model: Any, processor: Any, inputs: Any, gen_config: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Start an answer. There is no await in this call, so `_temperature` is this request's."""
        room = context_length(model) - len(inputs["input_ids"])
        if room < 1:
            # An error inside the engine would end all answers, not only this one.
            raise HTTPException(400, "The conversation is longer than the model's context.")
        gen_config.max_new_tokens = min(room, gen_config.max_new_tokens)
        temperature = gen_config.temperature
        self._temperature = max(
            LEAST_TEMPERATURE, 1.0 if temperature is None else float(temperature)
        )
        return super().generate_streaming(model, processor, inputs, gen_config, *args, **kwargs)


def context_length(model: PreTrainedModel) -> int:
    """The longest sequence of prompt and answer, by the model's configuration; 4096 without one."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length or 4096)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--in-turn", action="store_true", help="one answer after the other")
    options = parser.parse_args()
    utils.CBGenerateManager = OwnTemperatures  # type: ignore[misc]
    key, build = os.environ.get(KEY, ""), server.build_server
    # `Serve` builds its application by this function and has no place for one around it.
    server.build_server = lambda *args, **how: Guard(  # type: ignore[assignment]
        build(*args, **how), key=key, port=options.port
    )
    serve.Serve(
        force_model=options.model,
        continuous_batching=not options.in_turn,
        host=options.host,
        port=options.port,
        device=options.device,
        dtype=serving_dtype(options.device),
        trust_remote_code=False,
    )


def serving_dtype(device: str) -> str:
    """The precision that a model is served in: its checkpoint's ("auto") on a GPU and on a CPU that is
    faster in bfloat16, else float32."""
    chosen = choose_device(device)
    if is_bfloat16_faster(chosen):
        return "auto"
    print(f"{describe_precision(chosen, torch.float32)} Serving in float32.", flush=True)
    return "float32"


if __name__ == "__main__":
    main()
