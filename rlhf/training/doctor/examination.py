"""The examination of a run folder; the checks of single stages are in `stages`."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from rlhf.training.doctor.report import Report
from rlhf.training.doctor.settings_check import check_settings, guess_stage
from rlhf.training.doctor.stages import EXAMINATIONS, examine_policy
from rlhf.training.rundir import CHECKPOINT, CONFIG
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_json
from rlhf.training.rundir.reports import read_result


def examine(run_dir: Path, stage: str = "", *, probe: bool = True) -> Report:
    """Examine a run folder. `stage` "" is guessed from the folder; with `probe` False no answers are
    sampled."""
    report = Report(stage)
    try:
        values = read_json(run_dir / CONFIG)
        if not isinstance(values, dict):
            raise InputError(f"{CONFIG} must hold a JSON object.")
        report.stage = stage or guess_stage(run_dir, values)
        config = check_settings(report, values, has_begun=(run_dir / CHECKPOINT).exists())
        if config is None:
            return report
        if read_result(run_dir) is not None:
            report.add("warning", "folder", "It has its result already; the stage will do nothing.")
        if report.stage in ("base", "grow"):
            report.add("ok", "data", "Nothing else to check before this stage.")
            return report
        # The report alone goes to stdout.
        with contextlib.redirect_stdout(sys.stderr):
            EXAMINATIONS.get(report.stage, examine_policy)(report, run_dir, config, probe=probe)
            _report_precision(report, config)
    except InputError as error:
        report.add("error", "input", str(error))
    except Exception as error:  # noqa: BLE001 - what crashes here crashes in the stage too
        reason = " ".join(str(error).split())[:200]
        report.add(
            "error",
            "bug",
            f"The stage would crash: {type(error).__name__}: {reason or 'no message'}.",
        )
    return report


def _report_precision(report: Report, config: Any) -> None:
    """The precision of the run and why; a warning for bfloat16 on a CPU that is slower with it."""
    from rlhf.training.language_models import devices

    if not hasattr(config, "dtype"):
        return
    device = devices.choose_device(config.device)
    dtype = devices.choose_dtype(config.dtype, device)
    is_slow = config.dtype == "bfloat16" and not devices.is_bfloat16_faster(device)
    advice = " Set dtype to auto." if is_slow else ""
    report.add(
        "warning" if is_slow else "ok",
        "precision",
        devices.describe_precision(device, dtype) + advice,
    )
