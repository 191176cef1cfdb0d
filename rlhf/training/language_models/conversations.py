"""Conversations as the text and the tokens that a model reads."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rlhf.training.data import Message
from rlhf.training.rundir.errors import InputError

TEMPLATES_DATE = datetime(2024, 7, 26)
"""The day that a chat template with a date writes (Llama 3's own default). With today's, the same
prompt would be another text tomorrow, and a reward model would score what it never saw."""

_FIXED_DATE = (
    "{%- macro strftime_now(format) -%}"
    + "".join(
        f"{{%- {word} format == '{form}' -%}}{TEMPLATES_DATE.strftime(form)}"
        for word, form in (("if", "%Y-%m-%d"), ("elif", "%B %d, %Y"), ("elif", "%d %B %Y"))
    )
    + "{%- else -%}"
    + TEMPLATES_DATE.strftime("%d %b %Y")
    + "{%- endif -%}{%- endmacro -%}"
)
"""Stands before a template, where it hides the function that knows today's date."""


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
    text = apply_template(tokenizer, messages, add_generation_prompt=True)
    for message in messages:
        # An earlier answer may lose its reasoning; such models are used in this way.
        if message["role"] != "assistant" and message["content"].strip() not in text:
            beginning = " ".join(message["content"].split())[:40]
            raise InputError(
                f"The chat template of {tokenizer.name_or_path!r} drops the {message['role']} turn "
                f"({beginning!r}); take a template that keeps it, or prompts without a "
                f"{message['role']} turn."
            )
    return text


def apply_template(
    tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool
) -> str:
    """A conversation as the tokenizer's chat template writes it; `InputError` where it refuses."""
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                chat_template=_with_fixed_date(tokenizer),
            )
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"The chat template of {tokenizer.name_or_path!r} refuses a conversation of "
            f"{', '.join(m['role'] for m in messages[:4])}: {reason}"
        ) from error


def writes_date(tokenizer: Any) -> bool:
    """Whether the chat template asks for today's date."""
    return "strftime_now" in str(getattr(tokenizer, "chat_template", None) or "")


def _with_fixed_date(tokenizer: Any) -> str | None:
    """The chat template with TEMPLATES_DATE in place of today's; None for the tokenizer's own."""
    if not writes_date(tokenizer):
        return None
    template: str = tokenizer.get_chat_template()
    return f"{_FIXED_DATE}{template}"


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
