"""How far each annotator can be relied on. Plain arithmetic over votes; knows no database.

A vote is one person's ranking of one comparison on one axis, in the order in which it was shown to
them; a rating is what they said of each response of one by itself: marks, and safe or not. Every
figure is per person, over all axes together unless said otherwise:

- **reliability**: the chance that what they say about a pair is right, by a Dawid-Skene model
  (Dawid & Skene 1979, Applied Statistics 28) whose labels are "first better, tie, second better".
  A person's own votes are divided out of the answer they are measured against.
- **skill**: agreement with the others beyond what chance gives, 0 (nothing) to 1 (always).
- **position**, **length**, **ties**: habits, each with a test. The shown order is drawn for
  each person, so an order-blind person favors the earlier of two with probability 1/2 whatever the
  answers are; length and ties are held against what others said about the same pairs.
- **pattern**: the same ranks at the same places again and again.
- **marks**: on each attribute and on the vote on safety by itself, reliability (Dawid-Skene with one
  class a mark: the chance of the very mark), agreement (the same mark), skill, and **constant**: the
  commonest mark, against how often the others gave it to the same responses. Where nothing is
  compared, the first three are over all marks together.
- **speed**: characters a second, against what people read and against the others.
- **spam**: one number from 0 to 1 with its reasons in words; from 0.5 on somebody should look.

Tests are self-normalized sums over comparisons: z = sum(d) / sqrt(sum(d^2)), where d is one
comparison's sum over its pairs and axes. That holds however the pairs of one comparison hang
together. p-values are two-sided and adjusted over the people of one call (Holm 1979).
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from annotation.statistics.agreement_by_person import agreement_with_others, right_by_others
from annotation.statistics.consensus import Consensus, consensus
from annotation.statistics.dawid_skene import (
    DawidSkene,
    Floats,
    class_probabilities,
    dawid_skene,
)
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
from annotation.statistics.habits import gap_to_others, reading_speeds, repeated_patterns
from annotation.statistics.labels import TIE, Pairs, Rating, Vote, marks_of, pairs_of
from annotation.statistics.marks import (
    MarkTable,
    adjust_constants,
    over_all_marks,
    surest_constant,
)
from annotation.statistics.profiles import Profile
from annotation.statistics.spam import suspicion


@dataclass
class Quality:
    """The people of a set of votes, and what they hold for true together."""

    profiles: dict[Hashable, Profile]
    pairs: Pairs
    model: DawidSkene | None
    _probabilities: dict[tuple[str, Hashable], dict[tuple[int, int], Floats]] = field(
        default_factory=dict, repr=False
    )
    _weights: dict[str, dict[Hashable, float]] = field(default_factory=dict, repr=False)

    def consensus(self, axis: str, comparison: Hashable) -> Consensus | None:
        """The ranking that everybody's votes make, each weighted by how reliable they are."""
        if self.model is None:
            return None
        if not self._probabilities:
            for number, (pair_axis, unit, a, b) in enumerate(self.pairs.items):
                pairs = self._probabilities.setdefault((pair_axis, unit), {})
                pairs[a, b] = self.model.truth[number]
        probabilities = self._probabilities.get((axis, comparison))
        return consensus(probabilities) if probabilities else None

    def weight(self, annotator: Hashable, measure: str) -> float:
        """How much a person's mark counts in a consensus: their skill on it, .01 to 1.

        The median of the others for a person without a known skill; 1 for a measure without any.
        """
        if measure not in self._weights:
            skills = {
                who: marked.skill.value
                for who, profile in self.profiles.items()
                for marked in profile.marks
                if marked.measure == measure and marked.skill.value is not None
            }
            self._weights[measure] = {
                None: median(skills.values()) if skills else 1.0,
                **skills,
            }
        known = self._weights[measure]
        return min(1.0, max(0.01, known.get(annotator, known[None])))


@dataclass(frozen=True)
class Known:
    """The weights of a Quality without its votes: small enough for the cache."""

    profiles: dict[Hashable, Profile]
    confusion: dict[Hashable, Floats]
    classes: Floats | None

    @classmethod
    def of(cls, quality: Quality) -> "Known":
        if quality.model is None:
            return cls(quality.profiles, {}, None)
        confusion = dict(zip(quality.pairs.people, quality.model.confusion, strict=False))
        return cls(quality.profiles, confusion, quality.model.classes)

    def weighing(self, votes: Iterable[Vote]) -> Quality:
        """The consensus of these votes, weighted by what is known of their people.

        A person who is not known yet counts as the others do on average.
        """
        pairs = pairs_of(votes)
        model = None
        if len(pairs.item) and self.classes is not None:
            average: Floats = np.mean(list(self.confusion.values()), axis=0)
            confusion = np.stack([self.confusion.get(who, average) for who in pairs.people])
            truth, likelihood = class_probabilities(
                pairs.item, pairs.person, pairs.label, confusion, self.classes, len(pairs.items)
            )
            model = DawidSkene(truth, confusion, self.classes, likelihood, 0)
        return Quality(self.profiles, pairs, model)


