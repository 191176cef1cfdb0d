"""The REST API: who may ask, with what, and what they get."""

import io
import json
import zipfile
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone
from drf_spectacular.generators import SchemaGenerator

from annotation.api.pagination import LimitOffsetPagination
from annotation.data.snapshots import freeze_snapshot
from annotation.models import ApiToken, Event, Membership, Prompt
from annotation.tokens import create_token
from tests.factories import BatchFactory, ProjectFactory, PromptFactory, judged

pytestmark = pytest.mark.django_db

ROOT = "/api/v1/projects/"


@pytest.fixture
def ask(client):
    """ask(person, address, body): as a script does, with a token and no cookie."""

    def act(person, address, body=None, **headers):
        _, plain = create_token(person, name="script", days=30, scopes=ApiToken.Scope.values)
        headers = {"Authorization": f"Token {plain}", **headers}
        if body is None:
            return client.get(ROOT + address, headers=headers)
        return client.post(
            ROOT + address, json.dumps(body), content_type="application/json", headers=headers
        )

    return act


def test_projects_are_ones_own(ask, project, rita, otto):
    assert [p["slug"] for p in ask(rita, "").json()["results"]] == ["apollo"]
    assert [p["role"] for p in ask(rita, "").json()["results"]] == ["researcher"]
    assert [p["slug"] for p in ask(otto, "").json()["results"]] == ["soyuz"]


def test_a_stranger_is_401_and_a_member_of_another_team_404(client, ask, project, ada, otto):
    assert client.get(ROOT).status_code == 401
    judged(project, by=ada)
    freeze_snapshot(project, by=None)
    for address in (
        "apollo/prompts/", "apollo/judgments/", "apollo/agreement/", "apollo/snapshots/",
        "apollo/snapshots/1/", "apollo/snapshots/1/archive/", "apollo/snapshots/1/files/README.md",
    ):  # fmt: skip
        assert ask(otto, address).status_code == 404
        assert ask(ada, address).status_code == 404, "an annotator exports nothing"


def test_a_researcher_freezes_and_downloads(ask, project, ada, rita):
    judged(project, by=ada)
    made = ask(rita, "apollo/snapshots/", {"note": "for the paper"})
    assert made.status_code == 201
    assert made.json()["version"] == 1
    assert made.json()["counts"]["judgments"] == 1
    files = {file["name"]: file for file in made.json()["files"]}
    answer = ask(rita, "apollo/snapshots/1/files/preferences.jsonl")
    data = b"".join(answer.streaming_content)
    assert len(data) == files["preferences.jsonl"]["bytes"]
    assert answer["Content-Disposition"].startswith("attachment")
    assert "no-store" in answer["Cache-Control"]
    packed = b"".join(ask(rita, "apollo/snapshots/1/archive/").streaming_content)
    assert set(zipfile.ZipFile(io.BytesIO(packed)).namelist()) == set(files)
    assert ask(rita, "apollo/snapshots/1/files/..%2Fsecret").status_code == 404
    assert ask(rita, "apollo/snapshots/2/").status_code == 404


def test_freezing_nothing_is_409_with_a_sentence(ask, project, rita):
    refused = ask(rita, "apollo/snapshots/", {})
    assert refused.status_code == 409
    assert "no judgments yet" in refused.json()["detail"]


def test_a_batch_of_another_project_is_not_a_batch(ask, project, ada, rita):
    judged(project, by=ada)
    foreign = BatchFactory()
    assert ask(rita, "apollo/snapshots/", {"batches": [foreign.pk]}).status_code == 400
    assert ask(rita, f"apollo/judgments/?batch={foreign.pk}").status_code == 400
    assert ask(rita, "apollo/judgments/?batch=x").status_code == 400


def test_judgments_stream_as_json_lines(ask, project, ada, rita):
    judged(project, by=ada)
    answer = ask(rita, "apollo/judgments/")
    assert answer["Content-Type"] == "application/jsonl"
    [line] = b"".join(answer.streaming_content).splitlines()
    assert json.loads(line)["ranks"]["safety"] == [1, 2, 2, 3]


def test_agreement_is_told_with_its_reason(ask, project, ada, rita):
    judged(project, by=ada)
    figures = ask(rita, "apollo/agreement/").json()["helpfulness"]
    assert figures["alpha"] is None
    assert "two people" in figures["reason"]


def test_prompts_are_listed_and_filtered(ask, project, rita):
    PromptFactory(project=project, split="heldout")
    PromptFactory(project=project, split="train")
    assert ask(rita, "apollo/prompts/").json()["count"] == 2
    assert ask(rita, "apollo/prompts/?split=heldout").json()["count"] == 1


def test_a_page_of_a_list_ends_where_the_schema_says(ask, project, rita, monkeypatch):
    schema = SchemaGenerator().get_schema(request=None, public=True)
    told = schema["paths"]["/api/v1/projects/{slug}/prompts/"]["get"]["parameters"]
    [limit] = [one for one in told if one["name"] == "limit"]
    assert limit["schema"]["maximum"] == LimitOffsetPagination.max_limit
    assert "1,000" in limit["description"]
    monkeypatch.setattr(LimitOffsetPagination, "max_limit", 2)
    for _ in range(3):
        PromptFactory(project=project)
    first = ask(rita, "apollo/prompts/?limit=100000").json()
    assert first["count"] == 3
    assert len(first["results"]) == 2
    rest = ask(rita, "apollo/prompts/?" + first["next"].split("?")[1]).json()
    assert len(rest["results"]) == 1
    assert rest["next"] is None


