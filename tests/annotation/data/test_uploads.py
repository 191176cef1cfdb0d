"""Batches over the API: a program makes one, fills it, opens it; sent twice is done once."""

import json
import threading
import uuid

import pytest
from django.db import connection

from annotation.data.uploads import MAX_ROWS, add_rows, make_batch
from annotation.judge.assignment import next_assignment
from annotation.models import ApiToken, Batch, Comparison, Event, Prompt, Response, Upload
from annotation.tokens import create_token
from tests.annotation.gold_rows import gold_rows
from tests.factories import BatchFactory, PromptFactory, judged
from tests.rlhf.machine import real_transactions

pytestmark = pytest.mark.django_db

ROOT = "/api/v1/projects/apollo/batches/"
SOURCE = {"name": "Our chat logs", "licence": "CC-BY-4.0", "url": "https://example.org/logs"}


@pytest.fixture
def ask(client):
    """ask(person, address, body): as a script does, with a token and no cookie."""

    def act(person, address="", body=None, method=""):
        _, plain = create_token(person, name="script", days=30, scopes=ApiToken.Scope.values)
        headers = {"Authorization": f"Token {plain}"}
        if body is None and method != "post":
            return client.get(ROOT + address, headers=headers)
        return client.post(
            ROOT + address, json.dumps(body), content_type="application/json", headers=headers
        )

    return act


def batch_body(**more):
    return {"key": str(uuid.uuid4()), "name": "Winter", "source": SOURCE, "sign_off": True} | more


def row(number, k=4, **more):
    return {
        "prompt": f"What is {number} plus one?",
        "responses": [f"It is {number + wrong}." for wrong in range(k)],
    } | more


def rows_body(*rows, **more):
    return {"key": str(uuid.uuid4()), "rows": list(rows)} | more


@pytest.fixture
def made(ask, grace, project):
    """The address of an empty batch."""
    answer = ask(grace, "", batch_body())
    assert answer.status_code == 201, answer.content
    return f"{answer.json()['id']}/"


def test_a_batch_is_made_filled_opened_judged_and_closed(ask, made, grace, ada, rita, project):
    answers = [
        {"text": "Two.", "source": "gpt-x", "sampling": {"temperature": 0.7}},
        "2",
        "Three",
        "?",
    ]
    told = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]
    told.append({"role": "user", "content": "One plus one?"})
    rows = [
        row(1, priority=2, category="sums", id="a-1"),
        {"messages": told, "responses": answers, "risk": "harmless"},
    ]
    project.random_share = 0.0
    project.save()
    assert next_assignment(ada, project) is None
    added = ask(grace, f"{made}comparisons/", rows_body(*rows))
    assert added.status_code == 201, added.content
    assert added.json() == {"rows": 2, "new_prompts": 2, "comparisons": 2}
    assert next_assignment(ada, project) is None, "a draft is nobody's work"
    opened = ask(grace, f"{made}open/", method="post")
    assert opened.json() | {"state": "open", "comparisons": 2, "needed": 2} == opened.json()
    assert ask(grace, f"{made}open/", method="post").status_code == 200

    handed = next_assignment(ada, project)
    assert handed.comparison.prompt.external_id == "a-1", "what is urgent comes first"
    assert handed.comparison.prompt.split == "train"
    batch = Batch.objects.get(name="Winter")
    assert batch.source.signed_off_by == grace
    written = Response.objects.get(text="Two.")
    assert (written.source, written.sampling) == ("gpt-x", {"temperature": 0.7})
    assert [b["name"] for b in ask(rita).json()["results"]] == ["Winter"]
    judged(project, by=ada, comparison=batch.comparisons.exclude(pk=handed.comparison_id).get())
    assert ask(rita, made).json()["judged"] == 1
    assert ask(grace, f"{made}close/", method="post").json()["state"] == "closed"
    assert next_assignment(ada, project) is None
    late = ask(grace, f"{made}comparisons/", rows_body(row(5)))
    assert (late.status_code, late.json()["detail"]) == (
        409,
        "The batch Winter is closed; create a new one.",
    )
    verbs = set(Event.objects.values_list("verb", flat=True))
    assert {"created batch", "uploaded comparisons", "opened batch", "closed batch"} <= verbs


