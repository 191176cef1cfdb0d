"""How far each annotator can be relied on. Plain arithmetic over votes; knows no database.

A vote is one person's ranking of one comparison on one axis, in the order in which it was shown to
them; a rating is what they said of each response of one by itself: marks, and safe or not. Every
figure is per person, over all axes together unless said otherwise:

- **reliability**: the chance that what they say about a pair is right, by a Dawid-Skene model
  (Dawid & Skene 1979, Applied Statistics 28) whose labels are "first better, tie, second better".
  A person's own votes are divided out of the answer they are measured against.
- **skill**: agreement with the others beyond what chance gives, 0 (nothing) to 1 (always).
- **position**, **length**, **ties**: habits, each with a test. The shown order is drawn anew for
  each person, so an order-blind person favours the earlier of two with probability 1/2 whatever the
  answers are; length and ties are held against what others said about the same pairs.
- **pattern**: the same ranks at the same places again and again.
- **marks**: on each attribute and on the vote on safety by itself, reliability (Dawid-Skene with one
  class a mark: the chance of the very mark), agreement (the same mark), skill, and **constant**: the
  commonest mark, against how often the others gave it to the same responses. Where nothing is
  compared, the first three are over all marks together.
- **speed**: characters a second, against what people read and against the others.
- **spam**: one number from 0 to 1 with its reasons in words; from 0.5 on somebody should look.

Tests are self-normalised sums over comparisons: z = sum(d) / sqrt(sum(d^2)), where d is one
comparison's sum over its pairs and axes. That holds however the pairs of one comparison hang
together. p-values are two-sided and adjusted over the people of one call (Holm 1979).
"""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from annotation.protocols import BELOW
from annotation.statistics.agreement import ordinal_distances, resampled_sums

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST, TIE, SECOND = 0, 1, 2
# Fast readers read about 7 words a second and skimming is about 12 (Rayner and others 2016); nobody
# compares at 15, which is 90 characters.
MAX_CHARACTERS_A_SECOND = 90.0
# Modified z-score beyond which a value is an outlier (Iglewicz & Hoaglin 1993).
OUTLIER = 3.5
# Below this many votes nothing is said about a person's habits.
MIN_VOTES = 8
SURE = 0.001
SPAM = 0.5


def gettext_noop(text: str) -> str:
    """Marks a text for the catalogue. Django's own asks for settings, and arithmetic has none."""
    return text


# Why somebody should be looked at. English, as it is kept for a while: the pages translate it.
AGREES_BY_CHANCE = gettext_noop("Agrees with the others hardly more often than chance would.")
MARKS_BY_CHANCE = gettext_noop("Marks agree with the others hardly more often than chance would.")
PREFERS_FIRST = gettext_noop("Prefers what is shown first, whatever it says.")
PREFERS_LAST = gettext_noop("Prefers what is shown last, whatever it says.")
REPEATS_PLACES = gettext_noop("Gives the same places the same ranks again and again.")
FOLLOWS_LENGTH = gettext_noop("Follows length: nearly always prefers the longer one.")
FOLLOWS_SHORTNESS = gettext_noop("Follows length: nearly always prefers the shorter one.")
TIES_EVERYTHING = gettext_noop("Ties nearly everything where others see a difference.")
MARKS_ALIKE = gettext_noop("Gives nearly everything the same mark where others see a difference.")
TOO_FAST = gettext_noop("Answers faster than anybody reads.")


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


# --- Dawid and Skene ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class DawidSkene:
    """A fitted model of `n_people` who label `n_items` with one of C classes.

    truth: (items, C), how probable each class is for each item. confusion: (people, C, C), the
    chance that a person says column when row is true. classes: (C,), how common each class is.
    """

    truth: Floats
    confusion: Floats
    classes: Floats
    log_likelihood: float
    steps: int


