"""`transformers serve` for one policy: concurrent answers, each at its own temperature.

    python -m rlhf.training.serve <model folder> --port 8001 --device cpu

Continuous batching (Yu et al. 2022, Orca) is in transformers 5.23, and its engine can take each
request's own temperature, but its server does not pass it on (`init_cb`: the first request's
settings count for all). Only that is added here. A model that the engine can't run is served one
answer at a time, which is transformers' own fallback.

No random seeds: all answers draw from one generator, so the result of a seed would depend on the
other requests.
"""

import argparse
import copy
from typing import Any

from fastapi import HTTPException
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.cli import serve
from transformers.cli.serving import utils

from rlhf.training.language_models.devices import EMULATED, choose_device, emulates_bfloat16

PAGE_TOKENS = 32
"""Tokens in a page of the cache: a short conversation wastes at most one page."""
CONCURRENT_ANSWERS = 16
"""Answers written at the same time; further requests wait."""
CACHED_TOKENS = 16_384
"""Room in the cache for all answers together, though never less than for one: 2 GiB for an 8 B Llama
3 in bfloat16. By default the engine takes a share of the whole memory."""
LEAST_TEMPERATURE = 0.01
"""Logits divided by less may overflow; at this one the likeliest token is drawn almost always."""


class OwnTemperatures(utils.CBGenerateManager):
    """transformers' manager, with each request's own temperature passed to the engine."""

    _temperature = 1.0

    def init_cb(self, model: PreTrainedModel, gen_config: GenerationConfig) -> None:
        """Start the engine at the first request."""
        if self._cb is not None:
            return
        shared = copy.deepcopy(gen_config)
        # At 1 the engine would ignore all temperatures.
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
        """Begin an answer. Nothing is awaited in between, so the temperature belongs to this request."""
        room = context_length(model) - len(inputs["input_ids"])
        if room < 1:
            # Inside the engine it would end all answers, not only this one.
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
    """The precision that a model is served in: its checkpoint's ("auto"), but float32 on a CPU that
    would emulate bfloat16."""
    if not emulates_bfloat16(choose_device(device)):
        return "auto"
    print(f"{EMULATED} Serving in float32.", flush=True)
    return "float32"


if __name__ == "__main__":
    main()
