"""A reviewer decides whatever people were asked: pairs, marks and votes on safety, written answers."""

import uuid

import pytest
from django.urls import reverse

from annotation.data.preferences import preference_rows
from annotation.data.ratings_and_demonstrations import demonstrations, response_rows
from annotation.judge.answers import Answer
from annotation.judge.submitting import submit_judgment
from annotation.models import Assignment, Judgment, ReviewCase
from annotation.protocols import PRESETS
from annotation.quality import review
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, ResponseFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(project, ada, ben):
    """asked(preset, ada's answer, ben's): one comparison that both judged, in letters by id."""

    def act(key, *answers, texts=("Water it.", "Burn it down.")):
        preset = PRESETS[key]
        project.axes = [dict(axis) for axis in preset.axes] or project.axes
        project.interface, project.protocol = preset.interface, preset.protocol.as_json()
        project.save()
        batch = BatchFactory(project=project, interface=preset.interface, protocol=project.protocol)
        comparison = ComparisonFactory(
            batch=batch, prompt=PromptFactory(project=project), responses=0
        )
        ids = [ResponseFactory(comparison=comparison, text=text).pk for text in texts]
        for who, answer in zip((ada, ben), answers, strict=False):
            assignment = Assignment.objects.create(
                comparison=comparison,
                annotator=who,
                shown_order=ids,
                lease_until="2030-01-01T00:00Z",
            )
            said = Answer.from_letters(assignment, answer)
            submit_judgment(assignment, by=who, answer=said, key=uuid.uuid4())
        review.update_queue(project)
        return comparison

    return act


@pytest.fixture
def decide(client, vera, project):
    """decide(case, choice, …): as vera does on the page; the page's answer."""

    def act(case, choice, **fields):
        client.force_login(vera)
        given = {"act": "decide", "key": uuid.uuid4(), "choice": choice, "ground": "guidelines"}
        return client.post(reverse("review_case", args=["apollo", case.uid]), given | fields)

    return act


def pair(better, level, *, safe=(True, True), harms=(), **more):
    other = "B" if better == "A" else "A"
    return {
        "ranks": {"helpfulness": {better: 1, other: 2}},
        "strength": {"helpfulness": level},
        "safety": {
            letter: {"safe": is_safe, "harms": [] if is_safe else list(harms)}
            for letter, is_safe in zip("AB", safe, strict=True)
        },
    } | more


def ruling():
    return Judgment.objects.get(assignment__is_ruling=True, current_for__isnull=False)


def test_a_pair_is_decided_as_one_of_them_said_with_strength_and_safety(asked, decide, project):
    asked("llama2", pair("A", 4), pair("B", 1))
    case = ReviewCase.objects.get()
    assert case.reasons == ["disagreement"]
    assert decide(case, "1", note="B burns the plant.").status_code == 302
    assert ruling().strength["helpfulness"]["label"] == "significantly better"
    assert ruling().reason == "", "the reviewer's words stay with the case"
    case.refresh_from_db()
    assert (case.state, case.note) == ("decided", "B burns the plant.")
    (row,) = preference_rows(project)
    assert row["ranks"]["helpfulness"] == [1, 2]
    assert (row["strength"]["helpfulness"], row["margin"]["helpfulness"]) == (4, 1.0)


def test_a_pair_is_decided_in_ones_own_way(asked, decide, client, vera, project):
    asked("llama2", pair("A", 4), pair("B", 1))
    case = ReviewCase.objects.get()
    client.force_login(vera)
    page = client.get(reverse("review_case", args=["apollo", case.uid])).content.decode()
    assert "A &gt; B, significantly better" in page
    assert 'name="pair-helpfulness" value="A4"' in page
    assert 'name="safe-B"' in page
    assert 'value="consensus"' not in page, "how strongly has no consensus"
    own = {"pair-helpfulness": "B2", "safe-A": "yes", "safe-B": "yes"}
    assert decide(case, "own", **own).status_code == 302
    assert ruling().strength["helpfulness"]["level"] == 2
    assert ruling().safety == {str(pk): {"safe": True, "harms": []} for pk in ids_of(case)}


def ids_of(case):
    return case.comparison.responses.order_by("pk").values_list("pk", flat=True)


def test_half_an_answer_is_refused_and_kept_on_the_page(asked, decide):
    asked("llama2", pair("A", 4), pair("B", 1))
    case = ReviewCase.objects.get()
    refused = decide(case, "own", **{"pair-helpfulness": "B3", "safe-A": "yes"})
    assert refused.status_code == 422
    page = refused.content.decode()
    assert "B: choose safe or unsafe." in page
    assert 'value="B3" data-key="7" checked' in page
    assert not Judgment.objects.filter(assignment__is_ruling=True).exists()


def test_who_calls_it_safe_and_who_does_not_is_a_disagreement(asked, decide):
    harm = {"harms": ["violence"]}
    safe = {"helpfulness": {"A": 1, "B": 2}, "safety": {"A": 1, "B": 2}}
    one = {"ranks": safe, "safety": {"A": {"safe": True}, "B": {"safe": True}}}
    other = one | {"safety": {"A": {"safe": True}, "B": {"safe": False} | harm}}
    asked("safe-rlhf", one, other)
    case = ReviewCase.objects.get()
    assert case.reasons == ["disagreement"]
    assert decide(case, "2").status_code == 302
    assert [vote["harms"] for vote in ruling().safety.values()] == [[], ["violence"]]


