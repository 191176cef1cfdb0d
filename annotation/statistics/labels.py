"""Votes and ratings as labels: one row per pair of responses, or per marked response.

A vote is one person's ranking of one comparison on one axis, in the order in which the responses
were shown; a rating is what they said of each response by itself: marks, and safe or not.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from annotation.protocols import BELOW
from annotation.statistics.dawid_skene import Ints

FIRST, TIE, SECOND = 0, 1, 2


class Vote(NamedTuple):
    """One person's ranking of one comparison on one axis.

    The last three run in the order in which the responses were shown: their ids, their ranks (1 is
    best, None was not ranked, BELOW is behind all that were) and their lengths in characters. `seconds` is for the whole
    comparison, the same on each axis.
    """

    annotator: Hashable
    comparison: Hashable
    responses: tuple[int, ...]
    ranks: tuple[int | None, ...]
    lengths: tuple[int, ...]
    seconds: float | None = None
    axis: str = ""
    texts: tuple[int, ...] = ()
    """Equal numbers where the texts are equal: such a pair says nothing. Empty: all differ."""


class Rating(NamedTuple):
    """What one person said of each response of one comparison by itself.

    `marks` is `{attribute or vote: one value a response, None where there is none}`, in the order in
    which `responses` (ids) were shown; `lengths` and `seconds` as in a Vote.
    """

    annotator: Hashable
    comparison: Hashable
    responses: tuple[int, ...]
    marks: Mapping[str, tuple[int | None, ...]]
    lengths: tuple[int, ...]
    seconds: float | None = None


@dataclass
class Pairs:
    """Votes taken apart: one row per pair of responses that somebody ranked both of.

    Of a pair the response with the smaller id comes first, for every annotator. `item` numbers pairs on
    one axis, `unit` numbers comparisons, `vote` is the row of the vote.
    """

    people: list[Hashable]
    units: list[Hashable]
    items: list[tuple[str, Hashable, int, int]]
    person: Ints
    unit: Ints
    item: Ints
    label: Ints
    earlier: Ints
    """+1 where the one shown earlier won, -1 where it lost, 0 for a tie."""
    longer: Ints
    """+1 where the longer one won, -1 where it lost, 0 for a tie or equal lengths."""
    has_longer: Ints


def pairs_of(votes: Iterable[Vote]) -> Pairs:
    people: dict[Hashable, int] = {}
    units: dict[Hashable, int] = {}
    items: dict[tuple[str, Hashable, int, int], int] = {}
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    for vote in votes:
        person = people.setdefault(vote.annotator, len(people))
        unit = units.setdefault(vote.comparison, len(units))
        texts = vote.texts or vote.responses
        ranked = [
            (pk, rank, length, text)
            for pk, rank, length, text in zip(
                vote.responses, vote.ranks, vote.lengths, texts, strict=True
            )
            if rank is not None
        ]
        for (a, rank_a, long_a, text_a), (b, rank_b, long_b, text_b) in combinations(ranked, 2):
            if rank_a == rank_b == BELOW or text_a == text_b:
                continue
            won = (rank_b > rank_a) - (rank_b < rank_a)  # +1: a, the one shown earlier, is better
            label = 1 - (won if a < b else -won)
            item = items.setdefault((vote.axis, vote.comparison, min(a, b), max(a, b)), len(items))
            longer = won * ((long_a > long_b) - (long_a < long_b))
            rows.append((person, unit, item, label, won, longer, int(long_a != long_b)))
    table = np.array(rows, dtype=np.int64).reshape(-1, 7)
    return Pairs(list(people), list(units), list(items), *table.T)


@dataclass
class Marks:
    """Marks on one attribute, or votes on safety: one row per response that somebody marked.

    `label` is the place of a mark among `values`; people and units are numbered as in the Pairs.
    """

    measure: str
    values: list[int]
    person: Ints
    unit: Ints
    item: Ints
    label: Ints
    n_items: int


def marks_of(ratings: Iterable[Rating], pairs: Pairs) -> list[Marks]:
    """A table for each thing that was marked; `pairs` gets the people and units that only rated."""
    people = {who: number for number, who in enumerate(pairs.people)}
    units = {unit: number for number, unit in enumerate(pairs.units)}
    items: dict[str, dict[tuple[Hashable, int], int]] = {}
    rows: dict[str, list[tuple[int, int, int, int]]] = {}
    for rating in ratings:
        person = people.setdefault(rating.annotator, len(people))
        unit = units.setdefault(rating.comparison, len(units))
        for measure, values in rating.marks.items():
            known = items.setdefault(measure, {})
            for pk, value in zip(rating.responses, values, strict=True):
                if value is not None:
                    item = known.setdefault((rating.comparison, pk), len(known))
                    rows.setdefault(measure, []).append((person, unit, item, value))
    pairs.people, pairs.units = list(people), list(units)
    tables = []
    for measure, measured in rows.items():
        person_, unit_, item_, given = np.array(measured, dtype=np.int64).T
        marks, label = np.unique(given, return_inverse=True)
        tables.append(
            Marks(measure, marks.tolist(), person_, unit_, item_, label, len(items[measure]))
        )
    return tables
