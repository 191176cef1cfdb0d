"""The mixture's pictures, and the advisor with batches at one press."""

import pytest
from django.urls import reverse

from annotation.data.filtering import run_filters
from annotation.models import Batch
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, SourceFactory, judged

pytestmark = pytest.mark.django_db


@pytest.fixture
def data(project, ada):
    """Three judgments on plants, one on the law, one of an unsigned source."""
    batch = BatchFactory(project=project, name="Round 1")
    for category in ("plants", "plants", "plants", "law"):
        prompt = PromptFactory(project=project, category=category)
        comparison = ComparisonFactory(batch=batch, prompt=prompt, responses=3)
        judged(project, by=ada, comparison=comparison, ranks=(1, 2, 2))
    judged(project, by=ada, source=SourceFactory(project=project, signed_off_at=None))
    return project


def shares(page, key):
    picture = next(p for p in page.context["breakdowns"] if p.key == key)
    return {part.name: (part.n, part.share) for part in picture.parts}


def test_the_mixture_is_what_a_version_would_hold(client, data, rita):
    run_filters(data, ["language"])
    client.force_login(rita)
    url = reverse("mixture", args=[data.slug])
    page = client.get(url)
    assert shares(page, "domain") == {"plants": (3, 0.75), "law": (1, 0.25)}
    assert shares(page, "axis") == {"helpfulness": (4, 0.5), "safety": (4, 0.5)}
    assert shares(page, "language") == {"en": (4, 1.0)}
    assert shares(page, "split")["train"][0] == 5
    page = client.get(url, {"specialized": "law", "target": "50"})
    assert page.context["balance"].missing == ("specialized", 2)
    assert "2 more specialized judgments reach 50 %" in " ".join(page.content.decode().split())
    for odd in ("x", "-5", "9" * 400):
        assert client.get(url, {"specialized": "law", "target": odd}).status_code == 200


def test_the_advisor_warns_where_the_model_is_too_big(client, data, rita):
    client.force_login(rita)
    url = reverse("advisor", args=[data.slug])
    page = client.get(url, {"parameters": "100000000"})
    volume = page.context["advice"].findings[0]
    assert volume.level == "no-go"
    assert "Hoffmann and others 2022" in volume.text
    assert "Sardana and others 2024" in volume.text
    assert client.get(url, {"parameters": "1000"}).status_code == 200
    assert client.get(url, {"parameters": "0"}).status_code == 422
    keys = {finding.key for finding in page.context["advice"].findings}
    assert {"volume", "duplicates", "ties", "coverage", "position", "ceiling-helpfulness"} <= keys


def test_one_press_creates_the_recommended_batch(client, data, grace, rita):
    client.force_login(rita)
    url = reverse("advisor_batch", args=[data.slug])
    assert client.post(url, {"key": "overlap"}).status_code == 404
    client.force_login(grace)
    client.post(url, {"key": "overlap"})
    batch = Batch.objects.exclude(name="Round 1").get(is_by_hand=True)
    assert (batch.overlap, batch.comparisons.count()) == (2, 4)
    assert client.post(url, {"key": "nothing"}, follow=True).status_code == 200
    assert Batch.objects.filter(is_by_hand=True).count() == 1


def test_an_empty_project_has_both_pages(client, project, grace):
    client.force_login(grace)
    for name in ("mixture", "advisor"):
        assert client.get(reverse(name, args=[project.slug])).status_code == 200
