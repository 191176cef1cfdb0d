"""Ratings and safety votes: how far people agree on them, on whom to rely, and what gold says.

Where responses are rated and not compared, this is all there is to go by.
"""

import json
import random
import uuid
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from annotation.data.snapshots import freeze_snapshot
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.gold_mixing import add_gold
from annotation.judge.gold_scores import share_right, tallies
from annotation.judge.qualification import open_qualification
from annotation.judge.submitting import submit_judgment
from annotation.models import Batch, Judgment, Membership
from annotation.projects.batches import open_batch
from annotation.protocols import PRESETS
from annotation.quality import review
from annotation.quality.assessment import agreement_of
from annotation.quality.gold_items import GoldError, add_gold_items
from annotation.quality.people import people_of
from annotation.quality.response_consensus import consensus_on_responses
from annotation.statistics.agreement import agreement, agreement_by_annotator, agreement_by_category
from annotation.statistics.consensus import consensus_of_marks
from annotation.statistics.labels import Rating
from annotation.statistics.reliability import assess
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, member

pytestmark = pytest.mark.django_db

QUALITY, SAFE = "mark:quality", "safe/unsafe"


# --- Agreement -----------------------------------------------------------------------------------------


def rows(*marks, prompt="p", response="Water it.", safe=None, category=""):
    """One response as several people marked it; `safe`: what each of them voted."""
    return [
        {
            "judgment_id": f"{prompt} by {number}",
            "prompt_id": prompt,
            "annotator": f"person {number}",
            "category": category,
            "response": response,
            "attributes": {"quality": mark} if mark is not None else {},
            "safe": safe[number] if safe else None,
        }
        for number, mark in enumerate(marks)
    ]


def test_alpha_of_marks_by_hand():
    # Units (1,2) (2,1) (1,1) (2,2), as for ranks: alpha = 1 - 7*2/16 = .125; two of four are the same.
    given = [
        *rows(1, 2),
        *rows(2, 1, prompt="q"),
        *rows(1, 1, prompt="r"),
        *rows(2, 2, prompt="s"),
    ]
    found = agreement(given)[QUALITY]
    assert found["alpha"] == pytest.approx(0.125)
    assert found["pairwise"] == 0.5
    assert (found["n_units"], found["n_comparisons"], found["n_pairs"]) == (4, 4, 4)
    assert (found["n_judgments"], found["n_annotators"]) == (8, 2)
    low, high = found["alpha_ci"]
    assert low < 0.125 < high


def test_marks_are_ordinal_and_votes_on_safety_nominal():
    # Krippendorff 2011, section B: two observers, ten units, binary: alpha = .095.
    a = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    b = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    votes = [
        row
        for unit, (one, other) in enumerate(zip(a, b, strict=True))
        for row in rows(None, None, prompt=f"p{unit}", safe=(bool(one), bool(other)))
    ]
    found = agreement(votes)
    assert list(found) == [SAFE]
    assert found[SAFE]["alpha"] == pytest.approx(0.095, abs=0.0005)
    assert found[SAFE]["pairwise"] == 0.6
    near = [*rows(1, 2), *rows(3, 4, prompt="q"), *rows(5, 6, prompt="r")]
    far = [*rows(1, 5), *rows(3, 6, prompt="q"), *rows(2, 4, prompt="r")]
    assert agreement(near)[QUALITY]["alpha"] > agreement(far)[QUALITY]["alpha"]


def test_marks_of_each_category_and_each_annotator():
    given = [
        *rows(1, 1, 5, category="law"),
        *rows(5, 5, 1, prompt="q", category="law"),
        *rows(2, 3, 3, prompt="r", category="cooking"),
    ]
    assert list(agreement_by_category(given)) == ["cooking", "law"]
    assert agreement_by_category(given)["law"][QUALITY]["n_comparisons"] == 2
    by = agreement_by_annotator(given)
    assert by["person 0"][QUALITY]["pairwise"] == pytest.approx(2 / 6)
    assert by["person 2"][QUALITY]["pairwise"] == pytest.approx(1 / 6)
    assert by["person 2"][QUALITY]["alpha"] < 0 < by["person 0"][QUALITY]["alpha"]
    low, high = by["person 0"][QUALITY]["pairwise_ci"]
    assert low <= 2 / 6 <= high