@dataclass
class PairTable:
    """Every pair that somebody ranked, row by row against what the others said about it."""

    pairs: Pairs
    model: DawidSkene | None
    right: Floats
    """The chance that the label is right, by everybody else's labels."""
    agreed: Floats
    chance: Floats
    shared: Any
    """(rows,) bool: whether somebody else ranked the pair too."""
    chose: Any
    """(rows,) bool: whether it is no tie and the lengths differ."""
    length_gap: Floats
    others_longer: Floats
    tie_gap: Floats
    others_tie: Floats

    @classmethod
    def of(cls, pairs: Pairs) -> "PairTable":
        model, right = None, np.zeros(0)
        if len(pairs.item):
            model = dawid_skene(pairs.item, pairs.person, pairs.label, 3, prior=2.0, mirror=True)
            right = right_by_others(pairs, model)
        shared = np.bincount(pairs.item)[pairs.item] > 1
        chose = (pairs.has_longer == 1) & (pairs.label != TIE)
        return cls(
            pairs,
            model,
            right,
            *agreement_with_others(pairs),
            shared,
            chose,
            *gap_to_others(pairs, pairs.longer > 0, chose),
            *gap_to_others(pairs, pairs.label == TIE, np.ones_like(chose)),
        )

    def agreement_of(self, number: int) -> tuple[tuple[Estimate, Estimate, Estimate], Floats]:
        """One person's reliability, agreement and skill, and the skill's bootstrap."""
        unit, rows = self.pairs.unit, (self.pairs.person == number) & self.shared
        reliability, _ = ratio_with_interval(self.right, np.ones_like(self.right), unit, rows)
        agreement, _ = ratio_with_interval(self.agreed, np.ones_like(self.agreed), unit, rows)
        skill, skills = ratio_with_interval(self.agreed - self.chance, 1 - self.chance, unit, rows)
        return (reliability, agreement, skill), skills

    def habits_of(self, number: int, *, tested: bool) -> tuple[Habit, Habit, Habit]:
        """One person's habits with positions, lengths and ties; p is not adjusted yet."""
        pairs = self.pairs
        mine = pairs.person == number
        shared = mine & self.shared
        decided = mine & (pairs.label != TIE)
        of_length = mine & self.chose
        length_shared = of_length & ~np.isnan(self.others_longer)
        position = Habit(
            mean_or_none(pairs.earlier[decided] > 0),
            0.5,
            int(decided.sum()),
            *sign_test(pairs.earlier, pairs.unit, mine, tested=tested),
        )
        length = Habit(
            mean_or_none(pairs.longer[of_length] > 0),
            mean_or_none(self.others_longer[length_shared]),
            int(of_length.sum()),
            *sign_test(self.length_gap, pairs.unit, length_shared, tested=tested),
        )
        ties = Habit(
            mean_or_none(pairs.label[mine] == TIE),
            mean_or_none(self.others_tie[shared]),
            int(mine.sum()),
            *sign_test(self.tie_gap, pairs.unit, shared, tested=tested),
        )
        return position, length, ties


def assess(votes: Iterable[Vote], ratings: Iterable[Rating] = ()) -> Quality:
    """The profile of every annotator. People with fewer than MIN_VOTES comparisons get no tests."""
    votes, ratings = list(votes), list(ratings)
    pairs = pairs_of(votes)
    mark_tables = [MarkTable.of(marks) for marks in marks_of(ratings, pairs)]
    table = PairTable.of(pairs)
    speeds = reading_speeds([*votes, *ratings], pairs.people)
    patterns = repeated_patterns(votes)

    profiles: list[Profile] = []
    pair_skills: list[Floats] = []
    mark_skills: list[tuple[Estimate, Floats]] = []
    for number, person in enumerate(pairs.people):
        own = [marks for marks in mark_tables if (marks.marks.person == number).any()]
        rated = [marks.marks.unit[marks.marks.person == number] for marks in own]
        mine = pairs.person == number
        n_units = len(np.unique(np.concatenate([pairs.unit[mine], *rated])))
        estimates, skills = table.agreement_of(number)
        mark_estimates, skills_on_marks = over_all_marks(mark_tables, number)
        if table.model is None:
            estimates = mark_estimates
        marked = tuple(marks.of_person(number) for marks in own)
        profiles.append(
            Profile(
                person,
                n_units,
                int(mine.sum()),
                *estimates,
                *table.habits_of(number, tested=n_units >= MIN_VOTES),
                patterns.get(person, NO_HABIT),
                speeds[person],
                marks=marked,
                constant=surest_constant(marked),
            )
        )
        pair_skills.append(skills)
        mark_skills.append((mark_estimates[2], skills_on_marks))

    profiles = _adjusted(profiles)
    usual = _median(profile.skill.value for profile in profiles) if table.model else 0.0
    usual_mark = _median(skill.value for skill, _ in mark_skills)
    suspected: dict[Hashable, Profile] = {}
    for profile, skills, (_, skills_on_marks) in zip(
        profiles, pair_skills, mark_skills, strict=True
    ):
        evidence = [(skills, usual), (skills_on_marks, usual_mark)]
        spam, reasons = suspicion(profile, evidence)
        suspected[profile.annotator] = replace(profile, spam=spam, reasons=reasons)
    return Quality(suspected, pairs, table.model)


def _adjusted(profiles: list[Profile]) -> list[Profile]:
    """The same profiles with each habit's p adjusted over the people (Holm 1979)."""
    marks = adjust_constants([profile.marks for profile in profiles])
    profiles = [replace(p, marks=marked) for p, marked in zip(profiles, marks, strict=True)]
    for name in ("position", "length", "ties", "pattern", "constant"):
        habits: list[Habit] = [getattr(profile, name) for profile in profiles]
        ps = holm([habit.p for habit in habits])
        profiles = [
            replace(profile, **dict[str, Any]({name: replace(habit, p=p)}))
            for profile, habit, p in zip(profiles, habits, ps, strict=True)
        ]
    return profiles


def _median(values: Iterable[float | None]) -> float:
    """The median of those that are known; 0 without any."""
    known = [value for value in values if value is not None]
    return median(known) if known else 0.0
