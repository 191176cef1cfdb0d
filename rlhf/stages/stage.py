"""Common to all stages: the type of a row in the table, and the settings that the round froze."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from django.conf import settings

from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job, Round
from rlhf.training import rundir
from rlhf.training.rundir.files import read_json
from rlhf.training.settings import StageConfig

Write = Callable[[], None]
"""Writes a stage's outputs to the database, in the transaction that ends its job."""
Row = dict[str, Any]
C = TypeVar("C", bound=StageConfig)


@dataclass(frozen=True)
class Stage:
    """One row of the table. `prepare`: a program in a run folder does the work; `work`: the worker
    does it itself. A stage has one of the two."""

    queue: str
    collect: Callable[[Job, Path, Row], Write]
    prepare: Callable[[Job, Path], None] | None = None
    work: Callable[[Job], Row] | None = None


def stage_config(round: Round, config_class: type[C], stage: str, **filled_in: Any) -> C:
    """The stage's configuration as the round froze it, with models and random seed filled in.

    The launch refuses settings without effect. Here they are accepted: a round of an earlier version
    may have some, and so may a filled-in value (without watch prompts there is no test reward model).
    """
    filled_in = {"threads": int(settings.TRAINING_THREADS)} | filled_in
    if "seed" in config_class.__dataclass_fields__:
        filled_in = {"seed": round.seed} | filled_in
    try:
        return config_class.from_dict({**round.config.get(stage, {}), **filled_in}, stored=True)
    except ValueError as error:
        raise StageError(f"{stage}: {error}.") from None


def written_config(run_dir: Path) -> Row:
    """The settings that `prepare` wrote into this run folder; they were checked before."""
    values: Row = read_json(run_dir / rundir.CONFIG)
    return values


def start_policy(round: Round) -> Checkpoint:
    """The policy that the round begins with; StageError if it has none."""
    if round.start_policy is None:
        raise StageError(
            "The round has no policy to start from; build or name a base policy first."
        )
    return round.start_policy


def set_on_round(job: Job, **fields: Any) -> None:
    """Write a stage's outputs to the round's row; never its state, which only `rounds` writes."""
    Round.objects.filter(pk=job.round_id).update(**fields)
