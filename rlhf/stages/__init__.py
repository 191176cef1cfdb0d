"""The table of stages: how a stage's run folder is filled, and how its results are collected.

`prepare` writes `config.json` and `data/` (docs/formats.md) and is a pure function of the frozen
round, so a job that is resumed gets the same input. `collect` reads the program's output and
returns a function that writes it to the database; that function is called inside the transaction
that ends the job, so it opens no file. The settings of each stage are in `rlhf/round_config.py`.
"""

from rlhf.stages.base import collect_base, prepare_base
from rlhf.stages.calibrate import collect_calibrate, prepare_calibrate
from rlhf.stages.evaluate import collect_evaluate, prepare_evaluate
from rlhf.stages.generate import collect_generate, prepare_generate
from rlhf.stages.inspection import collect_inspection, prepare_inspection
from rlhf.stages.ppo import collect_ppo, prepare_ppo
from rlhf.stages.reward_model import collect_reward_model, prepare_reward_model
from rlhf.stages.selection import collect_selection, prepare_selection
from rlhf.stages.sft import collect_sft, prepare_sft
from rlhf.stages.snapshot import collect_snapshot, freeze
from rlhf.stages.stage import Stage

STAGES: dict[str, Stage] = {
    "base": Stage("gpu", collect_base, prepare_base),
    "inspection": Stage("gpu", collect_inspection, prepare_inspection),
    "sft": Stage("gpu", collect_sft, prepare_sft),
    "generate": Stage("gpu", collect_generate, prepare_generate),
    "snapshot": Stage("default", collect_snapshot, work=freeze),
    "reward_model": Stage("gpu", collect_reward_model, prepare_reward_model),
    "ppo": Stage("gpu", collect_ppo, prepare_ppo),
    "evaluate": Stage("gpu", collect_evaluate, prepare_evaluate),
    # Not in a round's plan: `rlhf/selection.py` and `rlhf/calibration.py` decide when they run.
    "selection": Stage("gpu", collect_selection, prepare_selection),
    "calibrate": Stage("gpu", collect_calibrate, prepare_calibrate),
}
QUEUES = ("default", "gpu")