def dawid_skene(
    items: Sequence[int] | Ints,
    people: Sequence[int] | Ints,
    labels: Sequence[int] | Ints,
    n_classes: int,
    *,
    prior: float = 0.0,
    mirror: bool = False,
    max_steps: int = 300,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Maximum likelihood by EM, begun at the shares of votes (Dawid & Skene 1979, eq. 2.3 to 3.1).

    items, people, labels: one row per label, numbered from 0. `prior` adds that many right labels
    per class to every person, spread 2 : 1 over right and wrong ones, so that few votes do not make
    somebody infallible; 0 is the published method. `mirror` says that the classes read the same
    backwards (first better / second better), so that which came first cannot matter.
    ValueError without rows.
    """
    item, person, label = (np.asarray(of, dtype=np.int64) for of in (items, people, labels))
    if not len(item):
        raise ValueError("Dawid-Skene needs at least one label.")
    n_items, n_people, c = int(item.max()) + 1, int(person.max()) + 1, n_classes
    truth = np.bincount(item * c + label, minlength=n_items * c).reshape(n_items, c).astype(float)
    if mirror:
        truth += prior * 1e-3  # an item with one opinion is not certain at the start
    truth /= truth.sum(axis=1, keepdims=True)
    pseudo = prior * np.where(np.eye(c, dtype=bool), 2.0, 1.0 / max(c - 1, 1)) / 3.0
    before = -math.inf
    step = 0
    while step < max_steps:
        step += 1
        # M: how common each class is, and what each person says when it is true.
        classes = truth.mean(axis=0)
        where = person * c + label
        counted = np.stack(
            [np.bincount(where, weights=truth[item, j], minlength=n_people * c) for j in range(c)],
            axis=1,
        )
        confusion = counted.reshape(n_people, c, c).transpose(0, 2, 1) + pseudo
        if mirror:
            classes = (classes + classes[::-1]) / 2
            confusion = (confusion + confusion[:, ::-1, ::-1]) / 2
        rows = confusion.sum(axis=2, keepdims=True)
        confusion = np.divide(confusion, rows, out=np.full_like(confusion, 1 / c), where=rows > 0)
        # E: how probable each class is, given what everybody said.
        truth, likelihood = _truth(item, person, label, confusion, classes, n_items)
        if abs(likelihood - before) < tolerance * max(1.0, abs(likelihood)):
            break
        before = likelihood
    return DawidSkene(truth, confusion, classes, likelihood, step)


def _truth(
    item: Ints, person: Ints, label: Ints, confusion: Floats, classes: Floats, n_items: int
) -> tuple[Floats, float]:
    """How probable each class is for each item, and the log likelihood of the labels."""
    logs = np.log(np.maximum(confusion, 1e-300))
    evidence = np.stack(
        [
            np.bincount(item, weights=logs[person, j, label], minlength=n_items)
            for j in range(len(classes))
        ],
        axis=1,
    ) + np.log(np.maximum(classes, 1e-300))
    top = evidence.max(axis=1, keepdims=True)
    shares = np.exp(evidence - top)
    total = shares.sum(axis=1, keepdims=True)
    return shares / total, float((top + np.log(total)).sum())


# --- Votes as labels of pairs ----------------------------------------------------------------------------


@dataclass
class Pairs:
    """Votes taken apart: one row per pair of responses that somebody ranked both of.

    Of a pair the response with the smaller id comes first, whoever sees it. `item` numbers pairs on
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
        ranked = [
            (pk, rank, length)
            for pk, rank, length in zip(vote.responses, vote.ranks, vote.lengths, strict=True)
            if rank is not None
        ]
        for (a, rank_a, long_a), (b, rank_b, long_b) in combinations(ranked, 2):
            if rank_a == rank_b == BELOW:
                continue
            won = (rank_b > rank_a) - (rank_b < rank_a)  # +1: a, the one shown earlier, is better
            said = won if a < b else -won
            item = items.setdefault((vote.axis, vote.comparison, min(a, b), max(a, b)), len(items))
            longer = won * ((long_a > long_b) - (long_a < long_b))
            rows.append((person, unit, item, 1 - said, won, longer, int(long_a != long_b)))
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
    found = []
    for measure, told in rows.items():
        person_, unit_, item_, given = np.array(told, dtype=np.int64).T
        marks, label = np.unique(given, return_inverse=True)
        found.append(
            Marks(measure, marks.tolist(), person_, unit_, item_, label, len(items[measure]))
        )
    return found


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval (percentile bootstrap over comparisons) and what it rests on."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True)
class Habit:
    """How often somebody does a thing, how often was to be expected, and how sure the difference is.

    `p` is None where there is too little to test; `n` counts pairs.
    """

    share: float | None
    expected: float | None
    n: int = 0
    z: float | None = None
    p: float | None = None


@dataclass(frozen=True)
class Speed:
    """Characters a second (median over comparisons) and how far that lies from the others' median."""

    median_seconds: float | None = None
    characters_a_second: float | None = None
    z: float | None = None
    n: int = 0

    @property
    def is_fast(self) -> bool:
        rate = self.characters_a_second
        return rate is not None and self.n >= MIN_VOTES and rate > MAX_CHARACTERS_A_SECOND

    @property
    def is_outlier(self) -> bool:
        return self.z is not None and abs(self.z) > OUTLIER


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


@dataclass(frozen=True)
class Profile:
    """What can be said of one annotator. `spam` is from 0 to 1; `reasons` are sentences."""

    annotator: Hashable
    n_votes: int
    n_pairs: int
    reliability: Estimate
    agreement: Estimate
    skill: Estimate
    position: Habit
    length: Habit
    ties: Habit
    pattern: Habit
    speed: Speed
    spam: float = 0.0
    reasons: tuple[str, ...] = ()
    marks: tuple[Marked, ...] = ()
    constant: Habit = Habit(None, None)
    """Of the habits of giving one mark: the surest, p times the number of things marked."""

    @property
    def is_suspect(self) -> bool:
        return self.spam >= SPAM


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

    def consensus(self, axis: str, comparison: Hashable) -> "Consensus | None":
        """The ranking that everybody's votes make, each weighed by how reliable they are."""
        if self.model is None:
            return None
        if not self._probabilities:
            for number, (of_axis, unit, a, b) in enumerate(self.pairs.items):
                found = self._probabilities.setdefault((of_axis, unit), {})
                found[a, b] = self.model.truth[number]
        probabilities = self._probabilities.get((axis, comparison))
        return consensus(probabilities) if probabilities else None

    def weight(self, annotator: Hashable, measure: str) -> float:
        """How much somebody's mark counts in a consensus: their skill on it, .01 to 1.

        Of whom nothing is known, the middle of the others; of a mark of which nothing is known, 1.
        """
        if measure not in self._weights:
            skills = {
                who: of.skill.value
                for who, profile in self.profiles.items()
                for of in profile.marks
                if of.measure == measure and of.skill.value is not None
            }
            self._weights[measure] = {
                None: median(skills.values()) if skills else 1.0,
                **skills,
            }
        known = self._weights[measure]
        return min(1.0, max(0.01, known.get(annotator, known[None])))


@dataclass(frozen=True)
class Known:
    """What a Quality says of its people without their votes: little, so that it can be kept."""

    profiles: dict[Hashable, Profile]
    confusion: dict[Hashable, Floats]
    classes: Floats | None

    @classmethod
    def of(cls, found: Quality) -> "Known":
        if found.model is None:
            return cls(found.profiles, {}, None)
        confusion = dict(zip(found.pairs.people, found.model.confusion, strict=False))
        return cls(found.profiles, confusion, found.model.classes)

    def weighing(self, votes: Iterable[Vote]) -> Quality:
        """The consensus of these votes, by what is known of their people.

        Somebody who is not known yet counts as the others do on average.
        """
        pairs = pairs_of(votes)
        model = None
        if len(pairs.item) and self.classes is not None:
            middle: Floats = np.mean(list(self.confusion.values()), axis=0)
            confusion = np.stack([self.confusion.get(who, middle) for who in pairs.people])
            truth, likelihood = _truth(
                pairs.item, pairs.person, pairs.label, confusion, self.classes, len(pairs.items)
            )
            model = DawidSkene(truth, confusion, self.classes, likelihood, 0)
        return Quality(self.profiles, pairs, model)


def assess(votes: Iterable[Vote], ratings: Iterable[Rating] = ()) -> Quality:
    """Everything about everybody. People with fewer than MIN_VOTES comparisons get no tests."""
    votes, ratings = list(votes), list(ratings)
    pairs = pairs_of(votes)
    tables = [_Compared.of(marks) for marks in marks_of(ratings, pairs)]
    n = len(pairs.people)
    compares = bool(len(pairs.item))
    model = None
    right = np.zeros(0)
    if compares:
        model = dawid_skene(pairs.item, pairs.person, pairs.label, 3, prior=2.0, mirror=True)
        right = _right_by_others(pairs, model)
    opinions = np.bincount(pairs.item)
    shared = opinions[pairs.item] > 1
    agreed, chance = _agreement_with_others(pairs)
    chose = (pairs.has_longer == 1) & (pairs.label != TIE)
    length_gap, others_longer = _against_others(pairs, pairs.longer > 0, chose)
    tie_gap, others_tie = _against_others(pairs, pairs.label == TIE, np.ones_like(chose))
    speeds = _speeds([*votes, *ratings], pairs.people)
    repeated = _patterns(votes)

    drafts: list[dict[str, Any]] = []
    for number in range(n):
        mine = pairs.person == number
        both = mine & shared
        own_marks = [table.marks.person == number for table in tables]
        rated = [table.marks.unit[own] for table, own in zip(tables, own_marks, strict=True)]
        n_units = len(np.unique(np.concatenate([pairs.unit[mine], *rated])))
        tested = n_units >= MIN_VOTES
        decided = mine & (pairs.label != TIE)
        of_length = mine & chose
        length_both = of_length & ~np.isnan(others_longer)
        reliability, _ = _ratio(right, np.ones_like(right), pairs.unit, both)
        agreement, _ = _ratio(agreed, np.ones_like(agreed), pairs.unit, both)
        skill, skills = _ratio(agreed - chance, 1 - chance, pairs.unit, both)
        all_marks, mark_skills = _over_all_marks(tables, number)
        if not compares:
            reliability, agreement, skill = all_marks
        drafts.append(
            {
                "annotator": pairs.people[number],
                "n_votes": n_units,
                "n_pairs": int(mine.sum()),
                "reliability": reliability,
                "agreement": agreement,
                "skill": skill,
                "skills": skills,
                "mark_skill": all_marks[2].value,
                "mark_skills": mark_skills,
                "position": Habit(
                    _mean(pairs.earlier[decided] > 0),
                    0.5,
                    int(decided.sum()),
                    *_sign_test(pairs.earlier, pairs.unit, mine, tested=tested),
                ),
                "length": Habit(
                    _mean(pairs.longer[of_length] > 0),
                    _mean(others_longer[length_both]),
                    int(of_length.sum()),
                    *_sign_test(length_gap, pairs.unit, length_both, tested=tested),
                ),
                "ties": Habit(
                    _mean(pairs.label[mine] == TIE),
                    _mean(others_tie[both]),
                    int(mine.sum()),
                    *_sign_test(tie_gap, pairs.unit, both, tested=tested),
                ),
                "pattern": repeated.get(pairs.people[number], Habit(None, None)),
                "speed": speeds[pairs.people[number]],
                "marks": tuple(
                    table.of_person(number)
                    for table, own in zip(tables, own_marks, strict=True)
                    if own.any()
                ),
            }
        )
    _adjust_constant(drafts)
    for name in ("position", "length", "ties", "pattern", "constant"):
        adjusted = holm([draft[name].p for draft in drafts])
        for draft, p in zip(drafts, adjusted, strict=True):
            draft[name] = replace(draft[name], p=p)
    usual = _middle(draft["skill"].value for draft in drafts) if compares else 0.0
    usual_mark = _middle(draft.pop("mark_skill") for draft in drafts)
    profiles = {}
    for draft in drafts:
        skills, mark_skills = draft.pop("skills"), draft.pop("mark_skills")
        profile = Profile(**draft)
        spam, reasons = _suspicion(profile, [(skills, usual), (mark_skills, usual_mark)])
        profiles[profile.annotator] = Profile(**draft, spam=spam, reasons=reasons)
    return Quality(profiles, pairs, model)


# --- Consensus ---------------------------------------------------------------------------------------------


class Consensus(NamedTuple):
    """`ranks` per response (1 is best, ties equal) and how sure the pairs are, 1/3 to 1, on average."""

    ranks: dict[int, int]
    certainty: float


def consensus(probabilities: dict[tuple[int, int], Floats]) -> Consensus:
    """One ranking from the probabilities (first better, tie, second better) of its pairs.

    A response's score is its mean chance of winning, ties counted half. Neighbours share a rank
    where a tie is the most probable of the three.
    """
    points: dict[int, float] = defaultdict(float)
    n: Counter[int] = Counter()
    for (a, b), of in probabilities.items():
        points[a] += float(of[FIRST] + of[TIE] / 2)
        points[b] += float(of[SECOND] + of[TIE] / 2)
        n.update((a, b))
    order = sorted(points, key=lambda pk: (-points[pk] / n[pk], pk))
    ranks = {order[0]: 1}
    for above, below in pairwise(order):
        between = probabilities.get((min(above, below), max(above, below)))
        tied = between is not None and int(np.argmax(between)) == TIE
        ranks[below] = ranks[above] + (0 if tied else 1)
    sure = sum(float(of.max()) for of in probabilities.values()) / len(probabilities)
    return Consensus(ranks, sure)


class MarkConsensus(NamedTuple):
    """What the marks of one response come to. Of a yes or no, 1 and 0, a mean is the share of yes.

    `value` is the whole mark nearest to `weighted`, None where that lies halfway, and `certainty` the
    share of the weight that gave it, 0 to 1. `median`, `mean` and `spread` (standard deviation over
    the marks, 0 where there is one) are of the marks as given, all alike.
    """

    value: int | None
    certainty: float | None
    weighted: float
    median: float
    mean: float
    spread: float
    n: int


def consensus_of_marks(marks: Sequence[int], weights: Sequence[float]) -> MarkConsensus:
    """One mark from several people's, each weighed by how far they can be relied on.

    A mean and no Dawid-Skene model: that takes 4 for as wrong as 1 where 5 is right, and with three
    marks a response lies further from the truth than the plain median (docs/log/quality.md). ValueError
    without marks.
    """
    if not marks:
        raise ValueError("A consensus needs at least one mark.")
    weighted = math.fsum(map(math.prod, zip(marks, weights, strict=True))) / math.fsum(weights)
    value = None if abs(weighted % 1 - 0.5) < 1e-9 else round(weighted)
    gave = math.fsum(of for mark, of in zip(marks, weights, strict=True) if mark == value)
    sure = None if value is None else gave / math.fsum(weights)
    return MarkConsensus(
        value, sure, weighted, float(median(marks)), fmean(marks), pstdev(marks), len(marks)
    )


# --- Marks ---------------------------------------------------------------------------------------------------


@dataclass
class _Compared:
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
    def of(cls, marks: Marks) -> "_Compared":
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
        of = distance[marks.label]
        return cls(
            marks,
            _right_by_others(marks, model),
            others,
            n_others > 0,
            others[rows, marks.label] / np.maximum(n_others, 1),
            (others * of).sum(axis=1) / np.maximum(n_others, 1),
            (rest * of).sum(axis=1) / np.maximum(rest.sum(axis=1), 1),
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
            _ratio(self.right, np.ones_like(self.right), marks.unit, both)[0],
            _ratio(self.same, np.ones_like(self.same), marks.unit, both)[0],
            _ratio(self.by_chance - self.apart, self.by_chance, marks.unit, both)[0],
            Habit(
                _mean(gave[mine]),
                _mean(they[both]),
                int(mine.sum()),
                *_sign_test(gave - they, marks.unit, both, tested=tested),
            ),
        )


def _over_all_marks(
    tables: list[_Compared], number: int
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
    reliability, _ = _ratio(right, np.ones_like(right), unit, mask)
    agreement, _ = _ratio(same, np.ones_like(same), unit, mask)
    skill, skills = _ratio(by_chance - joined("apart"), by_chance, unit, mask)
    return (reliability, agreement, skill), skills


def _adjust_constant(drafts: list[dict[str, Any]]) -> None:
    """Each habit of giving one mark: p over the people. And of each person the surest, times how many
    were looked at, as with patterns; its p is adjusted with the other habits."""
    for draft in drafts:
        habits = [of.constant for of in draft["marks"] if of.constant.p is not None]
        draft["constant"] = Habit(None, None)
        if habits:
            surest = min(habits, key=lambda habit: habit.p or 0.0)
            draft["constant"] = replace(surest, p=min(1.0, (surest.p or 0.0) * len(habits)))
    for measure in {marked.measure for draft in drafts for marked in draft["marks"]}:
        who = {
            place: marked
            for place, draft in enumerate(drafts)
            for marked in draft["marks"]
            if marked.measure == measure
        }
        ps = holm([marked.constant.p for marked in who.values()])
        for (place, marked), p in zip(who.items(), ps, strict=True):
            told = replace(marked, constant=replace(marked.constant, p=p))
            drafts[place]["marks"] = tuple(
                told if of is marked else of for of in drafts[place]["marks"]
            )


# --- The pieces ----------------------------------------------------------------------------------------------


def _middle(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return median(known) if known else 0.0


def _right_by_others(pairs: Pairs | Marks, model: DawidSkene) -> Floats:
    """Per row: the chance that the label is right, by everybody else's labels."""
    said = model.confusion[pairs.person, :, pairs.label]  # (rows, C): chance of saying that
    others = model.truth[pairs.item] / np.maximum(said, 1e-12)
    others /= others.sum(axis=1, keepdims=True)
    chances: Floats = others[np.arange(len(pairs.item)), pairs.label]
    return chances


def _tallies(pairs: Pairs) -> Floats:
    flat = np.bincount(pairs.item * 3 + pairs.label, minlength=len(pairs.items) * 3)
    return flat.reshape(-1, 3).astype(np.float64)


def _agreement_with_others(pairs: Pairs) -> tuple[Floats, Floats]:
    """Per row: agreement with the others on that pair, and what chance would give.

    One tied and one not counts a half. Which response of a pair comes first means nothing, so two
    people who decide agree by chance in 1/2; both tying in t1 * t2: together 1/2 + t1 * t2 / 2.
    """
    rows = np.arange(len(pairs.item))
    others = _tallies(pairs)[pairs.item]
    others[rows, pairs.label] -= 1
    n_others = others.sum(axis=1)
    same = others[rows, pairs.label]
    is_tie = pairs.label == TIE
    half = np.where(is_tie, n_others - same, others[:, TIE])
    with np.errstate(invalid="ignore", divide="ignore"):
        agreed = (same + half / 2) / n_others
    n_people = len(pairs.people)
    tie_rate = np.bincount(pairs.person, weights=is_tie, minlength=n_people) / np.maximum(
        np.bincount(pairs.person, minlength=n_people), 1
    )
    per_item = np.bincount(pairs.item, weights=tie_rate[pairs.person], minlength=len(pairs.items))
    own = tie_rate[pairs.person]
    with np.errstate(invalid="ignore", divide="ignore"):
        others_tie = (per_item[pairs.item] - own) / n_others
    chance = 0.5 + own * others_tie / 2
    return np.nan_to_num(agreed), np.nan_to_num(chance)


def _against_others(
    pairs: Pairs, did: npt.NDArray[np.bool_], counts: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """Per row that counts: what this person did less the share of the others who did, and that share.

    NaN where no label of somebody else counts on that pair.
    """
    size = len(pairs.items)
    done = (did & counts).astype(np.float64)
    total = np.bincount(pairs.item, weights=done, minlength=size)[pairs.item] - done
    n = np.bincount(pairs.item, weights=counts, minlength=size)[pairs.item] - counts
    share = np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
    return done - share, share


def _sign_test(
    values: Floats | Ints, unit: Ints, mask: npt.NDArray[np.bool_], *, tested: bool
) -> tuple[float | None, float | None]:
    """z and two-sided p of "the sum is 0", comparisons being independent; None where too few."""
    if not tested or not mask.any():
        return None, None
    _, place = np.unique(unit[mask], return_inverse=True)
    sums = np.bincount(place, weights=np.asarray(values, dtype=np.float64)[mask])
    if np.count_nonzero(sums) < MIN_VOTES:
        return None, None
    z = float(sums.sum() / math.sqrt(float((sums**2).sum())))
    return z, math.erfc(abs(z) / math.sqrt(2))


def _ratio(
    points: Floats, weights: Floats, unit: Ints, mask: npt.NDArray[np.bool_]
) -> tuple[Estimate, Floats]:
    """sum(points) / sum(weights) over the rows, with its bootstrap over comparisons."""
    if not mask.any():
        return Estimate(None), np.array([])
    _, place = np.unique(unit[mask], return_inverse=True)
    table: Floats = np.column_stack(
        [np.bincount(place, weights=points[mask]), np.bincount(place, weights=weights[mask])]
    ).astype(np.float64)
    total = table.sum(axis=0)
    if total[1] <= 0:
        return Estimate(None), np.array([])
    value, n = float(total[0] / total[1]), len(table)
    if n < 2:
        return Estimate(value, n=n), np.array([])
    drawn = resampled_sums(table)
    values = drawn[:, 0] / np.where(drawn[:, 1] > 0, drawn[:, 1], np.nan)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value, float(low), float(high), n), values


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment; None stays None and counts for nothing."""
    order = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    adjusted: list[float | None] = [None] * len(ps)
    largest = 0.0
    for step, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - step)))
        adjusted[index] = largest
    return adjusted


def _patterns(votes: list[Vote]) -> dict[Hashable, Habit]:
    """Per person: of rankings with the same ranks, how many had them at the same places.

    With the shown order drawn anew each time, every arrangement of the same ranks is equally likely:
    1, 2, 3 as likely as 3, 1, 2. All-tied rankings have one arrangement and say nothing here. Axes
    hang together, so each is tested by itself: the surest one is told, p times the number of axes.
    """
    seen: dict[tuple[Hashable, str], list[tuple[int | None, ...]]] = defaultdict(list)
    for vote in votes:
        if len(set(vote.ranks)) > 1:
            seen[vote.annotator, vote.axis].append(vote.ranks)
    of_axes: dict[Hashable, list[Habit]] = defaultdict(list)
    for (who, _), patterns in seen.items():
        commonest, n = Counter(patterns).most_common(1)[0]
        alike = sum(Counter(of) == Counter(commonest) for of in patterns)
        if alike >= max(MIN_VOTES, len(patterns) / 2):
            places = _arrangements(commonest)
            p = min(1.0, places * _binomial_tail(n, alike, 1 / places))
            of_axes[who].append(Habit(n / alike, 1 / places, alike, None, p))
    surest = {who: min(found, key=lambda habit: habit.p or 0.0) for who, found in of_axes.items()}
    return {
        who: replace(habit, p=min(1.0, (habit.p or 0.0) * len(of_axes[who])))
        for who, habit in surest.items()
    }


def _arrangements(ranks: tuple[int | None, ...]) -> int:
    ways = math.factorial(len(ranks))
    for n in Counter(ranks).values():
        ways //= math.factorial(n)
    return ways


def _binomial_tail(k: int, n: int, p: float) -> float:
    """P(X >= k) for X ~ Binomial(n, p)."""
    if k <= 0:
        return 1.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(i + 1)
        - math.lgamma(n - i + 1)
        + i * math.log(p)
        + (n - i) * math.log1p(-p)
        for i in range(k, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value) for value in logs))


def _speeds(votes: list[Vote | Rating], people: list[Hashable]) -> dict[Hashable, Speed]:
    timed: dict[Hashable, dict[Hashable, tuple[float, float]]] = defaultdict(dict)
    for vote in votes:
        if vote.seconds is not None and vote.seconds > 0:
            rate = sum(vote.lengths) / vote.seconds
            timed[vote.annotator][vote.comparison] = (vote.seconds, rate)
    rates = {
        who: math.log(max(median(rate for _, rate in of.values()), 1e-6))
        for who, of in timed.items()
        if len(of) >= MIN_VOTES
    }
    scores: dict[Hashable, float] = {}
    if len(rates) >= 4:
        middle = median(rates.values())
        spread = median(abs(rate - middle) for rate in rates.values())
        # People never differ by less than a tenth or so: a tight team has no outliers by a hair.
        scores = {who: 0.6745 * (rate - middle) / max(spread, 0.1) for who, rate in rates.items()}
    return {
        who: Speed(
            median(seconds for seconds, _ in timed[who].values()),
            median(rate for _, rate in timed[who].values()),
            scores.get(who),
            len(timed[who]),
        )
        if who in timed
        else Speed()
        for who in people
    }


def _suspicion(
    profile: Profile, skills: Sequence[tuple[Floats, float]]
) -> tuple[float, tuple[str, ...]]:
    """How likely this is not the work of somebody who reads, and why, in sentences.

    `skills`: of what they compare and of what they mark, the bootstrap of their skill and what is
    usual here.

    Each kind of evidence is a chance of its own; together they are 1 - the product of what each
    leaves open. The thresholds ask for a habit that is strong *and* sure: people have small biases.
    """
    found: list[tuple[float, str]] = []

    def sure(p: float | None) -> bool:
        return p is not None and p < SURE

    for (drawn, usual), said in zip(skills, (AGREES_BY_CHANCE, MARKS_BY_CHANCE), strict=True):
        if len(drawn) and usual > 0.1 and profile.n_votes >= MIN_VOTES:
            doubt = float(np.mean(drawn < 0.4 * usual))
            if doubt >= 0.25:
                found.append((doubt, said))
    position, length, ties = profile.position, profile.length, profile.ties
    pattern = profile.pattern
    if sure(position.p) and position.share is not None and not 0.25 < position.share < 0.75:
        found.append((0.95, PREFERS_FIRST if position.share > 0.5 else PREFERS_LAST))
    # Half-way from what chance gives to always, so that of two it asks for as much as position does.
    elif sure(pattern.p) and (pattern.share or 0) >= (1 + (pattern.expected or 0)) / 2:
        found.append((0.95, REPEATS_PLACES))
    if length.p is not None and length.share is not None and length.expected is not None:
        gap = abs(length.share - length.expected)
        strong = sure(length.p) and not 0.1 < length.share < 0.9 and gap > 0.1
        # Longer is often better, so others choose it too; what people never do is to choose it always.
        always = length.n >= 15 and not 0.03 < length.share < 0.97 and gap > 0.08
        if strong or (always and length.p < 0.05):
            found.append((0.95, FOLLOWS_LENGTH if length.share > 0.5 else FOLLOWS_SHORTNESS))
    if sure(ties.p) and (ties.share or 0) > 0.9 and (ties.expected or 0) < 0.65:
        found.append((0.95, TIES_EVERYTHING))
    constant = profile.constant
    if sure(constant.p) and (constant.share or 0) > 0.9 and (constant.expected or 0) < 0.65:
        found.append((0.95, MARKS_ALIKE))
    if profile.speed.is_fast:
        found.append((0.9, TOO_FAST))
    left = math.prod(1 - chance for chance, _ in found)
    return 1 - left, tuple(reason for _, reason in found)
