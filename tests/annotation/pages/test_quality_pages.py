"""Pages and endpoints of quality: who sees what, what an admin can do, and that all of it is on record."""

import json
import uuid
from datetime import timedelta

import pytest
from django.forms import ModelForm
from django.utils import timezone

from annotation.api.quality import vote_rows
from annotation.data.preferences import judgment_counts, preference_rows
from annotation.data.snapshots import freeze_snapshot
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.leases import renew
from annotation.judge.submitting import submit_judgment
from annotation.models import (
    Assignment,
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    User,
)
from annotation.projects.guidelines import change_guidelines
from annotation.quality import assessment, review
from annotation.quality.assessment import assessment_of, reliability_of
from annotation.quality.gold_items import add_gold_items
from annotation.quality.people import people_of
from annotation.quality.throughput import throughput
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged, member

pytestmark = pytest.mark.django_db

HOSTILE = '<script>alert(1)</script>"><b'


@pytest.fixture
def busy(project, ada, ben):
    """ada and ben both judged thirty comparisons and mostly agree; mallory says 1, 2, 3, 4 always."""
    mallory = member(project, "mallory", "annotator")
    batch = BatchFactory(project=project)
    for number in range(30):
        comparison = ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
        right = [(number * 7 + place * 3) % 4 for place in range(4)]
        right = tuple(sorted(right).index(value) + 1 for value in right)
        judged(project, by=ada, comparison=comparison, ranks=right)
        judged(project, by=ben, comparison=comparison, ranks=right)
        lazy = judged(project, by=mallory, comparison=comparison, ranks=(1, 2, 3, 4))
        # What she was shown first she put first, whatever it was.
        order = lazy.shown_order[number % 4 :] + lazy.shown_order[: number % 4]
        lazy.shown_order = order
        lazy.save()
        Judgment.objects.filter(pk=lazy.judgment_id).update(
            seconds=2.0,
            ranks={
                axis: {str(pk): place for place, pk in enumerate(order, start=1)}
                for axis in project.axis_keys
            },
        )
    Judgment.objects.filter(seconds=None).update(seconds=60.0)
    return mallory


def test_the_one_who_does_not_read_is_first_in_the_table(project, busy, grace, client):
    people = people_of(project)
    assert people[0].user == busy
    assert people[0].is_suspect
    assert not people[1].is_suspect
    client.force_login(grace)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "1 annotator needs attention" in page
    assert "Prefers the response shown first" in page


def test_cost_follows_the_measured_time(project, busy, grace, client):
    client.force_login(grace)
    sent = {"act": "pay", "pay_per_hour": "31.00", "currency": "eur"}
    assert client.post("/projects/apollo/quality/", sent).status_code == 302
    project.refresh_from_db()
    work = throughput(project, people_of(project))
    # 60 judgments of a minute and 30 of two seconds: 61 minutes for 90 of them.
    assert work.hours == pytest.approx(61 / 60)
    assert work.cost_each == pytest.approx(31 * 61 / 60 / 90)
    assert project.currency == "EUR"
    bad = client.post("/projects/apollo/quality/", {**sent, "currency": "<b>"})
    assert bad.status_code == 422
    assert "Three letters" in bad.content.decode()


def test_pausing_stops_work_says_why_and_loses_nothing(project, ada, grace, client):
    batch = BatchFactory(project=project)
    for _ in range(3):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    held = next_assignment(ada, project)
    membership = Membership.objects.get(user=ada, project=project)
    client.force_login(grace)
    act = {"act": "pause", "membership": membership.pk, "reason": f"Too fast {HOSTILE}"}
    client.post("/projects/apollo/quality/", act)
    assert next_assignment(ada, project) is None
    held.comparison.refresh_from_db()
    assert held.comparison.taken == 0
    ranks = {str(pk): 1 for pk in held.shown_order}
    answer = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
    assert submit_judgment(held, by=held.annotator, answer=answer, key=uuid.uuid4()).pk
    client.force_login(ada)
    page = client.get("/projects/apollo/judge/").content.decode()
    assert "Your work is paused" in page
    assert HOSTILE not in page
    client.force_login(grace)
    client.post("/projects/apollo/quality/", {**act, "act": "resume"})
    assert next_assignment(ada, project) is not None
    assert list(Event.objects.order_by("pk").values_list("verb", flat=True)) == [
        "paused annotator",
        "resumed annotator",
    ]


