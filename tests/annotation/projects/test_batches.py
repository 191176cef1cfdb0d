from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import skip, submit_judgment
from annotation.models import Assignment, Batch, Comparison, Event, Judgment, Response
from annotation.projects.batches import (
    BatchError,
    ResponseText,
    add_comparisons,
    batch_progress,
    close_batch,
    create_batch,
    open_batch,
)
from annotation.quality.people import people_of
from annotation.quality.throughput import throughput
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    ProjectFactory,
    PromptFactory,
    judged,
    key,
)


def rows(project, n, k=4):
    return [
        (
            PromptFactory(project=project, priority=i),
            [ResponseText(f"answer {j}", source="base", n_tokens=j) for j in range(k)],
        )
        for i in range(n)
    ]


def judge(user, project):
    current = next_assignment(user, project)
    ids = [str(pk) for pk in current.shown_order]
    ranks = {axis: {pk: i + 1 for i, pk in enumerate(ids)} for axis in project.axis_keys}
    return submit_judgment(current, by=current.annotator, answer=Answer(ranks=ranks), key=key())


def test_a_batch_is_made_filled_and_opened(project, grace, ada):
    batch = create_batch(project, "Round 1", overlap=2, by=grace)
    assert batch.state == Batch.State.DRAFT
    assert add_comparisons(batch, rows(project, 3)) == 3
    assert next_assignment(ada, project) is None
    batch = open_batch(batch, grace)
    assert open_batch(batch, grace).opened_at == batch.opened_at
    assert next_assignment(ada, project).comparison.needed == 2
    assert list(Event.objects.values_list("verb", flat=True).order_by("id")) == [
        "created batch",
        "opened batch",
    ]


def test_comparisons_come_all_or_not_at_all(project, grace):
    batch = create_batch(project, "Round 1", by=grace)
    good = rows(project, 2)
    for bad, says in [
        (rows(project, 1, k=1), "2 to 9"),
        (rows(project, 1, k=10), "2 to 9"),
        (rows(ProjectFactory(), 1), "another project"),
        (good[:1], "twice"),
    ]:
        with pytest.raises(BatchError, match=says):
            add_comparisons(batch, [*good, *bad])
        assert not Comparison.objects.exists()
    add_comparisons(batch, good)
    with pytest.raises(BatchError, match="already"):
        add_comparisons(batch, good)
    assert Response.objects.count() == 8


def test_an_empty_batch_is_not_opened_and_a_closed_one_not_filled(project, grace):
    batch = create_batch(project, "Round 1", by=grace)
    with pytest.raises(BatchError, match="no comparisons"):
        open_batch(batch, grace)
    batch = close_batch(batch, grace)
    with pytest.raises(BatchError, match="closed"):
        add_comparisons(batch, rows(project, 1))


def test_responses_keep_what_is_known_about_them_and_lose_nul(project):
    batch = create_batch(project, "Round 1")
    prompt = PromptFactory(project=project)
    odd = ResponseText("a\x00b", "base", {"temperature": 1.0}, -3.5, 7)
    add_comparisons(batch, [(prompt, [odd, ResponseText("", "base")])])
    stored = Response.objects.order_by("id").first()
    assert (stored.text, stored.sampling, stored.logprob, stored.n_tokens) == (
        "a\ufffdb",
        {"temperature": 1.0},
        -3.5,
        7,
    )


def test_progress_counts_judgments_people_and_the_time_left(project, grace, ada, ben):
    batch = create_batch(project, "Round 1", overlap=2, by=grace)
    assert batch_progress(batch)["percent"] == 0
    add_comparisons(batch, rows(project, 4))
    open_batch(batch, grace)
    for user in (ada, ben, ada):
        judge(user, project)
    skip(next_assignment(ben, project), "too long")
    next_assignment(ada, project)
    progress = batch_progress(batch)
    assert progress["needed"] == 8
    assert progress["judged"] == 3
    assert progress["leased"] == 1
    assert progress["skipped"] == 1
    assert progress["people"] == 2
    assert progress["percent"] == 37
    assert not progress["is_complete"]
    assert progress["per_hour"] > 0
    assert progress["eta_seconds"] > 0


def said_at(batch, *hours_ago):
    """Judgments of this batch so long ago, one a comparison."""
    for hours in hours_ago:
        one = judged(batch.project, batch=batch)
        at = timezone.now() - timedelta(hours=hours)
        Judgment.objects.filter(pk=one.judgment_id).update(created_at=at)


def open_with(project, name, n):
    batch = BatchFactory(project=project, name=name)
    for _ in range(n):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    return batch


def test_the_time_left_rests_on_the_last_hour_and_else_on_the_last_week(project):
    quick, slow, new = (open_with(project, name, 10) for name in ("Quick", "Slow", "New"))
    said_at(quick, 0.5, 0.25)
    said_at(slow, 20, 10)
    said_at(new, 0.1)
    found = batch_progress(quick)
    assert (found["pace_n"], found["is_pace_of_week"]) == (2, False)
    # Two judgments in half an hour: four an hour, and ten are left.
    assert found["eta_seconds"] == pytest.approx(2.5 * 3600, rel=0.01)
    found = batch_progress(slow)
    assert (found["per_hour"], found["pace_n"], found["is_pace_of_week"]) == (None, 2, True)
    assert found["eta_seconds"] == pytest.approx(100 * 3600, rel=0.01)
    assert (batch_progress(new)["eta_seconds"], batch_progress(new)["pace_n"]) == (None, 0)


def test_a_reviewers_ruling_is_no_work_on_the_batch(project):
    batch = open_with(project, "Round 1", 10)
    said_at(batch, 0.5, 0.4)
    Assignment.objects.filter(comparison__batch=batch).update(is_ruling=True)
    assert batch_progress(batch)["eta_seconds"] is None


def test_the_pages_tell_when_each_batch_is_done_and_what_that_rests_on(project, grace, client):
    quick, slow = open_with(project, "Quick", 10), open_with(project, "Slow", 10)
    said_at(quick, 0.5, 0.25)
    client.force_login(grace)
    for page in ("", "quality/"):
        told = client.get(f"/projects/apollo/{page}").content.decode()
        assert told.count("expected end") == 1
        assert "at the last hour's pace (2 judgments)" in told
        assert "after two judgments within a week" in told
    # One of the batches has no pace: nobody knows when the last one is done.
    assert throughput(project, people_of(project)).done_at is None
    said_at(slow, 20, 10)
    work = throughput(project, people_of(project))
    assert {of.batch.name: of.left for of in work.batches} == {"Quick": 10, "Slow": 10}
    assert work.done_at == max(of.done_at for of in work.batches)
    assert "at last week's pace (2 judgments)" in (
        client.get("/projects/apollo/quality/").content.decode()
    )
