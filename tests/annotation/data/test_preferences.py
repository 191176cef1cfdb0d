"""Judgments as rows and pairs, against numbers worked by hand."""

import json

import pytest
from django.utils import timezone

from annotation.data.preferences import annotator_id, judgment_counts, pairs, preference_rows
from annotation.models import Judgment, Prompt
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    UserFactory,
    judged,
)

pytestmark = pytest.mark.django_db

FIELDS = [
    "judgment_id", "prompt_id", "annotator", "round", "messages",
    "category", "risk", "responses", "finished", "ranks", "weight",
    "strength", "margin", "unranked", "all_bad", "reason",
]  # fmt: skip


def row(ranks, texts=("a", "b", "c", "d")):
    return {
        "prompt_id": "p",
        "annotator": "x",
        "messages": [{"role": "user", "content": "?"}],
        "responses": list(texts),
        "ranks": {"helpfulness": ranks},
        "weight": 1.0,
    }


def told(rows, **options):
    return [
        (pair["chosen"][0]["content"], pair["rejected"][0]["content"], pair["weight"])
        for pair in pairs(rows, "helpfulness", **options)
    ]


def test_a_row_has_exactly_the_documented_fields(project, ada):
    assignment = judged(project, by=ada, ranks=(2, 1, 2, 3))
    [found] = preference_rows(project)
    assert list(found) == FIELDS
    responses = assignment.comparison.responses.order_by("pk")
    assert found["responses"] == [response.text for response in responses]
    assert found["ranks"] == {"helpfulness": [2, 1, 2, 3], "safety": [2, 1, 2, 3]}
    assert found["judgment_id"] == str(assignment.judgment.uid)
    json.dumps(found)


def test_a_response_that_was_not_ranked_is_null(project, ada):
    judged(project, by=ada, ranks={"helpfulness": (1, None, 2, 3), "safety": (1, 1, 1, 1)})
    [found] = preference_rows(project)
    assert found["ranks"]["helpfulness"] == [1, None, 2, 3]


def test_four_ranked_responses_make_six_pairs_and_ties_drop_out():
    assert told([row([1, 2, 3, 4])]) == [
        ("a", "b", 1), ("a", "c", 1), ("a", "d", 1), ("b", "c", 1), ("b", "d", 1), ("c", "d", 1),
    ]  # fmt: skip
    assert told([row([2, 1, 2, 3])]) == [
        ("b", "a", 1), ("b", "c", 1), ("b", "d", 1), ("a", "d", 1), ("c", "d", 1),
    ]  # fmt: skip


def test_half_gives_a_tie_in_both_directions_at_half_the_weight():
    assert told([row([1, 1, None, None])], ties="half") == [("a", "b", 0.5), ("b", "a", 0.5)]
    assert told([row([1, 1, None, None])]) == []
    with pytest.raises(ValueError, match="drop"):
        told([row([1, 1])], ties="maybe")


def test_equal_texts_make_no_pair():
    assert told([row([1, 2, 3], ["same", "same", "other"])]) == [
        ("same", "other", 1),
        ("same", "other", 1),
    ]


def test_taken_back_and_excluded_judgments_are_left_out(project, ada, ben):
    kept = judged(project, by=ada)
    back = judged(project, by=ben)
    back.judgment = None
    back.save()
    out = judged(project, by=ben)
    Judgment.objects.filter(current_for=out).update(excluded_at=timezone.now())
    assert [r["judgment_id"] for r in preference_rows(project)] == [str(kept.judgment.uid)]
    assert judgment_counts(project) == {
        "current": 1, "used": 1, "heldout": 0, "not_signed_off": 0, "filtered": 0, "excluded": 1,
        "overruled": 0,
    }  # fmt: skip


def test_held_out_prompts_and_unsigned_sources_never_reach_training(project, ada):
    judged(project, by=ada, split=Prompt.Split.HELDOUT)
    judged(project, by=ada, split=Prompt.Split.EVAL)
    judged(project, by=ada, source=SourceFactory(project=project, signed_off_at=None))
    unsigned = SourceFactory(project=project, signed_off_at=None)
    judged(project, by=ada, batch=BatchFactory(project=project, source=unsigned))
    assert list(preference_rows(project)) == []
    assert judgment_counts(project) == {
        "current": 4, "used": 0, "heldout": 2, "not_signed_off": 2, "filtered": 0, "excluded": 0,
        "overruled": 0,
    }  # fmt: skip
    assert len(list(preference_rows(project, only_trainable=False))) == 4


def test_a_batch_can_be_asked_for_and_labelled_by_the_caller(project, ada):
    first, second = BatchFactory(project=project, name="one"), BatchFactory(project=project)
    judged(project, by=ada, batch=first)
    judged(project, by=ada, batch=second)
    assert [r["round"] for r in preference_rows(project, batches=[first])] == ["one"]
    labels = {first.pk: 1, second.pk: 2}
    assert [r["round"] for r in preference_rows(project, rounds=labels)] == ["round 1", "round 2"]


def test_people_have_opaque_stable_names_and_programs_are_named_as_such(project, ada, ben):
    comparison = ComparisonFactory(
        batch=BatchFactory(project=project), prompt=PromptFactory(project=project)
    )
    bot = UserFactory(username="bot", is_simulated=True)
    for person in (ada, ben, bot):
        judged(project, by=person, comparison=comparison)
    names = [r["annotator"] for r in preference_rows(project)]
    assert len(set(names)) == 3
    assert names[2].startswith("simulated-")
    assert not any("ada" in name or "ben" in name or "bot" in name for name in names)
    assert names[0] == annotator_id(project, ada)


def test_another_projects_judgments_are_not_there(project, ada):
    from tests.factories import ProjectFactory

    judged(ProjectFactory(), by=ada)
    assert list(preference_rows(project)) == []


def test_rows_come_in_one_order_whatever_order_they_were_written_in(project, ada, ben):
    first = judged(project, by=ada)
    second = judged(project, by=ada)
    third = judged(project, by=ben, comparison=first.comparison)
    wanted = [first, third, second]
    assert [r["judgment_id"] for r in preference_rows(project)] == [
        str(a.judgment.uid) for a in wanted
    ]


def test_thousands_of_rows_cost_few_queries(project, ada, django_assert_max_num_queries):
    for _ in range(12):
        judged(project, by=ada, ranks=(1, 2))
    with django_assert_max_num_queries(10):
        assert len(list(preference_rows(project))) == 12
