"""Data parallelism: several processes train one model, each on its share of the batch.

    torchrun --nproc-per-node 2 -m rlhf.training.ppo RUN_DIR

or, on the CPU of one machine, by forking the stage's own process (`cpu.fork`). Every process
generates and scores its share of the responses. Then all exchange the resulting numbers, which are
small, and each process computes the advantages of the whole rollout, so that whitening needs no
further communication. Gradients are summed once per minibatch, each share weighted by its tokens in
the whole minibatch, so that N processes take the same step as one process. Reward models are trained
in the same way, with shares of the rankings.

Each process has all weights, or with `sharded` a share of every weight, of its gradient and of its
optimizer state (FSDP2, torch's `fully_shard`; Zhao et al. 2023, "PyTorch FSDP"). A stage does the
same in both cases: it calls `Group.shard` on a model, trains it through the object that it gets
(`sharded(function, ...)`) and reads it inside `sharded.unsharded()`.
"""

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlhf.training import cpu
from rlhf.training.rundir.errors import InputError

T = TypeVar("T")

MAX_DEFAULT_PROCESSES = 4
"""The most processes that a stage forks by itself, because a batch has few rows; further threads are
divided among them."""

MAX_PARAMETERS_TO_FORK = 20_000_000
"""Up to this size several processes replace threads by default: matrix products are small, and so
are the copies of the weights. Measured at one million (docs/log/startup_and_memory.md)."""


@dataclass(frozen=True)
class Group:
    """This process among those that train together; alone unless it was forked or `torchrun`
    started it."""

    rank: int = 0
    size: int = 1
    sharded: bool = False
    """Whether a process has a share of every weight instead of all weights."""
    workers: cpu.ForkedWorkers | None = None
    """How forked processes exchange numbers; None where torch.distributed does it."""

    @property
    def is_main_process(self) -> bool:
        """Whether this is the one process that writes the run folder."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which items of a list are this process's."""
        return slice(self.rank, None, self.size)

    def balanced_share(self, items: Sequence[T]) -> list[T]:
        """This process's items of a list that is sorted by cost: dealt out forwards and backwards in
        turn, so that no process always gets the larger ones."""
        period = 2 * self.size
        return [
            x for i, x in enumerate(items) if self.rank in (i % period, period - 1 - i % period)
        ]

    def all_gather(self, items: list[T], total: int) -> list[T]:
        """The whole list of `total` items from every process's `share` of it."""
        if self.size == 1:
            return items
        shares: list[Any] = [None] * self.size
        if self.workers:
            shares = self.workers.all_gather(items)
        else:
            torch.distributed.all_gather_object(shares, items)
        whole: list[Any] = [None] * total
        for rank, share in enumerate(shares):
            whole[rank :: self.size] = share
        return whole

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum of all processes' tensors, in place."""
        if self.workers:
            self.workers.all_reduce(tensor)
        elif self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def all_reduce_numbers(self, numbers: dict[str, float]) -> dict[str, float]:
        """The sums of all processes' numbers, under the same names."""
        if self.size == 1:
            return numbers
        sums = self.all_reduce(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, sums.tolist(), strict=True))

    def all_reduce_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum all processes' gradients, in one message. A missing gradient counts as 0; where every
        process lacks it, it stays missing, so that the optimizer leaves the parameter alone.

        The gradients of shards are summed already, by the backward pass.
        """
        parameters = [p for p in parameters if not is_sharded(p)]
        if self.size == 1 or not parameters:
            return
        present = torch.tensor([float(p.grad is not None) for p in parameters])
        grads = [torch.zeros_like(p) if p.grad is None else p.grad.contiguous() for p in parameters]
        if self.workers:
            self.workers.all_reduce_many([*grads, present])
        else:
            present = present.to(grads[0])
            flat = self.all_reduce(torch.cat([t.flatten() for t in (*grads, present)]))
            *grads, present = flat.split([t.numel() for t in (*grads, present)])
        for p, grad, count in zip(parameters, grads, present.tolist(), strict=True):
            p.grad = grad.view_as(p) if count else None

    def pad_to_equal_count(
        self, microbatches: list[list[int]], padding: list[int]
    ) -> list[tuple[list[int], float]]:
        """This process's microbatches with their weight, 1.

        Sharded weights are fetched by all processes at once, so there every process needs equally
        many microbatches: a process with fewer repeats `padding` with weight 0.
        """
        weighted = [(rows, 1.0) for rows in microbatches]
        if self.sharded:
            most = torch.tensor(len(microbatches))
            torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
            weighted += [(padding, 0.0)] * (int(most) - len(microbatches))
        return weighted

    def shard(self, model: nn.Module, device: torch.device) -> "Unsharded | Sharded":
        """The model as this group trains it. Sharding replaces the module's parameters, so make the
        optimizer afterwards."""
        return Sharded(model, self.size, device) if self.sharded else Unsharded()

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - a question about one flag
        """Whether the flag is set in any process."""
        return bool(self.all_reduce(torch.tensor(float(flag))))

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.workers:
            self.workers.barrier()
        elif self.size > 1:
            torch.distributed.barrier()


class Unsharded:
    """A model of which this process has all weights."""

    def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function`; the tensors that it returns may be trained on."""
        return function(*arguments)

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
        """All weights are here, while the model is only read."""
        yield


