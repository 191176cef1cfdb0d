"""Several processes that train one model: each works on its share, and all know the whole.

    torchrun --nproc-per-node 2 -m rlhf.training.ppo RUN_DIR

or, on the CPU of one machine, by forking itself (forked.py). A rollout is small beside the work that
makes it. So every process answers, scores and reads its share of the responses, then all exchange
the numbers, and each computes advantages over the whole rollout: whitening across processes needs
nothing special. Gradients are added up once per minibatch, each share weighted by its tokens in the
whole minibatch, so that N processes take the step that one would take. Reward models are trained in
the same way, by their rankings.

Each process holds all weights, or with `sharded` a share of every one, of its gradient and of what
the optimizer remembers of it (FSDP2, torch's `fully_shard`; Zhao et al. 2023, "PyTorch FSDP"). A
stage does the same in both cases: it asks the group to `hold` a model, has it trained inside
`held(...)` and read inside `held.gathered()`.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlhf.training import STARTING, forked
from rlhf.training.rundir import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among its peers; alone unless `torchrun` started it."""

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Whether a process holds a share of every weight instead of all weights."""
    peers: forked.Peers | None = None
    """The others, where this process or theirs was forked; else torch.distributed knows them."""

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder: one of them does."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which items of a list are this process's."""
        return slice(self.rank, None, self.size)

    def fair_share(self, items: Sequence[T]) -> list[T]:
        """This process's items of a list that is sorted by the work they are: there and back, so that
        nobody has always the larger ones."""
        period = 2 * self.size
        return [
            x for i, x in enumerate(items) if self.rank in (i % period, period - 1 - i % period)
        ]

    def merge(self, mine: list[T], total: int) -> list[T]:
        """The whole list of `total` items from everybody's `share` of it."""
        if self.size == 1:
            return mine
        everybody: list[Any] = [None] * self.size
        if self.peers:
            everybody = self.peers.gather(mine)
        else:
            torch.distributed.all_gather_object(everybody, mine)
        whole: list[Any] = [None] * total
        for rank, theirs in enumerate(everybody):
            whole[rank :: self.size] = theirs
        return whole

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor, in place."""
        if self.peers:
            self.peers.add(tensor)
        elif self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def add_numbers(self, numbers: dict[str, float]) -> dict[str, float]:
        """The sums of everybody's numbers, under the same names."""
        if self.size == 1:
            return numbers
        added = self.add(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, added.tolist(), strict=True))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up everybody's gradients, all in one message; a missing one counts as 0, unless nobody
        has it: then it stays missing, so that the optimizer leaves the parameter alone.

        Those of shards have been added up on the backward pass.
        """
        parameters = [p for p in parameters if not is_shard(p)]
        if self.size == 1 or not parameters:
            return
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.contiguous() for p in parameters]
        if self.peers:
            self.peers.add_all([*grads, there])
        else:
            there = there.to(grads[0])
            flat = self.add(torch.cat([t.flatten() for t in (*grads, there)]))
            *grads, there = flat.split([t.numel() for t in (*grads, there)])
        for p, grad, somebody in zip(parameters, grads, there.tolist(), strict=True):
            p.grad = grad.view_as(p) if somebody else None

    def even(self, parts: list[list[int]], spare: list[int]) -> list[tuple[list[int], float]]:
        """Parts of this process's work with their weight, 1.

        Sharded weights are fetched by all at once, so there everybody needs as many parts: whoever
        has fewer repeats `spare` with weight 0.
        """
        weighted = [(part, 1.0) for part in parts]
        if self.sharded:
            most = torch.tensor(len(parts))
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            weighted += [(spare, 0.0)] * (int(most) - len(parts))
        return weighted

    def hold(self, model: nn.Module, device: torch.device) -> "Whole | Shards":
        """How this process holds a model from now on. Its parameters are others afterwards, so an
        optimizer is to be made later."""
        return Shards(model, self.size, device) if self.sharded else Whole()

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - a question about one flag
        """Whether it is so in any process."""
        return bool(self.add(torch.tensor(float(flag))))

    def wait(self) -> None:
        """Until all are here."""
        if self.peers:
            self.peers.wait()
        elif self.size > 1:
            torch.distributed.barrier()


class Whole:
    """A model of which this process has everything."""

    def __call__(self, act: Callable[..., T], *given: Any) -> T:
        """What `act` returns, which may be trained on."""
        return act(*given)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """While the model is only read."""
        yield


class Shards(nn.Module):
    """A model of which this process has a share of every weight.

    A layer's weights are fetched when it computes, forward and backward, and let go again; all
    others (embeddings, the head, a norm) from the beginning of `act` to its end.
    """

    def __init__(self, model: nn.Module, size: int, device: torch.device) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        super().__init__()
        self.model = model
        mesh = init_device_mesh(device.type, (size,))
        names = {n for m in model.modules() for n in getattr(m, "_no_split_modules", None) or ()}
        for layer in [m for m in model.modules() if type(m).__name__ in names]:
            fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        fully_shard(self, mesh=mesh, reshard_after_forward=True)
        self.parts = [m for m in self.modules() if isinstance(m, FSDPModule)]
        for part in self.parts:
            # Losses are weighted by their share of the whole, so gradients are added, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo can't multiply while it adds
        self(lambda: None)  # whatever is called first is taken for the whole

    def forward(self, act: Callable[..., T], *given: Any) -> T:
        """What `act` returns: tensors of which some are trained on. All processes call together,
        and equally often (`Group.even`)."""
        return act(*given)

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """All weights are here at once, as plain parameters, to be read any number of times."""
        for part in self.parts:
            part.set_reshard_after_forward(False)
            part.unshard()
        try:
            yield
        finally:
            for part in self.parts:
                part.reshard()
                part.set_reshard_after_forward(True)


def is_shard(tensor: Any) -> bool:
    """Whether it is a process's share of a tensor."""
    return hasattr(tensor, "full_tensor")  # a DTensor, whose module is not imported for asking


