"""The stage of a run folder, and whether its settings are known, valid and have an effect."""

import difflib
from pathlib import Path
from typing import Any

from rlhf.training.configs import CONFIGS
from rlhf.training.doctor.report import Report
from rlhf.training.rundir import CONFIG, DATA
from rlhf.training.settings import StageConfig


def guess_stage(run_dir: Path, values: dict[str, Any]) -> str:
    """The stage of a folder, from its data files and from settings that only one stage has."""
    data = run_dir / DATA
    if (data / "corpus.jsonl").exists():
        return "base"
    if (data / "comparisons.jsonl").exists():
        return "selection"
    if (data / "demonstrations.jsonl").exists():
        return "sft"
    if (data / "preferences.jsonl").exists():
        return "reward_model" if "trunk" in values else "dpo"
    if "reference" in values:
        return "ppo"
    own = {
        name: set(config.settings())
        for name, config in CONFIGS.items()
        if name in ("generate", "evaluate", "best_of_n", "grow")
    }
    return max(own, key=lambda name: sum(key in own[name] for key in values) / len(own[name]))


def check_settings(
    report: Report, values: dict[str, Any], *, has_begun: bool = False
) -> StageConfig | None:
    """Every unknown key at once, with the one that was probably meant; then the values; then all
    settings without effect, which only a run that has begun may have."""
    config = CONFIGS[report.stage]
    names = {key: key for key in config.settings()} | dict(config.OLD_KEYS)
    try:
        known, unknown = config.split_known(values)
        for key in unknown:
            closest = difflib.get_close_matches(key, names, n=1)
            meant = f"; did you mean {names[closest[0]]!r}?" if closest else "."
            report.add("error", "settings", f"{key!r} is not a setting of {report.stage}{meant}")
        made = config.from_dict(known, stored=True)
    except ValueError as error:
        report.add("error", "settings", f"{CONFIG}: {error}.")
        return None
    idle = made.idle(known)
    for reason in idle.values():
        report.add("warning" if has_begun else "error", "settings", f"{CONFIG}: {reason}.")
    if unknown or (idle and not has_begun):
        return None
    report.add("ok", "settings", f"All {len(known)} settings are known to {report.stage}.")
    return made
