"""Training reward models: frozen preferences in, a training and a test reward model out."""

import itertools
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from annotation.data.snapshot_files import JUDGMENTS, SnapshotError, snapshot_file
from rlhf.errors import RoundError, StageError
from rlhf.model_paths import model_path
from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import RoundConfig
from rlhf.stages.model_folders import new_checkpoint
from rlhf.stages.prompts import choose
from rlhf.stages.stage import Row, Write, stage_config, start_policy, written_config
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.settings import save


def prepare_reward_model(job: Job, run_dir: Path) -> None:
    """The frozen preferences, as a researcher downloads them, and samples of the starting policy."""
    round = job.round
    if round.snapshot is None:
        raise StageError("The round has no snapshot of preferences yet.")
    config = stage_config(
        round,
        configs.RewardModelConfig,
        "reward_model",
        trunk=trunk_path(round),
        axes=tuple(round.project.axis_keys),
    )
    save(config, run_dir / rundir.CONFIG)
    try:
        frozen = snapshot_file(round.snapshot, f"{JUDGMENTS}.jsonl")
    except SnapshotError as error:
        if not round.snapshot.counts.get("judgments"):
            raise StageError(
                f"Version {round.snapshot.version} of the data has no rankings, only ratings or "
                "written answers. A reward model needs rankings."
            ) from None
        raise StageError(str(error)) from None
    shutil.copyfile(frozen, run_dir / rundir.DATA / "preferences.jsonl")
    write_jsonl(run_dir / rundir.DATA / "reference.jsonl", reference_rows(round, frozen))


def trunk_path(round: Round) -> str:
    """The model that the round's reward models are trained from. StageError if it may not be read."""
    trunk = RoundConfig.of(round).reward_trunk
    if trunk == "policy":
        return start_policy(round).root.path
    try:
        return model_path(trunk, round.project)
    except RoundError as error:
        raise StageError(f"reward_trunk: {error}") from None


def reference_rows(round: Round, frozen: Path) -> Iterable[Row]:
    """The texts on which the scores' mean and deviation are measured: one sample of the start
    policy per prompt.

    These are the first responses to the ranked prompts. A round without a generate stage (imported
    preferences) takes the ranked responses.
    """
    n = RoundConfig.of(round).reference_prompts
    generated = round.last_done("generate")
    if generated is not None:
        prompts = {str(prompt.uid): prompt for prompt in choose(round, "ranking")}
        path = generated.run_dir / "responses.jsonl"
        for row in itertools.islice(read_jsonl(path), n):
            prompt = prompts.get(row["prompt_id"])
            if prompt is not None and row["responses"]:
                text = row["responses"][0]["text"]
                yield _reference_row(row["prompt_id"], prompt.messages, prompt.risk, text)
        return
    needed = ("prompt_id", "messages", "responses")
    for i, row in enumerate(itertools.islice(read_jsonl(frozen, required=needed), n)):
        # The first response of half the rows and the last of the others: in a file of pairs the
        # first is often the better one.
        text = row["responses"][0 if i % 2 else -1]
        yield _reference_row(row["prompt_id"], row["messages"], row.get("risk", ""), text)


def _reference_row(prompt_id: str, messages: Any, risk: str, text: str) -> Row:
    return {"prompt_id": prompt_id, "messages": messages, "risk": risk, "text": text}


def collect_reward_model(job: Job, run_dir: Path, result: Row) -> Write:
    config = written_config(run_dir)
    checkpoints = [
        new_checkpoint(
            job,
            kind,
            f"round {job.round.number} {words}",
            run_dir / part,
            parent=start_policy(job.round).root,
            config=config,
            metrics={part: result.get(part), "calibration": result.get("calibration")},
        )
        for kind, words, part in (
            (Checkpoint.Kind.REWARD_MODEL, "reward model", "train"),
            (Checkpoint.Kind.TEST_REWARD_MODEL, "test reward model", "test"),
        )
    ]

    def write() -> None:
        for checkpoint in checkpoints:
            checkpoint.save()

    return write
