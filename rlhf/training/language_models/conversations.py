"""Conversations as the text and the tokens that a model reads."""

from collections.abc import Sequence
from typing import Any

from rlhf.training.data import Message
from rlhf.training.rundir.errors import InputError


def render(tokenizer: Any, messages: Sequence[Message], *, apart: bool = False) -> str:
    """A conversation as the text that a response continues, by the tokenizer's chat template.

    A tokenizer without one (a plain base model) gets named turns. With one exception: an encoder
    that reads prompts `apart` from their responses is given a single user's turn as it stands, as
    T5 (Raffel et al. 2020, section 2.4) and Flan-T5 were trained to read it. `InputError` when the template
    refuses the conversation, or leaves out what the system or the user says: the policy would
    answer, and be judged by, something that it never read.
    """
    if getattr(tokenizer, "chat_template", None):
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
            # An earlier answer may lose its reasoning; that is how such models are used.
            if message["role"] != "assistant" and message["content"].strip() not in text:
                said = " ".join(message["content"].split())[:40]
                raise InputError(
                    f"{where} drops the {message['role']} turn ({said!r}); take a template that "
                    f"keeps it, or prompts without a {message['role']} turn."
                )
        return text
    if apart and [m["role"] for m in messages] == ["user"]:
        return messages[0]["content"]
    turns = "".join(f"{m['role'].capitalize()}: {m['content']}\n\n" for m in messages)
    return f"{turns}Assistant:"


def has_marks_around(tokenizer: Any, *, apart: bool) -> bool:
    """Whether the tokenizer's own marks (T5's </s>, BART's <s> and </s>) go around a prompt: where
    an encoder reads it and no template has put them in."""
    return apart and not getattr(tokenizer, "chat_template", None)


def marks_before(tokenizer: Any) -> list[int]:
    """The tokens that the tokenizer itself puts before a text (a Llama's <s>): a model without chat
    template has hardly seen a text without them. Nothing where a template decides what begins one.
    """
    if getattr(tokenizer, "chat_template", None):
        return []
    text = encode(tokenizer, "a")
    marked = list(tokenizer("a")["input_ids"])
    starts = [i for i in range(len(marked)) if text and marked[i : i + len(text)] == text]
    return marked[: starts[0]] if starts else []


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text as it stands, without special tokens of the tokenizer's own."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
