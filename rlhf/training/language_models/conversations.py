"""Conversations as the text and the tokens that a model reads."""

from collections.abc import Sequence
from typing import Any

from rlhf.training.data import Message
from rlhf.training.rundir.errors import InputError


def render(tokenizer: Any, messages: Sequence[Message], *, for_encoder: bool = False) -> str:
    """A conversation as the text that a response continues, by the tokenizer's chat template.

    Without a template (a plain base model) turns are named. One exception: the encoder of an
    encoder-decoder gets a single user's turn unchanged, as T5 (Raffel et al. 2020, section 2.4) and
    Flan-T5 were trained. `InputError` when the template refuses the conversation, or drops a turn of
    the system or the user: the policy would answer a prompt that it never read.
    """
    if getattr(tokenizer, "chat_template", None):
        return _render_by_template(tokenizer, messages)
    if for_encoder and [m["role"] for m in messages] == ["user"]:
        return messages[0]["content"]
    turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages)
    return f"{turns}Assistant:"


def _render_by_template(tokenizer: Any, messages: Sequence[Message]) -> str:
    where = f"The chat template of {tokenizer.name_or_path!r}"
    try:
        text = str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where} refuses a conversation: {reason}") from error
    for message in messages:
        # An earlier answer may lose its reasoning; such models are used in this way.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            beginning = " ".join(message["content"].split())[:40]
            raise InputError(
                f"{where} drops the {message['role']} turn ({beginning!r}); take a template that "
                f"keeps it, or prompts without a {message['role']} turn."
            )
    return text


def takes_special_tokens(tokenizer: Any, *, for_encoder: bool) -> bool:
    """Whether the tokenizer adds its special tokens to a prompt (T5's </s>, BART's <s> and </s>):
    for an encoder, unless a template has put them in."""
    return for_encoder and not getattr(tokenizer, "chat_template", None)


def leading_special_tokens(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer puts before a text (Llama's <s>), which a model without chat
    template was trained with. None if a template decides how a text begins.
    """
    if getattr(tokenizer, "chat_template", None):
        return []
    text = encode(tokenizer, "a")
    with_special = list(tokenizer("a")["input_ids"])
    starts = [
        i for i in range(len(with_special)) if text and with_special[i : i + len(text)] == text
    ]
    return with_special[: starts[0]] if starts else []


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, without special tokens."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
