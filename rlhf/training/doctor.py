"""Look at a run folder before any compute is spent on it: `python -m rlhf.training.doctor RUN_DIR`.

Says what would go wrong, or go on for long and come to nothing: settings that don't exist, models
that can't be read, conversations that do not survive template and tokenizer, batches that don't add
up, rewards that are all alike, memory and time that the machine does not have. Writes nothing into
the folder. `--json` prints the report for programs.

Exit code: 0 nothing found, 1 warnings, 2 the stage would refuse to run, or could not end well.
"""

import argparse
import difflib
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from rlhf.training import configs
from rlhf.training.configs import PPOConfig, StageConfig
from rlhf.training.rundir import CONFIG, DATA, InputError, read_json, read_result

STAGES: dict[str, type[StageConfig]] = {
    "base": configs.BaseConfig,
    "generate": configs.GenerateConfig,
    "reward_model": configs.RewardModelConfig,
    "ppo": PPOConfig,
    "evaluate": configs.EvaluateConfig,
    "selection": configs.SelectionConfig,
    "sft": configs.SFTConfig,
    "dpo": configs.DPOConfig,
    "best_of_n": configs.BestOfNConfig,
    "grow": configs.GrowConfig,
}

PROBED_PROMPTS = 12
PROBED_ANSWERS = 8
"""A few answers to a few prompts: enough to see that rewards differ, seconds to make."""