def test_a_pause_without_a_reason_is_refused(project, ada, grace, client):
    client.force_login(grace)
    membership = Membership.objects.get(user=ada, project=project)
    client.post("/projects/apollo/quality/", {"act": "pause", "membership": membership.pk})
    membership.refresh_from_db()
    assert membership.paused_at is None


def test_excluded_judgments_are_kept_and_counted_and_in_nothing(project, busy, grace, rita, client):
    client.force_login(grace)
    where = f"/projects/apollo/quality/people/{busy.pk}/"
    client.post(where, {"act": "exclude-all", "reason": "Did not read", "ask_again": "on"})
    assert Judgment.objects.filter(excluded_reason="Did not read").count() == 30
    assert len(list(preference_rows(project))) == 60
    assert judgment_counts(project)["excluded"] == 30
    snapshot = freeze_snapshot(project, by=rita)
    assert snapshot.counts["left_out"]["excluded"] == 30
    assert "30 excluded" in snapshot.card
    comparison = project.batches.get().comparisons.first()
    assert (comparison.judged, comparison.taken) == (2, 2)
    event = Event.objects.get(verb="excluded judgments")
    assert (event.data["reason"], len(event.data["judgments"])) == ("Did not read", 30)
    client.post(where, {"act": "include-all"})
    assert len(list(preference_rows(project))) == 90


def test_excluding_needs_a_reason_and_a_choice(project, busy, grace, client):
    client.force_login(grace)
    where = f"/projects/apollo/quality/people/{busy.pk}/"
    client.post(where, {"act": "exclude-all"})
    client.post(where, {"act": "exclude", "reason": "Why not"})
    client.post(where, {"act": "exclude", "reason": "x", "judgment": ["0", "-1", "abc"]})
    assert not Judgment.objects.exclude(excluded_at=None).exists()


def test_only_admins_act_and_only_members_look(project, busy, ada, vera, otto, grace, client):
    where = f"/projects/apollo/quality/people/{busy.pk}/"
    act = {"act": "exclude-all", "reason": "Because"}
    for who, looks, acts in ((vera, 200, 404), (ada, 404, 404), (otto, 404, 404)):
        client.force_login(who)
        assert client.get(where).status_code == looks
        assert client.post(where, act).status_code == acts
        assert client.post("/projects/apollo/quality/", {"act": "pause"}).status_code == 404
    client.force_login(grace)
    assert client.get("/projects/apollo/quality/people/999999/").status_code == 404
    assert not Judgment.objects.exclude(excluded_at=None).exists()


def test_a_case_is_for_reviewers_of_this_project(project, busy, ada, vera, otto, client):
    case = review.ask_for_review(project.batches.get().comparisons.first(), vera)
    where = f"/projects/apollo/review/{case.uid}/"
    for who, status in ((vera, 200), (ada, 404), (otto, 404)):
        client.force_login(who)
        assert client.get(where).status_code == status
    client.force_login(vera)
    sent = {"choice": "1", "ground": "facts", "note": HOSTILE, "key": uuid.uuid4()}
    assert client.post(where, sent).status_code == 302
    page = client.get(where).content.decode()
    assert "Decided by vera" in page
    assert HOSTILE not in page
    assert "ada" not in page  # votes are numbered, not named
    client.post(where, {"act": "again"})
    comparison = case.comparison
    comparison.refresh_from_db()
    assert comparison.is_free
    assert comparison.needed == comparison.taken + 1
    for bad in ({"choice": "99"}, {"choice": ""}, {"key": "x"}, {"ground": "no"}):
        assert client.post(where, {**sent, **bad}).status_code == 422


def test_an_annotator_sees_how_far_they_agree_and_nothing_about_gold(project, busy, ada, client):
    Judgment.objects.update(created_at=timezone.now() - timedelta(days=1))
    client.force_login(ada)
    page = client.get("/projects/apollo/progress/").content.decode()
    assert "Agreement with others" in page
    assert "How often you order two responses" in page
    for word in ("gold", "spam", "reliab", "ben", "mallory"):
        assert word not in page.lower()


