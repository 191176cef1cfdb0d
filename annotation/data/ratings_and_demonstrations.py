"""What people said beside preferences, as rows: ratings of single responses, and demonstrations.

The same judgments that `preferences` reads, by the same rules of what training may see.
docs/formats.md names the fields.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import Q

from annotation.data.preferences import CHUNK, Origin, Row, annotator_id, judgments_of, trainable
from annotation.models import Batch, Judgment, Project, Response, User
from annotation.protocols import DEMONSTRATE, REWRITE

DEMONSTRATION, CORRECTION, BETTER = "demonstration", "correction", "better_answer"

SFT_FIELDS = ("prompt_id", "annotator", "messages", "response")

WRITTEN = ~Q(rewrite="")
RATED = ~Q(ratings={}) | ~Q(safety={})


class Statement(NamedTuple):
    """One row, where it comes from, and the file it belongs to ("ratings" or "demonstrations")."""

    file: str
    origin: Origin
    row: Row
    counts: bool
    """Whether it is the first of a judgment that is not a preference as well: so each counts once."""


def statements(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
    adjudicated: bool = True,
    until: datetime | None = None,
) -> Iterator[Statement]:
    """Every rating and every written answer of the judgments that count, in their order.

    A rating is one response as one person saw it. A written answer is a demonstration: the ideal
    answer, the correction of a response, or the better answer written beside a comparison.
    Where a reviewer ruled only the ruling is there; without `adjudicated` the votes are as well, and
    each row's origin says which it is.
    """
    judgments = judgments_of(project, batches=batches, adjudicated=adjudicated)
    if only_trainable:
        judgments = trainable(judgments)
    if until is not None:
        judgments = judgments.filter(created_at__lte=until)
    ids = list(
        judgments.filter(WRITTEN | RATED)
        .order_by("assignment__comparison_id", "pk")
        .values_list("pk", flat=True)
    )
    for start in range(0, len(ids), CHUNK):
        wanted = ids[start : start + CHUNK]
        found = {
            judgment.pk: judgment
            for judgment in Judgment.objects.filter(pk__in=wanted).select_related(
                "assignment__annotator",
                "assignment__comparison__prompt",
                "assignment__comparison__batch",
            )
        }
        texts = _texts(found.values())
        for pk in wanted:
            judgment = found[pk]
            batch = judgment.assignment.comparison.batch
            label = batch.name if rounds is None else rounds.get(batch.pk)
            yield from _of_judgment(project, judgment, label, texts)


def rating_rows(project: Project, *, batches: Iterable[Batch] | None = None) -> Iterator[Row]:
    """What annotators said of each response by itself, of every prompt, without reviewers' rulings.

    For agreement: `preference_rows(…, only_trainable=False, adjudicated=False)` beside it.
    """
    for said in statements(project, batches=batches, only_trainable=False, adjudicated=False):
        if said.file == "ratings" and not said.origin.is_ruling:
            yield said.row


def demonstrations(
    project: Project, *, only_trainable: bool = True, until: datetime | None = None
) -> Iterator[Row]:
    """Every answer that people wrote, as supervised fine-tuning reads them: docs/formats.md, `sft`.

    `until` leaves out what was written later.
    """
    for said in statements(project, only_trainable=only_trainable, until=until):
        if said.file == "demonstrations":
            yield {name: said.row[name] for name in SFT_FIELDS}


def attributes_of(project: Project) -> list[str]:
    """Keys of everything that responses were rated on in this project, in the order they came."""
    protocols = [project.rules, *(batch.rules for batch in project.batches.order_by("pk"))]
    return list(dict.fromkeys(one.key for rules in protocols for one in rules.attributes))


def _texts(judgments: Iterable[Judgment]) -> dict[str, str]:
    comparisons = {judgment.assignment.comparison_id for judgment in judgments}
    found = Response.objects.filter(comparison__in=comparisons).values_list("pk", "text")
    return {str(pk): text for pk, text in found}


def _of_judgment(
    project: Project, judgment: Judgment, label: Any, texts: dict[str, str]
) -> Iterator[Statement]:
    comparison, person = judgment.assignment.comparison, judgment.assignment.annotator
    prompt, batch = comparison.prompt, comparison.batch
    assert isinstance(person, User)
    sources = (prompt.source_id, batch.source_id)
    is_ruling = judgment.assignment.is_ruling
    origin = Origin(
        batch.pk,
        frozenset(pk for pk in sources if pk is not None),
        is_ruling=is_ruling,
        is_overruled=comparison.is_ruled and not is_ruling,
    )
    said = {
        "judgment_id": str(judgment.uid),
        "prompt_id": str(prompt.uid),
        "annotator": annotator_id(
            project,
            person,
            is_imported=batch.is_imported,
            is_ruling=is_ruling,
        ),
        "round": label,
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
    }
    counts = not judgment.ranks
    for pk in sorted({*judgment.ratings, *judgment.safety}, key=int):
        if pk not in texts:
            continue
        vote = judgment.safety.get(pk)
        yield Statement(
            "ratings",
            origin,
            {
                **said,
                "response": texts[pk],
                "attributes": judgment.ratings.get(pk, {}),
                "safe": vote["safe"] if vote else None,
                "harms": vote["harms"] if vote else [],
                "reason": judgment.reason,
            },
            counts,
        )
        counts = False
    if judgment.rewrite.strip():
        kinds = {DEMONSTRATE: DEMONSTRATION, REWRITE: CORRECTION}
        based_on = str(judgment.based_on_id) if judgment.based_on_id else ""
        yield Statement(
            "demonstrations",
            origin,
            {
                **said,
                "response": judgment.rewrite,
                "kind": kinds.get(batch.face, BETTER),
                "based_on": texts.get(based_on),
                "weight": 1.0,
            },
            counts,
        )
