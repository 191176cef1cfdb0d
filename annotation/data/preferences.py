"""Judgments as training reads them: K-way rankings, one row each, and the pairs that follow.

Reward training takes the rows, exports take the rows and the pairs: what a researcher downloads is
what the model learned from. docs/formats.md names the fields.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Literal, NamedTuple

from django.db.models import Q

from annotation.data.admission import (
    IN_TRAIN_SPLIT,
    admitted,
    from_admitted_sources,
    not_excluded,
)
from annotation.lib.pseudonyms import keyed_hash
from annotation.models import (
    Batch,
    Comparison,
    Judgment,
    JudgmentQuerySet,
    Project,
    Response,
    User,
)
from annotation.protocols import BELOW

CHUNK = 500

Row = dict[str, Any]
Ties = Literal["drop", "half"]
PROMPT_COLUMNS = ("uid", "messages", "category", "risk", "source_id")
# Texts that readers of tables take for numbers.
NUMBERS_IN_WORDS = {"nan", "inf", "infinity"}

# A reviewer's ruling replaces the votes on its comparison, which are kept.
NOT_OVERRULED = Q(assignment__comparison__is_ruled=False) | Q(assignment__is_ruling=True)


def judgments_of(
    project: Project, *, batches: Iterable[Batch] | None = None, adjudicated: bool = True
) -> JudgmentQuerySet:
    """The judgments that count: latest revision, not taken back, not excluded, no gold.

    Where a reviewer ruled, only the ruling counts; with `adjudicated` False the votes and the ruling.
    """
    judgments = Judgment.objects.current().of_project(project)
    judgments = judgments.filter(assignment__comparison__gold__isnull=True)
    if adjudicated:
        judgments = judgments.filter(NOT_OVERRULED)
    if batches is not None:
        judgments = judgments.filter(
            assignment__comparison__batch__in=[batch.pk for batch in batches]
        )
    return judgments


def judgment_counts(
    project: Project, *, batches: Iterable[Batch] | None = None, filters: Collection[str] = ()
) -> dict[str, int]:
    """How many judgments there are, and why some of them never reach a training export.

    `used` + `heldout` + `not_signed_off` + `filtered` = `current`: each is counted under the first
    reason. `not_signed_off` includes sources whose license does not allow training. `excluded` were
    excluded by a reviewer and `overruled` replaced by a reviewer's ruling. `filters` leave out rows in
    addition to those that exclude in the project.
    """
    batches = None if batches is None else list(batches)
    current = judgments_of(project, batches=batches)
    excluded = Judgment.objects.of_project(project).filter(
        current_for__isnull=False,
        excluded_at__isnull=False,
        assignment__comparison__gold__isnull=True,
    )
    overruled = judgments_of(project, batches=batches, adjudicated=False).exclude(NOT_OVERRULED)
    if batches is not None:
        excluded = excluded.filter(assignment__comparison__batch__in=[b.pk for b in batches])
    in_split = current.filter(IN_TRAIN_SPLIT)
    from_sources = in_split.filter(from_admitted_sources(project))
    n_current, n_in_split, n_from_sources, n_used = (
        current.count(),
        in_split.count(),
        from_sources.count(),
        from_sources.filter(not_excluded(project, filters)).count(),
    )
    return {
        "current": n_current,
        "used": n_used,
        "heldout": n_current - n_in_split,
        "not_signed_off": n_in_split - n_from_sources,
        "filtered": n_from_sources - n_used,
        "excluded": excluded.count(),
        "overruled": overruled.count(),
    }


def annotator_id(
    project: Project, user: User, *, is_imported: bool = False, is_ruling: bool = False
) -> str:
    """A pseudonym for one person in one project; only the server's key links it to them.

    Stays the same until the project's pseudonyms are rotated (annotation/data/pseudonyms.py).

    Starts with `simulated-` for a program that plays an annotator, with `imported-` for judgments
    from a file and with `reviewer-` for a ruling, so that every export shows it. Somebody who was
    erased has another one from then on, which nothing links to the former.
    """
    salt = f"annotation.annotator{project.pseudonym_salt}"
    digest = keyed_hash(salt, f"{project.pk}:{user.tombstone or user.pk}")[:10]
    kind = "simulated" if user.is_simulated else "imported" if is_imported else "annotator"
    if is_ruling:
        kind = "reviewer"
    return f"{kind}-{digest}"


def preference_rows(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
    adjudicated: bool = True,
) -> Iterator[Row]:
    """One row per judgment that counts: a line of `data/preferences.jsonl` in docs/formats.md.

    Streams in chunks, ordered by comparison and then by judgment, so the same judgments give the
    same rows in the same order. Rows of held-out and watch prompts and of sources that nobody
    signed off are left out unless `only_trainable` is False. `rounds` maps a batch's id to the
    number of its round; without it a row's `round` is the batch's name. A reviewer's ruling replaces the votes
    that it decided; `adjudicated=False` gives the annotators' votes, and no rulings.
    """
    for origin, row in rows_with_origins(
        project,
        batches=batches,
        rounds=rounds,
        only_trainable=only_trainable,
        adjudicated=adjudicated,
    ):
        if adjudicated or not origin.is_ruling:
            yield row


def round_label(batch: Batch, rounds: Mapping[int, Any] | None) -> str:
    """The `round` of a row: "round 3", the batch's name without `rounds`, "" for a batch of no round.

    Always a text that no reader of a table takes for a number or a date.
    """
    if rounds is not None:
        number = rounds.get(batch.pk)
        return "" if number in (None, "") else f"round {number}"
    is_word = batch.name[:1].isalpha() and batch.name.casefold() not in NUMBERS_IN_WORDS
    return batch.name if is_word else f"batch {batch.name}"


class Origin(NamedTuple):
    """Where one row comes from: ids of its batch, its sources, its comparison and its responses."""

    batch: int
    sources: frozenset[int]
    is_ruling: bool = False
    is_overruled: bool = False
    comparison: int = 0
    responses: tuple[int, ...] = ()


def rows_with_origins(
    project: Project,
    *,
    batches: Iterable[Batch] | None = None,
    rounds: Mapping[int, Any] | None = None,
    only_trainable: bool = True,
    adjudicated: bool = True,
    filters: Collection[str] = (),
) -> Iterator[tuple[Origin, Row]]:
    """`preference_rows`, each with its origin; without `adjudicated` the rulings as well.

    `filters` leave out rows in addition to those that exclude in the project.

    Reads plain columns: creating 200,000 response objects took half of the time of an export.
    """
    judgments = judgments_of(project, batches=batches, adjudicated=adjudicated)
    if only_trainable:
        judgments = admitted(project, judgments, filters)
    # Only ids are kept in memory: no cursor stays open, and no sort carries the texts.
    ids = list(judgments.order_by("assignment__comparison_id", "pk").values_list("pk", flat=True))
    names, known_batches = AnnotatorNames(project), dict[int, Batch]()
    for start in range(0, len(ids), CHUNK):
        yield from _rows_of(project, ids[start : start + CHUNK], rounds, names, known_batches)


class AnnotatorNames:
    """The names of a project's annotators in exports, each computed once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._users: dict[int, User] = {}
        self._names: dict[tuple[int, bool], str] = {}

    def load(self, users: Iterable[int]) -> None:
        """Fetch the accounts of these users in one query."""
        self._users |= User.objects.in_bulk(set(users) - set(self._users))

    def name(self, user: int, *, is_imported: bool, is_ruling: bool) -> str:
        if (user, is_ruling) not in self._names:
            self._names[user, is_ruling] = annotator_id(
                self.project, self._users[user], is_imported=is_imported, is_ruling=is_ruling
            )
        return self._names[user, is_ruling]


