"""Judgments as training reads them: K-way rankings, one row each, and the pairs that follow.

One place for both readers: reward training takes the rows, exports take the rows and the pairs, so
what a researcher downloads is what the model learned from. docs/formats.md names the fields.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Literal

from django.db.models import Prefetch, Q
from django.utils.crypto import salted_hmac

from annotation.models import Batch, Judgment, JudgmentQuerySet, Project, Prompt, Response, User

CHUNK = 500

Row = dict[str, Any]
Ties = Literal["drop", "half"]

SIGNED_OFF = Q(assignment__comparison__prompt__source__signed_off_at__isnull=False) & (
    Q(assignment__comparison__batch__source__isnull=True)
    | Q(assignment__comparison__batch__source__signed_off_at__isnull=False)
)
IN_TRAIN_SPLIT = Q(assignment__comparison__prompt__split=Prompt.Split.TRAIN)


def judgments_of(project: Project, *, batches: Iterable[Batch] | None = None) -> JudgmentQuerySet:
    """The judgments that count: latest revision, not taken back, not excluded."""
    judgments = Judgment.objects.current().of_project(project)
    if batches is not None:
        judgments = judgments.filter(
            assignment__comparison__batch__in=[batch.pk for batch in batches]
        )
    return judgments


def trainable(judgments: JudgmentQuerySet) -> JudgmentQuerySet:
    """Those that training may see: the train split, and every source signed off by somebody."""
    return judgments.filter(SIGNED_OFF, IN_TRAIN_SPLIT)


def counts(project: Project, *, batches: Iterable[Batch] | None = None) -> dict[str, int]:
    """How many judgments there are, and why some of them never reach a training export.

    `used` + `heldout` + `not_signed_off` = `current`; `excluded` were taken out by a reviewer.
    """
    batches = None if batches is None else list(batches)
    current = judgments_of(project, batches=batches)
    excluded = Judgment.objects.of_project(project).filter(
        current_for__isnull=False, excluded_at__isnull=False
    )
    if batches is not None:
        excluded = excluded.filter(assignment__comparison__batch__in=[b.pk for b in batches])
    in_split = current.filter(IN_TRAIN_SPLIT)
    n_current, n_in_split, n_used = (
        current.count(),
        in_split.count(),
        in_split.filter(SIGNED_OFF).count(),
    )
    return {
        "current": n_current,
        "used": n_used,
        "heldout": n_current - n_in_split,
        "not_signed_off": n_in_split - n_used,
        "excluded": excluded.count(),
    }


def annotator_id(project: Project, user: User, *, is_imported: bool = False) -> str:
    """A stable name for one person in one project that nobody without the server's key can undo.

    Starts with `simulated-` for a program that plays an annotator and with `imported-` for
    judgments that came from a file, so that both show in any export.
    """
    digest = salted_hmac("annotation.annotator", f"{project.pk}:{user.pk}").hexdigest()[:10]
    kind = "simulated" if user.is_simulated else "imported" if is_imported else "annotator"
    return f"{kind}-{digest}"


def preference_rows(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
) -> Iterator[Row]:
    """One row per judgment that counts: a line of `data/preferences.jsonl` in docs/formats.md.

    Streams in chunks, ordered by comparison and then by judgment, so the same judgments give the
    same rows in the same order. Rows of held-out and watch prompts and of sources that nobody
    signed off are left out unless `only_trainable` is False. `rounds` maps a batch's id to the
    `round` label; without it the label is the batch's name.
    """
    for _, row in judgments_and_rows(
        project, batches=batches, rounds=rounds, only_trainable=only_trainable
    ):
        yield row


def judgments_and_rows(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
) -> Iterator[tuple[Judgment, Row]]:
    """`preference_rows`, each beside its judgment with comparison, prompt and batch loaded."""
    judgments = judgments_of(project, batches=batches)
    if only_trainable:
        judgments = trainable(judgments)
    # Only ids are held: no cursor stays open, and no sort carries the texts.
    ids = list(judgments.order_by("assignment__comparison_id", "pk").values_list("pk", flat=True))
    names: dict[int, str] = {}
    full = Judgment.objects.select_related(
        "assignment__annotator", "assignment__comparison__prompt", "assignment__comparison__batch"
    ).prefetch_related(
        Prefetch("assignment__comparison__responses", Response.objects.order_by("pk"))
    )
    for start in range(0, len(ids), CHUNK):
        wanted = ids[start : start + CHUNK]
        found = full.in_bulk(wanted)
        for pk in wanted:
            judgment = found[pk]
            person = judgment.assignment.annotator
            if person.pk not in names:
                imported = judgment.assignment.comparison.batch.is_imported
                names[person.pk] = annotator_id(project, person, is_imported=imported)
            yield judgment, _row(project, judgment, names[person.pk], rounds)


def _row(
    project: Project, judgment: Judgment, annotator: str, rounds: Mapping[int, Any] | None
) -> Row:
    comparison = judgment.assignment.comparison
    prompt = comparison.prompt
    responses = list(comparison.responses.all())
    ranks = {}
    for axis in project.axis_keys:
        given = judgment.ranks.get(axis, {})
        ranks[axis] = [given.get(str(response.pk)) for response in responses]
    batch = comparison.batch
    return {
        "judgment_id": str(judgment.uid),
        "prompt_id": str(prompt.uid),
        "annotator": annotator,
        "round": batch.name if rounds is None else rounds.get(batch.pk),
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
        "responses": [response.text for response in responses],
        "ranks": ranks,
        "weight": 1.0,
    }


def pairs(rows: Iterable[Row], axis: str, ties: Ties = "drop") -> Iterator[Row]:
    """Every pair of a ranking as a row of TRL's conversational preference format.

    `{"prompt": [messages], "chosen": [{assistant}], "rejected": [{assistant}], "prompt_id",
    "annotator", "weight"}`, in the order of `rows` and, within a row, best ranks first. Responses
    that were not ranked and pairs of equal texts are left out. `ties`: "drop" leaves a tie out,
    "half" gives it twice, once in each direction, at half the weight.
    """
    if ties not in ("drop", "half"):
        raise ValueError(f'ties is "drop" or "half", got {ties!r}')
    for row in rows:
        ranked = sorted(
            (rank, index)
            for index, rank in enumerate(row["ranks"].get(axis) or ())
            if rank is not None
        )
        for (rank_a, a), (rank_b, b) in combinations(ranked, 2):
            better, worse = row["responses"][a], row["responses"][b]
            if better == worse:
                continue
            if rank_a != rank_b:
                yield _pair(row, better, worse, row["weight"])
            elif ties == "half":
                yield _pair(row, better, worse, row["weight"] / 2)
                yield _pair(row, worse, better, row["weight"] / 2)


def n_ties(row: Row, axis: str) -> int:
    """How many pairs of different responses this judgment ranked equal."""
    ranked = [
        (rank, text)
        for rank, text in zip(row["ranks"].get(axis) or (), row["responses"], strict=False)
        if rank is not None
    ]
    return sum(a[0] == b[0] and a[1] != b[1] for a, b in combinations(ranked, 2))


def _pair(row: Row, chosen: str, rejected: str, weight: float) -> Row:
    return {
        "prompt": row["messages"],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
        "prompt_id": row["prompt_id"],
        "annotator": row["annotator"],
        "weight": weight,
    }
