"""The queries that every `next` and `submit` runs, as SQL.

Django needs up to 3 ms of processor time to compile one of them, several times what the database
needs to run it, and "next" and "submit" run ten each: docs/decisions/0015-hot-queries-are-sql.md. `Manager.raw` maps columns to
fields by name, so a new field of a model needs no change here. Every other query is a queryset.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar
from uuid import UUID

from django.db import connection
from django.db.models import Model

from annotation.models.comparisons import Batch, Comparison
from annotation.models.content import Prompt
from annotation.models.judging import Assignment, Judgment
from annotation.models.projects import Membership, Project

M = TypeVar("M", bound=Model)
Locking = Literal["", "wait", "skip"]
QueueKey = Mapping[str, Any]
"""The columns of a comparison that order its queue, by name."""

Parameters = list[Any] | dict[str, Any]


def _first(model: type[M], sql: str, parameters: Parameters) -> M | None:
    return next(iter(model._default_manager.raw(sql, parameters)), None)


def _count(sql: str, parameters: Parameters) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM ({sql}) AS counted", parameters)  # noqa: S608
        return int(cursor.fetchone()[0])


def _uuid(uid: UUID) -> Any:
    """As the column of a UUIDField has it: SQLite has no type of its own for it."""
    return Assignment._meta.get_field("uid").get_db_prep_value(uid, connection)


def row(model: type[M], pk: int, *, locking: Locking = "") -> M:
    """The row with this key, locked until the transaction ends if `locking`; DoesNotExist if none."""
    table = model._meta.db_table
    instance = _first(model, f"SELECT * FROM {table} WHERE id = %s {_for_update(locking)}", [pk])  # noqa: S608
    if instance is None:
        raise model.DoesNotExist  # type: ignore[attr-defined]  # every model has its own
    return instance


def _for_update(locking: Locking) -> str:
    # On SQLite the transaction has locked the whole database.
    if not locking or not connection.features.has_select_for_update:
        return ""
    return "FOR UPDATE SKIP LOCKED" if locking == "skip" else "FOR UPDATE"


# --- People ---------------------------------------------------------------------------------------


def membership(user_id: int, slug: str) -> Membership | None:
    """What this person is in the project of this name, with the project."""
    member = _first(
        Membership,
        """SELECT m.* FROM annotation_membership m JOIN annotation_project p ON p.id = m.project_id
        WHERE m.user_id = %s AND p.slug = %s""",
        [user_id, slug],
    )
    if member is not None:
        member.project = row(Project, member.project_id)
    return member


# --- What a person holds --------------------------------------------------------------------------

_OF_WORK = """FROM annotation_assignment a
    JOIN annotation_comparison c ON c.id = a.comparison_id
    JOIN annotation_batch b ON b.id = c.batch_id
    WHERE a.annotator_id = %s AND b.project_id = %s AND b.state = 'open' AND NOT c.is_live"""


def open_keys(user_id: int, project_id: int, most: int) -> list[int]:
    """Keys of this person's leases and of those that ran out and can be taken up again.

    "leased" sorts behind "expired", so every lease comes before the newest of what ran out.
    """
    sql = f"""SELECT a.id {_OF_WORK} AND a.state IN ('leased', 'expired')
        AND (a.state = 'leased' OR c.is_free OR c.gold_id IS NOT NULL)
        ORDER BY a.state DESC, a.leased_at DESC, a.id DESC LIMIT %s"""
    with connection.cursor() as cursor:
        cursor.execute(sql, [user_id, project_id, most])
        return [pk for (pk,) in cursor.fetchall()]


def count_leases(user_id: int, project_id: int) -> int:
    """How many live leases this person has in open batches."""
    return _count(f"SELECT a.id {_OF_WORK} AND a.state = 'leased'", [user_id, project_id])


def own_assignment(uid: UUID, user_id: int, project_id: int) -> Assignment | None:
    """This person's own assignment in this project, unless it is a ruling; with its comparison."""
    assignment = _first(
        Assignment,
        """SELECT a.* FROM annotation_assignment a
        JOIN annotation_comparison c ON c.id = a.comparison_id
        JOIN annotation_batch b ON b.id = c.batch_id
        WHERE a.uid = %s AND a.annotator_id = %s AND b.project_id = %s AND NOT a.is_ruling""",
        [_uuid(uid), user_id, project_id],
    )
    if assignment is not None:
        assignment.comparison = row(Comparison, assignment.comparison_id)
    return assignment


def earlier_judgments(key: UUID, assignment_id: int) -> list[Judgment]:
    """Key and revision of the judgments under this key or of this assignment."""
    sql = """SELECT id, key, revision FROM annotation_judgment
        WHERE key = %s OR assignment_id = %s"""
    return list(Judgment._default_manager.raw(sql, [_uuid(key), assignment_id]))


def count_judged_since(start: datetime, user_id: int, project_id: int) -> int:
    """How many judgments that count this person has given in the project since then."""
    return _count(
        """SELECT j.id FROM annotation_judgment j
        JOIN annotation_assignment a ON a.judgment_id = j.id
        JOIN annotation_comparison c ON c.id = a.comparison_id
        JOIN annotation_batch b ON b.id = c.batch_id
        WHERE a.annotator_id = %s AND b.project_id = %s AND j.excluded_at IS NULL
        AND j.created_at >= %s""",
        [
            user_id,
            project_id,
            Judgment._meta.get_field("created_at").get_db_prep_value(start, connection),
        ],
    )


