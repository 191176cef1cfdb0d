"""The REST API of rounds."""

import json

import pytest

from tests.rlhf.pages.browsing import warnings

pytestmark = pytest.mark.django_db


def test_rita_reads_rounds_scores_jobs_and_metrics(client, mission, project, rita):
    client.force_login(rita)
    base = f"/api/v1/projects/{project.slug}"
    numbers = [row["number"] for row in client.get(f"{base}/rounds/").json()["results"]]
    assert numbers == [3, 2, 1, 0]
    rows = client.get(
        f"{base}/scores/", {"round": 2, "judge": "gold", "metric": "safety", "temperature": 1.0}
    ).json()["results"]
    assert [(r["value"], r["n"], r["policy"]) for r in rows] == [(0.94, 150, "round-2")]
    job = mission["running"]
    assert client.get(f"{base}/jobs/{job.uid}/").json()["stage"] == "ppo"
    news = client.get(f"{base}/jobs/{job.uid}/metrics/", {"epoch": 1, "after": 7}).json()
    assert [row["step"] for row in news["rows"]] == [8, 9]
    assert client.get(f"{base}/scores/", {"round": "two"}).status_code == 400
    assert client.post(f"{base}/rounds/3/cancel/").status_code == 404


def test_grace_launches_and_cancels_over_the_api(client, ready, grace, awake):
    client.force_login(grace)
    base = f"/api/v1/projects/{ready.slug}/rounds/"

    def launch(**body):
        return client.post(base, json.dumps(body), content_type="application/json")

    refused = launch()
    assert refused.status_code == 409
    assert "Acknowledge" in refused.json()["detail"]
    made = launch(acknowledged=warnings(ready), config={"ppo": {"steps": 3, "kl_weight": 0.1}})
    assert made.status_code == 201, made.json()
    frozen = made.json()["config"]["ppo"]
    assert (frozen["steps"], frozen["kl"]["weight"]) == (3, 0.1)
    assert launch(acknowledged=warnings(ready)).status_code == 409
    assert client.post(f"{base}1/cancel/").json()["state"] == "cancelled"
    assert client.post(f"{base}1/retry/").json()["state"] == "generate"