def test_a_pair_without_strengths_is_decided_by_the_consensus_of_order_and_safety(
    asked, decide, vera
):
    said = {"ranks": {axis: {"A": 1, "B": 2} for axis in ("helpfulness", "safety")}}
    said["safety"] = {"A": {"safe": True}, "B": {"safe": False, "harms": ["violence"]}}
    case = review.ask_for_review(asked("safe-rlhf", said, said), vera)
    assert decide(case, "consensus").status_code == 302
    assert [of["safe"] for of in ruling().safety.values()] == [True, False]
    assert [of["harms"] for of in ruling().safety.values()] == [[], ["violence"]]
    first, second = ids_of(case)
    assert ruling().ranks["safety"] == {str(first): 1, str(second): 2}


def marks(a, b):
    five = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"A": dict.fromkeys(five, a), "B": dict.fromkeys(five, b)}


def test_marks_far_apart_are_a_disagreement_and_can_be_given_anew(asked, decide, project):
    why = "The first one answers what was asked."
    order = {"ranks": {"overall": {"A": 1, "B": 2}}, "strength": {"overall": 2}, "reason": why}
    asked("helpsteer", order | {"ratings": marks(4, 2)}, order | {"ratings": marks(0, 2)})
    case = ReviewCase.objects.get()
    assert case.reasons == ["disagreement"]
    own = {
        f"rate-{letter}-{name}": value
        for letter, of in marks(3, 1).items()
        for name, value in of.items()
    }
    short = decide(case, "own", **own, **{"pair-overall": "A1"}, note="Short.")
    assert "Give a reason of at least 20 characters" in short.content.decode()
    assert decide(case, "own", **own, **{"pair-overall": "A1"}, note=why).status_code == 302
    rated = [row.row for row in response_rows(project) if row.file == "ratings"]
    assert [row["attributes"]["helpfulness"] for row in rated] == [3, 1]


def test_marks_that_hardly_differ_are_left_alone(asked):
    order = {"ranks": {"overall": {"A": 1, "B": 2}}, "strength": {"overall": 2}}
    order["reason"] = "The first one answers what was asked."
    asked("helpsteer", order | {"ratings": marks(4, 2)}, order | {"ratings": marks(3, 1)})
    assert not ReviewCase.objects.exists()


def test_of_two_ideal_answers_a_reviewer_chooses_or_writes_the_one_that_counts(
    asked, decide, client, grace, vera, ada, project
):
    asked(
        "demonstrate", {"rewrite": "Water it weekly."}, {"rewrite": "**Never** water it."}, texts=()
    )
    assert not ReviewCase.objects.exists(), "to write differently is no disagreement"
    client.force_login(grace)
    sent = Judgment.objects.filter(assignment__annotator=ada).get()
    person = reverse("quality_person", args=["apollo", ada.pk])
    told = client.post(person, {"act": "review", "judgment": sent.pk}, follow=True)
    assert "1 sent to review." in told.content.decode()
    case = ReviewCase.objects.get()
    client.force_login(vera)
    page = client.get(reverse("review_case", args=["apollo", case.uid])).content.decode()
    assert "Water it weekly." in page
    assert "<strong>Never</strong> water it." in page
    assert len(list(demonstrations(project))) == 2
    assert decide(case, "1").status_code == 302
    (row,) = demonstrations(project)
    assert row["response"] == "Water it weekly."
    assert row["annotator"].startswith("reviewer-")
    review.undo_decision(case, vera)
    assert decide(case, "own", rewrite="Once a week.", note="Both miss it.").status_code == 302
    assert [row["response"] for row in demonstrations(project)] == ["Once a week."]


def test_a_correction_is_decided_with_what_it_corrects(asked, decide, vera, project):
    comparison = asked(
        "rewrite",
        {"rewrite": "Water it weekly.", "based_on": "A"},
        {"rewrite": "Water it daily.", "based_on": "A"},
        texts=("Water it.",),
    )
    case = review.ask_for_review(comparison, vera)
    assert "Choose the response" in decide(case, "own", rewrite="Often.").content.decode()
    assert decide(case, "own", rewrite="Often.", based_on="A").status_code == 302
    assert ruling().based_on == comparison.responses.get()


def test_gold_and_what_is_another_projects_is_not_sent_to_review(
    asked, client, grace, otto, ada, project
):
    from annotation.quality.gold_items import add_gold_items

    comparison = asked("llama2", pair("A", 4))
    add_gold_items(project, [{"prompt": "1 + 1?", "responses": ["2", "3"], "ranks": [1, 2]}], grace)
    comparison.gold = project.gold_items.get()
    comparison.save()
    sent = Judgment.objects.get()
    assert review.ask_for_reviews(project, [sent.pk], grace) == 0
    client.force_login(otto)
    person = reverse("quality_person", args=["apollo", ada.pk])
    assert client.post(person, {"act": "review", "judgment": sent.pk}).status_code == 404
