"""What is free for a person in a batch, and the first of it, however far they are ahead.

Where several people judge each comparison, what somebody has had stays free for the others and comes
first in the index. A look that steps over all of it costs the more the further they are ahead. So
how far such a look came is remembered for a minute, and the next one begins there
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
"""Among so many that come first, a look misses nothing, wherever the last one ended."""
REMEMBERED = 60.0
"""Seconds after which a person is looked for from the start again."""
CURSORS_KEPT = 4096

HARMLESS = ~Q(prompt__risk=Prompt.Risk.HARMFUL)


def had(user: Any) -> Exists:
    """Comparisons that this person holds, judged or skipped. What merely ran out may come again."""
    mine = Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user)
    return Exists(mine.exclude(state=Assignment.State.EXPIRED))


class Look(NamedTuple):
    head: Comparison | None
    is_sure: bool
    """Nothing free comes before `head`; without a head, nothing is free at all."""


class Cursor(NamedTuple):
    """When `began`, nothing that comes before `key` was free for this person."""

    key: QueueKey | None
    """The columns of a comparison that order its queue, by name; None stands for the queue's end."""
    began: float


class Queue(QueueRows):
    """`QueueRows` with cursors: what somebody has had is not stepped over each time."""

    def first(self, locking: Locking, *, is_thorough: bool = False) -> Look:
        """The first one, with its prompt; locked, or locked unless others hold it ("skip").

        A thorough look begins at the start. Any other begins where the last one ended, unless that
        was a minute ago or one of the first WINDOW is free for this person.
        """
        cursor = None if is_thorough else cursors.get(self)
        if cursor is not None:
            window = self.window(WINDOW)
            if any(window):
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
                if cursor.key is not None and queue.count_from(cursor.key, most) >= most:
                    return most
                break
        # Fewer from there on may be more in all: some may have come free before the cursor.
        return super().count(most)

    def _from_the_start(self, locking: Locking) -> Comparison | None:
        began = monotonic()
        head, is_near = self.head(WINDOW, locking)
        # Who is not ahead needs no cursor, and an older one stays true.
        if not is_near:
            cursors.set(self, Cursor(self._key(head), began))
        return head

    def _from(self, cursor: Cursor, locking: Locking) -> Comparison | None:
        head = self.head_from(cursor.key, locking) if cursor.key is not None else None
        # It still speaks of when the look from the start began.
        cursors.set(self, Cursor(self._key(head), cursor.began))
        return head

    def _key(self, head: Comparison | None) -> QueueKey | None:
        if head is None:
            return None
        names = ["shuffle", "id"] if self.at_random else ["priority", "score", "shuffle", "id"]
        return {name: getattr(head, name) for name in names}


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
