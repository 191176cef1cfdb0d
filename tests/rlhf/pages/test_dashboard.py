"""The dashboard's page and its files."""

import re

import pytest
from django.urls import reverse

from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_the_dashboard_says_the_finding_and_links_every_number_to_its_answers(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "dashboard", project.slug))
    assert "Safety rose in round 2; no clear change in helpfulness" in body
    assert 'class="badge simulated"' in body
    assert "target region" in body
    samples = reverse("samples", args=[project.slug, 2])
    assert f'href="{samples}?temperature=1.0&amp;axis=safety"' in body
    assert page(client, "samples", project.slug, 2, temperature="1.0").status_code == 200


def test_judge_and_temperature_are_in_the_address(client, mission, project, rita):
    client.force_login(rita)
    body = text_of(page(client, "dashboard", project.slug, judge="model", temperature="0.3"))
    assert "own scale" in body
    assert re.search(r'judge=model&amp;temperature=0\.3" aria-current="true"', body)


def test_an_empty_dashboard_teaches(client, project, rita):
    client.force_login(rita)
    assert "Nothing is measured yet" in text_of(page(client, "dashboard", project.slug))


def test_each_panel_can_be_taken_away_as_csv(client, mission, project, rita):
    client.force_login(rita)
    answer = page(client, "panel_csv", project.slug, "win_rates", judge="gold")
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    assert answer.content.decode().splitlines()[2].startswith("R2,0.86,")
    assert page(client, "panel_csv", project.slug, "nonsense").status_code == 404
