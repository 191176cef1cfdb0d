"""The page where a model of one's own is named, described and used."""

import pytest
from django.urls import reverse

from annotation.models import Event, Judgment
from rlhf import own_models, rounds
from rlhf.errors import RoundError
from rlhf.models import Checkpoint, Round
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from rlhf.workers.next_job import run_next_job
from tests.factories import PromptFactory, judged
from tests.rlhf.pages.browsing import page, text_of
from tests.rlhf.training.tiny import make_policy

pytestmark = pytest.mark.django_db


UNDERSTOOD = {
    "source": "gguf",
    "architecture": "LlamaForCausalLM",
    "n_parameters": 134_515_008,
    "context": 8192,
    "vocabulary": 49152,
    "bytes": 98_362_432,
    "n_files": 1,
    "precision": "Q4_1",
    "tokens": {"bos": None, "eos": "<|im_end|>", "pad": None, "stop": ["<|im_end|>", "</s>"],
               "end": "<|im_end|>"},
    "template": {"prompt": "<|im_start|>user\n<b>How do I keep basil fresh?</b>"},
    "memory": {"float32": 538_060_032},
    "sample": {"answer": "Basil likes <script>alert(1)</script>"},
    "remarks": ["Its weights are stored as Q4_1."],
    "refusals": [],
}  # fmt: skip


def read(project, by, understood=UNDERSTOOD, *, path="org/model"):
    """A model that has been named and read; the round waits."""
    job = own_models.inspect_model(project, by, path)
    policy = Checkpoint.objects.create(
        project=project,
        kind="policy",
        name="SmolLM2",
        path=path,
        round=job.round,
        config={"understood": understood},
        n_parameters=understood["n_parameters"],
    )
    Round.objects.filter(pk=job.round_id).update(policy=policy)
    type(job).objects.filter(pk=job.pk).update(state="done")
    job.refresh_from_db()
    rounds.advance(job)
    return Round.objects.get(pk=job.round_id)


def test_a_real_project_is_asked_for_its_model_and_the_toy_says_that_it_is_a_toy(
    client, project, grace
):
    client.force_login(grace)
    body = text_of(page(client, "rounds", project.slug))
    assert "Name the language model that the first round starts from" in body
    assert body.index("Choose your model") < body.index("Or try the loop with a toy model")
    assert "can’t answer this project’s prompts" in body
    body = text_of(page(client, "own_model", project.slug))
    for form in ("config.json", "GGUF file", "adapter_config.json", "organization/model"):
        assert form in body


def test_a_model_is_named_read_by_a_worker_shown_and_used(
    client, project, grace, awake, tmp_path, settings, django_capture_on_commit_callbacks
):
    settings.TRAINING_THREADS = 1
    PromptFactory(project=project, split="heldout")
    folder = make_policy(tmp_path / "my-model")
    client.force_login(grace)
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(
            reverse("own_model", args=[project.slug]), {"policy": str(folder)}, follow=True
        )
    assert "Queued: waiting for a worker" in text_of(answer)
    assert "gpu" in awake
    assert run_next_job("gpu", owner="hal").state == "done"
    round = Round.objects.get()
    assert (round.number, round.state, round.plan) == (0, "inspection", ["inspection", "evaluate"])
    assert Checkpoint.objects.current_policy(project) is None, "nobody has used it yet"
    body = text_of(page(client, "own_model", project.slug))
    assert "LlamaForCausalLM" in body
    assert "&lt;|user|&gt;How do I keep basil fresh for a week?&lt;|end|&gt;" in body
    assert "my-model is read" in text_of(page(client, "rounds", project.slug))
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(reverse("use_model", args=[project.slug]), follow=True)
    assert "my-model is being measured; the next round starts from it" in text_of(answer)
    round.refresh_from_db()
    assert (round.state, round.policy.path) == ("evaluate", str(folder))
    assert round.policy.n_parameters > 0
    again = client.post(reverse("use_model", args=[project.slug]), follow=True)
    assert "No model waits to be used" in text_of(again)
    assert Event.objects.filter(verb="took its own model for").count() == 1


def test_what_was_understood_is_on_the_page_and_hostile_text_is_text(client, project, grace):
    PromptFactory(project=project, split="heldout")
    read(project, grace)
    client.force_login(grace)
    body = text_of(page(client, "own_model", project.slug))
    for words in (
        "134.5 million",
        "8,192",
        "93.8",  # MB of files
        "513.1",  # MB in memory
        "Q4_1",
        "GGUF file",
        "&lt;|im_end|&gt;",
        "also stops at",
        "&lt;b&gt;How do I keep basil fresh?&lt;/b&gt;",
        "Its weights are stored as Q4_1.",
    ):
        assert words in body
    assert "<script>alert" not in body
    assert "Use this model" in body


def test_a_model_that_can_not_work_says_why_and_has_no_button(client, project, grace):
    reason = (
        "It is an encoder-decoder (bart), of which only T5's encoder can become the reward model."
    )
    round = read(project, grace, UNDERSTOOD | {"refusals": [reason]})
    client.force_login(grace)
    body = text_of(page(client, "own_model", project.slug))
    assert "encoder-decoder (bart)" in body
    assert "Use this model" not in body
    with pytest.raises(RoundError, match="only T5's encoder"):
        own_models.use_model(round, grace)
    assert Checkpoint.objects.current_policy(project) is None