FULL_TRAINING_BYTES = 16
"""Per parameter in float32: itself, its gradient, AdamW's two moments (4 bytes each)."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: str
    """`ok`, `warning` or `error`."""
    about: str
    message: str


@dataclass
class Report:
    """What was found, and the figures that it rests on."""

    stage: str
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def add(self, level: str, about: str, message: str) -> None:
        self.findings.append(Finding(level, about, message))

    @property
    def exit_code(self) -> int:
        levels = {finding.level for finding in self.findings}
        return 2 if "error" in levels else 1 if "warning" in levels else 0


def examine(run_dir: Path, stage: str = "", *, probe: bool = True) -> Report:
    """The whole examination. `stage` "" is guessed from the folder; `probe` False samples nothing."""
    report = Report(stage)
    try:
        values = read_json(run_dir / CONFIG)
        if not isinstance(values, dict):
            raise InputError(f"{CONFIG} must hold a JSON object.")
        report.stage = stage or guess_stage(run_dir, values)
        config = check_settings(report, values)
        if config is None:
            return report
        if read_result(run_dir) is not None:
            report.add("warning", "folder", "It has its result already; the stage will do nothing.")
        if report.stage in ("base", "grow"):
            report.add("ok", "data", "Nothing else to check before this stage.")
            return report
        _examine_models(report, run_dir, config, probe=probe)
    except InputError as error:
        report.add("error", "input", str(error))
    return report


def guess_stage(run_dir: Path, values: dict[str, Any]) -> str:
    """Which stage a folder is for, from its data and the settings that only one stage has."""
    data = run_dir / DATA
    if (data / "corpus.jsonl").exists():
        return "base"
    if (data / "comparisons.jsonl").exists():
        return "selection"
    if (data / "demonstrations.jsonl").exists():
        return "sft"
    if (data / "preferences.jsonl").exists():
        return "reward_model" if "trunk" in values else "dpo"
    if "reference" in values:
        return "ppo"
    own = {
        name: {f.name for f in fields(config)}
        for name, config in STAGES.items()
        if name in ("generate", "evaluate", "best_of_n", "grow")
    }
    return max(own, key=lambda name: sum(key in own[name] for key in values) / len(own[name]))


def check_settings(report: Report, values: dict[str, Any]) -> StageConfig | None:
    """Every unknown key at once, with the one that was probably meant; then the values."""
    config = STAGES[report.stage]
    known = [f.name for f in fields(config)]
    unknown = [name for name in values if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        report.add("error", "settings", f"{name!r} is not a setting of {report.stage}{meant}")
    try:
        made = config.from_dict({k: v for k, v in values.items() if k not in unknown})
    except ValueError as error:
        report.add("error", "settings", f"{CONFIG}: {error}.")
        return None
    if unknown:
        return None
    report.add("ok", "settings", f"All {len(values)} settings are known to {report.stage}.")
    return made


def _examine_models(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    import torch

    from rlhf.training import loading, ptx
    from rlhf.training.data import Prompt, read_demonstrations, read_judgments, read_prompts
    from rlhf.training.scorers import RewardModel

    # 1. Data.
    room = getattr(config, "max_new_tokens", 1)
    if report.stage == "reward_model":
        prompts = [j.prompt for j in read_judgments(run_dir, config.axes)]
    elif report.stage == "dpo":
        prompts = [j.prompt for j in read_judgments(run_dir, [config.axis])]
    elif report.stage == "sft":
        prompts = [p for p, _ in read_demonstrations(run_dir)]
    else:
        prompts = read_prompts(run_dir)

    # 2. Models, by the very functions that the stage loads them with.
    device = loading.choose_device(config.device)
    torch.manual_seed(config.seed)
    if report.stage == "reward_model":
        trunk = loading.load_trunk(config.trunk, "trunk")
        tokenizer = loading.load_tokenizer(config.trunk, "trunk")
        check_round_trip(report, tokenizer, "trunk", prompts, [])
        copies = 2 if config.prior else 1  # the prior is a second, frozen one
        size = sum(p.numel() for p in trunk.parameters())
        needed = size * (FULL_TRAINING_BYTES + 4 * (copies - 1))
        _compare_memory(report, device, needed, {"trunk": needed})
        return
    policy = loading.load_policy(config.policy, "policy", device=device)
    if report.stage == "dpo":
        policy.refuse_encoder_decoder("TRL's DPOTrainer")
    render = policy.render if policy.encoder_decoder else None
    check_round_trip(report, policy.tokenizer, "policy", prompts, policy.stop_ids, render)

    # 3. Lengths and batches.
    lengths, fitting = [], list[Prompt]()
    for prompt in prompts:
        lengths.append(len(policy.prompt_ids(prompt.messages)))
        if policy.fits(lengths[-1], room):
            fitting.append(prompt)
    too_long = len(prompts) - len(fitting)
    if too_long:
        refused = config.long_prompts == "refuse" or not fitting
        report.add(
            "error" if refused else "warning",
            "lengths",
            f"{too_long} of {len(prompts)} prompts leave no room for {room} tokens in the context "
            f"of {policy.context}; "
            + ("shorten them, or set long_prompts." if refused else "they are left out."),
        )
    else:
        report.add(
            "ok",
            "lengths",
            f"Prompts have {min(lengths)} to {max(lengths)} tokens (median "
            f"{statistics.median(lengths):g}); with {room} more they fit into {policy.context}.",
        )
    report.figures["prompts"] = len(prompts)
    report.figures["prompt_tokens"] = {
        "least": min(lengths),
        "median": statistics.median(lengths),
        "most": max(lengths),
    }
    if isinstance(config, PPOConfig):
        check_batches(report, len(fitting), config)
        if config.ptx_weight:
            kept = ptx.read(run_dir, policy, config.long_prompts)
            report.add("ok", "ptx", f"{len(kept)} examples are kept likely.")
    elif report.stage in ("sft", "dpo"):
        rows = len(prompts)
        level = "warning" if rows < config.batch_size else "ok"
        report.add(level, "batches", f"{rows} examples, {config.batch_size} for each update.")

    # 4. Rewards: do they differ, and is there something better to be found?
    scorers = {
        name: RewardModel.load(path, device=device)
        for name in ("reward_model", "test_reward_model")
        if (path := getattr(config, name, ""))
    }
    if probe and fitting and room > 1:
        _probe(report, policy, fitting, scorers, config)

    # 5. Memory and time.
    if isinstance(config, PPOConfig):
        parts = ppo_memory(config, policy, scorers, max(lengths), same_device=device.type == "cpu")
        _compare_memory(report, device, sum(parts.values()), parts)
        if probe and fitting and not too_long:
            _estimate_time(report, policy, fitting, config)
    elif report.stage in ("sft", "dpo"):
        size = sum(p.numel() for p in policy.model.parameters())
        needed = size * (FULL_TRAINING_BYTES + (4 if report.stage == "dpo" else 0))
        _compare_memory(report, device, needed, {"policy": needed})


def check_round_trip(
    report: Report,
    tokenizer: Any,
    what: str,
    prompts: list[Any],
    stop_ids: list[int],
    apart: Callable[[list[dict[str, str]]], str] | None = None,
) -> None:
    """Do conversations come through template and tokenizer, and do answers end where they should?

    `apart` is how an encoder-decoder renders a conversation for its encoder.
    """
    from rlhf.training import loading

    render = apart or functools.partial(loading.render, tokenizer)
    lost: list[str] = []
    for prompt in prompts[:200]:
        text = render(prompt.messages)  # InputError where a turn is dropped
        back = tokenizer.decode(loading.encode(tokenizer, text), clean_up_tokenization_spaces=False)
        if back != text:
            lost.append(prompt.prompt_id)
    if lost:
        report.add(
            "warning",
            "tokenizer",
            f"{len(lost)} of {min(len(prompts), 200)} prompts come back changed from the {what}'s "
            f"tokenizer, {lost[0]} first: it has no tokens for some of their characters.",
        )
    else:
        report.add("ok", "tokenizer", f"Prompts come back unchanged from the {what}'s tokenizer.")
    if not getattr(tokenizer, "chat_template", None):
        said = (
            "its encoder reads a single turn as it stands, and of more turns each with its role."
            if apart
            else "turns are named."
        )
        report.add("warning", "template", f"The {what} has no chat template; {said}")
    bos = tokenizer.bos_token
    if bos and prompts and not apart:
        rendered = loading.render(tokenizer, prompts[0].messages)
        added = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
        if rendered.startswith(bos + bos):
            report.add("warning", "template", f"The {what}'s template begins with {bos} twice.")
        elif added and not rendered.startswith(bos):
            report.add(
                "warning",
                "template",
                f"The {what} expects {bos} first, and its template does not put it there.",
            )
    if not stop_ids:
        return
    # What the template itself puts behind an answer must be what ends one.
    names = [tokenizer.convert_ids_to_tokens(i) for i in stop_ids]
    marker = "yes"
    if getattr(tokenizer, "chat_template", None) and prompts:
        turns = [*prompts[0].messages, {"role": "assistant", "content": marker}]
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        behind = loading.encode(tokenizer, whole[whole.rfind(marker) + len(marker) :])
        first = next((i for i in behind if i in tokenizer.all_special_ids), None)
        if first is None:
            report.add(
                "warning",
                "end",
                f"The {what}'s template puts no special token behind an answer, so it can't be "
                f"learnt there that {' or '.join(names)} ends one.",
            )
        elif first not in stop_ids:
            report.add(
                "error",
                "end",
                f"The {what}'s template ends an answer with "
                f"{tokenizer.convert_ids_to_tokens(first)!r}, which is not among its stop tokens "
                f"({', '.join(names)}); add it to eos_token_id in generation_config.json.",
            )
        else:
            report.add("ok", "end", f"Answers end with {tokenizer.convert_ids_to_tokens(first)}.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in stop_ids:
        report.add(
            "ok", "pad", "Padding has no token of its own, which does no harm: masks are lengths."
        )


def check_batches(report: Report, n_prompts: int, config: PPOConfig) -> None:
    """Prompts, rollouts, minibatches, microbatches: do they add up?"""
    if n_prompts < config.prompts_per_step:
        report.add(
            "error",
            "batches",
            f"{n_prompts} prompts are fewer than the {config.prompts_per_step} of one step; add "
            "prompts or lower prompts_per_step.",
        )
        return
    passes = config.steps * config.prompts_per_step / n_prompts
    updates = max(1, round(config.responses_per_step / config.minibatch_size)) * config.epochs
    report.figures["passes"] = passes
    report.figures["updates"] = updates * config.steps
    report.add(
        "ok",
        "batches",
        f"{config.steps} steps of {config.responses_per_step} responses, {updates} updates each; "
        f"every prompt is seen {passes:.2g} times.",
    )
    if config.minibatch_size < 8 and config.whiten_rewards:
        report.add("warning", "batches", "Whitening rewards wants minibatches of 8 or more.")
    if config.approx_kl_stop == 0 and config.epochs > 4:
        report.add("warning", "batches", f"{config.epochs} epochs with approx_kl_stop off drift.")


def _probe(
    report: Report, policy: Any, prompts: list[Any], scorers: dict[str, Any], config: Any
) -> None:
    """Sample a few answers and score them."""
    import torch

    from rlhf.training import sampling

    chosen = prompts[:: max(1, len(prompts) // PROBED_PROMPTS)][:PROBED_PROMPTS]
    _, encoded = policy.fitting(chosen, room=config.max_new_tokens, long_prompts="refuse")
    temperature = getattr(config, "temperature", 1.0)
    began = time.monotonic()
    answers = sampling.sample(
        policy.model,
        encoded,
        k=PROBED_ANSWERS,
        max_new_tokens=config.max_new_tokens,
        temperature=temperature,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator(device=policy.device).manual_seed(config.seed),
    )
    seconds = time.monotonic() - began
    flat = [a for group in answers for a in group]
    texts = [[policy.decode(a.tokens) for a in group] for group in answers]
    tokens = sum(len(a.tokens) for a in flat)
    ended = sum(a.finished for a in flat) / len(flat)
    distinct = statistics.fmean(len(set(group)) / len(group) for group in texts)
    report.figures |= {
        "tokens_per_second": tokens / seconds,
        "mean_response_tokens": tokens / len(flat),
        "finished": ended,
        "distinct": distinct,
    }
    if ended < 0.5:
        report.add(
            "warning",
            "answers",
            f"Only {ended:.0%} of {len(flat)} sampled answers ended within {config.max_new_tokens} "
            "tokens; raise max_new_tokens, or teach the policy to end first (sft).",
        )
    elif distinct < 0.3:
        report.add(
            "warning",
            "answers",
            f"Of {PROBED_ANSWERS} answers to a prompt only {distinct * PROBED_ANSWERS:.1f} differ; "
            "a policy that always says the same can't find anything better.",
        )
    else:
        report.add(
            "ok",
            "answers",
            f"{ended:.0%} of {len(flat)} sampled answers end; mean length "
            f"{tokens / len(flat):.0f} tokens.",
        )
    judged = {}
    for name, scorer in scorers.items():
        asked = [p for p, group in zip(chosen, texts, strict=True) for _ in group]
        axes = scorer.score([p.messages for p in asked], [t for group in texts for t in group])
        total = scorer.combine(
            axes, [p.risk for p in asked], threshold=getattr(config, "safety_threshold", 0.15)
        )
        judged[name] = total.reshape(len(chosen), PROBED_ANSWERS)
    if "reward_model" in judged:
        scores = judged["reward_model"]
        spread = float(scores.std(dim=1).mean())
        headroom = float((scores.max(dim=1).values - scores.mean(dim=1)).mean())
        report.figures |= {"reward_spread": spread, "best_of_8_headroom": headroom}
        said = (
            f"Answers to one prompt differ by {spread:.2f} (standard deviation of the reward); the "
            f"best of {PROBED_ANSWERS} is worth {headroom:.2f} more than the mean."
        )
        if spread < 0.05:
            report.add("warning", "reward", said + " There is next to nothing to climb.")
        else:
            report.add("ok", "reward", said)
    if len(judged) == 2:
        one, other = (s - s.mean(dim=1, keepdim=True) for s in judged.values())
        size = float(one.norm() * other.norm())
        agreement = float((one * other).sum()) / size if size > 0 else 0.0
        report.figures["reward_models_agree"] = agreement
        report.add(
            "warning" if agreement < 0.2 else "ok",
            "reward",
            f"The two reward models' opinions of these answers correlate by {agreement:.2f}"
            + ("; what one rewards the other does not see." if agreement < 0.2 else "."),
        )


def ppo_memory(
    config: PPOConfig, policy: Any, scorers: dict[str, Any], longest: int, *, same_device: bool
) -> dict[str, float]:
    """Bytes that a PPO run needs, by part: a rough upper estimate.

    Full training holds weights, gradients and two moments in float32; frozen models are bfloat16 on
    a GPU. Activations: about 16 floats per token, layer and unit (Korthikanti et al. 2022 count 34
    bytes at 2 bytes each), and the vocabulary's logits three times (logits, log-softmax, gradient).
    """
    model, shape = policy.model, policy.model.config
    size = sum(p.numel() for p in model.parameters())
    half = config.dtype == "bfloat16" or (config.dtype == "auto" and not same_device)
    frozen = 2 if half else 4
    hidden = policy.hidden_size
    layers = getattr(shape, "num_hidden_layers", 1)
    if policy.encoder_decoder:
        layers += getattr(shape, "num_decoder_layers", None) or layers
    linear = sum(sum(m.weight.shape) for m in model.modules() if type(m).__name__ == "Linear")
    trained = linear * config.lora_rank if config.lora_rank else size
    parts = {
        "policy": trained * FULL_TRAINING_BYTES + (size * frozen if config.lora_rank else 0),
        "reference": 0.0
        if config.lora_rank and config.policy == config.reference
        else size * frozen,
        "critic": float(
            hidden * (hidden + 2) * FULL_TRAINING_BYTES
            if config.critic == "head"
            else size * FULL_TRAINING_BYTES
        ),
    }
    for name, scorer in scorers.items():
        owned = [scorer.trunk, scorer.prior] if scorer.prior is not None else [scorer.trunk]
        parts[name] = float(sum(p.numel() * frozen for m in owned for p in m.parameters()))
    tokens = config.microbatch_size * (longest + config.max_new_tokens)
    logits = config.microbatch_size * config.max_new_tokens * shape.vocab_size * 4
    parts["activations"] = tokens * layers * hidden * 16 * frozen + 3 * logits
    heads = getattr(shape, "num_key_value_heads", getattr(shape, "num_attention_heads", 1))
    per_head = getattr(shape, "head_dim", None) or hidden // max(shape.num_attention_heads, 1)
    rows = min(config.decode_batch_size, config.responses_per_step)
    reach = longest + config.max_new_tokens
    parts["cache"] = float(2 * layers * rows * reach * heads * per_head * frozen)
    return {name: float(value) for name, value in parts.items()}


def available_memory(device_type: str) -> float:
    """Bytes that can be had now: of the GPU, or of the machine within its control group."""
    if device_type == "cuda":
        import torch

        return float(torch.cuda.mem_get_info()[0])
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(float(line.split()[1]) * 1024)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        found.append(float(text) - float(used.read_text()))
    return min(found)


def _compare_memory(report: Report, device: Any, needed: float, parts: dict[str, float]) -> None:
    here = available_memory(device.type)
    report.figures["memory"] = {"needed": needed, "available": here, "parts": parts}
    largest = max(parts, key=parts.__getitem__)
    said = (
        f"About {_size(needed)} needed (most for the {largest}: {_size(parts[largest])}), "
        f"{_size(here)} free."
    )
    if needed > here:
        report.add("error", "memory", said + " Take LoRA, smaller batches, or a bigger machine.")
    else:
        report.add("warning" if needed > 0.8 * here else "ok", "memory", said)


def _estimate_time(report: Report, policy: Any, prompts: list[Any], config: PPOConfig) -> None:
    """Time one forward and backward pass, and add up a run from it and the probe's sampling."""
    import torch

    rows = min(config.microbatch_size, 16)
    chosen = [prompts[i % len(prompts)] for i in range(rows)]
    _, encoded = policy.fitting(chosen, room=config.max_new_tokens, long_prompts="refuse")
    length = max(1, round(report.figures.get("mean_response_tokens", config.max_new_tokens)))
    answers = [[policy.pad_id] * length] * rows
    threads = torch.get_num_threads()
    if config.threads:
        torch.set_num_threads(config.threads)
    try:
        for _ in range(2):  # the first warms up
            began = time.monotonic()
            _, hidden = policy.read(encoded, answers)
            loss = policy.logits(hidden).float().mean()
            forward = time.monotonic() - began
            loss.backward()
            if policy.device.type == "cuda":
                torch.cuda.synchronize()
            both = time.monotonic() - began
            policy.model.zero_grad(set_to_none=True)
    finally:
        torch.set_num_threads(threads)
    responses = config.responses_per_step
    generate = responses * length / max(report.figures.get("tokens_per_second", 1e9), 1e-9)
    passes = responses / rows
    scorers = 1 + bool(config.test_reward_model)
    step = generate + passes * (forward * (2 + scorers) + both * config.epochs)
    report.figures["seconds"] = {"step": step, "run": step * config.steps, "generate": generate}
    report.add(
        "ok",
        "time",
        f"Roughly {_duration(step)} a step, {_duration(step * config.steps)} for {config.steps} "
        f"steps ({generate / step:.0%} of it sampling), as busy as the machine is now.",
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def _duration(seconds: float) -> str:
    for unit, span in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * span:
            return f"{seconds / span:.2g} {unit}"
    return f"{seconds:.2g} s"


def show(report: Report) -> None:
    """The report for a person."""
    from rich.console import Console
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
    console = Console(highlight=False)
    console.print(Text(f"Doctor · {report.stage or 'no stage'}", style="bold"))
    for finding in report.findings:
        mark, style = marks[finding.level]
        line = Text(f" {mark} ", style=style)
        line.append(f"{finding.about:<10}", style="bold")
        line.append(finding.message, style="default")
        console.print(line)
    said = {
        0: "Nothing stands in the way.",
        1: "It can run; look at the warnings first.",
        2: "It can't run like this.",
    }
    console.print(Text(said[report.exit_code], style="bold"))


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", type=Path, help="the run folder (docs/formats.md)")
    parser.add_argument("--stage", choices=sorted(STAGES), default="", help="else guessed")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--no-samples", action="store_true", help="don't try the policy")
    given = parser.parse_args(arguments)
    if not given.run_dir.is_dir():
        print(f"There is no folder {given.run_dir}.", file=sys.stderr)
        return 2
    report = examine(given.run_dir, given.stage, probe=not given.no_samples)
    if given.json:
        told = {"exit_code": report.exit_code} | asdict(report)
        print(json.dumps(told, ensure_ascii=False, indent=1))
    else:
        show(report)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
