"""Reliability against the paper's own table, values worked by hand, and people whose faults we know."""

import os
import random
import subprocess
import sys

import numpy as np
import pytest

from annotation.protocols import BELOW
from annotation.statistics.consensus import consensus
from annotation.statistics.dawid_skene import dawid_skene
from annotation.statistics.estimates import holm
from annotation.statistics.labels import Vote, pairs_of
from annotation.statistics.reliability import Known, assess

# Dawid & Skene 1979, Table 1: 45 patients; observer 1 saw each three times, the others once.
PATIENTS = """
111 1 1 1 1|333 4 3 3 4|112 2 1 2 2|222 3 1 2 1|222 3 2 2 2|222 3 3 2 2|122 2 1 1 1|333 3 4 3 3
222 2 2 2 3|232 2 2 2 3|444 4 4 4 4|222 3 3 4 3|111 1 1 1 1|222 3 2 1 2|121 1 1 1 1|111 2 1 1 1
111 1 1 1 1|111 1 1 1 1|222 2 2 2 1|222 1 3 2 2|222 2 2 2 2|222 2 2 2 1|222 3 2 2 2|221 2 2 2 2
111 1 1 1 1|111 1 1 1 1|232 2 2 2 2|111 1 1 1 1|111 1 1 1 1|112 1 1 2 1|111 1 1 1 1|333 3 2 3 3
111 1 1 1 1|222 2 2 2 2|222 3 2 3 2|433 4 3 4 3|221 2 2 3 2|232 3 2 3 3|333 3 4 3 2|111 1 1 1 1
111 1 1 1 1|121 2 1 1 1|232 2 2 2 2|121 1 1 1 1|222 2 2 2 2
"""


def test_dawid_and_skenes_own_patients():
    rows = [
        (patient, observer, int(label) - 1)
        for patient, said in enumerate(PATIENTS.replace("\n", "|").strip("|").split("|"))
        for observer, labels in enumerate(said.split())
        for label in labels
    ]
    assert len(rows) == 45 * 7
    found = dawid_skene(*zip(*rows, strict=True), 4)
    # The paper's estimates: how common each class is, and observer 1's rates on the first three.
    assert found.classes == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=0.005)
    printed = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0]]
    assert found.confusion[0, :3] == pytest.approx(np.array(printed), abs=0.03)
    # Everybody agrees on patients 1 and 11.
    assert found.truth[0, 0] > 0.99
    assert found.truth[10, 3] > 0.99


def test_a_model_of_two_coins_is_recovered():
    generator = np.random.default_rng(0)
    skill = np.array([0.95, 0.8, 0.6, 0.5])
    truth = generator.integers(0, 2, 3000)
    rows = [
        (item, person, int(t if generator.random() < p else 1 - t))
        for item, t in enumerate(truth)
        for person, p in enumerate(skill)
    ]
    found = dawid_skene(*zip(*rows, strict=True), 2, mirror=True)
    assert found.confusion[:, 0, 0] == pytest.approx(skill, abs=0.03)
    assert (found.truth.argmax(axis=1) == truth).mean() > 0.94


def test_no_labels_are_refused_with_a_sentence():
    with pytest.raises(ValueError, match="at least one label"):
        dawid_skene([], [], [], 3)


def test_pairs_are_the_same_whatever_the_order_shown():
    one = Vote("ada", 1, (7, 8, 9), (1, 2, 2), (10, 20, 30))
    other = Vote("ben", 1, (9, 7, 8), (2, 1, 2), (30, 10, 20))
    found = pairs_of([one, other])
    assert found.items == [("", 1, 7, 8), ("", 1, 7, 9), ("", 1, 8, 9)]
    by_item = {}
    for item, label in zip(found.item, found.label, strict=True):
        by_item.setdefault(item, set()).add(int(label))
    assert by_item == {0: {0}, 1: {0}, 2: {1}}
    # ada's first beat both others, which are longer; ben saw the winner in the middle.
    assert found.earlier.tolist() == [1, 1, 0, -1, 0, 1]
    assert found.longer.tolist() == [-1, -1, 0, -1, 0, -1]


def test_holm_by_hand():
    # Sorted .01 .02 .04: times 3, 2, 1, and never falling.
    assert holm([0.04, 0.01, None, 0.02]) == pytest.approx([0.04, 0.03, None, 0.04], abs=1e-12)


