"""Which model folders a project may name: its own runs, and those that the operator allows.

A project's admin must not read the whole machine, nor another project's models, nor learn which
folders there are: every other folder gets the same sentence, whether it exists or not.
"""

import json
from pathlib import Path
from typing import Any

from django.conf import settings

from annotation.models import Project
from rlhf.models import Job


def is_allowed(folder: Path, project: Project) -> bool:
    """Whether this resolved path is a run of the project's, or below MODEL_FOLDERS."""
    runs = Path(settings.RUNS_DIR).resolve()
    if folder.is_relative_to(runs):
        names = folder.relative_to(runs).parts[:1]
        return any(str(uid) in names for uid in _own_runs(project))
    return any(folder.is_relative_to(allowed) for allowed in settings.MODEL_FOLDERS)


def refusal(name: str) -> str:
    """The sentence for a folder that may not be named."""
    places = ", ".join(map(str, settings.MODEL_FOLDERS))
    return (
        f"Models are read from this project's runs and from {places}. To use {name}, put it there, or "
        "ask the operator to add its folder to MODEL_FOLDERS."
    )


def base_of_adapters(folder: Path) -> str:
    """The model that the adapters in this folder belong to; "" if they name none, or it has none."""
    try:
        described: Any = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError, RecursionError):
        return ""
    base = described.get("base_model_name_or_path") if isinstance(described, dict) else None
    return base if isinstance(base, str) else ""


def _own_runs(project: Project) -> list[Any]:
    return list(Job.objects.filter(project=project).values_list("uid", flat=True))
