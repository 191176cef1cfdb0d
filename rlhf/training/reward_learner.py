"""A reward model while it is trained: its parameters, the optimizer, and its state in a checkpoint."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rlhf.training import parallel
from rlhf.training.configs import RewardModelConfig
from rlhf.training.language_models import pretrained
from rlhf.training.reward_data import RankedGroup
from rlhf.training.reward_models.model import RewardModel
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

    def scores(self, groups: Sequence[RankedGroup]) -> Tensor:
        """Scores (texts, heads, axes) of all responses of the groups, each computed once."""
        texts = [text for group in groups for text in group.texts]
        features = [group.features for group in groups if group.features is not None]
        return self._trunk(self.model.raw_scores, texts, torch.cat(features) if features else None)

    def reliability(self) -> Tensor:
        """(annotators,) from 0, judgments by chance, to 2."""
        if not self.config.reliability:
            return torch.ones_like(self.log_reliability)
        return torch.sigmoid(self.log_reliability) * 2

    def backward(self, loss: Tensor, *, max_norm: float) -> float:
        """Gradients of `loss`, summed over all processes and clipped; returns their norm before
        clipping."""
        self.optimizer.zero_grad()
        loss.backward()
        self.processes.all_reduce_gradients([*self.scorer_parameters, self.log_reliability])
        return parallel.clip_gradients(self.scorer_parameters, max_norm)

    def finish(self) -> list[float]:
        """Make the model ready to score, with all of its weights in this process; returns each
        annotator's reliability."""
        if self.processes.sharded:
            weights = self.state()
            self.model.trunk = pretrained.load_trunk(self.config.trunk, "trunk")
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
        """A full copy of the trained parameters, on the CPU. A collective: all processes call it."""
        return {
            name: parallel.full_tensor(p.detach()).cpu().clone().contiguous()
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
