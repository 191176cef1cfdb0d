"""A body that is too large, or a stranger's file, is refused before it is read."""

from io import BytesIO

import pytest
from django.test import Client

from config import body_limits

pytestmark = pytest.mark.django_db


class Unread(BytesIO):
    """A body that fails the test when it is read."""

    def read(self, *args):
        pytest.fail("the body was read")


def send(client, address, size, content_type="application/json"):
    return client.generic(
        "POST",
        address,
        b"",
        content_type=content_type,
        CONTENT_LENGTH=str(size),
        **{"wsgi.input": Unread()},
    )


@pytest.mark.parametrize(
    ("address", "size"),
    [
        ("/api/v1/projects/apollo/judging/next/", 513 * 2**10),
        ("/api/v1/projects/apollo/batches/", 600 * 2**10),
        ("/api/v1/projects/apollo/prompts/", 21 * 2**20),
        ("/accounts/login/", 2 * 2**20),
        ("/projects/apollo/settings/", 2 * 2**20),
        ("/nowhere/", 2 * 2**20),
    ],
)
def test_a_body_over_the_limit_of_its_address_is_refused_unread(client, grace, address, size):
    client.force_login(grace)
    answer = send(client, address, size)
    assert answer.status_code == 413
    assert "larger than" in answer.content.decode()


@pytest.mark.parametrize("who", ["", "ada", "rita", "otto"])
@pytest.mark.parametrize("page", ["prompts/import/", "quality/gold/"])
def test_a_file_of_who_may_not_import_is_never_read(page, who, ada, rita, otto, project):
    client = Client(enforce_csrf_checks=True)
    if who:
        client.force_login({"ada": ada, "rita": rita, "otto": otto}[who])
    answer = send(client, f"/projects/apollo/{page}", 50 * 2**20, "multipart/form-data; boundary=x")
    assert answer.status_code == (404 if who else 413)


def test_an_admin_s_file_may_be_as_large_as_the_operator_allows(client, grace, project, settings):
    settings.IMPORT_MAX_MIB = 3
    client.force_login(grace)
    assert send(client, "/projects/apollo/prompts/import/", 4 * 2**20).status_code == 413
    assert body_limits.LARGER["api:prompts"] > body_limits.API
