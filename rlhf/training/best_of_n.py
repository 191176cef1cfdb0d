"""The best of n responses by the reward model: `python -m rlhf.training.best_of_n RUN_DIR`.

The baseline without training. Its KL divergence from the policy is at most log n - (n - 1)/n
(Stiennon et al. 2020, appendix G.3; exact if all scores are distinct), so that it can be plotted
with PPO runs.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlhf.training import reward_shaping, sampling
from rlhf.training.configs import BestOfNConfig
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.intervals import mean_with_interval
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_models.model import OnBatch, RewardModel
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.errors import Stopped
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress, write_progress, write_result
from rlhf.training.settings import load


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. Configuration, prompts, policy, reward models.
    config = load(BestOfNConfig, run_dir / CONFIG)
    progress = Progress(run_dir)
    progress.phase("loading the models")
    prompts = read_prompts(run_dir)
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    dtype = devices.choose_dtype(config.dtype, device)
    policy = load_policy(config.policy, "policy", device=device, dtype=dtype)
    n_given = len(prompts)
    prompts, encoded = policy.encode_fitting(
        prompts, room=config.max_new_tokens, long_prompts=config.long_prompts
    )
    names = {"score": config.reward_model, "test_score": config.test_reward_model}
    scorers = {
        name: load_reward_model(
            path, device=device, dtype=dtype, tokens_per_pass=config.tokens_per_pass
        )
        for name, path in names.items()
        if path
    }

    # 2. Responses.
    def report_progress(done: int) -> None:
        if stop.requested:  # no checkpoint: the stage is short and starts over
            raise Stopped
        seconds = (time.monotonic() - began) / done * (len(prompts) - done)
        write_progress(run_dir, done=done, total=len(prompts), unit="prompts", eta_seconds=seconds)

    responses = sampling.sample(
        policy.model,
        encoded,
        k=config.samples or 2 * max(config.n),
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator(device=device).manual_seed(config.seed),
        batch_size=config.batch_size,
        on_batch=report_progress,
        on_token=progress.phase("sampling", len(prompts), "prompts"),
    )

    # 3. Scores. A response that did not end gets the score that PPO would give it.
    texts = [[policy.decode(r.tokens) for r in of_prompt] for of_prompt in responses]
    scores: dict[str, list[list[float]]] = {}
    axes: dict[str, Tensor] = {}
    for name, scorer in scorers.items():
        on_batch = progress.phase("scoring", unit="texts")
        by_axis, scores[name] = score_responses(scorer, prompts, responses, texts, config, on_batch)
        axes = axes or by_axis

    # 4. For each n: the expected score of the best of n responses, and which one it is.
    curve = []
    for n in config.n:
        curve.append({"n": n, "kl": kl_bound(n)} | expected_scores(scores, prompts, n, config.seed))
        best = [max(range(n), key=of_prompt.__getitem__) for of_prompt in scores["score"]]
        rows = [
            sample_row(prompt, responses[i][best[i]], texts[i][best[i]], config)
            | {"scores": {axis: float(s[i * len(texts[i]) + best[i]]) for axis, s in axes.items()}}
            for i, prompt in enumerate(prompts)
        ]
        write_jsonl(run_dir / f"samples-{n}.jsonl", rows)
    write_result(
        run_dir,
        {
            "curve": curve,
            "n_prompts": len(prompts),
            "n_left_out": n_given - len(prompts),
            "seconds": time.monotonic() - began,
        },
    )


def expected_scores(
    scores: dict[str, list[list[float]]], prompts: Sequence[Prompt], n: int, seed: int
) -> dict[str, dict[str, Any]]:
    """For each scorer, its mean score of the best of n responses by the first scorer, with a 95 %
    interval over prompts. `scores` are by scorer, prompt and response."""
    ids = [prompt.prompt_id for prompt in prompts]
    means = {}
    for name, of_scorer in scores.items():
        values = [
            expected_best(chosen_by, values, n)
            for chosen_by, values in zip(scores["score"], of_scorer, strict=True)
        ]
        value, interval, count = mean_with_interval(values, ids, seed=seed)
        means[name] = {"value": value, "ci": list(interval), "n": count}
    return means


def sample_row(
    prompt: Prompt, response: sampling.Sampled, text: str, config: BestOfNConfig
) -> dict[str, Any]:
    """A row of samples.jsonl (docs/formats.md), without its scores."""
    return {
        "prompt_id": prompt.prompt_id,
        "temperature": config.temperature,
        "index": 0,
        "text": text,
        "n_tokens": len(response.tokens),
        "finished": response.finished,
        "scores": None,
        "logprob": sum(response.logprobs),
    }


def score_responses(
    scorer: RewardModel,
    prompts: Sequence[Prompt],
    responses: Sequence[Sequence[sampling.Sampled]],
    texts: Sequence[Sequence[str]],
    config: BestOfNConfig,
    on_batch: OnBatch,
) -> tuple[dict[str, Tensor], list[list[float]]]:
    """The scores (responses,) of all responses on each axis, and the combined scores of each
    prompt's responses."""
    prompt_of = [p for p, of_prompt in zip(prompts, texts, strict=True) for _ in of_prompt]
    flat = [text for of_prompt in texts for text in of_prompt]
    by_axis = scorer.score([p.messages for p in prompt_of], flat, on_batch=on_batch)
    risks = [p.risk for p in prompt_of]
    total = scorer.combine(by_axis, risks, threshold=config.safety_threshold)
    finished = torch.tensor([r.finished for of_prompt in responses for r in of_prompt])
    total = reward_shaping.replace_unfinished(total, finished, config.no_eos_score)
    return by_axis, total.reshape(len(prompts), -1).tolist()


def kl_bound(n: int) -> float:
    """KL divergence of the best of `n` from the policy itself, in nats per response."""
    return math.log(n) - (n - 1) / n


def expected_best(chosen_by: Sequence[float], values: Sequence[float], n: int) -> float:
    """The expected value of the best of `n` responses: the mean over all subsets of size `n` of the
    `values` entry at the highest `chosen_by`.

    Exact over the sampled responses, so that all of them count for every n (Nakano et al. 2021,
    "WebGPT", appendix I): of N in ascending order the i-th (from 1) is the best of C(i - 1, n - 1)
    choices of C(N, n).
    """
    order = sorted(range(len(chosen_by)), key=chosen_by.__getitem__)
    total = math.comb(len(chosen_by), n)
    return sum(math.comb(i, n - 1) / total * values[index] for i, index in enumerate(order))


if __name__ == "__main__":
    run_stage(main)
