"""How the tests of rounds' pages ask for a page and read it."""

import re

from django.urls import reverse

from rlhf.preflight import preflight
from rlhf.round_config import default_config


def page(client, name, *arguments, **query):
    return client.get(reverse(name, args=arguments), query)


def text_of(answer):
    """The page without the white space that a template's lines bring along."""
    text = re.sub(r"\s+", " ", answer.content.decode())
    return text.replace("> <", "><").replace(" >", ">")


def post(client, name, round, **data):
    return client.post(reverse(name, args=[round.project.slug, round.number]), data)


def fields(body):
    """What a browser would send from the launch form as it was served."""
    values = {}
    for tag in re.findall(r"<(?:input|textarea)[^>]*>", body):
        name = re.search(r'name="([^"]+)"', tag)
        value = re.search(r'value="([^"]*)"', tag)
        if name and 'type="checkbox"' not in tag and name[1] != "csrfmiddlewaretoken":
            values[name[1]] = value[1] if value else ""
        elif name and "checked" in tag:
            values[name[1]] = "on"
    for name, inner in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', body, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', inner)
        if chosen:
            values[name] = chosen[1]
    return values


def launch_form(client, project):
    answer = page(client, "launch", project.slug)
    assert answer.status_code == 200
    return fields(answer.content.decode().split("<main")[1])


def warnings(answer_or_project):
    config = default_config(answer_or_project)
    return [c.key for c in preflight(answer_or_project, config) if c.verdict == "warning"]
