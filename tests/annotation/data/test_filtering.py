"""Filters run over a project: once per text, with flags, and with a license to exclude."""

import pytest

from annotation.data import filtering
from annotation.data.filtering import (
    FilterError,
    calibration,
    change_setting,
    cost_of,
    label_text,
    run_filters,
    setting_of,
    why_not_exclude,
)
from annotation.models import Flag, Prompt
from tests.factories import PromptFactory, SourceFactory, judged

pytestmark = pytest.mark.django_db


def ask(project, text, **kwargs):
    return PromptFactory(project=project, messages=[{"role": "user", "content": text}], **kwargs)


def flags(project, key):
    return list(Flag.objects.filter(project=project, filter=key).order_by("pk"))


def test_a_flag_has_reason_and_span_and_the_text_stays(project):
    prompt = ask(project, "Listen, you asshole: what is a fern?")
    run_filters(project, ["abuse"])
    (flag,) = flags(project, "abuse")
    assert flag.prompt == prompt
    assert prompt.text[flag.start : flag.end] == "asshole"
    assert "asshole" not in flag.reason
    prompt.refresh_from_db()
    assert prompt.text == "Listen, you asshole: what is a fern?"


def test_responses_are_read_too(project, ada):
    comparison = judged(project, by=ada).comparison
    response = comparison.responses.last()
    response.text = "Shut up, you idiot."
    response.save()
    run_filters(project, ["abuse"])
    assert [flag.response_id for flag in flags(project, "abuse")] == [response.pk]


def test_a_second_run_reads_what_is_new_only(project, monkeypatch):
    ask(project, "You asshole.")
    run_filters(project, ["abuse"])
    n_read = []
    find = filtering.FILTERS["abuse"].find
    monkeypatch.setattr(
        filtering, "_find_of", lambda *a: lambda text: n_read.append(text) or find(text)
    )
    ask(project, "You idiot.")
    run_filters(project, ["abuse"])
    assert n_read == ["You idiot."]
    assert len(flags(project, "abuse")) == 2
    assert setting_of(project, "abuse").n_prompts == 2


def test_a_new_version_of_a_filter_reads_everything_again(project):
    ask(project, "You asshole.")
    run_filters(project, ["abuse"])
    project.filters.update(version=99)
    run_filters(project, ["abuse"])
    assert len(flags(project, "abuse")) == 1
    assert setting_of(project, "abuse").version == filtering.FILTERS["abuse"].version


def test_near_duplicates_name_the_earlier_prompt_and_its_source(project):
    first = ask(project, "How often should I water a fern in winter?")
    second = ask(
        project, "how often should I water a fern in winter", source=SourceFactory(project=project)
    )
    ask(project, "Name three planets.")
    run_filters(project, ["near_duplicate"])
    (flag,) = flags(project, "near_duplicate")
    assert flag.prompt == second
    assert flag.reason == f"nearly prompt {first.uid.hex[:8]} in another source"


def test_contamination_is_flagged_in_the_training_prompt(project):
    suite = "If three trains leave the station at noon and each of them is faster than the last one"
    ask(project, suite, split=Prompt.Split.HELDOUT)
    ask(project, "What is the boiling point of water?", split=Prompt.Split.EVAL)
    longer = ask(project, f"Solve this for me, step by step: {suite}, which one arrives first?")
    nearly = ask(project, "What is the boiling point of water")
    ask(project, "Name three planets.")
    run_filters(project, ["contamination"])
    assert {flag.prompt for flag in flags(project, "contamination")} == {longer, nearly}


def test_a_run_stops_when_its_time_is_over_and_continues(project, monkeypatch):
    monkeypatch.setattr(filtering, "CHUNK", 2)
    for n in range(7):
        ask(project, f"You asshole number {n}.")
    assert run_filters(project, ["abuse"], seconds=0) is False
    assert len(flags(project, "abuse")) == 2
    assert run_filters(project, ["abuse"]) is True
    assert len(flags(project, "abuse")) == 7


def test_an_estimate_excludes_nothing_before_it_is_calibrated(project, grace, ada):
    for n in range(32):
        judged(project, by=ada, messages=[{"role": "user", "content": f"You asshole number {n}."}])
    run_filters(project, ["abuse"])
    asked = {"threshold": 0.6, "action": "exclude", "languages": [], "by": grace}
    with pytest.raises(FilterError, match="0 of the 30 labels"):
        change_setting(project, "abuse", **asked)
    for prompt in project.prompts.all()[:30]:
        label_text(project, "abuse", prompt=prompt.pk, response=None, should_flag=True, by=grace)
    assert why_not_exclude(setting_of(project, "abuse")) == []
    setting = change_setting(project, "abuse", **asked)
    assert cost_of(setting).judgments == 32
    assert project.events.filter(verb="set a filter", actor=grace).exists()


def test_wrong_flags_keep_it_from_excluding(project, grace):
    for n in range(30):
        prompt = ask(project, f"You asshole number {n}.")
        label_text(project, "abuse", prompt=prompt.pk, response=None, should_flag=n < 20, by=grace)
    run_filters(project, ["abuse"])
    figures = calibration(project, "abuse", 0.6)
    assert (figures.n_flagged, round(figures.precision, 2), figures.recall) == (30, 0.67, 1.0)
    with pytest.raises(FilterError, match="precision is 67%; it takes 90%"):
        change_setting(project, "abuse", threshold=0.6, action="exclude", languages=[], by=grace)


def test_an_identity_gap_keeps_it_from_excluding(project, monkeypatch):
    gap = filtering.identity_gap(lambda text: 1.0 * ("gay" in text), 0.5)
    monkeypatch.setattr(filtering, "gap_of", lambda setting: gap)
    run_filters(project, ["abuse"])
    assert "identity gap is 100.0 points" in " ".join(why_not_exclude(setting_of(project, "abuse")))


def test_what_is_computed_excludes_at_once(project, grace):
    ask(project, "Name three planets.")
    ask(project, "name three planets")
    run_filters(project, ["near_duplicate"])
    setting = change_setting(
        project, "near_duplicate", threshold=0.9, action="exclude", languages=[], by=grace
    )
    assert setting.excludes


def test_a_label_of_another_projects_text_is_refused(project, otto, grace):
    other = ask(otto.memberships.get().project, "You asshole.")
    with pytest.raises(Prompt.DoesNotExist):
        label_text(project, "abuse", prompt=other.pk, response=None, should_flag=True, by=grace)


def test_expected_languages_are_the_projects(project, grace):
    ask(project, "Wie pflanze ich Tomaten auf dem Balkon?")
    run_filters(project, ["language"])
    assert flags(project, "language")[0].score > 0.8
    change_setting(
        project, "language", threshold=0.8, action="flag", languages=["de", "en"], by=grace
    )
    run_filters(project, ["language"])
    assert flags(project, "language")[0].score == 0
