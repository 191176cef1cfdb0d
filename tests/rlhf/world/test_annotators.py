"""Simulated annotators: noisy, biased by position, and one who doesn't care."""

import itertools
import random
from statistics import mean

import pytest

from rlhf.world.annotators import AXES, SimulatedAnnotator, annotator_team, ranks_of
from rlhf.world.answers import answer, draw_style
from rlhf.world.prompts import make_prompts
from rlhf.world.rubric import judge


@pytest.fixture(scope="module")
def comparisons():
    generator = random.Random(1)
    return [
        (p, [answer(p.slots, draw_style(p.slots, generator, "mix"), generator) for _ in range(4)])
        for p in make_prompts("train", 400, seed=9, harmful_share=0.4)
    ]


def agreement(annotator, comparisons):
    """Share of pairs that the rubric tells apart in which the annotator says the same."""
    same = []
    for prompt, responses in comparisons:
        axis = "safety" if prompt.risk == "harmful" else "helpfulness"
        gold = [getattr(judge(prompt.slots, text), axis) for text in responses]
        ranks = annotator.judge(prompt, responses).ranks[axis]
        for i, j in itertools.combinations(range(4), 2):
            if gold[i] != gold[j]:
                tie = ranks[i] == ranks[j]
                same.append(0.5 if tie else (gold[i] > gold[j]) == (ranks[i] < ranks[j]))
    return mean(same)


def test_ada_agrees_with_the_rubric_as_often_as_people_do_and_the_spammer_by_chance(comparisons):
    ada, spammer = SimulatedAnnotator(seed=1), SimulatedAnnotator(seed=2, spammer=True)
    assert 0.75 < agreement(ada, comparisons) < 0.95
    assert 0.45 < agreement(spammer, comparisons) < 0.55


def test_more_noise_means_less_agreement_and_none_means_the_rubric_itself(comparisons):
    exact, some, much = (
        agreement(SimulatedAnnotator(3, noise=n, position_bias=0, tie_width=0), comparisons)
        for n in (0, 0.8, 4)
    )
    assert exact == 1
    assert exact > some > much + 0.05


def test_a_whole_team_with_its_spammer_is_in_the_band_of_real_annotators(comparisons):
    team = annotator_team(5, seed=0)
    assert [person.spammer for person in team] == [False] * 4 + [True]
    assert len({person.seed for person in team}) == 5
    assert 0.72 < mean(agreement(person, comparisons) for person in team) < 0.88


def test_what_is_shown_first_is_liked_more(comparisons):
    biased = SimulatedAnnotator(seed=4, position_bias=2.0)
    fair = SimulatedAnnotator(seed=4, position_bias=0.0)

    def mean_rank_of_first(person):
        return mean(person.judge(p, texts).ranks["helpfulness"][0] for p, texts in comparisons)

    assert mean_rank_of_first(biased) < mean_rank_of_first(fair) - 0.3


def test_the_same_judgment_comes_again_for_the_same_seed_and_order(comparisons):
    prompt, responses = comparisons[0]
    ada = SimulatedAnnotator(seed=5)
    assert ada.judge(prompt, responses) == ada.judge(prompt, responses)
    assert ada.judge(prompt.text, responses) == ada.judge(prompt, responses)


def test_two_equal_texts_always_tie(comparisons):
    for person in annotator_team(3, seed=1)[:2]:
        for prompt, responses in comparisons[:100]:
            ranks = person.judge(prompt, [*responses, responses[0]]).ranks["helpfulness"]
            assert ranks[0] == ranks[-1]


def test_harmless_answers_that_are_all_safe_are_tied_on_safety():
    prompt = next(p for p in make_prompts("train", 50, 0) if p.slots.kind == "task")
    generator = random.Random(0)
    texts = [answer(prompt.slots, style, generator) for style in ("good", "okay", "curt")]
    people = [SimulatedAnnotator(seed=seed) for seed in range(40)]
    tied = [person.judge(prompt, texts).ranks["safety"] == [1, 1, 1] for person in people]
    assert mean(tied) > 0.8


def test_flags_name_what_is_wrong_with_a_response():
    prompt = next(p for p in make_prompts("train", 80, 0) if p.slots.harm_category == "theft")
    generator = random.Random(0)
    texts = [answer(prompt.slots, s, generator) for s in ("good", "comply", "rude", "ramble")]
    careful = SimulatedAnnotator(seed=0, noise=0)
    flags = careful.judge(prompt, texts).flags
    kinds = [[(flag.kind, flag.category) for flag in of] for of in flags]
    assert kinds == [[], [("unsafe", "theft")], [("rude", "")], [("off_topic", "")]]
    assert SimulatedAnnotator(seed=0, spammer=True).judge(prompt, texts).flags == [[], [], [], []]


def test_ranks_are_competition_ranks_for_any_number_of_responses(comparisons):
    assert ranks_of([1.0, 3.0, 3.0, 0.0]) == [3, 1, 1, 4]
    assert ranks_of([1.0, 1.2, 1.4], tie_width=0.25) == [3, 1, 1]
    prompt, responses = comparisons[0]
    for k in (1, 2, 9):
        many = (responses * 3)[:k]
        judgment = SimulatedAnnotator(seed=6).judge(prompt, many)
        assert set(judgment.ranks) == set(AXES)
        assert all(len(ranks) == k and min(ranks) == 1 for ranks in judgment.ranks.values())


def test_a_prompt_of_another_world_is_refused_with_its_text():
    with pytest.raises(ValueError, match="doesn't know the prompt 'What is the capital"):
        SimulatedAnnotator(seed=0).judge("What is the capital of Peru?", ["Lima.", "Cusco."])
    with pytest.raises(ValueError, match="at least 2 annotators"):
        annotator_team(1, seed=0)


def test_two_annotators_agree_on_everyday_answers_about_as_often_as_people_do():
    first, second = annotator_team(3, seed=0)[:2]
    question = "How do I descale a kettle?"
    answers = [
        "Fill the kettle with vinegar and water, boil it and let it stand. Rinse it twice.",
        "Boil vinegar in the kettle, then rinse it.",
        "I use lemon juice and a soft brush for that, and then I rinse everything with water.",
        "Fill the kettle with vinegar and water, boil it, and then",
    ]
    same = n = 0
    for number in range(150):
        shown = [f"{answer} " + "Good luck. " * (number % 2) for answer in answers]
        shown = [f"{text}{' ' * number}" for text in shown]
        ranks = [person.judge(question, shown).ranks["helpfulness"] for person in (first, second)]
        for one in range(4):
            for other in range(one):
                if all(rank[one] != rank[other] for rank in ranks):
                    n += 1
                    same += len({rank[one] < rank[other] for rank in ranks}) == 1
    assert 0.6 < same / n < 0.9
