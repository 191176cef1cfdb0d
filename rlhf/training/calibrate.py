"""Measure what a model costs on this device: `python -m rlhf.training.calibrate RUN_DIR`.

Some seconds instead of a first run: the time of a decoding step by the number of rows, of reading,
scoring and training a token, and the memory of each, by the functions that the stages call. From
these `rlhf/forecast` adds up a round. Every time is measured on the clock and in processor seconds:
the second is comparable on a machine that does other work too.
"""

import contextlib
import ctypes
import dataclasses
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf.training import architecture, forward_pass, machine, model_files, ppo_math, sampling
from rlhf.training.configs import CalibrateConfig
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.language_models import devices
from rlhf.training.language_models.policy import Policy, add_lora, load_policy
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.reward_models.texts import Text
from rlhf.training.rundir import CONFIG, log
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_progress, write_result
from rlhf.training.settings import load

LADDER = (4, 16, 64, 256, 1024)
"""The numbers of rows at which a decoding step is timed, up to `rows`."""

RESPONSES = 4
"""Responses per prompt of the reward model's probe, as people usually compare."""

PARTS = ("loading", "decoding", "reading", "training with LoRA", "training", "reward model")


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one call cost: seconds on the clock, processor seconds, bytes above those before it."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main(run_dir: Path, stop: StopRequest) -> None:
    """Measure one part after another; nothing of the model is kept."""
    began = time.monotonic()
    start = Cost(time.process_time(), time.process_time(), 0)  # Python's and torch's imports
    config = load(CalibrateConfig, run_dir / CONFIG)
    prompts = read_prompts(run_dir)
    device = devices.choose_device(config.device)
    devices.be_deterministic(config.seed, config.threads)
    dtype = devices.choose_dtype(config.dtype, device)
    meter = Meter(device)
    parts = iter(enumerate(PARTS))

    def next_part() -> None:
        if stop.requested:  # no checkpoint: it takes seconds
            raise Stopped
        done, note = next(parts)
        write_progress(run_dir, done=done, total=len(PARTS), unit="parts", note=note)

    # 1. The policy, and the project's prompts as it reads them.
    next_part()
    policy, loading = meter.result_of(
        lambda: load_policy(config.policy, "policy", device=device, dtype=dtype)
    )
    prompts, encoded = policy.encode_fitting(
        prompts, room=config.max_new_tokens, long_prompts="leave_out"
    )
    costs = {"start": start, "load": loading}

    # 2. Decoding by rows; the sampled responses are the texts of all that follows.
    next_part()
    decoding, responses, costs["prefill_token"] = measure_decoding(policy, encoded, config, meter)
    ended = [i for i in responses if i[-1] in policy.stop_ids]
    sampled = {
        "prompt_tokens": sum(map(len, encoded)) / len(encoded),
        "longest_prompt": max(map(len, encoded)),
        "tokens": sum(map(len, responses)),
        "ended": len(ended),
        "responses": len(responses),
    }

    # 3. Passes over prompt and response: read alone, with LoRA, with all weights.
    shape = shape_of(policy)
    texts = [policy.decode(tokens) for tokens in responses]
    for name, cost in measure_passes(policy, encoded, responses, config, meter, next_part):
        costs[name] = cost
    del policy
    meter.free()

    # 4. A reward model on the same trunk: scoring, and training all of its weights.
    next_part()
    shares, reward_costs = measure_reward_model(config, prompts, texts, device, dtype, meter)
    costs |= reward_costs
    here = machine.describe(run_dir)
    write_result(
        run_dir,
        {
            "device": here.device,
            "kind": device.type,
            "versions": here.versions,
            "dtype": str(dtype).removeprefix("torch."),
            "model_key": model_files.model_key(config.policy),
            "model": dataclasses.asdict(shape),
            "sampled": sampled,
            "decoding": decoding,
            "shares_prompts": shares,
            "costs": {name: dataclasses.asdict(cost) for name, cost in costs.items()},
            "process_bytes": meter.process_bytes,
            "seconds": time.monotonic() - began,
        },
    )


class Meter:
    """Time and peak memory of calls on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.process_bytes = _resident_bytes("VmRSS:")
        """RAM of the process before any model is loaded."""

    def result_of(self, call: Callable[[], Any]) -> tuple[Any, Cost]:
        """The call's result, and what it cost."""
        before = self._reset_peak()
        self._wait()
        began, cpu_began = time.monotonic(), time.process_time()
        result = call()
        self._wait()
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        return result, Cost(seconds, cpu_seconds, max(0, self._peak() - before))

    def cost_of(self, call: Callable[[], Any]) -> Cost:
        """What a call costs, the second time: the first one warms up, and shows the memory."""
        first = self.result_of(call)[1]
        second = self.result_of(call)[1]
        return Cost(second.seconds, second.cpu_seconds, max(first.peak_bytes, second.peak_bytes))

    def free(self) -> None:
        """Free what nothing refers to any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def has_room_for(self, n_bytes: float) -> bool:
        """Whether so many more bytes fit, with a fifth to spare."""
        if self.device.type == "cuda":
            return n_bytes < 0.8 * torch.cuda.mem_get_info(self.device)[0]
        return n_bytes < 0.8 * machine.free_ram()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _reset_peak(self) -> int:
        """Begin a new peak; the bytes in use now."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        _return_freed_memory()
        try:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins again
        except OSError:
            return max(_resident_bytes("VmHWM:"), _resident_bytes("VmRSS:"))
        return _resident_bytes("VmRSS:")

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _resident_bytes("VmHWM:")


