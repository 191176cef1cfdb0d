"""The REST API for people who judge, and for programs that play them: the page's acts, as JSON.

Responses are named by letters (A, B, C …) in the order in which this person is shown them. Nothing
else about a response is said, here or on the page.
"""

from typing import Any
from uuid import UUID

from django.http import Http404
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, status
from rest_framework.decorators import api_view, throttle_classes
from rest_framework.request import Request
from rest_framework.response import Response

from annotation.access import CAN_JUDGE, project_for
from annotation.api.serializers import RefusalSerializer
from annotation.api.throttles import JudgingThrottle
from annotation.judge.assignment import next_assignment, own_assignment
from annotation.judge.drafts import save_draft
from annotation.judge.leases import release
from annotation.judge.permission import renew
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import JudgmentConflict, skip, submit_judgment, undo_last
from annotation.models import Assignment
from annotation.protocols import DEMONSTRATE
from annotation.request import who_asks


class TurnSerializer(serializers.Serializer[Any]):
    role = serializers.CharField()
    content = serializers.CharField()


class ShownResponseSerializer(serializers.Serializer[Any]):
    letter = serializers.CharField()
    text = serializers.CharField()
    is_cut_off = serializers.BooleanField(help_text="It reached its length limit without an end.")


class AssignmentSerializer(serializers.Serializer[Any]):
    uid = serializers.UUIDField()
    state = serializers.CharField()
    lease_until = serializers.DateTimeField()
    interface = serializers.CharField(
        help_text="rank, pair, dialogue, demonstrate, rewrite or rate: what is asked."
    )
    protocol = serializers.DictField(help_text="How it is asked: docs/formats.md.")
    messages = TurnSerializer(many=True)
    responses = ShownResponseSerializer(many=True)
    draft = serializers.JSONField()
    guideline_version = serializers.IntegerField(
        help_text="Of the guidelines in force; send it back with the answer."
    )


class AnswerSerializer(serializers.Serializer[Any]):
    key = serializers.UUIDField(help_text="Yours, one per answer: sending it twice sends it once.")
    ranks = serializers.DictField(
        child=serializers.DictField(),
        required=False,
        help_text='{"helpfulness": {"A": 1, "B": 2, "C": 2}, …}; 1 is best, equal numbers are ties.',
    )
    flags = serializers.DictField(
        child=serializers.ListField(child=serializers.DictField()),
        required=False,
        help_text='{"B": [{"kind": "unsafe", "category": "theft"}]}',
    )
    rewrite = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    reason = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False)
    seconds = serializers.FloatField(required=False, allow_null=True)
    strength = serializers.DictField(
        child=serializers.IntegerField(),
        required=False,
        help_text='{"helpfulness": 3}: how much better the better of two is, 1 is the weakest level '
        "of the protocol's scale, 0 a tie.",
    )
    all_bad = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="Axes on which not one response is good enough.",
    )
    ratings = serializers.DictField(
        child=serializers.DictField(),
        required=False,
        help_text='{"A": {"quality": 5, …}, …}: the protocol\'s attributes.',
    )
    safety = serializers.DictField(
        child=serializers.DictField(),
        required=False,
        help_text='{"A": {"safe": false, "harms": ["privacy"]}, …}',
    )
    based_on = serializers.CharField(
        required=False, allow_blank=True, help_text="The letter of the response that is corrected."
    )
    guideline_version = serializers.IntegerField(
        required=False,
        allow_null=True,
        min_value=1,
        help_text="Of the guidelines that it was given under, as they came with the comparison. "
        "Without it, or with one that is not written yet: those in force.",
    )


# Checking keeps nothing of what it checked, so that one serves everybody: making it costs more.
_answers = AnswerSerializer()


class SubmittedSerializer(serializers.Serializer[Any]):
    uid = serializers.UUIDField(help_text="The judgment.")
    revision = serializers.IntegerField()
    is_extra = serializers.BooleanField(help_text="It came after its place was taken; it is kept.")


class SkipSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField()


class RenewedSerializer(serializers.Serializer[Any]):
    renewed = serializers.BooleanField()
    lease_until = serializers.DateTimeField()


@extend_schema(request=None, responses={200: AssignmentSerializer, 204: None})
@api_view(["GET", "POST"])
@throttle_classes([JudgingThrottle])
def judging_next(request: Request, slug: str) -> Response:
    """What you judge now: what you hold, else a new comparison. 204 when nothing is free for you."""
    project = project_for(request.user, slug, CAN_JUDGE)
    assignment = next_assignment(who_asks(request), project)
    if assignment is None:
        return Response(status=status.HTTP_204_NO_CONTENT)
    return Response(_shown(assignment))


