"""The models of a PPO run and the passes that it makes over them: answer, read, train.

What their answers are worth is another thing: `ppo_reward`.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.training import (
    architecture,
    forward_pass,
    packing,
    parallel,
    ppo_math,
    rollouts,
    sampling,
)
from rlhf.training.configs import PPOConfig
from rlhf.training.critic import HeadCritic, ModelCritic
from rlhf.training.data import Prompt, read_prompts
from rlhf.training.language_models import devices, pretrained
from rlhf.training.language_models.policy import Policy, add_lora, load_policy
from rlhf.training.ppo_reward import Reward
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import replace_folder

FEW_PARAMETERS = 20_000_000
"""Up to so many, several processes take the place of threads by themselves: products are small, and
so are the further copies of the weights. Measured at one million (docs/log/startup_and_memory.md)."""

MOST_PROCESSES = 4
"""As many by themselves at most; further threads are shared between them. A minibatch has few rows."""


def read_inputs(run_dir: Path, config: PPOConfig) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts to learn on, and those that the reward models watch (may be none)."""
    prompts = read_prompts(run_dir, "prompts")
    watch = read_prompts(run_dir, "watch") if (run_dir / "data" / "watch.jsonl").exists() else []
    if config.test_reward_model and not watch:
        raise InputError(
            "test_reward_model is given, but there is no data/watch.jsonl with the prompts that it "
            "is to watch; add some, or leave it empty."
        )
    return prompts, watch