def test_hostile_names_are_shown_as_they_are(project, busy, grace, client):
    User.objects.filter(pk=busy.pk).update(username=HOSTILE)
    client.force_login(grace)
    for where in ("", f"people/{busy.pk}/"):
        page = client.get(f"/projects/apollo/quality/{where}").content.decode()
        assert HOSTILE not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_gold_is_imported_by_an_admin_and_a_bad_file_changes_nothing(project, grace, client):
    client.force_login(grace)
    where = "/projects/apollo/quality/gold/"
    row = {"prompt": HOSTILE, "responses": ["4", "5"], "ranks": [1, 2], "qualification": True}
    assert client.post(where, {"act": "import", "rows": json.dumps(row)}).status_code == 302
    page = client.get(where).content.decode()
    assert HOSTILE not in page
    for bad in ("", "{", "[1]", json.dumps({**row, "ranks": [1]}), "[" * 5000):
        answer = client.post(where, {"act": "import", "rows": bad})
        assert answer.status_code == 422
        assert "Nothing was added" in answer.content.decode()
    assert project.gold_items.count() == 1
    sent = {"act": "settings", "gold_every": "10", "qualification_pass": "80"}
    assert client.post(where, sent).status_code == 302
    assert client.post(where, {**sent, "gold_every": "1"}).status_code == 422
    assert project.batches.filter(qualification=1).exists()


def test_the_api_gives_figures_and_raw_votes_beside_the_consensus(project, busy, rita, ada, client):
    client.force_login(rita)
    found = client.get("/api/v1/projects/apollo/quality/").json()
    assert len(found) == 3
    assert found[0]["spam"] > 0.5
    assert all(row["annotator"].startswith("annotator-") for row in found)
    lines = client.get("/api/v1/projects/apollo/quality/votes/").getvalue().splitlines()
    assert len(lines) == 30
    row = json.loads(lines[0])
    assert len(row["votes"]) == 3
    # Two careful people outvote the one who does not read.
    assert row["consensus"]["helpfulness"] == row["votes"][0]["ranks"]["helpfulness"]
    assert row["ruling"] is None
    by = client.get("/api/v1/projects/apollo/agreement/?by=category").json()
    assert by["how-to"]["helpfulness"]["n_comparisons"] == 30
    assert client.get("/api/v1/projects/apollo/agreement/?by=shoe").status_code == 400


@pytest.mark.parametrize("pk", ["²", "9" * 30, "-1", ""])
def test_what_is_no_number_is_nobody_and_nothing(client, busy, project, ada, grace, pk):
    client.force_login(grace)
    item = {"act": "mixed", "item": pk}
    assert client.post("/projects/apollo/quality/gold/", item).status_code == 404
    somebody = {"act": "pause", "membership": pk, "reason": "x"}
    assert client.post("/projects/apollo/quality/", somebody).status_code == 404
    mine = f"/projects/apollo/quality/people/{ada.pk}/"
    assert client.post(mine, {"act": "exclude", "judgment": pk, "reason": "x"}).status_code == 302
    assert not Judgment.objects.filter(excluded_at__isnull=False).exists()
    case = review.ask_for_review(project.batches.get().comparisons.first(), grace)
    for choice in ({"choice": pk}, {"choice": "own", "rank-helpfulness-A": pk}):
        fields = {"key": str(uuid.uuid4()), "ground": "facts", **choice}
        page = client.post(f"/projects/apollo/review/{case.uid}/", fields)
        assert page.status_code == 422


@pytest.mark.parametrize(
    ("address", "fields"),
    [
        ("quality/gold/", {"act": "settings", "gold_every": 4, "qualification_pass": 0}),
        ("quality/", {"act": "pay", "pay_per_hour": "12", "currency": "EUR"}),
    ],
)
def test_a_form_saved_late_changes_nothing_that_it_does_not_ask_for(
    client, project, grace, monkeypatch, address, fields
):
    """Somebody changes the guidelines between the reading of the project and the saving of the form."""
    checked = ModelForm.is_valid

    def slowly(form):
        change_guidelines(project, "Be kind.", by=grace)
        return checked(form)

    monkeypatch.setattr(ModelForm, "is_valid", slowly)
    client.force_login(grace)
    assert client.post(f"/projects/apollo/{address}", fields).status_code == 302
    project.refresh_from_db()
    assert (project.guidelines, project.guideline_version) == ("Be kind.", 2)


def test_the_votes_of_many_comparisons_cost_no_more_questions(
    project, busy, django_assert_max_num_queries
):
    found = reliability_of(project)
    with django_assert_max_num_queries(7):
        assert len(list(vote_rows(project, found))) == 30


def test_ones_own_progress_is_not_recalculated_with_every_answer(
    client, project, busy, ada, monkeypatch
):
    client.force_login(ada)
    assert client.get("/projects/apollo/progress/").status_code == 200
    judged(project, by=ada)
    monkeypatch.setattr(assessment.reliability, "assess", None)
    assert client.get("/projects/apollo/progress/").status_code == 200


