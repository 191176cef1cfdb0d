"""The assessment of annotators: cached, and calculated again as soon as a vote changes."""

import pytest

from annotation.quality import assessment, interventions
from annotation.quality.assessment import assessment_of, reliability_of
from tests.factories import judged

pytestmark = pytest.mark.django_db


def test_another_one_taken_out_instead_changes_the_figures(project, ada, grace):
    one, other = judged(project, by=ada, ranks=(1, 2)), judged(project, by=ada, ranks=(2, 1))
    interventions.exclude(project, [one.judgment_id], grace, "a slip")
    assert set(reliability_of(project).pairs.units) == {other.comparison_id}
    interventions.include(project, [one.judgment_id], grace)
    interventions.exclude(project, [other.judgment_id], grace, "this was meant")
    assert set(reliability_of(project).pairs.units) == {one.comparison_id}


def test_figures_that_an_earlier_version_cached_are_recalculated(project, ada, ben, monkeypatch):
    comparison = judged(project, by=ada).comparison
    judged(project, by=ben, comparison=comparison)
    monkeypatch.setattr(assessment, "CACHE_VERSION", 0)
    assessment_of(project)
    calculated = []
    real = assessment.reliability.assess
    monkeypatch.setattr(
        assessment.reliability, "assess", lambda *votes: calculated.append(1) or real(*votes)
    )
    monkeypatch.setattr(assessment, "CACHE_VERSION", 1)
    reliability_of(project)
    assessment_of(project, allow_outdated=True)
    assert calculated == [1]
