"""The API's responses match its schema: every operation, valid and invalid input, every role.

A program is written against the schema, so a field that may be null without saying so breaks it.
"""

import json
import uuid

import pytest
from django.db import connection
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft7Validator, FormatChecker

from annotation.models import ApiToken, Judgment
from annotation.tokens import create_token
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, judged
from tests.rlhf.factories import flight

pytestmark = pytest.mark.django_db

METHODS = ("get", "post", "put", "patch", "delete")
SOURCE = {"name": "Logs", "licence": "CC0-1.0", "url": "https://example.org/"}
# The schema's default response covers these for every operation; a server error is never right.
REFUSED = {401, 403, 404, 405, 413, 415, 429}
# Bodies that are no object, lack every field, or have each field in a wrong form.
BAD = ([], "text", None, {}, {"key": 1, "rows": {}, "scores": 1, "config": 1, "reason": []})


def strict(part):
    """OpenAPI 3.0 as JSON Schema, where an object has the fields that are named and no others."""
    if isinstance(part, list):
        return [strict(item) for item in part]
    if not isinstance(part, dict):
        return part
    made = {name: strict(value) for name, value in part.items() if name != "nullable"}
    if "$ref" in made:
        made["$ref"] = made["$ref"].replace("#/components/schemas/", "#/definitions/")
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    return {"anyOf": [made, {"type": "null"}]} if part.get("nullable") is True else made


@pytest.fixture(scope="module")
def schema():
    return SchemaGenerator().get_schema(request=None, public=True)


@pytest.fixture
def misfits(schema):
    """misfits(operation, answer): where the answer does not match the schema."""
    parts = strict(schema["components"]["schemas"])

    def act(operation, answer):
        responses = operation["responses"]
        code = str(answer.status_code)
        if code not in responses and answer.status_code in REFUSED:
            code = "default"
        if code not in responses:
            return [f"{answer.status_code} is not in the schema"]
        kinds = responses[code].get("content", {})
        kind = answer.get("Content-Type", "").split(";")[0]
        if not kinds:
            return [f"{code} has a body"] if answer.content else []
        if "*/*" in kinds:
            return []
        if kind not in kinds:
            return [f"{code} is {kind}, not {list(kinds)}"]
        if kind != "application/json":
            return []
        validator = Draft7Validator(
            strict(kinds[kind]["schema"]) | {"definitions": parts}, format_checker=FormatChecker()
        )
        errors = validator.iter_errors(answer.json())
        return [f"{code} {error.json_path}: {error.message[:300]}" for error in errors]

    return act


@pytest.fixture
def things(project, ada, grace):
    """A project in mid-flight with something at every address."""
    rows = flight(project, grace)
    judged(project, by=ada)
    batch = BatchFactory(project=project, priority=9)
    for _ in range(3):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    return {
        "slug": project.slug,
        "id": batch.pk,
        "username": ada.username,
        "number": 2,
        "version": 1,
        "other": 1,
        "name": "README.md",
        "form": "croissant",
        "uid": rows["running"].uid,
    }


