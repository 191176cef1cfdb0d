"""Pre-flight: what is a go, a warning or a no-go, and what the launch makes of it."""

import json
import struct

import pytest

from annotation.models import Judgment, Membership, Prompt
from rlhf import rounds
from rlhf.computing_cost import requirements
from rlhf.errors import RoundError, StageError
from rlhf.models import Round, Worker
from rlhf.round_config import default_config
from rlhf.stages.reward_model import trunk_path
from rlhf.training.rundir.files import write_jsonl
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    judged,
    member,
)
from tests.rlhf.calibrations import MACHINE, calibrated
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
    config["round"]["max_new_tokens"] = limit
    check = checks(project, config)["endings"]
    assert (check.verdict, words in check.answer) == (verdict, True), check


def test_prompts_of_unknown_risk_are_counted_with_what_they_do(project, base):
    assert checks(project)["risks"].answer == "Yes."
    Prompt.objects.filter(split="train").update(risk="")
    check = checks(project)["risks"]
    assert (check.verdict, check.answer) == ("go", "Of 9.")
    assert check.evidence.startswith("not known: 12 of 21 prompts, 0 of 6 held out")
    four = Prompt.objects.filter(split="heldout").values("pk")[:4]
    Prompt.objects.filter(pk__in=list(four.values_list("pk", flat=True))).update(risk="")
    check = checks(project)["risks"]
    assert check.verdict == "warning"
    assert "Not of 4 of 6 held-out prompts" in check.answer


def test_a_longest_answer_that_earlier_evaluations_had_not_is_named(project, base):
    assert "first evaluation" in checks(project)["length"].answer
    config = small_config(project)
    measured = Round.objects.create(
        project=project, number=0, state="done", config={"evaluate": {"max_new_tokens": 32}}
    )
    new_job(measured, "evaluate")
    assert checks(project, config)["length"].answer == "Yes: 32 tokens."
    config["round"]["max_new_tokens"] = 96
    answer = checks(project, config)["length"].answer
    assert answer.startswith("No: 32 tokens until now, 96 in this round.")
    assert "again before anything is compared" in answer


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


def test_reward_models_can_start_from_a_model_of_ones_own(project, base, settings, tmp_path):
    encoder = tmp_path / "models" / "encoder"
    encoder.mkdir(parents=True)
    (encoder / "config.json").write_text('{"model_type": "bert"}')
    settings.MODEL_FOLDERS = (tmp_path / "models",)
    config = small_config(project)
    assert "trunk" not in checks(project, config)
    config["round"]["reward_trunk"] = str(encoder)
    check = checks(project, config)["trunk"]
    assert (check.verdict, check.answer) == ("go", f"They start from {encoder}.")
    round = Round(project=project, number=9, config=config, start_policy=base)
    assert trunk_path(round) == str(encoder)
    config["round"]["reward_trunk"] = "policy"
    assert trunk_path(round) == base.path

    for trunk, sentence in (
        ("/etc", "Models are read from this project's runs"),
        (str(encoder / "none"), "There is no folder and no GGUF file"),
    ):
        config["round"]["reward_trunk"] = trunk
        check = checks(project, config)["trunk"]
        assert check.verdict == "no-go"
        assert sentence in check.answer
        with pytest.raises(StageError, match=r"^reward_trunk: "):
            trunk_path(round)


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


def on_a_machine(policy, **changes):
    """A worker that has reported its machine, on which the policy was measured."""
    worker = a_worker("gpu", "gpu")
    Worker.objects.filter(pk=worker.pk).update(machine=MACHINE | changes)
    return calibrated(policy)


def test_what_does_not_fit_the_workers_memory_is_refused_with_what_to_lower(project, base):
    on_a_machine(base)
    config = small_config(project)
    config["reward_model"]["rankings_per_batch"] = 2
    check = checks(project, config)["memory"]
    assert check.verdict == "go"
    assert "12.0 GiB free on A small CPU" in check.evidence
    Worker.objects.update(machine=MACHINE | {"memory_free": 2 * 2**30})
    check = checks(project, config)["memory"]
    assert check.verdict == "no-go"
    assert check.fix.startswith("Lower ") or check.fix.startswith("Set ")
    Worker.objects.update(machine=MACHINE | {"memory_free": 200 * 2**30})
    config["reward_model"] |= {"rankings_per_batch": 64, "max_length": 4096}
    assert checks(project, config)["memory"].verdict == "go"


def test_a_sum_by_arithmetic_alone_warns_and_does_not_refuse(project, base, tmp_path):
    """Activations are measured by nobody then, and the sum may be twice too large."""
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps(shape | {"vocab_size": 300}))
    header = json.dumps({"w": {"dtype": "F32", "shape": [10_000_000], "data_offsets": [0, 4]}})
    (tmp_path / "model.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4
    )
    base.path = str(tmp_path)
    base.save()
    worker = a_worker("gpu", "gpu")
    largest = requirements(project, small_config(project)).largest.total
    for free, verdict in ((0.7, "warning"), (0.4, "no-go"), (1.1, "warning"), (2.0, "go")):
        Worker.objects.filter(pk=worker.pk).update(
            machine=MACHINE | {"memory_free": free * largest}
        )
        check = checks(project)["memory"]
        assert check.verdict == verdict, free
        assert "activations by arithmetic" in check.evidence


def test_the_disk_check_knows_the_size_of_a_named_model(project, base):
    on_a_machine(base, disk_free=10**9)
    check = checks(project)["disk"]
    assert check.verdict == "no-go"
    assert "reward models" in check.evidence
    Worker.objects.update(machine=MACHINE | {"disk_free": 10**12})
    assert checks(project)["disk"].verdict == "go"


def test_a_model_of_unknown_size_is_a_warning(project, base):
    by_key = checks(project)
    assert by_key["memory"].verdict == by_key["disk"].verdict == "warning"
    assert "size is not known" in by_key["memory"].answer


def test_more_ppo_prompts_per_step_than_there_are_is_refused(project, base):
    config = small_config(project)
    config["ppo"]["rollout"]["prompts_per_step"] = 5  # of the 4 that the round asks for
    check = checks(project, config)["ppo"]
    assert check.verdict == "no-go"
    assert "5 prompts in each step" in check.answer
    assert default_config(project, "tiny")["ppo"]["rollout"]["prompts_per_step"] == 12


def test_half_precision_on_a_cpu_is_a_warning(project, base):
    on_a_machine(base)
    config = small_config(project)
    assert "precision" not in checks(project, config)
    config["generate"]["dtype"] = "bfloat16"
    check = checks(project, config)["precision"]
    assert check.verdict == "warning"
    assert "bfloat16 on a CPU in generate" in check.answer
    Worker.objects.update(machine=MACHINE | {"kind": "cuda"})
    assert "precision" not in checks(project, config)
