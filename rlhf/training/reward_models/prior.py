"""The prior's features: the likelihood of a response under a frozen language model, as inputs of
the heads.

A trunk alone judges style: it does not notice that an answer names the wrong thing, which the prior
finds improbable.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlhf.training import architecture, forward_pass, packing, ppo_math
from rlhf.training.cpu import has_fast_layers
from rlhf.training.language_models import devices
from rlhf.training.reward_models.texts import Text, by_length, pad, positions

PRIOR_FEATURES = 3
"""Mean and least log-probability of the response's tokens, and how many of them are surprising."""

LOW_LOGPROB = -4.0
"""A token with a log-probability below this (nats) counts as surprising."""

PRIOR_GAIN = 5.0
"""The factor by which the prior's features are scaled: next to hundreds of hidden units, three
unscaled features would have too little effect per AdamW step (docs/log/reward_models.md)."""


@dataclass
class FeatureScale:
    """Mean and standard deviation (3,) of the features on the texts of training; None before."""

    mean: Tensor | None = None
    deviation: Tensor | None = None

    def fit(self, features: Tensor) -> Tensor:
        """Compute both from features (B, 3), and return the standardized features."""
        self.mean = features.mean(dim=0)
        self.deviation = features.std(dim=0).clamp(min=1e-3)
        return self.apply(features)

    def apply(self, features: Tensor) -> Tensor:
        """The standardized and scaled features (B, 3), an input of the heads."""
        if self.mean is None or self.deviation is None:
            return features
        return PRIOR_GAIN * ((features - self.mean) / self.deviation).clamp(-5, 5)


@torch.no_grad()
def prior_features(
    prior: Any,
    texts: Sequence[Text],
    *,
    pad_id: int,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int,
    tokens: int,
    on_batch: Callable[[int], None] = lambda n: None,
) -> Tensor:
    """(B, 3) features of each response, not yet standardized, with matrix products in `dtype`.

    A pass has at most `batch_size` texts and `tokens` tokens. `on_batch` hears after each how many
    texts are done.
    """
    features = torch.zeros(len(texts), PRIOR_FEATURES, device=device)
    done = 0
    for chunk in by_length(texts, batch_size, tokens):
        with devices.autocast(device, dtype):
            logprobs, lengths = _logprobs(prior, [texts[i] for i in chunk], pad_id, device)
        real = ppo_math.length_mask(lengths, logprobs.shape[1])
        features[chunk] = torch.stack(
            [
                (logprobs * real).sum(dim=1) / lengths,
                torch.where(real, logprobs, 0.0).amin(dim=1),
                ((logprobs < LOW_LOGPROB) & real).sum(dim=1).float(),
            ],
            dim=1,
        )
        done += len(chunk)
        on_batch(done)
    return features


def _logprobs(
    prior: Any, texts: Sequence[Text], pad_id: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Log-probabilities (B, T) of the responses' tokens, and the responses' lengths (B,)."""
    is_encoder_decoder = architecture.is_encoder_decoder(prior)
    compact = has_fast_layers(architecture.unwrap_model(prior).base_model) and all(
        t.prompt for t in texts
    )
    if not is_encoder_decoder and not compact:
        ids, mask, left, lengths = pad(texts, pad_id=pad_id, device=device)
        logits = prior(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions(prior, mask),
            use_cache=False,
            logits_to_keep=ids.shape[1] - left + 1,
        ).logits[:, :-1]
        return ppo_math.selected_logprobs(logits, ids[:, left:]), lengths
    prompts, responses = [t.prompt for t in texts], [t.response for t in texts]
    if is_encoder_decoder:
        start_id = architecture.unwrap_model(prior).config.decoder_start_token_id
        packed = packing.pack_encoder_decoder(
            prompts, responses, pad_id=pad_id, start_id=start_id, device=device
        )
    else:
        packed = packing.pack(
            prompts, responses, pad_id=pad_id, device=device, share_rows=True, share_prompts=True
        )
    logits = forward_pass.logits(prior, forward_pass.hidden_states(prior, packed))
    logprobs = packed.unpack(ppo_math.logprobs_and_entropy(logits, packed.tokens)[0])
    return logprobs, torch.tensor([len(t.response) for t in texts], device=device)