@pytest.fixture
def ask(client, things, schema):
    """ask(person, operation id, body): with a token and no cookie, or with none at all."""
    operations = {
        operation["operationId"]: (method, path, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    tokens = {}

    def act(person, name, body=None, query="", **changed):
        method, path, operation = operations[name]
        headers = {}
        if person is not None:
            if person.pk not in tokens:
                _, tokens[person.pk] = create_token(
                    person, name="script", days=30, scopes=ApiToken.Scope.values
                )
            headers["Authorization"] = f"Token {tokens[person.pk]}"
        answer = getattr(client, method)(
            path.format(**things | changed) + query,
            **({} if method == "get" else {"data": json.dumps(body)}),
            content_type="application/json",
            headers=headers,
        )
        return operation, answer

    act.operations = operations
    return act


@pytest.fixture
def look(ask, misfits):
    """look(person, operation id, body): the answer, which must be as the schema says."""

    def act(person, name, *body, **where):
        operation, answer = ask(person, name, *body, **where)
        assert misfits(operation, answer) == [], (name, body, where)
        return answer

    return act


# --- What is refused -----------------------------------------------------------------------------------------


def test_every_operation_answers_every_role_and_every_bad_body_as_the_schema_says(
    ask, misfits, ada, vera, rita, grace, otto
):
    wrong = {}
    for name in ask.operations:
        for person in (None, ada, vera, rita, otto):
            operation, answer = ask(person, name, {})
            wrong |= {(name, problem): person for problem in misfits(operation, answer)}
            assert (answer.status_code == 401) is (person is None), name
        for body in BAD:
            wrong |= {(name, problem): body for problem in misfits(*ask(grace, name, body))}
    assert wrong == {}


def test_a_server_error_is_json_without_details(ask, grace, client):
    client.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE annotation_prompt RENAME TO lost")
    _, answer = ask(grace, "prompts_list")
    assert answer.status_code == 500
    assert answer["Content-Type"] == "application/json"
    assert "Something went wrong on the server" in answer.json()["detail"]
    assert "annotation_prompt" not in answer.json()["detail"]
    client.force_login(grace)
    page = client.get("/projects/apollo/prompts/")
    assert page.status_code == 500
    assert page["Content-Type"].startswith("text/html")


def test_a_zero_byte_in_an_address_reaches_no_database(client, project, grace):
    client.force_login(grace)
    for address in (
        "/api/v1/projects/apollo/assignment/people/%00/",
        "/api/v1/projects/apollo/scores/?metric=a%00b",
    ):
        answer = client.get(address)
        assert answer.status_code == 400
        assert "can't read" in answer.json()["detail"]
    assert client.get("/projects/apollo/prompts/?q=%00")["Content-Type"].startswith("text/html")


# --- What is answered ----------------------------------------------------------------------------------------


def test_judging_answers_as_the_schema_says(look, project, ada):
    ranks = {axis: dict(zip("ABCD", (1, 2, 3, 4), strict=True)) for axis in project.axis_keys}
    key = str(uuid.uuid4())
    uid = look(ada, "projects_judging_next_retrieve").json()["uid"]
    for body in BAD:
        for act in ("draft_update", "submit_create", "skip_create"):
            assert look(ada, f"projects_judging_{act}", body, uid=uid).status_code in (
                200,
                400,
                422,
            )
    for name, body, code in (
        ("draft_update", {"reason": "Because"}, 200),
        ("renew_create", None, 200),
        ("submit_create", {"key": key}, 422),
        ("submit_create", {"key": key, "ranks": ranks}, 200),
        ("submit_create", {"key": key, "ranks": ranks}, 200),
        ("submit_create", {"key": key, "ranks": ranks, "reason": "Another"}, 409),
    ):
        answer = look(ada, f"projects_judging_{name}", body, uid=uid)
        assert answer.status_code == code, (name, answer.content)
    assert look(ada, "projects_judging_undo_create").json()["draft"]["ranks"] == ranks
    key = str(uuid.uuid4())
    look(ada, "projects_judging_submit_create", {"key": key, "ranks": ranks}, uid=uid)
    for act, body in (("skip_create", {"reason": "offensive"}), ("release_create", None)):
        uid = look(ada, "projects_judging_next_create").json()["uid"]
        assert look(ada, f"projects_judging_{act}", body, uid=uid).status_code == 204


def test_data_is_answered_as_the_schema_says(look, things, ada, ben, rita, grace):
    here = Judgment.objects.get(assignment__annotator=ada).assignment.comparison
    judged(here.batch.project, by=ben, comparison=here)
    exports = ("judgments_export", "ratings_export", "demonstrations_export")
    for query, code in (("", 200), ("?batch=x", 400), ("?batch=99999", 400)):
        for name in ("agreement_retrieve", *exports):
            assert look(rita, name, query=query).status_code == code, (name, query)
    for name, query, code in (
        ("agreement_retrieve", "?by=category", 200),
        ("agreement_retrieve", "?by=annotator", 200),
        ("agreement_retrieve", "?by=x", 400),
        ("quality_list", "", 200),
        ("quality_votes", "", 200),
        ("prompts_list", "?limit=1", 200),
        ("prompts_list", "?split=x", 400),
        ("projects_scores_list", "?round=x", 400),
        ("projects_scores_list", f"?round={10**40}", 200),
        ("projects_scores_list", "?judge=model&round=1&temperature=0.3", 200),
        ("projects_jobs_metrics_retrieve", "?epoch=1&after=3", 200),
        ("projects_jobs_metrics_retrieve", "?epoch=x", 400),
    ):
        assert look(rita, name, query=query).status_code == code, (name, query)
    for body, code in (({"note": "x"}, 201), ({"batches": [99999]}, 400), ({"batches": []}, 409)):
        assert look(rita, "snapshots_create", body).status_code == code
    version = look(rita, "snapshots_list").json()["results"][0]["version"]
    for name in ("retrieve", "archive", "file"):
        assert look(rita, f"snapshots_{name}", version=version).status_code == 200
    for rows, code in (([{"prompt": "A?"}], 201), ([{"prmpt": "A?"}], 422), ([3], 400)):
        answer = look(grace, "prompts_create", {"source": SOURCE, "rows": rows})
        assert answer.status_code == code


def test_a_batch_of_a_program_is_answered_as_the_schema_says(look, grace, rita):
    new = {"key": str(uuid.uuid4()), "name": "Winter", "source": SOURCE, "sign_off": True}
    pk = look(grace, "batches_create", new).json()["id"]
    assert look(grace, "batches_create", new).status_code == 200
    assert look(grace, "batches_create", new | {"name": "Summer"}).status_code == 409
    rows = {"key": str(uuid.uuid4()), "rows": [{"prompt": "One?", "responses": list("abcd")}]}
    misfit = {"key": str(uuid.uuid4()), "rows": [{"prompt": "One?"}]}
    for name, body, code in (
        ("open", None, 409),
        ("add", rows, 201),
        ("add", rows, 200),
        ("add", rows | {"rows": []}, 400),
        ("add", misfit, 422),
        ("open", None, 200),
        ("close", None, 200),
        ("add", rows | {"key": str(uuid.uuid4())}, 409),
    ):
        assert look(grace, f"batches_{name}", body, id=pk).status_code == code, (name, body)
    assert look(rita, "batches_list").json()["count"] > 1
    assert look(rita, "batches_retrieve", id=pk).json()["state"] == "closed"


def test_who_gets_what_is_answered_as_the_schema_says(look, things, grace):
    scores = [{"prompt": str(uuid.uuid4()), "score": 1}]
    for name, body, code in (
        ("retrieve", None, 200),
        ("update", {"random_share": 0.5, "daily_limit": None, "total_limit": 4}, 200),
        ("update", {"random_share": 7}, 422),
        ("update", {"daily_limit": 10**30}, 422),
        ("update", {"random_share": "x"}, 400),
        ("person_retrieve", None, 200),
        ("person_update", {"skills": ["law"], "campaign": "x", "daily_limit": 3}, 200),
        ("person_update", {"campaign": "x" * 500}, 422),
        ("batch_retrieve", None, 200),
        ("batch_update", {"priority": 3, "campaign": "", "skill": ""}, 200),
        ("batch_update", {"priority": 10**20}, 422),
        ("scores", {"scores": scores}, 200),
        ("scores", {"scores": [{"prompt": "x", "score": "nan"}]}, 400),
    ):
        assert look(grace, f"assignment_{name}", body).status_code == code, (name, body)


def test_rounds_and_jobs_are_answered_as_the_schema_says(look, things, rita, grace):
    for body in ({}, {"config": {"ppo": 3}}, {"config": {"nothing": {}}}, {"acknowledged": ["x"]}):
        assert look(grace, "projects_rounds_create", body).status_code == 409
    for name, where, code in (
        ("jobs_cancel", {}, 200),
        ("jobs_cancel", {"uid": "x"}, 404),
        ("rounds_cancel", {"number": 3}, 200),
        ("rounds_retry", {"number": 3}, 200),
        ("rounds_retry", {"number": 1}, 409),
    ):
        answer = look(grace, f"projects_{name}_create", **where)
        assert answer.status_code == code, (name, where, answer.content)
    for name in ("list", "rounds_list", "rounds_retrieve", "jobs_list", "jobs_retrieve"):
        assert look(rita, f"projects_{name}").status_code == 200
