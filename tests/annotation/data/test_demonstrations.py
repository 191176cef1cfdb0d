"""Answers that people wrote, as training reads them."""

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from annotation.data.preferences import annotator_id
from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.models import Judgment, Prompt
from rlhf.training.data import read_demonstrations
from tests.factories import judged

pytestmark = pytest.mark.django_db


def wrote(assignment, text):
    Judgment.objects.filter(pk=assignment.judgment.pk).update(rewrite=text)
    return assignment


def test_a_written_answer_is_a_row_and_a_ranking_alone_is_none(project, ada):
    written = wrote(judged(project, by=ada), "Owls eat mice.\u2028Really.")
    judged(project, by=ada)
    [row] = demonstrations(project)
    assert row == {
        "prompt_id": str(written.comparison.prompt.uid),
        "annotator": annotator_id(project, ada),
        "messages": written.comparison.prompt.messages,
        "response": "Owls eat mice.\u2028Really.",
    }


def test_what_may_not_be_trained_on_is_left_out(project, ada):
    wrote(judged(project, by=ada), "kept")
    wrote(judged(project, by=ada, split=Prompt.Split.HELDOUT), "held out")
    excluded = wrote(judged(project, by=ada), "excluded")
    Judgment.objects.filter(pk=excluded.judgment.pk).update(excluded_at=timezone.now())
    wrote(judged(project, by=ada), "  \n")
    assert [row["response"] for row in demonstrations(project)] == ["kept"]
    everything = {r["response"] for r in demonstrations(project, only_trainable=False)}
    assert everything == {"kept", "held out"}


def test_the_command_writes_what_the_stage_reads_and_never_over_a_file(
    project, ada, tmp_path, capsys
):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "demonstrations.jsonl"
    with pytest.raises(CommandError, match="no written response"):
        call_command("export_demonstrations", project.slug, str(path))
    assert list(path.parent.iterdir()) == []
    wrote(judged(project, by=ada), "Owls eat mice.\u2028Really.")
    call_command("export_demonstrations", project.slug, str(path))
    assert "1 demonstrations" in capsys.readouterr().out
    [(prompt, text)] = read_demonstrations(tmp_path)
    assert (prompt.messages[-1]["role"], text) == ("user", "Owls eat mice.\u2028Really.")
    with pytest.raises(CommandError, match="already exists"):
        call_command("export_demonstrations", project.slug, str(path))
    with pytest.raises(CommandError, match="no project"):
        call_command("export_demonstrations", "nowhere", str(tmp_path / "other"))
