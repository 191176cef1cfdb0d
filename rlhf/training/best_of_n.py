"""The best of n answers by the reward model: `python -m rlhf.training.best_of_n RUN_DIR`.

The baseline that costs no training. Its KL divergence from the policy is at most log n - (n - 1)/n
(Stiennon et al. 2020, appendix G.3; exact when no two answers score alike), so it has a place on the
same axes as a PPO run.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training import reward_shaping, sampling
from rlhf.training.configs import BestOfNConfig
from rlhf.training.data import read_prompts
from rlhf.training.intervals import mean_with_interval
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_progress, write_result
from rlhf.training.settings import load


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, prompts, policy, reward models.
    config = load(BestOfNConfig, run_dir / CONFIG)
    prompts = read_prompts(run_dir)
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    dtype = devices.choose_dtype(config.dtype, device)
    policy = load_policy(config.policy, "policy", device=device, dtype=dtype)
    given = len(prompts)
    prompts, encoded = policy.fitting(
        prompts, room=config.max_new_tokens, long_prompts=config.long_prompts
    )
    names = {"score": config.reward_model, "test_score": config.test_reward_model}
    scorers = {
        name: load_reward_model(path, device=device, dtype=dtype)
        for name, path in names.items()
        if path
    }

    # 2. Answers.
    def told(done: int) -> None:
        if stop.requested:  # a minute's work at most: it begins again rather than resumes
            raise Stopped
        seconds = (time.monotonic() - began) / done * (len(prompts) - done)
        write_progress(run_dir, done=done, total=len(prompts), unit="prompts", eta_seconds=seconds)

    answers = sampling.sample(
        policy.model,
        encoded,
        k=config.samples or 2 * max(config.n),
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator(device=device).manual_seed(config.seed),
        batch_size=config.batch_size,
        on_batch=told,
    )

    # 3. Scores. One that did not end is worth what PPO makes it worth.
    texts = [[policy.decode(a.tokens) for a in group] for group in answers]
    asked = [prompt for prompt, group in zip(prompts, texts, strict=True) for _ in group]
    scores: dict[str, list[list[float]]] = {}
    axes: dict[str, torch.Tensor] = {}
    for name, scorer in scorers.items():
        parts = scorer.score([p.messages for p in asked], [t for group in texts for t in group])
        axes = axes or parts
        total = scorer.combine(parts, [p.risk for p in asked], threshold=config.safety_threshold)
        finished = torch.tensor([a.finished for group in answers for a in group])
        total = reward_shaping.replace_unfinished(total, finished, config.no_eos_score)
        scores[name] = total.reshape(len(prompts), -1).tolist()

    # 4. For each n: what the best of n answers is worth, and which one it is.
    ids = [p.prompt_id for p in prompts]
    curve = []
    for n in config.n:
        point: dict[str, Any] = {"n": n, "kl": kl_bound(n)}
        for name, judged in scores.items():
            values = [
                expected_best(by, of, n) for by, of in zip(scores["score"], judged, strict=True)
            ]
            value, interval, count = mean_with_interval(values, ids, seed=config.seed)
            point[name] = {"value": value, "ci": list(interval), "n": count}
        curve.append(point)
        rows = []
        for i, prompt in enumerate(prompts):
            best = max(range(n), key=scores["score"][i].__getitem__)
            answer, place = answers[i][best], i * len(answers[i]) + best
            rows.append(
                {
                    "prompt_id": prompt.prompt_id,
                    "temperature": config.temperature,
                    "index": 0,
                    "text": texts[i][best],
                    "n_tokens": len(answer.tokens),
                    "finished": answer.finished,
                    "scores": {axis: float(s[place]) for axis, s in axes.items()},
                    "logprob": sum(answer.logprobs),
                }
            )
        write_jsonl(run_dir / f"samples-{n}.jsonl", rows)
    write_result(
        run_dir,
        {
            "curve": curve,
            "n_prompts": len(prompts),
            "n_left_out": given - len(prompts),
            "seconds": time.monotonic() - began,
        },
    )


def kl_bound(n: int) -> float:
    """KL divergence of the best of `n` from the policy itself, in nats per response."""
    return math.log(n) - (n - 1) / n


def expected_best(by: Sequence[float], of: Sequence[float], n: int) -> float:
    """The mean of `of` over all choices of `n` answers, at the one of them that `by` puts first.

    Exact over the sampled answers, so all of them count for every n (Nakano et al. 2021, "WebGPT",
    appendix I): of N in ascending order the i-th (from 1) is the best of C(i - 1, n - 1) choices
    of C(N, n).
    """
    order = sorted(range(len(by)), key=by.__getitem__)
    total = math.comb(len(by), n)
    return sum(math.comb(i, n - 1) / total * of[place] for i, place in enumerate(order))


if __name__ == "__main__":
    run_stage(main)