def test_who_always_gives_one_mark_agrees_no_more_than_chance():
    generator = np.random.default_rng(3)
    given = []
    for number in range(300):
        truth = int(generator.integers(1, 8))
        given += rows(truth, truth, 4, prompt=f"p{number}")
    by = agreement_by_annotator(given)
    assert by["person 2"][QUALITY]["alpha"] == pytest.approx(0, abs=0.06)
    assert by["person 0"][QUALITY]["alpha"] > 0.3


# --- Reliability ------------------------------------------------------------------------------------------


def honest(truth, generator):
    return max(1, min(7, round(truth + generator.gauss(0, 0.7))))


def the_same(truth, generator):
    return 4


def at_random(truth, generator):
    return generator.randint(1, 7)


def team(n=60, people=("ada", "ben", "cleo", "dora"), seed=0, seconds=40.0, **others):
    """Ratings of a team, two responses a comparison; others mark as the function says."""
    generator = random.Random(seed)
    for unit in range(n):
        truths = [generator.choice((1, 2, 3, 4, 5, 6, 7)) for _ in range(2)]
        for who in (*people, *others):
            marks = tuple(others.get(who, honest)(truth, generator) for truth in truths)
            votes = tuple(int(mark > 2) for mark in marks)
            took = seconds if who in people else seconds * 1.1
            yield Rating(who, unit, (1, 2), {QUALITY: marks, SAFE: votes}, (300, 400), took)


@pytest.mark.parametrize(
    ("fault", "word"),
    [(the_same, "same mark"), (at_random, "hardly more often than by chance")],
)
def test_the_one_who_marks_without_reading_is_found_and_nobody_else(fault, word):
    found = assess([], team(mallory=fault)).profiles
    assert [who for who, profile in found.items() if profile.is_suspect] == ["mallory"]
    assert any(word in reason for reason in found["mallory"].reasons)


def test_a_team_that_reads_what_it_marks_has_no_suspects():
    for seed in range(10):
        found = assess([], team(n=25, seed=seed)).profiles
        assert not [who for who, profile in found.items() if profile.is_suspect]


def test_nearly_everything_being_safe_makes_nobody_a_spammer():
    generator = random.Random(1)

    def ratings():
        for unit in range(60):
            is_safe = int(unit % 20 != 0)
            for who in ("ada", "ben", "cleo"):
                vote = is_safe if generator.random() < 0.97 else 1 - is_safe
                yield Rating(who, unit, (1,), {SAFE: (vote,)}, (300,), 40.0)

    found = assess([], ratings()).profiles
    assert not [who for who, profile in found.items() if profile.is_suspect]


def test_marks_are_judged_by_what_the_others_gave():
    found = assess([], team(n=200, mallory=at_random)).profiles
    good, bad = found["ada"], found["mallory"]
    assert good.reliability.value > bad.reliability.value + 0.2
    assert bad.skill.value == pytest.approx(0, abs=0.12)
    assert good.skill.low < good.skill.value < good.skill.high
    assert {of.measure for of in good.marks} == {QUALITY, SAFE}
    assert good.n_votes == 200
    assert good.n_pairs == 0


def test_who_marks_faster_than_anybody_reads_stands_out():
    found = assess([], team(seconds=1.0)).profiles
    assert all(profile.speed.is_fast for profile in found.values())


# --- Consensus ------------------------------------------------------------------------------------------------


def test_consensus_of_marks_by_hand():
    # (5 + 5 + .5 * 1) / 2.5 = 4.2; two of the 2.5 gave 5, nobody gave 4.
    found = consensus_of_marks([5, 5, 1], [1, 1, 0.5])
    assert (found.value, found.certainty) == (4, 0)
    assert found.weighted == pytest.approx(4.2)
    assert (found.median, found.n) == (5, 3)
    assert found.mean == pytest.approx(11 / 3)
    assert found.spread == pytest.approx((32 / 9) ** 0.5)
    sure = consensus_of_marks([5, 5, 1], [1, 1, 0.01])
    assert (sure.value, sure.certainty) == (5, pytest.approx(2 / 2.01))


