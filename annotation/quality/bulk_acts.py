"""Changes of many selected rows at once: exclude, tag, set risk or category, ask in a batch; and undo.

Each is one BulkAct with what it changed, one line of the audit log, and one transaction. The key of its
form makes a repeated request harmless.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from annotation.lib.text import storable
from annotation.models import (
    BulkAct,
    Comparison,
    Event,
    Judgment,
    Project,
    Prompt,
    Response,
    Tag,
    Tagging,
    User,
)
from annotation.projects.batches import BatchError
from annotation.projects.selections import add_selection, batch_of_selection
from annotation.quality import interventions

Kind = BulkAct.Kind
MOST = 10_000
CHUNK = 500
MAX_REASON, MAX_TAG, MAX_CATEGORY = 200, 40, 60
# The field of a tagging that names a row of the table, and how a row reaches its project.
TARGETS: dict[str, tuple[str, Any, str]] = {
    "prompts": ("prompt", Prompt, "project"),
    "responses": ("response", Response, "comparison__batch__project"),
    "comparisons": ("comparison", Comparison, "batch__project"),
    "judgments": ("judgment", Judgment, "assignment__comparison__batch__project"),
}


class BulkError(ValueError):
    """Why a change is not made, in one sentence."""


def own_ids(project: Project, table: str, ids: Sequence[int]) -> list[int]:
    """Those of the ids that are rows of this project, in order."""
    if len(ids) > MOST:
        raise BulkError(f"At most {MOST:,} rows at once: narrow the selection.")
    _, model, path = TARGETS[table]
    own: set[int] = set()
    for part in _parts(ids):
        own.update(
            model.objects.filter(pk__in=part, **{path: project}).values_list("pk", flat=True)
        )
    chosen = [pk for pk in dict.fromkeys(ids) if pk in own]
    if not chosen:
        raise BulkError("Select at least one row.")
    return chosen


def _parts(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK]


def _act(
    project: Project,
    table: str,
    kind: str,
    by: User,
    key: UUID,
    change: Callable[[BulkAct], int],
    *,
    value: str = "",
    reason: str = "",
) -> BulkAct:
    """Record the act, make the change, and note how many rows it changed; once for each key."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        earlier = project.bulk_acts.filter(key=key).first()
        if earlier is not None:
            return earlier
        act = BulkAct.objects.create(
            project=project, key=key, kind=kind, table=table, value=value, reason=reason, by=by
        )
        act.n = change(act)
        act.save(update_fields=["n", "before", "value"])
        Event.record(
            project,
            by,
            f"data manager: {act.get_kind_display()}",
            f"{act.n} {table}",
            act=act.pk,
            value=value,
            reason=reason,
        )
    return act


# --- Exclusion ----------------------------------------------------------------------------------------


def exclude(
    project: Project, table: str, ids: Sequence[int], reason: str, by: User, key: UUID
) -> BulkAct:
    """Take rows out of training, new batches and exports, with a reason.

    The comparisons of an excluded prompt or response go with it; nobody is given them any longer.
    """
    reason = storable(reason.strip())[:MAX_REASON]
    if not reason:
        raise BulkError("Give a reason for the exclusion: it stays on record.")
    chosen = own_ids(project, table, ids)

    def change(act: BulkAct) -> int:
        if table == "judgments":
            return _exclude_judgments(act, chosen)
        if table == "comparisons":
            return _exclude_comparisons(act, chosen)
        return _exclude_texts(act, chosen)

    return _act(project, table, Kind.EXCLUDE, by, key, change, reason=reason)


def _exclude_judgments(act: BulkAct, ids: Sequence[int]) -> int:
    counting = Judgment.objects.filter(
        pk__in=ids, current_for__isnull=False, excluded_at__isnull=True
    )
    act.before = {"judgments": list(counting.values_list("pk", flat=True))}
    by = act.by
    assert by is not None
    return interventions.exclude(act.project, act.before["judgments"], by, act.reason)


def _exclude_texts(act: BulkAct, ids: Sequence[int]) -> int:
    field, model, _ = TARGETS[act.table]
    n = 0
    for part in _parts(ids):
        n += model.objects.filter(pk__in=part, exclusion=None).update(exclusion=act)
        of_text = {"prompt__in": part} if field == "prompt" else {"responses__in": part}
        comparisons = Comparison.objects.filter(**of_text).values_list("pk", flat=True)
        _exclude_comparisons(act, sorted(set(comparisons)))
    return n


