import io
import json
import re

import pytest
from django.urls import reverse

from annotation.data.imports import import_file
from annotation.judge import dialogue_writing, dialogues
from annotation.judge.assignment import next_assignment
from annotation.models import Batch, Event, Prompt, Response
from annotation.projects.batches import BatchError, open_batch
from annotation.projects.campaigns import start_campaign
from annotation.quality.gold_items import add_gold_items
from tests.annotation.talking import Parrots, answering, new_campaign, preferring
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    judged,
    key,
)

NEW = "/projects/apollo/batches/new/"


def fields(**more):
    return {"name": "Winter", "asks": "demonstrate", "n": 5, "overlap": 1} | more


def test_ideal_answers_are_asked_for_prompts_alone(client, grace, ada, project):
    PromptFactory.create_batch(3, project=project)
    PromptFactory(project=project, split="heldout")
    PromptFactory(project=project, source=SourceFactory(project=project, signed_off_at=None))
    client.force_login(grace)
    assert client.post(NEW, fields()).status_code == 302
    batch = Batch.objects.get(name="Winter")
    assert (batch.effective_interface, batch.state, batch.comparisons.count()) == (
        "demonstrate",
        "open",
        3,
    )
    handed = next_assignment(ada, project)
    assert handed.shown_order == []
    client.force_login(ada)
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert "The ideal answer" in page
    assert Event.objects.filter(verb="opened batch", actor=grace).exists()


def test_responses_of_an_earlier_batch_are_judged_in_another_way(client, grace, project):
    old = judged(project, ranks=(1, 2, 3, 4)).comparison.batch
    client.force_login(grace)
    assert client.post(NEW, fields(asks="rate", responses_of=old.pk)).status_code == 302
    batch = Batch.objects.get(name="Winter")
    assert (batch.effective_interface, batch.comparisons.get().responses.count()) == ("rate", 4)
    texts = set(Response.objects.filter(comparison__batch=old).values_list("text", flat=True))
    assert set(batch.comparisons.get().responses.values_list("text", flat=True)) == texts


