"""One filter for everything that leaves: every snapshot, export, endpoint and command."""

import json

import pytest
from django.core.management import call_command
from django.urls import reverse

from annotation.data.preferences import judgment_counts
from annotation.data.snapshot_files import snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.models import FilterSetting, Flag, Prompt
from rlhf.stages.prompts import pool
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, SourceFactory, judged

pytestmark = pytest.mark.django_db

KEPT_OUT = {
    "held out": "A held-out question",
    "watch": "A watch question",
    "unsigned": "A question of an unsigned source",
    "batch": "A question in a batch of an unsigned source",
    "no training": "A question under a license without training",
    "prompt flagged": "A flagged question",
    "response flagged": "A question with a flagged response",
}


def ask(text, project, **kwargs):
    return PromptFactory(project=project, messages=[{"role": "user", "content": text}], **kwargs)


def judged_fully(project, by, prompt, batch=None):
    """Ranks, ratings and a written answer, so that each kind of export would have a row."""
    batch = batch or BatchFactory(project=project)
    assignment = judged(project, by=by, comparison=ComparisonFactory(batch=batch, prompt=prompt))
    judgment = assignment.judgment
    first = str(assignment.comparison.responses.order_by("pk").first().pk)
    judgment.ratings = {first: {"quality": 3}}
    judgment.safety = {first: {"safe": True, "harms": []}}
    judgment.rewrite = f"Written for: {prompt.text}"
    judgment.save()
    return assignment


@pytest.fixture
def everything(project, ada):
    """One admitted judgment, and one that is kept out for each reason."""
    judged_fully(project, ada, ask("An admitted question", project))
    unsigned = SourceFactory(project=project, name="Unsigned", signed_off_at=None)
    forbidden = SourceFactory(project=project, name="No training", licence="CC-BY-ND-4.0")
    held_out, watch = Prompt.Split.HELDOUT, Prompt.Split.EVAL
    judged_fully(project, ada, ask(KEPT_OUT["held out"], project, split=held_out))
    judged_fully(project, ada, ask(KEPT_OUT["watch"], project, split=watch))
    judged_fully(project, ada, ask(KEPT_OUT["unsigned"], project, source=unsigned))
    judged_fully(project, ada, ask(KEPT_OUT["no training"], project, source=forbidden))
    judged_fully(
        project,
        ada,
        ask(KEPT_OUT["batch"], project),
        BatchFactory(project=project, source=unsigned),
    )
    flagged = judged_fully(project, ada, ask(KEPT_OUT["prompt flagged"], project))
    answered = judged_fully(project, ada, ask(KEPT_OUT["response flagged"], project))
    FilterSetting.objects.create(
        project=project, filter="hate", threshold=0.6, action="exclude", version=1
    )
    prompt, response = flagged.comparison.prompt, answered.comparison.responses.last()
    Flag.objects.create(project=project, filter="hate", prompt=prompt, score=0.9, reason="x")
    Flag.objects.create(project=project, filter="hate", response=response, score=0.6, reason="x")
    return project


def body(response):
    return (
        b"".join(response.streaming_content).decode()
        if response.streaming
        else response.content.decode()
    )


def exports(project, client, tmp_path):
    """Everything that leaves the product, as text."""
    for name in ("judgments", "ratings", "demonstrations", "quality_votes"):
        yield name, body(client.get(reverse(f"api:{name}", args=[project.slug])))
    snapshot = freeze_snapshot(project, by=None)
    for file in snapshot.files:
        if file["name"].endswith(".jsonl"):
            yield file["name"], snapshot_file(snapshot, file["name"]).read_text()
    yield "csv", body(client.get(reverse("snapshot_form", args=[project.slug, 1, "csv"])))
    path = tmp_path / "demonstrations.jsonl"
    call_command("export_demonstrations", project.slug, str(path))
    yield "command", path.read_text()


def test_nothing_that_is_kept_out_leaves_by_any_door(everything, client, rita, tmp_path):
    client.force_login(rita)
    left = dict(exports(everything, client, tmp_path))
    assert len(left) >= 9
    votes = [json.loads(line) for line in left["quality_votes"].splitlines()]
    admitted = Prompt.objects.get(messages__0__content="An admitted question")
    assert [row["prompt_id"] for row in votes] == [str(admitted.uid)]
    kept_out = {str(p.uid) for p in everything.prompts.all()} - {str(admitted.uid)}
    for name, text in left.items():
        assert str(admitted.uid) in text, name
        assert [why for why, said in KEPT_OUT.items() if said in text] == [], name
        assert [uid for uid in kept_out if uid in text] == [], name


def test_each_judgment_is_counted_under_one_reason(everything):
    counts = judgment_counts(everything)
    assert counts == {
        "current": 8, "used": 1, "heldout": 2, "not_signed_off": 3, "filtered": 2,
        "excluded": 0, "overruled": 0,
    }  # fmt: skip
    snapshot = freeze_snapshot(everything, by=None)
    assert snapshot.counts["left_out"]["filtered"] == 2
    assert snapshot.query["filters"] == [
        {"filter": "hate", "name": "Hate", "threshold": 0.6, "version": 1, "set_by": "project"}
    ]
    assert "2 by filters" in snapshot.card


def test_a_round_trains_on_no_prompt_that_is_kept_out(everything):
    texts = {prompt.text for prompt in pool(everything, "ppo")}
    assert texts == {"An admitted question", KEPT_OUT["batch"], KEPT_OUT["response flagged"]}


def test_a_non_commercial_license_is_kept_out_of_a_commercial_project(project, ada):
    source = SourceFactory(project=project, licence="CC-BY-NC-4.0")
    judged(project, by=ada, source=source)
    assert judgment_counts(project)["used"] == 1
    project.is_commercial = True
    project.save()
    assert judgment_counts(project)["not_signed_off"] == 1