def whole(tensor: Any) -> Tensor:
    """The tensor that everybody has a share of; all processes ask together."""
    all_of_it: Tensor = tensor.full_tensor() if is_shard(tensor) else tensor
    return all_of_it


def share_of(tensor: Tensor, like: Any) -> Tensor:
    """This process's share of a tensor that everybody has, as it has one of `like`."""
    if not is_shard(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    tensor = tensor.to(like.device)
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Any) -> Tensor:
    """What this process has of a tensor, sharing its memory."""
    mine: Tensor = tensor.to_local() if is_shard(tensor) else tensor
    return mine


def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Clip the gradients to `max_norm` (0: leave them) and return the norm that they had.

    Some may be shards: then all processes ask together.
    """
    limit = max_norm or math.inf
    kinds = [[p for p in parameters if is_shard(p) == shard] for shard in (True, False)]
    if not (kinds[0] and kinds[1]):
        return float(whole(nn.utils.clip_grad_norm_(parameters, limit)))
    norms = [
        whole(nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]))
        for some in kinds
    ]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for some in kinds:
        nn.utils.clip_grads_with_norm_(some, limit, norm)
    return float(norm)


def moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers, whole, under names for a file. All processes ask together."""
    return {
        f"{number}.{name}": whole(value.detach())
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def put_moments(optimizer: torch.optim.Optimizer, saved: dict[str, Tensor]) -> None:
    """Put back what `moments` gave."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, name = key.split(".")
        if name != "step":
            value = share_of(value, parameters[int(number)])
        entries.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(
        {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def held_here(parameters: Sequence[Any]) -> float:
    """The share of all numbers in `parameters` that this process holds."""
    here: int = sum(local(p).numel() for p in parameters)
    return here / sum(p.numel() for p in parameters)


def join(device: torch.device, *, sharded: bool = False) -> Group:
    """Meet the other processes that `torchrun` started; alone without it.

    `InputError` if weights are to be sharded and there is nobody to share them with.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Numbers that are exchanged are on the CPU whatever the models are on.
        together = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(together)
        group = Group(torch.distributed.get_rank(), torch.distributed.get_world_size(), sharded)
    else:
        group = Group()
    if sharded and group.size == 1:
        raise InputError(
            "sharded is on, but one process alone has nobody to share weights with; start several "
            "with torchrun --nproc-per-node, or switch sharded off."
        )
    return group


def fork(group: Group, size: int) -> Group:
    """Become `size` processes of one machine, in place of one with as many threads.

    Only a stage that is alone in a process of its own does: whoever called it as a function does not
    expect to be there twice.
    """
    if group.size > 1 or size < 2 or not (STARTING and forked.possible()):
        return group
    peers = forked.fork(size)
    return Group(peers.rank, size, peers=peers)


def leave(group: Group) -> None:
    """Say goodbye, so that no process waits for one that has ended."""
    if group.peers:
        group.peers.leave()
    elif group.size > 1:
        torch.distributed.destroy_process_group()
