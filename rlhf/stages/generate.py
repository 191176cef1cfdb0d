"""The policy answers prompts: prompts in, a batch that people rank out."""

import hashlib
import math
from pathlib import Path

from annotation.models import MAX_RESPONSES, Batch, Comparison
from annotation.projects import batches
from annotation.projects.batches import ResponseText
from rlhf.errors import StageError
from rlhf.models import Job
from rlhf.round_config import RoundConfig
from rlhf.stages.prompts import choose
from rlhf.stages.stage import (
    Row,
    Write,
    set_on_round,
    stage_config,
    start_policy,
    written_config,
)
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.settings import save


def prepare_generate(job: Job, run_dir: Path) -> None:
    round = job.round
    policy = start_policy(round).path
    save(
        stage_config(round, configs.GenerateConfig, "generate", policy=policy),
        run_dir / rundir.CONFIG,
    )
    ranking = choose(round, "ranking")
    if not ranking:
        raise StageError(
            "There is no prompt left that nobody has judged; import more prompts for training."
        )
    rows = [{"prompt_id": str(p.uid), "messages": p.messages} for p in ranking]
    write_jsonl(run_dir / rundir.DATA / "prompts.jsonl", rows)


def collect_generate(job: Job, run_dir: Path, result: Row) -> Write:
    """A batch with one comparison for every prompt that got at least two different responses."""
    round, policy = job.round, start_policy(job.round)
    config = written_config(run_dir)
    rows = read_jsonl(run_dir / "responses.jsonl", required=("prompt_id", "responses"))
    responses_by_prompt = {row["prompt_id"]: row["responses"] for row in rows}
    sampling = {name: config[name] for name in ("temperature", "max_new_tokens")}
    sampling |= {
        name: config[name]
        for name in ("top_k", "top_p", "min_p")
        if name in config and config[name] != configs.GenerateConfig.settings()[name].default
    }
    comparisons = []
    for prompt in choose(round, "ranking"):
        responses = responses_by_prompt.get(str(prompt.uid), [])
        if len(responses) >= 2:
            texts = [
                ResponseText(
                    text=response["text"],
                    source=policy.response_source,
                    sampling=sampling | {"finished": response.get("finished")},
                    logprob=response.get("logprob"),
                    n_tokens=response.get("n_tokens"),
                )
                for response in responses[:MAX_RESPONSES]
            ]
            comparisons.append((prompt, texts))
    if not comparisons:
        raise StageError(
            "The policy gave only one response to every prompt, so there is nothing to rank; raise "
            "the temperature of generate."
        )
    sizes = RoundConfig.of(round)

    def write() -> None:
        name = f"Round {round.number}"
        batch = batches.create_batch(
            round.project, name, overlap=sizes.overlap, by=round.created_by
        )
        batches.add_comparisons(batch, comparisons)
        add_second_judgments(batch, sizes.agreement_share, round.seed)
        batches.open_batch(batch, round.created_by)
        set_on_round(job, batch=batch)

    return write


def add_second_judgments(batch: Batch, share: float, seed: int) -> None:
    """Let a seeded share of a draft batch be judged by one more person, to measure agreement."""
    pks = list(batch.comparisons.order_by("pk").values_list("pk", flat=True))
    pks.sort(key=lambda pk: hashlib.sha256(f"{seed}/again/{pk}".encode()).digest())
    twice = pks[: math.ceil(share * len(pks))]
    Comparison.objects.filter(pk__in=twice).update(needed=batch.overlap + 1)