def test_consensus_by_hand():
    sure, tied, never = np.array([0.8, 0.1, 0.1]), np.array([0.2, 0.6, 0.2]), np.array([0, 0, 1.0])
    # 1 beats 2 and 3; 2 and 3 are most probably tied.
    assert consensus({(1, 2): sure, (1, 3): sure, (2, 3): tied}).ranks == {1: 1, 2: 2, 3: 2}
    assert consensus({(1, 2): never}).ranks == {2: 1, 1: 2}
    assert consensus({(1, 2): never}).certainty == 1


# --- People whose faults we know -------------------------------------------------------------------------


def team(n=120, k=3, people=("ada", "ben", "cleo", "dora"), noise=0.6, seed=0, **faults):
    """Votes of a team; a fault is a function (points, lengths, generator) -> points as shown."""
    generator = random.Random(seed)
    for unit in range(n):
        points = [generator.gauss(0, 1.5) for _ in range(k)]
        lengths = [int(60 + 15 * p + generator.gauss(0, 25)) for p in points]
        for who in (*people, *faults):
            order = list(range(k))
            generator.shuffle(order)
            shown = [points[i] for i in order]
            size = [max(5, lengths[i]) for i in order]
            fault = faults.get(who)
            said = (
                fault(shown, size, generator)
                if fault
                else [p + generator.gauss(0, noise) for p in shown]
            )
            ranks = [1 + sum(other > own for other in said) for own in said]
            seconds = sum(size) / generator.uniform(15, 30)
            yield Vote(who, unit, tuple(order), tuple(ranks), tuple(size), seconds)


def at_random(shown, size, generator):
    return [generator.random() for _ in shown]


def first_is_best(shown, size, generator):
    return [-place for place in range(len(shown))]


def all_equal(shown, size, generator):
    return [0 for _ in shown]


def longest_is_best(shown, size, generator):
    return list(size)


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (at_random, "chance"),
        (first_is_best, "shown first"),
        (all_equal, "Ties nearly all responses"),
        (longest_is_best, "longer"),
    ],
)
def test_the_one_who_does_not_read_is_found_and_nobody_else(fault, word):
    found = assess(team(mallory=fault)).profiles
    assert {who for who, profile in found.items() if profile.is_suspect} == {"mallory"}
    assert any(word in reason for reason in found["mallory"].reasons)
    assert not found["ada"].reasons


def test_a_team_that_reads_has_no_suspects():
    for seed in range(5):
        found = assess(team(seed=seed)).profiles
        assert not [profile for profile in found.values() if profile.is_suspect]
        for profile in found.values():
            assert profile.position.share == pytest.approx(0.5, abs=0.12)
            assert profile.reliability.low < profile.reliability.value < profile.reliability.high
            assert profile.skill.value > 0.5


def test_careful_people_are_more_reliable_than_careless_ones():
    def careless(shown, size, generator):
        return [p + generator.gauss(0, 3) for p in shown]

    found = assess(team(careless=careless)).profiles
    assert found["careless"].reliability.high < found["ada"].reliability.low
    assert found["careless"].skill.value < 0.6 * found["ada"].skill.value


def test_a_liking_for_what_comes_first_is_measured():
    def partial(shown, size, generator):
        return [p + generator.gauss(0, 0.6) + (1.2 if i == 0 else 0) for i, p in enumerate(shown)]

    found = assess(team(n=300, partial=partial)).profiles
    assert found["partial"].position.share > 0.55
    assert found["partial"].position.p < 0.01
    assert found["ada"].position.p > 0.05
    assert not found["partial"].is_suspect  # a bias to know of, not a fraud


def test_one_who_answers_in_no_time_stands_out():
    votes = [
        vote._replace(seconds=0.8) if vote.annotator == "dora" else vote for vote in team(n=40)
    ]
    found = assess(votes).profiles
    assert found["dora"].speed.is_fast
    assert found["dora"].speed.is_outlier
    assert found["dora"].reasons == ("Faster than reading speed.",)
    assert not found["ada"].speed.is_outlier


def test_little_is_said_of_who_judged_little():
    found = assess(team(n=5, mallory=first_is_best)).profiles["mallory"]
    assert found.position.p is None
    assert found.spam == 0
    assert assess([]).profiles == {}
    alone = assess([Vote("ada", 1, (1, 2), (1, 2), (5, 5))]).profiles["ada"]
    assert alone.reliability.value is None
    assert alone.agreement.n == 0