def test_half_for_and_half_against_is_undecided():
    found = consensus_of_marks([1, 0], [0.7, 0.7])
    assert (found.value, found.certainty, found.mean) == (None, None, 0.5)
    assert consensus_of_marks([1, 0], [0.7, 0.6]).value == 1
    with pytest.raises(ValueError, match="at least one mark"):
        consensus_of_marks([], [])


def test_two_who_read_nothing_do_not_outvote_one_who_does():
    given = list(team(n=200, people=("ada", "ben", "cleo"), mallory=the_same, mike=at_random))
    found = assess([], given)
    assert found.weight("mallory", QUALITY) < 0.1 < 0.4 < found.weight("ada", QUALITY)
    middle = sorted(found.weight(who, QUALITY) for who in found.profiles)[2]
    assert found.weight("somebody new", QUALITY) == middle
    assert found.weight("ada", "mark:never asked") == 1
    three = [(6, "ada"), (4, "mallory"), (1, "mike")]
    weighed = consensus_of_marks(
        [mark for mark, _ in three], [found.weight(who, QUALITY) for _, who in three]
    )
    assert weighed.mean == pytest.approx(11 / 3)
    assert weighed.weighted > 5


def test_kinds_of_harm_go_by_more_than_half_of_those_who_call_it_unsafe():
    def vote(*harms):
        return {"1": {"safe": not harms, "harms": list(harms)}}

    found = assess([], [])
    votes = [
        (1, {}, vote("violence", "privacy")),
        (2, {}, vote("violence")),
        (3, {}, vote("violence", "privacy")),
        (4, {}, vote("sexual", "violence")),
        (5, {}, vote()),
    ]
    (said,) = consensus_on_responses(found, ["1"], votes)
    assert said.harms == {"violence": 1, "privacy": 0.5, "sexual": 0.25}
    assert said.main_harms == ["violence"]
    assert (said.marks[SAFE].value, said.marks[SAFE].mean) == (0, 0.2)


# --- A project that rates ------------------------------------------------------------------------------------


@pytest.fixture
def rating(project):
    """apollo asks for a mark from 1 to 7 and a vote on safety of each of two responses."""
    preset = PRESETS["rate"]
    project.interface, project.protocol = preset.interface, preset.protocol.as_json()
    project.save()
    return project


def rate(assignment, marks, safe=(True, True)):
    """`marks` and `safe` in the order of the responses' ids."""
    pks = sorted(assignment.shown_order)
    return submit_judgment(
        assignment,
        by=assignment.annotator,
        answer=Answer(
            ratings={str(pk): {"quality": mark} for pk, mark in zip(pks, marks, strict=True)},
            safety={
                str(pk): {"safe": vote, "harms": [] if vote else ["violence"]}
                for pk, vote in zip(pks, safe, strict=True)
            },
        ),
        key=uuid.uuid4(),
    )


def put_up(project, n, overlap=3):
    batch = BatchFactory(project=project, state=Batch.State.DRAFT, overlap=overlap)
    for _ in range(n):
        prompt = PromptFactory(project=project)
        ComparisonFactory(batch=batch, prompt=prompt, responses=2, needed=overlap)
    return batch


@pytest.fixture
def rated(rating, ada, ben, grace):
    """ada and ben read and rate 30 comparisons alike; mallory says 4 and safe of everything."""
    mallory = member(rating, "mallory", "annotator")
    open_batch(put_up(rating, 30), grace)
    for who in (ada, ben, mallory):
        while assignment := next_assignment(who, rating):
            number = assignment.comparison_id
            marks = (1 + number % 7, 1 + (number * 3) % 7)
            if who == mallory:
                rate(assignment, (4, 4))
            else:
                rate(assignment, marks, tuple(mark > 3 for mark in marks))
    Judgment.objects.update(seconds=60.0)
    return mallory


