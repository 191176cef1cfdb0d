"""Rankings as tasks and records of annotation tools: Label Studio and Argilla."""

import uuid
from collections.abc import Iterator
from itertools import combinations, count, groupby
from typing import Any

import pyarrow.compute as pc

from annotation.data.exports.frozen import Frozen, value_of
from annotation.data.exports.output import Output
from annotation.data.exports.writers import Row

COLUMNS = ["judgment_id", "prompt_id", "annotator", "messages", "responses", "ranks"]
LABELING_CONFIG = """<View>
  <Paragraphs name="conversation" value="$messages" layout="dialogue" nameKey="role" textKey="content"/>
  <Header value="Which response is better?"/>
  <Pairwise name="better" toName="response_a,response_b"/>
  <Text name="response_a" value="$response_a"/>
  <Text name="response_b" value="$response_b"/>
</View>
"""
# Argilla identifies people by UUID; ours have pseudonyms, and the same one is always the same UUID.
PEOPLE = uuid.UUID("5f0f0a4e-6a1b-5a64-9b0e-7f6d3c1c2b10")


def _comparisons(frozen: Frozen, name: str) -> Iterator[list[Row]]:
    """The judgments of each comparison, which follow one another in the file."""
    rows = frozen.rows(name, COLUMNS)
    for _, group in groupby(rows, key=lambda row: (row["prompt_id"], row["responses"])):
        yield list(group)


def label_studio(frozen: Frozen, name: str, output: Output) -> None:
    """Tasks for `Pairwise`, one for each two responses, with an annotation for each vote.

    Sides are those of the stored responses, so neither side is the better one more often by
    construction. `Pairwise` has no tie: ties are left out. Annotations name no account, because Label
    Studio refuses accounts that it does not have; the pseudonym is in the result's `meta`.
    """

    # Label Studio numbers tasks and annotations by itself; its converter wants numbers in a file too.
    task_ids, annotation_ids = count(1), count(1)

    def tasks() -> Iterator[Any]:
        for votes in _comparisons(frozen, name):
            first = votes[0]
            for left, right in combinations(range(len(first["responses"])), 2):
                annotations = [
                    {"id": next(annotation_ids), **annotation}
                    for annotation in _annotations(votes, frozen.axis, left, right, output)
                ]
                if annotations:
                    yield {
                        "id": next(task_ids),
                        "data": {
                            "messages": first["messages"],
                            "response_a": first["responses"][left],
                            "response_b": first["responses"][right],
                        },
                        "meta": {"prompt_id": first["prompt_id"]},
                        "annotations": annotations,
                    }

    output.write_array("tasks.json", tasks())
    output.write_text("labeling_config.xml", LABELING_CONFIG)


def _annotations(
    votes: list[Row], axis: str, left: int, right: int, output: Output
) -> Iterator[dict[str, Any]]:
    for vote in votes:
        ranks = value_of(vote["ranks"], axis) or ()
        a, b = (ranks[side] if side < len(ranks) else None for side in (left, right))
        if a is None or b is None:
            continue
        if a == b:
            output.left_out["a tie"] += 1
            continue
        yield {
            "was_cancelled": False,
            "result": [
                {
                    "id": f"{vote['judgment_id']}-{left}-{right}",
                    "from_name": "better",
                    "to_name": "better",
                    "type": "pairwise",
                    "value": {"selected": "left" if a < b else "right"},
                    "meta": {"annotator": vote["annotator"]},
                }
            ],
        }


def argilla(frozen: Frozen, name: str, output: Output) -> None:
    """What `argilla.Dataset.from_disk` opens: settings, and a record for each comparison.

    Argilla wants every option of a ranking in each submitted answer, so judgments that leave a
    response unranked, and comparisons of fewer responses, are left out. An answer belongs to a
    user of the server: make users with these ids, or delete `responses`, before it is sent there.
    """
    lengths = pc.list_value_length(frozen.column(name, "responses"))
    n_responses = pc.max(lengths).as_py() or 0
    fields = [f"response_{number}" for number in range(1, n_responses + 1)]

    def records() -> Iterator[Any]:
        for votes in _comparisons(frozen, name):
            first = votes[0]
            answers = []
            for vote in votes:
                ranks = value_of(vote["ranks"], frozen.axis) or ()
                if len(ranks) < n_responses or any(rank is None for rank in ranks):
                    output.left_out["a judgment that does not rank every response"] += 1
                    continue
                answers.append(
                    {
                        "value": [
                            {"value": field, "rank": rank}
                            for field, rank in zip(fields, ranks, strict=True)
                        ],
                        "user_id": str(uuid.uuid5(PEOPLE, vote["annotator"])),
                        "status": "submitted",
                    }
                )
            if answers:
                yield {
                    "id": first["judgment_id"],
                    "fields": {
                        "prompt": first["messages"],
                        **dict(zip(fields, first["responses"], strict=True)),
                    },
                    "metadata": {"prompt_id": first["prompt_id"]},
                    "suggestions": {},
                    "responses": {frozen.axis: answers},
                    "vectors": {},
                }

    output.write_array("records.json", records())
    output.write_json(".argilla/settings.json", _settings(frozen, fields))
    dataset = {"name": frozen.title, "status": "draft", "allow_extra_metadata": True}
    output.write_json(".argilla/dataset.json", dataset)


def _settings(frozen: Frozen, fields: list[str]) -> dict[str, Any]:
    titles = {field: field.replace("_", " ").capitalize() for field in fields}
    return {
        "guidelines": None,
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
        "fields": [
            _field("prompt", "Prompt", {"type": "chat", "use_markdown": False}),
            *(
                _field(field, title, {"type": "text", "use_markdown": False})
                for field, title in titles.items()
            ),
        ],
        "questions": [
            _field(
                frozen.axis,
                frozen.axis.capitalize(),
                {
                    "type": "ranking",
                    "options": [{"value": field, "text": title} for field, title in titles.items()],
                },
            )
        ],
        "metadata": [],
        "vectors": [],
    }


def _field(name: str, title: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "description": None,
        "required": True,
        "settings": settings,
        "type": settings["type"],
    }
