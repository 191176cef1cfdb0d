"""Check what `export_job` writes against a real release of an engine, unpacked somewhere:

    pip download --no-deps openrlhf==0.11.2 && unzip openrlhf-*.whl -d openrlhf
    python -m benchmarks.export_schemas RUN_DIR/export/openrlhf --engine-source openrlhf

or, for NeMo-RL, whose package on the index is empty, against a checkout of its repository.

OpenRLHF: its own argument parser (cut out of `cli/train_ppo_ray.py`, since importing it needs a GPU
stack) parses our command line. verl, NeMo-RL: every override names a key of the configuration that it
changes, and has the type of what stands there. Prints what was checked; exit code 1 when something does not fit.
"""

import argparse
import ast
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf.training.export_job import openrlhf_command


def find(source: Path, name: str) -> Path:
    """The one file of the release whose path ends with `name`."""
    found = sorted(source.rglob(name))
    if not found:
        sys.exit(f"{source} has no {name}; is it the unpacked release?")
    return found[0]


def openrlhf_parser(source: Path) -> argparse.ArgumentParser:
    """The parser that `train_ppo_ray` builds, from the statements that build it."""
    tree = ast.parse(find(source, "cli/train_ppo_ray.py").read_text(encoding="utf-8"))
    main = next(
        node
        for node in tree.body
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
    )
    until = next(i for i, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    names: dict[str, Any] = {"argparse": argparse, "datetime": datetime}
    code = ast.Module(body=main.body[:until], type_ignores=[])
    exec(compile(code, "train_ppo_ray", "exec"), names)
    parser = names["parser"]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser


def check_openrlhf(source: Path, settings: dict[str, Any]) -> list[str]:
    """What the real parser says against our command line, and what it read differently."""
    parser = openrlhf_parser(source)
    parser.exit_on_error = False
    known = {action.dest for action in parser._actions}
    problems = [f"--{name} is unknown" for name in settings if name not in known]
    if problems:
        return problems
    read = vars(parser.parse_args(openrlhf_command(settings)[3:]))
    for name, value in settings.items():
        if read[name] != value and str(read[name]) != str(value):
            problems.append(f"--{name} was given {value!r} and read as {read[name]!r}")
    return problems


NEW_TO_NEMO_RL = ("data.train.data_path", "data.validation.data_path", "env.ground_control")
"""What its example doesn't have: arguments of its `ResponseDataset`, and our environment's."""


def check_verl(source: Path, settings: dict[str, Any]) -> list[str]:
    """Overrides of verl that don't fit."""
    return check_overrides(find(source, "config/_generated_ppo_trainer.yaml"), settings)


def check_nemo_rl(source: Path, settings: dict[str, Any]) -> list[str]:
    """Overrides of NeMo-RL that don't fit."""
    known = {n: v for n, v in settings.items() if not n.startswith(NEW_TO_NEMO_RL)}
    return check_overrides(find(source, "configs/ppo_math_1B.yaml"), known)


def check_overrides(path: Path, settings: dict[str, Any]) -> list[str]:
    """Overrides whose key is not in the configuration, or whose type is another."""
    import yaml

    whole = yaml.safe_load(path.read_text(encoding="utf-8"))
    problems = []
    for name, value in settings.items():
        node: Any = whole
        for part in name.split("."):
            if not isinstance(node, dict) or part not in node:
                problems.append(f"{name} is no key")
                break
            node = node[part]
        else:
            free = (
                node is None
                or value is None
                or (isinstance(node, str) and (node == "???" or "${" in node))
            )
            numbers = isinstance(node, int | float) and isinstance(value, int | float)
            if not free and not numbers and type(node) is not type(value):
                problems.append(f"{name} is {node!r} there and {value!r} here")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("export", type=Path, help="a folder that export_job wrote")
    parser.add_argument("--engine-source", type=Path, required=True)
    given = parser.parse_args()
    exported = json.loads((given.export / "export.json").read_text(encoding="utf-8"))
    check = {"openrlhf": check_openrlhf, "verl": check_verl, "nemo-rl": check_nemo_rl}[
        exported["engine"]
    ]
    problems = check(given.engine_source, exported["settings"])
    for problem in problems:
        print(problem)
    print(
        f"{exported['engine']} {exported['version']}: {len(exported['settings'])} settings, "
        f"{len(problems)} do not fit"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
