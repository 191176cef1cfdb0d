"""The inputs of the stages, read from the run folder and checked: prompts, texts, rankings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.training.rundir import DATA
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_jsonl

Message = dict[str, str]

RISKS = ("harmless", "harmful", "")

BELOW = 1_000
"""The rank of the responses that a top-k ranking leaves out: below every other rank. Used in memory
only."""


@dataclass(frozen=True)
class Prompt:
    """One conversation that ends with the user's turn."""

    prompt_id: str
    messages: list[Message]
    category: str = ""
    risk: str = ""


@dataclass(frozen=True)
class Judgment:
    """One person's judgment of the K responses to one prompt; `ranks` as in docs/formats.md."""

    prompt: Prompt
    annotator: str
    responses: tuple[str, ...]
    ranks: dict[str, tuple[int | None, ...]]
    weight: float = 1.0
    round: str = ""
    strength: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Per axis, for pairs: how much better the preferred response is, and the margin of this
    strength."""


@dataclass(frozen=True)
class Comparison:
    """The responses to one prompt that people may be asked to compare.

    `age` is how many policies are newer than the one that wrote them.
    """

    comparison_id: str
    messages: list[Message]
    responses: tuple[str, ...]
    age: int = 0


def read_prompts(run_dir: Path, name: str = "prompts") -> list[Prompt]:
    """The prompts of `data/<name>.jsonl`; `InputError` when there are none."""
    path = run_dir / DATA / f"{name}.jsonl"
    prompts = [
        _prompt(row, f"data/{path.name} line {n}")
        for n, row in enumerate(read_jsonl(path, required=("prompt_id", "messages")), start=1)
    ]
    if not prompts:
        raise InputError(f"data/{path.name} has no prompts; give at least one.")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.prompt_id in seen:
            raise InputError(f"data/{path.name} has prompt_id {prompt.prompt_id!r} twice.")
        seen.add(prompt.prompt_id)
    return prompts


def read_comparisons(run_dir: Path) -> list[Comparison]:
    """The rows of `data/comparisons.jsonl`; `InputError` when there are none."""
    path = run_dir / DATA / "comparisons.jsonl"
    comparisons = []
    rows = read_jsonl(path, required=("comparison_id", "messages", "responses"))
    for number, row in enumerate(rows, start=1):
        where = f"data/{path.name} line {number}"
        responses, age = row["responses"], row.get("age", 0)
        if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
            raise InputError(f"{where}: responses must be a list of texts.")
        if type(age) is not int or age < 0:
            raise InputError(f"{where}: age must be a whole number, 0 or more, got {age!r}.")
        prompt = _prompt({"prompt_id": row["comparison_id"]} | row, where)
        comparisons.append(
            Comparison(str(prompt.prompt_id), prompt.messages, tuple(responses), age)
        )
    if not comparisons:
        raise InputError(f"data/{path.name} has no comparisons; give at least one.")
    return comparisons


def read_texts(run_dir: Path, name: str) -> list[tuple[Prompt, str]]:
    """Prompts with one response each (`data/reference.jsonl`)."""
    path = run_dir / DATA / f"{name}.jsonl"
    texts = []
    rows = read_jsonl(path, required=("prompt_id", "messages", "text"))
    for number, row in enumerate(rows, start=1):
        where = f"data/{path.name} line {number}"
        if not isinstance(row["text"], str):
            raise InputError(f"{where}: text must be a text, got {row['text']!r}.")
        texts.append((_prompt(row, where), row["text"]))
    if not texts:
        raise InputError(f"data/{path.name} has no texts; give samples of the starting policy.")
    return texts


def read_demonstrations(run_dir: Path) -> list[tuple[Prompt, str]]:
    """Conversations with the answer that should be given (`data/demonstrations.jsonl`)."""
    path = run_dir / DATA / "demonstrations.jsonl"
    demonstrations = []
    for number, row in enumerate(read_jsonl(path, required=("messages", "response")), start=1):
        where = f"data/{path.name} line {number}"
        response = row["response"]
        if not isinstance(response, str) or not response.strip():
            raise InputError(f"{where}: response must be text that isn't empty.")
        demonstrations.append((_prompt({"prompt_id": f"line {number}"} | row, where), response))
    if not demonstrations:
        raise InputError(f"data/{path.name} has no demonstrations; write or correct some answers.")
    return demonstrations


def read_ptx(run_dir: Path) -> list[tuple[Prompt | None, str]]:
    """The texts of PPO-ptx (`data/ptx.jsonl`): each line is a conversation with its `response`, or a
    `text` alone, whose prompt is None."""
    path = run_dir / DATA / "ptx.jsonl"
    if not path.exists():
        raise InputError(
            "ptx.weight needs data/ptx.jsonl, which is missing; put demonstrations or texts there, or "
            "set ptx.weight to 0."
        )
    examples: list[tuple[Prompt | None, str]] = []
    for number, row in enumerate(read_jsonl(path), start=1):
        where = f"data/{path.name} line {number}"
        is_text = "messages" not in row
        text = row.get("text" if is_text else "response")
        if not isinstance(text, str) or not text.strip():
            raise InputError(
                f"{where} needs messages and a response, or a text, none of them empty."
            )
        prompt = None if is_text else _prompt({"prompt_id": f"line {number}"} | row, where)
        examples.append((prompt, text))
    if not examples:
        raise InputError("data/ptx.jsonl is empty; put demonstrations or texts there.")
    return examples


def read_judgments(run_dir: Path, axes: Sequence[str]) -> list[Judgment]:
    """The judgments of `data/preferences.jsonl`, each checked against its responses."""
    path = run_dir / DATA / "preferences.jsonl"
    judgments = list(_judgments(path, axes))
    if not judgments:
        raise InputError("data/preferences.jsonl has no judgments; rank some responses first.")
    for axis in axes:
        if not any(_decides(j, axis) for j in judgments):
            others = " and ".join(a for a in axes if any(_decides(j, a) for j in judgments))
            raise InputError(
                f"No ranking of data/preferences.jsonl prefers one response to another on {axis}; "
                "rank more responses, or "
                + (f"set axes to {others}." if others else f"check that its ranks name {axis}.")
            )
    return judgments


def _decides(judgment: Judgment, axis: str) -> bool:
    # Ties, and different ranks of identical texts, express no preference.
    ranked = zip(judgment.ranks.get(axis, ()), judgment.responses, strict=False)
    ranked_texts = {(rank, text) for rank, text in ranked if rank is not None}
    return (
        len({rank for rank, _ in ranked_texts}) > 1 and len({text for _, text in ranked_texts}) > 1
    )


def _judgments(path: Path, axes: Sequence[str]) -> Iterator[Judgment]:
    required = ("prompt_id", "messages", "responses", "ranks")
    for number, row in enumerate(read_jsonl(path, required=required), start=1):
        where = f"data/{path.name} line {number}"
        responses = row["responses"]
        if (
            not isinstance(responses, list)
            or len(responses) < 2
            or not all(isinstance(text, str) for text in responses)
        ):
            raise InputError(f"{where}: responses must be a list of at least two texts.")
        if not isinstance(row["ranks"], dict):
            raise InputError(f"{where}: ranks must map each axis to one rank per response.")
        ranks = {}
        for axis in axes:
            ranks_of_axis = row["ranks"].get(axis)
            if ranks_of_axis is None:  # the annotator did not rank on this axis
                continue
            if not isinstance(ranks_of_axis, list) or len(ranks_of_axis) != len(responses):
                raise InputError(
                    f"{where}: ranks.{axis} must hold one rank for each of the "
                    f"{len(responses)} responses."
                )
            # pandas writes a column of whole numbers with gaps as 1.0, 2.0, null.
            ranks_of_axis = [
                int(r) if isinstance(r, float) and r.is_integer() else r for r in ranks_of_axis
            ]
            if any(r is not None and type(r) is not int for r in ranks_of_axis):
                raise InputError(f"{where}: ranks.{axis} must be whole numbers or null.")
            if row.get("unranked") == "below" and any(rank is not None for rank in ranks_of_axis):
                # A top-k ranking: the other responses are worse, in no order.
                ranks_of_axis = [BELOW if rank is None else rank for rank in ranks_of_axis]
            ranks[axis] = tuple(ranks_of_axis)
        weight = row.get("weight", 1.0)
        if type(weight) not in (int, float) or not 0 <= weight < float("inf"):
            raise InputError(f"{where}: weight must be 0 or more, got {weight!r}.")
        yield Judgment(
            prompt=_prompt(row, where),
            annotator=str(row.get("annotator", "")),
            responses=tuple(responses),
            ranks=ranks,
            weight=float(weight),
            round="" if row.get("round") is None else str(row["round"]),
            strength=_strength(row.get("strength") or {}, row.get("margin") or {}, where),
        )


def _strength(levels: Any, margins: Any, where: str) -> dict[str, tuple[str, float]]:
    """Per axis where a strength was chosen: its level in words, and the margin it stands for."""
    if not isinstance(levels, dict) or not isinstance(margins, dict):
        raise InputError(f"{where}: strength and margin must map an axis to a number or null.")
    strengths = {}
    for axis, level in levels.items():
        margin = margins.get(axis)
        if level is None or margin is None:
            continue
        if type(margin) not in (int, float) or not 0 <= margin < float("inf"):
            raise InputError(f"{where}: margin.{axis} must be 0 or more, got {margin!r}.")
        strengths[str(axis)] = (f"strength {level}", float(margin))
    return strengths


def _prompt(row: dict[str, Any], where: str) -> Prompt:
    messages = row["messages"]
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{where}: messages must be a list that ends with the user's turn.")
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise InputError(f"{where}: every message needs a role and a text as content.")
        if message.get("role") not in ("system", "user", "assistant"):
            raise InputError(f"{where}: a message's role is system, user or assistant.")
    if messages[-1]["role"] != "user":
        raise InputError(f"{where}: messages must end with the user's turn.")
    risk = row.get("risk") or ""
    if risk not in RISKS:
        raise InputError(f"{where}: risk is harmless, harmful or empty, got {risk!r}.")
    return Prompt(str(row["prompt_id"]), messages, str(row.get("category") or ""), risk)
