"""A stage small enough for tests, as a real process with a real run folder: it answers `generate`.

    python -m tests.rlhf.program RUN_DIR [how]

how: `well` (the default), `slowly` (steps with checkpoints), `deaf` (as slowly, and SIGTERM is
ignored), `refuses` (bad input), `breaks` (always), `breaks-once`, `fills` (the disk), `dies` (without
a word).
"""

import errno
import os
import signal
import sys
import time
from pathlib import Path

from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.rundir.process import run_stage
from rlhf.training.rundir.reports import MetricsWriter, write_progress, write_result

STEPS = 40


def main(run_dir, stop):
    how = HOW
    if how == "refuses":
        raise InputError("data/prompts.jsonl speaks of fish; give it birds.")
    if how == "breaks" or (how == "breaks-once" and run_dir.name == "1"):
        raise RuntimeError("a screw came loose")
    if how == "fills":
        raise OSError(errno.ENOSPC, "No space left on device")
    if how == "dies":
        os._exit(1)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = 0
    checkpoint = find_checkpoint(run_dir)
    if checkpoint:
        first = int((checkpoint / "step").read_text())
    with MetricsWriter(run_dir, resume_after=first) as metrics:
        for step in range(first + 1, {"slowly": STEPS, "deaf": 100 * STEPS}.get(how, 0) + 1):
            time.sleep(0.05)
            metrics.write(step, process=float(run_dir.name))
            write_progress(run_dir, done=step, total=STEPS, unit="steps")

            def write(folder, step=step):
                (folder / "step").write_text(str(step))

            save_checkpoint(run_dir, write)
            if stop.requested and how != "deaf":
                raise Stopped
    rows = [
        {
            "prompt_id": row["prompt_id"],
            "responses": [
                {"text": f"{word}, said claim {run_dir.name}.", "logprob": -1.0, "n_tokens": 4,
                 "finished": True}
                for word in ("Yes", "No", "Perhaps")
            ],
        }
        for row in read_jsonl(run_dir / "data" / "prompts.jsonl")
    ]  # fmt: skip
    write_jsonl(run_dir / "responses.jsonl", rows)
    write_result(run_dir, {"n_prompts": len(rows), "first_step": first})


if __name__ == "__main__":
    HOW = sys.argv[2] if len(sys.argv) > 2 else "well"
    run_stage(main, [str(Path(sys.argv[1]))])