def test_the_consensus_outvotes_a_spammer_who_outnumbers_one_reader():
    votes = list(team(people=("ada", "ben", "cleo"), mallory=at_random, eve=at_random))
    quality = assess(votes)
    right = 0
    by_unit = {}
    for vote in votes:
        if vote.annotator == "ada":
            by_unit[vote.comparison] = dict(zip(vote.responses, vote.ranks, strict=True))
    for unit, ranks in by_unit.items():
        found = quality.consensus("", unit)
        right += min(found.ranks, key=found.ranks.get) == min(ranks, key=ranks.get)
        assert 1 / 3 <= found.certainty <= 1
    assert right / len(by_unit) > 0.8


def leans_to_the_first(shown, size, generator):
    """Reads, and is a little kinder to what comes first: about three of five."""
    return [
        p + generator.gauss(0, 0.6) + (0.8 if place == 0 else 0) for place, p in enumerate(shown)
    ]


def test_of_two_a_small_lean_is_no_pattern_however_sure_it_is():
    votes = list(team(n=600, k=2, eve=leans_to_the_first))
    eve = assess(votes).profiles["eve"]
    assert 0.55 < eve.position.share < 0.75
    assert eve.pattern.expected == 0.5
    assert eve.pattern.p < 0.001, "sure, and small"
    assert eve.reasons == ()


def test_an_axis_said_like_the_other_makes_nothing_surer():
    votes = list(team(n=200, k=2, eve=leans_to_the_first))
    twice = [vote._replace(axis=axis) for vote in votes for axis in ("helpfulness", "safety")]
    one, both = (assess(of).profiles["eve"].pattern for of in (votes, twice))
    assert (one.share, one.n) == (both.share, both.n)
    assert both.p >= one.p


def test_what_a_top_k_ranking_left_out_is_behind_and_not_tied():
    found = pairs_of([Vote("ada", 1, (7, 8, 9), (BELOW, 1, BELOW), (10, 20, 30))])
    assert found.items == [("", 1, 7, 8), ("", 1, 8, 9)]
    assert found.label.tolist() == [2, 0]


def test_the_arithmetic_is_there_without_the_products_settings():
    # Benchmarks take it as it is: `python -m benchmarks.spam_detection`.
    bare = {name: of for name, of in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    asked = [
        sys.executable,
        "-c",
        "import annotation.statistics.agreement, annotation.statistics.reliability",
    ]
    done = subprocess.run(asked, env=bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_known_of_people_weighs_new_votes_as_the_whole_would():
    votes = [
        Vote(who, unit, (1, 2, 3), ranks, (9, 9, 9), 5.0, "helpfulness")
        for unit in range(12)
        for who, ranks in (("ada", (1, 2, 3)), ("ben", (1, 2, 3)), ("eve", (3, 1, 2)))
    ]
    whole = assess(votes)
    known = Known.of(whole)
    some = known.weighing(vote for vote in votes if vote.comparison == 7)
    assert some.consensus("helpfulness", 7).ranks == whole.consensus("helpfulness", 7).ranks
    new = [
        Vote(who, 99, (1, 2, 3), ranks, (9, 9, 9), 5.0, "helpfulness")
        for who, ranks in (("ada", (2, 1, 3)), ("ben", (2, 1, 3)), ("eve", (1, 2, 3)))
    ]
    assert known.weighing(new).consensus("helpfulness", 99).ranks == {1: 2, 2: 1, 3: 3}
    stranger = Vote("zoe", 98, (1, 2), (1, 2), (9, 9), 5.0, "helpfulness")
    assert known.weighing([stranger]).consensus("helpfulness", 98).ranks == {1: 1, 2: 2}
    assert Known.of(assess([])).weighing(new).consensus("helpfulness", 99) is None


def test_a_pair_of_equal_texts_says_nothing():
    votes = [
        Vote(who, unit, (1, 2, 3), ranks, (4, 9, 4), 5.0, "helpfulness", (1, 2, 1))
        for unit in range(6)
        for who, ranks in (("ada", (2, 1, 3)), ("ben", (3, 1, 2)), ("cyd", (2, 1, 3)))
    ]
    assert {item[2:] for item in pairs_of(votes).items} == {(1, 2), (2, 3)}
    quality = assess(votes)
    assert quality.profiles["ben"].agreement.value == 1.0
    assert quality.consensus("helpfulness", 0).ranks[2] == 1
