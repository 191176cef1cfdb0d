"""The engines that sample PPO's responses: our own decoder, continuous batching, or a vLLM server.

Every engine samples from the current policy, at PPO's temperature and from the whole vocabulary,
and returns its log-probabilities. Other engines round differently from the training pass, so PPO
computes the log-probabilities again (`Models.read`), logs the difference, and can weight tokens by
it (`loss.importance_cap`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from rlhf.training import architecture, sampling
from rlhf.training.configs.ppo_groups import RolloutSettings
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir.errors import InputError
from rlhf.training.sampling import Sampled

PAGE = 16
"""Tokens of a page of the cache under continuous batching, as in vLLM (Kwon et al. 2023)."""

MAX_BATCH_TOKENS = 2048
"""Tokens of a step under continuous batching: longer prompts are read in chunks of this size."""

TIMEOUT_SECONDS = 600.0
"""Timeout of continuous batching: seconds without a finished response."""

MAX_GAP = 0.3
"""Mean difference of log-probabilities (nats per token) between two engines with the same weights
that rounding cannot explain (bfloat16: some hundredths)."""


class Sampler(Protocol):
    """Answers prompts with the current policy."""

    def sample(self, prompts: Sequence[Sequence[int]], k: int, *, seed: int) -> list[list[Sampled]]:
        """k responses to each prompt (token ids), in the order of `prompts`."""


class OwnDecoder:
    """`sampling.sample`: the same seed gives the same samples, in any batch and on any machine."""

    def __init__(
        self,
        policy: Policy,
        settings: RolloutSettings,
        share: slice,
        value_of: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.policy, self.settings = policy, settings
        self.share, self.value_of = share, value_of
        self.on_token: Callable[[float], None] | None = None

    def sample(self, prompts: Sequence[Sequence[int]], k: int, *, seed: int) -> list[list[Sampled]]:
        return sampling.sample(
            self.policy.model,
            prompts,
            k=k,
            max_new_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            stop_ids=self.policy.stop_ids,
            pad_id=self.policy.pad_id,
            generator=torch.Generator(device=self.policy.device).manual_seed(seed),
            batch_size=self.settings.decode_batch_size,
            value_of=self.value_of,
            share=self.share,
            on_token=self.on_token,
        )


class ContinuousBatching:
    """The continuous batching of transformers: the next response starts as soon as one ends, and on
    a GPU steps are CUDA graphs over a paged cache.

    It calls the policy's own modules, with their adapters. Each rollout has a new manager: cached
    prefixes of earlier weights would be stale, and the cache would take memory from the updates.

    All requests wait before the first step and the cache has a fixed size, so on a CPU the same
    seed and prompts give the same samples. The samples depend on the other prompts of the rollout.
    On a GPU, where steps overlap with the host's work, nothing is guaranteed.
    """

    def __init__(self, policy: Policy, settings: RolloutSettings) -> None:
        refuse_encoder_decoder(policy, "continuous")
        self.policy, self.settings = policy, settings

    def sample(self, prompts: Sequence[Sequence[int]], k: int, *, seed: int) -> list[list[Sampled]]:
        manager = self._manager(max(map(len, prompts)), k, seed)
        try:
            names = manager.add_requests(
                [list(p) for p in prompts], max_new_tokens=self.settings.max_new_tokens
            )
            manager.start()
            results: dict[str, Any] = {}
            while len(results) < len(prompts) * k:
                result = manager.get_result(timeout=TIMEOUT_SECONDS)
                if result is None or result.error is not None:
                    reason = (
                        result.error
                        if result
                        else f"nothing came for {TIMEOUT_SECONDS:.0f} seconds"
                    )
                    raise InputError(
                        f"Continuous batching broke off ({' '.join(str(reason).split())[:200]}); "
                        "set rollout.engine to own, or lower rollout.decode_batch_size."
                    )
                if result.is_finished():
                    results[result.request_id] = result
        finally:
            manager.stop(block=True, hard_stop=True)
            manager.destroy()
        return [
            [self._sampled(results[name]) for name in (*_children(name, k), name)] for name in names
        ]

    def _manager(self, longest: int, k: int, seed: int) -> Any:
        from transformers import GenerationConfig
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        rows = self.settings.decode_batch_size
        pages = -(-(longest + self.settings.max_new_tokens) // PAGE) + 1
        model = architecture.unwrap_model(self.policy.model)
        try:
            return model.init_continuous_batching(
                generation_config=GenerationConfig(
                    do_sample=True,
                    temperature=self.settings.temperature,
                    top_k=0,
                    top_p=1.0,
                    num_return_sequences=k,
                    eos_token_id=self.policy.stop_ids,
                    pad_token_id=self.policy.pad_id,
                ),
                continuous_batching_config=ContinuousBatchingConfig(
                    return_logprobs=True,
                    seed=seed,
                    page_size=PAGE,
                    num_blocks=rows * pages,
                    max_requests_per_batch=rows,
                    max_batch_tokens=max(MAX_BATCH_TOKENS, rows),
                    # It would download kernels, which are code, from the hub.
                    auto_switch_to_flash=False,
                ),
            )
        except (AttributeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"transformers can't batch a {type(model).__name__} continuously "
                f"({' '.join(str(error).split())[:200]}); set rollout.engine to own."
            ) from error

    def _sampled(self, result: Any) -> Sampled:
        tokens = list(result.generated_tokens)
        return Sampled(tokens, list(result.logprobs), tokens[-1] in self.policy.stop_ids)


def _children(name: str, k: int) -> list[str]:
    """The request names that transformers gives to further responses to a prompt."""
    return [f"{name}__child#{i}" for i in range(k - 1)]


def refuse_encoder_decoder(policy: Policy, engine: str) -> None:
    """`InputError` if the policy is an encoder-decoder, which only our own decoder supports."""
    if policy.encoder_decoder:
        raise InputError(
            f"The policy is an encoder-decoder ({type(architecture.unwrap_model(policy.model)).__name__}), and "
            f"rollout.engine = {engine} takes decoder-only models; set rollout.engine to own."
        )


def sampler_logprobs(answers: Sequence[Sampled]) -> Tensor:
    """(B, T) the sampler's log-probabilities (nats) of its tokens; 0 after the end."""
    return _padded([answer.logprobs for answer in answers])


def sampler_values(answers: Sequence[Sampled]) -> Tensor:
    """(B, T) the critic's values where the sampler has computed them; else 0."""
    return _padded([answer.values or [0.0] * len(answer.tokens) for answer in answers])


def _padded(rows: Sequence[Sequence[float]]) -> Tensor:
    numbers = torch.zeros(len(rows), max(map(len, rows)))
    for i, row in enumerate(rows):
        numbers[i, : len(row)] = torch.tensor(row)
    return numbers
