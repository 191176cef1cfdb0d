import pytest

from annotation.assignment import next_assignment
from annotation.batches import (
    BatchError,
    ResponseText,
    add_comparisons,
    batch_progress,
    close_batch,
    create_batch,
    open_batch,
)
from annotation.judging import Answer, skip, submit_judgment
from annotation.models import Batch, Comparison, Event, Response
from tests.factories import ProjectFactory, PromptFactory, key


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
