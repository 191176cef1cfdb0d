"""Assignment, as an admin sets it: on the page and over the API."""

import json

import pytest

from annotation.judge.assignment import next_assignment
from annotation.models import ApiToken, Assignment, Batch, Event, Membership
from annotation.tokens import create_token
from tests.factories import BatchFactory, ComparisonFactory

pytestmark = pytest.mark.django_db

PAGE = "/projects/apollo/assignment/"
API = "/api/v1/projects/apollo/assignment/"


@pytest.fixture
def put(client):
    """put(person, address, body): as a script does, with a token."""

    def act(person, address, body):
        _, plain = create_token(person, name="script", days=1, scopes=ApiToken.Scope.values)
        return client.put(
            API + address,
            json.dumps(body),
            content_type="application/json",
            headers={"Authorization": f"Token {plain}"},
        )

    return act


def fields(form_prefix, **given):
    return {f"{form_prefix}-{name}": value for name, value in given.items()}


def test_an_admin_sets_the_rules_and_it_is_noted_who_did(client, project, grace):
    client.force_login(grace)
    given = {"act": "rules", "daily_limit": "40", "total_limit": "", "random_share": "0.25"}
    assert client.post(PAGE, given).status_code == 302
    project.refresh_from_db()
    assert (project.daily_limit, project.total_limit, project.random_share) == (40, None, 0.25)
    noted = Event.objects.get(verb="changed assignment")
    assert noted.actor == grace
    assert noted.data == {"daily_limit": 40, "random_share": 0.25}
    client.post(PAGE, given)
    assert Event.objects.filter(verb="changed assignment").count() == 1, "nothing was changed"


@pytest.mark.parametrize(
    ("name", "value"), [("random_share", "1.5"), ("random_share", "no"), ("daily_limit", "-1")]
)
def test_a_rule_that_makes_no_sense_changes_nothing(client, project, grace, name, value):
    client.force_login(grace)
    given = {"act": "rules", "daily_limit": "5", "random_share": "0.5", name: value}
    answer = client.post(PAGE, given)
    assert answer.status_code == 422
    project.refresh_from_db()
    assert (project.daily_limit, project.random_share) == (None, 0.1)


def test_people_get_skills_a_campaign_and_limits_of_their_own(client, project, ada, ben, grace):
    client.force_login(grace)
    one, two = (Membership.objects.get(user=person) for person in (ada, ben))
    given = {
        "act": "people",
        **fields(f"person-{one.pk}", skills="DE, python,, de", campaign="red team"),
        **fields(f"person-{two.pk}", skills="", campaign="", daily_limit="3"),
        **fields(f"person-{Membership.objects.get(user=grace).pk}", skills=""),
    }
    assert client.post(PAGE, given).status_code == 302
    one.refresh_from_db()
    two.refresh_from_db()
    assert (one.skills, one.campaign) == (["de", "python"], "red team")
    assert (two.skills, two.daily_limit) == ([], 3)
    page = client.get(PAGE).content.decode()
    assert 'value="de, python"' in page


def test_one_fault_among_many_people_saves_none_of_them(client, project, ada, ben, grace):
    client.force_login(grace)
    one, two = (Membership.objects.get(user=person) for person in (ada, ben))
    given = {
        "act": "people",
        **fields(f"person-{one.pk}", skills="de"),
        **fields(f"person-{two.pk}", skills="x" * 41),
        **fields(f"person-{Membership.objects.get(user=grace).pk}", skills=""),
    }
    answer = client.post(PAGE, given)
    assert answer.status_code == 422
    assert "at most 40 characters" in answer.content.decode()
    one.refresh_from_db()
    assert one.skills == []


