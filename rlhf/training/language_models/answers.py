"""How an answer follows a prompt: its first token, the token that ends it, and whether the chat
template agrees.

What is sampled, trained (SFT, DPO, PPO), scored and exported is always

    prompt tokens, then the tokens of the answer, then the token that ends a turn

A chat template also writes whole conversations, and another program may train on those. `form_of`
compares the two once per tokenizer, token by token, and names the first token that differs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.training.data import Message
from rlhf.training.language_models import conversations
from rlhf.training.rundir.errors import InputError

QUESTION: list[Message] = [{"role": "user", "content": "Which color is the sky?"}]
ANSWER = "Blue, when it is clear."


@dataclass(frozen=True)
class AnswerForm:
    """How a tokenizer's answers are written behind a prompt."""

    lead: str = ""
    """What stands between a prompt and the text of its answer: "" or a space."""
    end: int | None = None
    """The token that ends an answer; None if the tokenizer has none."""
    after: str = ""
    """What the chat template writes after that token, before the next turn. No stage trains on it."""
    difference: str = ""
    """The first token at which the chat template's own conversation differs; "" if none does."""

    def encode(self, tokenizer: Any, text: str) -> list[int]:
        """Token ids of an answer, without the token that ends it."""
        return conversations.encode(tokenizer, self._placed(text))

    def encode_all(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of several answers, without the tokens that end them."""
        placed = [self._placed(text) for text in texts]
        return [list(ids) for ids in tokenizer(placed, add_special_tokens=False)["input_ids"]]

    def _placed(self, text: str) -> str:
        return f"{self.lead}{text}" if text else ""


def form_of(tokenizer: Any, *, for_encoder: bool = False) -> AnswerForm:
    """How this tokenizer's answers are written.

    `for_encoder`: the prompt is read by the encoder of an encoder-decoder, so nothing stands before
    the answer.
    """
    end = tokenizer.eos_token_id
    if for_encoder:
        return AnswerForm(end=end)
    prompt = conversations.render(tokenizer, QUESTION)
    if not getattr(tokenizer, "chat_template", None):
        lead = _agreeing_lead(tokenizer, prompt, f"{prompt} {ANSWER}", ("", " "))
        return AnswerForm(lead or "", end)
    turns = [*QUESTION, {"role": "assistant", "content": ANSWER}]
    try:
        whole = conversations.apply_template(tokenizer, turns, add_generation_prompt=False)
    except InputError as error:
        return AnswerForm(end=end, difference=str(error))
    before, answer, after = whole.rpartition(ANSWER)
    if not answer:
        return AnswerForm(
            end=end,
            difference=f"The chat template of {tokenizer.name_or_path!r} changes or drops an answer.",
        )
    in_template = next(
        (i for i in conversations.encode(tokenizer, after) if _is_special(tokenizer, i)), None
    )
    if in_template is not None:
        end = in_template
        after = after.partition(tokenizer.convert_ids_to_tokens(end))[2]
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    leads = ("", between) if between and not between.strip() else ("",)
    lead = _agreeing_lead(tokenizer, prompt, before + ANSWER, leads) or ""
    return AnswerForm(lead, end, after, _difference(tokenizer, prompt, lead, end, whole))


def _is_special(tokenizer: Any, token: int) -> bool:
    """Whether a token is never part of a text: one of the special tokens, or one that was added."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return token in tokenizer.all_special_ids or (token in added and added[token].special)


def _agreeing_lead(tokenizer: Any, prompt: str, whole: str, leads: Sequence[str]) -> str | None:
    """The lead with which the tokens of the prompt and of the answer, each alone, are those of both
    as one text; None if there is none."""
    expected = conversations.encode(tokenizer, whole)
    first = conversations.encode(tokenizer, prompt)
    for lead in leads:
        if first + conversations.encode(tokenizer, lead + ANSWER) == expected:
            return lead
    return None


def _difference(tokenizer: Any, prompt: str, lead: str, end: int | None, whole: str) -> str:
    """A sentence that names the first token at which the template's conversation is not our prompt,
    answer and end; "" if it is."""
    ours = [
        *conversations.encode(tokenizer, prompt),
        *conversations.encode(tokenizer, lead + ANSWER),
        *([] if end is None else [end]),
    ]
    theirs = conversations.encode(tokenizer, whole)
    for place, token in enumerate(ours):
        other = theirs[place] if place < len(theirs) else None
        if token != other:
            written = "nothing" if other is None else repr(tokenizer.convert_ids_to_tokens(other))
            return (
                f"Token {place + 1} of a question with its answer is "
                f"{tokenizer.convert_ids_to_tokens(token)!r} in what is sampled, trained, scored and "
                f"exported, and {written} in a whole conversation by the chat template of "
                f"{tokenizer.name_or_path!r}; models that were trained on the latter may answer worse."
            )
    return ""