def _return_freed_memory() -> None:
    """Give memory that was freed back to the system (glibc): what a call takes again would not be seen
    in the peak."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _resident_bytes(key: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none (not Linux)."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    lines = [line.split() for line in text.splitlines() if line.startswith(key)]
    return int(lines[0][1]) * 1024 if lines else 0


def per_unit(cost: Cost, units: float) -> Cost:
    """The cost of one of so many units."""
    units = max(units, 1.0)
    return Cost(cost.seconds / units, cost.cpu_seconds / units, round(cost.peak_bytes / units))


def shape_of(policy: Policy) -> model_files.ModelShape:
    """The model's shape, also where it comes from a hub."""
    model = architecture.unwrap_model(policy.model)
    weights = {id(p): p for p in model.parameters()}.values()
    return model_files.shape_of(
        model.config.to_dict(),
        n_parameters=sum(p.numel() for p in weights),
        n_bytes=sum(p.numel() * p.element_size() for p in weights),
        has_template=bool(getattr(policy.tokenizer, "chat_template", None)),
    )


def measure_decoding(
    policy: Policy, encoded: Sequence[Sequence[int]], config: CalibrateConfig, meter: Meter
) -> tuple[list[dict[str, float]], list[list[int]], Cost]:
    """Seconds of a decoding step by rows, the responses of the last batch up to where they end, and
    the cost of reading a prompt's token.

    No row leaves the batch while it is timed; where a response would have ended is read off later.
    """
    generator = torch.Generator(device=policy.device).manual_seed(config.seed)
    points: list[dict[str, float]] = []
    sampled: list[list[int]] = []
    prefill = Cost(0.0, 0.0, 0)
    # What fits the model's context together with the prompts, whatever max_new_tokens is.
    longest = min(config.max_new_tokens, policy.context - max(map(len, encoded)))
    for rows in [n for n in LADDER if n < config.rows] + [config.rows]:
        prompts = [encoded[i % len(encoded)] for i in range(rows)]

        def answers(tokens: int, prompts: Sequence[Sequence[int]] = prompts) -> list[list[int]]:
            drawn = sampling.sample(
                policy.model,
                prompts,
                max_new_tokens=tokens,
                temperature=config.temperature,
                stop_ids=[],
                pad_id=policy.pad_id,
                generator=generator,
                batch_size=len(prompts),
            )
            return [group[0].tokens for group in drawn]

        first = meter.cost_of(lambda answers=answers: answers(1))  # type: ignore[misc]
        trial = meter.result_of(lambda answers=answers: answers(2))[1]  # type: ignore[misc]
        step = max(trial.seconds - first.seconds, 1e-5)
        steps = int(min(max(config.seconds / step, 4), max(longest - 1, 1)))
        sampled, whole = meter.result_of(lambda n=steps, answers=answers: answers(1 + n))  # type: ignore[misc]
        points.append(
            {
                "rows": rows,
                "steps": steps,
                "seconds": max(whole.seconds - first.seconds, 0.0) / steps,
                "cpu_seconds": max(whole.cpu_seconds - first.cpu_seconds, 0.0) / steps,
                "bytes_per_row": whole.peak_bytes / rows,
            }
        )
        prefill = per_unit(first, sum(map(len, prompts)))
    return points, [_until_stop(tokens, policy.stop_ids) for tokens in sampled], prefill


def _until_stop(tokens: Sequence[int], stop_ids: Sequence[int]) -> list[int]:
    ends = [i for i, token in enumerate(tokens) if token in stop_ids]
    return list(tokens[: ends[0] + 1] if ends else tokens)


