"""Acts on many rows: what they change, who respects it, and that undoing them restores it."""

import pytest

from annotation.data.admission import admitted, admitted_prompts
from annotation.data.preferences import judgment_counts, judgments_of
from annotation.data.snapshots import freeze_snapshot
from annotation.judge.assignment import next_assignment
from annotation.models import (
    Batch,
    BulkAct,
    Comparison,
    Event,
    Judgment,
    Membership,
    Prompt,
    Response,
    Tag,
)
from annotation.projects.batches import batch_progress
from annotation.projects.campaigns import start_campaign
from annotation.quality import bulk_acts
from annotation.quality.bulk_acts import BulkError
from annotation.quality.interventions import QualityError, ask_again
from rlhf.stages.prompts import pool
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged, key, member

pytestmark = pytest.mark.django_db


@pytest.fixture
def work(project):
    """Three comparisons of an open batch, the first judged; each needs two people."""
    batch = BatchFactory(project=project, name="Round 1", overlap=2)
    comparisons = [
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project), needed=2)
        for _ in range(3)
    ]
    judged(project, comparison=comparisons[0])
    return comparisons


def used(project):
    return admitted(project, judgments_of(project)).count()


def test_an_excluded_prompt_reaches_no_training_no_batch_and_nobody(project, work, grace, ada):
    first, second, _ = work
    ids = [first.prompt_id, second.prompt_id]
    act = bulk_acts.exclude(project, "prompts", ids, "copied from a book", grace, key())
    assert act.n == 2
    assert used(project) == 0
    assert judgment_counts(project)["filtered"] == 1
    prompts = project.prompts.all()
    assert admitted_prompts(project, prompts).count() == prompts.trainable().count() == 1
    assert pool(project, "ppo").count() == 1
    assert next_assignment(ada, project).comparison == work[2]
    progress = batch_progress(first.batch)
    assert (progress["needed"], progress["judged"]) == (3, 1), "nobody is waited for"
    with pytest.raises(QualityError, match="excluded"):
        ask_again(Comparison.objects.get(pk=first.pk), grace)
    assert Event.objects.filter(verb="data manager: excluded", actor=grace).count() == 1

    assert bulk_acts.undo(act, grace) == 2
    assert bulk_acts.undo(act, grace) == 0, "twice is once"
    assert used(project) == 1
    assert batch_progress(first.batch)["needed"] == 6
    assert Comparison.objects.get(pk=second.pk).is_free
    assert BulkAct.objects.get().undone_by == grace


def test_each_kind_of_row_can_be_taken_out_and_a_snapshot_leaves_it_out(project, work, grace):
    other = judged(project, comparison=work[1])
    rows = {
        "comparisons": [work[0].pk],
        "responses": [work[0].responses.first().pk],
        "judgments": [Judgment.objects.exclude(pk=other.judgment_id).get().pk],
        "prompts": [work[0].prompt_id],
    }
    for table, ids in rows.items():
        act = bulk_acts.exclude(project, table, ids, "odd", grace, key())
        assert act.n == 1, table
        assert used(project) == 1, table
        assert freeze_snapshot(project, by=grace).counts["judgments"] == 1
        bulk_acts.undo(act, grace)
        assert used(project) == 2, table


def test_a_tag_that_keeps_out_does_so_for_rows_that_get_it_later(project, work, grace):
    bulk_acts.tag(project, "prompts", [work[1].prompt_id], "legal", grace, key(), keeps_out=True)
    assert used(project) == 1
    act = bulk_acts.tag(project, "comparisons", [work[0].pk], "  legal ", grace, key())
    assert used(project) == 0
    assert Tag.objects.get().taggings.count() == 2
    assert admitted_prompts(project, project.prompts.all()).count() == 2
    bulk_acts.undo(act, grace)
    assert used(project) == 1
    for table, pk in (
        ("responses", work[0].responses.first().pk),
        ("judgments", Judgment.objects.get().pk),
    ):
        act = bulk_acts.tag(project, table, [pk], "legal", grace, key())
        assert used(project) == 0, table
        removed = bulk_acts.untag(project, table, [pk], "legal", grace, key())
        assert (removed.n, used(project)) == (1, 1), table
        bulk_acts.undo(removed, grace)
        assert used(project) == 0
        bulk_acts.untag(project, table, [pk], "legal", grace, key())


