"""Questions that a person asks about a comparison, their private notes and bookmarks."""

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from annotation.judge.requirements import JudgmentError
from annotation.lib.text import storable
from annotation.models import Assignment, Event, Project, Question, User

MAX_QUESTION = 2_000
# More of one person's open questions than this are no longer read one by one.
MOST_OPEN = 30


def ask(assignment: Assignment, text: str) -> Question:
    """A question to the project's admins and reviewers about what this person judges.

    The same text about the same comparison is one question. JudgmentError if it is empty, too long,
    or one of too many.
    """
    text = _checked(text)
    with transaction.atomic():
        Assignment.objects.select_for_update().get(pk=assignment.pk)
        earlier = assignment.questions.filter(text=text, answered_at=None).first()
        if earlier is not None:
            return earlier
        mine = Question.objects.filter(
            assignment__annotator=assignment.annotator_id,
            assignment__comparison__batch__project=assignment.comparison.batch.project_id,
            answered_at=None,
        )
        if mine.count() >= MOST_OPEN:
            raise JudgmentError(_("Wait for answers to your earlier questions first."))
        return Question.objects.create(assignment=assignment, text=text)


def answer(question: Question, text: str, by: User) -> None:
    """Answer a question, once or again; who asked sees the last answer."""
    text = _checked(text)
    with transaction.atomic():
        question = Question.objects.select_for_update().get(pk=question.pk)
        question.answer, question.answered_by = text, by
        question.answered_at, question.seen_at = timezone.now(), None
        question.save(update_fields=["answer", "answered_by", "answered_at", "seen_at"])
        project = question.assignment.comparison.batch.project
        Event.record(project, by, "answered a question", question.pk)


def unseen_answers(user: User, project: Project) -> list[Question]:
    """Answers that this person has not seen yet, oldest first."""
    return list(
        Question.objects.filter(
            assignment__annotator=user,
            assignment__comparison__batch__project=project,
            answered_at__isnull=False,
            seen_at=None,
        )
        .select_related("assignment__comparison__prompt", "answered_by")
        .order_by("answered_at")[:5]
    )


def mark_seen(user: User, project: Project, pks: list[int]) -> None:
    Question.objects.filter(
        pk__in=pks, assignment__annotator=user, assignment__comparison__batch__project=project
    ).update(seen_at=timezone.now())


def _checked(text: str) -> str:
    text = storable(text.replace("\r\n", "\n")).strip()
    if not text:
        raise JudgmentError(_("Write something first."))
    if len(text) > MAX_QUESTION:
        raise JudgmentError(
            _("At most %(most)s characters; yours has %(length)s.")
            % {"most": f"{MAX_QUESTION:,}", "length": f"{len(text):,}"}
        )
    return text