def test_a_model_that_can_not_be_read_says_why_and_the_next_one_takes_its_place(
    client, project, grace, tmp_path
):
    broken = make_policy(tmp_path / "broken")
    (broken / "model.safetensors").unlink()
    own_models.inspect_model(project, grace, str(broken))
    assert run_next_job("gpu", owner="hal").state == "failed"
    client.force_login(grace)
    body = text_of(page(client, "own_model", project.slug))
    assert "has no *.safetensors file" in body
    assert str(broken) in body, "what was typed can be corrected"
    client.post(reverse("own_model", args=[project.slug]), {"policy": "org/other"})
    round = Round.objects.get()
    assert (round.number, round.state) == (0, "inspection")
    assert round.config["inspection"] == {"policy": "org/other"}


def test_a_later_model_has_a_round_of_its_own_and_the_next_round_starts_from_it(
    client, project, base, grace
):
    Round.objects.create(project=project, number=0, state="done", plan=["base"], policy=base)
    client.force_login(grace)
    body = text_of(page(client, "rounds", project.slug))
    assert "The next round starts from" in body
    assert f'">{base.name}</a>' in body
    assert "Change the model" in body
    round = read(project, grace)
    assert round.number == 1
    own_models.use_model(round, grace)
    round.refresh_from_db()
    assert round.state == "evaluate"
    job = round.jobs.get(stage="evaluate")
    type(job).objects.filter(pk=job.pk).update(state="done")
    job.refresh_from_db()
    rounds.advance(job)
    assert Checkpoint.objects.current_policy(project) == round.policy
    assert round.policy.root == round.policy


def test_a_model_that_is_not_wanted_is_dropped_and_named_anew(client, project, base, grace):
    Round.objects.create(project=project, number=0, state="done", plan=["base"], policy=base)
    read(project, grace)
    client.force_login(grace)
    client.post(reverse("drop_model", args=[project.slug]))
    assert Round.objects.get(number=1).state == "cancelled"
    assert Checkpoint.objects.current_policy(project) == base
    client.post(reverse("own_model", args=[project.slug]), {"policy": "org/another"})
    assert Round.objects.count() == 2
    client.post(reverse("own_model", args=[project.slug]), {"policy": "org/third"})
    round = Round.objects.get(number=1)
    assert (round.state, round.config["inspection"]["policy"]) == ("inspection", "org/third")


def test_while_a_round_runs_no_model_can_be_named(client, project, base, grace):
    Round.objects.create(project=project, number=1, state="ppo", plan=Round.FULL_PLAN)
    client.force_login(grace)
    body = text_of(page(client, "own_model", project.slug))
    assert "Round 1 is running" in body
    assert 'name="policy"' not in body
    answer = client.post(reverse("own_model", args=[project.slug]), {"policy": "org/model"})
    assert answer.status_code == 422
    assert "Round 1 is still in PPO" in text_of(answer)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("weights.bin", "is not a GGUF file"),
        ("", "Name a model folder"),
        ("nothing.gguf", "no GGUF"),
    ],
)
def test_what_is_no_model_is_refused_before_a_worker_is_asked(
    client, project, grace, tmp_path, name, reason
):
    if name.endswith(".bin"):
        (tmp_path / name).write_bytes(b"\x80\x02")
    client.force_login(grace)
    named = str(tmp_path / name) if name else ""
    answer = client.post(reverse("own_model", args=[project.slug]), {"policy": named})
    assert (answer.status_code, Round.objects.count()) == (422, 0)
    assert reason in text_of(answer)


def test_a_gguf_file_is_a_model_and_its_base_is_checked_before_each_launch(
    project, grace, tmp_path
):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    job = own_models.inspect_model(project, grace, str(file))
    assert job.round.config["inspection"] == {"policy": str(file)}
    refused = UNDERSTOOD | {"refusals": ["It can't become a reward model."]}
    policy = Checkpoint.objects.create(
        project=project, kind="policy", name="x", path="org/x", state="promoted",
        config={"understood": refused},
    )  # fmt: skip
    checks = {c.key: c for c in preflight(project, default_config(project))}
    assert (checks["policy"].verdict, checks["policy"].answer) == (
        "no-go",
        policy.understood["refusals"][0],
    )


def test_a_model_is_fine_tuned_on_what_people_wrote_before_the_first_round(
    client, project, grace, ada, awake, tmp_path, settings, django_capture_on_commit_callbacks
):
    settings.TRAINING_THREADS = 1
    PromptFactory(project=project, split="heldout")
    folder = make_policy(tmp_path / "my-model")
    round = read(project, grace, path=str(folder))
    client.force_login(grace)
    assert "Fine-tune it first" not in text_of(page(client, "own_model", project.slug))
    with pytest.raises(RoundError, match="nothing to fine-tune on"):
        own_models.use_model(round, grace, fine_tune=True)
    written = judged(project, by=ada)
    Judgment.objects.filter(pk=written.judgment.pk).update(rewrite="Owls eat mice.")
    assert "Fine-tune it first on the 1 answer" in text_of(page(client, "own_model", project.slug))
    with django_capture_on_commit_callbacks(execute=True):
        answer = client.post(
            reverse("use_model", args=[project.slug]), {"fine_tune": "on"}, follow=True
        )
    assert "SmolLM2 is being fine-tuned" in text_of(answer)
    job = run_next_job("gpu", owner="hal")
    assert (job.stage, job.state) == ("sft", "done"), job.reason
    round.refresh_from_db()
    assert (round.plan, round.state) == (["inspection", "sft", "evaluate"], "evaluate")
    assert round.policy.name == "SmolLM2, fine-tuned"
    assert round.policy.root == round.policy, "KL is measured against the fine-tuned model"
    assert str(job.run_dir) in round.policy.path
    assert round.policy.understood["architecture"] == "LlamaForCausalLM"
