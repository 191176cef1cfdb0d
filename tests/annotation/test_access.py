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
