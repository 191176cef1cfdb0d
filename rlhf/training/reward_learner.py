"""A reward model while it is trained: its parameters, the optimizer, and its state in a checkpoint."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from rlhf.training import microbatches, parallel
from rlhf.training.configs import RewardModelConfig
from rlhf.training.language_models import adapters, pretrained
from rlhf.training.reward_data import RankedGroup
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.texts import Text, by_length, padded_tokens
from rlhf.training.rundir.checkpoints import settings_changed
from rlhf.training.schedule import learning_rate_at

FEW_NUMBERS_RATE = 0.3
"""Peak learning rate of the tie rates and the annotators' reliabilities. They are few parameters, each
with gradients from many rankings, and must converge within some dozens of steps."""


class Learner:
    """All trained parameters: the trunk (or its adapters), the heads, a tie rate per axis and the
    reliability of each annotator."""

    def __init__(
        self,
        model: RewardModel,
        n_annotators: int,
        processes: parallel.Group,
        config: RewardModelConfig,
    ) -> None:
        self.model, self.processes, self.config = model, processes, config
        self.log_reliability = nn.Parameter(torch.zeros(n_annotators, device=model.device))
        self._shares_prompts = model.shares_prompts
        if processes.sharded:  # the backward pass through a cache would not gather sharded weights
            model.shares_prompts = False
        self._trunk = processes.shard(model.trunk, model.device)  # replaces the trunk's parameters
        trunk = [p for p in model.trunk.parameters() if p.requires_grad]
        self.local_fraction = parallel.local_fraction(trunk)
        self.scorer_parameters = [*trunk, *model.heads.parameters(), model.log_nu]
        """The parameters that scores depend on; their gradients are clipped."""
        self.optimizer = torch.optim.AdamW(
            [
                {"params": trunk, "peak": config.learning_rate},
                {"params": [*model.heads.parameters()], "peak": config.head_learning_rate},
                {"params": [model.log_nu, self.log_reliability], "peak": FEW_NUMBERS_RATE},
            ],
            weight_decay=config.weight_decay,
            fused=True,
        )
        model.trunk.train()

    def set_learning_rates(self, step: int, *, total: int) -> None:
        """Linear warm-up to each group's peak, then linear decay to 0."""
        warmup = min(self.config.warmup_steps, total // 4)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(
                step, peak=group["peak"], warmup=warmup, total=total, floor=0.0
            )

    def passes(
        self, mine: Sequence[RankedGroup], spare: Sequence[RankedGroup]
    ) -> list[tuple[list[RankedGroup], float]]:
        """This process's groups of a batch in forward passes that fit into memory, each with its
        weight: 1, or 0 where it only keeps the processes in step.

        A group is never cut: its loss depends on all of its scores. `spare` has at least one group,
        for a process without any of its own.
        """
        groups = [*mine, spare[0]]
        parts = microbatches.split(
            range(len(mine)),
            size=len(groups),
            tokens=self.model.most_tokens(trains=True),
            padded=lambda rows: padded_tokens([t for i in rows for t in groups[i].texts]),
        )
        weighted = self.processes.pad_to_equal_count(list(parts), [len(mine)])
        return [([groups[i] for i in rows], weight) for rows, weight in weighted]

    def add_gradients(
        self, groups: Sequence[RankedGroup], loss_of: Callable[[Tensor], Tensor]
    ) -> float:
        """Add the gradients of `loss_of(scores)`, where scores (texts, heads, axes) are those of all
        responses of the groups; returns the loss.

        Responses to one prompt that exceed a pass are scored first, then the gradients of their
        scores are computed, and then each pass is repeated with its gradients (Gao et al. 2021,
        "Scaling deep contrastive learning batch size under memory limited setup"): the memory is
        that of a pass for any number of responses, and the gradients are the same.
        """
        texts = [text for group in groups for text in group.texts]
        given = [group.features for group in groups if group.features is not None]
        features = torch.cat(given) if given else None
        most = self.model.most_tokens(trains=True)
        # Sharded weights are fetched by all processes together, which this would bring out of step.
        if padded_tokens(texts) <= most or self.processes.sharded:
            loss = loss_of(self._scores(texts, features))
            loss.backward()
            return float(loss.detach())
        parts = by_length(texts, len(texts), most)
        scores = torch.zeros(
            len(texts), self.model.n_heads, len(self.model.axes), device=self.model.device
        )
        with torch.no_grad():
            for rows in parts:
                scores[rows] = self._scores(texts, features, rows)
        loss = loss_of(scores.requires_grad_())
        loss.backward()  # of the scores, the tie rates and the reliabilities
        assert scores.grad is not None
        for rows in parts:
            self._scores(texts, features, rows).backward(scores.grad[rows])
        return float(loss.detach())

    def _scores(
        self, texts: Sequence[Text], features: Tensor | None, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Scores (texts, heads, axes) of the texts, or of some `rows` of them."""
        if rows is not None:
            texts = [texts[i] for i in rows]
            features = None if features is None else features[list(rows)]
        return self._trunk(self.model.raw_scores, texts, features)

    def reliability(self) -> Tensor:
        """(annotators,) from 0, judgments by chance, to 2."""
        if not self.config.reliability:
            return torch.ones_like(self.log_reliability)
        return torch.sigmoid(self.log_reliability) * 2

    def sum_and_clip_gradients(self, max_norm: float) -> float:
        """Sum the added gradients over all processes and clip them; returns their norm before
        clipping."""
        self.processes.all_reduce_gradients([*self.scorer_parameters, self.log_reliability])
        return parallel.clip_gradients(self.scorer_parameters, max_norm)

    def finish(self) -> list[float]:
        """Make the model ready to score, with all of its weights in this process; returns each
        annotator's reliability."""
        if self.processes.sharded:
            weights = self.state()
            self.model.trunk, _ = adapters.load_trunk(self.config.trunk, "trunk")
            self.model.trunk.to(self.model.device)
            pretrained.disable_dropout(self.model.trunk)
            self.load(weights)
            self.model.shares_prompts = self._shares_prompts
        self.model.trunk.eval()
        for parameter in self.model.parameters():
            parameter.requires_grad, parameter.grad = False, None
        del (
            self.optimizer,
            self.scorer_parameters,
            self._trunk,
        )  # their memory, before the next model
        return (torch.sigmoid(self.log_reliability) * 2).tolist()

    def _named_parameters(self) -> dict[str, Tensor]:
        """The trained parameters by their name in a checkpoint."""
        named: dict[str, Tensor] = {
            f"trunk.{name}": p
            for name, p in self.model.trunk.named_parameters()
            if not self.model.adapters or "lora_" in name
        }
        named |= {f"heads.{name}": p for name, p in self.model.heads.named_parameters()}
        return named | {"log_nu": self.model.log_nu, "log_reliability": self.log_reliability}

    def state(self) -> dict[str, Tensor]:
        """The trained parameters in full, on the CPU: the tensors themselves where they are there. A
        collective: all processes call it."""
        return {
            name: parallel.full_tensor(p.detach()).cpu().contiguous()
            for name, p in self._named_parameters().items()
        }

    @torch.no_grad()
    def load(self, state: dict[str, Tensor]) -> None:
        """Load a result of `state`; `InputError` if it belongs to another model."""
        parameters = self._named_parameters()
        if {n: t.shape for n, t in state.items()} != {n: p.shape for n, p in parameters.items()}:
            raise settings_changed("model-*.safetensors")
        for name, tensor in state.items():
            parameters[name].copy_(parallel.distribute_tensor(tensor, parameters[name]))
