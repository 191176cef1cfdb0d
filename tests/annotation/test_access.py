import pytest
from django.http import Http404

from annotation.access import CAN_EXPORT, project_for


def test_a_member_reaches_the_project_and_a_stranger_gets_404(project, ada, otto):
    assert project_for(ada, "apollo") == project
    with pytest.raises(Http404):
        project_for(otto, "apollo")


def test_a_role_that_is_not_named_gets_404_too(project, ada, rita):
    assert project_for(rita, "apollo", CAN_EXPORT) == project
    with pytest.raises(Http404):
        project_for(ada, "apollo", CAN_EXPORT)


def test_an_operator_changes_no_guidelines_behind_the_versions_back(admin_client, project):
    address = f"/admin/annotation/project/{project.pk}/change/"
    page = admin_client.get(address)
    assert page.status_code == 200
    form = page.context["adminform"].form
    assert not {"guidelines", "guideline_version", "axes", "slug"} & set(form.fields)
    assert admin_client.get("/admin/annotation/project/add/").status_code == 200
