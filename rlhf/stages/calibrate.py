"""Measuring a model's speed and memory: some prompts in, a `Calibration` out.

The stage is not in a round's plan: `rlhf/calibration.py` decides when it runs.
"""

from pathlib import Path
from typing import Any

from annotation.models import Prompt
from rlhf.errors import StageError
from rlhf.models import Calibration, Checkpoint, Job
from rlhf.round_config import default_config
from rlhf.stages.stage import Row, Write, stage_config, written_config
from rlhf.training import configs, rundir
from rlhf.training.model_files import model_key
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.settings import save

MAX_PROMPTS = 64
"""Prompts whose lengths are taken for those of all; spread over the project by their hash."""

MAX_ROWS = 64
"""Rows of the largest batch that is decoded; beyond, a step's time is continued on a straight line."""

MAX_TOKENS = 64
"""The budget of the measured responses: enough to see whether they end, in seconds."""

EXAMPLE = [{"role": "user", "content": "How do I boil an egg? Please answer in two sentences."}]
"""In place of the prompts of a project that has none yet."""


def prepare_calibrate(job: Job, run_dir: Path) -> None:
    """Write the configuration with the current policy, and some of the project's prompts."""
    policy = Checkpoint.objects.current_policy(job.project)
    if policy is None:
        raise StageError("The project has no policy to measure.")
    proposed = default_config(job.project)
    generate: dict[str, Any] = proposed.get("generate", {})
    budget = int(generate.get("max_new_tokens", MAX_TOKENS))
    config = stage_config(
        job.round,
        configs.CalibrateConfig,
        "calibrate",
        policy=policy.path,
        rows=max(2, min(MAX_ROWS, int(generate.get("batch_size", MAX_ROWS)))),
        max_new_tokens=max(2, min(budget, MAX_TOKENS)),
        temperature=float(generate.get("temperature", 1.0)),
        max_length=int(proposed.get("reward_model", {}).get("max_length", 512)),
    )
    save(config, run_dir / rundir.CONFIG)
    prompts = Prompt.objects.filter(project=job.project).order_by("sha256")[:MAX_PROMPTS]
    rows = [{"prompt_id": str(p.uid), "messages": p.messages} for p in prompts]
    rows = rows or [{"prompt_id": "example", "messages": EXAMPLE}]
    write_jsonl(run_dir / rundir.DATA / "prompts.jsonl", rows)


def collect_calibrate(job: Job, run_dir: Path, result: Row) -> Write:
    """Keep the figures, and fill in the parameters of models that had none (names on a hub)."""
    path = written_config(run_dir)["policy"]
    shape: dict[str, Any] = result["model"]

    def write() -> None:
        Calibration.objects.update_or_create(
            model_key=model_key(path),
            device=str(result["device"])[:200],
            dtype=result["dtype"],
            defaults={
                "versions": str(result["versions"])[:120],
                "figures": result,
                "created_at": job.started_at or job.created_at,
            },
        )
        unsized = Checkpoint.objects.filter(project=job.project, path=path, n_parameters=0)
        unsized.update(n_parameters=shape["n_parameters"])

    return write
