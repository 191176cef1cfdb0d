"""What a stage's process does without, so that it starts in two thirds of the time.

To read a model's class, transformers imports what no stage of ours calls: torch's compiler (which
torch's optimizers load too, only to say that they are not to be compiled), tensors spread over many
machines, and scipy. Each is left out by the means that Python or transformers has for its absence,
and comes after all where somebody asks for it.
"""

import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from rlhf.training import STARTING

ABSENT = ("accelerate", "scipy", "sklearn", "torchvision")
"""Packages that transformers imports where they are installed, and does without where not."""


def import_little() -> None:
    """Have torch and transformers import little, in a process that is a stage's own.

    Without effect once transformers is there, as where a stage needs all of it for its trainer.
    """
    if not STARTING or "transformers" in sys.modules:
        return
    import torch

    if "torch._dynamo" not in sys.modules:
        _delay_compiler()
    alone = "RANK" not in os.environ  # torchrun did not start it
    is_available = torch.distributed.is_available
    if alone:
        torch.distributed.is_available = lambda: False
        setattr(torch.distributed, "__getattr__", _part_of_distributed)  # noqa: B010 - a module's
    hidden = {name: sys.modules.pop(name) for name in ABSENT if name in sys.modules}
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(ABSENT))  # None: Python's way to say that it can't be imported
    try:
        # transformers remembers the answer to each question, so it is asked while it is no.
        from transformers.utils import import_utils

        for name in ABSENT:
            getattr(import_utils, f"is_{name}_available")()
        import_utils.is_torch_distributed_available()
    finally:
        for name in ABSENT:
            del sys.modules[name]
        sys.modules.update(hidden)
        torch.distributed.is_available = is_available


def _part_of_distributed(name: str) -> Any:
    """A module that others expect to have been imported, as peft does `torch.distributed.tensor`."""
    try:
        return importlib.import_module(f"torch.distributed.{name}")
    except ModuleNotFoundError:
        raise AttributeError(name) from None


def _as_it_is(fn: Any = None, *_: Any, **__: Any) -> Any:
    """Decorate a function with nothing: how it would be compiled matters to a compiler only."""
    return fn if fn is not None else _as_it_is


class _Compiler(ModuleType):
    """`torch._dynamo` while nothing is compiled; at any other wish it becomes the real one."""

    disable = allow_in_graph = assume_constant_result = staticmethod(_as_it_is)
    graph_break = staticmethod(lambda: None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec: Any = self.__spec__
        self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)
        return getattr(self, name)


def _delay_compiler() -> None:
    import torch

    spec = importlib.util.find_spec("torch._dynamo")
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Compiler
    sys.modules["torch._dynamo"] = torch._dynamo = module
    # The one part of it that transformers needs can do without the others.
    importlib.import_module("torch._dynamo._trace_wrapped_higher_order_op")
    del module.__path__
