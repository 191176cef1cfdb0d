"""Reward models: text in, one score per axis out.

A reward model is a transformers backbone (the trunk) with a linear head per axis. It has its own
tokenizer and template, so any policy can be scored, whatever its tokens are. Beside what the trunk
says, the heads see how likely a frozen language model (the prior: the trunk before it was trained)
finds the response. A trunk alone judges style: it does not notice that an answer names the wrong
thing, which the prior finds improbable.

`reward_folder` says how one lies on disk.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rlhf.training import architecture, forward_pass, lean, loading, packing, ppo_math, reward_math
from rlhf.training.cpu import has_fast_layers
from rlhf.training.reward_folder import (
    ADAPTERS,
    HEADS,
    PRIOR,
    PRIOR_FEATURES,
    SETTINGS,
    read_heads,
    read_settings,
)
from rlhf.training.rundir import T5_TYPES, InputError, write_json

if TYPE_CHECKING:  # most stages that score are one process
    from rlhf.training.parallel import Group

LOW_LOGPROB = -4.0
"""Nats below which the prior calls a token a surprise."""

PRIOR_GAIN = 5.0
"""How much larger than the hidden states' the prior's few features are made: three numbers beside
hundreds get three weights' worth of an AdamW step, too little to be heard (docs/log/reward_models.md)."""

SHARING_PAYS = 0.75
"""Distinct prompts per text, above which two passes cost more than the tokens that they save."""

Message = dict[str, str]


