"""Message lists: checked, read from transcripts, cut at the user's last turn, and as a prompt."""

import re
from typing import Any

from annotation.data.import_formats import fields
from annotation.data.import_formats.fields import checked_text, label, require
from annotation.data.import_formats.report import ImportReport, PromptItem, Row, RowError
from annotation.models import Message, Prompt, content_hash

MAX_MESSAGES = 200
ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "developer": "system",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}
TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \t]?")


def checked_messages(value: Any, what: str) -> list[Message]:
    """A checked message list; roles by their usual names."""
    require(value, what)
    if not isinstance(value, list) or not value:
        raise RowError(f"{what} is not a list of messages.")
    if len(value) > MAX_MESSAGES:
        raise RowError(f"{what} has {len(value)} messages; the limit is {MAX_MESSAGES}.")
    messages: list[Message] = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise RowError(f"message {number} of {what} is not an object with role and content.")
        role = _role(message.get("role", message.get("from")), number, what)
        content = message.get("content", message.get("value"))
        if isinstance(content, list):  # parts, as in multimodal data
            content = _joined_parts(content, number, what)
        text = checked_text(
            content, f"the content of message {number} of {what}", may_be_empty=True
        )
        messages.append({"role": role, "content": text})
    return messages


def _role(value: Any, number: int, what: str) -> str:
    name = value.strip().lower() if isinstance(value, str) else ""
    if name in ROLES:
        return ROLES[name]
    if name:
        raise RowError(
            f"message {number} of {what} has the role {name[:30]}, which is not read yet; "
            "user, assistant and system are."
        )
    raise RowError(f"message {number} of {what} has no role user, assistant or system.")


def _joined_parts(parts: list[Any], number: int, what: str) -> str:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise RowError(f"message {number} of {what} contains a part that is not text.")
    return "".join(str(part.get("text", "")) for part in parts)


def transcript(value: Any, what: str) -> list[Message]:
    r"""Turns of Anthropic's `\n\nHuman: … \n\nAssistant: …` transcripts."""
    text = checked_text(value, what)
    pieces = TURN.split(text)
    if pieces[0].strip() or len(pieces) < 3:
        raise RowError(f'{what} is not a transcript: it does not start with "Human:".')
    return [
        {"role": ROLES[speaker.lower()], "content": content.strip()}
        for speaker, content in zip(pieces[1::2], pieces[2::2], strict=True)
    ]


def until_last_user_turn(messages: list[Message]) -> list[Message]:
    """The conversation up to the user's last message, which may not be empty."""
    end = len(messages)
    while end and messages[end - 1]["role"] != "user":
        end -= 1
    if not end:
        raise RowError("the conversation has no message of the user.")
    if not messages[end - 1]["content"].strip():
        raise RowError("the user's last message is empty.")
    return messages[:end]


def shared_beginning(first: list[Message], second: list[Message]) -> list[Message]:
    """The turns that two conversations share from the start."""
    shared = []
    for message, other in zip(first, second, strict=False):
        if message != other:
            break
        shared.append(message)
    return shared


def prompt_of_texts(row: Row, text: str) -> list[Message]:
    """A prompt given as text, with what other columns of its row add to it.

    `input` or `context` follow the text, as in instruction data; `history` are earlier turns, each a
    pair of the user's message and the assistant's; `system` comes first.
    """
    for key in ("input", "context"):
        if addition := checked_text(row.get(key) or "", key, may_be_empty=True).strip():
            text = checked_text(f"{text}\n\n{addition}", "the prompt")
    messages: list[Message] = []
    history = row.get("history") or []
    if not isinstance(history, list) or any(
        not isinstance(turn, list) or len(turn) != 2 for turn in history
    ):
        raise RowError("history is not a list of pairs: a message of the user, a response.")
    for turn in history:
        for role, content in zip(("user", "assistant"), turn, strict=True):
            content = checked_text(content, "a message of history", may_be_empty=True)
            messages.append({"role": role, "content": content})
    return with_system(row, [*messages, {"role": "user", "content": text}])


def with_system(row: Row, messages: list[Message]) -> list[Message]:
    """The messages after the system message of the row's column `system`, if it has one."""
    system = checked_text(row.get("system") or "", "system", may_be_empty=True)
    if not system.strip():
        return messages
    if messages and messages[0]["role"] == "system":
        raise RowError("the system message is given twice: in its column and in the messages.")
    return [{"role": "system", "content": system}, *messages]


def prompt_item(row: Row, messages: list[Message], report: ImportReport) -> PromptItem:
    """The prompt, with the row's category, risk, split, id, skill and priority."""
    if len(messages) > MAX_MESSAGES:
        raise RowError(
            f"the conversation has {len(messages)} messages; the limit is {MAX_MESSAGES}."
        )
    category = label(row.get("category"), "category", 60)
    risk = label(row.get("risk"), "risk", 8).lower()
    if risk not in Prompt.Risk.values:
        raise RowError(f"risk is harmless, harmful or empty, not {risk!r}.")
    split = fields.split(row.get("split"))
    row_id = next((row[key] for key in fields.ID_KEYS if row.get(key) not in (None, "")), "")
    prompt = until_last_user_turn(messages)
    if len(prompt) < len(messages):
        report.notes["the response after the user's last turn was dropped from the prompt"] += 1
    return PromptItem(
        messages=prompt,
        sha256=content_hash(prompt),
        category=category,
        risk=risk,
        split=split,
        external_id=checked_text(str(row_id), "the id", may_be_empty=True)[:120],
        skill=label(row.get("skill"), "skill", 40).lower(),
        priority=fields.priority(row.get("priority")),
    )