def test_a_vote_that_changed_while_it_was_read_is_not_taken_for_another(
    client, project, busy, ada, vera
):
    comparison = project.batches.get().comparisons.first()
    case = review.ask_for_review(comparison, vera)
    where = f"/projects/apollo/review/{case.uid}/"
    client.force_login(vera)
    seen = client.get(where).context["seen"]
    # ada, whose vote was the first, corrects it: the numbers of all votes move.
    hers = comparison.assignments.get(annotator=ada)
    ranks = {str(pk): 1 for pk in hers.shown_order}
    answer = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
    submit_judgment(hers, by=ada, answer=answer, key=uuid.uuid4())
    sent = {"choice": "1", "ground": "facts", "seen": seen, "key": uuid.uuid4()}
    page = client.post(where, sent)
    assert page.status_code == 422
    assert "changed since you opened the case" in page.content.decode()
    assert 'value="1" checked' not in page.content.decode()
    assert client.post(where, sent | {"seen": page.context["seen"]}).status_code == 302


@pytest.mark.parametrize(
    ("interface", "words"),
    [
        ("rate", "Add items to the qualification round first"),
        ("demonstrate", "Nobody could pass"),
        ("rewrite", "Nobody could pass"),
        ("dialogue", "Nobody could pass"),
    ],
)
def test_a_round_that_nobody_could_pass_is_not_begun(client, project, grace, interface, words):
    row = {"prompt": "x", "responses": ["a", "b"], "ranks": [1, 2], "qualification": True}
    add_gold_items(project, [row], grace)
    Project.objects.filter(pk=project.pk).update(interface=interface)
    client.force_login(grace)
    fields = {"act": "settings", "gold_every": 0, "qualification_pass": 50}
    page = client.post("/projects/apollo/quality/gold/", fields)
    assert (page.status_code, words in page.content.decode()) == (422, True)
    fields["qualification_pass"] = 0
    assert client.post("/projects/apollo/quality/gold/", fields).status_code == 302


@pytest.mark.parametrize("interface", ["demonstrate", "rewrite", "dialogue"])
def test_gold_is_refused_where_no_answer_is_known(client, project, grace, interface):
    Project.objects.filter(pk=project.pk).update(interface=interface)
    client.force_login(grace)
    where = "/projects/apollo/quality/gold/"
    page = client.post(where, {"act": "settings", "gold_every": 4, "qualification_pass": 0})
    assert page.status_code == 422
    assert (
        "Gold items need given responses that are ranked, compared or rated"
        in page.content.decode()
    )
    row = json.dumps({"prompt": "x", "responses": ["a", "b"], "ranks": [1, 2]})
    assert client.post(where, {"act": "import", "rows": row}).status_code == 422
    assert not project.gold_items.exists()


def test_an_annotator_who_extends_the_lease_is_not_idle_and_one_who_forgot_it_is(
    project, ada, ben, grace, client
):
    batch = BatchFactory(project=project)
    for _ in range(2):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project), needed=2)
    kept, forgotten = next_assignment(ada, project), next_assignment(ben, project)
    an_hour_ago = timezone.now() - timedelta(hours=1)
    Assignment.objects.update(
        leased_at=an_hour_ago, lease_until=an_hour_ago + timedelta(minutes=project.lease_minutes)
    )
    assert renew(kept)  # “Extend the time”
    found = {person.user: person.idle_minutes for person in people_of(project)}
    assert (found[ada], found[forgotten.annotator]) == (None, 60)
    # Ten minutes after she kept it she is at it; half an hour after that she is not.
    Assignment.objects.filter(pk=kept.pk).update(
        lease_until=timezone.now() + timedelta(minutes=project.lease_minutes - 40)
    )
    assert {p.user: p.idle_minutes for p in people_of(project)}[ada] == 40
    client.force_login(grace)
    assert "idle for 40 min" in client.get("/projects/apollo/quality/").content.decode()


