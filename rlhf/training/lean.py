"""What a stage's process does without, so that it starts in two thirds of the time.

To read a model's class, transformers imports what no stage of ours calls: torch's compiler (which
torch's optimizers load too, only to say that they are not to be compiled), tensors spread over many
machines, and scipy. Each is left out by the means that Python or transformers has for its absence,
and comes after all where somebody asks for it.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf.training import STARTING

ABSENT = ("accelerate", "scipy", "sklearn", "torchvision")
"""Packages that transformers imports where they are installed, and does without where not."""
META = "torch._meta_registrations"
STAGES = {"base", "best_of_n", "evaluate", "generate", "grow", "ppo", "reward_model"}
"""Those without a trainer or server of somebody else's."""


def import_torch() -> None:
    """Import torch without what it writes in Python for the meta device, for stages that need little.

    A model is built there before its weights are read, for which torch's own C++ is enough in most.
    The rest is for compilers, takes 20 MB and a quarter of a second, and imports sympy once used.
    """
    stage = next((one for one in sys.orig_argv if one.startswith("rlhf.training.")), "")
    if stage.rpartition(".")[2] not in STAGES or "torch" in sys.modules or "RANK" in os.environ:
        return
    _delay(META, _Later)
    import torch

    # One line of what waits, without which there are no random numbers.
    torch._C._set_generator_metaclass(torch._opaque_base.OpaqueBaseMeta)


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
    with _absent(*ABSENT):
        # transformers remembers the answer to each question, so it is asked while it is no.
        from transformers.utils import import_utils

        for name in ABSENT:
            getattr(import_utils, f"is_{name}_available")()
        import_utils.is_torch_distributed_available()
    torch.distributed.is_available = is_available


def save(model: Any, folder: Path) -> None:
    """`model.save_pretrained(folder)`, which looks for shards of other machines only where some
    could be."""
    sharded = "torch.distributed.tensor"
    with _absent(*(() if sharded in sys.modules else (sharded,))):
        model.save_pretrained(folder)


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Have modules not be there for whoever imports them."""
    hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    modules: dict[str, Any] = sys.modules
    modules.update(dict.fromkeys(names))  # None: Python's way to say that it can't be imported
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(hidden)


def _part_of_distributed(name: str) -> Any:
    """A module that others expect to have been imported, as peft does `torch.distributed.tensor`."""
    try:
        return importlib.import_module(f"torch.distributed.{name}")
    except ModuleNotFoundError:
        raise AttributeError(name) from None


def _as_it_is(fn: Any = None, *_: Any, **__: Any) -> Any:
    """Decorate a function with nothing: how it would be compiled matters to a compiler only."""
    return fn if fn is not None else _as_it_is


class _Later(ModuleType):
    """A module as far as it is needed now; at any other wish it becomes the real one."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        self.become()
        return getattr(self, name)

    def become(self) -> None:
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec: Any = self.__spec__
        if spec.submodule_search_locations is not None:
            self.__path__ = spec.submodule_search_locations
        spec.loader.exec_module(self)


class _Compiler(_Later):
    """`torch._dynamo` while nothing is compiled. Compiling takes all of the meta device too."""

    disable = allow_in_graph = assume_constant_result = staticmethod(_as_it_is)
    graph_break = staticmethod(lambda: None)

    def become(self) -> None:
        understand_meta()
        super().become()


def _delay_compiler() -> None:
    module = _delay("torch._dynamo", _Compiler)
    setattr(sys.modules["torch"], "_dynamo", module)  # noqa: B010 - a module's
    # The one part of it that transformers needs can do without the others.
    importlib.import_module("torch._dynamo._trace_wrapped_higher_order_op")
    del module.__path__


def understand_meta() -> bool:
    """Have all of the meta device after all; False if it was there."""
    module = sys.modules.get(META)
    if not isinstance(module, _Later):
        return False
    module.become()
    return True


def _delay(name: str, kind: type[_Later]) -> Any:
    """Have a module of torch's be a `kind` of itself for now."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    spec = PathFinder.find_spec(name, torch.submodule_search_locations)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__class__ = kind
    sys.modules[name] = module
    return module
