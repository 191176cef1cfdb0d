"""The whole examination of a run folder; what is special to a stage is in `stages`."""

import contextlib
import sys
from pathlib import Path

from rlhf.training.doctor.report import Report
from rlhf.training.doctor.settings_check import check_settings, guess_stage
from rlhf.training.doctor.stages import EXAMINATIONS, examine_policy
from rlhf.training.rundir import CHECKPOINT, CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json
from rlhf.training.rundir.reports import read_result


def examine(run_dir: Path, stage: str = "", *, probe: bool = True) -> Report:
    """The whole examination. `stage` "" is guessed from the folder; `probe` False samples nothing."""
    report = Report(stage)
    try:
        values = read_json(run_dir / CONFIG)
        if not isinstance(values, dict):
            raise InputError(f"{CONFIG} must hold a JSON object.")
        report.stage = stage or guess_stage(run_dir, values)
        config = check_settings(report, values, begun=(run_dir / CHECKPOINT).exists())
        if config is None:
            return report
        if read_result(run_dir) is not None:
            report.add("warning", "folder", "It has its result already; the stage will do nothing.")
        if report.stage in ("base", "grow"):
            report.add("ok", "data", "Nothing else to check before this stage.")
            return report
        # What a stage prints while it reads is no part of the report.
        with contextlib.redirect_stdout(sys.stderr):
            EXAMINATIONS.get(report.stage, examine_policy)(report, run_dir, config, probe=probe)
    except InputError as error:
        report.add("error", "input", str(error))
    return report
