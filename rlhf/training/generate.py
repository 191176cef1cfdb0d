"""The policy answers prompts, for people to rank: `python -m rlhf.training.generate RUN_DIR`."""

import time
from pathlib import Path

import torch

from rlhf.training import sampling
from rlhf.training.configs import GenerateConfig
from rlhf.training.data import read_prompts
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import load_policy
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_progress, write_result
from rlhf.training.settings import load

ATTEMPTS = 3
"""How often a prompt with too few distinct answers is asked again before fewer are accepted."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, prompts, policy.
    config = load(GenerateConfig, run_dir / CONFIG)
    prompts = read_prompts(run_dir)
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    dtype = devices.choose_dtype(config.dtype, device)
    policy = load_policy(config.policy, "policy", device=device, dtype=dtype)
    given = len(prompts)
    prompts, encoded = policy.fitting(
        prompts, room=config.max_new_tokens, long_prompts=config.long_prompts
    )
    generator = torch.Generator(device=device).manual_seed(config.seed)

    # 2. Ask; ask those again that gave the same answer twice, because identical texts can't be
    #    ranked.
    answers: list[dict[str, sampling.Sampled]] = [{} for _ in prompts]
    waiting = list(range(len(prompts)))
    n_tokens = 0

    def told(done: int) -> None:
        if stop.requested:  # a minute's work at most: it begins again rather than resumes
            raise Stopped
        total = len(prompts)
        finished = total - len(waiting) + done
        write_progress(
            run_dir,
            done=finished,
            total=total,
            unit="prompts",
            eta_seconds=(time.monotonic() - began) / max(finished, 1) * (total - finished),
        )

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
            on_batch=told,
        )
        for i, group in zip(waiting, sampled, strict=True):
            n_tokens += sum(len(answer.tokens) for answer in group)
            for answer in group:
                answers[i].setdefault(policy.decode(answer.tokens), answer)
        waiting = [i for i in waiting if len(answers[i]) < config.k]
        if not waiting:
            break

    # 3. The first k distinct answers of each prompt.
    rows = [
        {
            "prompt_id": prompt.prompt_id,
            "responses": [
                {
                    "text": text,
                    "logprob": sum(answer.logprobs),
                    "n_tokens": len(answer.tokens),
                    "finished": answer.finished,
                }
                for text, answer in list(found.items())[: config.k]
            ],
        }
        for prompt, found in zip(prompts, answers, strict=True)
    ]
    write_jsonl(run_dir / "responses.jsonl", rows)
    seconds = time.monotonic() - began
    write_result(
        run_dir,
        {
            "n_prompts": len(rows),
            "n_left_out": given - len(rows),
            "n_responses": sum(len(row["responses"]) for row in rows),
            "tokens_per_second": n_tokens / seconds,
            "seconds": seconds,
        },
    )


if __name__ == "__main__":
    run_stage(main)