def measure_passes(
    policy: Policy,
    encoded: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    config: CalibrateConfig,
    meter: Meter,
    next_part: Callable[[], None],
) -> list[tuple[str, Cost]]:
    """Costs of a token that is read, and trained on with LoRA and with all weights (where their
    gradients and moments fit), and of an update of AdamW."""
    prompts: list[Sequence[int]] = []
    answers: list[Sequence[int]] = []
    tokens = 0
    for i, answer in enumerate(responses):
        prompt = encoded[i % len(encoded)]
        if prompts and tokens + len(prompt) + len(answer) > config.train_tokens:
            break
        prompts.append(prompt)
        answers.append(answer)
        tokens += len(prompt) + len(answer)
    dtype = next(policy.model.parameters()).dtype

    def forward() -> torch.Tensor:
        packed = policy.pack(prompts, answers)
        with devices.autocast(policy.device, dtype):
            hidden = forward_pass.hidden_states(policy.model, packed)
            picked, _ = ppo_math.logprobs_and_entropy(
                forward_pass.logits(policy.model, hidden),
                packed.tokens,
                temperature=config.temperature,
                train_entropy=False,
            )
        return picked.mean()

    def backward() -> None:
        policy.model.zero_grad(set_to_none=True)
        forward().backward()

    next_part()
    with torch.no_grad():
        read = meter.cost_of(forward)
    costs = [("read_token", per_unit(read, tokens))]

    next_part()
    add_lora(policy, rank=config.lora_rank, alpha=2.0 * config.lora_rank)
    costs += _training(policy.model, backward, tokens, meter, "lora")
    policy.model = policy.model.unload()

    next_part()
    weights = list(policy.model.parameters())
    size = sum(p.numel() for p in weights)
    if dtype == torch.float32 and meter.has_room_for(16.0 * size):
        for parameter in weights:
            parameter.requires_grad = True
        costs += _training(policy.model, backward, tokens, meter, "full")
    return costs


def _training(
    model: Any, backward: Callable[[], None], tokens: int, meter: Meter, name: str
) -> list[tuple[str, Cost]]:
    """Costs of a trained token without its weights' gradients, and of an update."""
    trained = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() * p.element_size() for p in trained)
    cost = meter.cost_of(backward)
    activations = dataclasses.replace(cost, peak_bytes=max(0, cost.peak_bytes - size))
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)
    update = meter.cost_of(optimizer.step)
    model.zero_grad(set_to_none=True)
    return [(f"{name}_token", per_unit(activations, tokens)), (f"{name}_update", update)]


def measure_reward_model(
    config: CalibrateConfig,
    prompts: Sequence[Prompt],
    responses: Sequence[str],
    device: torch.device,
    dtype: torch.dtype,
    meter: Meter,
) -> tuple[bool, dict[str, Cost]]:
    """Whether responses share their prompt, and costs of a reward model on the policy's trunk: a
    token that the prior reads, that is scored, that is trained on; an update; loading."""
    try:
        model, loading = meter.result_of(
            lambda: RewardModel.new(
                config.policy,
                ("helpfulness",),
                use_prior=True,
                max_length=config.max_length,
                device=device,
                dtype=dtype,
            )
        )
    except InputError as error:  # a trunk that can't carry heads: the round will say so
        log.warning(f"No reward model was measured: {error}")
        return False, {}
    shares = model.share_prompts_if_possible()
    texts = _texts(model, prompts, responses, config.train_tokens)
    plain = sum(len(t.prompt) + len(t.response) for t in texts)
    # As they are trained on: a prompt once for all responses to it, where the trunk allows it.
    distinct = {t.prompt: len(t.prompt) for t in texts}
    trained_tokens = sum(distinct.values()) + sum(len(t.response) for t in texts)
    trained_tokens = trained_tokens if shares else plain
    features, prior = meter.result_of(lambda: model.prior_features(texts))
    prior = meter.cost_of(lambda: model.prior_features(texts))
    alone = texts[::RESPONSES]  # PPO scores one response to each prompt

    def score() -> None:
        with torch.inference_mode():
            model.raw_scores(alone, None if features is None else features[::RESPONSES])

    costs = {
        "reward_load": loading,
        "prior_token": per_unit(prior, plain),
        "score_token": per_unit(
            meter.cost_of(score), sum(len(t.prompt) + len(t.response) for t in alone)
        ),
    }
    size = sum(p.numel() for p in model.trunk.parameters())
    if not meter.has_room_for(12.0 * size):
        log.warning("Training the reward model was not measured: it does not fit the memory.")
        return shares, costs
    model.trunk.train()

    def backward() -> None:
        model.trunk.zero_grad(set_to_none=True)
        model.raw_scores(texts, features).square().mean().backward()

    costs |= dict(_training(model.trunk, backward, trained_tokens, meter, "reward"))
    return shares, costs


def _texts(
    model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[str], most: int
) -> list[Text]:
    """Some responses to each of some prompts, of at most `most` tokens together (at least one
    prompt's)."""
    chosen: list[Text] = []
    for number, prompt in enumerate(prompts):
        own = [
            responses[(number * RESPONSES + i) % len(responses)] + " ." * i
            for i in range(RESPONSES)
        ]
        texts = model.tokenize([prompt.messages] * RESPONSES, own)
        tokens = sum(len(t.prompt) + len(t.response) for t in (*chosen, *texts))
        if chosen and tokens > most:
            break
        chosen += texts
    return chosen


if __name__ == "__main__":
    run_stage(main)
