"""A round that trains reward models only."""

import pytest
from django.urls import reverse

from rlhf.models import Round
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_reward_models_alone_are_trained_from_chosen_batches(
    client, annotating, grace, awake, django_capture_on_commit_callbacks
):
    project = annotating.project
    Round.objects.filter(pk=annotating.pk).update(state="done")
    client.force_login(grace)
    assert "2 judgments" in text_of(page(client, "reward_round", project.slug))
    address = reverse("reward_round", args=[project.slug])
    assert "Choose at least one batch" in text_of(client.post(address))
    client.post(address, {"batches": [annotating.batch.pk]})
    newest = Round.objects.filter(project=project).order_by("-number").first()
    assert newest.plan == Round.REWARD_ONLY_PLAN
    assert newest.config["round"]["batches"] == [annotating.batch.pk]
