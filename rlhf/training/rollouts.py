"""Where the responses that PPO learns from come from: our own decoder, or another engine's.

Every engine answers with the policy as it is at that moment, at PPO's temperature, from the whole
vocabulary, and tells how likely its own arithmetic found what it drew. That is never trained on:
kernels that are laid out for speed round differently, so PPO reads the responses again with the
pass that trains (`Models.read`), logs how far the two are apart, and can weigh tokens by it
(`importance_cap`).
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

READ_AT_ONCE = 2048
"""Tokens of a step under continuous batching: long prompts are read in pieces of this many."""

PATIENCE = 600.0
"""Seconds without a finished response after which continuous batching is given up."""


FAR_APART = 0.3
"""Nats per token, on average, between two programs that have the same weights: far more than
rounding makes (bfloat16: some hundredths)."""


class Sampler(Protocol):
    """Answers prompts with the policy as it is."""

    def sample(self, prompts: Sequence[Sequence[int]], k: int, *, seed: int) -> list[list[Sampled]]:
        """k responses to each prompt (token ids), in the order of `prompts`."""


class OwnDecoder:
    """`sampling.sample`: the same seed draws the same, whatever shares a batch or a machine."""

    def __init__(
        self,
        policy: Policy,
        settings: RolloutSettings,
        share: slice,
        value_of: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.policy, self.settings = policy, settings
        self.share, self.value_of = share, value_of

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
        )


class ContinuousBatching:
    """The continuous batching of transformers: a row that ends makes room for the next at once, and
    on a GPU steps are CUDA graphs over a paged cache.

    It calls the policy's own modules, so what it samples from is the policy, adapters and all. Its
    manager is made anew for each rollout: cached prefixes of earlier weights would be stale, and
    while the policy learns its cache would take the room.

    All requests wait before the first step and the cache has a size of its own, so on a CPU the same
    seed and prompts draw the same. They draw something else in other company, and on a GPU, where
    steps overlap with the host's work, nothing is promised.
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
            told: dict[str, Any] = {}
            while len(told) < len(prompts) * k:
                result = manager.get_result(timeout=PATIENCE)
                if result is None or result.error is not None:
                    reason = result.error if result else f"nothing came for {PATIENCE:.0f} seconds"
                    raise InputError(
                        f"Continuous batching broke off ({' '.join(str(reason).split())[:200]}); "
                        "set rollouts to 'own', or lower decode_batch_size."
                    )
                if result.is_finished():
                    told[result.request_id] = result
        finally:
            manager.stop(block=True, hard_stop=True)
            manager.destroy()
        return [
            [self._sampled(told[name]) for name in (*_children(name, k), name)] for name in names
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
                    max_batch_tokens=max(READ_AT_ONCE, rows),
                    # It would fetch kernels from the hub, which are code.
                    auto_switch_to_flash=False,
                ),
            )
        except (AttributeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"transformers can't batch a {type(model).__name__} continuously "
                f"({' '.join(str(error).split())[:200]}); set rollouts to 'own'."
            ) from error

    def _sampled(self, told: Any) -> Sampled:
        tokens = list(told.generated_tokens)
        return Sampled(tokens, list(told.logprobs), tokens[-1] in self.policy.stop_ids)


def _children(name: str, k: int) -> list[str]:
    """What transformers calls the further responses to a prompt."""
    return [f"{name}__child#{i}" for i in range(k - 1)]


def refuse_encoder_decoder(policy: Policy, rollouts: str) -> None:
    """`InputError` if the policy is one, because only our own decoder keeps its two parts apart."""
    if policy.encoder_decoder:
        raise InputError(
            f"The policy is an encoder-decoder ({type(architecture.unwrap_model(policy.model)).__name__}), and "
            f"rollouts {rollouts!r} take decoder-only models; set rollouts to 'own'."
        )


def logprobs_of(answers: Sequence[Sampled]) -> Tensor:
    """(B, T) what their sampler said of the tokens, 0 behind them."""
    told = torch.zeros(len(answers), max(len(a.tokens) for a in answers))
    for i, answer in enumerate(answers):
        told[i, : len(answer.tokens)] = torch.tensor(answer.logprobs)
    return told
