"""The policy answers prompts, for people to rank: `python -m rlhf.training.generate RUN_DIR`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rlhf.training import parallel, sampling
from rlhf.training.configs import GenerateConfig
from rlhf.training.data import read_prompts
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import Policy, load_policy
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress, write_progress, write_result
from rlhf.training.score_summary import unfinished_rate
from rlhf.training.settings import load
from rlhf.training.truncation import Truncation

ATTEMPTS = 3
"""Sampling is repeated up to this many times for prompts with too few distinct responses; then
fewer are accepted."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, prompts, policy.
    config = load(GenerateConfig, run_dir / CONFIG)
    Progress(run_dir).phase("loading the policy")
    prompts = read_prompts(run_dir)
    device = devices.choose_device(config.device)
    threads = devices.be_deterministic(config.seed, config.threads)
    torch.set_num_threads(1)  # until the processes share the work
    dtype = devices.choose_dtype(config.dtype, device)
    policy = load_policy(config.policy, "policy", device=device, dtype=dtype)
    n_given = len(prompts)
    prompts, encoded = policy.encode_fitting(
        prompts, room=config.max_new_tokens, long_prompts=config.long_prompts
    )

    # 2. Distinct responses: identical texts can't be ranked. Each process answers its share.
    n_parameters = sum(p.numel() for p in policy.model.parameters())
    size = parallel.default_processes(n_parameters, device, threads)
    group = parallel.share_work(parallel.Group(), size, threads)
    responses = sample_distinct(policy, encoded, config, run_dir, stop, group)
    parallel.destroy_process_group(group)  # the forked processes end here

    # 3. The first k of each prompt.
    rows: list[dict[str, Any]] = [
        {
            "prompt_id": prompt.prompt_id,
            "responses": [
                {
                    "text": text,
                    "logprob": sum(response.logprobs),
                    "n_tokens": len(response.tokens),
                    "finished": response.finished,
                }
                for text, response in list(by_text.items())[: config.k]
            ],
        }
        for prompt, by_text in zip(prompts, responses.by_text, strict=True)
    ]
    write_jsonl(run_dir / "responses.jsonl", rows)
    seconds = time.monotonic() - began
    write_result(
        run_dir,
        {
            "n_prompts": len(rows),
            "n_left_out": n_given - len(rows),
            "n_responses": sum(len(row["responses"]) for row in rows),
            "unfinished": unfinished_rate(
                [
                    {"prompt_id": row["prompt_id"], "finished": response["finished"]}
                    for row in rows
                    for response in row["responses"]
                ]
            ),
            "tokens_per_second": responses.n_tokens / seconds,
            "seconds": seconds,
        },
    )


class DistinctResponses(NamedTuple):
    """The distinct responses to each prompt, by their text, and the total number of sampled
    tokens."""

    by_text: list[dict[str, sampling.Sampled]]
    n_tokens: int


def sample_distinct(
    policy: Policy,
    encoded: Sequence[Sequence[int]],
    config: GenerateConfig,
    run_dir: Path,
    stop: StopRequest,
    group: parallel.Group,
) -> DistinctResponses:
    """Sample responses to every prompt; repeat for prompts with too few distinct responses. A
    collective: all processes call it, and get the same."""
    began = time.monotonic()
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    by_text: list[dict[str, sampling.Sampled]] = [{} for _ in encoded]
    waiting = list(range(len(encoded)))
    n_tokens = 0

    def report_progress(done: int) -> None:
        if stop.requested:  # no checkpoint: the stage is short and starts over
            raise Stopped
        if not group.is_main_process:
            return
        total = len(encoded)
        finished = min(total - len(waiting) + done * group.size, total)
        write_progress(
            run_dir,
            done=finished,
            total=total,
            unit="prompts",
            eta_seconds=(time.monotonic() - began) / max(finished, 1) * (total - finished),
        )

    progress = Progress(run_dir, writes=group.is_main_process)
    report = progress.phase("sampling", len(encoded), "prompts")

    def on_token(done: float) -> None:
        if stop.requested:
            raise Stopped
        report(min(len(encoded) - len(waiting) + done * group.size, len(encoded)))

    for attempt in range(ATTEMPTS):
        sampled = sampling.sample(
            policy.model,
            [encoded[i] for i in waiting],
            k=config.k + (config.oversample if attempt == 0 else 0),
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            stop_ids=policy.stop_ids,
            pad_id=policy.pad_id,
            generator=generator,
            batch_size=config.batch_size,
            on_batch=report_progress,
            on_token=on_token,
            truncation=Truncation.of(config),
            share=group.share,
        )
        sampled = group.all_gather(sampled[group.share], len(waiting))
        for i, responses in zip(waiting, sampled, strict=True):
            n_tokens += sum(len(response.tokens) for response in responses)
            for response in responses:
                by_text[i].setdefault(policy.decode(response.tokens), response)
        waiting = [i for i in waiting if len(by_text[i]) < config.k]
        if not waiting:
            break
    return DistinctResponses(by_text, n_tokens)


if __name__ == "__main__":
    run_stage(main)