class Sharded(nn.Module):
    """A model of which this process has a share of every weight.

    A layer's weights are fetched when it computes, forward and backward, and freed again; all other
    weights (embeddings, the head, a norm) are here from the beginning of a call to its end.
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
            # Losses are weighted by their share of the whole, so gradients are summed, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo can't multiply while it sums
        self(lambda: None)  # FSDP2 takes the module that is called first for the root

    def forward(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function`; the tensors that it returns may be trained on. All processes call
        together, and equally often (`Group.pad_to_equal_count`)."""
        return function(*arguments)

    @contextlib.contextmanager
    def unsharded(self) -> Iterator[None]:
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


# --- Tensors that may be shards: torch's names for them, which take plain tensors too ---------------


def is_sharded(tensor: Any) -> bool:
    """Whether it is a process's share of a tensor (a DTensor)."""
    return hasattr(tensor, "full_tensor")  # asked without importing DTensor's module


def full_tensor(tensor: Any) -> Tensor:
    """The tensor that every process has a share of; all processes call together."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return full


def distribute_tensor(tensor: Tensor, like: Any) -> Tensor:
    """This process's share of a tensor that every process has, laid out as `like` is."""
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor as distribute

    tensor = tensor.to(like.device)
    return distribute(tensor, like.device_mesh, like.placements, src_data_rank=None)


def to_local(tensor: Any) -> Tensor:
    """This process's share of a tensor, in the same memory."""
    local: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return local


def local_fraction(parameters: Sequence[Any]) -> float:
    """The fraction of all numbers in `parameters` that this process has."""
    local: int = sum(to_local(p).numel() for p in parameters)
    return local / sum(p.numel() for p in parameters)


def clip_gradients(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Clip the gradients to the norm `max_norm` (0: no limit); returns the norm before clipping.

    Some may be shards: then all processes call together.
    """
    limit = max_norm or math.inf
    kinds = [[p for p in parameters if is_sharded(p) == sharded] for sharded in (True, False)]
    if not (kinds[0] and kinds[1]):
        return float(full_tensor(nn.utils.clip_grad_norm_(parameters, limit)))
    norms = [
        full_tensor(nn.utils.get_total_norm([p.grad for p in some if p.grad is not None]))
        for some in kinds
    ]
    norm = torch.linalg.vector_norm(torch.stack(norms))
    for some in kinds:
        nn.utils.clip_grads_with_norm_(some, limit, norm)
    return float(norm)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as full tensors, under names for a file. All processes call together."""
    return {
        f"{number}.{name}": full_tensor(value.detach())
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    """Load what `optimizer_state` returned."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in state.items():
        number, name = key.split(".")
        if name != "step":
            value = distribute_tensor(value, parameters[int(number)])
        entries.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(
        {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
    )


# --- Starting and ending ----------------------------------------------------------------------------


def init_process_group(device: torch.device, *, sharded: bool = False) -> Group:
    """The group of the processes that `torchrun` started; a group of one without it.

    `InputError` if weights are to be sharded and there is one process only.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        # Numbers that are exchanged are on the CPU whatever the models are on.
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend)
        group = Group(torch.distributed.get_rank(), torch.distributed.get_world_size(), sharded)
    else:
        group = Group()
    if sharded and group.size == 1:
        raise InputError(
            "sharded is on, but a single process cannot shard its weights; start several "
            "with torchrun --nproc-per-node, or switch sharded off."
        )
    return group


def can_fork() -> bool:
    """Whether a stage can fork here (Linux only)."""
    return cpu.can_fork()


def fork(group: Group, size: int) -> Group:
    """Fork into `size` processes on one machine, which replace one process with `size` threads.

    Only a stage that was started as a command forks: code that calls `main` as a function would run
    on in every process.
    """
    if group.size > 1 or size < 2 or not (_is_stage_command() and can_fork()):
        return group
    workers = cpu.fork(size)
    return Group(workers.rank, size, workers=workers)


def default_processes(n_parameters: int, device: torch.device, threads: int) -> int:
    """How many processes a stage forks by itself: one a thread (at most MAX_DEFAULT_PROCESSES) if the
    model is small (0 parameters: of unknown size) and on a CPU, else 1."""
    is_small = 0 < n_parameters <= MAX_PARAMETERS_TO_FORK
    forks = is_small and device.type == "cpu" and can_fork()
    return min(threads, MAX_DEFAULT_PROCESSES) if forks else 1


def share_work(group: Group, size: int, threads: int) -> Group:
    """`fork`, with the threads divided among the processes. Call this before torch has started any
    threads: with one thread set until then."""
    group = fork(group, size)
    torch.set_num_threads(max(1, threads // group.size) if group.workers else threads)
    return group


def _is_stage_command() -> bool:
    """Whether this process is `python -m rlhf.training.<stage>`."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.startswith(f"{__package__}.")


def destroy_process_group(group: Group) -> None:
    """Leave the group, so that no process waits for one that has ended."""
    if group.workers:
        group.workers.close()
    elif group.size > 1:
        torch.distributed.destroy_process_group()