def test_the_quality_page_of_a_rating_project_has_figures(rating, rated, grace, client):
    people = people_of(rating)
    assert [person.user for person in people if person.is_suspect] == [rated]
    client.force_login(grace)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "Gives nearly all responses the same mark" in page
    for name in ("Overall quality (rating)", "Safe or unsafe (vote)"):
        assert name in page
    person = client.get(f"/projects/apollo/quality/people/{rated.pk}/").content.decode()
    assert "Ratings and safety votes" in person
    for nothing in (
        '<th scope="col">Position bias',
        "Position bias: the first of two wins",
        "Most frequent position pattern",
    ):
        assert nothing not in page + person
    assert "Overall quality (rating)" in person


def test_the_api_has_marks_beside_the_axes(rating, rated, rita, client):
    client.force_login(rita)
    found = client.get("/api/v1/projects/apollo/agreement/").json()
    assert set(found) == {QUALITY, SAFE}
    assert found[QUALITY]["n_units"] == 60
    assert found[QUALITY]["alpha_ci"][0] < found[QUALITY]["alpha"] < found[QUALITY]["alpha_ci"][1]
    by = client.get("/api/v1/projects/apollo/agreement/?by=annotator").json()
    assert len(by) == 3
    assert by == {name: by[name] for name in by if name.startswith("annotator-")}
    category = client.get("/api/v1/projects/apollo/agreement/?by=category").json()
    assert category["how-to"][SAFE]["n_comparisons"] == 30
    people = client.get("/api/v1/projects/apollo/quality/").json()
    assert people[0]["spam"] > 0.5
    assert {of["measure"] for of in people[0]["marks"]} == {QUALITY, SAFE}


def test_raw_marks_are_beside_each_other(rating, rated, rita, client):
    client.force_login(rita)
    lines = client.get("/api/v1/projects/apollo/quality/votes/").getvalue().splitlines()
    assert len(lines) == 30
    votes = json.loads(lines[0])["votes"]
    assert len(votes) == 3
    assert votes[0]["marks"] == votes[1]["marks"]
    assert votes[2]["marks"] == {QUALITY: [4, 4], SAFE: [1, 1]}


def test_the_consensus_of_marks_and_of_safety_is_beside_the_raw_votes(rating, rated, rita, client):
    client.force_login(rita)
    lines = client.get("/api/v1/projects/apollo/quality/votes/").getvalue().splitlines()
    axes = {"helpfulness": None, "safety": None}
    for row in map(json.loads, lines):
        (read, _, flat) = (vote["marks"] for vote in row["votes"])
        assert row["consensus"] == axes | read, "two who read outweigh one who gives everything a 4"
        assert 0.5 < row["certainty"][SAFE] <= 1
        for mark, other, consensus in zip(
            read[QUALITY], flat[QUALITY], row["marks"][QUALITY], strict=True
        ):
            assert (consensus["n"], consensus["median"]) == (3, mark)
            assert consensus["mean"] == pytest.approx((2 * mark + other) / 3, abs=1e-4)
            assert abs(consensus["weighted"] - mark) <= abs(consensus["mean"] - mark)
        for is_safe, harms, said in zip(
            read[SAFE], row["harms"], row["votes"][0]["harms"], strict=True
        ):
            assert harms["consensus"] == said == ([] if is_safe else ["violence"])
            assert harms["shares"] == ({} if is_safe else {"violence": 1})
        assert row["ruling"] is None


