"""Stages as processes of their own that need not import torch and transformers first.

Imports are four of the five seconds of CPU that a tiny stage takes. One process imports them once and
then only forks: each fork becomes `python -m rlhf.training.<stage> RUN_DIR`, with its own arguments,
output, signals and exit code. `python -m tests.rlhf.training.warm FD` is that process.
"""

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
STAGES = (
    "base", "dpo", "evaluate", "generate", "ppo", "reward_model", "selection", "sft",
)  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
# What transformers imports only when a model of the kind is built.
MODELS = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.tokenization_utils_tokenizers",
    "torch._dynamo",
)


class Stage:
    """A stage that runs, with what tests use of `subprocess.Popen`."""

    def __init__(self, stage: str, folder: Path, **environment: str) -> None:
        self.args = ["-m", f"rlhf.training.{stage}", str(folder)]
        self.returncode: int | None = None
        self._files = [tempfile.TemporaryFile("w+") for _ in range(2)]  # noqa: SIM115
        self._said, theirs = socket.socketpair()
        order = {"stage": stage, "folder": str(folder)}
        order["environment"] = os.environ | ENVIRONMENT | environment
        handles = [*(file.fileno() for file in self._files), theirs.fileno()]
        socket.send_fds(_starter(), [json.dumps(order).encode()], handles)
        theirs.close()
        self.pid = int(self._said.recv(20))

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._answer(0)

    def wait(self, timeout: float | None = None) -> int:
        answer = self._answer(timeout)
        if answer is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return answer

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed and what it said on the error stream, once it has ended."""
        self.wait(timeout)
        for file in self._files:
            file.seek(0)
        out, err = (file.read() for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _answer(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._said], [], [], timeout)[0]:
            text = self._said.recv(20)
            assert text, "the process that forks stages has ended"
            self.returncode = int(text)
            self._said.close()
        return self.returncode


@functools.cache
def _starter() -> socket.socket:
    """The socket of the process that imports once and forks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(
        [sys.executable, "-m", __spec__.name, str(theirs.fileno())],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def serve(orders: socket.socket) -> None:
    """Fork whatever is ordered, and say how each fork ended, until the test's process closes."""
    for name in MODELS:
        importlib.import_module(name)
    for stage in STAGES:
        importlib.import_module(f"rlhf.training.{stage}")
    waiting: dict[int, tuple[int, socket.socket]] = {}  # by the handle of the process
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready in waiting:
                pid, listener = waiting.pop(ready)
                poll.unregister(ready)
                os.close(ready)
                _, status = os.waitpid(pid, 0)
                with contextlib.suppress(BrokenPipeError):
                    listener.send(str(os.waitstatus_to_exitcode(status)).encode())
                listener.close()
                continue
            order, handles, _, _ = socket.recv_fds(orders, 1 << 20, 3)
            if not order:
                return
            out, err, said = handles
            pid = os.fork()
            if not pid:
                for _, other in waiting.values():
                    other.close()
                orders.close()
                os.close(said)
                _become(json.loads(order), out, err)
            listener = socket.socket(fileno=said)
            listener.send(str(pid).encode())
            os.close(out)
            os.close(err)
            handle = os.pidfd_open(pid)
            waiting[handle] = pid, listener
            poll.register(handle, select.POLLIN)


def _become(order: dict[str, Any], out: int, err: int) -> None:
    """In the fork: the stage's command, to its end."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = ["", order["folder"]]
    code = 1
    try:
        # Its module is imported anew, as a process of its own would.
        sys.modules.pop(f"rlhf.training.{order['stage']}", None)
        runpy.run_module(f"rlhf.training.{order['stage']}", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
