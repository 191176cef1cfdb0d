"""Processes that a stage forks from itself, to use every core of one machine for a small model.

A second thread makes the products of a small model about 1.7 times as fast and everything between
them hardly at all; a second process does half of everything. Forked after the imports, it shares
their memory. What the processes tell each other goes through memory that they share, and a byte on a
socket says that it is there: a fifth of the time that gloo takes over the loopback device
(docs/log/ppo_speed.md). A process that ends closes its socket, so nobody waits for it for ever.
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

ARENA = 256 * 1024
"""Bytes that a process tells at once; more goes in turns, which the processor's caches hold."""


class Broken(RuntimeError):
    """Another process of the run has ended."""


def possible() -> bool:
    """Whether processes can be forked here. Elsewhere than on Linux, libraries that torch uses
    don't outlive a fork."""
    return sys.platform == "linux"


class Peers:
    """This process and those that were forked with it; `parallel.Group` says what the acts mean."""

    def __init__(
        self, rank: int, size: int, arena: mmap.mmap, sockets: list[socket.socket]
    ) -> None:
        self.rank, self.size = rank, size
        self.sockets = sockets
        # Two halves in turn: one may still be read while the next message is written.
        self.halves = torch.frombuffer(arena, dtype=torch.uint8).view(2, size, ARENA)
        self.half = 0
        self.children: list[int] = []

    def add(self, tensor: Tensor) -> None:
        """The sum of everybody's (contiguous) tensor, in place; added in the same order by all."""
        flat = tensor.view(-1)
        for part in flat.split(ARENA // flat.element_size()):
            told = self._next(flat.dtype)[:, : len(part)]
            told[self.rank].copy_(part)
            self.wait()
            torch.add(told[0], told[1], out=part)
            for other in told[2:]:
                part.add_(other)

    def add_all(self, tensors: list[Tensor]) -> None:
        """The sum of everybody's (contiguous) float32 tensors, each in place; many in one message."""
        room = ARENA // 4
        message: list[Tensor] = []
        for tensor in tensors:
            for part in _parts(tensor.view(-1), room - sum(map(len, message)), room):
                message.append(part)
                if sum(map(len, message)) == room:
                    self._add_parts(message)
                    message = []
        self._add_parts(message)

    def _add_parts(self, parts: list[Tensor]) -> None:
        if not parts:
            return
        told = self._next(torch.float32)[:, : sum(map(len, parts))]
        torch.cat(parts, out=told[self.rank])
        self.wait()
        sizes = [len(part) for part in parts]
        ours, theirs, *others = (row.split(sizes) for row in told)
        for number, part in enumerate(parts):
            torch.add(ours[number], theirs[number], out=part)
            for other in others:
                part.add_(other[number])

    def gather(self, mine: Any) -> list[Any]:
        """What everybody has to say, by rank. It is pickled: only forks of ourselves read it."""
        data = pickle.dumps(mine)
        sizes = torch.zeros(self.size, dtype=torch.int64)
        sizes[self.rank] = len(data)
        self.add(sizes)
        pieces: list[list[bytes]] = [[] for _ in range(self.size)]
        for start in range(0, int(sizes.max()), ARENA):
            everybody = self._next(torch.uint8)
            part = data[start : start + ARENA]
            if part:
                everybody[self.rank, : len(part)] = torch.frombuffer(
                    bytearray(part), dtype=torch.uint8
                )
            self.wait()
            for rank, size in enumerate(sizes.tolist()):
                here = max(0, min(ARENA, size - start))
                pieces[rank].append(everybody[rank, :here].numpy().tobytes())
        return [pickle.loads(b"".join(parts)) for parts in pieces]  # noqa: S301 - our own

    def wait(self) -> None:
        """Until all are here: each tells the first, and the first tells all."""
        first = self.rank == 0
        for one in self.sockets if first else ():
            self._hear(one)
        for one in self.sockets:
            try:
                one.send(b"x")
            except OSError:
                self._ended()
        for one in () if first else self.sockets:
            self._hear(one)

    def leave(self) -> None:
        """Say goodbye: the others end here, the first one waits until they have.

        They end at once: Python's own way out would write to all that they share with the first, and
        so copy it.
        """
        if self.rank:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        for one in self.sockets:
            one.close()
        for child in self.children:
            os.waitpid(child, 0)
        self.children = []

    def _next(self, dtype: torch.dtype) -> Tensor:
        """(size, most) room for the next message, a row for each process. Each is written once, and
        read after one `wait`: then nobody reads the other half any more."""
        self.half = 1 - self.half
        return self.halves[self.half].view(dtype)

    def _hear(self, one: socket.socket) -> None:
        try:
            told = one.recv(1)
        except OSError:
            told = b""
        if not told:
            self._ended()

    def _ended(self) -> None:
        if self.rank:
            os._exit(1)  # the first one knows why, or is no more
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for child in self.children:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    self.children.remove(child)
                    raise Broken(f"A process that shared the work {_told(status)}.")
            time.sleep(0.01)
        raise Broken("A process that shared the work no longer answers.")


def _parts(tensor: Tensor, first: int, most: int) -> list[Tensor]:
    """Pieces of a flat tensor in order: up to `first` numbers, then up to `most` in each."""
    return [piece for piece in (tensor[:first], *tensor[first:].split(most)) if len(piece)]


def _told(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.waitstatus_to_exitcode(status)}; log.txt has the reason"
    name = signal.Signals(os.WTERMSIG(status)).name
    if name == "SIGKILL":
        return "was killed (SIGKILL), as a system does with what takes too much memory"
    return f"was ended by {name}"


def fork(size: int) -> Peers:
    """Become `size` processes; each returns with its own rank. To be called with one thread set, and
    before torch has started others: they would not be in the forked processes.

    The others end when the first one does, however that happens.
    """
    arena = mmap.mmap(-1, 2 * size * ARENA)
    pairs = [socket.socketpair() for _ in range(size - 1)]
    parent = os.getpid()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads neither
    gc.freeze()  # so that looking for garbage does not copy pages
    sys.stdout.flush()
    sys.stderr.flush()
    children = []
    for rank, (_, theirs) in enumerate(pairs, start=1):
        child = os.fork()
        if child == 0:
            _end_with(parent)
            os.environ["RANK"] = str(rank)  # rundir: only the first one writes
            for other, (near, far) in enumerate(pairs, start=1):
                near.close()
                if other != rank:
                    far.close()
            return Peers(rank, size, arena, [theirs])
        children.append(child)
    for _, theirs in pairs:
        theirs.close()
    peers = Peers(0, size, arena, [near for near, _ in pairs])
    peers.children = children
    return peers


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)
