import dataclasses

import pytest

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.drafts import save_draft
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import JudgmentConflict, submit_judgment
from annotation.models import Judgment
from annotation.projects.batches import BatchError, ResponseText, add_comparisons, create_batch
from annotation.protocols import (
    INTERFACES,
    PRESETS,
    RESPONSES,
    Attribute,
    Level,
    Protocol,
    ProtocolError,
    Scale,
    read,
)
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, key

LIKERT = Attribute(key="quality", name="Quality", low=1, high=7)


def asked(project, interface, n=2, axes=("helpfulness", "safety"), **protocol):
    """What ada is handed under this interface and protocol."""
    project.interface = interface
    project.protocol = Protocol(**protocol).as_json()
    project.axes = [axis for axis in project.axes if axis["key"] in axes]
    project.save()
    ComparisonFactory(batch=BatchFactory(project=project), responses=n)
    return next_assignment(project.memberships.get(user__username="ada").user, project)


def send(assignment, once=None, **letters):
    answer = Answer.from_letters(assignment, letters)
    return submit_judgment(assignment, by=assignment.annotator, answer=answer, key=once or key())


def ids(assignment):
    return dict(zip("ABCDEFGHI", map(str, assignment.shown_order), strict=False))


# --- Protocols as data ------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.key)
def test_a_preset_is_a_protocol_that_survives_being_stored(preset):
    assert read(preset.protocol.as_json()) == preset.protocol
    assert preset.protocol.preset == preset.key
    fewest, most = RESPONSES[preset.interface]
    assert fewest <= preset.n_responses <= most
    assert preset.explanation.endswith(".")


def test_the_presets_have_the_published_scales():
    points = {
        key: 2 * len(preset.protocol.scale.levels) + bool(preset.protocol.scale.tie)
        for key, preset in PRESETS.items()
    }
    assert (points["hh-rlhf"], points["llama2"], points["helpsteer"]) == (8, 8, 7)
    llama2 = [level.margin for level in PRESETS["llama2"].protocol.scale.levels]
    assert llama2 == [0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1]
    assert len(PRESETS["safe-rlhf"].protocol.harms) == 14
    assert [one.key for one in PRESETS["helpsteer"].protocol.attributes] == [
        "helpfulness",
        "correctness",
        "coherence",
        "complexity",
        "verbosity",
    ]
    assert all(of.values == range(5) for of in PRESETS["helpsteer"].protocol.attributes)
    helpsteer = PRESETS["helpsteer"].protocol.scale
    assert [level.margin for level in helpsteer.levels] == [1, 2, 3]
    assert [level.label for level in helpsteer.levels] == [
        "slightly better",
        "better",
        "much better",
    ]
    assert helpsteer.tie == "about the same"


def test_instructgpt_asks_what_its_table_3_lists():
    quality, *notes = PRESETS["instructgpt"].protocol.attributes
    assert quality.values == range(1, 8)
    assert all(of.is_yes_no for of in notes)
    # A word of each row of the table, in its order.
    words = (
        *("follow", "customer assistant", "Makes things up", "constraint", "Sexual", "Violent"),
        *("terrorism", "protected class", "harmful advice", "opinion", "moral judgment"),
    )
    assert len(notes) == len(words)
    for note, word in zip(notes, words, strict=True):
        assert word in note.name


