"""Questions about comparisons: who reads them, who answers, and what the person who asked sees."""

import pytest

from annotation.judge import questions
from annotation.judge.assignment import next_assignment
from annotation.judge.requirements import JudgmentError
from annotation.models import Assignment, Question
from tests.factories import BatchFactory, ComparisonFactory

pytestmark = pytest.mark.django_db

HOSTILE = "<script>alert(1)</script> May the answer be in French?"


@pytest.fixture
def held(project, ada):
    batch = BatchFactory(project=project)
    for _ in range(2):
        ComparisonFactory(batch=batch)
    return next_assignment(ada, project)


def test_a_question_is_answered_in_place_and_its_answer_shown_until_it_was_read(
    client, project, held, ada, vera, grace
):
    address = f"/projects/apollo/judge/{held.uid}/ask/"
    client.force_login(ada)
    for _ in range(2):  # sent twice is sent once
        client.post(address, {"act": "ask", "text": HOSTILE})
    question = Question.objects.get()
    client.force_login(vera)
    page = client.get("/projects/apollo/questions/").content.decode()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "ada" not in page.split("<main")[1], "a reviewer sees no names"
    sent = {"question": question.pk, "text": "Yes, if the request is."}
    assert client.post("/projects/apollo/questions/", sent).status_code == 302
    client.force_login(grace)
    assert "No open questions" in client.get("/projects/apollo/questions/").content.decode()
    client.force_login(ada)
    judge = client.get("/projects/apollo/judge/").content.decode()
    assert "Yes, if the request is." in judge
    assert "Yes, if the request is." in client.get(address).content.decode()
    assert "Yes, if the request is." not in client.get("/projects/apollo/judge/").content.decode()


def test_nobody_asks_about_or_answers_what_is_not_theirs(client, held, ben, ada, otto, rita):
    address = f"/projects/apollo/judge/{held.uid}/ask/"
    question = questions.ask(held, "Is it?")
    for person in (ben, otto, rita):
        client.force_login(person)
        assert client.get(address).status_code == 404
        assert client.post(address, {"act": "ask", "text": "Hm?"}).status_code == 404
    for person in (ada, otto, rita):
        client.force_login(person)
        answered = client.post(
            "/projects/apollo/questions/", {"question": question.pk, "text": "x"}
        )
        assert answered.status_code == 404
    question.refresh_from_db()
    assert question.answer == ""


def test_a_question_says_something_and_not_too_much(held):
    for text, problem in (("  ", "Write something"), ("x" * 2001, "At most 2,000")):
        with pytest.raises(JudgmentError, match=problem):
            questions.ask(held, text)
    for number in range(questions.MOST_OPEN):
        questions.ask(held, f"Question {number}")
    with pytest.raises(JudgmentError, match="Wait for answers"):
        questions.ask(held, "One more")


def test_a_bookmark_is_found_again_by_who_set_it(client, held, ada):
    client.force_login(ada)
    address = f"/projects/apollo/judge/{held.uid}/ask/"
    client.post(f"/projects/apollo/judge/{held.uid}/", {"skip": "I would rather not read this"})
    client.post(address, {"act": "bookmark"})
    marked = client.get("/projects/apollo/judge/history/?bookmarked=1").context["rows"]
    assert [row["assignment"] for row in marked] == [held]
    client.post(address, {"act": "bookmark"})
    assert not client.get("/projects/apollo/judge/history/?bookmarked=1").context["rows"]
    assert not Assignment.objects.exclude(bookmarked_at=None).exists()
