"""The models' page: lineage, measurements and rolling a promotion back."""

import pytest
from django.urls import reverse

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
    assert f'<a href="#model-{mission["policies"][1].uid}">round-1</a>' in body
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


def test_the_only_promoted_policy_stays(client, ready, grace):
    only = Checkpoint.objects.current_policy(ready)
    with pytest.raises(RoundError, match="the only one"):
        rounds.retire_policy(only, "Away with it.", grace)
    client.force_login(grace)
    assert "Roll back" not in text_of(page(client, "models", ready.slug))


def test_a_project_without_models_says_where_the_first_comes_from(client, project, rita):
    client.force_login(rita)
    assert "No model yet" in text_of(page(client, "models", project.slug))