@dataclass(frozen=True)
class Text:
    """A conversation and one response to it, as the reward model's own tokens."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]


@dataclass
class RewardModel:
    """A trunk, its heads, and the scale that makes its scores comparable between rounds."""

    axes: tuple[str, ...]
    trunk: Any
    tokenizer: Any
    heads: nn.Linear
    log_nu: nn.Parameter
    """(axes,) log of Davidson's tie parameter."""
    prior: Any | None = None
    max_length: int = 512
    mean: dict[str, float] = field(default_factory=dict)
    """Per axis: the mean of the raw scores over the reference policy's samples."""
    scale: dict[str, float] = field(default_factory=dict)
    """Per axis: their standard deviation."""
    reference: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Per axis and risk: `{mean, std, n}` of the standardised scores of those samples."""
    feature_mean: Tensor | None = None
    """(3,) mean and, in `feature_scale`, standard deviation of the prior's features."""
    feature_scale: Tensor | None = None
    shares_prompts: bool = False
    """Whether the responses to one prompt are read after one pass over the prompt."""
    n_heads: int = 1
    """Heads per axis that were trained apart on one trunk: the members of a cheap ensemble."""
    adapters: tuple[str, ...] = ()
    """The LoRA adapters through which each of them sees the trunk; empty: all see it as it is."""
    others: "list[RewardModel]" = field(default_factory=list)
    """Whole models beside this one: more members for the same axes, or the models of other axes."""
    dtype: torch.dtype = torch.float32
    """Precision of matrix products and of what is not trained; heads are float32 always."""

    # --- Making, saving, loading --------------------------------------------------------------

    @classmethod
    def new(
        cls,
        trunk: str,
        axes: Sequence[str],
        *,
        use_prior: bool,
        max_length: int,
        device: Any,
        n_heads: int = 1,
        adapter_rank: int = 0,
        prior: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Heads drawn from N(0, 1/(d+1)), as in summarize_from_feedback, on a pre-trained trunk.

        With an `adapter_rank` every head has LoRA adapters of its own, which alone are trained.
        """
        model = loading.load_trunk(trunk, "trunk")
        tokenizer = loading.load_tokenizer(trunk, "trunk")
        if use_prior and prior is None:
            prior = loading.load_language_model(trunk, "prior", dtype=dtype)
            prior = prior.to(device).eval().requires_grad_(requires_grad=False)
        loading.without_dropout(model)
        adapters: tuple[str, ...] = ()
        if adapter_rank:
            adapters = tuple(f"member-{number}" for number in range(n_heads))
            model = loading.with_adapters(model, adapters, rank=adapter_rank)
        width = 2 * architecture.hidden_size(model) + (PRIOR_FEATURES if use_prior else 0)
        heads = nn.Linear(width, n_heads * len(axes))
        nn.init.normal_(heads.weight, std=(width + 1) ** -0.5)
        nn.init.zeros_(heads.bias)
        return cls(
            axes=tuple(axes),
            trunk=model.to(device),
            tokenizer=tokenizer,
            heads=heads.to(device),
            log_nu=nn.Parameter(torch.zeros(len(axes), device=device)),
            prior=prior if use_prior else None,
            max_length=min(max_length, loading.context_length(model)),
            n_heads=n_heads,
            dtype=dtype,
            adapters=adapters,
        )

    def save(self, folder: Path, *, with_prior: bool = True) -> None:
        """Write the reward model, `reward_model.json` last.

        Other models go to folders within; their prior is this one's and is written once.
        """
        folder.mkdir(parents=True, exist_ok=True)
        members = [f"member-{number}" for number in range(1, len(self.others) + 1)]
        for name, other in zip(members, self.others, strict=True):
            other.save(folder / name, with_prior=False)
        if self.adapters:
            lean.save(self.trunk, folder / ADAPTERS)
            lean.save(copy.deepcopy(self.trunk).unload(), folder)
        else:
            lean.save(self.trunk, folder)
        self.tokenizer.save_pretrained(folder)
        if self.prior is not None and with_prior:
            lean.save(self.prior, folder / PRIOR)
        tensors = {"weight": self.heads.weight, "bias": self.heads.bias, "log_nu": self.log_nu}
        if self.feature_mean is not None and self.feature_scale is not None:
            tensors |= {"feature_mean": self.feature_mean, "feature_scale": self.feature_scale}
        save_file(
            {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / HEADS
        )
        write_json(
            folder / SETTINGS,
            {
                "axes": list(self.axes),
                "heads": self.n_heads,
                "members": members,
                "adapters": list(self.adapters),
                "prior": self.prior is not None,
                "max_length": self.max_length,
                "mean": self.mean,
                "scale": self.scale,
                "reference": self.reference,
            },
        )

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: Any = "cpu",
        prior: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> Self:
        """Read what `save` wrote, ready to score; `InputError` says what is wrong otherwise.

        `prior` is one that is loaded already, which this model has in common with others (the members
        of an ensemble, the test-RM beside the train-RM); one that has none ignores it. Nothing is to be trained
        of it, so trunk and prior are held in `dtype`.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"The reward model folder {str(path)!r} does not exist.")
        if not (folder / SETTINGS).is_file():
            raise InputError(
                f"{str(path)!r} has no {SETTINGS}; give the train/ or test/ folder that the "
                "reward_model stage wrote."
            )
        settings = read_settings(folder / SETTINGS)
        trunk = loading.load_trunk(str(path), "reward model", dtype=dtype)
        tensors = read_heads(folder / HEADS, settings, architecture.hidden_size(trunk))
        adapters = tuple(settings["adapters"])
        if adapters:
            trunk = loading.load_adapters(trunk, folder / ADAPTERS, adapters)
        if not settings["prior"]:
            prior = None
        elif prior is None:
            prior = loading.load_language_model(
                str(folder / PRIOR), "reward model's prior", dtype=dtype
            )
            prior = prior.to(device).eval().requires_grad_(requires_grad=False)
        heads = nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0])
        heads.load_state_dict({"weight": tensors["weight"], "bias": tensors["bias"]})
        trunk = trunk.to(device).eval().requires_grad_(requires_grad=False)
        mean, scale = tensors.get("feature_mean"), tensors.get("feature_scale")
        others: list[RewardModel] = [
            cls.load(folder / name, device=device, prior=prior, dtype=dtype)
            for name in settings["members"]
        ]
        return cls(
            axes=tuple(settings["axes"]),
            n_heads=settings["heads"],
            adapters=adapters,
            others=others,
            trunk=trunk,
            tokenizer=loading.load_tokenizer(str(path), "reward model"),
            heads=heads.to(device).requires_grad_(requires_grad=False),
            log_nu=nn.Parameter(tensors["log_nu"].to(device), requires_grad=False),
            prior=prior,
            max_length=min(settings["max_length"], loading.context_length(trunk)),
            mean=settings["mean"],
            scale=settings["scale"],
            reference=settings["reference"],
            feature_mean=None if mean is None else mean.to(device),
            feature_scale=None if scale is None else scale.to(device),
            dtype=dtype,
        )

    def parameters(self) -> list[nn.Parameter]:
        """What training changes: the trunk, the heads and the tie parameters."""
        return [*self.trunk.parameters(), *self.heads.parameters(), self.log_nu]

    def plain_trunk(self) -> Any:
        """A copy of the trunk as a transformers model in float32, to begin another one with: where
        members have adapters, as the first of them sees it."""
        trunk = copy.deepcopy(self.trunk).float()
        if self.adapters:
            trunk.set_adapter(self.adapters[0])
            trunk = trunk.merge_and_unload()
        return trunk

    @property
    def every_axis(self) -> tuple[str, ...]:
        """The axes that this model and those beside it score."""
        return tuple(dict.fromkeys([*self.axes, *(a for o in self.others for a in o.every_axis)]))

    def members_of(self, axis: str) -> int:
        """How many opinions there are on an axis."""
        own = self.n_heads if axis in self.axes else 0
        return own + sum(other.members_of(axis) for other in self.others)

    @property
    def device(self) -> torch.device:
        return self.heads.weight.device

    def autocast(self) -> Any:
        """Matrix products in this model's precision."""
        return loading.autocast(self.device, self.dtype)

    @property
    def is_t5(self) -> bool:
        """Whether the trunk is a T5's encoder, which reads prompts as the whole T5 does."""
        return self.trunk.config.model_type in T5_TYPES

    # --- Text to numbers ----------------------------------------------------------------------

    def read(self, messages: Sequence[Message], text: str) -> Text:
        """Tokens of a conversation and a response, the end token included.

        What is too long loses the beginning of the conversation and the end of the response; a
        response shows what it is worth before it has filled half the context.
        """
        return self.read_all([messages], [text])[0]

    def read_all(
        self, conversations: Sequence[Sequence[Message]], texts: Sequence[str]
    ) -> list[Text]:
        """`read` for many, tokenized together."""
        eos = self.tokenizer.eos_token_id
        begin, between = [] if self.is_t5 else loading.marks_before(self.tokenizer), []
        if eos is None:  # an encoder: [CLS] prompt [SEP] response [SEP], as it was trained
            eos = self.tokenizer.sep_token_id
            begin = begin or [t for t in (self.tokenizer.cls_token_id,) if t is not None]
            between = [t for t in (eos,) if t is not None]
        end = [] if eos is None else [eos]
        room = self.max_length - len(begin) - len(between)
        rendered: dict[str, str] = {}
        keys = [json.dumps(messages) for messages in conversations]
        for key, messages in zip(keys, conversations, strict=True):
            if key not in rendered:
                rendered[key] = loading.render(self.tokenizer, messages, apart=self.is_t5)
        names = list(rendered)
        marks = loading.has_marks_around(self.tokenizer, apart=self.is_t5)
        prompts = self.tokenizer([rendered[n] for n in names], add_special_tokens=marks)
        prompt_ids = dict(zip(names, prompts["input_ids"], strict=True))
        responses = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        read = []
        for key, response in zip(keys, responses, strict=True):
            kept = [*response[: self.max_length // 2 - 1], *end] or list(prompt_ids[key][-1:])
            prompt = [*begin, *prompt_ids[key][-(room - len(kept)) :], *between]
            read.append(Text(tuple(prompt), tuple(kept)))
        return read

    def raw_scores(self, texts: Sequence[Text], prior: Tensor | None) -> Tensor:
        """(B, heads, axes) scores before standardisation, differentiable.

        `prior` is what `prior_features` gives for these texts.
        """
        if not self.adapters:
            scores = self.heads(self._seen(texts, prior)).chunk(self.n_heads, dim=1)
            return torch.stack(scores, dim=1)
        scores = []
        weights, biases = (w.chunk(self.n_heads) for w in (self.heads.weight, self.heads.bias))
        for name, weight, bias in zip(self.adapters, weights, biases, strict=True):
            self.trunk.set_adapter(name)
            scores.append(nn.functional.linear(self._seen(texts, prior), weight, bias))
        if torch.is_grad_enabled():  # the last one set would be the only one that learns
            loading.train_adapters(self.trunk)
        return torch.stack(scores, dim=1)

    def _seen(self, texts: Sequence[Text], prior: Tensor | None) -> Tensor:
        """(B, width) what the heads read."""
        with self.autocast():
            parts = [*self.response_states(texts)]
        if prior is not None:
            parts.append(prior)
        return torch.cat([part.float() for part in parts], dim=1)

    def response_states(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """(B, H) hidden states of each response: at its end, and their mean.

        With `shares_prompts`, texts of the same prompt read it once: its keys and values are what
        every response to it attends to.
        """
        if all(t.prompt for t in texts) and has_fast_layers(self.trunk):
            return self._packed_states(texts)
        rows = torch.arange(len(texts), device=self.device)
        prompts = list(dict.fromkeys(t.prompt for t in texts))
        if self.shares_prompts and 0 < len(prompts) <= SHARING_PAYS * len(texts) and all(prompts):
            hidden, lengths = self._after_shared_prompts(texts, prompts)
        else:
            ids, mask, left, lengths = self._pack(texts)
            hidden = self.trunk(
                input_ids=ids, attention_mask=mask, position_ids=_positions(self.trunk, mask)
            ).last_hidden_state[:, left:]
        real = ppo_math.length_mask(lengths, hidden.shape[1])[..., None]
        mean = (hidden.float() * real).sum(dim=1) / lengths[:, None]
        return hidden[rows, lengths - 1], mean

    def _packed_states(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor]:
        """The same for a small Llama on a CPU: several texts in a row of the batch."""
        # States come before each token: with one more token they are those at every real one.
        packed = self._pack_rows(texts, [(*t.response, 0) for t in texts])
        hidden = forward_pass.trunk_hidden_states(self.trunk, packed)
        inside = packed.columns > 0
        rows, columns, hidden = packed.rows[inside], packed.columns[inside], hidden[inside]
        lengths = torch.tensor([len(t.response) for t in texts])
        total = hidden.new_zeros(len(texts), hidden.shape[1]).index_add_(0, rows, hidden)
        return hidden[columns == lengths[rows]], total / lengths[:, None]

    def _pack_rows(
        self, texts: Sequence[Text], responses: Sequence[Sequence[int]], *, apart: bool = False
    ) -> packing.Packed:
        prompts, pad_id = [t.prompt for t in texts], self.tokenizer.pad_token_id or 0
        if apart:
            start_id = architecture.unwrap_model(self.prior).config.decoder_start_token_id
            return packing.pack_encoder_decoder(
                prompts, responses, pad_id=pad_id, start_id=start_id, device=self.device
            )
        return packing.pack(
            prompts,
            responses,
            pad_id=pad_id,
            device=self.device,
            share_rows=True,
            share_prompts=self.shares_prompts or not torch.is_grad_enabled(),
        )

    def _after_shared_prompts(
        self, texts: Sequence[Text], prompts: Sequence[tuple[int, ...]]
    ) -> tuple[Tensor, Tensor]:
        """Hidden states (B, T, H) of the responses and their lengths, each prompt read once."""
        place = {prompt: i for i, prompt in enumerate(prompts)}
        whose = torch.tensor([place[t.prompt] for t in texts], device=self.device)
        ids, mask, _, _ = self._pack([Text(prompt, ()) for prompt in prompts])
        cache = self.trunk(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(self.trunk, mask),
            use_cache=True,
        ).past_key_values
        cache.reorder_cache(whose)  # beam search's way to say: row i goes on from prompt whose[i]
        before = mask.sum(dim=1) + architecture.first_position(self.trunk)
        ids, own, _, lengths = self._pack([Text((), t.response) for t in texts])
        # Padding behind a response may lie beyond the last position that a trunk has.
        places = torch.arange(ids.shape[1], device=self.device).minimum(lengths[:, None] - 1)
        hidden = self.trunk(
            input_ids=ids,
            attention_mask=torch.cat([mask[whose], own], dim=1),
            position_ids=before[whose][:, None] + places,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden, lengths

    @torch.no_grad()
    def share_prompts(self) -> bool:
        """Read every prompt once for all responses to it, if that gives this trunk's scores.

        It does where no token looks ahead; an encoder reads the prompt differently before every
        response. Whether it does is tried, since no configuration says so reliably.
        """
        n = min(16, self.max_length // 3)
        vocabulary = self.trunk.config.vocab_size
        tokens = [(7 * i * i + 3 * i) % vocabulary for i in range(3 * n)]
        texts = [Text(tuple(tokens[:n]), tuple(tokens[n + i : 2 * n])) for i in range(3)]
        texts += [Text(tuple(tokens[:4]), tuple(tokens[n + i : n + 3])) for i in range(2)]
        self.shares_prompts = False
        with self.autocast():
            alone = torch.cat(self.response_states(texts)).float()
        self.shares_prompts = True
        try:
            with self.autocast():
                together = torch.cat(self.response_states(texts)).float()
        except Exception:  # noqa: BLE001 - whatever a trunk without a cache says: it can't
            self.shares_prompts = False
            return False
        error = float((alone - together).abs().max() / alone.abs().max().clamp(min=1e-9))
        self.shares_prompts = error < (1e-3 if self.dtype == torch.float32 else 3e-2)
        return self.shares_prompts

    @torch.no_grad()
    def prior_features(self, texts: Sequence[Text], *, batch_size: int = 128) -> Tensor | None:
        """(B, 3): mean and least log-probability of the response under the prior, and how many
        of its tokens surprise it; standardised once `fit_features` has seen what is usual."""
        if self.prior is None:
            return None
        features = torch.zeros(len(texts), PRIOR_FEATURES, device=self.device)
        apart = architecture.is_encoder_decoder(self.prior)
        compact = has_fast_layers(architecture.unwrap_model(self.prior).base_model) and all(
            t.prompt for t in texts
        )
        for chunk in _by_length(texts, batch_size):
            some = [texts[i] for i in chunk]
            with self.autocast():
                if apart or compact:
                    packed = self._pack_rows(some, [t.response for t in some], apart=apart)
                    said = forward_pass.logits(
                        self.prior, forward_pass.hidden_states(self.prior, packed)
                    )
                    logprobs = packed.unpack(ppo_math.read_logits(said, packed.tokens)[0])
                    lengths = torch.tensor([len(t.response) for t in some])
                else:
                    ids, mask, left, lengths = self._pack(some)
                    logits = self.prior(
                        input_ids=ids,
                        attention_mask=mask,
                        position_ids=_positions(self.prior, mask),
                        use_cache=False,
                        logits_to_keep=ids.shape[1] - left + 1,
                    ).logits[:, :-1]
                    logprobs = ppo_math.selected_logprobs(logits, ids[:, left:])
            real = ppo_math.length_mask(lengths, logprobs.shape[1])
            features[chunk] = torch.stack(
                [
                    (logprobs * real).sum(dim=1) / lengths,
                    torch.where(real, logprobs, 0.0).amin(dim=1),
                    ((logprobs < LOW_LOGPROB) & real).sum(dim=1).float(),
                ],
                dim=1,
            )
        if self.feature_mean is not None and self.feature_scale is not None:
            features = PRIOR_GAIN * ((features - self.feature_mean) / self.feature_scale).clamp(
                -5, 5
            )
        return features

    def fit_features(self, features: Tensor) -> Tensor:
        """Learn the mean and scale of the prior's features, and return them standardised."""
        self.feature_mean = features.mean(dim=0)
        self.feature_scale = features.std(dim=0).clamp(min=1e-3)
        return PRIOR_GAIN * ((features - self.feature_mean) / self.feature_scale).clamp(-5, 5)

    @torch.inference_mode()
    def opinions(
        self,
        conversations: Sequence[Sequence[Message]],
        texts: Sequence[str],
        *,
        batch_size: int = 128,
        standardised: bool = True,
    ) -> dict[str, Tensor]:
        """What each member of the ensemble says: (B, members) on the CPU for each axis.

        Identical texts are read once, and score alike. All members have one scale, so that their
        spread is in the same unit as the scores.
        """
        read = self.read_all(conversations, texts)
        unique = list(dict.fromkeys(read))
        place = {text: i for i, text in enumerate(unique)}
        raw = torch.zeros(len(unique), self.n_heads, len(self.axes))
        prior = self.prior_features(unique, batch_size=batch_size)
        for chunk in _by_length(unique, batch_size):
            features = None if prior is None else prior[chunk]
            raw[chunk] = self.raw_scores([unique[i] for i in chunk], features).float().cpu()
        raw = raw[[place[text] for text in read]]
        said = {axis: [raw[:, :, i]] for i, axis in enumerate(self.axes)}
        for other in self.others:
            more = other.opinions(conversations, texts, batch_size=batch_size, standardised=False)
            for axis, scores in more.items():
                said.setdefault(axis, []).append(scores)
        all_said = {axis: torch.cat(scores, dim=1) for axis, scores in said.items()}
        if not standardised:
            return all_said
        return {
            a: (s - self.mean.get(a, 0.0)) / self.scale.get(a, 1.0) for a, s in all_said.items()
        }

    def score(
        self,
        conversations: Sequence[Sequence[Message]],
        texts: Sequence[str],
        *,
        batch_size: int = 128,
        standardised: bool = True,
        ensemble: str = "mean",
        penalty: float = 1.0,
    ) -> dict[str, Tensor]:
        """Scores (B,) on the CPU for each axis; members are combined by `ensemble`."""
        said = self.opinions(conversations, texts, batch_size=batch_size, standardised=standardised)
        return {
            axis: reward_math.combine_members(scores, ensemble, penalty=penalty)
            for axis, scores in said.items()
        }

    def standardise(self, raw: dict[str, Tensor], risks: Sequence[str]) -> None:
        """Shift and scale every axis so that these raw scores have mean 0 and deviation 1."""
        for axis, scores in raw.items():
            self.mean[axis] = float(scores.mean())
            deviation = float(scores.std()) if len(scores) > 1 else 0.0
            self.scale[axis] = deviation if deviation > 1e-4 else 1.0
            standard = (scores - self.mean[axis]) / self.scale[axis]
            self.reference[axis] = {}
            for risk in sorted(set(risks)):
                inside = standard[[i for i, r in enumerate(risks) if r == risk]]
                self.reference[axis][risk] = {
                    "mean": float(inside.mean()),
                    "std": float(inside.std()) if len(inside) > 1 else 0.0,
                    "n": len(inside),
                }

    def rescale(self, unit: str) -> None:
        """Score from now on in another unit than "standard": "mean" keeps the mean of 0 on the
        reference's samples and leaves the deviation as it was trained, "raw" keeps neither."""
        for axis in list(self.scale) if unit != "standard" else []:
            scale, shift = self.scale[axis], self.mean[axis] if unit == "raw" else 0.0
            for seen in self.reference.get(axis, {}).values():
                seen["mean"] = seen["mean"] * scale + shift
                seen["std"] *= scale
            self.scale[axis] = 1.0
            self.mean[axis] -= shift

    def combine(
        self, scores: dict[str, Tensor], risks: Sequence[str], *, threshold: float
    ) -> Tensor:
        """One preference score (B,) from those of the axes.

        By Llama 2's rule where safety is one of several: it speaks where the prompt is harmful or
        its score low, and elsewhere the mean of the other axes does, of which helpfulness is often
        the only one. Each is whitened with its mean and deviation on the reference samples that it
        governs there, so that a good refusal and a good answer are worth the same. Without a safety
        axis nothing says which one governs: then it is the mean of all, and of one itself.
        """
        others = [axis for axis in scores if axis != "safety"]
        if "safety" not in scores or not others:
            return torch.stack(list(scores.values())).mean(dim=0)
        harmful = torch.tensor([risk == "harmful" for risk in risks], dtype=torch.bool)
        safe = scores["safety"]
        _, governed = ppo_math.combine_scores(safe, safe, harmful, threshold=threshold)
        rest = torch.stack([self._whiten(scores[axis], axis, "harmless") for axis in others])
        return torch.where(governed, self._whiten(safe, "safety", "harmful"), rest.mean(dim=0))

    def _whiten(self, scores: Tensor, axis: str, risk: str) -> Tensor:
        seen = self.reference.get(axis, {}).get(risk)
        if seen is None or seen["n"] < 8 or seen["std"] < 1e-4:
            return scores
        return (scores - seen["mean"]) / seen["std"]

    def _pack(self, texts: Sequence[Text]) -> tuple[Tensor, Tensor, int, Tensor]:
        """Prompts padded left and responses right: ids, mask, where responses begin, lengths."""
        left = max(len(t.prompt) for t in texts)
        width = left + max(len(t.response) for t in texts)
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(texts), width), pad, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for i, t in enumerate(texts):
            begin, end = left - len(t.prompt), left + len(t.response)
            ids[i, begin:end] = torch.tensor(t.prompt + t.response, dtype=torch.long)
            mask[i, begin:end] = 1
        lengths = torch.tensor([len(t.response) for t in texts], device=self.device)
        return ids.to(self.device), mask.to(self.device), left, lengths


def opinions_in_shares(
    scorer: RewardModel,
    conversations: Sequence[Sequence[Message]],
    texts: Sequence[str],
    group: "Group",
    *,
    batch_size: int,
    standardised: bool,
) -> dict[str, Tensor]:
    """`scorer.opinions` of texts of which each process of a group reads its share: (B, members) for
    each axis, the same in all processes."""
    share = group.share
    said = {axis: torch.zeros(len(texts), scorer.members_of(axis)) for axis in scorer.every_axis}
    if texts[share]:
        mine = scorer.opinions(
            conversations[share], texts[share], batch_size=batch_size, standardised=standardised
        )
        for axis, scores in mine.items():
            said[axis][share] = scores
    return {axis: group.all_reduce(scores) for axis, scores in said.items()}


def _positions(model: Any, mask: Tensor) -> Tensor:
    """The position of every token (B, T) by the mask, counted as the model counts."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0) + architecture.first_position(model)


def _by_length(texts: Sequence[Text], batch_size: int) -> list[list[int]]:
    """Positions of the texts in batches of similar length, which hold little padding."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i].response), len(texts[i].prompt)))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
