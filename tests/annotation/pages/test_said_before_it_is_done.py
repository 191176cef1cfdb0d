"""What a page says before it does something that people would not expect, and in whose time."""

from datetime import UTC, datetime

import pytest
from django.urls import reverse

from annotation.data.dataset_card import _n_rows, _size_category
from annotation.judge.assignment import next_assignment
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import last_done, reopen, submit_judgment
from annotation.models import Judgment, Membership
from annotation.projects.batches import BatchError, create_batch
from annotation.quality.gold_items import add_gold_items
from tests.annotation.gold_rows import gold_rows
from tests.factories import BatchFactory, ComparisonFactory, judged, key

pytestmark = pytest.mark.django_db
GOLD = "/projects/apollo/quality/gold/"


def fields(assignment, order, **more):
    letters = sorted(assignment.letters.values())
    ranks = {
        f"rank-{axis}-{letter}": rank
        for axis in ("helpfulness", "safety")
        for letter, rank in zip(letters, order, strict=True)
    }
    return ranks | {"key": key(), "act": "send"} | more


def test_without_script_an_older_page_shows_both_answers_and_sending_again_replaces(
    client, project, ada
):
    ComparisonFactory(batch=BatchFactory(project=project))
    held = next_assignment(ada, project)
    address = reverse("judge_one", args=["apollo", held.uid])
    client.force_login(ada)
    client.post(address, fields(held, (1, 2, 3, 4), seen=0))
    older = client.post(address, fields(held, (4, 3, 2, 1), seen=0))
    assert older.status_code == 409
    page = older.content.decode()
    assert "Helpfulness: A &gt; B &gt; C &gt; D" in page
    assert "Helpfulness: D &gt; C &gt; B &gt; A" in page
    assert 'name="seen" value="1"' in page
    assert Judgment.objects.count() == 1
    # The same answer from two pages is one judgment; who has seen the other one replaces it.
    assert client.post(address, fields(held, (1, 2, 3, 4), seen=0)).status_code == 302
    assert Judgment.objects.count() == 1
    assert client.post(address, fields(held, (4, 3, 2, 1), seen=1)).status_code == 302
    assert Judgment.objects.latest("pk").revision == 2


def test_one_list_of_gold_ranks_says_nothing_about_safety(client, project, grace):
    add_gold_items(project, gold_rows(1), grace)
    assert set(project.gold_items.get().expected) == {"helpfulness"}
    client.force_login(grace)
    example = client.get(GOLD).context["example"]
    assert '"ranks": {"helpfulness": [1, 2]}' in example


def test_switching_a_qualification_round_on_names_whom_it_stops_and_asks(
    client, project, grace, ada, ben
):
    add_gold_items(project, gold_rows(2, qualification=True), grace)
    Membership.objects.filter(user=ben).update(qualification="waived")
    client.force_login(grace)
    form = client.get(GOLD).context["form"]
    assert form.stopped == [ada]
    sent = {"act": "settings", "gold_every": 0, "qualification_pass": 50}
    assert client.post(GOLD, sent).status_code == 422
    project.refresh_from_db()
    assert project.qualification_pass == 0
    assert client.post(GOLD, sent | {"stops": "on"}).status_code == 302
    project.refresh_from_db()
    assert project.qualification_pass == 50


def test_a_finished_round_offers_no_undo_and_an_ongoing_one_does(client, project, grace, ada):
    add_gold_items(project, gold_rows(2, qualification=True), grace)
    client.force_login(grace)
    client.post(
        GOLD, {"act": "settings", "gold_every": 0, "qualification_pass": 100, "stops": "on"}
    )
    project.refresh_from_db()
    client.force_login(ada)
    for _ in range(2):
        held = next_assignment(ada, project)
        order = dict.fromkeys(held.letters.values(), 1)
        answer = {"ranks": {"helpfulness": order, "safety": order}}
        submit_judgment(held, by=ada, answer=answer, key=key())
        assert last_done(ada, project) == held
    page = client.get("/projects/apollo/judge/").content.decode()
    assert "Qualification round not passed" in page
    assert "count as they were given" in page
    assert "Undo the last judgment" not in page
    assert last_done(ada, project) is None
    with pytest.raises(JudgmentError, match="counted in a qualification round"):
        reopen(held)


def test_too_many_people_for_one_comparison_are_refused_with_a_reason(client, project, grace):
    with pytest.raises(BatchError, match="At most 20 people judge one comparison, not 99"):
        create_batch(project, "Crowd", overlap=99, by=grace)
    client.force_login(grace)
    sent = {"act": "save", "name": "Apollo", "overlap": 99, "responses_per_comparison": 4}
    page = client.post("/projects/apollo/settings/", sent | {"lease_minutes": 30})
    assert page.status_code == 422
    assert "more comparisons narrow an interval faster" in page.content.decode()


def test_times_are_shown_in_the_browsers_zone_and_a_zone_nobody_knows_changes_nothing(
    client, project, grace, ada
):
    judged(project, by=ada)
    Judgment.objects.update(created_at=datetime(2026, 1, 5, 23, 30, tzinfo=UTC))
    client.force_login(grace)
    titles = []
    for zone in ("Asia/Tokyo", "../../etc/passwd"):
        client.cookies["timezone"] = zone
        page = client.get("/projects/apollo/people/")
        assert page.status_code == 200
        titles.append(page.content.decode().count("Jan. 6, 2026, 8:30 a.m."))
    assert titles == [1, 0]


def test_the_size_class_of_a_card_counts_the_rows_of_all_files():
    counts = {"pairs": {"helpfulness": 3000, "safety": 1023}, "judgments": 700}
    assert _size_category(_n_rows(counts)) == "1K<n<10K"
