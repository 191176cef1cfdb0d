"""A frozen version's Parquet files as the product writes them, without thirty thousand judgments.

What is unusual comes last: a strength and a margin, texts that look like numbers, dates and formulas, a
conversation of several turns. A reader that decides by the first rows gets these wrong.
"""

from pathlib import Path

from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.exports.schemas import (
    DEMONSTRATION_SCHEMA,
    MARGIN_SCHEMA,
    judgment_schema,
    rating_schema,
)
from annotation.data.preferences import pairs

AXES = ("helpfulness", "safety")
PLAIN = 30_000
MARGIN = 0.1 + 0.2
ODD = ("007", "2026-11-30", "=1+1", "true", "null", "é “quoted” 🌱\n\nsecond line")


def judgment(number, messages, responses, ranks, *, safety=None, annotator="annotator-ada", **more):
    """A row of `preferences.parquet`."""
    return {
        "judgment_id": f"j-{number}",
        "prompt_id": more.pop("prompt_id", f"p-{number}"),
        "annotator": annotator,
        "round": "Round 1",
        "messages": messages,
        "category": "how-to",
        "risk": "harmless",
        "responses": responses,
        "finished": [None] * len(responses),
        "ranks": {"helpfulness": ranks, "safety": safety or ranks},
        "weight": 1.0,
        "strength": dict.fromkeys(AXES),
        "margin": dict.fromkeys(AXES),
        "unranked": "unknown",
        "all_bad": [],
        "reason": "",
    } | more


def ask(text):
    return [{"role": "user", "content": text}]


def plain(number):
    return judgment(number, ask(f"Plant {number}?"), ["Little water.", "Much water."], [1, 2])


def odd():
    """The last judgments."""
    turns = [*ask("Hello"), {"role": "assistant", "content": "Hi."}, *ask("And 007?")]
    both = {"helpfulness": 3, "safety": 3}
    return [
        judgment(
            "odd-1", ask("12"), list(ODD[:2]), [2, 1], safety=[1, 2],
            strength=both, margin=dict.fromkeys(AXES, MARGIN),
        ),
        judgment("odd-2", ask("Which?"), list(ODD[2:6]), [1, 2, 2, 4]),
        judgment("odd-2b", ask("Which?"), list(ODD[2:6]), [2, 1, 3, 4],
                 annotator="annotator-ben", prompt_id="p-odd-2"),
        judgment("odd-3", turns, ["First.", "Second."], [1, 2]),
    ]  # fmt: skip


def rows(n=PLAIN):
    return [*(plain(number) for number in range(n)), *odd()]


def write(path, schema, made):
    Output(path.parent).write_rows(path.name, schema, made)


def frozen_files(folder: Path, n=PLAIN, axis="helpfulness") -> Frozen:
    """The folder of a version with `n` plain judgments and the odd ones."""
    folder.mkdir(parents=True, exist_ok=True)
    judgments = rows(n)
    write(folder / "preferences.parquet", judgment_schema(AXES), judgments)
    for name in AXES:
        made = pairs(judgments, name, margins=True)
        write(folder / f"pairs-{name}.parquet", MARGIN_SCHEMA, made)
    common = ("judgment_id", "prompt_id", "annotator", "round", "messages", "category", "risk")
    votes = [
        {key: row[key] for key in common}
        | {"response": text, "attributes": {"quality": 3}, "safe": safe, "harms": [], "reason": ""}
        for row in judgments[-4:]
        for text, safe in zip(row["responses"], (True, False), strict=False)
    ]
    write(folder / "ratings.parquet", rating_schema(["quality"]), votes)
    written = [
        {key: row[key] for key in common}
        | {"response": text, "kind": "demonstration", "based_on": None, "weight": 1.0}
        for row, text in zip(judgments[-4:], ODD, strict=False)
    ]
    write(folder / "demonstrations.parquet", DEMONSTRATION_SCHEMA, written)
    heldout = [
        {"prompt_id": "h-1", "messages": ask("=2+2"), "category": "007", "risk": "harmless"},
        {"prompt_id": "h-2", "messages": judgments[-1]["messages"], "category": "", "risk": ""},
    ]
    return Frozen(folder, axis, "apollo-v1", heldout)
