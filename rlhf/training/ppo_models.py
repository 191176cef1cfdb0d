"""The models of a PPO run and the passes over them: sample, score, read, train.

The reward is in `ppo_reward`, the sampling engines are in `rollouts`.
"""

import contextlib
import functools
import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training import (
    architecture,
    forward_pass,
    microbatches,
    packing,
    parallel,
    ppo_math,
    rollouts,
    sampling,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.critic import HeadCritic, ModelCritic
from rlhf.training.data import Prompt
from rlhf.training.language_models import devices, pretrained
from rlhf.training.language_models.policy import Policy, add_lora, load_policy
from rlhf.training.ppo_reward import Reward
from rlhf.training.rundir import log
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.reports import Progress


class Models:
    """Policy, reference, critic and reward, and the passes that PPO makes over them."""

    def __init__(self, config: PPOConfig, group: parallel.Group = parallel.Group()) -> None:  # noqa: B008 - it never changes
        self.config = config
        self.group = group
        self.progress = Progress(Path(), writes=False)
        """Where each pass reports how far it is."""
        self.device = devices.choose_device(config.device)
        self.frozen_dtype = devices.choose_dtype(config.dtype, self.device)
        self.is_bfloat16 = self.frozen_dtype == torch.bfloat16
        self.policy = self._load_policy(self.device, self.frozen_dtype)
        self.reference_is_policy = bool(config.lora.rank) and Path(config.policy) == Path(
            config.reference
        )
        # With LoRA on the reference itself, the reference is the policy without its adapters.
        self.reference = self.policy
        if not self.reference_is_policy:
            self.reference = load_policy(
                config.reference,
                "reference",
                device=self.device,
                # In bfloat16 a moving average would not move: its steps are too small.
                dtype=torch.float32 if config.ema.reference_decay else self.frozen_dtype,
            )
            self.reference.model.requires_grad_(requires_grad=False)
            if self.reference.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
                raise InputError(
                    "policy and reference have different tokenizers, so no KL exists between them; "
                    "take the policy's own starting point as reference."
                )
        self.reward = Reward(config, self.device, self.frozen_dtype, group)
        self.critic = self._new_critic().to(self.device)
        # A layout of rows is made once, and read by all of them.
        can_share = self.policy.share_rows and self.reference.share_rows
        if isinstance(self.critic, ModelCritic):
            can_share = can_share and forward_pass.can_share_rows(self.critic.trunk)
        self.policy.share_rows = self.reference.share_rows = can_share
        # Reward models, and a critic that is only a head, are never sharded.
        self.sharded_policy = group.shard(self.policy.model, self.device)
        self.sharded_reference = (
            self.sharded_policy
            if self.reference_is_policy
            else group.shard(self.reference.model, self.device)
        )
        self.sharded_critic = (
            group.shard(self.critic, self.device)
            if isinstance(self.critic, ModelCritic)
            else parallel.Unsharded()
        )
        self.sampler = self._new_sampler()
        # The weights of a reference that follows the policy (`ema.reference_decay`); else empty.
        self.moving_reference: dict[str, Tensor] = {}
        if config.ema.reference_decay:
            self.moving_reference = self._reference_weights()

    def share_work(self, threads: int) -> None:
        """Fork into as many processes as `processes` sets, and divide the threads between them.

        Call this before torch has started any threads.
        """
        config, on_cpu = self.config, self.device.type == "cpu"
        wanted = config.processes
        if wanted > 1 and not (on_cpu and parallel.can_fork()):
            raise InputError(
                f"processes is {wanted}, and a stage can fork only on the CPU of a Linux machine; leave "
                "it at 0, or start the stage with torchrun --nproc-per-node."
            )
        if not wanted:
            own = config.rollout.engine == "own"
            n_parameters = sum(p.numel() for p in self.policy.model.parameters())
            default = parallel.default_processes(n_parameters, self.device, threads)
            wanted = default if own else 1
        self.group = self.reward.group = parallel.share_work(self.group, wanted, threads)
        if self.group.workers:
            self.sampler = self._new_sampler()

    def _load_policy(self, device: torch.device, frozen: torch.dtype) -> Policy:
        """The policy as the run begins; `frozen` is the precision of frozen weights."""
        config = self.config
        policy = load_policy(
            config.policy,
            "policy",
            device=device,
            dtype=frozen if config.lora.rank else torch.float32,
        )
        if config.lora.rank:
            add_lora(policy, rank=config.lora.rank, alpha=config.lora.alpha)
        return policy

    def _new_critic(self) -> nn.Module:
        if self.config.critic.kind == "head":
            return HeadCritic(self.policy.hidden_size, self.config.critic.trains_policy)
        if reason := self._why_no_reward_trunk():
            log.info(f"The critic starts from the policy: {reason}.")
            # Loaded in float32, also if the policy is in bfloat16.
            policy = load_policy(self.config.policy, "critic", device=torch.device("cpu"))
            trunk = policy.model.base_model
        else:
            trunk = self.reward.scorer.plain_trunk()
        return ModelCritic(trunk.requires_grad_(requires_grad=True))

    def _why_no_reward_trunk(self) -> str:
        """Why the reward model's trunk cannot become the critic; empty if it can."""
        if self.policy.encoder_decoder:
            return "an encoder-decoder's values come from its decoder"
        if self.reward.scorer.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
            return "the reward model has other tokens"
        if forward_pass.looks_ahead(self.reward.scorer.trunk):
            return "the reward model's trunk sees later tokens"
        context = pretrained.context_length(architecture.unwrap_model(self.reward.scorer.trunk))
        if context < self.policy.context:
            return f"the reward model's trunk reads {context} tokens, fewer than the policy"
        return ""

    def _new_sampler(self) -> rollouts.Sampler:
        config = self.config
        if config.loss.importance_cap and self.sampler_keeps_logprobs:
            raise InputError(
                "loss.importance_cap corrects for a sampler with other probabilities than the trained "
                "policy, but our own decoder in float32 has the same ones; leave it at 0."
            )
        if config.rollout.engine == "own":
            value_of = self.critic if self.sampler_keeps_values else None
            return rollouts.OwnDecoder(self.policy, config.rollout, self.group.share, value_of)
        if self.group.size > 1:
            raise InputError(
                f"rollout.engine = {config.rollout.engine} works in one process, and there are "
                f"{self.group.size}; set rollout.engine to own."
            )
        if config.rollout.engine == "continuous":
            return rollouts.ContinuousBatching(self.policy, config.rollout)
        from rlhf.training import rollout_server  # HTTP only if it is used

        rollouts.refuse_encoder_decoder(self.policy, "server")
        return rollout_server.Server(self.policy, config)

    def autocast(self) -> Any:
        """bfloat16 matrix products if the precision is bfloat16."""
        return devices.autocast(self.device, self.frozen_dtype)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The trained parameters of the policy: all of them, or the adapters."""
        return [(n, p) for n, p in self.policy.model.named_parameters() if p.requires_grad]

    def trained_weights(self) -> dict[str, Tensor]:
        """A full copy of the policy's trained weights, on the CPU."""
        return {name: parallel.full_tensor(p.detach()).cpu().clone() for name, p in self.trained()}

    def are_finite(self) -> bool:
        """Whether all trained weights, of all processes, are finite."""
        trained = [p for _, p in self.trained()] + list(self.critic.parameters())
        finite = torch.stack([parallel.to_local(p.detach()).isfinite().all() for p in trained])
        return not self.group.any(not bool(finite.all()))

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Load a copy of the policy's trained weights. An empty one changes nothing."""
        with torch.no_grad():
            for name, parameter in self.trained() if weights else []:
                parameter.copy_(parallel.distribute_tensor(weights[name], parameter))

    def _reference_weights(self) -> dict[str, Tensor]:
        """The weights that follow the policy's, by the policy's names: the reference's own, or, if
        the reference is the policy without its adapters, a second set of adapters."""
        if self.reference_is_policy:
            return {n: p.detach().clone() for n, p in self.trained()}
        theirs = dict(self.reference.model.named_parameters())
        for name, parameter in self.trained():
            if name not in theirs or theirs[name].shape != parameter.shape:
                raise InputError(
                    f"ema.reference_decay averages weights, and the reference has no {name} like the "
                    "policy's; take the policy's own starting point as reference, or set it to 0."
                )
        return {n: theirs[n].detach() for n, _ in self.trained()}

    def update_reference(self) -> None:
        """Move the reference's weights towards the policy's (Xu et al. 2024, arXiv 2404.10719)."""
        with torch.no_grad():
            for name, parameter in self.trained() if self.moving_reference else []:
                weight = parallel.to_local(self.moving_reference[name])
                weight.lerp_(parallel.to_local(parameter), 1 - self.config.ema.reference_decay)

    def load_reference(self, weights: dict[str, Tensor]) -> None:
        """Load a moving reference's weights, which are full as in a checkpoint."""
        for name, weight in self.moving_reference.items():
            loaded = parallel.distribute_tensor(weights[name], weight)
            parallel.to_local(weight).copy_(parallel.to_local(loaded))

    @contextlib.contextmanager
    def _with_reference_adapters(self) -> Iterator[None]:
        """Inside, the adapters hold the moving reference's weights, if it is a set of adapters."""
        if not (self.reference_is_policy and self.moving_reference):
            yield
            return
        trained = [(self.moving_reference[n], p.detach()) for n, p in self.trained()]
        kept = [parallel.to_local(p).clone() for _, p in trained]
        for theirs, parameter in trained:
            parallel.to_local(parameter).copy_(parallel.to_local(theirs))
        try:
            yield
        finally:
            for own, (_, parameter) in zip(kept, trained, strict=True):
                parallel.to_local(parameter).copy_(own)

    def new_optimizer(self) -> torch.optim.Optimizer:
        """AdamW over the policy (group 0) and the critic (group 1)."""
        return torch.optim.AdamW(
            [
                {"params": [p for _, p in self.trained()]},
                {"params": list(self.critic.parameters())},
            ],
            lr=0.0,
            eps=self.config.optimizer.adam_epsilon,
            weight_decay=self.config.optimizer.weight_decay,
            fused=True,
        )

    def fitting(self, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[list[int]]]:
        """The prompts that leave room for a response, and their token ids."""
        return self.policy.encode_fitting(
            prompts,
            room=self.config.rollout.max_new_tokens,
            long_prompts=self.config.rollout.long_prompts,
        )

    def sample(
        self, prompts: Sequence[Sequence[int]], k: int, *, seed: int
    ) -> list[list[sampling.Sampled]]:
        """k responses per prompt from the current policy, with values where they cost nothing."""
        self.policy.model.eval()
        report = self.progress.phase("sampling", len(prompts), "prompts")
        if isinstance(self.sampler, rollouts.OwnDecoder):
            self.sampler.on_token = lambda done: report(min(done * self.group.size, len(prompts)))
        with self.sharded_policy.unsharded(), self.autocast():
            answers = self.sampler.sample(prompts, k, seed=seed)
        return self.group.all_gather(answers[self.group.share], len(prompts))

    def normalize(self, prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]]) -> None:
        """Measure the reward models' mean and deviation on the reference's answers to these prompts
        (Ziegler et al. 2019, section 2: mean 0 and deviation 1 before the first step).

        Only answers that ended count, because PPO uses no other scores.
        """
        seed = derive_seed(self.config.seed, -2)
        with self.sharded_reference.unsharded(), self.autocast(), self.as_reference() as reference:
            reference.model.eval()
            own = rollouts.OwnDecoder(reference, self.config.rollout, self.group.share, None)
            sampled = own.sample(encoded, 1, seed=seed)[self.group.share]
        sampled = self.group.all_gather(sampled, len(encoded))
        ended = [i for i, (answer,) in enumerate(sampled) if answer.finished]
        if len(ended) < 8:
            raise InputError(
                f"Only {len(ended)} of the reference's {len(sampled)} answers for "
                "reward.normalize_samples ended by themselves, and 8 are needed; raise it or "
                "rollout.max_new_tokens, or set it to 0."
            )
        texts = [self.policy.decode(sampled[i][0].tokens) for i in ended]
        self.reward.normalize([prompts[i] for i in ended], texts)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[sampling.Sampled]
    ) -> tuple[Tensor, dict[str, float]]:
        """The score of each response (B,), and the means of its parts for the curves.

        `InputError` if a score is not finite.
        """
        texts = [self.policy.decode(response.tokens) for response in responses]
        self.reward.on_batch = self.progress.phase("scoring", unit="texts")
        scores, means = self.reward.score(prompts, texts)
        broken = [i for i, score in enumerate(scores.tolist()) if not math.isfinite(score)]
        if broken:
            raise InputError(
                f"The reward of an answer to prompt {prompts[broken[0]].prompt_id} (and "
                f"{len(broken) - 1} more) is not a finite number; fix the reward model or the rule "
                "that gave it."
            )
        finished = torch.tensor([r.finished for r in responses], device=self.device)
        lengths = [len(r.tokens) for r in responses]
        return self.reward.shape_by_ending(scores, lengths, finished), means

    def sample_and_judge(
        self, prompts: Sequence[Prompt], *, seed: int
    ) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """One response to each watch prompt, always with the same random seed, as `Reward.watch`
        scores them."""
        sampled = self.sample(self.fitting(prompts)[1], 1, seed=derive_seed(seed, -1))
        texts = [self.policy.decode(answers[0].tokens) for answers in sampled]
        finished = torch.tensor([answers[0].finished for answers in sampled])
        return self.reward.watch(prompts, texts, finished)

    @property
    def sampler_keeps_logprobs(self) -> bool:
        """Whether the sampler's log-probabilities are those of the training pass.

        Another program, or bfloat16 (with a cache or in one pass), rounds differently, and the
        ratio of the first update must be 1.
        """
        return self.config.rollout.engine == "own" and not self.is_bfloat16

    @property
    def sampler_keeps_values(self) -> bool:
        """Whether it has values too; a critic with its own trunk must read the text."""
        return isinstance(self.critic, HeadCritic) and self.sampler_keeps_logprobs

    @torch.no_grad()
    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[sampling.Sampled]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities (nats) under policy and reference, values, and the mask; all (B, T),
        with 0 where the mask is false. What the sampler has computed already is not computed
        again."""
        logprobs = rollouts.sampler_logprobs(answers).to(self.device)
        values = rollouts.sampler_values(answers).to(self.device)
        reference = torch.zeros_like(logprobs)
        n_rows, width = logprobs.shape
        responses = [answer.tokens for answer in answers]
        sizes = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
        share = list(self.microbatches(sizes, range(n_rows)[self.group.share]))
        if not self.sampler_keeps_values:
            with self.sharded_policy.unsharded(), self.sharded_critic.unsharded(), self.autocast():
                report = self.progress.phase("reading", len(share), "passes")
                for number, rows in enumerate(share, start=1):
                    report(number)
                    packed, hidden, picked, _ = self.forward(self.policy, prompts, responses, rows)
                    values[rows, : packed.width] = packed.unpack(self.critic(hidden, packed))
                    if not self.sampler_keeps_logprobs:
                        logprobs[rows, : packed.width] = packed.unpack(picked)
        with (
            self._with_reference_adapters(),
            self.sharded_reference.unsharded(),
            self.autocast(),
            self.as_reference() as model,
        ):
            report = self.progress.phase("reading by the reference", len(share), "passes")
            for number, rows in enumerate(share, start=1):
                report(number)
                packed, _, picked, _ = self.forward(model, prompts, responses, rows)
                reference[rows, : packed.width] = packed.unpack(picked)
        self.group.all_reduce(reference)
        if not self.sampler_keeps_values:
            self.group.all_reduce(values)
            if not self.sampler_keeps_logprobs:
                # Only the rows that this process has read; the others are summed in.
                own = torch.zeros_like(logprobs)
                own[self.group.share] = logprobs[self.group.share]
                logprobs = self.group.all_reduce(own)
        lengths = torch.tensor([len(r) for r in responses], device=self.device)
        mask = ppo_math.length_mask(lengths, width)
        return logprobs * mask, reference * mask, values * mask, mask

    def importance_weights(
        self, answers: Sequence[sampling.Sampled], old: Tensor, mask: Tensor
    ) -> tuple[Tensor | None, dict[str, float]]:
        """Compare the sampler's log-probabilities with the policy's, `old` (B, T).

        Returns the weights of tokens (B, T) if `loss.importance_cap` is set, and for the curves the
        mean difference and the KL (k3) of the sampler from the policy, in nats per token. Nothing
        if the two are the same numbers.
        """
        if self.sampler_keeps_logprobs:
            return None, {}
        sampler = rollouts.sampler_logprobs(answers).to(self.device)
        gap = {
            "sampler_gap": float(ppo_math.masked_mean((old - sampler).abs(), mask)),
            "sampler_kl": float(ppo_math.masked_mean(ppo_math.kl_k3(sampler, old), mask)),
        }
        if self.config.rollout.engine == "server" and not gap["sampler_gap"] < rollouts.MAX_GAP:
            raise InputError(
                f"The rollout server's log-probabilities are {gap['sampler_gap']:.2g} nats per token "
                "from the policy's: it serves other weights, or returns them at another temperature "
                "(start vLLM with --logprobs-mode processed_logprobs)."
            )
        cap = self.config.loss.importance_cap
        return ppo_math.truncated_importance(old, sampler, cap=cap) if cap else None, gap

    def microbatches(self, sizes: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows in forward passes of similar length; `sizes` are tokens, by row."""
        return packing.microbatches_by_length(
            sizes,
            rows,
            size=self.config.optimizer.microbatch_size,
            tokens=self.tokens_per_pass,
        )

    @functools.cached_property
    def tokens_per_pass(self) -> int:
        """The most tokens of a forward pass, padding included."""
        models = [self.policy.model]
        if isinstance(self.critic, ModelCritic):
            models.append(self.critic.trunk)
        return self.config.optimizer.tokens_per_pass or microbatches.default_tokens(
            *models, device=self.device, trains=True
        )

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """The reference: a model of its own, or the policy without its adapters."""
        off = self.reference_is_policy and not self.moving_reference
        with self.policy.adapters_off() if off else contextlib.nullcontext():
            yield self.reference

    def forward(
        self,
        policy: Policy,
        prompts: Sequence[Sequence[int]],
        responses: Sequence[Sequence[int]],
        rows: Sequence[int],
        temperature: float | None = None,
    ) -> tuple[packing.Packed, Tensor, Tensor, Tensor]:
        """One pass over some rows: their layout, the hidden states (N, H) before their N response
        tokens, the tokens' log-probabilities (N,) and the entropies (N,), in nats, at the sampling
        temperature if no other is given."""
        packed = policy.pack([prompts[i] for i in rows], [responses[i] for i in rows])
        hidden = forward_pass.hidden_states(policy.model, packed)
        picked, entropies = ppo_math.logprobs_and_entropy(
            forward_pass.logits(policy.model, hidden),
            packed.tokens,
            temperature=self.config.rollout.temperature if temperature is None else temperature,
            train_entropy=self.config.loss.entropy_bonus != 0,
        )
        return packed, hidden, picked, entropies

    def save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """The refined policy as a plain Hugging Face folder; adapters are merged into it.

        `weights` are the full trained weights if this process has only shards; else empty.
        """
        if self.is_bfloat16 and self.config.lora.rank:
            # Merged into rounded weights, most of a small adapter would be rounded away.
            weights = weights or self.trained_weights()
        if weights:  # on the CPU: a GPU with all models may have no memory for another
            self.policy = self._load_policy(torch.device("cpu"), torch.float32)
            self.restore(weights)
        model = self.policy.model
        if self.config.lora.rank:
            model = model.merge_and_unload()

        def write(new: Path) -> None:
            model.save_pretrained(new)
            self.policy.tokenizer.save_pretrained(new)

        replace_folder(folder, write)


def derive_seed(seed: int, number: int) -> int:
    """An independent random seed for one purpose.

    Steps have their number (from 1), and epochs over the prompts theirs (from 0). -1 is for the
    watch prompts, -2 for `reward.normalize_samples`, -3 for the doctor's samples.
    """
    return random.Random(f"{seed}:{number}").getrandbits(48)