def _exclude_comparisons(act: BulkAct, ids: Sequence[int]) -> int:
    """Nobody is needed for them any longer; what was needed is noted for undoing it."""
    needed = act.before.setdefault("needed", {})
    n = 0
    for part in _parts(ids):
        rows = list(_locked(Comparison.objects.filter(pk__in=part, exclusion=None, gold=None)))
        for comparison in rows:
            comparison.exclusion = act
            if comparison.needed > comparison.judged:
                needed[str(comparison.pk)] = comparison.needed
                comparison.needed = comparison.judged
            comparison.is_free = False
        Comparison.objects.bulk_update(rows, ["exclusion", "needed", "is_free"])
        n += len(rows)
    return n


def _locked(comparisons: QuerySet[Comparison]) -> QuerySet[Comparison]:
    # In one order everywhere, so that two such transactions can't wait for each other.
    return comparisons.select_for_update(of=("self",)).order_by("pk")


def _other_exclusions(ids: Sequence[int], act: BulkAct) -> dict[int, BulkAct]:
    """Of these comparisons, those whose prompt or a response another act excludes, with that act."""
    act_ids: dict[int, int] = {}
    for text in ("prompt", "responses"):
        excluded = Comparison.objects.filter(pk__in=ids, **{f"{text}__exclusion__isnull": False})
        pairs = excluded.values_list("pk", f"{text}__exclusion")
        act_ids.update((pk, other) for pk, other in pairs if other not in (None, act.pk))
    acts = BulkAct.objects.in_bulk(set(act_ids.values()))
    return {pk: acts[other] for pk, other in act_ids.items()}


def _include(act: BulkAct, by: User) -> None:
    if act.table == "judgments":
        interventions.include(act.project, act.before.get("judgments", []), by)
        return
    needed = act.before.get("needed", {})
    excluded = list(Comparison.objects.filter(exclusion=act).values_list("pk", flat=True))
    for part in _parts(excluded):
        rows = list(_locked(Comparison.objects.filter(pk__in=part, exclusion=act)))
        others = _other_exclusions(part, act)
        for comparison in rows:
            comparison.exclusion = others.get(comparison.pk)
            if comparison.exclusion is not None:  # it comes back with its prompt or response
                if before := needed.get(str(comparison.pk)):
                    comparison.exclusion.before.setdefault("needed", {})[str(comparison.pk)] = (
                        before
                    )
                continue
            comparison.needed = max(comparison.needed, needed.get(str(comparison.pk), 0))
            comparison.is_free = comparison.taken < comparison.needed
        Comparison.objects.bulk_update(rows, ["exclusion", "needed", "is_free"])
        for other in {other.pk: other for other in others.values()}.values():
            other.save(update_fields=["before"])
    for model in (Prompt, Response):
        model.objects.filter(exclusion=act).update(exclusion=None)


# --- Tags ---------------------------------------------------------------------------------------------


def tag(
    project: Project,
    table: str,
    ids: Sequence[int],
    name: str,
    by: User,
    key: UUID,
    *,
    keeps_out: bool = False,
) -> BulkAct:
    """Put a tag on rows, made if need be; with `keeps_out` it keeps all rows that have it out."""
    name = _tag_name(name)
    chosen = own_ids(project, table, ids)
    field = TARGETS[table][0]

    def change(act: BulkAct) -> int:
        word, _ = Tag.objects.get_or_create(project=project, name=name)
        if keeps_out and not word.keeps_out:
            Tag.objects.filter(pk=word.pk).update(keeps_out=True)
            act.before = {"keeps_out": False}
        for part in _parts(chosen):
            Tagging.objects.bulk_create(
                [Tagging(tag=word, act=act, **{f"{field}_id": pk}) for pk in part],
                ignore_conflicts=True,
            )
        return act.taggings.count()

    return _act(project, table, Kind.TAG, by, key, change, value=name)


def untag(
    project: Project, table: str, ids: Sequence[int], name: str, by: User, key: UUID
) -> BulkAct:
    """Take a tag off rows."""
    word = project.tags.filter(name=_tag_name(name)).first()
    if word is None:
        raise BulkError(f"There is no tag “{name.strip()[:MAX_TAG]}” here.")
    chosen = own_ids(project, table, ids)
    field = TARGETS[table][0]

    def change(act: BulkAct) -> int:
        removed: list[int] = []
        for part in _parts(chosen):
            taggings = word.taggings.filter(**{f"{field}__in": part})
            removed += taggings.values_list(f"{field}_id", flat=True)
            taggings.delete()
        act.before = {"ids": removed}
        return len(removed)

    return _act(project, table, Kind.UNTAG, by, key, change, value=word.name)


def _tag_name(name: str) -> str:
    name = " ".join(storable(name).split())
    if not name or len(name) > MAX_TAG:
        raise BulkError(f"A tag is a word or a few, at most {MAX_TAG} characters.")
    return name


# --- Risk and category --------------------------------------------------------------------------------


def set_risk(project: Project, ids: Sequence[int], risk: str, by: User, key: UUID) -> BulkAct:
    """Say of prompts whether they are harmful."""
    if risk not in Prompt.Risk.values:
        raise BulkError("A risk is harmless, harmful or not known.")
    return _set(project, ids, "risk", risk, Kind.RISK, by, key)


