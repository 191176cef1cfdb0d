"""The doctor's examination before each kind of stage."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf.training.configs import PPOConfig
from rlhf.training.doctor.checks import check_batches, check_lengths, check_policy, check_round_trip
from rlhf.training.doctor.estimates import (
    available_memory,
    compare_memory,
    estimate_ppo_time,
    estimate_reward_time,
    ppo_memory,
    reward_memory,
    too_large,
    tuning_memory,
)
from rlhf.training.doctor.probe import (
    PROBED_ANSWERS,
    Probed,
    combined,
    ppo_reward,
    report_answers,
    report_rewards,
    some_prompts,
    with_no_eos_score,
)
from rlhf.training.doctor.report import Report
from rlhf.training.rundir.checkpoints import find_checkpoint
from rlhf.training.rundir.files import read_json


def examine_policy(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Examine stages that generate answers or train on them, without reinforcement learning."""
    import torch

    from rlhf.training import sampling
    from rlhf.training.data import read_demonstrations, read_judgments, read_prompts
    from rlhf.training.language_models import devices
    from rlhf.training.language_models.policy import load_policy
    from rlhf.training.reward_models.folder import load_reward_model

    # 1. Data.
    room = getattr(config, "max_new_tokens", 1)
    if report.stage == "dpo":
        prompts = [j.prompt for j in read_judgments(run_dir, [config.axis])]
    elif report.stage == "sft":
        prompts = [p for p, _ in read_demonstrations(run_dir)]
    else:
        prompts = read_prompts(run_dir)

    # 2. Models, loaded by the same functions as in the stage.
    device = devices.choose_device(config.device)
    free = available_memory(device.type)
    devices.be_deterministic(config.seed, 0)
    policy = load_policy(config.policy, "policy", device=device)
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
        name: load_reward_model(path, device=device)
        for name in ("reward_model", "test_reward_model")
        if (path := getattr(config, name, ""))
    }
    if probe and fitting and room > 1:
        chosen, encoded = some_prompts(policy, fitting, room)
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
        report_answers(report, probed, room)
        threshold = getattr(config, "safety_threshold", 0.15)
        no_eos_score = getattr(config, "no_eos_score", None)
        rewards = {
            name: with_no_eos_score(probed, combined(scorer, probed, threshold), no_eos_score)
            for name, scorer in scorers.items()
        }
        report_rewards(report, probed, rewards)

    # 5. Memory.
    if report.stage in ("sft", "dpo"):
        parts = tuning_memory(policy, reference=report.stage == "dpo")
        compare_memory(report, free, sum(parts.values()), parts)


def examine_ppo(report: Report, run_dir: Path, config: PPOConfig, *, probe: bool) -> None:
    """PPO: reads and builds everything that the stage does, so that its errors appear here."""
    from rlhf.training import ptx
    from rlhf.training.language_models import devices
    from rlhf.training.ppo_inputs import read_prompt_files
    from rlhf.training.ppo_models import Models, derive_seed

    # 1. Prompts, checkpoint, models.
    prompts, watch = read_prompt_files(run_dir, config)
    checkpoint = find_checkpoint(run_dir)
    device = devices.choose_device(config.device)
    free = available_memory(device.type)
    if too_large(report, free, config):
        return
    devices.be_deterministic(config.seed, config.threads)
    models = Models(config)
    if checkpoint is not None:
        state = read_json(checkpoint / "state.json")
        models.reward.scales = state["scales"]
        report.add("ok", "checkpoint", f"It would resume after step {state['step']}.")
    policy = models.policy
    check_policy(report, policy, prompts)

    # 2. Lengths and batches.
    room, long_prompts = config.rollout.max_new_tokens, config.rollout.long_prompts
    fitting, longest = check_lengths(report, policy, prompts, room, long_prompts)
    if watch:
        kept, _ = models.fitting(watch)
        report.add("ok", "watch", f"{len(kept)} prompts are watched.")
    check_batches(report, len(fitting), config)
    if config.ptx.weight:
        examples = ptx.read_examples(run_dir, policy, long_prompts)
        report.add("ok", "ptx", f"{len(examples)} examples for PPO-ptx.")

    # 3. Answers and their rewards, as a step would sample and judge them.
    scoring = 0.0
    if probe and fitting:
        if config.reward.normalize_samples and checkpoint is None:
            sampled_prompts = [
                fitting[i % len(fitting)] for i in range(config.reward.normalize_samples)
            ]
            models.normalize(*models.fitting(sampled_prompts))
        chosen, encoded = some_prompts(policy, fitting, room)
        began = time.monotonic()
        answers = models.sample(encoded, PROBED_ANSWERS, seed=derive_seed(config.seed, -3))
        probed = Probed(chosen, encoded, answers, policy, time.monotonic() - began)
        report_answers(report, probed, room)
        began = time.monotonic()
        rewards = {"reward_model": ppo_reward(models, probed)}
        scoring = (time.monotonic() - began) / len(probed.flat)
        if models.reward.test_scorer is not None:  # its own scores, without the rules
            second = combined(models.reward.test_scorer, probed, config.reward.safety_threshold)
            rewards["test_reward_model"] = with_no_eos_score(
                probed, second, config.reward.no_eos_score
            )
        report_rewards(report, probed, rewards)
        prompt_ids = [ids for ids in encoded for _ in range(PROBED_ANSWERS)]
        old, _, _, mask = models.read(prompt_ids, probed.flat)
        models.importance_weights(probed.flat, old, mask)

    # 4. Memory and time.
    parts = ppo_memory(models, longest, watched=bool(watch))
    compare_memory(report, free, sum(parts.values()), parts)
    if probe and len(fitting) == len(prompts):
        estimate_ppo_time(report, models, fitting, scoring)


