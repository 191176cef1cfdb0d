"""One person's queue in a batch: its first comparison and its length, at a constant cost.

A comparison that one person has judged stays free for others and comes first in the index, so a
search must skip it each time. A cursor remembers for a minute where the last search ended; the
next search begins there
(docs/decisions/0026-a-search-begins-where-the-last-one-ended.md).
"""

from collections import OrderedDict
from dataclasses import replace
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Exists, OuterRef, Q

from annotation.models import Assignment, Comparison, Prompt
from annotation.models.hot_queries import Locking, QueueKey, QueueRows

WINDOW = 100
"""A search always checks this many of the first comparisons, even if a cursor points further on."""
REMEMBERED = 60.0
"""Seconds after which a search begins at the start again."""
CURSORS_KEPT = 4096

HARMLESS = ~Q(prompt__risk=Prompt.Risk.HARMFUL)


def handed_to(user: Any) -> Exists:
    """Comparisons that this person holds, has judged or has skipped, without expired ones."""
    mine = Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user)
    return Exists(mine.exclude(state=Assignment.State.EXPIRED))


class SearchResult(NamedTuple):
    head: Comparison | None
    is_sure: bool
    """True if no free comparison comes before `head`, or, without a head, if none is free."""


class Cursor(NamedTuple):
    """At the time `began`, no comparison before `key` was free for this person."""

    key: QueueKey | None
    """The columns of a comparison that order its queue, by name; None stands for the queue's end."""
    began: float


class Queue(QueueRows):
    """`QueueRows` with cursors, so that a search need not skip the same comparisons each time."""

    def first(self, locking: Locking, *, is_thorough: bool = False) -> SearchResult:
        """The first free comparison, with its prompt; `locking` "skip" passes over locked rows.

        A thorough search begins at the start. Any other search begins at the cursor, unless the
        cursor is a minute old or one of the first WINDOW comparisons is free for this person.
        """
        cursor = None if is_thorough else cursors.get(self)
        if cursor is not None:
            window = self.window(WINDOW)
            if any(window):
                cursor = None
            elif len(window) < WINDOW:
                return SearchResult(None, is_sure=True)  # The window holds the whole queue.
        if cursor is None:
            return SearchResult(self._search_from_start(locking), is_sure=True)
        return SearchResult(self._search_from(cursor, locking), is_sure=False)

    def count(self, most: int) -> int:
        """The number of free comparisons, counted up to `most`; the order does not matter."""
        for queue in (self, replace(self, at_random=not self.at_random)):
            cursor = cursors.get(queue)
            if cursor is not None:
                if cursor.key is not None and queue.count_from(cursor.key, most) >= most:
                    return most
                break
        # Comparisons before the cursor may have become free, so the whole queue is counted.
        return super().count(most)

    def _search_from_start(self, locking: Locking) -> Comparison | None:
        began = monotonic()
        head, is_near = self.head(WINDOW, locking)
        # A head in the window needs no cursor, and an older cursor stays valid.
        if not is_near:
            cursors.set(self, Cursor(self._key(head), began))
        return head

    def _search_from(self, cursor: Cursor, locking: Locking) -> Comparison | None:
        head = self.head_from(cursor.key, locking) if cursor.key is not None else None
        # The time of the search from the start stays, as only that search saw every comparison.
        cursors.set(self, Cursor(self._key(head), cursor.began))
        return head

    def _key(self, head: Comparison | None) -> QueueKey | None:
        if head is None:
            return None
        names = ["shuffle", "id"] if self.at_random else ["priority", "score", "shuffle", "id"]
        return {name: getattr(head, name) for name in names}


class Cursors:
    """Where people's searches ended, in memory. A lost cursor costs a thorough search."""

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
