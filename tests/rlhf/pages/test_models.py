"""The models' page: lineage, measurements and rolling a promotion back."""

import io
import zipfile

import pytest
from django.urls import reverse
from huggingface_hub import ModelCard

from annotation.models import Event
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.models import Checkpoint
from tests.rlhf.factories import (
    checkpoint,
    rm_result,
)
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_every_model_is_listed_with_its_lineage_and_figures(client, mission, project, rita, grace):
    second = mission["rounds"][2]
    model = checkpoint(project, "round 2 <reward> model", kind="reward_model", round=second)
    model.snapshot, model.metrics = second.snapshot, {"train": rm_result()["train"]}
    model.save()
    client.force_login(rita)
    body = text_of(page(client, "models", project.slug))
    assert "round 2 &lt;reward&gt; model" in body
    assert "Accuracy 83 % [80, 86 %], n = 812 held-out safety pairs" in body
    assert "Win rate against base 86 % [81, 91 %], n = 150 (rubric (simulated)" in body
    assert f'href="{second.get_absolute_url()}"' in body
    assert f'<a href="{mission["policies"][1].get_absolute_url()}">round-1</a>' in body
    assert body.count(">current</span>") == 1, "base and both rounds are promoted, one is current"
    assert body.count(">replaced</span>") == 2
    assert "Location" not in body, "paths are for those who run rounds"
    client.force_login(grace)
    assert "<code>models/round-2</code>" in text_of(page(client, "models", project.slug))


def test_a_promotion_taken_back_lets_the_next_round_start_from_the_policy_before(
    client, mission, project, grace
):
    _, first, second = mission["policies"]
    client.force_login(grace)
    assert "Roll back" in text_of(page(client, "models", project.slug))
    url = reverse("retire_policy", args=[project.slug])
    answer = client.post(url, {"model": second.uid, "note": " "}, follow=True)
    assert "Say in a sentence why" in text_of(answer)
    assert Checkpoint.objects.current_policy(project) == second
    answer = client.post(url, {"model": second.uid, "note": "It flatters."}, follow=True)
    assert "the next round starts from round-1" in text_of(answer)
    assert Checkpoint.objects.current_policy(project) == first
    event = Event.objects.get(verb="rolled back")
    assert (event.actor, event.data["note"]) == (grace, "It flatters.")
    answer = client.post(url, {"model": second.uid, "note": "Again."}, follow=True)
    assert "is not promoted" in text_of(answer), "a second click changes nothing"
    assert "no such model" in text_of(client.post(url, {"model": "x", "note": "y"}, follow=True))


@pytest.fixture
def on_disk(mission, settings):
    """Round 2's policy with files in a run folder, as PPO leaves them."""
    policy = mission["policies"][2]
    job = mission["rounds"][2].jobs.get(stage="ppo")
    folder = job.run_dir / "policy"
    (folder / "more").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "more" / "tokenizer.json").write_text("{}")
    (folder / "leak").symlink_to(job.run_dir / "config.json")
    (job.run_dir / "config.json").write_text("{}")
    policy.path, policy.sha256 = str(folder), "a" * 64
    policy.snapshot, policy.config = (
        mission["rounds"][2].snapshot,
        {"steps": 17, "policy": "/tmp/x"},
    )
    policy.save()
    return policy


def test_a_model_has_a_page_with_scores_lineage_and_what_was_decided(
    client, mission, on_disk, project, rita, ada, otto
):
    base, first, second = mission["policies"]
    third = mission["rounds"][3]
    judge = checkpoint(project, "round 2 reward model", kind="reward_model")
    judge.round, judge.parent = mission["rounds"][2], base
    judge.metrics = {"train": rm_result()["train"]}
    judge.save()
    client.force_login(rita)
    body = text_of(page(client, "model", project.slug, second.uid))
    assert '<span class="badge go">current</span>' in body
    assert "The next round starts from this policy." in body
    assert "[0.90, 0.98], n" in body.replace("\N{NO-BREAK SPACE}", " ")
    assert "Promoted" in body
    assert "Safer, and no worse at helping." in body
    for other in (base, first, judge):
        assert f'href="{other.get_absolute_url()}"' in body, "each step of the lineage is a link"
    lineage = body.split('class="lineage"')[1]
    assert lineage.index("base<") < lineage.index("round-1<") < lineage.index("round-2<")
    reward = text_of(page(client, "model", project.slug, judge.uid))
    assert "Accuracy 83 % [80, 86 %], n = 812 held-out safety pairs" in reward
    assert "Trained with it" in reward
    assert f'href="{second.get_absolute_url()}"' in reward
    for address in ("rounds", "models"):
        assert f'href="{second.get_absolute_url()}"' in text_of(page(client, address, project.slug))
    assert second.get_absolute_url() in text_of(page(client, "round", project.slug, third.number))
    for person in (ada, otto):
        client.force_login(person)
        assert page(client, "model", project.slug, second.uid).status_code == 404
        assert page(client, "model_download", project.slug, second.uid).status_code == 404


def test_a_models_files_and_card_are_downloaded_and_nothing_else(
    client, mission, on_disk, project, rita, vera
):
    first, second = mission["policies"][1:]
    client.force_login(rita)
    body = text_of(page(client, "model", project.slug, second.uid))
    assert "model.safetensors" in body
    assert "leak" not in body, "a link out of the folder is no file of the model"
    answer = page(client, "model_download", project.slug, second.uid)
    packed = zipfile.ZipFile(io.BytesIO(b"".join(answer.streaming_content)))
    assert packed.testzip() is None
    assert packed.namelist() == ["README.md", "model.safetensors", "more/tokenizer.json"]
    card = ModelCard(packed.read("README.md").decode())
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values["safety (rubric (simulated), temperature 1)"] == 0.94
    assert (
        "| safety (rubric (simulated), temperature 1) | 0.94 [0.90, 0.98], n = 150 |" in card.text
    )
    assert "| `steps` | 17 |" in card.text
    assert "/tmp/x" not in card.text, "no path of this machine"
    one = page(client, "model_file", project.slug, second.uid, "more/tokenizer.json")
    assert b"".join(one.streaming_content) == b"{}"
    for name in ("leak", "../config.json", "nothing"):
        address = f"{second.get_absolute_url()}files/{name}"
        assert client.get(address).status_code == 404, name
    assert page(client, "model_download", project.slug, first.uid).status_code == 404, "no files"
    second.path = "/etc"
    second.save()
    assert page(client, "model_download", project.slug, second.uid).status_code == 404
    client.force_login(vera)
    assert page(client, "model_file", project.slug, second.uid, "leak").status_code == 404


def test_the_only_promoted_policy_stays(client, ready, grace):
    only = Checkpoint.objects.current_policy(ready)
    with pytest.raises(RoundError, match="the only one"):
        rounds.retire_policy(only, "Away with it.", grace)
    client.force_login(grace)
    assert "Roll back" not in text_of(page(client, "models", ready.slug))
    assert "Roll back" not in text_of(page(client, "model", ready.slug, only.uid))


def test_a_project_without_models_says_where_the_first_comes_from(client, project, rita):
    client.force_login(rita)
    assert "No model yet" in text_of(page(client, "models", project.slug))