def examine_reward_model(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Reward models: the rankings of both sides as they would be learned from, and one update."""
    from rlhf.training import reward_data, reward_model
    from rlhf.training.data import read_judgments, read_texts
    from rlhf.training.language_models import devices

    # 1. Rankings, split by prompt, and texts of the reference.
    judgments = read_judgments(run_dir, config.axes)
    if config.loss == "plackett_luce":
        reward_data.check_ties(judgments)
    read_texts(run_dir, "reference")
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is not None:
        report.add("ok", "checkpoint", "It would resume from its checkpoint.")
    ids = sorted({j.prompt.prompt_id for j in judgments})
    halves = dict(zip(("train", "test"), reward_data.split_prompts(ids, config), strict=True))
    annotators = sorted({j.annotator for j in judgments})

    # 2. The first model of all that would be trained.
    device = devices.choose_device(config.device)
    free = available_memory(device.type)
    devices.be_deterministic(config.seed, config.threads)
    members = reward_model.members_of(config)
    axes, seed = members[0]
    model = reward_model.new_member(config, axes, seed, device, [], "train")
    check_round_trip(report, model.tokenizer, "trunk", [j.prompt for j in judgments], [])

    # 3. Lengths and batches.
    sides = {}
    for name, prompt_ids in halves.items():
        groups = reward_data.group_judgments(
            model, [j for j in judgments if j.prompt.prompt_id in prompt_ids], annotators
        )
        if warning := reward_data.alike_warning(name, groups, model.max_length):
            report.add("warning", "lengths", warning)
        sides[name] = [g for g in groups if g.has_pairs]
        if not sides[name]:
            report.add(
                "error",
                "batches",
                f"No ranking for the {name}-RM prefers one response to another; rank more responses.",
            )
            return
    updates = {
        name: len(members) * config.epochs * -(-len(groups) // config.rankings_per_batch)
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
    parts = reward_memory(model, sides, len(members), config)
    compare_memory(report, free, sum(parts.values()), parts)
    if probe:
        estimate_reward_time(report, model, sides, len(members), config, sum(updates.values()))


def examine_selection(report: Report, run_dir: Path, config: Any, *, probe: bool) -> None:
    """Comparisons, and whether the reward model is an ensemble."""
    from rlhf.training.data import read_comparisons
    from rlhf.training.language_models import devices
    from rlhf.training.reward_models.folder import load_reward_model

    comparisons = read_comparisons(run_dir)
    scorer = load_reward_model(config.reward_model, device=devices.choose_device(config.device))
    members = {axis: scorer.members_of(axis) for axis in scorer.every_axis}
    several = max(members.values()) > 1
    report.add(
        "ok" if several else "error",
        "members",
        f"{len(comparisons)} comparisons; members of the ensemble on each axis: "
        + ", ".join(f"{axis} {n}" for axis, n in members.items())
        + ("." if several else "; train the reward model with members = 2 or more."),
    )


EXAMINATIONS: dict[str, Callable[..., None]] = {
    "ppo": examine_ppo,
    "reward_model": examine_reward_model,
    "selection": examine_selection,
}
"""The stages with an examination of their own; all others use `examine_policy`."""