def test_the_kinds_of_harm_are_beavertails_columns_by_their_beginnings():
    columns = (
        "animal_abuse",
        "child_abuse",
        "controversial_topics,politics",
        "discrimination,stereotype,injustice",
        "drug_abuse,weapons,banned_substance",
        "financial_crime,property_crime,theft",
        "hate_speech,offensive_language",
        "misinformation_regarding_ethics,laws_and_safety",
        "non_violent_unethical_behavior",
        "privacy_violation",
        "self_harm",
        "sexually_explicit,adult_content",
        "terrorism,organized_crime",
        "violence,aiding_and_abetting,incitement",
    )
    for preset in ("safe-rlhf", "rate"):
        harms = PRESETS[preset].protocol.harms
        assert len(harms) == len(columns)
        for kind, column in zip(harms, columns, strict=True):
            assert column.startswith(kind)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"charm": 1}, "no part “charm”"),
        ([1], "object"),
        ({"reason": "maybe"}, "reason is one of none, optional, required"),
        ({"reason_min": -1}, "2,000 or less"),
        ({"reason_min": "7"}, "wrong kind"),
        ({"scale": {"levels": []}}, "1 to 4 levels"),
        ({"scale": {"levels": [{"name": "x"}]}}, "no part “name”"),
        ({"scale": {"levels": [{}]}}, "missing"),
        ({"attributes": [{"key": "a b", "name": "x"}]}, "plain word"),
        ({"attributes": [{"key": "a", "name": "x", "low": 3, "high": 3}]}, "9 or less"),
        ({"attributes": [{"key": "a", "name": "x"}, {"key": "a", "name": "y"}]}, "same key"),
        ({"harms": {"theft": "Theft"}}, "vote on safety"),
        ({"scale": {"levels": 5}}, "one of a list"),
        ({"scale": {"levels": [{"label": 5}]}}, "“label” is of the wrong kind"),
        ({"scale": {"levels": [{"label": "a", "margin": float("nan")}]}}, "“margin” is of"),
        ({"attributes": 5}, "one of a list"),
        ({"attributes": [{"key": "a", "name": {}}]}, "“name” is of the wrong kind"),
        ({"attributes": [{"key": "a", "name": "b", "low": 0.5}]}, "“low” is of the wrong kind"),
        ({"preset": []}, "“preset” is of the wrong kind"),
        ({"harms": ["a"], "safety": True}, "“harms” is of the wrong kind"),
        ({"harms": {"a": 5}, "safety": True}, "“harms” is of the wrong kind"),
        ({"safety": "yes"}, "“safety” is of the wrong kind"),
        ({"reason_min": 1.5}, "“reason_min” is of the wrong kind"),
        ({"rewrite": "always"}, "rewrite is one of none, optional"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(data, says):
    with pytest.raises(ProtocolError, match=says):
        Protocol.from_json(data)


def test_a_batch_keeps_the_protocol_it_was_made_under(project):
    project.interface, project.protocol = "pair", Protocol(reason="required").as_json()
    project.save()
    batch = create_batch(project, "first")
    project.interface, project.protocol = "rank", {}
    project.save()
    batch.refresh_from_db()
    assert (batch.effective_interface, batch.effective_protocol.reason) == ("pair", "required")
    assert create_batch(project, "second").effective_interface == "rank"


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_comparison_has_as_many_responses_as_its_interface_shows(project, interface):
    project.interface = interface
    project.save()
    batch = create_batch(project, "first")
    fewest, most = RESPONSES[interface]
    for n in (fewest, most):
        rows = [(PromptFactory(project=project), [ResponseText("x", "p")] * n)]
        assert add_comparisons(batch, rows) == 1
    with pytest.raises(BatchError, match=f"has {most + 1}"):
        add_comparisons(
            batch, [(PromptFactory(project=project), [ResponseText("x", "p")] * (most + 1))]
        )


# --- Rank: top-k and all bad -------------------------------------------------------------------------


def test_in_a_top_k_ranking_the_rest_is_below(project, ada):
    handed = asked(project, "rank", n=4, axes=["helpfulness"], unranked="below")
    judgment = send(handed, ranks={"helpfulness": {"C": 1}})
    assert judgment.rest_below
    assert judgment.ranks == {"helpfulness": {ids(handed)["C"]: 1}}


def test_where_nothing_may_be_left_out_that_is_said(project, ada):
    handed = asked(project, "rank", n=3, axes=["helpfulness"], unranked="refused")
    with pytest.raises(JudgmentError, match="B has no rank yet"):
        send(handed, ranks={"helpfulness": {"A": 1, "C": 2}})


def test_all_bad_is_said_beside_an_order(project, ada):
    handed = asked(project, "rank", n=3, all_bad=True)
    ranks = {axis: {"A": 1, "B": 1, "C": 2} for axis in ("helpfulness", "safety")}
    assert send(handed, ranks=ranks, all_bad=["safety"]).all_bad == ["safety"]


def test_all_bad_is_refused_where_it_is_not_asked(project, ada):
    handed = asked(project, "rank", n=2, axes=["helpfulness"])
    with pytest.raises(JudgmentError, match="not an option"):
        send(handed, ranks={"helpfulness": {"A": 1, "B": 2}}, all_bad=["helpfulness"])


# --- Pair ------------------------------------------------------------------------------------------------

FOUR = PRESETS["llama2"].protocol.scale
SEVEN = PRESETS["helpsteer"].protocol.scale


def test_a_strength_is_kept_with_its_words_and_margin(project, ada):
    handed = asked(project, "pair", axes=["helpfulness"], scale=FOUR)
    judgment = send(handed, ranks={"helpfulness": {"A": 2, "B": 1}}, strength={"helpfulness": 4})
    assert judgment.strength == {
        "helpfulness": {"level": 4, "of": 4, "label": "significantly better", "margin": 1.0}
    }


def test_the_middle_of_a_scale_is_a_tie(project, ada):
    handed = asked(project, "pair", axes=["helpfulness"], scale=SEVEN)
    judgment = send(handed, ranks={"helpfulness": {"A": 1, "B": 1}})
    assert judgment.strength["helpfulness"] == {
        "level": 0,
        "of": 3,
        "label": "about the same",
        "margin": 0.0,
    }


@pytest.mark.parametrize(
    ("ranks", "strength", "says"),
    [
        ({"A": 1, "B": 1}, {}, "choose one of the two"),
        ({"A": 1, "B": 2}, {}, "how much better"),
        ({"A": 1, "B": 2}, {"helpfulness": 0}, "only for ties"),
        ({"A": 1, "B": 2}, {"helpfulness": 5}, "from 0 to 4"),
        ({"A": 1, "B": 2}, {"helpfulness": True}, "from 0 to 4"),
        ({"A": 1, "B": 2}, {"charm": 1}, "does not compare"),
        ({"A": 1, "B": 2}, [4], "per axis"),
        ({"A": 1}, {"helpfulness": 2}, "at least two"),
    ],
)
def test_a_strength_that_makes_no_sense_is_refused(project, ada, ranks, strength, says):
    handed = asked(project, "pair", axes=["helpfulness"], scale=FOUR)
    with pytest.raises(JudgmentError, match=says):
        send(handed, ranks={"helpfulness": ranks}, strength=strength)
    assert not Judgment.objects.exists()


def test_a_required_reason_has_its_length(project, ada):
    handed = asked(project, "pair", axes=["helpfulness"], reason="required", reason_min=10)
    ranks = {"helpfulness": {"A": 1, "B": 2}}
    with pytest.raises(JudgmentError, match="at least 10 characters; yours has 5"):
        send(handed, ranks=ranks, reason=" short  ")
    assert send(handed, ranks=ranks, reason="long enough").reason == "long enough"


def test_the_same_vote_twice_is_one_vote_and_another_strength_a_conflict(project, ada):
    handed = asked(project, "pair", axes=["helpfulness"], scale=FOUR)
    once, ranks = key(), {"helpfulness": {"A": 1, "B": 2}}
    first = send(handed, once, ranks=ranks, strength={"helpfulness": 2})
    assert send(handed, once, ranks=ranks, strength={"helpfulness": 2}) == first
    with pytest.raises(JudgmentConflict):
        send(handed, once, ranks=ranks, strength={"helpfulness": 3})


# --- Rate, and safety as a vote of its own ---------------------------------------------------------------------


def test_ratings_and_votes_are_kept_per_response(project, ada):
    handed = asked(
        project, "rate", n=1, attributes=(LIKERT,), safety=True, harms={"theft": "Theft"}
    )
    judgment = send(
        handed, ratings={"A": {"quality": 7}}, safety={"A": {"safe": False, "harms": ["theft"]}}
    )
    a = ids(handed)["A"]
    assert judgment.ranks == {}
    assert judgment.ratings == {a: {"quality": 7}}
    assert judgment.safety == {a: {"safe": False, "harms": ["theft"]}}


@pytest.mark.parametrize(
    ("ratings", "safety", "says"),
    [
        ({}, {"A": {"safe": True}}, "A: Quality is not rated"),
        ({"A": {"quality": 8}}, {"A": {"safe": True}}, "from 1 to 7"),
        ({"A": {"quality": "7"}}, {"A": {"safe": True}}, "from 1 to 7"),
        ({"A": {"charm": 1}}, {"A": {"safe": True}}, "not rated on"),
        ({"A": [7]}, {"A": {"safe": True}}, "per attribute"),
        ({"A": {"quality": 7}}, {}, "choose safe or unsafe"),
        ({"A": {"quality": 7}}, {"A": {"safe": "yes"}}, "choose safe or unsafe"),
        ({"A": {"quality": 7}}, {"A": {"safe": False}}, "choose the kind of harm"),
        ({"A": {"quality": 7}}, {"A": {"safe": True, "harms": ["theft"]}}, "no kind of harm"),
        ({"A": {"quality": 7}}, {"A": {"safe": False, "harms": [{}]}}, "no kind of harm"),
    ],
)
def test_ratings_that_make_no_sense_are_refused(project, ada, ratings, safety, says):
    handed = asked(
        project, "rate", n=1, attributes=(LIKERT,), safety=True, harms={"theft": "Theft"}
    )
    with pytest.raises(JudgmentError, match=says):
        send(handed, ratings=ratings, safety=safety)
    assert not Judgment.objects.exists()


def test_nothing_is_ranked_where_ranks_are_not_asked(project, ada):
    handed = asked(project, "rate", n=2, attributes=(LIKERT,))
    with pytest.raises(JudgmentError, match="not ranked"):
        send(handed, ranks={"safety": {"A": 1, "B": 2}})


def test_better_but_unsafe_is_a_conflict_for_a_reviewer(project, ada):
    handed = asked(project, "pair", safety=True)
    ranks = {"helpfulness": {"A": 1, "B": 2}, "safety": {"A": 2, "B": 1}}
    judgment = send(handed, ranks=ranks, safety={"A": {"safe": False}, "B": {"safe": True}})
    a, b = ids(handed)["A"], ids(handed)["B"]
    assert judgment.conflicts == [
        {"kind": "better_but_unsafe", "axis": "helpfulness", "response": a, "over": b}
    ]
    assert judgment.needs_review


@pytest.mark.parametrize("unranked", ["below", "unknown"])
def test_what_a_top_k_ranking_leaves_out_is_below_what_is_unsafe(project, ada, unranked):
    handed = asked(
        project, "rank", 4, ("helpfulness",), unranked=unranked, safety=True, flags=False
    )
    safety = {letter: {"safe": letter not in "AC"} for letter in "ABCD"}
    ranks = {"A": 1} if unranked == "below" else {"A": 1, "C": 2}
    judgment = send(handed, ranks={"helpfulness": ranks}, safety=safety)
    a, b, *_ = ids(handed).values()
    conflict = {"kind": "better_but_unsafe", "axis": "helpfulness", "response": a, "over": b}
    assert judgment.conflicts == ([conflict] if unranked == "below" else [])
    assert judgment.needs_review is (unranked == "below")


def test_the_nearest_below_is_named_before_what_a_top_k_ranking_leaves_out(project, ada):
    handed = asked(project, "rank", 4, ("helpfulness",), unranked="below", safety=True, flags=False)
    safety = {letter: {"safe": letter != "A"} for letter in "ABCD"}
    judgment = send(handed, ranks={"helpfulness": {"A": 1, "D": 2}}, safety=safety)
    assert [one["over"] for one in judgment.conflicts] == [ids(handed)["D"]]


def test_safer_but_unsafe_is_a_conflict_too(project, ada):
    handed = asked(project, "rank", n=2, safety=True)
    ranks = {"helpfulness": {"A": 2, "B": 1}, "safety": {"A": 1, "B": 2}}
    judgment = send(handed, ranks=ranks, safety={"A": {"safe": False}, "B": {"safe": True}})
    assert [one["kind"] for one in judgment.conflicts] == ["safer_but_unsafe"]


@pytest.mark.parametrize("safe", [(True, True), (False, False), (True, False)])
def test_votes_that_fit_together_are_no_conflict(project, ada, safe):
    handed = asked(project, "pair", axes=["helpfulness"], safety=True)
    votes = {letter: {"safe": vote} for letter, vote in zip("AB", safe, strict=True)}
    judgment = send(handed, ranks={"helpfulness": {"A": 1, "B": 2}}, safety=votes)
    assert (judgment.conflicts, judgment.needs_review) == ([], False)


def test_a_flag_unsafe_counts_as_a_vote(project, ada):
    handed = asked(project, "rank", n=2)
    ranks = {axis: {"A": 1, "B": 2} for axis in ("helpfulness", "safety")}
    assert send(handed, ranks=ranks, flags={"A": ["unsafe"]}).needs_review


# --- Writing ---------------------------------------------------------------------------------------------------


def test_a_demonstration_is_a_text_and_nothing_else(project, ada):
    handed = asked(project, "demonstrate", n=0, text_min=10)
    with pytest.raises(JudgmentError, match="at least 10 characters; yours has 5"):
        send(handed, rewrite="Water")
    judgment = send(handed, rewrite="A little water.")
    assert (judgment.rewrite, judgment.based_on, judgment.ranks) == ("A little water.", None, {})


def test_a_rewrite_names_what_it_corrects_and_changes_it(project, ada):
    handed = asked(project, "rewrite", n=2)
    old = handed.comparison.responses.get(pk=ids(handed)["B"]).text
    with pytest.raises(JudgmentError, match="Choose the response"):
        send(handed, rewrite="Anything")
    with pytest.raises(JudgmentError, match="Nothing is changed"):
        send(handed, rewrite=f" {old}\n", based_on="B")
    with pytest.raises(JudgmentError, match="no response “Q”"):
        send(handed, rewrite="x", based_on="Q")
    judgment = send(handed, rewrite="Less water.", based_on="B")
    assert str(judgment.based_on_id) == ids(handed)["B"]


def test_a_draft_keeps_what_the_protocol_asks_and_drops_the_rest(project, ada):
    handed = asked(
        project, "pair", safety=True, harms={"x": "X"}, attributes=(LIKERT,), all_bad=True
    )
    good = {
        "strength": {"safety": 1},
        "all_bad": ["safety"],
        "ratings": {"A": {"quality": 3}},
        "safety": {"B": {"safe": False, "harms": ["x"]}},
        "based_on": "A",
    }
    save_draft(handed, good)
    assert {name: handed.draft[name] for name in good} == good
    bad = {
        "strength": {"charm": 1, "safety": "x"},
        "all_bad": [{}, "charm"],
        "ratings": {"Q": {}, "A": 7},
        "safety": {"A": {"safe": "x"}, "B": {"safe": True, "harms": 7}},
        "based_on": {},
    }
    save_draft(handed, bad)
    assert handed.draft["safety"] == {"B": {"safe": True, "harms": []}}
    assert not {"strength", "all_bad", "based_on"} & set(handed.draft)


def test_levels_and_scales_are_plain_values():
    assert dataclasses.replace(Scale(), tie="same").levels == (Level(label="better"),)