def set_category(
    project: Project, ids: Sequence[int], category: str, by: User, key: UUID
) -> BulkAct:
    """Put prompts into a category; "" takes them out of theirs."""
    category = " ".join(storable(category).split())
    if len(category) > MAX_CATEGORY:
        raise BulkError(f"A category has at most {MAX_CATEGORY} characters.")
    return _set(project, ids, "category", category, Kind.CATEGORY, by, key)


def _set(
    project: Project, ids: Sequence[int], field: str, value: str, kind: str, by: User, key: UUID
) -> BulkAct:
    chosen = own_ids(project, "prompts", ids)

    def change(act: BulkAct) -> int:
        before: dict[str, list[int]] = {}
        for part in _parts(chosen):
            rows = Prompt.objects.filter(pk__in=part).exclude(**{field: value})
            for pk, old in rows.values_list("pk", field):
                before.setdefault(old, []).append(pk)
            rows.update(**{field: value})
        act.before = {"values": before}
        return sum(len(pks) for pks in before.values())

    return _act(project, "prompts", kind, by, key, change, value=value)


# --- Batches ------------------------------------------------------------------------------------------


def ask(
    project: Project,
    table: str,
    ids: Sequence[int],
    by: User,
    key: UUID,
    *,
    name: str = "",
    preset: str = "",
    overlap: int = 1,
    only_for: User | None = None,
    batch: Any = None,
) -> BulkAct:
    """Ask people about the selected rows: in a new batch, or in `batch`, made by hand before.

    The act's value is the batch's name, `before["batch"]` its id and `before["left_out"]` how many of
    the selected rows could not be asked about.
    """
    chosen = own_ids(project, table, ids)
    n_selected = len(chosen)
    if table == "judgments":
        rows = Judgment.objects.filter(pk__in=chosen)
        chosen = list(rows.values_list("assignment__comparison", flat=True).distinct())
        table = "comparisons"

    def change(act: BulkAct) -> int:
        if batch is not None:
            n, target = add_selection(batch, table, chosen), batch
        else:
            target, n = batch_of_selection(
                project,
                storable(name.strip())[:120],
                table,
                chosen,
                preset=preset,
                overlap=overlap,
                only_for=only_for,
                by=by,
            )
        act.value = target.name
        act.before = {"batch": target.pk, "left_out": max(0, n_selected - n)}
        return n

    if batch is None and not name.strip():
        raise BulkError("Name the new batch; annotators see the name.")
    try:
        return _act(project, table, Kind.BATCH, by, key, change)
    except BatchError as error:
        raise BulkError(str(error)) from error


# --- Undo ---------------------------------------------------------------------------------------------


def undo(act: BulkAct, by: User) -> int:
    """Take a change back; how many rows it was about. Rows that changed again since stay as they are."""
    with transaction.atomic():
        act = BulkAct.objects.select_for_update(of=("self",)).get(pk=act.pk)
        if act.undone_at is not None:
            return 0
        if not act.can_be_undone:
            raise BulkError("A batch is closed on its page; people may have judged it already.")
        UNDO[act.kind](act, by)
        act.undone_at, act.undone_by = timezone.now(), by
        act.save(update_fields=["undone_at", "undone_by"])
        Event.record(
            act.project,
            by,
            f"data manager: undid “{act.get_kind_display()}”",
            f"{act.n} {act.table}",
            act=act.pk,
        )
    return act.n


def _untag(act: BulkAct, by: User) -> None:
    act.taggings.all().delete()
    if "keeps_out" in act.before:
        Tag.objects.filter(project=act.project, name=act.value).update(keeps_out=False)


def _tag_again(act: BulkAct, by: User) -> None:
    word, _ = Tag.objects.get_or_create(project=act.project, name=act.value)
    field, model, _ = TARGETS[act.table]
    for part in _parts(act.before["ids"]):
        present = model.objects.filter(pk__in=part).values_list("pk", flat=True)
        Tagging.objects.bulk_create(
            [Tagging(tag=word, **{f"{field}_id": pk}) for pk in present], ignore_conflicts=True
        )


def _restore(act: BulkAct, by: User) -> None:
    field = "risk" if act.kind == Kind.RISK else "category"
    for old, ids in act.before["values"].items():
        for part in _parts(ids):
            unchanged = Prompt.objects.filter(pk__in=part, **{field: act.value})
            unchanged.update(**{field: old})


UNDO: dict[str, Callable[[BulkAct, User], None]] = {
    Kind.EXCLUDE: _include,
    Kind.TAG: _untag,
    Kind.UNTAG: _tag_again,
    Kind.RISK: _restore,
    Kind.CATEGORY: _restore,
}