def test_sent_twice_is_done_once_and_another_content_is_refused(ask, made, grace):
    again = batch_body(name="Again")
    first, second = ask(grace, "", again), ask(grace, "", again)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert ask(grace, "", again | {"name": "Other"}).status_code == 409
    body = rows_body(row(1), row(2))
    first, second = (ask(grace, f"{made}comparisons/", body) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    refused = ask(grace, f"{made}comparisons/", body | {"rows": [row(3)]})
    assert refused.status_code == 409
    assert refused.json()["detail"] == "This key was used for another request; use a new one."
    assert ask(grace, "", batch_body(key=body["key"])).status_code == 409, "nor for another act"
    ask(grace, f"{made}close/", method="post")
    assert ask(grace, f"{made}comparisons/", body).status_code == 200, "what was done was done"
    assert Comparison.objects.count() == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (row(2, k=1), "responses must be a list of 2 to 9 texts."),
        (row(2, k=10), "responses must be a list of 2 to 9 texts."),
        (row(2, responses="a"), "responses must be a list of 2 to 9 texts."),
        (row(2, responses=["a", 7]), "response 2 is a text, or an object with text, source and"),
        (row(2, responses=["a", {"text": "b", "model": "x"}]), "response 2 is a text, or an object"),
        (row(2, responses=["a", "a"]), "all responses are the same text"),
        (row(2, responses=["a", "\0"]), "response 2 contains a NUL character"),
        (row(2, responses=["a", "\ud800"]), "response 2 contains half of a surrogate pair"),
        (row(2, responses=["a", {"text": "b", "sampling": {"x": "y" * 3000}}]), "sampling of response 2"),
        (row(2, responses=["a", {"text": "b", "source": "y" * 201}]), "source of response 2 is longer"),
        (row(2, prompt=" "), "prompt is empty."),
        (row(2, messages=[]), "give a prompt or messages, one of them."),
        ({"responses": ["a", "b"]}, "give a prompt or messages, one of them."),
        (row(2, ranks=[1, 2]), "there is no field “ranks”."),
        (row(2, split="test-set"), "split is train, watch or heldout"),
        (row(2, priority="high"), "priority is not a number."),
        (row(1), "its prompt is that of row 1; give each prompt once."),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_named_and_nothing_is_added(ask, made, grace, wrong, words):
    answer = ask(grace, f"{made}comparisons/", rows_body(row(1), wrong, row(3)))
    assert answer.status_code == 422, answer.content
    told = answer.json()
    assert told["detail"].startswith("Row 2: ")
    assert words in told["detail"]
    assert (told["n_problems"], told["problems"][0]["row"]) == (1, 2)
    assert Comparison.objects.count() == Prompt.objects.count() == 0
    # The key is free: what was refused was not done.
    assert Upload.objects.count() == 1


def test_a_prompt_is_compared_once_in_a_batch_and_keeps_its_split(ask, made, grace, project):
    held = PromptFactory(project=project, split="heldout")
    again = row(1) | {"prompt": held.text}
    answer = ask(grace, f"{made}comparisons/", rows_body(again, row(2)))
    assert answer.json() == {"rows": 2, "new_prompts": 1, "comparisons": 2}
    held.refresh_from_db()
    assert held.split == "heldout"
    refused = ask(grace, f"{made}comparisons/", rows_body(row(3), row(2)))
    assert refused.json()["detail"] == (
        "Row 2: the batch already compares responses to this prompt."
    )


def test_how_many_responses_goes_by_how_people_are_asked(ask, grace, project):
    pair = f"{ask(grace, '', batch_body(preset='safe-rlhf')).json()['id']}/"
    refused = ask(grace, f"{pair}comparisons/", rows_body(row(1, k=3)))
    assert "responses must be a list of exactly 2 texts." in refused.json()["detail"]
    assert ask(grace, f"{pair}comparisons/", rows_body(row(1, k=2))).status_code == 201
    write = f"{ask(grace, '', batch_body(preset='demonstrate')).json()['id']}/"
    assert (
        ask(grace, f"{write}comparisons/", rows_body({"prompt": "Write a poem."})).status_code
        == 201
    )


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"source": SOURCE | {"licence": ""}}, 422, "Name the license"),
        ({"source": SOURCE | {"name": " "}}, 400, "may not be blank"),
        ({"source": SOURCE | {"url": "javascript:alert(1)"}}, 400, "valid URL"),
        ({"preset": "llama2"}, 422, "The preset llama2 compares on"),
        ({"preset": "none"}, 400, "is not a valid choice"),
        ({"overlap": 0}, 400, "greater than or equal to 1"),
        ({"name": "n" * 121}, 400, "no more than 120 characters"),
        ({"key": "k"}, 400, "valid UUID"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_in_a_sentence(ask, grace, project, more, code, words):
    answer = ask(grace, "", batch_body(**more))
    assert answer.status_code == code, answer.content
    assert words in answer.content.decode()
    assert not Batch.objects.exists()


def test_more_rows_than_a_request_holds_are_refused(ask, made, grace):
    answer = ask(grace, f"{made}comparisons/", rows_body(*[{}] * (MAX_ROWS + 1)))
    assert answer.status_code == 400
    assert "no more than 5000" in answer.content.decode()


def test_a_rounds_batch_is_the_rounds_and_an_empty_one_opens_for_nobody(ask, made, grace, project):
    theirs = BatchFactory(project=project, name="Round 3")
    for act, body in (("comparisons/", rows_body(row(1))), ("open/", None), ("close/", None)):
        answer = ask(grace, f"{theirs.pk}/{act}", body, method="post")
        assert answer.status_code == 409
        assert "Round 3 was not created over the API" in answer.json()["detail"]
    assert "has no comparisons yet" in ask(grace, f"{made}open/", method="post").json()["detail"]


def test_only_admins_write_only_members_with_data_read_and_others_find_nothing(
    client, ask, made, grace, ada, vera, rita, otto, project
):
    acts = [("", batch_body()), (f"{made}comparisons/", rows_body(row(1)))]
    acts += [(f"{made}open/", None), (f"{made}close/", None)]
    for person in (ada, vera, rita, otto):
        for address, body in acts:
            assert ask(person, address, body, method="post").status_code == 404, (person, address)
    assert Comparison.objects.count() == 0
    assert [ask(who, made).status_code for who in (ada, vera, rita, grace, otto)] == [
        404, 200, 200, 200, 404,
    ]  # fmt: skip
    assert client.get(ROOT).status_code == 401
    assert client.post(ROOT, batch_body(), content_type="application/json").status_code == 401


def test_gold_is_mixed_into_what_is_added_later(ask, made, grace, project):
    from annotation.quality.gold_items import add_gold_items

    project.gold_every = 4
    project.save()
    add_gold_items(project, gold_rows(3), grace)
    ask(grace, f"{made}comparisons/", rows_body(*(row(n) for n in range(100, 104))))
    ask(grace, f"{made}open/", method="post")
    batch = Batch.objects.get()
    assert batch.comparisons.filter(gold__isnull=False).count() == 3
    add_gold_items(project, gold_rows(5), grace)
    ask(grace, f"{made}comparisons/", rows_body(row(200)))
    assert batch.comparisons.filter(gold__isnull=False).count() == 5
    assert ask(grace, made).json()["comparisons"] == 5, "gold is no work"


def test_it_is_in_the_reference(client, grace):
    client.force_login(grace)
    schema = client.get("/api/v1/schema/?format=json").json()
    assert "post" in schema["paths"]["/api/v1/projects/{slug}/batches/"]
    page = client.get("/api/v1/docs/").content.decode()
    assert "batches_add" in page


class TestAtOnce:
    pytestmark = real_transactions

    def test_a_request_that_is_sent_eight_times_at_once_is_done_once(self, project, grace):
        key = uuid.uuid4()
        batch, _ = make_batch(
            project, uuid.uuid4(), name="Winter", source=SOURCE, sign_off=True, by=grace
        )
        done, together = [], threading.Barrier(8)

        def send():
            together.wait()
            try:
                own = Batch.objects.select_related("project").get(pk=batch.pk)
                done.append(add_rows(own, key, [row(n) for n in range(20)], by=grace)[1])
            finally:
                connection.close()

        threads = [threading.Thread(target=send) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(done) == [False] * 7 + [True]
        assert batch.comparisons.count() == 20
