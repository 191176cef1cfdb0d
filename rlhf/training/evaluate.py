"""Evaluate a policy: sample answers to held-out prompts, and score them with a reward model.

python -m rlhf.training.evaluate RUN_DIR
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training import parallel, sampling
from rlhf.training.configs import EvaluateConfig
from rlhf.training.configs.evaluate import OPPONENTS
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import Policy, load_policy
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_models.model import OnBatch, RewardModel
from rlhf.training.rundir import CONFIG, DATA
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress, write_progress, write_result
from rlhf.training.score_summary import count, group_by_temperature, summarize
from rlhf.training.settings import load
from rlhf.training.truncation import Truncation


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, prompts, policy, reward model.
    config = load(EvaluateConfig, run_dir / CONFIG)
    progress = Progress(run_dir)
    progress.phase("loading the models")
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
    opponents = read_opponents(run_dir, {p.prompt_id for p in prompts})
    scorer = (
        load_reward_model(
            config.reward_model,
            device=device,
            dtype=dtype,
            tokens_per_pass=config.tokens_per_pass,
        )
        if config.reward_model
        else None
    )

    # 2. Several samples of every prompt at every temperature. Each process answers its share.
    n_parameters = sum(p.numel() for p in policy.model.parameters())
    size = parallel.default_processes(n_parameters, device, threads)
    group = parallel.share_work(parallel.Group(), size, threads)
    rows = sample_rows(policy, prompts, encoded, config, run_dir, stop, group, progress)
    opponents |= sample_opponents(policy, rows, prompts, config, run_dir, stop, group, progress)
    parallel.destroy_process_group(group)  # the forked processes end here
    torch.set_num_threads(threads)

    # 3. The reward model's scores of these samples and of the opponents', on the same scale.
    summary: dict[str, Any] | None = None
    opponent_summaries: dict[str, Any] = {}
    if scorer is not None:
        on_batch = progress.phase("scoring", unit="texts")
        judged = judge(scorer, prompts, {"": rows, **opponents}, config.safety_threshold, on_batch)
        progress.phase("comparing")
        by_temperature = {name: group_by_temperature(judged[name]) for name in judged}
        ours = by_temperature.pop("")
        summary = {
            temperature: summarize(
                samples,
                {name: groups.get(temperature, []) for name, groups in by_temperature.items()},
                seed=config.seed,
            )
            for temperature, samples in ours.items()
        }
        opponent_summaries = {
            name: {
                temperature: summarize(samples, {}, seed=config.seed)
                for temperature, samples in groups.items()
            }
            for name, groups in by_temperature.items()
        }

    # 4. Samples, opponents' samples, result.
    write_jsonl(run_dir / "samples.jsonl", rows)
    for name, samples in opponents.items():
        write_jsonl(run_dir / "opponents" / f"{name}.jsonl", samples)
    write_result(
        run_dir,
        {
            "summary": summary,
            "opponents": opponent_summaries,
            "responses": {
                temperature: count(samples, seed=config.seed)
                for temperature, samples in group_by_temperature(rows).items()
            },
            "n_left_out": n_given - len(prompts),
            "seconds": time.monotonic() - began,
        },
    )


def sample_opponents(
    policy: Policy,
    own_rows: list[dict[str, Any]],
    prompts: Sequence[Prompt],
    config: EvaluateConfig,
    *run: Any,
) -> dict[str, list[dict[str, Any]]]:
    """The samples of `config.opponents` by name; the policy's own rows where it is its own opponent.
    `run` are the last arguments of `sample_rows`."""
    dtype = next(policy.model.parameters()).dtype
    sampled = {config.policy: own_rows}
    for path in dict.fromkeys(config.opponents.values()):
        if path not in sampled:
            other = load_policy(path, "opponent", device=policy.device, dtype=dtype)
            fitting = other.encode_fitting(
                prompts, room=config.max_new_tokens, long_prompts="leave_out"
            )
            sampled[path] = sample_rows(other, *fitting, config, *run)
    return {name: [dict(row) for row in sampled[path]] for name, path in config.opponents.items()}


def sample_rows(
    policy: Policy,
    prompts: Sequence[Prompt],
    encoded: Sequence[Sequence[int]],
    config: EvaluateConfig,
    run_dir: Path,
    stop: StopRequest,
    group: parallel.Group,
    progress: Progress,
) -> list[dict[str, Any]]:
    """The rows of `samples.jsonl`, without scores: several samples of every prompt at every
    temperature. A collective: all processes call it, and get the same."""
    began = time.monotonic()
    total = len(prompts) * len(config.temperatures)
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    rows: list[dict[str, Any]] = []
    progress.writes = group.is_main_process
    report = progress.phase("sampling", total, "prompts")
    for number, temperature in enumerate(config.temperatures):

        def report_progress(done: int, before: int = number * len(prompts)) -> None:
            if stop.requested:  # no checkpoint: the stage is short and starts over
                raise Stopped
            if not group.is_main_process:
                return
            done = min(done * group.size, len(prompts))
            elapsed = time.monotonic() - began
            write_progress(
                run_dir,
                done=before + done,
                total=total,
                unit="prompts",
                note="sampling",
                eta_seconds=elapsed / (before + done) * (total - before - done),
            )

        def on_token(done: float, before: int = number * len(prompts)) -> None:
            if stop.requested:
                raise Stopped
            report(before + min(done * group.size, len(prompts)))

        sampled = sampling.sample(
            policy.model,
            encoded,
            k=config.samples_per_prompt,
            max_new_tokens=config.max_new_tokens,
            temperature=temperature,
            stop_ids=policy.stop_ids,
            pad_id=policy.pad_id,
            generator=generator,
            batch_size=config.batch_size,
            on_batch=report_progress,
            on_token=on_token,
            truncation=Truncation.of(config),
            share=group.share,
        )
        sampled = group.all_gather(sampled[group.share], len(prompts))
        rows += [
            {
                "prompt_id": prompt.prompt_id,
                "temperature": temperature,
                "index": index,
                "text": policy.decode(response.tokens),
                "n_tokens": len(response.tokens),
                "finished": response.finished,
                "scores": None,
                "logprob": sum(response.logprobs),
            }
            for prompt, responses in zip(prompts, sampled, strict=True)
            for index, response in enumerate(responses)
        ]
    return rows


def read_opponents(run_dir: Path, known: set[str]) -> dict[str, list[dict[str, Any]]]:
    """The samples of other policies for these prompts, by name; opponents without a file are missing."""
    opponents = {}
    for name in OPPONENTS:
        path = run_dir / DATA / "opponents" / f"{name}.jsonl"
        if not path.exists():
            continue
        required = ("prompt_id", "temperature", "text", "n_tokens")
        rows = [dict(row) for row in read_jsonl(path, required=required)]
        rows = [row for row in rows if row["prompt_id"] in known]
        if not rows:
            raise InputError(
                f"data/opponents/{name}.jsonl has no sample for any prompt of data/prompts.jsonl; "
                "evaluate both policies on the same prompts."
            )
        opponents[name] = rows
    return opponents


def judge(
    scorer: RewardModel,
    prompts: Sequence[Prompt],
    samples_by_policy: dict[str, list[dict[str, Any]]],
    threshold: float,
    on_batch: OnBatch = lambda done, total: None,
) -> dict[str, list[dict[str, Any]]]:
    """Fill in every row's `scores`, and return the rows as judged samples for `score_summary`.

    All texts are scored together: low temperatures and shared opponents repeat them.
    """
    by_id = {p.prompt_id: p for p in prompts}
    rows = [row for samples in samples_by_policy.values() for row in samples]
    prompt_of = [by_id[row["prompt_id"]] for row in rows]
    scores = scorer.score(
        [p.messages for p in prompt_of], [row["text"] for row in rows], on_batch=on_batch
    )
    total = scorer.combine(scores, [p.risk for p in prompt_of], threshold=threshold)
    judged = []
    for i, (row, prompt) in enumerate(zip(rows, prompt_of, strict=True)):
        row["scores"] = {axis: float(s[i]) for axis, s in scores.items()}
        judged.append(
            {
                "prompt_id": prompt.prompt_id,
                "category": prompt.category,
                "risk": prompt.risk,
                "temperature": row["temperature"],
                "n_tokens": row["n_tokens"],
                "finished": row.get("finished"),
                "helpfulness": row["scores"].get("helpfulness"),
                "safety": row["scores"].get("safety"),
                "preference": float(total[i]),
            }
        )
    by_policy, start = {}, 0
    for name, samples in samples_by_policy.items():
        by_policy[name] = judged[start : start + len(samples)]
        start += len(samples)
    return by_policy


if __name__ == "__main__":
    run_stage(main)
