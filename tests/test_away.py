"""The database or the cache can't be reached: pages say so in a sentence, or do without."""

import json

import pytest
from django.db import InterfaceError, OperationalError
from django.test import RequestFactory

from config import error_responses
from config.cache import RedisCache


class Connection:
    def __init__(self, usable):
        self.connection, self.usable = object(), usable

    def is_usable(self):
        return self.usable


def answer(monkeypatch, path, error, *, usable=False):
    monkeypatch.setattr(error_responses, "connection", Connection(usable))
    try:
        raise error
    except type(error):
        return error_responses.server_error(RequestFactory().get(path))


@pytest.mark.parametrize("error", [OperationalError("gone"), InterfaceError("closed")])
def test_a_page_says_that_the_database_is_away(monkeypatch, error):
    page = answer(monkeypatch, "/projects/apollo/", error)
    assert (page.status_code, page["Retry-After"]) == (503, "5")
    assert "The database can't be reached" in page.content.decode()


def test_a_program_is_told_to_send_it_once_more(monkeypatch):
    response = answer(monkeypatch, "/api/v1/projects/", OperationalError("gone"))
    assert response.status_code == 503
    assert "with the same key" in json.loads(response.content)["detail"]


def test_an_error_of_a_database_that_is_there_is_a_fault_of_ours(monkeypatch):
    page = answer(monkeypatch, "/", OperationalError("deadlock detected"), usable=True)
    assert page.status_code == 500
    assert answer(monkeypatch, "/", KeyError("screw")).status_code == 500


def test_a_cache_that_is_away_is_empty_and_keeps_nothing():
    cache = RedisCache("redis://127.0.0.1:1/0", {})  # nobody listens on port 1
    cache.set("a", 1)
    assert cache.get("a", "nothing") == "nothing"
    assert cache.add("a", 1), "who asks first is not kept waiting for somebody else"
    assert cache.touch("a") is False
    assert cache.delete("a") is False
