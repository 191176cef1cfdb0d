"""Every address × every role × a foreign project.

The table below says who may open what. An address that is not in it fails the test, so nobody can
add a page and forget to decide. Whoever may not see a thing is told that it does not exist (404);
a stranger is asked to sign in.
"""

import pytest
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotation.access import ANY_ROLE, CAN_EXPORT, CAN_JUDGE, CAN_READ_DATA, CAN_RUN

pytestmark = pytest.mark.django_db

# name: (method, roles that may). Pages of one project; `slug` is in the address.
PROJECT_PAGES = {
    "project": ("get", ANY_ROLE),
    "project_settings": ("get", CAN_RUN),
    "judge": ("get", CAN_JUDGE),
    "prompts": ("get", CAN_READ_DATA),
    "prompt_import": ("get", CAN_RUN),
    "snapshots": ("get", CAN_READ_DATA),
    "snapshot": ("get", CAN_READ_DATA),
    "rounds": ("get", CAN_READ_DATA),
    "round": ("get", CAN_READ_DATA),
    "dashboard": ("get", CAN_READ_DATA),
}
# Addresses that belong to no project: each says in its own tests what it shows to whom.
OWN_PAGES = {"home", "tokens"}
OUTSIDE = ("account_", "admin:", "schema", "knox")


def addresses(resolver=None, prefix="", namespaces=()):
    """(qualified name, route) of every address of the installation."""
    for entry in (resolver or get_resolver()).url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = (*namespaces, entry.namespace) if entry.namespace else namespaces
            yield from addresses(entry, route, inner)
        elif isinstance(entry, URLPattern):
            yield ":".join((*namespaces, entry.name or "")), route


@pytest.fixture
def cast(project, ada, vera, rita, grace, otto):
    return {"annotator": ada, "reviewer": vera, "researcher": rita, "admin": grace, "otto": otto}


@pytest.fixture
def arguments(project, things):
    return {"slug": project.slug, **things}


def test_every_address_is_in_the_table():
    names = {name for name, route in addresses()}
    undecided = {
        name
        for name in names - PROJECT_PAGES.keys() - OWN_PAGES
        if not name.startswith(OUTSIDE) and not name.startswith("api:")
    }
    assert undecided == set(), "decide who may open these: add them to the table above"
