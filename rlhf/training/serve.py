"""`transformers serve` for one policy, with answers written side by side at their own temperatures.

    python -m rlhf.training.serve <model folder> --port 8001 --device cpu

Continuous batching (Yu et al. 2022, Orca) is in transformers 5.23, and its engine can take each
request's own temperature; only its server does not pass it on (`init_cb`: the first request's
settings count for all). That is added here; everything else is theirs. A model that the engine
can't run is served one answer after the other, which is transformers' own way out.

No seeds: all answers draw from one generator, so what a seed gives depends on who else is asking.
"""

import argparse
import copy
from typing import Any

from fastapi import HTTPException
from transformers import ContinuousBatchingConfig, GenerationConfig, PreTrainedModel
from transformers.cli import serve
from transformers.cli.serving import utils

PAGE_TOKENS = 32
"""Tokens in a page of the cache: short conversations waste at most so much."""
SIDE_BY_SIDE = 16
"""Answers written at the same time; a further one waits."""
CACHED_TOKENS = 16_384
"""Room in the cache for all answers together, though never less than for one: 2 GiB for an 8 B Llama
3 in bfloat16. Not told, the engine takes a share of all the memory there is."""
LEAST_TEMPERATURE = 0.01
"""Below, logits divided by it may overflow; the likeliest word is drawn all but always."""


class OwnTemperatures(utils.CBGenerateManager):
    """Theirs, with each request's own temperature passed to the engine."""

    _temperature = 1.0

    def init_cb(self, model: PreTrainedModel, gen_config: GenerationConfig) -> None:
        """Start the engine at the first request."""
        if self._cb is not None:
            return
        shared = copy.deepcopy(gen_config)
        # At 1 the engine would leave temperatures out for good.
        shared.temperature, shared.do_sample = 0.5, True
        room = context_length(model)
        tokens = max(room, min(SIDE_BY_SIDE * room, CACHED_TOKENS))
        self._cb_config = ContinuousBatchingConfig(
            per_request_processors=True,
            page_size=PAGE_TOKENS,
            num_blocks=-(-tokens // PAGE_TOKENS),
            max_batch_tokens=max(256, min(room, 2048)),
            max_requests_per_batch=SIDE_BY_SIDE,
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
        """Begin an answer. Nothing is awaited in between, so the temperature is this request's."""
        left = context_length(model) - len(inputs["input_ids"])
        if left < 1:
            # Inside the engine it would end everybody's answer, not only this one.
            raise HTTPException(400, "The conversation is longer than the model's context.")
        gen_config.max_new_tokens = min(left, gen_config.max_new_tokens)
        given = gen_config.temperature
        self._temperature = max(LEAST_TEMPERATURE, 1.0 if given is None else float(given))
        return super().generate_streaming(model, processor, inputs, gen_config, *args, **kwargs)


def context_length(model: PreTrainedModel) -> int:
    """How many tokens the model reads and writes at most, by its configuration."""
    told = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(told or 4096)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--in-turn", action="store_true", help="one answer after the other")
    given = parser.parse_args()
    utils.CBGenerateManager = OwnTemperatures  # type: ignore[misc]
    serve.Serve(
        force_model=given.model,
        continuous_batching=not given.in_turn,
        host=given.host,
        port=given.port,
        device=given.device,
        trust_remote_code=False,
    )


if __name__ == "__main__":
    main()