def test_batches_get_their_order_from_the_page(client, project, ada, grace):
    first = ComparisonFactory(batch=BatchFactory(project=project)).batch
    urgent = ComparisonFactory(batch=BatchFactory(project=project)).batch
    closed = BatchFactory(project=project, state=Batch.State.CLOSED)
    client.force_login(grace)
    assert f"batch-{closed.pk}-" not in client.get(PAGE).content.decode()
    given = {
        "act": "batches",
        **fields(f"batch-{first.pk}", priority="0", campaign="", skill=""),
        **fields(f"batch-{urgent.pk}", priority="5", campaign="safety", skill=" DE "),
    }
    assert client.post(PAGE, given).status_code == 302
    urgent.refresh_from_db()
    assert (urgent.priority, urgent.campaign, urgent.skill) == (5, "safety", "de")
    assert next_assignment(ada, project).comparison.batch == first, "ada does not know it"
    Membership.objects.filter(user=ada).update(skills=["de"])
    Assignment.objects.all().update(state=Assignment.State.JUDGED)
    assert next_assignment(ada, project).comparison.batch == urgent


def test_the_api_reads_and_sets_the_same(client, put, project, ada, grace):
    batch = BatchFactory(project=project)
    said = put(grace, "", {"daily_limit": 7}).json()
    assert said == {"daily_limit": 7, "total_limit": None, "random_share": 0.1}
    said = put(grace, "people/ada/", {"skills": ["De", "sql"], "total_limit": 9}).json()
    assert said == {
        "skills": ["de", "sql"], "campaign": "", "daily_limit": None, "total_limit": 9,
    }  # fmt: skip
    said = put(grace, f"batches/{batch.pk}/", {"priority": 2, "campaign": "safety"}).json()
    assert said == {"priority": 2, "campaign": "safety", "skill": ""}
    assert put(grace, "people/nobody/", {}).status_code == 404
    assert put(grace, "", {"random_share": 2}).status_code == 422
    assert put(grace, "", {"daily_limit": None}).json()["daily_limit"] is None


def test_an_engine_scores_comparisons_by_prompt(put, project, ada, grace):
    batch = BatchFactory(project=project)
    low, high = (ComparisonFactory(batch=batch, shuffle=s) for s in (0.1, 0.9))
    rows = [
        {"prompt": str(low.prompt.uid), "score": 0.2},
        {"prompt": str(high.prompt.uid), "score": 0.8},
        {"prompt": "00000000-0000-0000-0000-000000000000", "score": 1},
    ]
    said = put(grace, f"batches/{batch.pk}/scores/", {"scores": rows, "recency": 0.5})
    assert said.json() == {"scored": 2, "unknown": 1}
    high.refresh_from_db()
    assert high.score == 0.4
    project.random_share = 0.0
    assert next_assignment(ada, project).comparison == high
    rows = [{"prompt": str(low.prompt.uid), "score": -1}]
    assert put(grace, f"batches/{batch.pk}/scores/", {"scores": rows}).status_code == 400


def test_only_admins_say_who_gets_what(client, put, project, ada, vera, rita, otto):
    batch = BatchFactory(project=project)
    for person in (ada, vera, rita, otto):
        for address in ("", "people/ada/", f"batches/{batch.pk}/", f"batches/{batch.pk}/scores/"):
            assert put(person, address, {"scores": []}).status_code == 404
        client.force_login(person)
        assert client.get(PAGE).status_code == 404
        assert client.post(PAGE, {"act": "rules", "random_share": "1"}).status_code == 404


def test_batches_of_another_project_are_out_of_reach(put, project, grace, otto):
    elsewhere = BatchFactory(project=otto.memberships.get().project)
    assert put(grace, f"batches/{elsewhere.pk}/", {"priority": 9}).status_code == 404
    assert put(grace, f"batches/{elsewhere.pk}/scores/", {"scores": []}).status_code == 404


def test_who_has_reached_their_limit_is_told_so(client, project, ada):
    batch = BatchFactory(project=project)
    for _ in range(2):
        ComparisonFactory(batch=batch)
    project.daily_limit = 1
    project.save()
    current = next_assignment(ada, project)
    Assignment.objects.filter(pk=current.pk).update(state=Assignment.State.JUDGED)
    client.force_login(ada)
    page = client.get("/projects/apollo/judge/").content.decode()
    assert "You have reached the limit of 1 comparison a day" in page
