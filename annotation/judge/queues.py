"""What is free for a person in a batch, and the first of it, however far they are ahead.

Where several people judge each comparison, what somebody has had stays free for the others and comes
first in the index. A look that steps over all of it costs the more the further they are ahead. So
how far such a look came is remembered for a minute, and the next one begins there
(docs/decisions/0026-a-search-begins-where-the-last-one-ended.md).
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from threading import Lock
from time import monotonic
from typing import Any, Literal, NamedTuple

from django.db import connection
from django.db.models import (
    BooleanField,
    Case,
    Exists,
    ExpressionWrapper,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.lookups import IsNull

from annotation.lib.prepared import Prepared
from annotation.models import Assignment, Comparison, Prompt

WINDOW = 100
"""Among so many that come first, a look misses nothing, wherever the last one ended."""
REMEMBERED = 60.0
"""Seconds after which a person is looked for from the start again."""
CURSORS_KEPT = 4096

HARMLESS = ~Q(prompt__risk=Prompt.Risk.HARMFUL)
Locking = Literal["", "skip", "wait"]
Key = dict[str, Any]


def had(user: Any) -> Exists:
    """Comparisons that this person holds, judged or skipped. What merely ran out may come again."""
    return Exists(_had_of(user))


def _had_of(user: Any) -> QuerySet[Assignment]:
    mine = Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user)
    return mine.exclude(state=Assignment.State.EXPIRED)


class Look(NamedTuple):
    found: Comparison | None
    is_sure: bool
    """Nothing else came before what was found; or, where nothing was, nothing is there."""


class Cursor(NamedTuple):
    """When `began`, nothing that comes before `key` was free for this person."""

    key: Key | None
    """The columns of a comparison that order its queue, by name; None stands for the queue's end."""
    began: float


@dataclass(frozen=True)
class Queue:
    """The free comparisons of one batch that ask for one skill, as one person is handed them."""

    user: int
    batch: int
    skill: str
    at_random: bool
    avoid_harm: bool

    def first(self, locking: Locking, *, is_thorough: bool = False) -> Look:
        """The first one, with its prompt; locked, or locked unless others hold it ("skip").

        A thorough look begins at the start. Any other begins where the last one ended, unless that
        was a minute ago or one of the first WINDOW is free for this person.
        """
        cursor = None if is_thorough else cursors.get(self)
        if cursor is not None:
            window = _window(**self._kind)(**self._whose)
            if any(is_theirs for (is_theirs,) in window):
                cursor = None
            elif len(window) < WINDOW:
                return Look(None, is_sure=True)  # These are all there are.
        if cursor is None:
            return Look(self._from_the_start(locking), is_sure=True)
        return Look(self._from(cursor, locking), is_sure=False)

    def count(self, most: int) -> int:
        """How many there are, counted as far as `most`; the order does not matter."""
        for queue in (self, replace(self, at_random=not self.at_random)):
            cursor = cursors.get(queue)
            if cursor is not None:
                if queue._count_from(cursor, most) >= most:
                    return most
                break
        # Fewer from there on may be more in all: some may have come free before the cursor.
        counted = _counted(avoid_harm=self.avoid_harm, most=most)
        return min(most, counted.count(**self._whose))

    def _from_the_start(self, locking: Locking) -> Comparison | None:
        began = monotonic()
        found = _head(**self._kind, locking=locking).first(**self._whose)
        # Who is not ahead needs no cursor, and an older one stays true.
        if found is None or not found.is_near:  # type: ignore[attr-defined]  # an annotation
            cursors.set(self, Cursor(self._key(found), began))
        return found

    def _from(self, cursor: Cursor, locking: Locking) -> Comparison | None:
        found = None
        if cursor.key is not None:
            parts = _heads_from(**self._kind, locking=locking)
            rows = (part.first(**self._whose, **cursor.key) for part in parts)
            found = next((row for row in rows if row is not None), None)
        # It still speaks of when the look from the start began.
        cursors.set(self, Cursor(self._key(found), cursor.began))
        return found

    def _count_from(self, cursor: Cursor, most: int) -> int:
        n = 0
        if cursor.key is not None:
            for part in _counted_from(**self._kind, most=most):
                if n < most:
                    n += part.count(**self._whose, **cursor.key)
        return n

    @property
    def _whose(self) -> dict[str, Any]:
        return {"batch": self.batch, "user": self.user, "skill": self.skill}

    @property
    def _kind(self) -> dict[str, bool]:
        return {"at_random": self.at_random, "avoid_harm": self.avoid_harm}

    def _key(self, found: Comparison | None) -> Key | None:
        if found is None:
            return None
        names = [name.lstrip("-") for name in ORDERS[self.at_random]]
        return {name: getattr(found, name) for name in names}


