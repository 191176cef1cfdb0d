"""Excluding judgments: they stay on record, and in no figure."""

import uuid

import pytest

from annotation.data.preferences import preference_rows
from annotation.judge.answers import Answer
from annotation.judge.submitting import submit_judgment
from annotation.quality import interventions
from tests.factories import judged

pytestmark = pytest.mark.django_db


def test_a_correction_of_what_was_excluded_stays_excluded(project, ada, grace):
    one = judged(project, by=ada, ranks=(1, 2))
    interventions.exclude(project, [one.judgment_id], grace, "Wrong")
    ranks = {str(pk): 1 for pk in one.shown_order}
    answer = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
    submit_judgment(one, by=one.annotator, answer=answer, key=uuid.uuid4())
    assert list(preference_rows(project)) == []
