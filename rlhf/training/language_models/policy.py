"""A policy: a language model with its tokenizer, from prompts to token ids and hidden states."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from rlhf.training import architecture, forward_pass, packing
from rlhf.training.data import Message
from rlhf.training.language_models import answers, conversations
from rlhf.training.language_models.adapters import load_merged
from rlhf.training.language_models.pretrained import (
    check_vocabulary,
    context_length,
    disable_dropout,
    stop_tokens,
)
from rlhf.training.rundir import log
from rlhf.training.rundir.errors import InputError


class PromptLike(Protocol):
    """The fields of a prompt that a policy reads."""

    @property
    def prompt_id(self) -> str: ...
    @property
    def messages(self) -> list[Message]: ...


P = TypeVar("P", bound=PromptLike)


@dataclass
class Policy:
    """A language model with its tokenizer.

    Either decoder-only, or an encoder-decoder (T5, BART), whose encoder reads the prompt and whose
    decoder begins with a start token, which is not part of the response.
    """

    model: Any
    tokenizer: Any
    stop_ids: list[int]
    pad_id: int
    context: int
    lora: bool = False
    share_rows: bool = False
    """Whether several short sequences may share a row of a batch."""
    form: answers.AnswerForm = field(default_factory=answers.AnswerForm)
    """How an answer is written behind a prompt."""

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def encoder_decoder(self) -> bool:
        return architecture.is_encoder_decoder(self.model)

    @property
    def hidden_size(self) -> int:
        return self.model.get_input_embeddings().embedding_dim

    def encode_prompt(self, messages: Sequence[Message], where: str, *, room: int) -> list[int]:
        """Token ids of a conversation up to where the response begins.

        `InputError` when `room` more tokens don't fit into the context.
        """
        ids = self.prompt_ids(messages)
        if not ids:
            raise InputError(f"Prompt {where} has no text that the tokenizer knows.")
        if not self.fits(len(ids), room):
            raise InputError(
                f"Prompt {where} has {len(ids)} tokens, which with {room} for the response is more "
                f"than the model's context of {self.context}"
                + (" each" if self.encoder_decoder else "")
                + "; shorten or leave out the prompt."
            )
        return ids

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation, whether they fit or not."""
        text = self.render(messages)
        if conversations.takes_special_tokens(self.tokenizer, for_encoder=self.encoder_decoder):
            return list(self.tokenizer(text)["input_ids"])
        return [
            *conversations.leading_special_tokens(self.tokenizer),
            *conversations.encode(self.tokenizer, text),
        ]

    def render(self, messages: Sequence[Message]) -> str:
        """A conversation as the text that the response follows."""
        return conversations.render(self.tokenizer, messages, for_encoder=self.encoder_decoder)

    def fits(self, prompt: int, room: int) -> bool:
        """Whether `prompt` and `room` tokens fit into the context: together, or in an encoder-decoder
        each alone."""
        longest = max(prompt, room) if self.encoder_decoder else prompt + room
        return longest <= self.context

    def encode_unless_left_out(
        self, prompt: PromptLike, *, room: int, long_prompts: str
    ) -> list[int] | None:
        """Token ids of a prompt, or None where it does not fit and `long_prompts` is "leave_out"."""
        try:
            return self.encode_prompt(prompt.messages, prompt.prompt_id, room=room)
        except InputError as error:
            if long_prompts == "refuse":
                raise
            log.warning(f"left out: {error}")
            return None

    def encode_fitting(
        self, prompts: Sequence[P], *, room: int, long_prompts: str
    ) -> tuple[list[P], list[list[int]]]:
        """The prompts that leave `room` tokens for a response, and their token ids.

        `long_prompts` "refuse": `InputError` for the first prompt that doesn't fit. "leave_out":
        prints the omitted prompts, and raises only if no prompt is left.
        """
        kept: list[P] = []
        encoded: list[list[int]] = []
        reason: InputError | None = None
        for prompt in prompts:
            try:
                ids = self.encode_prompt(prompt.messages, prompt.prompt_id, room=room)
            except InputError as error:
                if long_prompts == "refuse":
                    raise
                reason = error
                log.warning(f"left out: {error}")
                continue
            kept.append(prompt)
            encoded.append(ids)
        if reason is not None and not kept:
            raise InputError(f"No prompt fits the model's context; the last: {reason}")
        return kept, encoded

    def encode_response(self, text: str) -> list[int]:
        """Token ids of a response and of the token that ends it."""
        end = self.stop_ids[0] if self.form.end is None else self.form.end
        return [*self.form.encode(self.tokenizer, text), end]

    def refuse_encoder_decoder(self, who: str) -> None:
        """`InputError` if it is an encoder-decoder; `who` names what takes decoder-only models."""
        if self.encoder_decoder:
            raise InputError(
                f"The policy is an encoder-decoder ({type(architecture.unwrap_model(self.model)).__name__}), "
                f"and {who} takes decoder-only models; use a decoder-only policy, or our PPO."
            )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of response tokens, without the stop token."""
        kept = tokens[:-1] if tokens and tokens[-1] in self.stop_ids else tokens
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def read(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> tuple[packing.Packed, Tensor]:
        """One forward pass over prompts and responses: the layout of the N response tokens, and the
        last hidden state (N, H) before each of them."""
        packed = self.pack(prompts, responses)
        return packed, forward_pass.hidden_states(self.model, packed)

    def pack(
        self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
    ) -> packing.Packed:
        """Prompts and responses as the rows of one batch."""
        if self.encoder_decoder:
            start_id = architecture.unwrap_model(self.model).config.decoder_start_token_id
            return packing.pack_encoder_decoder(
                prompts, responses, pad_id=self.pad_id, start_id=start_id, device=self.device
            )
        return packing.pack(
            prompts,
            responses,
            pad_id=self.pad_id,
            device=self.device,
            share_rows=self.share_rows,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., H) to logits (..., V)."""
        return forward_pass.logits(self.model, hidden)

    @contextlib.contextmanager
    def adapters_off(self) -> Iterator[None]:
        """The policy as it was before its LoRA adapters: the reference, at no extra memory."""
        with self.model.disable_adapter():
            yield