# --- What there is to judge -----------------------------------------------------------------------


def open_batches(project_id: int) -> list[Batch]:
    """Open batches of work, the first to be handed out first; without live dialogues."""
    sql = """SELECT b.* FROM annotation_batch b
        LEFT JOIN annotation_dialoguecampaign d ON d.batch_id = b.id
        WHERE b.project_id = %s AND b.state = 'open' AND b.qualification IS NULL AND d.id IS NULL
        ORDER BY b.priority DESC, b.opened_at, b.id"""
    return list(Batch._default_manager.raw(sql, [project_id]))


_FREE = "batch_id = %(batch)s AND skill = %(skill)s AND is_free"
# By whether comparisons are drawn at random; each is the order of one index.
_ORDERS = {True: "shuffle, id", False: "priority DESC, score DESC, shuffle, id"}
# What this person holds, judged or skipped; a lease that ran out may come again.
_HAD = """SELECT a.id FROM annotation_assignment a
    WHERE a.comparison_id = annotation_comparison.id AND a.annotator_id = %(user)s
    AND a.state <> 'expired'"""
_HARMLESS = """(SELECT p.risk FROM annotation_prompt p
    WHERE p.id = annotation_comparison.prompt_id) <> 'harmful'"""
_REST_OF_EQUALS = "shuffle >= %(shuffle)s AND (shuffle > %(shuffle)s OR id >= %(id)s)"
# What comes at or after a key, in parts that follow each other. An index answers each; it would not
# answer their OR, as its columns run in different directions.
_FROM_KEY = {
    True: (_REST_OF_EQUALS,),
    False: (
        f"priority = %(priority)s AND score = %(score)s AND {_REST_OF_EQUALS}",
        "priority = %(priority)s AND score < %(score)s",
        "priority < %(priority)s",
    ),
}


@dataclass(frozen=True)
class QueueRows:
    """The free comparisons of one batch that ask for one skill, as one person is handed them."""

    user: int
    batch: int
    skill: str
    at_random: bool
    avoid_harm: bool

    def _select(self, columns: str, *conditions: str, most: int) -> str:
        harmless = [_HARMLESS] if self.avoid_harm else []
        where = " AND ".join([_FREE, *conditions, *harmless])
        return f"""SELECT {columns} FROM annotation_comparison WHERE {where}
            ORDER BY {_ORDERS[self.at_random]} LIMIT {most:d}"""  # noqa: S608

    def _parameters(self, key: QueueKey | None = None) -> dict[str, Any]:
        return {"user": self.user, "batch": self.batch, "skill": self.skill, **(key or {})}

    def head(self, window: int, locking: Locking) -> tuple[Comparison | None, bool]:
        """The first comparison with its prompt; True if it is among the first `window` of all."""
        keys = f"SELECT id FROM annotation_comparison AS near WHERE {_FREE} ORDER BY {_ORDERS[self.at_random]}"  # noqa: S608
        # Mostly it is the very first, and the window need not be read.
        is_near = f"""CASE WHEN id = ({keys} LIMIT 1) THEN 1
            WHEN id IN ({keys} LIMIT {window:d}) THEN 1 ELSE 0 END AS is_near"""
        sql = self._select(f"annotation_comparison.*, {is_near}", f"NOT EXISTS ({_HAD})", most=1)
        head = self._first(sql, locking)
        return head, head is not None and bool(head.is_near)  # type: ignore[attr-defined]  # a column of its own

    def window(self, most: int) -> list[bool]:
        """Of the first `most` that are free, whether this person could be given each."""
        is_theirs = f"({_HAD}) IS NULL" + (f" AND {_HARMLESS}" if self.avoid_harm else "")
        sql = f"""SELECT CASE WHEN {is_theirs} THEN 1 ELSE 0 END FROM annotation_comparison
            WHERE {_FREE} ORDER BY {_ORDERS[self.at_random]} LIMIT {most:d}"""  # noqa: S608
        with connection.cursor() as cursor:
            cursor.execute(sql, self._parameters())
            return [bool(value) for (value,) in cursor.fetchall()]

    def head_from(self, key: QueueKey, locking: Locking) -> Comparison | None:
        """The first comparison at or after `key`, with its prompt."""
        for part in _FROM_KEY[self.at_random]:
            head = self._first(self._select_from("*", part, 1), locking, key)
            if head is not None:
                return head
        return None

    def count(self, most: int) -> int:
        """How many there are, counted as far as `most`."""
        sql = self._select("id", f"NOT EXISTS ({_HAD})", most=most)
        return _count(sql, self._parameters())

    def count_from(self, key: QueueKey, most: int) -> int:
        """How many there are at or after `key`; it stops counting once `most` are found."""
        n = 0
        for part in _FROM_KEY[self.at_random]:
            if n < most:
                n += _count(self._select_from("id", part, most), self._parameters(key))
        return n

    def _select_from(self, columns: str, part: str, most: int) -> str:
        # To answer NOT EXISTS, PostgreSQL may decide to read all that this person ever had; this
        # form is looked up row by row, for few rows of many.
        return self._select(columns, part, f"({_HAD}) IS NULL", most=most)

    def _first(self, sql: str, locking: Locking, key: QueueKey | None = None) -> Comparison | None:
        head = _first(Comparison, f"{sql} {_for_update(locking)}", self._parameters(key))
        if head is not None:
            head.prompt = row(Prompt, head.prompt_id)
        return head
