"""Which stage a run folder is for, and whether its settings are known, valid and used."""

import difflib
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlhf.training import configs
from rlhf.training.doctor.report import Report
from rlhf.training.rundir import CONFIG, DATA
from rlhf.training.settings import StageConfig

STAGES: dict[str, type[StageConfig]] = {
    "base": configs.BaseConfig,
    "generate": configs.GenerateConfig,
    "reward_model": configs.RewardModelConfig,
    "ppo": configs.PPOConfig,
    "evaluate": configs.EvaluateConfig,
    "selection": configs.SelectionConfig,
    "sft": configs.SFTConfig,
    "dpo": configs.DPOConfig,
    "best_of_n": configs.BestOfNConfig,
    "grow": configs.GrowConfig,
}


def guess_stage(run_dir: Path, values: dict[str, Any]) -> str:
    """Which stage a folder is for, from its data and the settings that only one stage has."""
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
        name: {f.name for f in fields(config)}
        for name, config in STAGES.items()
        if name in ("generate", "evaluate", "best_of_n", "grow")
    }
    return max(own, key=lambda name: sum(key in own[name] for key in values) / len(own[name]))


def check_settings(
    report: Report, values: dict[str, Any], *, begun: bool = False
) -> StageConfig | None:
    """Every unknown key at once, with the one that was probably meant; then the values; then all
    that do nothing, with which only a run that was `begun` goes on."""
    config = STAGES[report.stage]
    known = [f.name for f in fields(config)]
    unknown = [name for name in values if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        report.add("error", "settings", f"{name!r} is not a setting of {report.stage}{meant}")
    try:
        asked = {k: v for k, v in values.items() if k not in unknown}
        made = config.from_dict(asked, stored=True)
    except ValueError as error:
        report.add("error", "settings", f"{CONFIG}: {error}.")
        return None
    idle = made.idle(asked)
    for reason in idle.values():
        report.add("warning" if begun else "error", "settings", f"{CONFIG}: {reason}.")
    if unknown or (idle and not begun):
        return None
    report.add("ok", "settings", f"All {len(values)} settings are known to {report.stage}.")
    return made
