"""Building the base policy: the corpus of the small world in, a policy out.

A finished base policy is kept in CACHE_DIR, so each machine builds it once.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import RoundConfig
from rlhf.stages.model_folders import new_checkpoint
from rlhf.stages.stage import Row, Write, set_on_round, stage_config, written_config
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import link_tree, write_jsonl
from rlhf.training.rundir.reports import read_result
from rlhf.training.settings import save
from rlhf.world.answers import corpus

CODE_VERSION = 1
"""Raise it with any change to `rlhf/world` or `rlhf/training/base.py` (and what that imports) that
makes another policy of the same settings: policies that are kept from before are then not used."""


def prepare_base(job: Job, run_dir: Path) -> None:
    """The corpus of the small world; or the finished policy, if this machine has built it before."""
    seed = base_seed(job.round)
    config = stage_config(
        job.round,
        configs.BaseConfig,
        "base",
        seed=seed,
        threads=max(2, int(settings.TRAINING_THREADS)),
    )
    sizes = RoundConfig.of(job.round)
    cached = base_cache(config.to_dict(), sizes)
    save(config, run_dir / rundir.CONFIG)
    if read_result(cached) is not None:
        link_tree(cached / rundir.POLICY, run_dir / rundir.POLICY)
        shutil.copyfile(cached / rundir.RESULT, run_dir / rundir.RESULT)
        return
    rows = corpus(seed, sizes.corpus, clean_share=sizes.corpus_clean_share)
    write_jsonl(run_dir / rundir.DATA / "corpus.jsonl", rows)


def collect_base(job: Job, run_dir: Path, result: Row) -> Write:
    config = written_config(run_dir)
    cached = base_cache(config, RoundConfig.of(job.round))
    if read_result(cached) is None:
        _keep(run_dir, cached)
    checkpoint = new_checkpoint(
        job,
        Checkpoint.Kind.POLICY,
        "base policy",
        run_dir / rundir.POLICY,
        config=config,
        metrics=result,
        n_parameters=int(result.get("n_parameters", 0)),
    )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write


def base_seed(round: Round) -> int:
    """The base policy's own seed: walks with different seeds share one base, as people would."""
    return int(round.config.get("base", {}).get("seed", 0))


def base_cache(config: Mapping[str, Any], sizes: RoundConfig) -> Path:
    """Where a base policy of this configuration, corpus and code is kept once it is built."""
    values = {k: v for k, v in config.items() if k not in ("threads", "checkpoint_seconds")}
    recipe = [values, sizes.corpus, sizes.corpus_clean_share, CODE_VERSION]
    folder = Path(settings.CACHE_DIR) / "base"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:32]


def _keep(run_dir: Path, cached: Path) -> None:
    unfinished = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}")
    link_tree(run_dir / rundir.POLICY, unfinished / rundir.POLICY)
    shutil.copyfile(run_dir / rundir.RESULT, unfinished / rundir.RESULT)
    try:
        unfinished.rename(cached)
    except OSError:  # another job has put the same policy there
        shutil.rmtree(unfinished, ignore_errors=True)