def _rows_of(
    project: Project,
    ids: list[int],
    rounds: Mapping[int, Any] | None,
    names: AnnotatorNames,
    batches: dict[int, Batch],
) -> Iterator[tuple[Origin, Row]]:
    """The rows of these judgments, in their order, with one query per table.

    `batches` are those that earlier judgments needed: joined to each comparison, the same few with
    their protocols would be read again and again.
    """
    judgments = {
        row[0]: row
        for row in Judgment.objects.filter(pk__in=ids).values_list(
            "pk",
            "uid",
            "ranks",
            "assignment__annotator_id",
            "assignment__comparison_id",
            "assignment__is_ruling",
        )
    }
    details = _details(ids, project.axis_keys)
    names.load(row[3] for row in judgments.values())
    comparisons = {
        comparison.pk: comparison
        for comparison in Comparison.objects.filter(pk__in={row[4] for row in judgments.values()})
        .select_related("prompt")
        .only("is_ruled", "batch_id", *(f"prompt__{name}" for name in PROMPT_COLUMNS))
    }
    wanted = {comparison.batch_id for comparison in comparisons.values()} - set(batches)
    if wanted:
        batches |= Batch.objects.in_bulk(wanted)
    responses = _responses_of(comparisons)
    for pk in ids:
        _, uid, ranks, annotator, comparison_id, is_ruling = judgments[pk]
        if not ranks:  # A rating or a demonstration prefers nothing.
            continue
        comparison = comparisons[comparison_id]
        prompt, batch = comparison.prompt, batches[comparison.batch_id]
        sources = (prompt.source_id, batch.source_id)
        origin = Origin(
            batch.pk,
            frozenset(source for source in sources if source is not None),
            is_ruling=is_ruling,
            is_overruled=comparison.is_ruled and not is_ruling,
            comparison=comparison_id,
            responses=tuple(int(key) for key, *_ in responses[comparison_id]),
        )
        shown = responses[comparison_id]
        yield (
            origin,
            {
                "judgment_id": str(uid),
                "prompt_id": str(prompt.uid),
                "annotator": names.name(
                    annotator, is_imported=batch.is_imported, is_ruling=is_ruling
                ),
                "round": round_label(batch, rounds),
                "messages": prompt.messages,
                "category": prompt.category,
                "risk": prompt.risk,
                "responses": [text for _, text, _ in shown],
                "finished": [finished for _, _, finished in shown],
                "ranks": {
                    axis: [ranks.get(axis, {}).get(key) for key, _, _ in shown]
                    for axis in project.axis_keys
                },
                "weight": 1.0,
                **details[pk],
            },
        )


