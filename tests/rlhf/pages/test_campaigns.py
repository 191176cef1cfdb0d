"""Live dialogue, as an admin sets it up: policies are started, campaigns opened and closed."""

import re

import pytest
from django.urls import reverse

from annotation.models import DialogueCampaign
from annotation.protocols import PRESETS
from rlhf.models import PolicyServer

pytestmark = pytest.mark.django_db


def test_an_admin_opens_a_campaign_and_closes_it(client, grace, policy):
    client.force_login(grace)
    page = reverse("campaigns", args=["apollo"])
    form = {
        "name": "Kitchen talk",
        "kind": "helpful",
        "policies": [str(policy.uid)],
        "temperatures": "0.7, 1.2",
        "max_new_tokens": 64,
        "max_turns": 4,
        "licence": "CC0-1.0",
    }
    assert client.post(page, form).status_code == 422  # nobody signed it off
    assert client.post(page, {**form, "signed_off": "on", "temperatures": "9"}).status_code == 422
    assert DialogueCampaign.objects.count() == 0
    assert client.post(page, {**form, "signed_off": "on"}).status_code == 302
    campaign = DialogueCampaign.objects.get()
    assert campaign.writing == {
        "policies": [str(policy.uid)],
        "temperatures": [0.7, 1.2],
        "max_new_tokens": 64,
    }
    assert campaign.source.signed_off_by == grace
    assert b"Kitchen talk" in client.get(page).content
    client.post(reverse("close_campaign", args=["apollo", campaign.pk]))
    campaign.batch.refresh_from_db()
    assert campaign.batch.state == "closed"


def test_an_admin_says_what_is_asked_and_reads_what_cannot_be(client, grace, policy, project):
    client.force_login(grace)
    page = reverse("campaigns", args=["apollo"])
    form = {
        "name": "Kitchen talk",
        "kind": "helpful",
        "policies": [str(policy.uid)],
        "temperatures": "0.7",
        "max_new_tokens": 64,
        "max_turns": 4,
        "licence": "CC0-1.0",
        "signed_off": "on",
    }
    asks = re.findall(r'name="asks" value="([^"]*)"', client.get(page).content.decode())
    assert asks == ["hh-rlhf", "llama2-dialogue"]
    client.post(page, form | {"asks": "llama2-dialogue"})
    campaign = DialogueCampaign.objects.get()
    assert campaign.batch.effective_protocol == PRESETS["llama2-dialogue"].protocol
    assert client.post(page, form | {"asks": "llama2"}).status_code == 422
    # A project whose protocol has what a dialogue can't ask: told which part, and not asked without.
    project.interface, project.protocol = "pair", PRESETS["pair"].protocol.as_json()
    project.save()
    shown = client.get(page).content.decode()
    assert re.findall(r'name="asks" value="([^"]*)"', shown) == ["", "hh-rlhf", "llama2-dialogue"]
    refused = client.post(page, form | {"asks": ""})
    assert refused.status_code == 422
    reason = "A live dialogue can&#x27;t ask for flags on answers"
    assert reason in refused.content.decode()
    assert DialogueCampaign.objects.count() == 1
    project.protocol = PRESETS["safe-rlhf"].protocol.as_json()
    project.save()
    client.post(page, form | {"asks": ""})
    assert DialogueCampaign.objects.last().batch.effective_protocol == PRESETS["safe-rlhf"].protocol


def test_an_admin_starts_and_stops_a_policy_but_no_other_projects(client, grace, otto, policy):
    def is_wanted():
        return PolicyServer.objects.get(checkpoint=policy).is_wanted

    client.force_login(grace)
    client.post(reverse("start_policy", args=["apollo", policy.pk]))
    assert is_wanted()
    client.post(reverse("stop_policy", args=["apollo", policy.pk]))
    assert not is_wanted()
    client.force_login(otto)
    assert client.post(reverse("start_policy", args=["soyuz", policy.pk])).status_code == 404
    assert not is_wanted()