def load_policy(
    name: str, what: str, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Policy:
    """A language model and its tokenizer, in eval mode on `device`.

    `what` names the model's purpose in errors. A folder of LoRA adapters is loaded with its base
    model and merged into it. Prints where the chat template writes an answer's tokens differently.
    """
    model, tokenizer = load_merged(name, what, dtype=dtype)
    check_vocabulary(model, tokenizer, name, what)
    disable_dropout(model)
    form = answers.form_of(tokenizer, for_encoder=architecture.is_encoder_decoder(model))
    if form.difference:
        log.warning(form.difference)
    stop_ids = stop_tokens(model, tokenizer, name, also=form.end)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    policy = Policy(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        stop_ids=stop_ids,
        pad_id=pad_id,
        context=context_length(model),
        form=form,
    )
    if not forward_pass.has_known_head(policy.model):
        raise InputError(
            f"The {what} {name!r} is a {type(policy.model).__name__}, whose output head does more "
            "than a matrix, a scale and a soft cap; PPO and sampling can't read it yet."
        )
    policy.share_rows = forward_pass.can_share_rows(architecture.trunk_of(policy.model))
    return policy


def add_lora(policy: Policy, *, rank: int, alpha: float) -> None:
    """Put LoRA adapters (Hu et al. 2021) on every linear layer; only they are trained then."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float works, and small ranks need one
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="SEQ_2_SEQ_LM" if policy.encoder_decoder else "CAUSAL_LM",
    )
    policy.model = get_peft_model(policy.model, settings).eval()
    policy.lora = True
