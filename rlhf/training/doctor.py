"""Look at a run folder before any compute is spent on it: `python -m rlhf.training.doctor RUN_DIR`.

Says what would go wrong, or go on for long and come to nothing: settings that don't exist, models
that can't be read, conversations that do not survive template and tokenizer, batches that don't add
up, rewards that are all alike, memory and time that the machine does not have. Writes nothing into
the folder. `--json` prints the report for programs.

Exit code: 0 nothing found, 1 warnings, 2 the stage would refuse to run, or could not end well.
"""

import argparse
import contextlib
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
from rlhf.training.configs import PPOConfig
from rlhf.training.rundir import (
    CHECKPOINT,
    CONFIG,
    DATA,
    InputError,
    find_checkpoint,
    read_json,
    read_result,
)
from rlhf.training.settings import StageConfig

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
        config = check_settings(report, values, begun=(run_dir / CHECKPOINT).exists())
        if config is None:
            return report
        if read_result(run_dir) is not None:
            report.add("warning", "folder", "It has its result already; the stage will do nothing.")
        if report.stage in ("base", "grow"):
            report.add("ok", "data", "Nothing else to check before this stage.")
            return report
        # What a stage prints while it reads is no part of the report.
        with contextlib.redirect_stdout(sys.stderr):
            EXAMINATIONS.get(report.stage, _examine_policy)(report, run_dir, config, probe=probe)
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


def check_settings(
    report: Report, values: dict[str, Any], *, begun: bool = False
) -> StageConfig | None:
    """Every unknown key at once, with the one that was probably meant; then the values; then all
    that do nothing, with which only a run that was `begun` goes on."""
    config = STAGES[report.stage]
    known = [f.name for f in fields(config)]
    unknown = [name for name in values if name not in known]
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        report.add("error", "settings", f"{name!r} is not a setting of {report.stage}{meant}")
    try:
        asked = {k: v for k, v in values.items() if k not in unknown}
        made = config.from_dict(asked, stored=True)
    except ValueError as error:
        report.add("error", "settings", f"{CONFIG}: {error}.")
        return None
    idle = made.idle(asked)
    for reason in idle.values():
        report.add("warning" if begun else "error", "settings", f"{CONFIG}: {reason}.")
    if unknown or (idle and not begun):
        return None
    report.add("ok", "settings", f"All {len(values)} settings are known to {report.stage}.")
    return made


