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

from rlhf.training import rundir

STEPS = 40


def main(run_dir, stop):
    how = HOW
    if how == "refuses":
        raise rundir.InputError("data/prompts.jsonl speaks of fish; give it birds.")
    if how == "breaks" or (how == "breaks-once" and run_dir.name == "1"):
        raise RuntimeError("a screw came loose")
    if how == "fills":
        raise OSError(errno.ENOSPC, "No space left on device")
    if how == "dies":
        os._exit(1)
    if how == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    first = 0
    checkpoint = rundir.find_checkpoint(run_dir)
    if checkpoint:
        first = int((checkpoint / "step").read_text())
    with rundir.MetricsWriter(run_dir, resume_after=first) as metrics:
        for step in range(first + 1, {"slowly": STEPS, "deaf": 100 * STEPS}.get(how, 0) + 1):
            time.sleep(0.05)
            metrics.write(step, process=float(run_dir.name))
            rundir.write_progress(run_dir, done=step, total=STEPS, unit="steps")

            def write(folder, step=step):
                (folder / "step").write_text(str(step))

            rundir.save_checkpoint(run_dir, write)
            if stop.requested and how != "deaf":
                raise rundir.Stopped
    rows = [
        {
            "prompt_id": row["prompt_id"],
            "responses": [
                {"text": f"{word}, said claim {run_dir.name}.", "logprob": -1.0, "n_tokens": 4,
                 "finished": True}
                for word in ("Yes", "No", "Perhaps")
            ],
        }
        for row in rundir.read_jsonl(run_dir / "data" / "prompts.jsonl")
    ]  # fmt: skip
    rundir.write_jsonl(run_dir / "responses.jsonl", rows)
    rundir.write_result(run_dir, {"n_prompts": len(rows), "first_step": first})


if __name__ == "__main__":
    HOW = sys.argv[2] if len(sys.argv) > 2 else "well"
    rundir.run_stage(main, [str(Path(sys.argv[1]))])