def test_an_unknown_address_is_refused_in_json_and_says_where_the_known_ones_are(
    client, project, rita
):
    for address in (
        "/api/v1/nowhere/",
        "/api/v1/",
        "/api/v1/projects/apollo/nowhere",
        "/api/v1/\u00fc",
    ):
        for answer in (client.get(address), client.post(address, "{}", "application/json")):
            assert answer.status_code == 404
            assert answer["Content-Type"] == "application/json"
            assert "http://testserver/api/v1/schema/" in answer.json()["detail"]
    assert client.get("/api/v1/projects").status_code == 301, "a slash is still put where it lacks"
    page = client.get("/nowhere/")
    assert page.status_code == 404
    assert page["Content-Type"].startswith("text/html")


def test_an_admin_adds_prompts_all_or_none_and_a_researcher_none(ask, project, grace, rita):
    body = {"source": {"name": "Mine", "licence": "CC0"}, "rows": [{"prompt": "A?"}, {"no": 1}]}
    refused = ask(grace, "apollo/prompts/", body)
    assert refused.status_code == 422
    assert refused.json()["problems"] == [
        {"row": 2, "reason": refused.json()["problems"][0]["reason"]}
    ]
    assert not Prompt.objects.exists()
    body["rows"].pop()
    assert ask(rita, "apollo/prompts/", body).status_code == 404
    body["rows"][0]["note"] = "nobody reads it"
    report = ask(grace, "apollo/prompts/", body).json()
    assert (report["n_imported"], report["remarks"]) == (1, ["columns not read: note (1 row)"])
    assert not Prompt.objects.get().source.is_signed_off


# --- Tokens ------------------------------------------------------------------------------------------------


def test_a_token_is_stored_as_a_hash_and_remembers_its_use(ask, project, rita):
    ask(rita, "")
    token = ApiToken.objects.get()
    assert token.token_key.startswith("gc_")
    assert len(token.digest) == 128
    assert token.last_used_at is not None
    assert Event.objects.filter(verb="made API token", actor=rita).exists()


def test_an_expired_a_revoked_and_a_broken_token_are_401(client, project, rita):
    _, plain = create_token(rita, name="old", days=1, scopes=ApiToken.Scope.values)

    def status(value):
        return client.get(ROOT, headers={"Authorization": value}).status_code

    assert status(f"Token {plain}") == 200
    assert status(f"Token {plain}x") == 401
    assert status("Token") == 401
    assert status("Token \xff\xfe") == 401
    ApiToken.objects.update(expiry=timezone.now() - timedelta(days=1))
    assert status(f"Token {plain}") == 401


def test_the_token_of_a_person_who_left_opens_nothing(client, project, rita):
    _, plain = create_token(rita, name="x", days=1)
    rita.is_active = False
    rita.save()
    assert client.get(ROOT, headers={"Authorization": f"Token {plain}"}).status_code == 401


def test_a_session_without_a_csrf_token_writes_nothing(project, grace):
    from django.test import Client

    client = Client(enforce_csrf_checks=True)
    client.force_login(grace)
    answer = client.post(f"{ROOT}apollo/snapshots/", "{}", content_type="application/json")
    assert answer.status_code == 403


def test_exports_are_limited_per_minute(ask, project, ada, rita, monkeypatch):
    from annotation.api.throttles import ExportThrottle

    judged(project, by=ada)
    monkeypatch.setattr(ExportThrottle, "rate", "1/min", raising=False)
    assert ask(rita, "apollo/agreement/").status_code == 200
    limited = ask(rita, "apollo/agreement/")
    assert limited.status_code == 429
    assert int(limited["Retry-After"]) > 0


# --- Its description --------------------------------------------------------------------------------------------


def test_the_schema_has_no_warning(tmp_path):
    call_command(
        "spectacular", file=str(tmp_path / "schema.yaml"), validate=True, fail_on_warn=True
    )


def test_the_reference_page_names_every_endpoint(client, project, rita):
    client.force_login(rita)
    page = client.get("/api/v1/docs/").content.decode()
    for path in ("/api/v1/projects/{slug}/snapshots/{version}/archive/", "agreement.alpha_ci"):
        assert path.split(".")[-1] in page
    assert "unsafe-inline" not in client.get("/api/v1/docs/")["Content-Security-Policy"]


def test_a_program_that_judges_too_fast_is_told_when_it_may_go_on(
    ask, project, ada, ben, monkeypatch
):
    from annotation.api.throttles import JudgingThrottle

    monkeypatch.setattr(JudgingThrottle, "rate", "2/min", raising=False)
    monkeypatch.setattr(JudgingThrottle, "request_times", {})
    answers = [ask(ada, "apollo/judging/next/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [204, 204, 429]
    assert 0 < int(answers[-1]["Retry-After"]) <= 60
    assert ask(ben, "apollo/judging/next/").status_code == 204, "each person has their own count"


def test_what_no_database_has_is_refused_with_a_sentence(ask, project, rita):
    huge = ask(rita, "apollo/snapshots/", {"batches": [10**30]})
    assert huge.status_code == 400
    assert ask(rita, "apollo/prompts/?split=%00").status_code == 400
    assert ask(rita, "apollo/prompts/?split=train").status_code == 200


def test_ten_projects_cost_no_more_questions_than_one(
    client, project, rita, django_assert_max_num_queries
):
    for _ in range(10):
        Membership.objects.create(project=ProjectFactory(), user=rita, role="annotator")
    _, plain = create_token(rita, name="script", days=30, scopes=ApiToken.Scope.values)
    with django_assert_max_num_queries(5):
        found = client.get(ROOT, headers={"Authorization": f"Token {plain}"}).json()["results"]
    assert sorted({one["role"] for one in found}) == ["annotator", "researcher"]
