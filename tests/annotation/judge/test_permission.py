"""Who is paused, not qualified or at a limit: asked at every door to work."""

import uuid

import pytest
from django.utils import timezone

from annotation.judge import dialogues
from annotation.judge.assignment import next_assignment, peek_next, waiting
from annotation.judge.dialogue_campaigns import DialogueError
from annotation.judge.permission import may_work, renew
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import reopen, submit_judgment, undo_last
from annotation.models import Assignment, Judgment, Membership
from annotation.quality.gold_items import add_gold_items
from annotation.quality.interventions import pause
from tests.annotation.gold_rows import gold_rows
from tests.annotation.talking import new_campaign
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(project):
    batch = BatchFactory(project=project)
    for _ in range(4):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    return batch


def answer(assignment, *letters):
    ranks = {letter: place for place, letter in enumerate(letters or "ABCD", start=1)}
    given = {"ranks": dict.fromkeys(assignment.comparison.batch.project.axis_keys, ranks)}
    return submit_judgment(assignment, by=assignment.annotator, answer=given, key=uuid.uuid4())


def stop(project, user, grace):
    pause(Membership.objects.get(project=project, user=user), grace, "Holiday")
    project.own_membership = None


def test_who_is_paused_begins_nothing_and_changes_nothing(work, project, ada, grace):
    done = next_assignment(ada, project)
    answer(done)
    open_one = next_assignment(ada, project)
    stop(project, ada, grace)
    assert next_assignment(ada, project) is None
    assert peek_next(ada, project, open_one) is None
    assert waiting(ada, project) == 0
    open_one.refresh_from_db()
    assert not renew(open_one)
    for change in (
        lambda: answer(done, *"DCBA"),
        lambda: reopen(done),
        lambda: undo_last(ada, project),
    ):
        with pytest.raises(JudgmentError, match="Holiday"):
            change()
    assert Judgment.objects.count() == 1
    # What they had begun before is taken when it comes.
    answer(open_one)
    assert Assignment.objects.filter(state="judged").count() == 2


def test_the_pages_and_the_api_ask_too(work, project, ada, grace, client):
    done = next_assignment(ada, project)
    answer(done)
    open_one = next_assignment(ada, project)
    stop(project, ada, grace)
    client.force_login(ada)
    page = client.post("/projects/apollo/judge/undo/", follow=True).content.decode()
    assert "Holiday" in page
    renewed = client.post(f"/api/v1/projects/apollo/judging/{open_one.uid}/renew/").json()
    assert renewed["renewed"] is False
    root = "/api/v1/projects/apollo/judging"
    assert client.post(f"{root}/undo/").status_code == 422
    ranks = dict(zip("ABCD", (4, 3, 2, 1), strict=True))
    body = {"key": str(uuid.uuid4()), "ranks": dict.fromkeys(project.axis_keys, ranks)}
    again = client.post(f"{root}/{done.uid}/submit/", body, content_type="application/json")
    assert again.status_code == 422


@pytest.mark.parametrize("why", ["paused", "not qualified", "over the limit"])
def test_who_may_not_work_begins_no_dialogue(project, ada, grace, work, why):
    campaign = new_campaign(project, grace)
    member = Membership.objects.get(user=ada, project=project)
    running = dialogues.begin(ada, campaign)
    dialogues.end(running)
    if why == "paused":
        stop(project, ada, grace)
    elif why == "not qualified":
        project.qualification_pass = 80
        project.save()
        add_gold_items(project, gold_rows(2, qualification=True), grace)
    else:
        answer(next_assignment(ada, project))
        member.daily_limit = 1
        member.save()
    campaign.refresh_from_db()
    assert may_work(ada, project).to_begin
    with pytest.raises(DialogueError):
        dialogues.begin(ada, campaign)


def test_who_is_paused_in_the_middle_of_a_dialogue_says_nothing_more(project, ada, grace):
    campaign = new_campaign(project, grace)
    dialogue = dialogues.begin(ada, campaign)
    Membership.objects.filter(user=ada).update(paused_at=timezone.now(), paused_reason="Holiday")
    dialogue.refresh_from_db()
    with pytest.raises(DialogueError, match="Holiday"):
        dialogues.say(dialogue, "Hello", key=uuid.uuid4())
    with pytest.raises(DialogueError, match="Holiday"):
        dialogues.ask_again(dialogue)


def test_who_left_the_project_may_nothing(project, ada):
    Membership.objects.filter(user=ada).delete()
    assert may_work(ada, project).to_begin