def _responses_of(comparisons: Iterable[int]) -> dict[int, list[tuple[str, str, bool | None]]]:
    """The responses of each comparison, as (id, text, whether it ended within its length limit or
    None where that is not known)."""
    responses: dict[int, list[tuple[str, str, bool | None]]] = {pk: [] for pk in comparisons}
    columns = ("comparison_id", "pk", "text", "sampling__finished")
    rows = Response.objects.filter(comparison__in=responses).order_by("pk").values_list(*columns)
    for comparison_id, pk, text, finished in rows:
        known = finished if isinstance(finished, bool) else None
        responses[comparison_id].append((str(pk), text, known))
    return responses


def _details(ids: list[int], axes: list[str]) -> dict[int, Row]:
    """What a row says in addition to its ranks, by judgment.

    `{"strength": {axis: level or None}, "margin": {axis: number or None}, "unranked": "unknown" or
    "below", "all_bad": [axes], "reason": text}`.
    """
    columns = ("pk", "strength", "rest_below", "all_bad", "reason")
    return {
        pk: {
            "strength": {axis: strength.get(axis, {}).get("level") for axis in axes},
            "margin": {axis: _float(strength.get(axis, {}).get("margin")) for axis in axes},
            "unranked": "below" if rest_below else "unknown",
            "all_bad": all_bad,
            "reason": reason,
        }
        for pk, strength, rest_below, all_bad, reason in Judgment.objects.filter(
            pk__in=ids
        ).values_list(*columns)
    }


def _float(number: float | None) -> float | None:
    """1 is written 1.0, so that a column of floats is none of integers."""
    return None if number is None else float(number)


def has_strength(project: Project, *, batches: Iterable[Batch] | None = None) -> bool:
    """Whether any comparison of two asked how much better the better response is."""
    judgments = admitted(project, judgments_of(project, batches=batches))
    return judgments.exclude(strength={}).exists()


def pairs(
    rows: Iterable[Row], axis: str, ties: Ties = "drop", *, margins: bool = False
) -> Iterator[Row]:
    """Every pair of a ranking as a row of TRL's conversational preference format.

    `{"prompt": [messages], "chosen": [{assistant}], "rejected": [{assistant}], "prompt_id",
    "annotator", "weight"}`, in the order of `rows` and, within a row, best ranks first. Unranked
    responses are left out, unless the row says that they are below (a top-k ranking); so are pairs
    of equal texts. `margins` adds `strength` and `margin`, which are None and 0 where no strength
    was asked: TRL requires a number or no such column. `ties`: "drop" leaves a tie out, "half" gives
    it twice, once in each direction, at half the weight.
    """
    if ties not in ("drop", "half"):
        raise ValueError(f'ties is "drop" or "half", got {ties!r}')
    for row in rows:
        ranked = sorted(
            (rank, index)
            for index, rank in enumerate(row["ranks"].get(axis) or ())
            if rank is not None
        )
        ordered = [*combinations(ranked, 2)]
        if row.get("unranked") == "below" and ranked:
            has_rank = {index for _, index in ranked}
            unranked = [i for i in range(len(row["responses"])) if i not in has_rank]
            ordered += [((rank, a), (BELOW, b)) for rank, a in ranked for b in unranked]
        for (rank_a, a), (rank_b, b) in ordered:
            better, worse = row["responses"][a], row["responses"][b]
            if better == worse:
                continue
            if rank_a != rank_b:
                pair = _pair(row, better, worse, row["weight"])
                if margins:
                    pair["strength"] = row.get("strength", {}).get(axis)
                    pair["margin"] = row.get("margin", {}).get(axis) or 0.0
                yield pair
            elif ties == "half":
                for chosen, rejected in ((better, worse), (worse, better)):
                    pair = _pair(row, chosen, rejected, row["weight"] / 2)
                    yield pair | {"strength": 0, "margin": 0.0} if margins else pair


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
