"""Drafts: unfinished answers, by response letter, stored with the assignment."""

import json
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.judge.answers import as_draft, parse
from annotation.judge.requirements import JudgmentError
from annotation.models import Assignment

State = Assignment.State
MAX_DRAFT_CHARACTERS = 60_000


def save_draft(assignment: Assignment, draft: Any) -> None:
    """Save an unfinished answer, by response letter, and renew the lease.

    A draft may be incomplete; invalid parts are left out.
    """
    letters = {letter: letter for letter in assignment.letters.values()}
    answer, _problems = parse(assignment.comparison.batch, draft, letters, letters)
    kept = as_draft(answer)
    if len(json.dumps(kept)) > MAX_DRAFT_CHARACTERS:
        raise JudgmentError(_("The draft is too long to save; shorten the better answer."))
    now = timezone.now()
    rows = Assignment.objects.filter(pk=assignment.pk)
    rows.filter(state__in=[State.LEASED, State.EXPIRED]).update(draft=kept, draft_saved_at=now)
    rows.filter(state=State.LEASED).update(
        lease_until=assignment.comparison.batch.project.lease_end()
    )
    assignment.refresh_from_db()
