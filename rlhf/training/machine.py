"""What this machine has: its device, memory and disk, read without torch.

Workers report it, so that the web server (which may be another machine) can compare it with what a
round needs.
"""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
"""Where Linux names the CPU and lists its instructions."""

MEMORY_INFO = Path("/proc/meminfo")

CGROUP = Path("/sys/fs/cgroup")
"""Limits of this process's control group (version 2), as containers set them."""

NVIDIA_SMI_SECONDS = 5.0
"""Timeout of nvidia-smi; a driver that hangs must not stop a worker's report."""


@dataclass(frozen=True)
class Machine:
    """A machine as a worker reports it; memory and disk in bytes."""

    device: str
    """The GPU's name, or the CPU's and its number of threads."""
    kind: str
    """cuda or cpu."""
    threads: int
    memory: int
    """Of the GPU, or the RAM within the limit of the control group."""
    memory_free: int
    ram_free: int
    disk_free: int
    versions: str
    """The versions of torch and transformers that are installed, which decide about speed."""


def describe(folder: Path) -> Machine:
    """This machine as it is now; `folder` is on the disk whose free space counts."""
    gpu = first_gpu()
    name, memory, memory_free = gpu or (f"{cpu_name()}, {threads()} threads", ram(), free_ram())
    return Machine(
        device=name,
        kind="cuda" if gpu else "cpu",
        threads=threads(),
        memory=memory,
        memory_free=memory_free,
        ram_free=free_ram(),
        disk_free=shutil.disk_usage(folder).free,
        versions=versions(),
    )


def threads() -> int:
    """CPU threads that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name; "CPU" where the system does not tell."""
    text = CPU_INFO.read_text(errors="replace") if CPU_INFO.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return " ".join(match[1].split()) if match else "CPU"


def ram() -> int:
    """Bytes of RAM, or the control group's limit if that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if (limit := _cgroup("memory.max")) is not None:
        limits.append(limit)
    return min(limits)


def free_ram() -> int:
    """Free bytes of RAM within the limit of the control group."""
    limits = [ram()]
    if MEMORY_INFO.exists():
        for line in MEMORY_INFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(int(line.split()[1]) * 1024)
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit is not None and used is not None:
        limits.append(limit - used)
    return max(0, min(limits))


def _cgroup(name: str) -> int | None:
    """A number of the control group; None without a limit, or outside of a group."""
    try:
        return int((CGROUP / name).read_text())
    except (OSError, ValueError):
        return None


def first_gpu() -> tuple[str, int, int] | None:
    """Name, memory and free memory (bytes) of the GPU that a stage would take; None without one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            [program, *query], capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS
        )
        name, memory, free = done.stdout.splitlines()[0].rsplit(",", 2)
        return name.strip(), int(memory) * 2**20, int(free) * 2**20
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def versions() -> str:
    """The installed versions of torch and transformers, for example "torch 2.13.0, …"."""
    parts = []
    for package in ("torch", "transformers"):
        try:
            parts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(parts)