def test_one_persons_page_has_their_agreement_on_each_axis(project, ada, ben, grace, client):
    """ada and ben see safety alike and helpfulness the other way round."""
    batch = BatchFactory(project=project)
    for _ in range(3):
        comparison = ComparisonFactory(
            batch=batch, prompt=PromptFactory(project=project), responses=2
        )
        judged(project, by=ada, comparison=comparison, ranks=(1, 2))
        other = {"helpfulness": (2, 1), "safety": (1, 2)}
        judged(project, by=ben, comparison=comparison, ranks=other)
    found = assessment_of(project)[0].agreement_of(project, ada)
    assert (found["helpfulness"]["pairwise"], found["safety"]["pairwise"]) == (0, 1)
    client.force_login(grace)
    page = client.get(f"/projects/apollo/quality/people/{ada.pk}/")
    assert [name for name, _ in page.context["agreement"]] == ["Helpfulness", "Safety"]
    assert "100.0\N{NO-BREAK SPACE}%" in page.content.decode()
    assert assessment_of(project)[0].agreement_of(project, grace) == {}


def test_nobody_waits_for_figures_that_take_long_to_calculate(
    project, busy, grace, ada, client, monkeypatch
):
    """What was calculated last is shown at once, and says so; the page fetches what is true now."""
    client.force_login(grace)
    calculated = []
    assess = assessment.reliability.assess
    monkeypatch.setattr(
        assessment.reliability, "assess", lambda *of: calculated.append(1) or assess(*of)
    )

    def page(query=""):
        return client.get(f"/projects/apollo/quality/{query}").content.decode()

    monkeypatch.setattr(assessment, "SLOW_SECONDS", 3600)
    first = page()
    judged(project, by=ada, ranks=(1, 2, 3, 4))
    assert "Recalculating with new judgments" not in first + page()
    assert len(calculated) == 2, "where it is quick, what is shown is of now"
    monkeypatch.setattr(assessment, "SLOW_SECONDS", 0)
    assert "Recalculating with new judgments" not in page(), "nothing came"
    judged(project, by=ada, ranks=(1, 2, 3, 4))
    old = page()
    assert "Recalculating with new judgments" in old
    assert 'hx-get="?recalculated=1"' in old
    assert len(calculated) == 2
    new = page("?recalculated=1")
    assert len(calculated) == 3
    assert "Recalculating with new judgments" not in new + page()
    assert len(calculated) == 3


def test_nobody_waits_for_them_on_a_persons_page_or_on_a_case_either(
    project, busy, grace, ada, client, monkeypatch
):
    client.force_login(grace)
    case = review.ask_for_review(Comparison.objects.filter(judged__gt=1).first(), grace)
    pages = {
        "person": f"/projects/apollo/quality/people/{ada.pk}/",
        "case": f"/projects/apollo/review/{case.uid}/",
    }
    assert "Reliability" in client.get(pages["person"]).content.decode()
    calculated = []
    assess = assessment.reliability.assess
    monkeypatch.setattr(
        assessment.reliability, "assess", lambda *of: calculated.append(1) or assess(*of)
    )
    monkeypatch.setattr(assessment, "SLOW_SECONDS", 0)
    judged(project, by=ada, ranks=(1, 2, 3, 4))
    person = client.get(pages["person"]).content.decode()
    assert "Recalculating with new judgments" in person
    first, second = (client.get(pages["case"]).content.decode() for _ in range(2))
    assert "quality/?recalculated=1" in first, "one page has them calculated"
    assert "quality/?recalculated=1" not in second, "and not each that is opened"
    assert calculated == []
    assert (
        "Recalculating with new judgments"
        not in client.get(f"{pages['person']}?recalculated=1").content.decode()
    )
    assert calculated == [1]


def test_a_case_shows_the_consensus_of_its_votes_as_they_are_now(
    project, ada, ben, vera, grace, client, monkeypatch
):
    monkeypatch.setattr(assessment, "SLOW_SECONDS", 0)
    for _ in range(6):
        comparison = judged(project, by=ada, ranks=(1, 2, 3, 4)).comparison
        judged(project, by=ben, comparison=comparison, ranks=(1, 2, 3, 4))
    assessment_of(project)
    late = judged(project, by=ada, ranks=(4, 3, 2, 1)).comparison
    judged(project, by=ben, comparison=late, ranks=(4, 3, 2, 1))
    case = review.ask_for_review(late, grace)
    client.force_login(vera)
    context = client.get(f"/projects/apollo/review/{case.uid}/").context
    told = {line["line"] for line in context["consensus"]}
    letters = [response["letter"] for response in context["responses"]]
    order = {response["text"]: response["letter"] for response in context["responses"]}
    best = [order[f"Answer {n}: give it a little water."] for n in (3, 2, 1, 0)]
    assert sorted(letters) == sorted(best)
    assert told == {" > ".join(best)}
