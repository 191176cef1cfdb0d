"""Check a run folder before a run spends compute: `python -m rlhf.training.doctor RUN_DIR`.

Reports what would fail, or run for long without effect: unknown settings, models that can't be
read, conversations that template or tokenizer change, batches that don't fit the prompts, rewards
that are all equal, too little memory, too much time. Writes nothing into the folder. `--json`
prints the report for programs.

Exit code: 0 no findings, 1 warnings, 2 the stage would refuse to run, or could not succeed.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rlhf.training.configs import CONFIGS
from rlhf.training.doctor.examination import examine
from rlhf.training.doctor.report import show


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="the run folder (docs/formats.md)")
    parser.add_argument("--stage", choices=sorted(CONFIGS), default="", help="else guessed")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--no-samples", action="store_true", help="don't try the policy")
    options = parser.parse_args(arguments)
    if not options.run_dir.is_dir():
        print(f"There is no folder {options.run_dir}.", file=sys.stderr)
        return 2
    report = examine(options.run_dir, options.stage, probe=not options.no_samples)
    if options.json:
        values = {"exit_code": report.exit_code} | asdict(report)
        print(json.dumps(values, ensure_ascii=False, indent=1))
    else:
        show(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
