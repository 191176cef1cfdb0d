"""Every stage of the demo's rounds on this processor, and as if it had AVX2 only, side by side.

    python -m benchmarks.portability                  # the tiny preset, two rounds: minutes
    python -m benchmarks.portability --quick          # the smallest round, seconds a stage

Runs `manage.py demo --auto` twice, each time with a data folder of its own: natively, and with the
instruction sets of oneDNN, torch's own kernels and MKL limited to AVX2. What is printed are seconds
of the clock per stage from the walk's report, their ratio, and seconds of the processor for the
whole. On a processor without AVX-512 both columns are the same thing, which shows the noise.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
SIDES: dict[str, dict[str, str]] = {"native": {}, "AVX2": AVX2}
CPU_INFO = Path("/proc/cpuinfo")


def main() -> None:
    arguments = parse()
    print(f"{processor()}; {' '.join(f'{name}={value}' for name, value in AVX2.items())}")
    walks = {}
    for side, switches in SIDES.items():
        walks[side] = walk(arguments, switches)
        spent = walks[side]
        print(f"{side}: {spent['wall']:.0f} s, {spent['cpu']:.0f} s of the processor", flush=True)
    table(walks)
    if arguments.out:
        arguments.out.write_text(json.dumps(walks, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--quick", action="store_true", help="one round of the preset ci")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--out", type=Path, help="figures as JSON")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.preset, arguments.rounds = "ci", 1
    return arguments


def walk(arguments: argparse.Namespace, switches: dict[str, str]) -> dict[str, dict[str, float]]:
    """Seconds by round and stage, and those of the whole (`wall`, `cpu`)."""
    environment = {k: v for k, v in os.environ.items() if k not in AVX2} | switches
    with tempfile.TemporaryDirectory(prefix="portability") as folder:
        environment |= {"GROUND_CONTROL_DATA": folder, "HF_HUB_OFFLINE": "1"}
        report = Path(folder) / "report.json"
        began, before = time.monotonic(), cpu_seconds()
        for words in (
            ("migrate", "-v", "0"),
            ("demo", "--auto", "--rounds", str(arguments.rounds), "--preset", arguments.preset,
             "--port", str(arguments.port), "--report", str(report)),
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "manage.py", *words],
                cwd=ROOT, env=environment, capture_output=True, text=True,
            )  # fmt: skip
            if done.returncode:
                sys.exit(f"manage.py {words[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
        whole = {"wall": time.monotonic() - began, "cpu": cpu_seconds() - before}
        rounds = json.loads(report.read_text())["rounds"]
    return whole | {
        f"{'base' if not entry['round'] else 'round ' + str(entry['round'])}: {stage}": seconds
        for entry in rounds
        for stage, seconds in entry["seconds"].items()
        if seconds is not None
    }


def cpu_seconds() -> float:
    """Of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def table(walks: dict[str, dict[str, float]]) -> None:
    native, limited = walks["native"], walks["AVX2"]
    print(f"\n{'stage':<28}{'native':>10}{'AVX2':>10}{'ratio':>8}")
    for name in native:
        ratio = limited.get(name, 0.0) / native[name] if native[name] else float("nan")
        print(f"{name:<28}{native[name]:>9.1f}s{limited.get(name, 0.0):>9.1f}s{ratio:>8.2f}")


def processor() -> str:
    """Its name, cores, and the widest instructions that it lists."""
    info = CPU_INFO.read_text(errors="replace") if CPU_INFO.exists() else ""
    name = re.search(r"model name\s*:\s*(.*)", info)
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f" {flag}" in info]
    return f"{name[1] if name else 'processor'}, {os.cpu_count()} cores, {', '.join(known) or '?'}"


if __name__ == "__main__":
    main()