@extend_schema(
    request=AnswerSerializer,
    responses={200: SubmittedSerializer, 409: RefusalSerializer, 422: RefusalSerializer},
)
@api_view(["POST"])
@throttle_classes([JudgingThrottle])
def judging_submit(request: Request, slug: str, uid: UUID) -> Response:
    """Send an answer. The same key with the same answer is the same judgment; with another, 409."""
    assignment = _own(request, slug, uid)
    body = _answers.run_validation(request.data)
    try:
        judgment = submit_judgment(assignment, by=who_asks(request), answer=body, key=body["key"])
    except JudgmentError as problem:
        return _refusal(problem)
    return Response(
        {
            "uid": judgment.uid,
            "revision": judgment.revision,
            "is_extra": assignment.is_extra,
        }
    )


@extend_schema(request=SkipSerializer, responses={204: None, 422: RefusalSerializer})
@api_view(["POST"])
def judging_skip(request: Request, slug: str, uid: UUID) -> Response:
    """Pass a comparison on to somebody else, saying why."""
    assignment = _own(request, slug, uid)
    body = SkipSerializer(data=request.data)
    body.is_valid(raise_exception=True)
    try:
        skip(assignment, body.validated_data["reason"])
    except JudgmentError as problem:
        return _refusal(problem)
    return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema(
    request=OpenApiTypes.OBJECT, responses={200: AssignmentSerializer, 422: RefusalSerializer}
)
@api_view(["PUT"])
def judging_draft(request: Request, slug: str, uid: UUID) -> Response:
    """Keep what you have so far; the same fields as an answer, as many as there are."""
    assignment = _own(request, slug, uid)
    try:
        save_draft(assignment, request.data)
    except JudgmentError as problem:
        return _refusal(problem)
    return Response(_shown(assignment))


@extend_schema(request=None, responses=RenewedSerializer)
@api_view(["POST"])
def judging_renew(request: Request, slug: str, uid: UUID) -> Response:
    """You are still at it: the lease starts again, unless somebody else has the place now."""
    assignment = _own(request, slug, uid)
    return Response({"renewed": renew(assignment), "lease_until": assignment.lease_until})


@extend_schema(request=None, responses={204: None})
@api_view(["POST"])
def judging_release(request: Request, slug: str, uid: UUID) -> Response:
    """Give a comparison back unanswered."""
    release(_own(request, slug, uid))
    return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema(request=None, responses={200: AssignmentSerializer, 204: None})
@api_view(["POST"])
def judging_undo(request: Request, slug: str) -> Response:
    """Take your last judgment or skip back: it is open again, with its answer as draft. 204 if none."""
    project = project_for(request.user, slug, CAN_JUDGE)
    try:
        assignment = undo_last(who_asks(request), project)
    except JudgmentError as problem:
        return _refusal(problem)
    if assignment is None:
        return Response(status=status.HTTP_204_NO_CONTENT)
    return Response(_shown(assignment))


def _own(request: Request, slug: str, uid: UUID) -> Assignment:
    user = who_asks(request)
    project = project_for(user, slug, CAN_JUDGE)
    try:
        assignment = own_assignment(user, project, uid)
    except Assignment.DoesNotExist as error:
        raise Http404("There is no such comparison of yours.") from error
    if assignment.comparison.is_live:  # It is judged in the dialogue that it belongs to.
        raise Http404("There is no such comparison of yours.")
    return assignment


def _shown(assignment: Assignment) -> dict[str, Any]:
    shown = {response.pk: response for response in assignment.comparison.ordered_responses()}
    letters = assignment.letters
    return {
        "uid": assignment.uid,
        "state": assignment.state,
        "lease_until": assignment.lease_until,
        "interface": assignment.comparison.batch.effective_interface,
        "protocol": assignment.comparison.batch.effective_protocol.as_json(),
        "messages": assignment.comparison.prompt.messages,
        "responses": [
            {
                "letter": letters[str(pk)],
                "text": shown[pk].text,
                "is_cut_off": shown[pk].is_cut_off,
            }
            for pk in assignment.shown_order
            if assignment.comparison.batch.effective_interface != DEMONSTRATE
        ],
        "draft": assignment.draft,
        "guideline_version": assignment.comparison.batch.project.guideline_version,
    }


def _refusal(problem: JudgmentError) -> Response:
    conflict = isinstance(problem, JudgmentConflict)
    return Response({"detail": str(problem)}, status=409 if conflict else 422)