class Models:
    """Policy, reference, critic and the reward, and the passes that PPO makes over them."""

    def __init__(self, config: PPOConfig, group: parallel.Group = parallel.Group()) -> None:  # noqa: B008 - it never changes
        self.config = config
        self.group = group
        self.device = devices.choose_device(config.device)
        self.frozen = devices.choose_dtype(config.dtype, self.device)
        self.half = self.frozen == torch.bfloat16
        self.policy = self._load_policy(self.device, self.frozen)
        self.shared = bool(config.lora.rank) and Path(config.policy) == Path(config.reference)
        # With LoRA on the reference itself, the reference is the policy without its adapters.
        self.reference = self.policy
        if not self.shared:
            self.reference = load_policy(
                config.reference,
                "reference",
                device=self.device,
                # In bfloat16 a running average would not move: its steps are too small.
                dtype=torch.float32 if config.ema.reference_decay else self.frozen,
            )
            self.reference.model.requires_grad_(requires_grad=False)
            if self.reference.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
                raise InputError(
                    "policy and reference have different tokenizers, so no KL exists between them; "
                    "take the policy's own starting point as reference."
                )
        self.reward = Reward(config, self.device, self.frozen, group)
        self.critic = self._new_critic().to(self.device)
        # What is laid out once is read by all of them.
        shared = self.policy.share_rows and self.reference.share_rows
        if isinstance(self.critic, ModelCritic):
            shared = shared and forward_pass.can_share_rows(self.critic.trunk)
        self.policy.share_rows = self.reference.share_rows = shared
        # Sharded or whole; the reward models and a critic that is only a head are always whole.
        self.sharded_policy = group.shard(self.policy.model, self.device)
        self.sharded_reference = (
            self.sharded_policy if self.shared else group.shard(self.reference.model, self.device)
        )
        self.sharded_critic = (
            group.shard(self.critic, self.device)
            if isinstance(self.critic, ModelCritic)
            else parallel.Unsharded()
        )
        self.sampler = self._new_sampler()
        # The reference's own weights where they follow the policy's.
        self.followed: dict[str, Tensor] = {}
        if config.ema.reference_decay:
            self.followed = self._reference_weights()

    def share_work(self, threads: int) -> None:
        """Become as many processes as `processes` asks for, with `threads` between them.

        To be called before anything has run in more than one thread.
        """
        config, on_cpu = self.config, self.device.type == "cpu"
        wanted = config.processes
        if wanted > 1 and not (on_cpu and parallel.can_fork()):
            raise InputError(
                f"processes is {wanted}, and a stage forks on the CPU of a Linux machine only; leave "
                "it at 0, or start the stage with torchrun --nproc-per-node."
            )
        if not wanted:
            few = sum(p.numel() for p in self.policy.model.parameters()) <= FEW_PARAMETERS
            alone = not on_cpu or not few or config.rollout.engine != "own"
            wanted = 1 if alone else min(threads, MOST_PROCESSES)
        self.group = self.reward.group = parallel.fork(self.group, wanted)
        if self.group.workers:
            threads = max(1, threads // self.group.size)
            self.sampler = self._new_sampler()
        torch.set_num_threads(threads)

    def _load_policy(self, device: torch.device, frozen: torch.dtype) -> Policy:
        """The policy as the run begins; `frozen` is the precision of weights that are not trained."""
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
        if reason := self._no_critic():
            print(f"The critic starts from the policy: {reason}.")
            # In float32, whatever the policy is held in.
            policy = load_policy(self.config.policy, "critic", device=torch.device("cpu"))
            trunk = policy.model.base_model
        else:
            trunk = self.reward.scorer.plain_trunk()
        return ModelCritic(trunk.requires_grad_(requires_grad=True))

    def _no_critic(self) -> str:
        """Why the reward model's trunk can't become the critic; empty where it can."""
        if self.policy.encoder_decoder:
            return "an encoder-decoder's values come from its decoder"
        if self.reward.scorer.tokenizer.get_vocab() != self.policy.tokenizer.get_vocab():
            return "the reward model has other tokens"
        if forward_pass.looks_ahead(self.reward.scorer.trunk):
            return "the reward model's trunk sees what is not said yet"
        context = pretrained.context_length(architecture.unwrap_model(self.reward.scorer.trunk))
        if context < self.policy.context:
            return f"the reward model's trunk reads {context} tokens, fewer than the policy"
        return ""

    def _new_sampler(self) -> rollouts.Sampler:
        config = self.config
        if config.loss.importance_cap and self.keeps_logprobs:
            raise InputError(
                "importance_cap weighs what was sampled by other arithmetic than it is trained with, "
                "but our own decoder in float32 tells the very numbers that are trained on; leave it "
                "at 0."
            )
        if config.rollout.engine == "own":
            value_of = self.critic if self.keeps_values else None
            return rollouts.OwnDecoder(self.policy, config.rollout, self.group.share, value_of)
        if self.group.size > 1:
            raise InputError(
                f"rollouts {config.rollout.engine!r} work in one process, and there are {self.group.size}; "
                "set rollouts to 'own'."
            )
        if config.rollout.engine == "continuous":
            return rollouts.ContinuousBatching(self.policy, config.rollout)
        from rlhf.training import rollout_server  # HTTP is for those who want it

        rollouts.refuse_encoder_decoder(self.policy, "server")
        return rollout_server.Server(self.policy, config)

    def autocast(self) -> Any:
        """bfloat16 matrix products where the precision asks for them."""
        return devices.autocast(self.device, self.frozen)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The policy's parameters that are trained: all of them, or the adapters."""
        return [(n, p) for n, p in self.policy.model.named_parameters() if p.requires_grad]

    def trained_weights(self) -> dict[str, Tensor]:
        """A whole copy of them on the CPU."""
        return {name: parallel.full_tensor(p.detach()).cpu().clone() for name, p in self.trained()}

    def are_finite(self) -> bool:
        """Whether all weights that are trained, of all processes, are numbers."""
        trained = [p for _, p in self.trained()] + list(self.critic.parameters())
        finite = torch.stack([parallel.to_local(p.detach()).isfinite().all() for p in trained])
        return not self.group.any(not bool(finite.all()))

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Put a copy back. An empty one changes nothing."""
        with torch.no_grad():
            for name, parameter in self.trained() if weights else []:
                parameter.copy_(parallel.distribute_tensor(weights[name], parameter))

    def _reference_weights(self) -> dict[str, Tensor]:
        """The weights that are to follow the policy's, by the names that those have there: the
        reference's own or, where it is the policy without its adapters, adapters of its own, which
        at the beginning do nothing."""
        if self.shared:
            return {n: p.detach().clone() for n, p in self.trained()}
        theirs = dict(self.reference.model.named_parameters())
        for name, parameter in self.trained():
            if name not in theirs or theirs[name].shape != parameter.shape:
                raise InputError(
                    f"reference_ema averages weights, and the reference has no {name} like the "
                    "policy's; take the policy's own starting point as reference, or set it to 0."
                )
        return {n: theirs[n].detach() for n, _ in self.trained()}

    def follow(self) -> None:
        """Move the reference's weights towards the policy's (Xu et al. 2024, arXiv 2404.10719)."""
        with torch.no_grad():
            for name, parameter in self.trained() if self.followed else []:
                mine = parallel.to_local(self.followed[name])
                mine.lerp_(parallel.to_local(parameter), 1 - self.config.ema.reference_decay)

    def put_reference(self, weights: dict[str, Tensor]) -> None:
        """Put back what it has followed to, whole as a checkpoint has it."""
        for name, mine in self.followed.items():
            parallel.to_local(mine).copy_(
                parallel.to_local(parallel.distribute_tensor(weights[name], mine))
            )

    @contextlib.contextmanager
    def _with_followed(self) -> Iterator[None]:
        """The adapters are the reference's for a while, where those are apart from the policy's."""
        if not (self.shared and self.followed):
            yield
            return
        trained = [(self.followed[n], p.detach()) for n, p in self.trained()]
        kept = [parallel.to_local(p).clone() for _, p in trained]
        for theirs, parameter in trained:
            parallel.to_local(parameter).copy_(parallel.to_local(theirs))
        try:
            yield
        finally:
            for own, (_, parameter) in zip(kept, trained, strict=True):
                parallel.to_local(parameter).copy_(own)

    def optimizer(self) -> torch.optim.Optimizer:
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
        """k responses per prompt from the policy as it is, with the values where they cost nothing."""
        self.policy.model.eval()
        with self.sharded_policy.unsharded(), self.autocast():
            answers = self.sampler.sample(prompts, k, seed=seed)
        return self.group.all_gather(answers[self.group.share], len(prompts))

    def normalise(self, prompts: Sequence[Prompt], encoded: Sequence[Sequence[int]]) -> None:
        """Measure the reward models' mean and deviation anew, on the reference's answers to these
        prompts (Ziegler et al. 2019, section 2: mean 0 and deviation 1 before the first step).

        Only answers that ended count: PPO asks for the score of no other.
        """
        seed = mix(self.config.seed, -2)
        with self.sharded_reference.unsharded(), self.autocast(), self.as_reference() as reference:
            reference.model.eval()
            own = rollouts.OwnDecoder(reference, self.config.rollout, self.group.share, None)
            sampled = own.sample(encoded, 1, seed=seed)[self.group.share]
        sampled = self.group.all_gather(sampled, len(encoded))
        ended = [i for i, (answer,) in enumerate(sampled) if answer.finished]
        if len(ended) < 8:
            raise InputError(
                f"Only {len(ended)} of the reference's {len(sampled)} answers for normalise_samples "
                "ended by themselves, and 8 are needed; raise it or max_new_tokens, or set it to 0."
            )
        texts = [self.policy.decode(sampled[i][0].tokens) for i in ended]
        self.reward.normalise([prompts[i] for i in ended], texts)

    def sample_and_judge(
        self, prompts: Sequence[Prompt], *, seed: int
    ) -> tuple[list[dict[str, Any]], dict[str, float]]:
        """One response to each watch prompt, always with the same draws, as `Reward.watch` judges
        them."""
        sampled = self.sample(self.fitting(prompts)[1], 1, seed=mix(seed, -1))
        texts = [self.policy.decode(answers[0].tokens) for answers in sampled]
        finished = torch.tensor([answers[0].finished for answers in sampled])
        return self.reward.watch(prompts, texts, finished)

    @property
    def keeps_logprobs(self) -> bool:
        """Whether sampling tells log-probabilities well enough to train on.

        In bfloat16, sampling with a cache and reading in one go round differently, as do two
        programs, and the ratio of the first update must be 1.
        """
        return self.config.rollout.engine == "own" and not self.half

    @property
    def keeps_values(self) -> bool:
        """Whether it tells values too; a critic with a trunk of its own has to read the text."""
        return isinstance(self.critic, HeadCritic) and self.keeps_logprobs

    @torch.no_grad()
    def read(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[sampling.Sampled]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Log-probabilities (nats) under policy and reference, values, and the mask; all (B, T), with
        0 where the mask is false."""
        old = rollouts.logprobs_of(answers)
        values = torch.zeros_like(old)
        rows, width = old.shape
        for i, answer in enumerate(answers):
            if answer.values is not None:
                values[i, : len(answer.tokens)] = torch.tensor(answer.values)
        old, values = old.to(self.device), values.to(self.device)
        reference = torch.zeros_like(old)
        lengths = torch.tensor([len(a.tokens) for a in answers], device=self.device)
        answered = [answer.tokens for answer in answers]
        sizes = [len(p) + len(r) for p, r in zip(prompts, answered, strict=True)]
        mine = list(self.microbatches(sizes, range(rows)[self.group.share]))
        if not self.keeps_values:
            with self.sharded_policy.unsharded(), self.sharded_critic.unsharded(), self.autocast():
                for part in mine:
                    packed, hidden, picked, _ = self.forward(self.policy, prompts, answered, part)
                    values[part, : packed.width] = packed.unpack(self.critic(hidden, packed))
                    if not self.keeps_logprobs:
                        old[part, : packed.width] = packed.unpack(picked)
        held = self.sharded_reference
        with (
            self._with_followed(),
            held.unsharded(),
            self.autocast(),
            self.as_reference() as policy,
        ):
            for part in mine:
                packed, _, picked, _ = self.forward(policy, prompts, answered, part)
                reference[part, : packed.width] = packed.unpack(picked)
        self.group.all_reduce(reference)
        if not self.keeps_values:
            self.group.all_reduce(values)
            if not self.keeps_logprobs:
                # Only what was read here: the others' rows are theirs to tell.
                own = torch.zeros_like(old)
                own[self.group.share] = old[self.group.share]
                old = self.group.all_reduce(own)
        mask = ppo_math.length_mask(lengths, width)
        return old * mask, reference * mask, values * mask, mask

    def compare(
        self, answers: Sequence[sampling.Sampled], old: Tensor, mask: Tensor
    ) -> tuple[Tensor | None, dict[str, float]]:
        """What the tokens' sampler said of them beside what the policy says now, `old` (B, T).

        Returns the weights of tokens under `importance_cap` (B, T), and for the curves the mean
        difference and the KL (k3) of the sampler from the policy, in nats per token. Nothing where
        the two are the same numbers.
        """
        if self.keeps_logprobs:
            return None, {}
        said = rollouts.logprobs_of(answers).to(self.device)
        told = {
            "sampler_gap": float(ppo_math.masked_mean((old - said).abs(), mask)),
            "sampler_kl": float(ppo_math.masked_mean(ppo_math.kl_k3(said, old), mask)),
        }
        if self.config.rollout.engine == "server" and not told["sampler_gap"] < rollouts.FAR_APART:
            raise InputError(
                f"The rollout server's log-probabilities are {told['sampler_gap']:.2g} nats per token "
                "from the policy's: it serves other weights, or tells them at another temperature "
                "(start vLLM with --logprobs-mode processed_logprobs)."
            )
        cap = self.config.loss.importance_cap
        return ppo_math.truncated_importance(old, said, cap=cap) if cap else None, told

    def microbatches(self, sizes: Sequence[int], rows: Sequence[int]) -> Iterator[list[int]]:
        """Rows in forward passes of similar length; `sizes` are tokens, by row."""
        return packing.microbatches_by_length(
            sizes,
            rows,
            size=self.config.optimizer.microbatch_size,
            tokens=self.config.optimizer.microbatch_tokens,
        )

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[Policy]:
        """The reference: a model of its own, or the policy without its adapters."""
        off = self.shared and not self.followed
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
        """One pass over some rows: how they are laid out, the hidden states (N, H) before their N
        response tokens, the log-probabilities (N,) of those and the entropies (N,), in nats, at the
        sampling temperature if no other is given."""
        packed, hidden = policy.read([prompts[i] for i in rows], [responses[i] for i in rows])
        picked, entropies = ppo_math.logprobs_and_entropy(
            policy.logits(hidden),
            packed.tokens,
            temperature=self.config.rollout.temperature if temperature is None else temperature,
            train_entropy=self.config.loss.entropy_bonus != 0,
        )
        return packed, hidden, picked, entropies

    def save(self, folder: Path, weights: dict[str, Tensor]) -> None:
        """The refined policy as a plain Hugging Face folder; adapters are merged into it.

        `weights` are those of shards, which no process has all of; empty where this one has.
        """
        if self.half and self.config.lora.rank:
            # Merged into rounded weights, most of what small adapters say would be rounded away.
            weights = weights or self.trained_weights()
        if weights:  # beside the models that are there already, a GPU may have no room for it
            self.policy = self._load_policy(torch.device("cpu"), torch.float32)
            self.restore(weights)
        model = self.policy.model
        if self.config.lora.rank:
            model = model.merge_and_unload()

        def write(new: Path) -> None:
            model.save_pretrained(new)
            self.policy.tokenizer.save_pretrained(new)

        replace_folder(folder, write)


def mix(seed: int, number: int) -> int:
    """A seed for one purpose that has nothing to do with its neighbours'.

    Steps have their number (from 1) and passes over the prompts theirs (from 0); -1 is what the
    watch prompts are answered with, -2 what `normalise_samples` are, -3 what the doctor samples.
    """
    return random.Random(f"{seed}:{number}").getrandbits(48)
