"""The reward model: a transformers backbone (the trunk) with a linear head per axis.

It has its own tokenizer and template, so it can score policies with any tokenizer. Next to the
trunk's states, the heads see how likely a frozen language model (the prior: the trunk before it was
trained) finds the response.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from rlhf.training import architecture, microbatches, reward_math
from rlhf.training.architecture import T5_TYPES
from rlhf.training.data import Message
from rlhf.training.language_models import adapters, devices, pretrained
from rlhf.training.reward_models.hidden_states import can_share_prompts, response_states
from rlhf.training.reward_models.prior import PRIOR_FEATURES, FeatureScale, prior_features
from rlhf.training.reward_models.scale import ScoreScale
from rlhf.training.reward_models.texts import Text, by_length, tokenize

if TYPE_CHECKING:  # most stages that score are one process
    from rlhf.training.parallel import Group


OnBatch = Callable[[int, int], None]
"""Hears how many texts of how many are scored."""


@dataclass
class RewardModel:
    """A trunk, its heads, and the scale of its scores."""

    axes: tuple[str, ...]
    trunk: Any
    tokenizer: Any
    heads: nn.Linear
    log_nu: nn.Parameter
    """(axes,) log of Davidson's tie parameter."""
    prior: Any | None = None
    features: FeatureScale = field(default_factory=FeatureScale)
    """How the prior's features are standardized."""
    scale: ScoreScale = field(default_factory=ScoreScale)
    max_length: int = 512
    shares_prompts: bool = False
    """Whether a prompt is computed once for all responses to it."""
    n_heads: int = 1
    """Heads per axis that were trained separately on one trunk: members of a cheap ensemble."""
    adapters: tuple[str, ...] = ()
    """The LoRA adapters through which each head sees the trunk; empty: all see it as it is."""
    others: "list[RewardModel]" = field(default_factory=list)
    """Further complete models: members for the same axes, or models of other axes."""
    dtype: torch.dtype = torch.float32
    """Precision of matrix products and of what is not trained; heads are always float32."""
    tokens_per_pass: int = 0
    """Tokens of a forward pass, padding included; 0: as many as fit (`microbatches`)."""

    @classmethod
    def new(
        cls,
        trunk: str,
        axes: Sequence[str],
        *,
        use_prior: bool,
        max_length: int,
        device: Any,
        n_heads: int = 1,
        adapter_rank: int = 0,
        prior: Any = None,
        dtype: torch.dtype = torch.float32,
        tokens_per_pass: int = 0,
    ) -> Self:
        """Heads drawn from N(0, 1/(d+1)), as in summarize_from_feedback, on a pre-trained trunk.

        With an `adapter_rank` every head has LoRA adapters of its own, and only these are trained.
        """
        model, tokenizer = adapters.load_trunk(trunk, "trunk")
        pretrained.check_vocabulary(model, tokenizer, trunk, "trunk")
        if use_prior and prior is None:
            prior, _ = adapters.load_merged(trunk, "prior", dtype=dtype)
            prior = prior.to(device).eval().requires_grad_(requires_grad=False)
        pretrained.disable_dropout(model)
        names: tuple[str, ...] = ()
        if adapter_rank:
            names = tuple(f"member-{number}" for number in range(n_heads))
            model = adapters.add_adapters(model, names, rank=adapter_rank)
        width = 2 * architecture.hidden_size(model) + (PRIOR_FEATURES if use_prior else 0)
        heads = nn.Linear(width, n_heads * len(axes))
        nn.init.normal_(heads.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(heads.bias)
        return cls(
            axes=tuple(axes),
            trunk=model.to(device),
            tokenizer=tokenizer,
            heads=heads.to(device),
            log_nu=nn.Parameter(torch.zeros(len(axes), device=device)),
            prior=prior if use_prior else None,
            max_length=min(max_length, pretrained.context_length(model)),
            n_heads=n_heads,
            dtype=dtype,
            adapters=names,
            tokens_per_pass=tokens_per_pass,
        )

    def parameters(self) -> list[nn.Parameter]:
        """The trained parameters: the trunk, the heads and the tie parameters."""
        return [*self.trunk.parameters(), *self.heads.parameters(), self.log_nu]

    def plain_trunk(self) -> Any:
        """A copy of the trunk as a transformers model in float32, to initialize another model from.
        Where members have adapters, it is as the first of them sees it."""
        trunk = copy.deepcopy(self.trunk).float()
        if self.adapters:
            trunk.set_adapter(self.adapters[0])
            trunk = trunk.merge_and_unload()
        return trunk

    @property
    def every_axis(self) -> tuple[str, ...]:
        """The axes that this model and its `others` score."""
        return tuple(dict.fromkeys([*self.axes, *(a for o in self.others for a in o.every_axis)]))

    def members_of(self, axis: str) -> int:
        """How many ensemble members score an axis."""
        own = self.n_heads if axis in self.axes else 0
        return own + sum(other.members_of(axis) for other in self.others)

    @property
    def device(self) -> torch.device:
        return self.heads.weight.device

    @property
    def pad_id(self) -> int:
        return self.tokenizer.pad_token_id or 0

    def autocast(self) -> Any:
        """Matrix products in this model's precision."""
        return devices.autocast(self.device, self.dtype)

    # --- From texts to raw scores -------------------------------------------------------------

    def tokenize(
        self, prompts: Sequence[Sequence[Message]], responses: Sequence[str]
    ) -> list[Text]:
        """Tokens of conversations and one response to each, cut to `max_length`."""
        is_t5 = self.trunk.config.model_type in T5_TYPES
        return tokenize(self.tokenizer, prompts, responses, max_length=self.max_length, is_t5=is_t5)

    def raw_scores(self, texts: Sequence[Text], features: Tensor | None) -> Tensor:
        """(B, heads, axes) scores before standardization, differentiable.

        `features` is what `prior_features` gives for these texts.
        """
        if not self.adapters:
            scores = self.heads(self._head_inputs(texts, features)).chunk(self.n_heads, dim=1)
            return torch.stack(scores, dim=1)
        scores = []
        weights, biases = (w.chunk(self.n_heads) for w in (self.heads.weight, self.heads.bias))
        for name, weight, bias in zip(self.adapters, weights, biases, strict=True):
            self.trunk.set_adapter(name)
            inputs = self._head_inputs(texts, features)
            scores.append(nn.functional.linear(inputs, weight, bias))
        if torch.is_grad_enabled():  # the last one set would be the only one that learns
            adapters.train_adapters(self.trunk)
        return torch.stack(scores, dim=1)

    def _head_inputs(self, texts: Sequence[Text], features: Tensor | None) -> Tensor:
        """(B, width): the response's last state, the mean of its states, the prior's features."""
        with self.autocast():
            parts = [*self.response_states(texts)]
        if features is not None:
            parts.append(features)
        return torch.cat([part.float() for part in parts], dim=1)

    def response_states(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """(B, H) hidden states of each response: at its end, and their mean."""
        return response_states(
            self.trunk,
            texts,
            pad_id=self.pad_id,
            device=self.device,
            share_prompts=self.shares_prompts,
        )

    def share_prompts_if_possible(self) -> bool:
        """From now on compute every prompt once for all responses to it, if the scores stay the
        same."""
        self.shares_prompts = can_share_prompts(
            self.trunk,
            max_length=self.max_length,
            pad_id=self.pad_id,
            device=self.device,
            dtype=self.dtype,
        )
        return self.shares_prompts

    def most_tokens(self, *, trains: bool = False) -> int:
        """The most tokens of a forward pass over the trunk; `trains`: with a backward pass."""
        passes = len(self.adapters) or 1 if trains else 1  # one for each, all kept until the end
        most = microbatches.default_tokens(self.trunk, device=self.device, trains=trains) // passes
        return self.tokens_per_pass or max(1, most)

    def prior_features(
        self,
        texts: Sequence[Text],
        *,
        batch_size: int = 128,
        on_batch: Callable[[int], None] = lambda n: None,
    ) -> Tensor | None:
        """(B, 3) the prior's features of each response, standardized once `features` are fitted;
        None without a prior. `on_batch` hears how many texts are done."""
        if self.prior is None:
            return None
        features = prior_features(
            self.prior,
            texts,
            pad_id=self.pad_id,
            device=self.device,
            dtype=self.dtype,
            batch_size=batch_size,
            tokens=self.tokens_per_pass
            or microbatches.default_tokens(self.prior, device=self.device, trains=False),
            on_batch=on_batch,
        )
        return self.features.apply(features)

    # --- From texts to scores -----------------------------------------------------------------

    @torch.inference_mode()
    def member_scores(
        self,
        prompts: Sequence[Sequence[Message]],
        responses: Sequence[str],
        *,
        batch_size: int = 128,
        standardized: bool = True,
        on_batch: OnBatch = lambda done, total: None,
    ) -> dict[str, Tensor]:
        """Each ensemble member's scores: (B, members) on the CPU for each axis.

        Identical texts are scored once. All members have one scale, so that their spread is in the
        same unit as the scores. `on_batch` hears after each pass how many texts of how many are done;
        a text counts once for each model that reads it.
        """
        texts = self.tokenize(prompts, responses)
        distinct = list(dict.fromkeys(texts))
        index = {text: i for i, text in enumerate(distinct)}
        raw = torch.zeros(len(distinct), self.n_heads, len(self.axes))
        n, readers = len(distinct), (self.prior is not None) + 1
        total = n * (readers + sum((o.prior is not None) + 1 for o in self.others))
        features = self.prior_features(
            distinct, batch_size=batch_size, on_batch=lambda done: on_batch(done, total)
        )
        done = n * (readers - 1)
        for chunk in by_length(distinct, batch_size, self.most_tokens()):
            chunk_features = None if features is None else features[chunk]
            raw[chunk] = self.raw_scores([distinct[i] for i in chunk], chunk_features).float().cpu()
            done += len(chunk)
            on_batch(done, total)
        raw = raw[[index[text] for text in texts]]
        by_axis = {axis: [raw[:, :, i]] for i, axis in enumerate(self.axes)}

        def on_batch_of_other(before: int, more: int, _: int) -> None:
            on_batch(before + more, total)

        for other in self.others:
            more = other.member_scores(
                prompts,
                responses,
                batch_size=batch_size,
                standardized=False,
                on_batch=functools.partial(on_batch_of_other, done),
            )
            done += n * ((other.prior is not None) + 1)
            for axis, scores in more.items():
                by_axis.setdefault(axis, []).append(scores)
        together = {axis: torch.cat(scores, dim=1) for axis, scores in by_axis.items()}
        return self.scale.apply(together) if standardized else together

    def score(
        self,
        prompts: Sequence[Sequence[Message]],
        responses: Sequence[str],
        *,
        batch_size: int = 128,
        standardized: bool = True,
        ensemble: str = "mean",
        penalty: float = 1.0,
        on_batch: OnBatch = lambda done, total: None,
    ) -> dict[str, Tensor]:
        """Scores (B,) on the CPU for each axis; members are combined by `ensemble`."""
        members = self.member_scores(
            prompts,
            responses,
            batch_size=batch_size,
            standardized=standardized,
            on_batch=on_batch,
        )
        return {
            axis: reward_math.combine_members(scores, ensemble, penalty=penalty)
            for axis, scores in members.items()
        }

    def combine(
        self, scores: dict[str, Tensor], risks: Sequence[str], *, threshold: float
    ) -> Tensor:
        """One preference score (B,) from those of the axes, as `ScoreScale.combine` says."""
        return self.scale.combine(scores, risks, threshold=threshold)


def member_scores_in_parallel(
    model: RewardModel,
    prompts: Sequence[Sequence[Message]],
    responses: Sequence[str],
    group: "Group",
    *,
    batch_size: int,
    standardized: bool,
    on_batch: OnBatch = lambda done, total: None,
) -> dict[str, Tensor]:
    """`model.member_scores` of texts of which each process of a group scores its share: (B, members)
    for each axis, the same in all processes."""
    share = group.share
    scores = {
        axis: torch.zeros(len(responses), model.members_of(axis)) for axis in model.every_axis
    }
    if responses[share]:
        share_of_scores = model.member_scores(
            prompts[share],
            responses[share],
            batch_size=batch_size,
            standardized=standardized,
            on_batch=on_batch,
        )
        for axis, of_share in share_of_scores.items():
            scores[axis][share] = of_share
    return {axis: group.all_reduce(of_axis) for axis, of_axis in scores.items()}
