"""The dataset card: valid front matter, and who judged what under which guidelines."""

import pytest
import yaml

from annotation.data.snapshots import freeze_snapshot
from annotation.models import FilterSetting, Flag, Judgment
from annotation.projects.guidelines import change_guidelines
from tests.factories import BatchFactory, SourceFactory, UserFactory, judged

pytestmark = pytest.mark.django_db


def test_simulated_annotators_are_named_on_the_card(project, rita, ada):
    batch = BatchFactory(project=project)
    judged(project, by=ada, batch=batch)
    bot = UserFactory(username="bot", is_simulated=True)
    judged(project, by=bot, batch=batch)
    snapshot = freeze_snapshot(project, by=rita)
    assert snapshot.counts["simulated_annotators"] == 1
    assert snapshot.counts["judgments_simulated"] == 1
    assert "**1 simulated annotator**" in snapshot.card
    assert "ada" not in snapshot.card


def test_odd_names_cannot_break_the_card(project, rita, ada):
    project.name = 'A "quoted": name\n---\n# x'
    project.axes = [{"key": "../wit!", "name": "Wit", "question": "Which\nis wittier?"}]
    project.save()
    source = SourceFactory(project=project, name="a | b [c](d)", licence="who: knows")
    judged(project, by=ada, source=source)
    snapshot = freeze_snapshot(project, by=rita)
    front = yaml.safe_load(snapshot.card.split("---\n")[1])
    assert front["license"] == "other"
    assert front["pretty_name"] == 'A "quoted": name --- # x'
    assert [config["config_name"] for config in front["configs"]] == ["___wit_", "judgments"]


def test_the_card_names_the_guidelines_that_people_had_and_not_those_of_today(project, ada, grace):
    judged(project, by=ada)
    later = judged(project, by=ada)
    Judgment.objects.filter(pk=later.judgment_id).update(guideline_version=2)
    change_guidelines(project, "Third words.", by=grace)
    change_guidelines(project, "Fourth words.", by=grace)
    project.refresh_from_db()
    made = freeze_snapshot(project, by=grace)
    assert made.counts["guidelines"] == {"1": 1, "2": 1}
    assert "Guidelines: version 1: 1 judgments, version 2: 1 judgments." in made.card


def test_the_hubs_library_reads_the_card_with_limits_filters_terms_and_citation(
    project, ada, ben, rita, tmp_path
):
    from huggingface_hub import DatasetCard

    project.name = "Apollo {x} <b>"
    project.save()
    FilterSetting.objects.create(
        project=project, filter="hate", threshold=0.6, action="exclude", version=1, n_prompts=4
    )
    house = SourceFactory(project=project, name="House <i>", licence="LicenseRef-internal")
    shared = SourceFactory(project=project, name="Wiki", licence="CC-BY-SA-4.0")
    bot = UserFactory(username="bot", is_simulated=True)
    for source in (house, shared):
        comparison = judged(project, by=ada, source=source).comparison
        judged(project, by=ben, comparison=comparison)
    flagged = judged(project, by=bot, source=shared).comparison.prompt
    kept = judged(project, by=bot, source=shared)
    Flag.objects.create(project=project, filter="hate", prompt=flagged, score=0.9, reason="x")
    made = freeze_snapshot(project, by=rita)
    path = tmp_path / "README.md"
    path.write_text(made.card, encoding="utf-8")
    card = DatasetCard.load(path)
    assert (card.data.license, card.data.pretty_name) == ("other", "Apollo {x} <b>")
    assert card.data.configs[0]["default"] is True
    text = " ".join(card.text.split())
    for sentence in (
        "**Hate** (from 0.6, version 1): flagged 1 of 4 prompts and 0 of 0 responses; judgments left out: 1.",
        "Not measured on this project; elsewhere precision",
        "1 of 5 judgments are by programs that follow a rubric",
        "All judgments by people come from 2 people",
        "Texts of House &lt;i> may not be passed on: do not publish this data.",
        "What is made of Wiki is passed on under the same license.",
        "Krippendorff's alpha",
        f"note = {{Snapshot {made.uid}}}",
        "title = {Apollo x <b>, version 1}",
    ):
        assert sentence in text, sentence
    assert kept.comparison.prompt != flagged