def _examine_policy(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Stages that answer prompts or teach answers, without reinforcement learning."""
    from rlhf.training import loading, sampling
    from rlhf.training.data import read_demonstrations, read_judgments, read_prompts
    from rlhf.training.scorers import RewardModel

    # 1. Data.
    room = getattr(config, "max_new_tokens", 1)
    if report.stage == "dpo":
        prompts = [j.prompt for j in read_judgments(run_dir, [config.axis])]
    elif report.stage == "sft":
        prompts = [p for p, _ in read_demonstrations(run_dir)]
    else:
        prompts = read_prompts(run_dir)

    # 2. Models, by the very functions that the stage loads them with.
    device = loading.choose_device(config.device)
    here = available_memory(device.type)
    loading.be_deterministic(config.seed, 0)
    policy = loading.load_policy(config.policy, "policy", device=device)
    if report.stage == "dpo":
        policy.refuse_encoder_decoder("TRL's DPOTrainer")
    _check_policy(report, policy, prompts)

    # 3. Lengths and batches.
    fitting, _ = _check_lengths(report, policy, prompts, room, config.long_prompts)
    if report.stage in ("sft", "dpo"):
        rows = len(prompts)
        level = "warning" if rows < config.batch_size else "ok"
        report.add(level, "batches", f"{rows} examples, {config.batch_size} for each update.")

    # 4. Answers and rewards.
    scorers = {
        name: RewardModel.load(path, device=device)
        for name in ("reward_model", "test_reward_model")
        if (path := getattr(config, name, ""))
    }
    if probe and fitting and room > 1:
        chosen, encoded = _some(policy, fitting, config)
        began = time.monotonic()
        answers = sampling.sample(
            policy.model,
            encoded,
            k=PROBED_ANSWERS,
            max_new_tokens=config.max_new_tokens,
            temperature=getattr(config, "temperature", 1.0),
            stop_ids=policy.stop_ids,
            pad_id=policy.pad_id,
            generator=_generator(policy.device, config.seed),
        )
        probed = Probed(chosen, encoded, answers, policy, time.monotonic() - began)
        _report_answers(report, probed, config)
        rewards = {
            name: _replaced(probed, _combined(scorer, probed, config), config)
            for name, scorer in scorers.items()
        }
        _report_rewards(report, probed, rewards)

    # 5. Memory.
    if report.stage in ("sft", "dpo"):
        size = sum(p.numel() for p in policy.model.parameters())
        needed = size * (FULL_TRAINING_BYTES + (4 if report.stage == "dpo" else 0))
        _compare_memory(report, here, needed, {"policy": needed})


def _examine_ppo(report: Report, run_dir: Path, config: PPOConfig, *, probe: bool) -> None:
    """PPO: what it reads and builds is read and built, so that what stops it stops the doctor."""
    from rlhf.training import loading, ptx
    from rlhf.training.ppo_models import Models, mix, read_inputs

    # 1. Prompts, checkpoint, models.
    prompts, watch = read_inputs(run_dir, config)
    checkpoint = find_checkpoint(run_dir)
    device = loading.choose_device(config.device)
    here = available_memory(device.type)
    if _too_large(report, here, config):
        return
    loading.be_deterministic(config.seed, config.threads)
    models = Models(config)
    if checkpoint is not None:
        state = read_json(checkpoint / "state.json")
        models.scales = state["scales"]
        report.add("ok", "checkpoint", f"It would go on after step {state['step']}.")
    policy = models.policy
    _check_policy(report, policy, prompts)

    # 2. Lengths and batches.
    room, long_prompts = config.max_new_tokens, config.long_prompts
    fitting, longest = _check_lengths(report, policy, prompts, room, long_prompts)
    if watch:
        kept, _ = models.fitting(watch)
        report.add("ok", "watch", f"{len(kept)} prompts are watched.")
    check_batches(report, len(fitting), config)
    if config.ptx_weight:
        examples = ptx.read(run_dir, policy, long_prompts)
        report.add("ok", "ptx", f"{len(examples)} examples are kept likely.")

    # 3. Answers and their rewards, as a step would sample and judge them.
    scoring = 0.0
    if probe and fitting:
        if config.normalise_samples and checkpoint is None:
            some = [fitting[i % len(fitting)] for i in range(config.normalise_samples)]
            models.normalise(*models.fitting(some))
        chosen, encoded = _some(policy, fitting, config)
        began = time.monotonic()
        answers = models.sample(encoded, PROBED_ANSWERS, seed=mix(config.seed, -3))
        probed = Probed(chosen, encoded, answers, policy, time.monotonic() - began)
        _report_answers(report, probed, config)
        began = time.monotonic()
        rewards = {"reward_model": _ppo_reward(models, probed)}
        scoring = (time.monotonic() - began) / len(probed.flat)
        if models.test_scorer is not None:  # it only watches: its own opinion, without the rules
            second = _combined(models.test_scorer, probed, config)
            rewards["test_reward_model"] = _replaced(probed, second, config)
        _report_rewards(report, probed, rewards)
        asked = [ids for ids in encoded for _ in range(PROBED_ANSWERS)]
        old, _, _, mask = models.read(asked, probed.flat)
        models.compare(probed.flat, old, mask)

    # 4. Memory and time.
    parts = ppo_memory(models, longest, watched=bool(watch))
    _compare_memory(report, here, sum(parts.values()), parts)
    if probe and len(fitting) == len(prompts):
        _estimate_time(report, models, fitting, scoring)


def _ppo_reward(models: Any, probed: "Probed") -> Any:
    """What PPO would climb (answers,): by its own `judge`, then what it does to the score of an
    answer that is too long or did not end."""
    import torch

    from rlhf.training import ppo_math

    config = models.config
    scores, _ = models.judge(probed.asked, probed.texts)
    if not bool(torch.isfinite(scores).all()):
        raise InputError(
            "Rewards of sampled answers are not finite numbers; mend the reward model or the rule "
            "that gave them."
        )
    if config.overlong_buffer:
        scores = scores - ppo_math.overlong_penalty(
            torch.tensor([len(answer.tokens) for answer in probed.flat]),
            longest=config.max_new_tokens,
            buffer=config.overlong_buffer,
            penalty=config.overlong_penalty,
        )
    return _replaced(probed, scores, config)


def _examine_reward_model(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Reward models: the rankings of both sides as they would be learnt from, and one update."""
    import torch

    from rlhf.training import loading, reward_model
    from rlhf.training.data import read_judgments, read_texts

    # 1. Rankings, split by prompt, and texts of the reference.
    judgments = read_judgments(run_dir, config.axes)
    if config.loss == "plackett_luce":
        reward_model.check_ties(judgments)
    read_texts(run_dir, "reference")
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is not None:
        report.add("ok", "checkpoint", "It would go on from its checkpoint.")
    ids = sorted({j.prompt.prompt_id for j in judgments})
    halves = dict(zip(("train", "test"), reward_model.split(ids, config), strict=True))
    annotators = sorted({j.annotator for j in judgments})

    # 2. The first model of all that would be trained.
    device = loading.choose_device(config.device)
    here = available_memory(device.type)
    loading.be_deterministic(config.seed, config.threads)
    plans = reward_model.plans_of(config)
    axes, seed = plans[0]
    model = reward_model.new_member(config, axes, seed, device, [], "train")
    check_round_trip(report, model.tokenizer, "trunk", [j.prompt for j in judgments], [])

    # 3. Lengths and batches.
    sides = {}
    for name, mine in halves.items():
        groups = reward_model.groups_of(
            model, [j for j in judgments if j.prompt.prompt_id in mine], annotators
        )
        sides[name] = [g for g in groups if any(o.pairs for o in g.opinions)]
        if not sides[name]:
            report.add(
                "error",
                "batches",
                f"No ranking for the {name}-RM prefers one response to another; rank more responses.",
            )
            return
    updates = {
        name: len(plans) * config.epochs * -(-len(groups) // config.rankings_per_batch)
        for name, groups in sides.items()
    }
    report.figures |= {"rankings": {n: len(g) for n, g in sides.items()}, "updates": updates}
    few = min(map(len, sides.values())) < config.rankings_per_batch
    report.add(
        "warning" if few else "ok",
        "batches",
        " and ".join(f"{len(g)} groups of responses for the {n}-RM" for n, g in sides.items())
        + f", {config.rankings_per_batch} for each of {sum(updates.values())} updates"
        + ("; the smaller side is less than one batch." if few else "."),
    )
    texts = [t for groups in sides.values() for g in groups for t in g.texts]
    full = sum(len(t.prompt) + len(t.response) >= model.max_length for t in texts)
    report.add(
        "warning" if full > 0.2 * len(texts) else "ok",
        "lengths",
        f"{full} of {len(texts)} texts fill the {model.max_length} tokens that are read"
        + ("; what is longer is cut." if full else "."),
    )

    # 4. Memory: models are trained one after another, and those that are done stay.
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    kept = _bytes(model.trunk, model.heads)
    parts = {
        "trunk": float(kept + trained * (FULL_TRAINING_BYTES - 4)),
        "other models": float(kept * (2 * len(plans) - 1)),
    }
    if model.prior is not None:
        parts["priors"] = 2.0 * _bytes(model.prior)
    shape = model.trunk.config
    longest = max(len(t.prompt) + len(t.response) for t in texts)
    rows = config.rankings_per_batch * max(len(g.texts) for g in sides["train"])
    layers = getattr(shape, "num_hidden_layers", 1)
    parts["activations"] = float(rows * longest * layers * shape.hidden_size * 16 * 4)
    _compare_memory(report, here, sum(parts.values()), parts)

    # 5. Time, by one update.
    if not probe:
        return
    batch = sides["train"][: config.rankings_per_batch]
    some = [t for g in batch for t in g.texts]
    began = time.monotonic()
    reward_model.with_prior(model, batch, config.batch_size)
    reading = (time.monotonic() - began) / len(some)
    priors = [g.prior for g in batch if g.prior is not None]
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        scores = model.raw_scores(some, torch.cat(priors) if priors else None)
        forward = time.monotonic() - began
        scores.square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        update = (time.monotonic() - began) * min(config.rankings_per_batch / len(batch), 1.0)
    # Every text is read by the prior once for each model, and at the end by the other side's.
    measuring = len(texts) * len(plans) * (2 * reading + forward / len(some))
    whole = update * sum(updates.values()) + measuring
    report.figures["seconds"] = {"update": update, "run": whole}
    report.add(
        "ok",
        "time",
        f"Roughly {_duration(update)} an update, {_duration(whole)} in all, as busy as the machine "
        "is now.",
    )


def _examine_selection(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """What an ensemble is to disagree about."""
    from rlhf.training import loading
    from rlhf.training.data import read_comparisons
    from rlhf.training.scorers import RewardModel

    comparisons = read_comparisons(run_dir)
    scorer = RewardModel.load(config.reward_model, device=loading.choose_device(config.device))
    members = {axis: scorer.members_of(axis) for axis in scorer.every_axis}
    several = max(members.values()) > 1
    report.add(
        "ok" if several else "error",
        "members",
        f"{len(comparisons)} comparisons, and on each axis so many opinions: "
        + ", ".join(f"{axis} {n}" for axis, n in members.items())
        + ("." if several else "; train the reward model with members = 2 or more."),
    )


EXAMINATIONS: dict[str, Callable[..., None]] = {
    "ppo": _examine_ppo,
    "reward_model": _examine_reward_model,
    "selection": _examine_selection,
}
"""Of the stages that are unlike the others."""


def _check_policy(report: Report, policy: Any, prompts: list[Any]) -> None:
    render = policy.render if policy.encoder_decoder else None
    check_round_trip(report, policy.tokenizer, "policy", prompts, policy.stop_ids, render)


def _check_lengths(
    report: Report, policy: Any, prompts: list[Any], room: int, long_prompts: str
) -> tuple[list[Any], int]:
    """The prompts that leave room for an answer, and the tokens of the longest of all."""
    lengths = [len(policy.prompt_ids(prompt.messages)) for prompt in prompts]
    fitting = [p for p, n in zip(prompts, lengths, strict=True) if policy.fits(n, room)]
    too_long = len(prompts) - len(fitting)
    if too_long:
        refused = long_prompts == "refuse" or not fitting
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
    return fitting, max(lengths)


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
    if bos and prompts and not apart and getattr(tokenizer, "chat_template", None):
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


@dataclass
class Probed:
    """A few prompts and several sampled answers to each."""

    prompts: list[Any]
    encoded: list[list[int]]
    answers: list[list[Any]]
    policy: Any
    seconds: float

    @functools.cached_property
    def flat(self) -> list[Any]:
        """All answers, prompt by prompt;"""
        return [answer for group in self.answers for answer in group]

    @functools.cached_property
    def texts(self) -> list[str]:
        """their texts,"""
        return [self.policy.decode(answer.tokens) for answer in self.flat]

    @functools.cached_property
    def asked(self) -> list[Any]:
        """and what each answers."""
        return [p for p, group in zip(self.prompts, self.answers, strict=True) for _ in group]


def _some(policy: Any, prompts: list[Any], config: Any) -> tuple[list[Any], list[list[int]]]:
    """A few of the prompts, evenly spread, and their token ids."""
    chosen = prompts[:: max(1, len(prompts) // PROBED_PROMPTS)][:PROBED_PROMPTS]
    kept, encoded = policy.fitting(chosen, room=config.max_new_tokens, long_prompts="refuse")
    return kept, encoded


def _generator(device: Any, seed: int) -> Any:
    import torch

    return torch.Generator(device=device).manual_seed(seed)


def _combined(scorer: Any, probed: Probed, config: Any) -> Any:
    """One score (answers,) by a reward model alone."""
    axes = scorer.score([p.messages for p in probed.asked], probed.texts)
    threshold = getattr(config, "safety_threshold", 0.15)
    return scorer.combine(axes, [p.risk for p in probed.asked], threshold=threshold)


def _replaced(probed: Probed, scores: Any, config: Any) -> Any:
    """The scores with that of an answer that did not end, where the stage has one for it."""
    import torch

    from rlhf.training import ppo_math

    if not hasattr(config, "no_eos_score"):
        return scores
    finished = torch.tensor([answer.finished for answer in probed.flat])
    return ppo_math.replace_unfinished(scores.cpu(), finished, config.no_eos_score)


def _report_answers(report: Report, probed: Probed, config: Any) -> None:
    """How long the answers are, whether they end and whether they differ."""
    flat = probed.flat
    tokens = sum(len(a.tokens) for a in flat)
    ended = sum(a.finished for a in flat) / len(flat)
    groups = [probed.texts[i : i + PROBED_ANSWERS] for i in range(0, len(flat), PROBED_ANSWERS)]
    distinct = statistics.fmean(len(set(group)) / len(group) for group in groups)
    report.figures |= {
        "tokens_per_second": tokens / probed.seconds,
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


def _report_rewards(report: Report, probed: Probed, rewards: dict[str, Any]) -> None:
    """Whether rewards (answers,) differ, also among the answers that ended, and agree."""
    judged = {name: r.reshape(-1, PROBED_ANSWERS) for name, r in rewards.items()}
    if "reward_model" in judged:
        scores = judged["reward_model"]
        spread = float(scores.std(dim=1).mean())
        headroom = float((scores.max(dim=1).values - scores.mean(dim=1)).mean())
        report.figures |= {"reward_spread": spread, "best_of_8_headroom": headroom}
        ended = [
            [s for s, a in zip(row, group, strict=True) if a.finished]
            for row, group in zip(scores.tolist(), probed.answers, strict=True)
        ]
        apart = [statistics.stdev(some) for some in ended if len(some) > 1]
        among = statistics.fmean(apart) if apart else None
        report.figures["reward_spread_of_ended"] = among
        said = (
            f"Answers to one prompt differ by {spread:.2f} (standard deviation of the reward); the "
            f"best of {PROBED_ANSWERS} is worth {headroom:.2f} more than the mean."
        )
        if spread < 0.05:
            report.add("warning", "reward", said + " There is next to nothing to climb.")
        elif among is not None and among < 0.05:
            report.add(
                "warning",
                "reward",
                said + f" Those that end differ by {among:.2f} only: but for ending there is next "
                "to nothing to climb.",
            )
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


def _too_large(report: Report, here: float, config: PPOConfig) -> bool:
    """Whether the models' files alone are more than the memory that is free: then nothing is read."""
    folders = {config.policy, config.reference, config.reward_model, config.test_reward_model}
    files = [f for name in folders if name for f in Path(name).rglob("*.safetensors")]
    needed = float(sum(f.stat().st_size for f in files))
    if needed > here:
        _compare_memory(report, here, needed, {"models' files": needed})
    return needed > here


def _bytes(*modules: Any) -> int:
    """What the weights of modules take; those that they share count once."""
    weights = {id(p): p for module in modules for p in module.parameters()}
    return sum(p.numel() * p.element_size() for p in weights.values())


def _modules_of(scorer: Any) -> list[Any]:
    """Everything that a reward model holds, those beside it included."""
    own = [scorer.trunk, scorer.heads] + ([scorer.prior] if scorer.prior is not None else [])
    return own + [module for other in scorer.others for module in _modules_of(other)]


def ppo_memory(models: Any, longest: int, *, watched: bool) -> dict[str, float]:
    """Bytes that a PPO run needs, by part: a rough upper estimate.

    Full training holds weights, gradients and two moments in float32; what is frozen is there as it
    was loaded. Activations: about 16 floats per token, layer and unit (Korthikanti et al. 2022
    count 34 bytes at 2 bytes each), and the vocabulary's logits three times (logits, log-softmax,
    gradient).
    """
    from rlhf.training import packing

    config, policy = models.config, models.policy
    shape = packing.inner(policy.model).config
    width = 2 if models.half else 4
    hidden = policy.hidden_size
    layers = getattr(shape, "num_hidden_layers", 1)
    if policy.encoder_decoder:
        layers += getattr(shape, "num_decoder_layers", None) or layers
    trained = [p for _, p in models.trained()]
    trainable = sum(p.numel() for p in trained)
    own = sum(p.numel() * p.element_size() for p in trained)
    critic = sum(p.numel() for p in models.critic.parameters())
    parts = {
        "policy": _bytes(policy.model) - own + trainable * FULL_TRAINING_BYTES,
        "reference": 4 * sum(w.numel() for w in models.followed.values())
        if models.shared
        else _bytes(models.reference.model),
        "critic": critic * FULL_TRAINING_BYTES,
    }
    for name, scorer in zip(("reward_model", "test_reward_model"), models.scorers, strict=False):
        parts[name] = _bytes(*_modules_of(scorer))
    if models.device.type == "cpu":  # whole copies: of the best weights, and of their average
        best = watched and models.test_scorer is not None and config.tripwire_evaluations > 0
        parts["copies"] = 4 * trainable * (best + (config.ema_decay > 0))
    tokens = config.microbatch_size * (longest + config.max_new_tokens)
    logits = config.microbatch_size * config.max_new_tokens * shape.vocab_size * 4
    parts["activations"] = tokens * layers * hidden * 16 * width + 3 * logits
    heads = getattr(shape, "num_key_value_heads", getattr(shape, "num_attention_heads", 1))
    per_head = getattr(shape, "head_dim", None) or hidden // max(shape.num_attention_heads, 1)
    rows = min(config.decode_batch_size, config.responses_per_step)
    reach = longest + config.max_new_tokens
    parts["cache"] = 2 * layers * rows * reach * heads * per_head * width
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


def _compare_memory(report: Report, here: float, needed: float, parts: dict[str, float]) -> None:
    """`here` is what was free before anything was loaded."""
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


def _estimate_time(report: Report, models: Any, prompts: list[Any], scoring: float) -> None:
    """Time one forward and backward pass, and add up a run from it, the probe's sampling and its
    seconds of `scoring` for each answer."""
    import torch

    config, policy = models.config, models.policy
    rows = min(config.microbatch_size, 16)
    chosen = [prompts[i % len(prompts)] for i in range(rows)]
    _, encoded = policy.fitting(chosen, room=config.max_new_tokens, long_prompts="refuse")
    length = max(1, round(report.figures.get("mean_response_tokens", config.max_new_tokens)))
    answers = [[policy.pad_id] * length] * rows
    for _ in range(2):  # the first warms up
        began = time.monotonic()
        with models.autocast():
            _, hidden = policy.read(encoded, answers)
            loss = policy.logits(hidden).float().mean()
        forward = time.monotonic() - began
        loss.backward()
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        both = time.monotonic() - began
        policy.model.zero_grad(set_to_none=True)
    responses = config.responses_per_step
    generate = responses * length / max(report.figures.get("tokens_per_second", 1e9), 1e-9)
    passes = responses / rows
    step = generate + responses * scoring + passes * (2 * forward + both * config.epochs)
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
