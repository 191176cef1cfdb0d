"""Refine a policy by PPO against a reward model: `python -m rlhf.training.ppo RUN_DIR`.

Proximal policy optimisation (Schulman et al. 2017) as it is done on language models (Ziegler et
al. 2019, Stiennon et al. 2020, Ouyang et al. 2022), with the details collected by Huang et al.
(2024, "The N+ implementation details of RLHF with PPO"). Read `main` from top to bottom.

Whatever is drawn at a step depends on the seed and the step's number alone, so a run that was
killed and resumed makes the same draws as one that was not. Under `torchrun` several processes
share the work of each step (parallel.py); one of them writes.
"""

import contextlib
import copy
import dataclasses
import functools
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.training import loading, packing, parallel, ppo_math, reward_math, sampling
from rlhf.training.configs import PPOConfig, load
from rlhf.training.critic import HeadCritic, ModelCritic
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.loading import Policy
from rlhf.training.rewards import REWARDS, rules_of
from rlhf.training.rundir import (
    CONFIG,
    POLICY,
    InputError,
    MetricsWriter,
    Stopped,
    StopRequest,
    find_checkpoint,
    read_json,
    run_stage,
    save_checkpoint,
    write_json,
    write_jsonl,
    write_progress,
    write_result,
)
from rlhf.training.scorers import RewardModel

MAX_SKIPPED_IN_A_ROW = 20
"""Updates with a gradient that is not finite, after which the run is given up."""

MAX_ROLLBACKS = 3
"""Returns to the last checkpoint, after which the run is given up."""


@dataclass
class Rollout:
    """The responses of one step and all that PPO needs to know of them; B rows, T tokens."""

    prompts: list[list[int]]
    responses: list[list[int]]
    mask: Tensor
    """(B, T) bool: which positions are sampled tokens."""
    logprobs: Tensor
    """(B, T) of the sampled tokens under the policy that sampled them."""
    advantages: Tensor
    returns: Tensor
    values: Tensor