class Cursors:
    """Where people's looks ended, in the memory of this process. Losing one costs a thorough look."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.kept: OrderedDict[tuple[str, Queue], Cursor] = OrderedDict()

    def get(self, queue: Queue) -> Cursor | None:
        key = (connection.alias, queue)
        with self.lock:
            cursor = self.kept.get(key)
            if cursor is None or monotonic() - cursor.began >= REMEMBERED:
                return None
            self.kept.move_to_end(key)
            return cursor

    def set(self, queue: Queue, cursor: Cursor) -> None:
        key = (connection.alias, queue)
        with self.lock:
            self.kept[key] = cursor
            self.kept.move_to_end(key)
            if len(self.kept) > CURSORS_KEPT:
                self.kept.popitem(last=False)

    def clear(self) -> None:
        with self.lock:
            self.kept.clear()


cursors = Cursors()

# By whether it is at random; each as one of the indexes has it.
ORDERS = {True: ("shuffle", "id"), False: ("-priority", "-score", "shuffle", "id")}


def _rest_of_equals(key: Key) -> Q:
    return Q(shuffle__gte=key["shuffle"]) & (Q(shuffle__gt=key["shuffle"]) | Q(id__gte=key["id"]))


# What comes at or after a key, in parts that follow each other. An index answers each; it would not
# answer their OR, as its columns run in different directions.
FROM_KEY: dict[bool, tuple[Callable[[Key], Q], ...]] = {
    True: (_rest_of_equals,),
    False: (
        lambda key: Q(priority=key["priority"], score=key["score"]) & _rest_of_equals(key),
        lambda key: Q(priority=key["priority"], score__lt=key["score"]),
        lambda key: Q(priority__lt=key["priority"]),
    ),
}


def _free(batch: Any, skill: Any, *, at_random: bool) -> QuerySet[Comparison]:
    free = Comparison.objects.filter(batch=batch, skill=skill, is_free=True)
    return free.order_by(*ORDERS[at_random])


def _theirs(
    batch: Any, user: Any, skill: Any, *, at_random: bool, avoid_harm: bool
) -> QuerySet[Comparison]:
    """What this person could be given of one skill, in the order of one index."""
    free = _free(batch, skill, at_random=at_random).exclude(had(user))
    return free.filter(HARMLESS) if avoid_harm else free


def _is_theirs(user: Any, *, avoid_harm: bool) -> Q:
    """The same as a condition that is looked up row by row, for few rows of many.

    To answer EXISTS, PostgreSQL may decide to read all that this person ever had.
    """
    is_new = Q(IsNull(Subquery(_had_of(user).values("pk")), rhs=True))
    return is_new & HARMLESS if avoid_harm else is_new


def _locked(theirs: QuerySet[Comparison], locking: Locking) -> QuerySet[Comparison]:
    if locking:
        theirs = theirs.select_for_update(of=("self",), skip_locked=locking == "skip")
    return theirs.select_related("prompt")[:1]


@cache
def _head(*, at_random: bool, avoid_harm: bool, locking: Locking) -> Prepared[Comparison]:
    """The first comparison, and whether it is among the first WINDOW of all."""

    def build(batch: Any, user: Any, skill: Any) -> QuerySet[Comparison]:
        theirs = _theirs(batch, user, skill, at_random=at_random, avoid_harm=avoid_harm)
        keys = _free(batch, skill, at_random=at_random).values("pk")
        # Mostly it is the very first, and the window need not be read.
        is_near = Case(
            When(pk=Subquery(keys[:1]), then=Value(value=True)),
            When(pk__in=keys[:WINDOW], then=Value(value=True)),
            default=Value(value=False),
        )
        return _locked(theirs.annotate(is_near=is_near), locking)

    return Prepared(build)


@cache
def _window(*, at_random: bool, avoid_harm: bool) -> Prepared[tuple[bool]]:
    """Of the first WINDOW, whether each is free for this person."""

    def build(batch: Any, user: Any, skill: Any) -> QuerySet[Comparison, tuple[bool]]:
        window = _free(batch, skill, at_random=at_random)[:WINDOW]
        is_theirs = ExpressionWrapper(_is_theirs(user, avoid_harm=avoid_harm), BooleanField())
        return window.annotate(is_theirs=is_theirs).values_list("is_theirs")

    return Prepared(build)


@cache
def _heads_from(
    *, at_random: bool, avoid_harm: bool, locking: Locking
) -> list[Prepared[Comparison]]:
    """The first comparison of each part that comes at or after a key."""

    def head(is_part: Callable[[Key], Q]) -> Prepared[Comparison]:
        def build(batch: Any, user: Any, skill: Any, **key: Any) -> QuerySet[Comparison]:
            free = _free(batch, skill, at_random=at_random).filter(is_part(key))
            return _locked(free.filter(_is_theirs(user, avoid_harm=avoid_harm)), locking)

        return Prepared(build)

    return [head(is_part) for is_part in FROM_KEY[at_random]]


@cache
def _counted(*, avoid_harm: bool, most: int) -> Prepared[tuple[int]]:
    def build(batch: Any, user: Any, skill: Any) -> QuerySet[Comparison, tuple[int]]:
        theirs = _theirs(batch, user, skill, at_random=False, avoid_harm=avoid_harm)
        return theirs.values_list("pk")[:most]

    return Prepared(build)


@cache
def _counted_from(*, at_random: bool, avoid_harm: bool, most: int) -> list[Prepared[tuple[int]]]:
    def counted(is_part: Callable[[Key], Q]) -> Prepared[tuple[int]]:
        def build(
            batch: Any, user: Any, skill: Any, **key: Any
        ) -> QuerySet[Comparison, tuple[int]]:
            free = _free(batch, skill, at_random=at_random).filter(is_part(key))
            theirs = free.filter(_is_theirs(user, avoid_harm=avoid_harm))
            return theirs.values_list("pk")[:most]

        return Prepared(build)

    return [counted(is_part) for is_part in FROM_KEY[at_random]]
