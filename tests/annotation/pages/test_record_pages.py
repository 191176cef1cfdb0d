"""Pages of one prompt, comparison and batch: who reaches them, and what they show to whom."""

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.data.preferences import annotator_id
from annotation.models import Assignment, Flag, Judgment
from annotation.quality import review
from annotation.quality.interventions import ask_again, exclude
from rlhf.models import Checkpoint
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(project, ada, ben):
    """A comparison that ada judged twice and ben once; its responses are by the base policy."""
    base = Checkpoint.objects.create(project=project, kind="policy", name="base one", path="x")
    prompt = PromptFactory(project=project, category="plants")
    batch = BatchFactory(project=project, name="Round 1", overlap=2)
    comparison = ComparisonFactory(batch=batch, prompt=prompt, needed=3)
    comparison.responses.update(source=base.response_source)
    first = judged(project, by=ada, comparison=comparison, ranks=(4, 3, 2, 1))
    judged(project, by=ben, comparison=comparison, ranks=(1, 2, 2, 3))
    earlier = first.judgment
    again = Judgment.objects.get(pk=earlier.pk)
    again.pk, again.uid, again.key, again.revision = None, uuid.uuid4(), uuid.uuid4(), 2
    again.ranks = {"helpfulness": {k: 5 - rank for k, rank in earlier.ranks["helpfulness"].items()}}
    again.reason = "<b>Misread</b> it first."
    again.save()
    Assignment.objects.filter(pk=first.pk).update(judgment=again)
    return comparison


def addresses(comparison):
    return [
        f"/projects/apollo/prompts/{comparison.prompt.uid}/",
        f"/projects/apollo/comparisons/{comparison.pk}/",
        f"/projects/apollo/batches/{comparison.batch_id}/",
    ]


def test_who_reads_data_opens_records_and_nobody_else(
    client, work, ada, vera, rita, grace, otto, django_assert_max_num_queries
):
    for address in addresses(work):
        for person, status in ((ada, 404), (otto, 404), (vera, 200), (rita, 200), (grace, 200)):
            client.force_login(person)
            client.get("/projects/apollo/" if person != otto else "/")
            with django_assert_max_num_queries(40):
                assert client.get(address).status_code == status, f"{person} at {address}"
    client.force_login(otto)
    own = [address.replace("apollo", "soyuz") for address in addresses(work)]
    assert {client.get(address).status_code for address in own} == {404}


def test_a_comparison_shows_every_vote_with_what_was_superseded(client, work, project, grace, ada):
    Flag.objects.create(
        project=project,
        filter="hate",
        response=work.responses.first(),
        score=0.9,
        reason="hate: <i>word</i>",
    )
    review.ask_for_review(work, grace)
    ask_again(work, grace, "not sure")
    exclude(project, [Assignment.objects.get(annotator=ada).judgment_id], grace, "tired that day")
    client.force_login(grace)
    page = client.get(f"/projects/apollo/comparisons/{work.pk}/").content.decode()
    assert "A &gt; B &gt; C &gt; D" in page, "what counts"
    assert "D &gt; C &gt; B &gt; A" in page, "and what it replaced"
    assert "superseded" in page
    assert "&lt;b&gt;Misread&lt;/b&gt; it first." in page
    assert "tired that day" in page
    assert "hate: &lt;i&gt;word&lt;/i&gt;" in page
    assert "base one" in page
    assert "another judgment requested" in page
    assert "Open the review" in page
    assert f"/quality/people/{ada.pk}/" in page


def test_names_are_for_admins_and_reviewers_and_writers_for_admins_and_researchers(
    client, work, project, ada, vera, rita
):
    client.force_login(rita)
    for address in addresses(work)[1:]:
        page = client.get(address).content.decode()
        assert annotator_id(project, ada) in page
        assert ">ada<" not in page
    assert "base one" in client.get(addresses(work)[0]).content.decode()
    client.force_login(vera)
    for address in addresses(work):
        page = client.get(address).content.decode()
        assert "base one" not in page, "a reviewer decides without knowing who wrote it"
    assert ">ada<" in client.get(addresses(work)[1]).content.decode()


def test_who_holds_a_comparison_sees_no_vote_on_it(client, work, project, vera):
    soon = timezone.now() + timedelta(minutes=20)
    Assignment.objects.create(comparison=work, annotator=vera, shown_order=[], lease_until=soon)
    client.force_login(vera)
    page = client.get(f"/projects/apollo/comparisons/{work.pk}/").content.decode()
    assert "You hold this comparison" in page
    assert "&gt; B" not in page
    assert "mean rank" not in page
    assert "mean rank" not in client.get(addresses(work)[0]).content.decode()
    batch = client.get(addresses(work)[2]).content.decode()
    assert "Held now" in batch
    assert "fewer judgments than it needs" in batch


def test_objects_link_to_their_pages_and_annotators_get_no_link(client, work, project, ada, grace):
    client.force_login(grace)
    prompt, comparison, batch = addresses(work)
    assert batch in client.get("/projects/apollo/").content.decode()
    assert prompt in client.get("/projects/apollo/prompts/").content.decode()
    person = client.get(f"/projects/apollo/quality/people/{ada.pk}/").content.decode()
    assert comparison in person
    assert prompt in client.get(comparison).content.decode()
    assert batch in client.get(comparison).content.decode()
    assert comparison in client.get(prompt).content.decode()
    client.force_login(ada)
    assert batch not in client.get("/projects/apollo/").content.decode()


def test_harmful_texts_stay_covered_until_they_are_opened(client, project, grace, ada):
    prompt = PromptFactory(project=project, risk="harmful")
    comparison = ComparisonFactory(batch=BatchFactory(project=project), prompt=prompt)
    judged(project, by=ada, comparison=comparison)
    client.force_login(grace)
    for address in addresses(comparison)[:2]:
        assert "Known as harmful: show it" in client.get(address).content.decode()
