"""A model on a hub is meant with its commit, where others could change what a name stands for."""

import json

import pytest

from rlhf.errors import RoundError
from rlhf.model_paths import model_path
from rlhf.training.language_models import hub_names, pretrained, weight_files
from rlhf.training.rundir.errors import InputError

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The hub client's cache with two revisions of lab/tiny, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for revision, width in ((OLD, 8), (NEW, 16)):
        folder = tmp_path / "models--lab--tiny" / "snapshots" / revision
        folder.mkdir(parents=True)
        config = {"model_type": "llama", "hidden_size": width, "num_attention_heads": 2}
        (folder / "config.json").write_text(json.dumps(config))
    refs = tmp_path / "models--lab--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(NEW)
    return tmp_path


def test_a_revision_is_read_and_not_what_is_there_now(cache):
    assert pretrained.load_config(f"lab/tiny@{OLD}", "policy").hidden_size == 8
    assert pretrained.load_config(f"lab/tiny@{NEW}", "policy").hidden_size == 16
    assert weight_files.describe(f"lab/tiny@{OLD}")["source"] == "hub"


def test_a_revision_that_is_not_here_says_how_to_fetch_it(cache):
    with pytest.raises(InputError, match="hf download lab/tiny --revision cccc"):
        pretrained.load_config(f"lab/tiny@{'c' * 40}", "policy")


@pytest.mark.parametrize(
    "name", ["lab/tiny@main", f"../tiny@{OLD}", f"lab/tiny@{OLD}/..", "@" + OLD]
)
def test_what_is_no_commit_is_no_pinned_name(name):
    assert hub_names.PINNED.fullmatch(name) is None
    assert hub_names.local_folder(name, "policy") == name


@pytest.mark.django_db
def test_where_workers_download_a_name_needs_its_revision(project, settings, tmp_path):
    assert model_path("lab/tiny", project) == "lab/tiny"  # offline: what the operator has put there
    settings.TRAINING_ENVIRONMENT = settings.TRAINING_ENVIRONMENT | {"HF_HUB_OFFLINE": "0"}
    with pytest.raises(RoundError, match="which revision of lab/tiny"):
        model_path("lab/tiny", project)
    assert model_path(f"lab/tiny@{OLD}", project) == f"lab/tiny@{OLD}"
    settings.HUB_MODELS = ["lab/tiny"]
    assert model_path("lab/tiny", project) == "lab/tiny"
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "lab/other"})
    )
    with pytest.raises(RoundError, match="lab/other"):
        model_path(str(folder), project)
