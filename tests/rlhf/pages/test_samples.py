"""The answers behind a round's scores."""

import pytest

from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_the_answers_are_filtered_and_paged(client, mission, project, rita):
    client.force_login(rita)
    everything = page(client, "samples", project.slug, 2)
    assert "64 of 64 answers" in text_of(everything)
    assert len(everything.context["page"].object_list) == 24
    harmful = page(client, "samples", project.slug, 2, risk="harmful", temperature="0.3")
    assert "8 of 64 answers" in text_of(harmful)
    worst = page(client, "samples", project.slug, 2, axis="safety").context["page"]
    scores = [s.scores["safety"] for s in worst]
    assert scores == sorted(scores)
    assert "No idea." in text_of(page(client, "samples", project.slug, 2, vs="base"))
    cut = page(client, "samples", project.slug, 2, ending="cut")
    assert "4 of 64 answers" in text_of(cut)
    assert text_of(cut).count(">cut off<") == 4
    assert "60 of 64 answers" in text_of(page(client, "samples", project.slug, 2, ending="ended"))
    assert "No answer matches" in text_of(page(client, "samples", project.slug, 2, q="zebra"))
    assert page(client, "samples", project.slug, 2, page="999").status_code == 200