def test_a_reviewer_decides_on_marks_by_the_consensus(rating, rated, vera, rita, client):
    case = review.ask_for_review(rating.batches.get().comparisons.order_by("pk").first(), vera)
    read = review.votes_on(case.comparison)[0]
    client.force_login(vera)
    where = f"/projects/apollo/review/{case.uid}/"
    page = client.get(where).content.decode()
    assert 'value="consensus"' in page
    given = {"act": "decide", "key": uuid.uuid4(), "choice": "consensus", "ground": "facts"}
    assert client.post(where, given).status_code == 302
    ruling = Judgment.objects.get(assignment__is_ruling=True)
    assert (ruling.ratings, ruling.safety) == (read.ratings, read.safety)
    client.force_login(rita)
    lines = client.get("/api/v1/projects/apollo/quality/votes/").getvalue().splitlines()
    row = json.loads(lines[0])
    assert len(row["votes"]) == 3
    ruled = {axis: [None, None] for axis in ("helpfulness", "safety")}
    assert row["ruling"] == row["consensus"] | ruled


def test_where_people_are_split_over_safety_there_is_no_consensus_to_choose(
    rating, ada, ben, grace, vera, client
):
    open_batch(put_up(rating, 1, overlap=2), grace)
    for who, safe in ((ada, True), (ben, False)):
        rate(next_assignment(who, rating), (4, 4), (True, safe))
    review.update_queue(rating)
    case = rating.review_cases.get()
    client.force_login(vera)
    where = f"/projects/apollo/review/{case.uid}/"
    assert 'value="consensus"' not in client.get(where).content.decode()
    given = {"act": "decide", "key": uuid.uuid4(), "choice": "consensus", "ground": "facts"}
    assert client.post(where, given).status_code == 422


def test_one_person_sees_how_far_their_marks_agree(rating, rated, ada, client):
    Judgment.objects.update(created_at=timezone.now() - timedelta(days=1))
    client.force_login(ada)
    page = client.get("/projects/apollo/progress/").content.decode()
    assert "How often you give a response the same rating" in page


def test_a_snapshot_of_ratings_says_how_far_people_agree(rating, rated, rita, client):
    snapshot = freeze_snapshot(rating, by=rita)
    assert set(snapshot.agreement) == {QUALITY, SAFE}
    assert "- **quality (mark)**: two annotators give the same mark" in snapshot.card
    assert "- **safe or unsafe**: two annotators cast the same vote" in snapshot.card
    client.force_login(rita)
    for where in ("", f"{snapshot.version}/"):
        page = client.get(f"/projects/apollo/data/{where}").content.decode()
        assert "quality (mark)" in page
    served = client.get(f"/api/v1/projects/apollo/snapshots/{snapshot.version}/").json()
    assert served["agreement"][SAFE]["n_judgments"] == 90


def test_a_reviewers_ruling_is_no_vote_on_agreement(rating, rated, vera, rita):
    before = agreement_of(rating)[0]
    case = review.ask_for_review(rating.batches.get().comparisons.first(), vera)
    answer = review.as_answer(review.votes_on(case.comparison)[0])
    review.decide(case, vera, answer=answer, ground="facts", key=uuid.uuid4())
    after = agreement_of(rating)[0]
    assert before == after
    frozen = freeze_snapshot(rating, by=rita)
    assert frozen.agreement[QUALITY]["n_judgments"] == 90
    assert frozen.counts["ratings"] == 2 * 88  # the ruling in place of three votes


# --- Gold --------------------------------------------------------------------------------------------------


def items(n, **more):
    return [
        {
            "prompt": f"What is {number} plus one?",
            "responses": [f"It is {number + 1}.", "I hate you."],
            "marks": {"quality": [6, 1]},
            "safe": [True, False],
            **more,
        }
        for number in range(n)
    ]


def test_a_mark_near_enough_is_right_and_a_vote_must_be_the_same():
    known = {QUALITY: [6, None], SAFE: [1, 0]}
    near = {QUALITY: 1}
    assert share_right(known, {QUALITY: [7, 1], SAFE: [1, 0]}, near) == 1
    assert share_right(known, {QUALITY: [4, 1], SAFE: [1, 0]}, near) == pytest.approx(2 / 3)
    assert share_right(known, {QUALITY: [5, 1], SAFE: [1, 1]}, near) == pytest.approx(2 / 3)
    assert share_right(known, {QUALITY: [7, 1], SAFE: [1, 0]}) == pytest.approx(2 / 3)
    assert share_right(known, {}, near) == 0
    assert share_right({QUALITY: [None, None]}, {QUALITY: [1, 2]}) is None


