"""Names that people give to models of their own: a folder or GGUF file that may be read,
or a name on a hub."""

import re
from pathlib import Path

from django.conf import settings

from annotation.models import Project
from rlhf import model_places
from rlhf.errors import RoundError

HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@[0-9a-f]{40})?", re.ASCII)
"""With the commit that is meant, or without."""


def model_path(name: str, project: Project) -> str:
    """A model folder or GGUF file as an absolute path, a hub's name as it is; RoundError for
    anything else.

    Adapters are read with their base, which must be allowed as well.
    """
    try:
        folder = Path(name).expanduser().resolve()
        is_folder, is_file = folder.is_dir(), folder.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, the home of no user
        raise RoundError("This is neither a folder nor a name on a model hub.") from None
    is_model = is_folder or (is_file and folder.suffix.lower() == ".gguf")
    may_read = model_places.is_allowed(folder, project)
    if HUB_NAME.fullmatch(name) and not (is_model and may_read):
        _check_revision(name)
        return name
    if not may_read:
        raise RoundError(model_places.refusal(name))
    if is_file and not is_model:
        raise RoundError(
            f"{folder.name} is not a GGUF file. Name the folder that holds config.json and the "
            "*.safetensors files, a folder of adapters, or a *.gguf file."
        )
    if not is_model:
        raise RoundError(f"There is no folder and no GGUF file {name} on this machine.")
    base = model_places.base_of_adapters(folder)
    if base and HUB_NAME.fullmatch(base):
        _check_revision(base)
    if base and not HUB_NAME.fullmatch(base):
        try:
            may_read = model_places.is_allowed(Path(base).expanduser().resolve(), project)
        except (OSError, ValueError, RuntimeError):
            may_read = False
        if not may_read:
            raise RoundError(f"{name} holds adapters. {model_places.refusal(base[:200])}")
    return str(folder)


def _check_revision(name: str) -> None:
    """RoundError for a name that the hub's owner can change later, where workers may download.

    Offline (HF_HUB_OFFLINE, the default) a name is what the operator has put into the cache.
    """
    is_offline = settings.TRAINING_ENVIRONMENT["HF_HUB_OFFLINE"].lower() in (
        "1",
        "on",
        "yes",
        "true",
    )
    if is_offline or "@" in name or name in settings.HUB_MODELS:
        return
    raise RoundError(
        f"Say which revision of {name} is meant: {name}@ and the 40 digits of its commit, from the hub's "
        "page “Files”. Without it, the model is whatever its owner puts there next."
    )
