"""Several processes that train one policy: each works on its share, and all know the whole.

    torchrun --nproc-per-node 2 -m rlhf.training.ppo RUN_DIR

A rollout is small beside the work that makes it. So every process answers, scores and reads its
share of the responses, then all exchange the numbers, and each computes advantages over the whole
rollout: whitening across processes needs nothing special. Gradients are added up once per
minibatch, each share weighted by its tokens in the whole minibatch, so that N processes take the
step that one would take.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """This process among its peers; alone unless `torchrun` started it."""

    rank: int = 0
    size: int = 1

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder: one of them does."""
        return self.rank == 0

    @property
    def share(self) -> slice:
        """Which items of a list are this process's."""
        return slice(self.rank, None, self.size)

    def merge(self, mine: list[T], total: int) -> list[T]:
        """The whole list of `total` items from everybody's `share` of it."""
        if self.size == 1:
            return mine
        everybody: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everybody, mine)
        whole: list[Any] = [None] * total
        for rank, theirs in enumerate(everybody):
            whole[rank :: self.size] = theirs
        return whole

    def add(self, tensor: Tensor) -> Tensor:
        """The sum of everybody's tensor, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def add_numbers(self, numbers: dict[str, float]) -> dict[str, float]:
        """The sums of everybody's numbers, under the same names."""
        if self.size == 1:
            return numbers
        added = self.add(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, added.tolist(), strict=True))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Add up everybody's gradients, all in one message; a missing one counts as 0."""
        if self.size == 1:
            return
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        )
        self.add(flat)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.numel()].view_as(p)
            start += p.numel()

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - a question about one flag
        """Whether it is so in any process."""
        return bool(self.add(torch.tensor(float(flag))))

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            torch.distributed.barrier()


def join(device: torch.device) -> Group:
    """Meet the other processes that `torchrun` started; alone without it."""
    if not torch.distributed.is_available() or not torch.distributed.is_torchelastic_launched():
        return Group()
    torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Group(torch.distributed.get_rank(), torch.distributed.get_world_size())


def leave(group: Group) -> None:
    """Say goodbye, so that no process waits for one that has ended."""
    if group.size > 1:
        torch.distributed.destroy_process_group()
