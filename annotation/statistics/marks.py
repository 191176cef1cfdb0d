"""One person's marks on each attribute, and votes on safety, against those of the others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from annotation.statistics.agreement import ordinal_distances
from annotation.statistics.agreement_by_person import right_by_others
from annotation.statistics.dawid_skene import Floats, dawid_skene
from annotation.statistics.estimates import (
    MIN_VOTES,
    NO_HABIT,
    Estimate,
    Habit,
    holm,
    mean_or_none,
    ratio_with_interval,
    sign_test,
)
from annotation.statistics.labels import Marks


@dataclass(frozen=True)
class Marked:
    """What can be said of one annotator's marks on one attribute, or of their votes on safety."""

    measure: str
    n_marks: int
    reliability: Estimate
    agreement: Estimate
    skill: Estimate
    constant: Habit
    """Share of their commonest mark; expected is the others' share of it on the same responses."""


@dataclass
class MarkTable:
    """Marks on one thing, row by row against what the others gave the same responses."""

    marks: Marks
    right: Floats
    """The chance that it is right, by everybody else's marks."""
    others: Floats
    """(rows, values): how many of the others gave each mark."""
    shared: npt.NDArray[np.bool_]
    same: Floats
    """Share of the others who gave the same."""
    apart: Floats
    """Mean distance to the others' marks, where two marks of the project are 1 apart on average."""
    by_chance: Floats
    """Mean distance to any mark of the others: what this mark would get on another response."""

    @classmethod
    def of(cls, marks: Marks) -> "MarkTable":
        size = len(marks.values)
        rows = np.arange(len(marks.item))
        model = dawid_skene(marks.item, marks.person, marks.label, size, prior=2.0)
        flat = np.bincount(marks.item * size + marks.label, minlength=marks.n_items * size)
        others = flat.reshape(-1, size)[marks.item].astype(np.float64)
        others[rows, marks.label] -= 1
        n_others = others.sum(axis=1)
        totals = np.bincount(marks.label, minlength=size).astype(np.float64)
        distance = ordinal_distances(totals)
        shares = totals / totals.sum()
        if (mean := float(shares @ distance @ shares)) > 0:
            distance = distance / mean
        n_people = int(marks.person.max()) + 1
        own = np.bincount(marks.person * size + marks.label, minlength=n_people * size)
        rest = totals - own.reshape(n_people, size)[marks.person]
        to_each = distance[marks.label]
        return cls(
            marks,
            right_by_others(marks, model),
            others,
            n_others > 0,
            others[rows, marks.label] / np.maximum(n_others, 1),
            (others * to_each).sum(axis=1) / np.maximum(n_others, 1),
            (rest * to_each).sum(axis=1) / np.maximum(rest.sum(axis=1), 1),
        )

    def of_person(self, number: int) -> Marked:
        marks, mine = self.marks, self.marks.person == number
        both = mine & self.shared
        commonest = int(np.bincount(marks.label[mine]).argmax())
        gave = (marks.label == commonest).astype(np.float64)
        they = self.others[:, commonest] / np.maximum(self.others.sum(axis=1), 1)
        tested = len(np.unique(marks.unit[mine])) >= MIN_VOTES
        return Marked(
            marks.measure,
            int(mine.sum()),
            ratio_with_interval(self.right, np.ones_like(self.right), marks.unit, both)[0],
            ratio_with_interval(self.same, np.ones_like(self.same), marks.unit, both)[0],
            ratio_with_interval(self.by_chance - self.apart, self.by_chance, marks.unit, both)[0],
            Habit(
                mean_or_none(gave[mine]),
                mean_or_none(they[both]),
                int(mine.sum()),
                *sign_test(gave - they, marks.unit, both, tested=tested),
            ),
        )


def over_all_marks(
    tables: list[MarkTable], number: int
) -> tuple[tuple[Estimate, Estimate, Estimate], Floats]:
    """One person's reliability, agreement and skill over everything that is marked, and the skill's
    bootstrap. What everybody always gives the same mark says nothing of anybody and is left out."""
    used = [table for table in tables if len(table.marks.values) > 1]
    if not used:
        return (Estimate(None), Estimate(None), Estimate(None)), np.array([])

    def joined(name: str) -> Any:
        return np.concatenate([getattr(table, name) for table in used])

    unit = np.concatenate([table.marks.unit for table in used])
    mask = joined("shared") & (np.concatenate([table.marks.person for table in used]) == number)
    right, same, by_chance = joined("right"), joined("same"), joined("by_chance")
    reliability, _ = ratio_with_interval(right, np.ones_like(right), unit, mask)
    agreement, _ = ratio_with_interval(same, np.ones_like(same), unit, mask)
    skill, skills = ratio_with_interval(by_chance - joined("apart"), by_chance, unit, mask)
    return (reliability, agreement, skill), skills


def surest_constant(marked: Sequence[Marked]) -> Habit:
    """Of one person's habits of giving one mark: the surest, its p multiplied by their number."""
    habits = [one_measure.constant for one_measure in marked if one_measure.constant.p is not None]
    if not habits:
        return NO_HABIT
    surest = min(habits, key=lambda habit: habit.p or 0.0)
    return replace(surest, p=min(1.0, (surest.p or 0.0) * len(habits)))


def adjust_constants(marked_by_person: Sequence[Sequence[Marked]]) -> list[tuple[Marked, ...]]:
    """The same marks of each person, with the p of each `constant` adjusted over the people (Holm)."""
    adjusted = [list(marked) for marked in marked_by_person]
    places: dict[str, list[tuple[int, int]]] = {}
    for person, marked in enumerate(adjusted):
        for place, one_measure in enumerate(marked):
            places.setdefault(one_measure.measure, []).append((person, place))
    for where in places.values():
        ps = holm([adjusted[person][place].constant.p for person, place in where])
        for (person, place), p in zip(where, ps, strict=True):
            before = adjusted[person][place]
            adjusted[person][place] = replace(before, constant=replace(before.constant, p=p))
    return [tuple(marked) for marked in adjusted]
