"""Pages of sources: two signatures, licenses, documents, and what keeping a source out costs."""

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from annotation.data.preferences import judgment_counts
from annotation.models import Source
from tests.factories import PromptFactory, SourceFactory, judged, member

pytestmark = pytest.mark.django_db


@pytest.fixture
def source(project, ada):
    source = SourceFactory(project=project, name="Forum", licence="CC-BY-4.0", signed_off_at=None)
    judged(project, by=ada, source=source)
    return source


def url(name, source, *more):
    return reverse(name, args=[source.project.slug, source.pk, *more])


def sign(client, source, step, **fields):
    return client.post(url("source_sign", source), {"step": step, **fields}, follow=True)


def test_two_signatures_sign_a_source_off(client, project, source, grace):
    client.force_login(grace)
    html = client.get(url("source", source)).content.decode()
    assert "not signed off" in html
    assert "leave 1 judgment out" in html
    document = SimpleUploadedFile("terms.html", b"<script>alert(1)</script>")
    sign(client, source, "data", note="read the paper", document=document)
    source.refresh_from_db()
    assert not source.is_signed_off
    sign(client, source, "legal")
    source.refresh_from_db()
    assert source.signed_off_by == grace
    assert judgment_counts(project)["used"] == 1
    html = client.get(url("source", source)).content.decode()
    assert "read the paper" in html
    assert "terms.html" in html


def test_a_document_is_a_download_for_those_who_read_data(client, source, grace, rita, ada, otto):
    client.force_login(grace)
    sign(
        client, source, "data", document=SimpleUploadedFile("a.html", b"<script>alert(1)</script>")
    )
    for person, status in ((rita, 200), (ada, 404), (otto, 404)):
        client.force_login(person)
        response = client.get(url("source_document", source, "data"))
        assert response.status_code == status
    client.force_login(rita)
    response = client.get(url("source_document", source, "data"))
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"].startswith("attachment")
    assert client.get(url("source_document", source, "legal")).status_code == 404


def test_where_two_people_are_needed_one_does_not_sign_twice(client, project, source, grace):
    project.needs_two_signatures = True
    project.save()
    client.force_login(grace)
    sign(client, source, "data")
    assert "the other signature is yours" in sign(client, source, "legal").content.decode()
    assert "has this signature already" in sign(client, source, "data").content.decode()
    assert not Source.objects.get(pk=source.pk).is_signed_off
    client.force_login(member(project, "gus", "admin"))
    sign(client, source, "legal")
    assert Source.objects.get(pk=source.pk).is_signed_off


def test_a_license_that_forbids_training_is_not_signed(client, project, source, grace):
    Source.objects.update(licence="CC-BY-ND-4.0")
    client.force_login(grace)
    assert "does not allow training" in sign(client, source, "legal").content.decode()
    Source.objects.update(licence="")
    assert "Name the license" in sign(client, source, "legal").content.decode()


def test_another_license_takes_the_sign_off_back(client, project, source, grace):
    client.force_login(grace)
    sign(client, source, "data")
    sign(client, source, "legal")
    fields = {
        "licence": "CC-BY-4.0",
        "url": "https://example.org",
        "contact": "Ann",
        "consent": "consent",
    }
    client.post(url("source", source), fields)
    source.refresh_from_db()
    assert (source.contact, source.is_signed_off) == ("Ann", True)
    client.post(url("source", source), fields | {"licence": "MIT"})
    source.refresh_from_db()
    assert not source.is_signed_off
    assert not source.signatures.exists()
    refused = client.post(url("source", source), fields | {"url": "javascript:alert(1)"})
    assert refused.status_code == 422
    verbs = set(project.events.values_list("verb", flat=True))
    assert {"signed source", "signed off source", "changed source", "withdrew sign-off"} <= verbs


def test_the_list_says_what_is_kept_out_and_what_it_costs(client, project, source, grace, rita):
    SourceFactory(project=project, name="Tickets", licence="CC-BY-NC-4.0")
    client.force_login(grace)
    page = client.get(reverse("sources", args=[project.slug]))
    assert (page.context["n_kept_out"], page.context["n_lost"]) == (1, 1)
    client.post(reverse("sources", args=[project.slug]), {"is_commercial": "on"})
    page = client.get(reverse("sources", args=[project.slug]))
    assert page.context["n_kept_out"] == 2
    assert "this project is commercial" in page.content.decode()
    client.force_login(rita)
    assert client.post(reverse("sources", args=[project.slug]), {}).status_code == 404


def test_a_source_of_another_project_is_none_of_ours(client, project, source, otto):
    client.force_login(otto)
    assert client.get(url("source", source)).status_code == 404
    own = SourceFactory(project=otto.memberships.get().project)
    PromptFactory(project=own.project, source=own)
    mixed = reverse("source", args=[own.project.slug, source.pk])
    assert client.get(mixed).status_code == 404