@dataclass
class State:
    """What changes from step to step besides weights; all of it is in a checkpoint."""

    step: int = 0
    kl_weight: float = 0.0
    multiplier: float = 1.0
    skipped: int = 0
    seconds: float = 0.0
    samples: int = 0
    reward: float = 0.0
    kl: float = 0.0
    stop_reason: str = ""
    rollbacks: int = 0
    best_step: int = 0
    watched: list[tuple[int, float, float]] = dataclasses.field(default_factory=list)
    """(step, train-RM's mean, test-RM's mean) at each look at the watch prompts."""
    before: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What the policy said to the watch prompts before its first step."""


def main(run_dir: Path, stop: StopRequest) -> None:
    # 1. Configuration, prompts, models.
    config = load(PPOConfig, run_dir / CONFIG)
    prompts = read_prompts(run_dir, "prompts")
    watch = read_prompts(run_dir, "watch") if (run_dir / "data" / "watch.jsonl").exists() else []
    _check_enough(prompts, config)
    if unknown := sorted(set(config.rules) - set(REWARDS)):
        raise InputError(
            f"There is no rule {unknown[0]!r}; there are {', '.join(sorted(REWARDS))}."
        )
    loading.be_deterministic(config.seed, config.threads)
    group = parallel.join(loading.choose_device(config.device))
    models = Models(config, group)
    prompts, encoded = models.fitting(prompts)
    if watch:
        watch, _ = models.fitting(watch)
    _check_enough(prompts, config)
    optimizer = models.optimizer()
    controller = _controller(config)

    # 2. Go on where a killed run left off.
    state = State(kl_weight=config.kl_weight, multiplier=config.multiplier)
    best: dict[str, Tensor] = {}
    average: dict[str, Tensor] = {}
    if (checkpoint := find_checkpoint(run_dir)) is not None:
        state, best, average = load_checkpoint(checkpoint, models, optimizer)
        controller.weight = state.kl_weight
        models.multiplier.value = state.multiplier
    elif watch:
        state.before, _ = models.sample_and_judge(watch, seed=config.seed)
    group.wait()  # until all have read the checkpoint
    metrics = MetricsWriter(run_dir, resume_after=state.step) if group.writes else None

    while state.step < config.steps and not state.stop_reason:
        began = time.monotonic()
        step = state.step + 1

        # 3. Look at the watch prompts: does the test-RM still agree that things get better?
        seen: dict[str, float] = {}
        if watch and state.step % config.watch_every == 0:
            _, means = models.sample_and_judge(watch, seed=config.seed)
            state.watched.append((state.step, means["reward"], means["test"]))
            seen = {"watch_reward": means["reward"]}
            if models.test_scorer is not None:
                seen["test_reward"] = means["test"]
                if means["test"] >= max(t for _, _, t in state.watched):
                    state.best_step = state.step
                    if config.tripwire_evaluations:
                        best = models.trained_weights()
                if tripped(state.watched, config.tripwire_evaluations, config.tripwire_drop):
                    state.stop_reason = "tripwire"
                    models.restore(best)
                    break

        # 4. The policy answers the next prompts. Log-probabilities are kept from sampling.
        chosen = choose(len(prompts), config.prompts_per_step, step - 1, config.seed)
        rows = [i for i in chosen for _ in range(config.samples_per_prompt)]
        sampled = models.sample(
            [encoded[i] for i in chosen], config.samples_per_prompt, seed=_mix(config.seed, step)
        )
        flat = [answer for answers in sampled for answer in answers]
        asked = [encoded[i] for i in rows]
        answered = [answer.tokens for answer in flat]
        generated = time.monotonic()

        # 5. The reward model reads the text. A response that did not end gets a fixed score
        #    instead: the reward model has never seen half a sentence (LHP's EOS trick).
        texts = [models.policy.decode(tokens) for tokens in answered]
        scores, told = models.judge([prompts[i] for i in rows], texts)
        _check_scores(scores, [prompts[i].prompt_id for i in rows])
        finished = torch.tensor([answer.finished for answer in flat], device=models.device)
        scores = ppo_math.replace_unfinished(
            scores.to(models.device), finished, config.no_eos_score
        )

        # 6. Log-probabilities of the reference, values of the critic.
        old, reference, values, mask = models.read(asked, flat)
        scored = time.monotonic()

        # 7. Reward per token: minus the KL to the reference, and the score at the end.
        kl = ppo_math.kl_k1(old, reference) * mask
        shown_kl = float((ppo_math.kl_k3(old, reference) * mask).sum(dim=1).mean())
        rewards = ppo_math.token_rewards(scores, kl, mask, kl_weight=controller.weight)
        if config.whiten_rewards:
            rewards = ppo_math.whiten(rewards, mask, shift_mean=False)

        # 8. Advantages and returns.
        advantages, returns = ppo_math.advantages_and_returns(
            rewards, values, mask, gamma=config.gamma, lam=config.lam
        )
        if config.whiten_advantages:
            advantages = ppo_math.whiten(advantages, mask)
        rollout = Rollout(asked, answered, mask, old, advantages, returns, values)

        skipped_before = state.skipped
        # 9. Updates: several passes over the rollout in shuffled minibatches.
        learned = update(
            models,
            optimizer,
            rollout,
            config,
            step=step,
            train_policy=step > config.critic_warmup_steps,
            rates=_rates(config, step),
        )
        state.skipped += int(learned.pop("skipped"))
        # Nothing finite came of a whole rollout: the weights themselves are broken.
        if not learned["updates"] and state.skipped > skipped_before:
            state.rollbacks += 1
            roll_back(run_dir, models, optimizer, state.rollbacks)
        if config.ema_decay:
            average = running_average(average, models.trained_weights(), config.ema_decay)
        ended = time.monotonic()

        # 10. The KL controller, the books, a checkpoint.
        controller.update(shown_kl, len(flat))
        if config.combine == "lagrange":
            models.multiplier.update(told["cost"])
            state.multiplier = models.multiplier.value
        state.step, state.kl_weight = step, controller.weight
        state.reward, state.kl = float(scores.mean()), shown_kl
        state.seconds += ended - began
        state.samples += len(flat)
        line = dict(
            reward=state.reward,
            **told,
            **seen,
            kl=shown_kl,
            kl_weight=controller.weight,
            length=float(mask.sum()) / len(flat),
            finished_fraction=float(finished.float().mean()),
            **learned,
            value_explained=_explained(returns, values, mask),
            skipped_updates=state.skipped,
            rollbacks=state.rollbacks,
            samples_per_second=len(flat) / (ended - began),
            seconds_generate=generated - began,
            seconds_score=scored - generated,
            seconds_train=ended - scored,
        )
        if metrics is not None:
            metrics.write(step, **line)
            write_progress(
                run_dir,
                done=step,
                total=config.steps,
                unit="steps",
                note=f"reward {state.reward:+.2f}, KL {shown_kl:.2f}",
                eta_seconds=state.seconds / step * (config.steps - step),
            )
        if config.kl_budget and shown_kl > config.kl_budget:
            state.stop_reason = "kl_budget"
        stopping = group.any(stop.requested)
        if group.writes and (stopping or step % config.checkpoint_every == 0):
            save_checkpoint(
                run_dir,
                functools.partial(write_checkpoint, models, optimizer, state, best, average),
            )
        if stopping:
            parallel.leave(group)
            raise Stopped

    # 11. Samples before and after, the refined policy, the result.
    if state.stop_reason != "tripwire":
        models.restore(average)
    if watch:
        after, means = models.sample_and_judge(watch, seed=config.seed)
        watching = models.test_scorer is not None and state.stop_reason != "tripwire"
        if watching and means["test"] >= max(t for _, _, t in state.watched):
            state.best_step = state.step
        if group.writes:
            sides = _side_by_side(state.step, watch, state.before, after)
            write_jsonl(run_dir / "samples.jsonl", list(sides))
    parallel.leave(group)
    if metrics is None:
        return
    metrics.close()
    models.save(run_dir / POLICY)
    write_result(
        run_dir,
        {
            "steps": state.step,
            "stop_reason": state.stop_reason or "steps",
            "reward": state.reward,
            "kl": state.kl,
            "samples_per_second": state.samples / max(state.seconds, 1e-9),
            "best_step": state.best_step,
            "skipped_updates": state.skipped,
            "rollbacks": state.rollbacks,
            "seconds": state.seconds,
            "processes": group.size,
        },
    )


class Models:
    """Policy, reference, critic and reward models, and the passes that PPO makes over them."""

    def __init__(self, config: PPOConfig, group: parallel.Group = parallel.Group()) -> None:  # noqa: B008 - it never changes
        self.config = config
        self.group = group
        self.device = loading.choose_device(config.device)
        self.half = config.dtype == "bfloat16" or (
            config.dtype == "auto" and self.device.type == "cuda"
        )
        frozen = torch.bfloat16 if self.half else torch.float32
        self.policy = loading.load_policy(
            config.policy,
            "policy",
            device=self.device,
            dtype=frozen if config.lora_rank else torch.float32,
        )
        self.shared = bool(config.lora_rank) and Path(config.policy) == Path(config.reference)
        if config.lora_rank:
            loading.add_lora(self.policy, rank=config.lora_rank, alpha=config.lora_alpha)
        # With LoRA on the reference itself, the reference is the policy without its adapters.
        self.reference = self.policy
        if not self.shared:
            self.reference = loading.load_policy(
                config.reference, "reference", device=self.device, dtype=frozen
            )
            self.reference.model.requires_grad_(requires_grad=False)
            if self.reference.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
                raise InputError(
                    "policy and reference have different tokenizers, so no KL exists between them; "
                    "take the policy's own starting point as reference."
                )
        self.scorer = RewardModel.load(config.reward_model, device=self.device)
        self.test_scorer = (
            RewardModel.load(config.test_reward_model, device=self.device)
            if config.test_reward_model
            else None
        )
        self.rules = rules_of(config)
        self.multiplier = ppo_math.Multiplier(
            config.multiplier, config.cost_limit, config.multiplier_rate
        )
        lagrange = config.combine == "lagrange"
        if lagrange and not {"helpfulness", "safety"} <= set(self.scorer.every_axis):
            raise InputError(
                "combine is 'lagrange', which needs a helpfulness and a safety score, but the reward "
                f"model scores {' and '.join(self.scorer.every_axis)} only; set combine to 'weights'."
            )
        self.critic = self._new_critic().to(self.device)
        # What is laid out once is read by all of them.
        shared = self.policy.share_rows and self.reference.share_rows
        if isinstance(self.critic, ModelCritic):
            shared = shared and packing.can_share_rows(self.critic.trunk)
        self.policy.share_rows = self.reference.share_rows = shared

    def _new_critic(self) -> nn.Module:
        if self.config.critic == "head":
            return HeadCritic(self.policy.hidden_size, self.config.critic_trains_policy)
        if self.scorer.tokenizer.get_vocab() == self.policy.tokenizer.get_vocab():
            trunk = copy.deepcopy(self.scorer.trunk)
        else:
            trunk = loading.load_model(self.config.policy, "critic", kind="AutoModel")
        return ModelCritic(trunk.requires_grad_(requires_grad=True))

    def autocast(self) -> Any:
        """bfloat16 matrix products where the precision asks for them."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.half)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The policy's parameters that are trained: all of them, or the adapters."""
        return [(n, p) for n, p in self.policy.model.named_parameters() if p.requires_grad]

    def trained_weights(self) -> dict[str, Tensor]:
        """A copy of them on the CPU."""
        return {name: p.detach().cpu().clone() for name, p in self.trained()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put a copy back. An empty one changes nothing."""
        with torch.no_grad():
            for name, parameter in self.trained() if weights else []:
                parameter.copy_(weights[name])

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the policy (group 0) and the critic (group 1)."""
        return torch.optim.AdamW(
            [
                {"params": [p for _, p in self.trained()]},
                {"params": list(self.critic.parameters())},
            ],
            lr=0.0,
            eps=self.config.adam_epsilon,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    def fitting(self, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[list[int]]]:
        """The prompts that leave room for a response, and their token ids."""
        return self.policy.fitting(
            prompts, room=self.config.max_new_tokens, long_prompts=self.config.long_prompts
        )

    def sample(
        self, prompts: Sequence[Sequence[int]], k: int, *, seed: int
    ) -> list[list[sampling.Sampled]]:
        """k responses per prompt from the policy as it is, with the values where they cost nothing."""
        generator = torch.Generator(device=self.device)
        generator.manual_seed(seed)
        self.policy.model.eval()
        with self.autocast():
            answers = sampling.sample(
                self.policy.model,
                prompts,
                k=k,
                max_new_tokens=self.config.max_new_tokens,
                temperature=self.config.temperature,
                stop_ids=self.policy.stop_ids,
                pad_id=self.policy.pad_id,
                generator=generator,
                batch_size=self.config.decode_batch_size,
                value_of=self.critic if self.keeps_values else None,
                share=self.group.share,
            )
        return self.group.merge(answers[self.group.share], len(prompts))

    def judge(
        self, prompts: Sequence[Prompt], texts: Sequence[str], *, test: bool = False
    ) -> tuple[Tensor, dict[str, float]]:
        """The score of each response (B,), and the means of its parts for the curves."""
        scorer = self.test_scorer if test and self.test_scorer is not None else self.scorer
        conversations = [p.messages for p in prompts]
        risks = [p.risk for p in prompts]
        said = self._opinions(scorer, conversations, texts)
        # The test-RM watches: only the scores that PPO climbs are made sceptical.
        how = "mean" if test else self.config.ensemble
        axes = {
            axis: reward_math.combine_members(s, how, penalty=self.config.ensemble_penalty)
            for axis, s in said.items()
        }
        if self.config.combine == "lagrange":
            total = self.multiplier.reward(axes["helpfulness"], axes["safety"])
        elif self.config.combine == "threshold":
            total = scorer.combine(axes, risks, threshold=self.config.safety_threshold)
        else:
            total = sum(
                (self.config.weights.get(axis, 1.0) * s for axis, s in axes.items()),
                start=torch.zeros(len(texts)),
            )
        if self.config.score_clip:
            total = total.clamp(-self.config.score_clip, self.config.score_clip)
        told = {axis: _mean_where(s, risks, NOT_COUNTED.get(axis)) for axis, s in axes.items()}
        for axis, s in said.items():
            if s.shape[1] > 1:
                told[f"disagreement_{axis}"] = float(s.std(dim=1, unbiased=False).mean())
        if self.config.combine == "lagrange":
            told["cost"] = -float(axes["safety"].mean())
            told["multiplier"] = self.multiplier.value
        for rule, weight in self.config.rules.items():
            points = torch.tensor(self.rules[rule](prompts, texts))
            told[f"rule_{rule}"] = float(points.mean())
            total = total + weight * points
        return total, told

    def _opinions(
        self, scorer: RewardModel, conversations: Sequence[Any], texts: Sequence[str]
    ) -> dict[str, Tensor]:
        """What each member of the scorer says of each axis (B, M); each process scores its share."""
        share = self.group.share
        said = {
            axis: torch.zeros(len(texts), scorer.members_of(axis)) for axis in scorer.every_axis
        }
        if texts[share]:
            with self.autocast():
                mine = scorer.opinions(
                    conversations[share], texts[share], batch_size=self.config.microbatch_size
                )
            for axis, told in mine.items():
                said[axis][share] = told
        for told in said.values():
            self.group.add(told)
        return said

    def sample_and_judge(
        self, prompts: Sequence[Prompt], *, seed: int
    ) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """One response to each watch prompt, always with the same draws, scored by both RMs."""
        sampled = self.sample(self.fitting(prompts)[1], 1, seed=_mix(seed, -1))
        texts = [self.policy.decode(answers[0].tokens) for answers in sampled]
        finished = torch.tensor([answers[0].finished for answers in sampled])
        rewards, _ = self.judge(prompts, texts)
        rewards = ppo_math.replace_unfinished(rewards, finished, self.config.no_eos_score)
        said = self._opinions(self.scorer, [p.messages for p in prompts], texts)
        axes = {axis: s.mean(dim=1) for axis, s in said.items()}
        means = {"reward": float(rewards.mean()), "test": 0.0}
        if self.test_scorer is not None:
            second, _ = self.judge(prompts, texts, test=True)
            second = ppo_math.replace_unfinished(second, finished, self.config.no_eos_score)
            means["test"] = float(second.mean())
        rows = [
            {
                "text": text,
                "reward": float(rewards[i]),
                "scores": {axis: float(s[i]) for axis, s in axes.items()},
            }
            for i, text in enumerate(texts)
        ]
        return rows, means

    @property
    def keeps_values(self) -> bool:
        """Whether sampling tells log-probabilities and values well enough to train on.

        In bfloat16, sampling with a cache and reading in one go round differently, and the ratio
        of the first update must be 1; a critic with a trunk of its own has to read the text.
        """
        return isinstance(self.critic, HeadCritic) and not self.half

    @torch.no_grad()
    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[sampling.Sampled]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities under policy and reference, values, and the mask; all (B, T)."""
        rows, width = len(answers), max(len(a.tokens) for a in answers)
        old = torch.zeros(rows, width)
        values = torch.zeros(rows, width)
        for i, answer in enumerate(answers):
            old[i, : len(answer.tokens)] = torch.tensor(answer.logprobs)
            if answer.values is not None:
                values[i, : len(answer.tokens)] = torch.tensor(answer.values)
        old, values = old.to(self.device), values.to(self.device)
        reference = torch.zeros_like(old)
        lengths = torch.tensor([len(a.tokens) for a in answers], device=self.device)
        sizes = [len(p) + len(a.tokens) for p, a in zip(prompts, answers, strict=True)]
        for part in self.parts(sizes, range(rows)[self.group.share]):
            asked, answered = [prompts[i] for i in part], [answers[i].tokens for i in part]
            with self.autocast():
                if not self.keeps_values:
                    packed, hidden = self.policy.read(asked, answered)
                    values[part, : packed.width] = packed.spread(self.critic(hidden, packed))
                    if self.half:
                        picked, _ = self.told(self.policy, hidden, packed)
                        old[part, : packed.width] = packed.spread(picked)
                with self.as_reference() as policy:
                    packed, hidden = policy.read(asked, answered)
                    picked, _ = self.told(policy, hidden, packed)
                reference[part, : packed.width] = packed.spread(picked)
        self.group.add(reference)
        if not self.keeps_values:
            self.group.add(values)
            if self.half:  # only what was read here: the others' rows are theirs to tell
                mine = torch.zeros_like(old)
                mine[self.group.share] = old[self.group.share]
                old = self.group.add(mine)
        mask = ppo_math.length_mask(lengths, width)
        return old * mask, reference * mask, values * mask, mask

    def parts(self, sizes: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows in forward passes of similar length; `sizes` are tokens, by row."""
        return packing.parts_by_length(
            sizes, rows, size=self.config.microbatch_size, tokens=self.config.microbatch_tokens
        )

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """The reference: a model of its own, or the policy without its adapters."""
        with self.policy.adapters_off() if self.shared else contextlib.nullcontext():
            yield self.reference

    def told(self, policy: Policy, hidden: Tensor, packed: packing.Packed) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N,) of the response tokens at the sampling temperature, and entropy."""
        return ppo_math.read_logits(
            policy.logits(hidden),
            packed.tokens,
            temperature=self.config.temperature,
            train_entropy=self.config.entropy_bonus != 0,
        )

    def save(self, folder: Path) -> None:
        """The refined policy as a plain Hugging Face folder; adapters are merged into it."""
        model = self.policy.model
        if self.config.lora_rank:
            model = model.merge_and_unload()
        model.save_pretrained(folder)
        self.policy.tokenizer.save_pretrained(folder)


NOT_COUNTED = {"helpfulness": "harmful", "safety": "harmless"}
"""Helpfulness on a harmful prompt is no merit, and safety on a harmless one says little."""


def update(
    models: Models,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    config: PPOConfig,
    *,
    step: int,
    train_policy: bool,
    rates: tuple[float, float],
) -> dict[str, float]:
    """PPO's passes over one rollout; returns the means of what the curves show.

    `train_policy` False trains the critic alone. `rates` are the step sizes of policy and critic.
    """
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    optimizer_parameters = [p for group in optimizer.param_groups for p in group["params"]]
    sums: dict[str, float] = {}
    updates, skipped, in_a_row = 0, 0, 0
    rows = len(rollout.prompts)
    shuffler = torch.Generator().manual_seed(_mix(config.seed, step))
    stopped = False
    for _ in range(config.epochs):
        order = torch.randperm(rows, generator=shuffler).tolist()
        for minibatch in _minibatches(order, config.minibatch_size):
            optimizer.zero_grad(set_to_none=True)
            parts = _losses(models, rollout, minibatch, config, train_policy=train_policy)
            models.group.add_gradients(optimizer_parameters)
            norm = _clip([p for _, p in models.trained()], config.max_grad_norm)
            critic_norm = _clip(list(models.critic.parameters()), config.max_grad_norm)
            # A gradient that is not finite would poison every weight: skip, count, go on.
            numbers = parts | {"policy's gradient": norm, "critic's gradient": critic_norm}
            if broken := [name for name, value in numbers.items() if not math.isfinite(value)]:
                skipped, in_a_row = skipped + 1, in_a_row + 1
                causes = ", ".join(name.replace("_", " ") for name in broken)
                print(f"step {step}: an update was left out, not finite: {causes}")
                if in_a_row >= MAX_SKIPPED_IN_A_ROW:
                    raise InputError(
                        f"{in_a_row} updates in a row were not finite ({causes}); start again from "
                        "the last policy with a lower learning_rate."
                    )
                continue
            in_a_row = 0
            # Far enough from the policy that sampled: its samples say nothing more.
            if config.approx_kl_stop and parts["approx_kl"] > config.approx_kl_stop:
                stopped = True
                break
            optimizer.step()
            updates += 1
            for name, value in (parts | {"grad_norm": norm}).items():
                sums[name] = sums.get(name, 0.0) + value
        if stopped:
            break
    optimizer.zero_grad(set_to_none=True)
    means = {name: value / updates for name, value in sums.items()}
    return means | {"updates": updates, "skipped": skipped, "learning_rate": rates[0]}


def _losses(
    models: Models,
    rollout: Rollout,
    minibatch: Sequence[int],
    config: PPOConfig,
    *,
    train_policy: bool,
) -> dict[str, float]:
    """Accumulate the gradients of one minibatch; returns its losses and what describes it."""
    rows_in_all = len(minibatch)
    tokens = float(rollout.mask[list(minibatch)].sum())
    parts = dict.fromkeys(
        ("policy_loss", "value_loss", "clip_fraction", "approx_kl", "entropy"), 0.0
    )
    sizes = [len(p) + len(r) for p, r in zip(rollout.prompts, rollout.responses, strict=True)]
    # Processes share a minibatch by length, so that all have about as much to do.
    mine = sorted(minibatch, key=lambda i: (sizes[i], i))[models.group.share]
    for rows in models.parts(sizes, mine):
        with models.autocast():
            packed, hidden = models.policy.read(
                [rollout.prompts[i] for i in rows], [rollout.responses[i] for i in rows]
            )
            picked, spread = models.told(models.policy, hidden, packed)
            values = packed.spread(models.critic(hidden, packed))
        width = packed.width
        mask = rollout.mask[rows, :width]
        old, advantages = rollout.logprobs[rows, :width], rollout.advantages[rows, :width]
        logprobs = packed.spread(picked)
        policy_loss, clipped = ppo_math.policy_loss(
            logprobs,
            old,
            advantages,
            mask,
            clip=config.clip,
            dual_clip=config.dual_clip or None,
            per_sequence=config.loss_average == "sequences",
        )
        value_loss = ppo_math.value_loss(
            values,
            rollout.values[rows, :width],
            rollout.returns[rows, :width],
            mask,
            clip=config.value_clip,
        )
        entropy = spread.mean()
        # Each part weighs as much as its tokens (or responses) in the whole minibatch.
        by_tokens = float(mask.sum()) / tokens
        share = len(rows) / rows_in_all if config.loss_average == "sequences" else by_tokens
        loss = value_loss * by_tokens
        if train_policy:
            loss = loss + policy_loss * share - config.entropy_bonus * entropy * by_tokens
        loss.backward()
        approximate = ppo_math.approximate_kl(logprobs.detach(), old, mask)
        parts["policy_loss"] += float(policy_loss.detach()) * share
        parts["value_loss"] += float(value_loss.detach()) * by_tokens
        parts["clip_fraction"] += float(clipped) * by_tokens
        parts["approx_kl"] += float(approximate) * by_tokens
        parts["entropy"] += float(entropy.detach()) * by_tokens
    return models.group.add_numbers(parts)


def roll_back(
    run_dir: Path, models: Models, optimizer: torch.optim.Optimizer, rollbacks: int
) -> None:
    """Weights, critic and optimizer as the last checkpoint has them; the steps go on from there.

    `InputError` where there is none, or for the fourth time: then the settings are at fault.
    """
    checkpoint = find_checkpoint(run_dir)
    if checkpoint is None or rollbacks > MAX_ROLLBACKS:
        raise InputError(
            f"No update of a whole rollout was finite, {rollbacks} times; log.txt names what was "
            "not. Start again with a lower learning_rate, or from another policy."
        )
    saved, _, _ = load_checkpoint(checkpoint, models, optimizer)
    print(f"rolled back to the weights of step {saved.step}")


def _check_scores(scores: Tensor, prompt_ids: Sequence[str]) -> None:
    broken = [i for i, score in enumerate(scores.tolist()) if not math.isfinite(score)]
    if broken:
        raise InputError(
            f"The reward of an answer to prompt {prompt_ids[broken[0]]} (and {len(broken) - 1} more) "
            "is not a finite number; mend the reward model or the rule that gave it."
        )


def tripped(watched: Sequence[tuple[int, float, float]], window: int, drop: float) -> bool:
    """Whether the reward models have parted: over the last `window` looks against as many before,
    the train-RM's mean rose while the test-RM's fell by more than `drop`.

    Means of several looks, because single ones are noisy. A window of 0 never trips.
    """
    if window == 0 or len(watched) < 2 * window:
        return False
    last, before = watched[-window:], watched[-2 * window : -window]
    train = sum(r for _, r, _ in last) - sum(r for _, r, _ in before)
    test = sum(t for _, _, t in last) - sum(t for _, _, t in before)
    return train > 0 and test < -drop * window


def choose(n_prompts: int, per_step: int, index: int, seed: int) -> list[int]:
    """The prompts of step `index` (from 0): a new shuffled order for every pass over them."""
    chosen: list[int] = []
    position = index * per_step
    while len(chosen) < per_step:
        passed, offset = divmod(position, n_prompts)
        order = list(range(n_prompts))
        random.Random(_mix(seed, passed)).shuffle(order)
        taken = order[offset : offset + per_step - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


def write_checkpoint(
    models: Models,
    optimizer: torch.optim.Optimizer,
    state: State,
    best: dict[str, Tensor],
    average: dict[str, Tensor],
    folder: Path,
) -> None:
    """Everything that a resumed run needs to go on as if nothing had happened."""
    save_file(
        {n: p.detach().cpu().contiguous() for n, p in models.trained()},
        folder / "policy.safetensors",
    )
    critic = {n: p.detach().cpu().contiguous() for n, p in models.critic.named_parameters()}
    save_file(critic, folder / "critic.safetensors")
    moments = {
        f"{number}.{name}": value.detach().cpu().contiguous()
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    save_file(moments, folder / "optimizer.safetensors")
    for name, weights in (("best", best), ("average", average)):
        if weights:
            save_file(weights, folder / f"{name}.safetensors")
    write_json(folder / "state.json", dataclasses.asdict(state))


def load_checkpoint(
    folder: Path, models: Models, optimizer: torch.optim.Optimizer
) -> tuple[State, dict[str, Tensor], dict[str, Tensor]]:
    """Put weights and optimizer back; returns the state, the best weights so far, their average."""
    models.restore(load_file(folder / "policy.safetensors"))
    models.critic.load_state_dict(load_file(folder / "critic.safetensors"))
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in load_file(folder / "optimizer.safetensors").items():
        number, name = key.split(".")
        entries.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(
        {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    saved = read_json(folder / "state.json")
    saved["watched"] = [tuple(look) for look in saved["watched"]]
    best, average = (
        load_file(path) if path.exists() else {}
        for path in (folder / "best.safetensors", folder / "average.safetensors")
    )
    return State(**saved), best, average


def running_average(
    average: dict[str, Tensor], weights: dict[str, Tensor], decay: float
) -> dict[str, Tensor]:
    """decay * average + (1 - decay) * weights; the first average is the weights."""
    return {
        name: weight if name not in average else average[name].lerp(weight, 1 - decay)
        for name, weight in weights.items()
    }


def _check_enough(prompts: Sequence[Prompt], config: PPOConfig) -> None:
    if len(prompts) < config.prompts_per_step:
        raise InputError(
            f"data/prompts.jsonl has {len(prompts)} prompts that can be used, fewer than the "
            f"{config.prompts_per_step} of one step; add prompts or lower prompts_per_step."
        )


def _controller(config: PPOConfig) -> ppo_math.FixedKL | ppo_math.AdaptiveKL:
    if config.kl_controller == "fixed":
        return ppo_math.FixedKL(config.kl_weight)
    return ppo_math.AdaptiveKL(config.kl_weight, config.kl_target, config.kl_horizon)


def _rates(config: PPOConfig, step: int) -> tuple[float, float]:
    """Step size of policy and critic at a step (from 1)."""
    floor, warmup, total = config.learning_rate_floor, config.warmup_steps, config.steps
    peaks = (config.learning_rate, config.value_learning_rate)
    policy, critic = (
        loading.learning_rate_at(step - 1, peak=peak, warmup=warmup, total=total, floor=floor)
        for peak in peaks
    )
    return policy, critic


def _minibatches(order: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Equal minibatches of about `size` rows: a small last one would count too much."""
    count = max(1, round(len(order) / size))
    for i in range(count):
        yield order[len(order) * i // count : len(order) * (i + 1) // count]


def _clip(parameters: list[nn.Parameter], max_norm: float) -> float:
    """Clip the gradients to `max_norm` (0: leave them) and return the norm that they had."""
    return float(nn.utils.clip_grad_norm_(parameters, max_norm or math.inf))


def _explained(returns: Tensor, values: Tensor, mask: Tensor) -> float:
    """Share of the returns' variance that the critic explains: 1 all, 0 none."""
    actual, left = returns[mask], (returns - values)[mask]
    return 1 - float(left.var(correction=0)) / max(float(actual.var(correction=0)), 1e-8)


def _mean_where(scores: Tensor, risks: Sequence[str], left_out: str | None) -> float:
    kept = [i for i, risk in enumerate(risks) if risk != left_out]
    return float(scores[kept].mean()) if kept else float(scores.mean())


def _mix(seed: int, number: int) -> int:
    """A seed for one purpose that has nothing to do with its neighbours'."""
    return random.Random(f"{seed}:{number}").getrandbits(48)


def _side_by_side(
    step: int,
    watch: Sequence[Prompt],
    before: Sequence[dict[str, Any]],
    after: Sequence[dict[str, Any]],
) -> Iterator[dict[str, Any]]:
    for prompt, old, new in zip(watch, before, after, strict=True):
        yield {
            "step": step,
            "prompt_id": prompt.prompt_id,
            "messages": prompt.messages,
            "before": old["text"],
            "after": new["text"],
            "reward_before": old["reward"],
            "reward_after": new["reward"],
            "scores_before": old["scores"],
            "scores_after": new["scores"],
        }


if __name__ == "__main__":
    run_stage(main)