def test_a_pair_shows_two_of_what_is_there(grace, project):
    comparison = ComparisonFactory(batch=BatchFactory(project=project), responses=5)
    batch = start_campaign(
        project, "x", preset="safe-rlhf", responses_of=comparison.batch, n=9, overlap=2, by=grace
    )
    assert batch.comparisons.get().responses.count() == 2
    assert batch.comparisons.get().needed == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"asks": "rate"}, "Choose the batch with the responses to judge"),
        ({"asks": "llama2"}, "Select a valid choice"),
        ({"n": 0}, "greater than or equal to 1"),
        ({}, "There is nothing to ask"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_made(client, grace, project, given, says):
    client.force_login(grace)
    answer = client.post(NEW, fields(**given))
    assert answer.status_code == 422
    assert says in answer.content.decode()
    assert not Batch.objects.exists()


def test_responses_of_another_project_cannot_be_taken(client, grace, otto, project):
    foreign = judged(otto.memberships.get().project).comparison.batch
    client.force_login(grace)
    answer = client.post(NEW, fields(asks="rate", responses_of=foreign.pk))
    assert answer.status_code == 422


def test_only_an_admin_closes_and_only_a_campaign(client, grace, rita, otto, project):
    PromptFactory(project=project)
    batch = start_campaign(project, "x", preset="demonstrate", n=1, overlap=1, by=grace)
    url = reverse("batch_close", args=["apollo", batch.pk])
    for person in (rita, otto):
        client.force_login(person)
        assert client.post(url).status_code == 404
    client.force_login(grace)
    client.post(url)
    batch.refresh_from_db()
    assert batch.state == Batch.State.CLOSED
    of_a_round = BatchFactory(project=project)
    page = client.post(reverse("batch_close", args=["apollo", of_a_round.pk]), follow=True)
    assert "belongs to a round" in page.content.decode()
    of_a_round.refresh_from_db()
    assert of_a_round.state == Batch.State.OPEN


def test_who_writes_is_told_of_no_key_that_compares_responses(client, ada, grace, project):
    PromptFactory(project=project)
    start_campaign(project, "Essays", preset="demonstrate", n=1, overlap=1, by=grace)
    client.force_login(ada)
    page = client.get("/projects/apollo/judge/").content.decode()
    assert "Write a better answer." in page, "among the keys"
    assert "Compare two responses word by word" not in page


def test_closing_asks_first_and_can_be_taken_back(client, grace, rita, project):
    PromptFactory(project=project)
    batch = start_campaign(project, "Essays", preset="demonstrate", n=1, overlap=1, by=grace)
    close = reverse("batch_close", args=["apollo", batch.pk])
    again = reverse("batch_open", args=["apollo", batch.pk])
    client.force_login(grace)
    page = client.get("/projects/apollo/").content.decode()
    asked = re.search(r'<details class="confirm".*?</details>', page, re.DOTALL)[0]
    assert f'action="{close}"' in asked
    assert page.count(f'action="{close}"') == 1
    assert "1 judgment is missing" in asked
    assert "kept as extras" in asked
    assert again not in page
    # The list is fetched again every ten seconds: what somebody has opened stays open.
    assert 'hx-swap="outerMorph"' in page
    client.post(close)
    page = client.get("/projects/apollo/").content.decode()
    assert close not in page
    assert f'action="{again}"' in page
    client.force_login(rita)
    assert client.post(again).status_code == 404
    assert again not in client.get("/projects/apollo/").content.decode()
    client.force_login(grace)
    assert "is open again" in client.post(again, follow=True).content.decode()
    batch.refresh_from_db()
    assert batch.state == Batch.State.OPEN
    of_a_round = BatchFactory(project=project, state="closed")
    url = reverse("batch_open", args=["apollo", of_a_round.pk])
    assert url not in client.get("/projects/apollo/").content.decode()
    assert "belongs to a round" in client.post(url, follow=True).content.decode()
    of_a_round.refresh_from_db()
    assert of_a_round.state == Batch.State.CLOSED


def test_a_dialogue_is_no_campaign(grace, project):
    project.interface = "dialogue"
    project.save()
    with pytest.raises(BatchError, match="people write them"):
        start_campaign(project, "x", n=1, overlap=1, by=grace)


def test_gold_stays_where_its_answer_is_known(grace, project):
    batch = BatchFactory(project=project, state="draft")
    ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    # A prompt of the train split that somebody made a gold item of.
    question = PromptFactory(project=project).text
    item = {"prompt": question, "responses": list("abcd"), "ranks": [1, 2, 3, 4]}
    add_gold_items(project, [item], grace)
    project.gold_every = 2
    project.save()
    batch.refresh_from_db()
    open_batch(batch, grace)
    assert batch.comparisons.count() == 2
    again = start_campaign(
        project, "Again", preset="rate", responses_of=batch, n=5, overlap=1, by=grace
    )
    assert again.comparisons.filter(gold=None).count() == 1


def test_what_two_people_said_alike_in_dialogues_is_judged_once(grace, ada, ben, project):
    with answering(Parrots()):
        campaign = new_campaign(project, grace)
        for who in (ada, ben):
            turn = dialogues.say(dialogues.begin(who, campaign), "Hello there", key=key())
            dialogue_writing.write_turn(turn, tick=0.005)
            said = preferring("A", 1, project.axis_keys)
            dialogues.choose(turn.dialogue, said, number=1, key=key())
    Prompt.objects.update(split="train")
    batch = start_campaign(
        project, "Again", preset="rate", responses_of=campaign.batch, n=5, overlap=1, by=grace
    )
    assert batch.comparisons.count() == 1


def test_imported_responses_are_judged_under_any_protocol_that_fits(client, grace, project):
    rows = [
        {"prompt": f"Name tree {n}.", "responses": ["An oak.", "A rock."], "split": "train"}
        for n in range(3)
    ]
    # Of one prompt, responses come in rows of their own, as in instruction data.
    rows += [
        {"prompt": "Name a bird.", "completion": text, "split": "train"}
        for text in ("A wren.", "A fish.")
    ]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    source = {"name": "Own prompts", "licence": "CC0-1.0"}
    report = import_file(project, io.BytesIO(lines), source=source, by=grace, sign_off=True)
    stored = report.batches[0]
    client.force_login(grace)
    page = client.get(NEW).content.decode()
    assert "Responses: Own prompts (8 responses)" in page
    assert "people write the prompts; open a campaign under Live dialogue" in page
    assert "it compares on Overall, and this project on Helpfulness and Safety" in page
    for preset, n_responses in (("rate", 2), ("safe-rlhf", 2), ("rewrite", 2), ("top-k", 2)):
        answer = client.post(NEW, fields(name=preset, asks=preset, responses_of=stored.pk))
        assert answer.status_code == 302
        batch = project.batches.get(name=preset)
        assert batch.comparisons.count() == 4
        assert {c.responses.count() for c in batch.comparisons.all()} == {n_responses}
        assert batch.source == report.source
    birds = batch.comparisons.get(prompt__messages__0__content="Name a bird.")
    assert {response.text for response in birds.responses.all()} == {"A wren.", "A fish."}
