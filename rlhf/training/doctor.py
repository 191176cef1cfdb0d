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
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from rlhf.training import configs
from rlhf.training.configs import PPOConfig
from rlhf.training.doctor_checks import check_batches, check_lengths, check_policy, check_round_trip
from rlhf.training.doctor_estimates import (
    available_memory,
    compare_memory,
    estimate_ppo_time,
    estimate_reward_time,
    ppo_memory,
    reward_memory,
    too_large,
    tuning_memory,
)
from rlhf.training.doctor_probe import (
    PROBED_ANSWERS,
    Probed,
    combined,
    ppo_reward,
    report_answers,
    report_rewards,
    some_prompts,
    with_no_eos_score,
)
from rlhf.training.doctor_report import Report, show
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
    import torch

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
    check_policy(report, policy, prompts)

    # 3. Lengths and batches.
    fitting, _ = check_lengths(report, policy, prompts, room, config.long_prompts)
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
        chosen, encoded = some_prompts(policy, fitting, config)
        began = time.monotonic()
        answers = sampling.sample(
            policy.model,
            encoded,
            k=PROBED_ANSWERS,
            max_new_tokens=config.max_new_tokens,
            temperature=getattr(config, "temperature", 1.0),
            stop_ids=policy.stop_ids,
            pad_id=policy.pad_id,
            generator=torch.Generator(device=policy.device).manual_seed(config.seed),
        )
        probed = Probed(chosen, encoded, answers, policy, time.monotonic() - began)
        report_answers(report, probed, config)
        rewards = {
            name: with_no_eos_score(probed, combined(scorer, probed, config), config)
            for name, scorer in scorers.items()
        }
        report_rewards(report, probed, rewards)

    # 5. Memory.
    if report.stage in ("sft", "dpo"):
        parts = tuning_memory(policy, reference=report.stage == "dpo")
        compare_memory(report, here, sum(parts.values()), parts)


def _examine_ppo(report: Report, run_dir: Path, config: PPOConfig, *, probe: bool) -> None:
    """PPO: what it reads and builds is read and built, so that what stops it stops the doctor."""
    from rlhf.training import loading, ptx
    from rlhf.training.ppo_models import Models, mix, read_inputs

    # 1. Prompts, checkpoint, models.
    prompts, watch = read_inputs(run_dir, config)
    checkpoint = find_checkpoint(run_dir)
    device = loading.choose_device(config.device)
    here = available_memory(device.type)
    if too_large(report, here, config):
        return
    loading.be_deterministic(config.seed, config.threads)
    models = Models(config)
    if checkpoint is not None:
        state = read_json(checkpoint / "state.json")
        models.reward.scales = state["scales"]
        report.add("ok", "checkpoint", f"It would go on after step {state['step']}.")
    policy = models.policy
    check_policy(report, policy, prompts)

    # 2. Lengths and batches.
    room, long_prompts = config.max_new_tokens, config.long_prompts
    fitting, longest = check_lengths(report, policy, prompts, room, long_prompts)
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
        chosen, encoded = some_prompts(policy, fitting, config)
        began = time.monotonic()
        answers = models.sample(encoded, PROBED_ANSWERS, seed=mix(config.seed, -3))
        probed = Probed(chosen, encoded, answers, policy, time.monotonic() - began)
        report_answers(report, probed, config)
        began = time.monotonic()
        rewards = {"reward_model": ppo_reward(models, probed)}
        scoring = (time.monotonic() - began) / len(probed.flat)
        if (
            models.reward.test_scorer is not None
        ):  # it only watches: its own opinion, without the rules
            second = combined(models.reward.test_scorer, probed, config)
            rewards["test_reward_model"] = with_no_eos_score(probed, second, config)
        report_rewards(report, probed, rewards)
        asked = [ids for ids in encoded for _ in range(PROBED_ANSWERS)]
        old, _, _, mask = models.read(asked, probed.flat)
        models.compare(probed.flat, old, mask)

    # 4. Memory and time.
    parts = ppo_memory(models, longest, watched=bool(watch))
    compare_memory(report, here, sum(parts.values()), parts)
    if probe and len(fitting) == len(prompts):
        estimate_ppo_time(report, models, fitting, scoring)


def _examine_reward_model(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Reward models: the rankings of both sides as they would be learnt from, and one update."""
    from rlhf.training import loading, reward_data, reward_model
    from rlhf.training.data import read_judgments, read_texts

    # 1. Rankings, split by prompt, and texts of the reference.
    judgments = read_judgments(run_dir, config.axes)
    if config.loss == "plackett_luce":
        reward_data.check_ties(judgments)
    read_texts(run_dir, "reference")
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is not None:
        report.add("ok", "checkpoint", "It would go on from its checkpoint.")
    ids = sorted({j.prompt.prompt_id for j in judgments})
    halves = dict(zip(("train", "test"), reward_data.split(ids, config), strict=True))
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
        groups = reward_data.groups_of(
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

    # 4. Memory and time, the latter by one update.
    parts = reward_memory(model, sides, len(plans), config)
    compare_memory(report, here, sum(parts.values()), parts)
    if probe:
        estimate_reward_time(report, model, sides, len(plans), config, sum(updates.values()))


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
