"""Pre-flight: what is a go, a warning or a no-go, and what the launch makes of it."""

import json

import pytest

from annotation.models import Judgment, Membership, Prompt
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.models import Round
from rlhf.training.rundir.files import write_jsonl
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    judged,
    member,
)
from tests.rlhf.factories import new_job
from tests.rlhf.machine import (
    a_worker,
    checks,
    launch,
    ready,
    small_config,
)

pytestmark = pytest.mark.django_db


def test_a_setting_that_does_nothing_is_a_no_go(project, base):
    config = small_config(project)
    config["ppo"]["ptx"] = {"batch_size": 3}
    check = checks(project, config)["settings"]
    assert check.verdict == "no-go"
    assert "ptx.batch_size requires ptx.weight > 0" in check.answer
    # A round's own models are filled in later; what belongs to them is no mistake.
    config["ppo"] = {"tripwire": {"drop": 0.5}}
    assert checks(project, config)["settings"].verdict == "go"


def test_a_project_that_is_ready_gets_a_go_for_everything_once_workers_live(project, base):
    a_worker("default", "default")
    a_worker("gpu", "gpu")
    by_key = checks(project)
    assert {key for key, c in by_key.items() if c.verdict == "no-go"} == set()
    assert by_key["workers"].verdict == "go"
    assert by_key["ranking"].evidence.startswith(
        "12 available, 4 of them labeled harmful; 6 requested"
    )
    assert "Wh at" in by_key["estimate"].evidence


@pytest.mark.parametrize(
    ("lengths", "limit", "verdict", "words"),
    [
        ([8, 9, 20, 20], 32, "go", "Yes, within 32 tokens."),
        ([8, 9, 20, 20], 10, "go", "Yes, within 10 tokens."),  # the half of them end
        ([8, 20, 20, 20], 10, "warning", "75 % are cut off after 10 tokens"),
        ([8, 48, 48, 48], 48, "warning", "75 % are cut off after 48 tokens"),
        ([8, 48, 48, 48], 96, "go", "Not known for 96 tokens; its evaluation stopped at 48."),
    ],
)
def test_most_responses_cut_off_is_a_warning_before_anybody_judges_them(
    project, base, lengths, limit, verdict, words
):
    measured = Round.objects.create(project=project, number=0, state="done", policy=base)
    base.round = measured
    base.save()
    job = new_job(measured, "evaluate")
    rows = [
        {"prompt_id": f"h{i}", "temperature": 1.0, "n_tokens": n, "finished": n < 48}
        for i, n in enumerate(lengths)
    ]
    write_jsonl(job.run_dir / "samples.jsonl", rows)
    config = small_config(project)
    config["generate"]["max_new_tokens"] = limit
    check = checks(project, config)["endings"]
    assert (check.verdict, words in check.answer) == (verdict, True), check


def test_without_a_policy_nothing_can_be_launched(project, ada, grace):
    ready(project).delete()
    assert checks(project)["policy"].verdict == "no-go"
    with pytest.raises(RoundError, match="Build the base policy"):
        launch(project, grace)
    assert not Round.objects.exists()


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ({"model_type": "bart", "is_encoder_decoder": True}, "no-go"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "go"),
        ({"model_type": "llama"}, "go"),
        (["no", "object"], "go"),
    ],
)
def test_what_cannot_become_a_reward_model_is_said_before_anybody_judges(
    project, tmp_path, config, verdict
):
    ready(project, policy=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(config))
    check = checks(project)["policy"]
    assert check.verdict == verdict
    assert ("bart" in check.answer) == (verdict == "no-go")


def test_ptx_without_written_answers_is_a_warning(project, base):
    config = small_config(project)
    assert "written" not in checks(project, config)
    config["ppo"]["ptx"] = {"weight": 0.5}
    assert checks(project, config)["written"].verdict == "warning"
    written = judged(project, split="train").judgment
    Judgment.objects.filter(pk=written.pk).update(rewrite="Better like this.")
    assert checks(project, config)["written"].verdict == "go"


def test_a_warning_must_be_acknowledged_by_name(project, base, grace):
    config = small_config(project)
    warnings = [k for k, c in checks(project).items() if c.verdict == "warning"]
    assert "workers" in warnings
    for missing in warnings:
        named = [key for key in warnings if key != missing]
        with pytest.raises(RoundError, match="Acknowledge this"):
            rounds.open_round(project, by=grace, config=config, acknowledged=named)
    assert rounds.open_round(project, by=grace, config=config, acknowledged=warnings)


def test_too_few_prompts_that_nobody_has_judged_are_a_no_go(project, base, grace):
    batch = BatchFactory(project=project)
    for prompt in list(Prompt.objects.filter(split="train"))[:9]:
        ComparisonFactory(batch=batch, prompt=prompt)
    assert checks(project)["ranking"].verdict == "no-go"


def test_prompts_of_an_unsigned_source_are_not_counted_and_named(project, base):
    unsigned = SourceFactory(project=project, name="scraped.jsonl", signed_off_at=None)
    for _ in range(5):
        PromptFactory(project=project, source=unsigned)
    by_key = checks(project)
    assert by_key["ranking"].evidence.startswith("12 available")
    assert by_key["sources"].verdict == "warning"
    assert "scraped.jsonl" in by_key["sources"].answer


def test_more_judges_than_people_are_a_no_go(project, base):
    config = small_config(project)
    config["round"]["overlap"] = 5
    assert checks(project, config)["people"].verdict == "no-go"


def test_simulated_people_are_counted_and_named_as_such(project, base):
    user = member(project, "sim-ada", Membership.Role.ANNOTATOR)
    user.is_simulated = True
    user.save()
    assert checks(project)["people"].evidence == "1 of them simulated"
