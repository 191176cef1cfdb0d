"""Processes that a stage forks from itself, to use every core of one machine for a small model.

A second thread speeds up the matrix products of a small model by about 1.7, but not the other
operations; a second process halves the time of all operations. Forked after the imports, the
processes share their memory. They exchange numbers through an arena of shared memory, and a byte on
a socket says that a message is complete: this takes a fifth of gloo's time over the loopback device
(docs/log/ppo_speed.md). A process that ends closes its socket, so that no other process waits for
it forever.
"""

import ctypes
import gc
import mmap
import os
import pickle
import signal
import socket
import sys
import time
from typing import Any

import torch
from torch import Tensor

ARENA_BYTES = 256 * 1024
"""The largest message in bytes; longer messages are split into parts that fit the CPU's caches."""


class WorkerEnded(RuntimeError):
    """Another process of the run has ended."""


def can_fork() -> bool:
    """Whether processes can be forked: only on Linux, because on other systems torch's libraries
    fail after a fork."""
    return sys.platform == "linux"


class ForkedWorkers:
    """This process and those that were forked with it, with torch.distributed's verbs."""

    def __init__(
        self, rank: int, size: int, arena: mmap.mmap, sockets: list[socket.socket]
    ) -> None:
        self.rank, self.size = rank, size
        self.sockets = sockets
        # Two halves in turn: one may still be read while the next message is written.
        self.halves = torch.frombuffer(arena, dtype=torch.uint8).view(2, size, ARENA_BYTES)
        self.half = 0
        self.children: list[int] = []

    def all_reduce(self, tensor: Tensor) -> None:
        """The sum of all processes' (contiguous) tensors, in place. Every process sums in the order
        of the ranks, so that the results are bitwise identical."""
        flat = tensor.view(-1)
        for part in flat.split(ARENA_BYTES // flat.element_size()):
            messages = self._next_messages(flat.dtype)[:, : len(part)]
            messages[self.rank].copy_(part)
            self.barrier()
            torch.add(messages[0], messages[1], out=part)
            for message in messages[2:]:
                part.add_(message)

    def all_reduce_many(self, tensors: list[Tensor]) -> None:
        """The sums of all processes' (contiguous) float32 tensors, each in place; many of them in
        one message."""
        room = ARENA_BYTES // 4
        parts: list[Tensor] = []
        for tensor in tensors:
            for part in _parts(tensor.view(-1), room - sum(map(len, parts)), room):
                parts.append(part)
                if sum(map(len, parts)) == room:
                    self._all_reduce_message(parts)
                    parts = []
        self._all_reduce_message(parts)

    def _all_reduce_message(self, parts: list[Tensor]) -> None:
        """The sums of tensors that fit into one message."""
        if not parts:
            return
        messages = self._next_messages(torch.float32)[:, : sum(map(len, parts))]
        torch.cat(parts, out=messages[self.rank])
        self.barrier()
        sizes = [len(part) for part in parts]
        first, second, *others = (message.split(sizes) for message in messages)
        for number, part in enumerate(parts):
            torch.add(first[number], second[number], out=part)
            for other in others:
                part.add_(other[number])

    def all_gather(self, item: Any) -> list[Any]:
        """All processes' items, by rank. They are pickled: only forks of this process read them."""
        data = pickle.dumps(item)
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(data)
        self.all_reduce(sizes)
        pieces: list[list[bytes]] = [[] for _ in range(self.size)]
        for start in range(0, int(sizes.max()), ARENA_BYTES):
            messages = self._next_messages(torch.uint8)
            part = data[start : start + ARENA_BYTES]
            if part:
                messages[self.rank, : len(part)] = torch.frombuffer(
                    bytearray(part), dtype=torch.uint8
                )
            self.barrier()
            for rank, size in enumerate(sizes.tolist()):
                length = max(0, min(ARENA_BYTES, size - start))
                pieces[rank].append(messages[rank, :length].numpy().tobytes())
        return [pickle.loads(b"".join(parts)) for parts in pieces]  # noqa: S301 - our own

    def barrier(self) -> None:
        """Wait until all processes have called this: each notifies the first, and the first
        notifies all."""
        first = self.rank == 0
        for connection in self.sockets if first else ():
            self._receive(connection)
        for connection in self.sockets:
            try:
                connection.send(b"x")
            except OSError:
                self._end_or_raise()
        for connection in () if first else self.sockets:
            self._receive(connection)

    def close(self) -> None:
        """End all processes but the first, which waits for them.

        They end by `os._exit`: Python's own shutdown would write to all memory that they share with
        the first, and so copy it.
        """
        if self.rank:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        for connection in self.sockets:
            connection.close()
        for child in self.children:
            os.waitpid(child, 0)
        self.children = []

    def _next_messages(self, dtype: torch.dtype) -> Tensor:
        """(size, most) room for the next messages, a row for each process. Each is written once, and
        read after one `barrier`: by then no process reads the other half."""
        self.half = 1 - self.half
        return self.halves[self.half].view(dtype)

    def _receive(self, connection: socket.socket) -> None:
        try:
            received = connection.recv(1)
        except OSError:
            received = b""
        if not received:
            self._end_or_raise()

    def _end_or_raise(self) -> None:
        """Another process has ended: end this process too; the first process raises the reason."""
        if self.rank:
            os._exit(1)  # the first process knows the reason, or has ended itself
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for child in self.children:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    self.children.remove(child)
                    raise WorkerEnded(f"A process that shared the work {_exit_reason(status)}.")
            time.sleep(0.01)
        raise WorkerEnded("A process that shared the work no longer answers.")


def _parts(tensor: Tensor, first: int, most: int) -> list[Tensor]:
    """Pieces of a flat tensor in order: up to `first` numbers, then up to `most` in each."""
    return [piece for piece in (tensor[:first], *tensor[first:].split(most)) if len(piece)]


def _exit_reason(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.waitstatus_to_exitcode(status)}; log.txt has the reason"
    name = signal.Signals(os.WTERMSIG(status)).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), as a system does with what takes too much memory"
    return f"was ended by {name}"


def fork(size: int) -> ForkedWorkers:
    """Become `size` processes; each returns with its own rank. To be called with one thread set, and
    before torch has started threads: the forked processes would not have them.

    The others end when the first one does, however it ends.
    """
    arena = mmap.mmap(-1, 2 * size * ARENA_BYTES)
    pairs = [socket.socketpair() for _ in range(size - 1)]
    parent = os.getpid()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads neither
    gc.freeze()  # so that the garbage collector does not write to, and so copy, shared pages
    sys.stdout.flush()
    sys.stderr.flush()
    children = []
    for rank, (_, child_end) in enumerate(pairs, start=1):
        child = os.fork()
        if child == 0:
            _end_with(parent)
            os.environ["RANK"] = str(rank)  # rundir: only the first process writes
            for other, (near, far) in enumerate(pairs, start=1):
                near.close()
                if other != rank:
                    far.close()
            return ForkedWorkers(rank, size, arena, [child_end])
        children.append(child)
    for _, child_end in pairs:
        child_end.close()
    workers = ForkedWorkers(0, size, arena, [near for near, _ in pairs])
    workers.children = children
    return workers


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before
        os._exit(1)