def test_risk_and_category_are_set_and_restored_where_nobody_changed_them_since(
    project, work, grace
):
    ids = [comparison.prompt_id for comparison in work]
    Prompt.objects.filter(pk=ids[0]).update(category="old")
    act = bulk_acts.set_category(project, ids, "plants", grace, key())
    assert set(project.prompts.values_list("category", flat=True)) == {"plants"}
    Prompt.objects.filter(pk=ids[1]).update(category="ferns")
    bulk_acts.undo(act, grace)
    names = [Prompt.objects.get(pk=pk).category for pk in ids]
    assert names == ["old", "ferns", "how-to"]
    assert bulk_acts.set_risk(project, ids, "harmful", grace, key()).n == 3
    with pytest.raises(BulkError, match="harmless, harmful or not known"):
        bulk_acts.set_risk(project, ids, "dangerous", grace, key())


def test_the_same_form_sent_twice_acts_once_and_rows_of_others_are_not_touched(
    project, work, grace, otto
):
    foreign = PromptFactory()
    same = key()
    ids = [work[0].prompt_id, foreign.pk]
    first = bulk_acts.exclude(project, "prompts", ids, "odd", grace, same)
    again = bulk_acts.exclude(project, "prompts", [work[1].prompt_id], "odd", grace, same)
    assert first.pk == again.pk
    assert first.n == 1
    assert Prompt.objects.filter(exclusion=None).count() == 3
    for chosen, reason, sentence in (
        ([foreign.pk], "x", "at least one"),
        (ids, "  ", "Give a reason"),
    ):
        with pytest.raises(BulkError, match=sentence):
            bulk_acts.exclude(project, "prompts", chosen, reason, grace, key())


def test_selected_rows_are_asked_about_in_a_batch_for_one_person(project, work, grace, ada, ben):
    Batch.objects.update(state="closed")
    heldout = PromptFactory(project=project, split="heldout")
    ids = [work[0].prompt_id, work[1].prompt_id, heldout.pk]
    act = bulk_acts.ask(
        project, "prompts", ids, grace, key(), name="Again", overlap=1, only_for=ada
    )
    batch = Batch.objects.get(pk=act.before["batch"])
    assert (act.n, act.before["left_out"]) == (2, 1)
    assert batch.comparisons.first().responses.count() == 4
    assert next_assignment(ben, project) is None
    assert next_assignment(ada, project).comparison.batch == batch
    more = bulk_acts.ask(project, "comparisons", [work[2].pk], grace, key(), batch=batch)
    assert more.n == 1
    with pytest.raises(BulkError, match="has all of these prompts"):
        bulk_acts.ask(project, "comparisons", [work[2].pk], grace, key(), batch=batch)
    with pytest.raises(BulkError, match="closed on its page"):
        bulk_acts.undo(act, grace)
    rita = member(project, "rita", Membership.Role.RESEARCHER)
    with pytest.raises(BulkError, match="rita is no annotator"):
        bulk_acts.ask(project, "prompts", ids, grace, key(), name="x", only_for=rita)


def test_an_excluded_response_is_in_no_new_batch(project, work, grace):
    chosen = work[1].responses.first()
    bulk_acts.exclude(project, "responses", [chosen.pk], "empty phrases", grace, key())
    batch = start_campaign(project, "More", responses_of=work[1].batch, n=9, overlap=1, by=grace)
    prompts = set(batch.comparisons.values_list("prompt", flat=True))
    assert prompts == {work[0].prompt_id, work[2].prompt_id}
    with pytest.raises(BulkError, match="nothing to ask"):
        bulk_acts.ask(project, "responses", [chosen.pk], grace, key(), name="x")
    assert Response.objects.in_use().filter(comparison=work[1]).count() == 3


def test_undoing_one_exclusion_hands_out_nothing_that_another_still_keeps(
    project, work, grace, ada
):
    comparison = work[1]
    others = [one.pk for one in work if one != comparison]
    bulk_acts.exclude(project, "comparisons", others, "not today", grace, key())
    first = bulk_acts.exclude(project, "comparisons", [comparison.pk], "odd", grace, key())
    second = bulk_acts.exclude(project, "prompts", [comparison.prompt_id], "copied", grace, key())
    bulk_acts.undo(first, grace)
    comparison.refresh_from_db()
    assert (comparison.exclusion, comparison.is_free) == (second, False)
    assert next_assignment(ada, project) is None
    second.refresh_from_db()
    bulk_acts.undo(second, grace)
    comparison.refresh_from_db()
    assert (comparison.exclusion, comparison.needed) == (None, 2)
    assert next_assignment(ada, project).comparison == comparison