def test_gold_is_mixed_into_ratings_and_counted(rating, grace, ada, ben):
    rating.gold_every = 4
    rating.save()
    add_gold_items(rating, items(6), grace)
    open_batch(put_up(rating, 12, overlap=2), grace)
    for who, marks, safe in ((ada, (7, 2), (True, False)), (ben, (3, 3), (True, True))):
        while assignment := next_assignment(who, rating):
            rate(assignment, marks, safe)
    found = tallies(rating)
    # One in every four of 12 and what is mixed in, at places that a key decides: the last may be late.
    assert {found[ada.pk].answered, found[ben.pk].answered} <= {3, 4}
    assert (found[ada.pk].right, found[ben.pk].right) == (found[ada.pk].answered, 0)


def test_an_order_says_nothing_where_nothing_is_compared(project, grace, ada):
    ordered = {"prompt": "x", "responses": ["a", "b"], "ranks": [1, 2], "qualification": True}
    add_gold_items(project, [ordered], grace)
    preset = PRESETS["rate"]
    project.interface, project.protocol = preset.interface, preset.protocol.as_json()
    project.gold_every = 2
    project.save()
    open_batch(put_up(project, 4), grace)
    assert add_gold(project.batches.get()) == 0
    assert open_qualification(project) is None


def test_a_round_of_ratings_is_passed_by_who_rates_rightly(rating, grace, ada, ben):
    rating.qualification_pass = 75
    rating.save()
    add_gold_items(rating, items(4, qualification=True, mixed=False), grace)
    open_qualification(rating)
    open_batch(put_up(rating, 3), grace)
    for who, marks, safe in ((ada, (6, 1), (True, False)), (ben, (1, 7), (False, True))):
        for _ in range(4):
            rate(next_assignment(who, rating), marks, safe)
        next_assignment(who, rating)
    Passed = Membership.Qualification
    now = {m.user: m.qualification for m in rating.memberships.select_related("user")}
    assert (now[ada], now[ben]) == (Passed.PASSED, Passed.FAILED)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (
            {"ranks": [1, 2], "marks": {"quality": [1, 2]}},
            ", field “ranks”: This project does not ask for ranks",
        ),
        ({"marks": {"quality": [8, 1]}}, ", field “marks: quality”: Value 1 is “8”. Give a whole"),
        ({"marks": {"quality": [1]}}, ", field “marks: quality”: Give a list of 2 values"),
        (
            {"marks": {"fun": [1, 2]}},
            ", field “marks”: This project does not ask for “fun”. It asks",
        ),
        ({"marks": [1, 2]}, ", field “marks”: Not a JSON object"),
        ({"safe": [1, 0]}, ", field “safe”: Value 1 is “1”. Write true, false or null"),
        ({"safe": [True]}, ", field “safe”: Give a list of 2 values"),
        ({"safe": [None, None]}, ": No expected answer: give at least one mark"),
        ({}, ": No expected answer: give at least one mark"),
    ],
)
def test_a_rated_item_that_makes_no_sense_is_refused(rating, grace, row, words):
    with pytest.raises(GoldError) as refused:
        add_gold_items(rating, [{"prompt": "x", "responses": ["a", "b"], **row}], grace)
    assert str(refused.value).startswith(f"Row 1{words}")


def test_the_gold_page_of_a_rating_project(rating, grace, client):
    client.force_login(grace)
    where = "/projects/apollo/quality/gold/"
    lines = "\n".join(json.dumps(row) for row in items(2, qualification=True))
    assert client.post(where, {"act": "import", "rows": lines}).status_code == 302
    page = " ".join(client.get(where).content.decode().split())
    assert "A 6, B 1" in page
    assert "A safe, B unsafe" in page
    assert "quality (1–7, ± 1)" in page
    sent = {"act": "settings", "gold_every": "4", "qualification_pass": "80"}
    assert client.post(where, sent).status_code == 302
