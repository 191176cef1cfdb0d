"""Ratings of single responses and written answers (demonstrations), as rows.

They come from the same judgments as `preferences`, under the same rules of what training may see.
docs/formats.md names the fields.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Q

from annotation.data.admission import admitted
from annotation.data.preferences import CHUNK, Origin, Row, annotator_id, judgments_of, round_label
from annotation.models import Batch, Judgment, Project, Response, User
from annotation.protocols import DEMONSTRATE, REWRITE

DEMONSTRATION, CORRECTION, BETTER = "demonstration", "correction", "better_answer"

SFT_FIELDS = ("prompt_id", "annotator", "messages", "response")

WRITTEN = ~Q(rewrite="")
RATED = ~Q(ratings={}) | ~Q(safety={})


class ResponseRow(NamedTuple):
    """One row about a single response: its file ("ratings" or "demonstrations") and its origin."""

    file: str
    origin: Origin
    row: Row
    is_first: bool
    """Whether it is the first row of a judgment without ranks: so each such judgment counts once."""


def response_rows(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
    adjudicated: bool = True,
    until: datetime | None = None,
    filters: Collection[str] = (),
) -> Iterator[ResponseRow]:
    """Every rating and every written answer of the judgments that count, in their order.

    A rating is one response as one person saw it. A written answer is a demonstration: the ideal
    answer, the correction of a response, or the better answer written in addition to a comparison.
    Where a reviewer ruled, only the ruling is there; without `adjudicated` the votes as well, and
    each row's origin says which it is. `until` leaves out what was written later, `filters`
    leave out rows in addition to those that exclude in the project.
    """
    judgments = judgments_of(project, batches=batches, adjudicated=adjudicated)
    if only_trainable:
        judgments = admitted(project, judgments, filters)
    if until is not None:
        judgments = judgments.filter(created_at__lte=until)
    ids = list(
        judgments.filter(WRITTEN | RATED)
        .order_by("assignment__comparison_id", "pk")
        .values_list("pk", flat=True)
    )
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        by_pk = {
            judgment.pk: judgment
            for judgment in Judgment.objects.filter(pk__in=chunk).select_related(
                "assignment__annotator",
                "assignment__comparison__prompt",
                "assignment__comparison__batch",
            )
        }
        texts = _texts(by_pk.values())
        for pk in chunk:
            batch = by_pk[pk].assignment.comparison.batch
            yield from _rows_of(project, by_pk[pk], round_label(batch, rounds), texts)


def rating_rows(project: Project, *, batches: Iterable[Batch] | None = None) -> Iterator[Row]:
    """The annotators' ratings of every prompt, without reviewers' rulings: for agreement.

    The rankings for the same purpose are `preference_rows(…, only_trainable=False,
    adjudicated=False)`.
    """
    for row in response_rows(project, batches=batches, only_trainable=False, adjudicated=False):
        if row.file == "ratings" and not row.origin.is_ruling:
            yield row.row


def demonstrations(
    project: Project, *, only_trainable: bool = True, until: datetime | None = None
) -> Iterator[Row]:
    """Every answer that people wrote, as supervised fine-tuning reads them: docs/formats.md, `sft`."""
    for row in response_rows(project, only_trainable=only_trainable, until=until):
        if row.file == "demonstrations":
            yield {name: row.row[name] for name in SFT_FIELDS}


def attributes_of(project: Project) -> list[str]:
    """Keys of every attribute that responses were rated on in this project, in order of first use."""
    protocols = [
        project.effective_protocol,
        *(batch.effective_protocol for batch in project.batches.order_by("pk")),
    ]
    attributes = [attribute for protocol in protocols for attribute in protocol.attributes]
    return list(dict.fromkeys(attribute.key for attribute in attributes))


def _texts(judgments: Iterable[Judgment]) -> dict[str, str]:
    """The text of every response that these judgments were about, by its id."""
    comparisons = {judgment.assignment.comparison_id for judgment in judgments}
    responses = Response.objects.filter(comparison__in=comparisons).values_list("pk", "text")
    return {str(pk): text for pk, text in responses}


def _rows_of(
    project: Project, judgment: Judgment, label: str, texts: dict[str, str]
) -> Iterator[ResponseRow]:
    comparison, annotator = judgment.assignment.comparison, judgment.assignment.annotator
    prompt, batch = comparison.prompt, comparison.batch
    assert isinstance(annotator, User)
    sources = (prompt.source_id, batch.source_id)
    is_ruling = judgment.assignment.is_ruling
    origin = Origin(
        batch.pk,
        frozenset(source for source in sources if source is not None),
        is_ruling=is_ruling,
        is_overruled=comparison.is_ruled and not is_ruling,
    )
    common = {
        "judgment_id": str(judgment.uid),
        "prompt_id": str(prompt.uid),
        "annotator": annotator_id(
            project, annotator, is_imported=batch.is_imported, is_ruling=is_ruling
        ),
        "round": label,
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
    }
    is_first = not judgment.ranks
    for pk in sorted({*judgment.ratings, *judgment.safety}, key=int):
        if pk not in texts:
            continue
        safety = judgment.safety.get(pk)
        rating = {
            "response": texts[pk],
            "attributes": judgment.ratings.get(pk, {}),
            "safe": safety["safe"] if safety else None,
            "harms": safety["harms"] if safety else [],
            "reason": judgment.reason,
        }
        yield ResponseRow("ratings", origin, {**common, **rating}, is_first)
        is_first = False
    if judgment.rewrite.strip():
        kinds = {DEMONSTRATE: DEMONSTRATION, REWRITE: CORRECTION}
        based_on = str(judgment.based_on_id) if judgment.based_on_id else ""
        demonstration = {
            "response": judgment.rewrite,
            "kind": kinds.get(batch.effective_interface, BETTER),
            "based_on": texts.get(based_on),
            "weight": 1.0,
        }
        yield ResponseRow("demonstrations", origin, {**common, **demonstration}, is_first)
