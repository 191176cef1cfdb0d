"""Pages where a person talks to a policy and says which of its two answers is better.

Responses here are A and B with their texts, and nothing else: no page, event or header has more.
"""

import json
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from typing import Any
from uuid import UUID

from django.conf import settings
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET

from annotation.access import CAN_JUDGE, project_view
from annotation.judge import dialogues as acts
from annotation.judge.answers import MAX_REASON
from annotation.judge.candidates import candidates
from annotation.judge.dialogue_campaigns import DialogueError, optional_axes
from annotation.judge.dialogue_writing import TICK
from annotation.judge.requirements import JudgmentError
from annotation.judge.submitting import JudgmentConflict
from annotation.lib.markdown import render_markdown
from annotation.models import Batch, Dialogue, DialogueCampaign, Project, Turn
from annotation.pages import answer_form
from annotation.projects.guidelines import unseen_change
from annotation.request import measured_seconds, who_asks, whole_number

State = Turn.State
LETTERS = ["A", "B"]
STREAM_SECONDS = 90.0
_seats = threading.BoundedSemaphore(max(1, settings.DIALOGUE_STREAMS))


@project_view(*CAN_JUDGE)
def dialogues(request: HttpRequest, project: Project) -> HttpResponse:
    """The campaigns that are open and this person's dialogues in them; POST begins one."""
    problem = ""
    if request.method == "POST":
        campaign = get_object_or_404(
            DialogueCampaign.objects.select_related("batch__project"),
            pk=whole_number(request.POST.get("campaign")),
            batch__project=project,
        )
        try:
            dialogue = acts.begin(
                who_asks(request), campaign, acknowledged="acknowledged" in request.POST
            )
        except DialogueError as error:
            problem = str(error)
        else:
            return redirect("dialogue", project.slug, dialogue.uid)
    campaigns = list(
        DialogueCampaign.objects.filter(batch__project=project, batch__state=Batch.State.OPEN)
        .select_related("batch__project")
        .order_by("pk")
    )
    # Somebody who wants nothing harmful is told what is left out, not shown it.
    shown = [
        campaign for campaign in campaigns if not acts.is_unwanted(who_asks(request), campaign)
    ]
    own_dialogues = Dialogue.objects.filter(
        campaign__batch__project=project, annotator=who_asks(request)
    )
    open_dialogues = {
        dialogue.campaign_id: dialogue for dialogue in own_dialogues.filter(ended_at=None)
    }
    context = {
        "project": project,
        "problem": problem,
        "campaigns": [
            {
                "campaign": campaign,
                "dialogue": open_dialogues.get(campaign.pk),
                "serving": candidates().serving(campaign),
            }
            for campaign in shown
        ],
        "n_left_out": len(campaigns) - len(shown),
        "mine": own_dialogues.annotate(n=Count("turns", filter=Q(turns__state=State.CHOSEN)))
        .select_related("campaign__batch")
        .order_by("-created_at")[:20],
    }
    return render(
        request, "annotation/dialogues/list.html", context, status=422 if problem else 200
    )


@project_view(*CAN_JUDGE)
def dialogue(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """One dialogue of this person's: GET shows it, POST does what the pressed button says."""
    dialogue = _own(request, project, uid)
    if request.method != "POST":
        # What changed in the guidelines is shown once, before anything is said under the new ones.
        news = unseen_change(project.memberships.get(user=who_asks(request)))
        return render(request, "annotation/dialogues/talk.html", _talk(dialogue) | {"news": news})
    act = request.POST.get("act", "")
    try:
        ACTS.get(act, _unknown_act)(request, dialogue)
    except (DialogueError, JudgmentError) as error:
        dialogue.refresh_from_db()
        typed = request.POST.get("text") if act == "say" else None
        context = _talk(
            dialogue, draft=typed, answer=_posted(request, dialogue) if act == "choose" else None
        )
        status = 409 if isinstance(error, JudgmentConflict) else 422
        context["problem"] = str(error)
        return render(request, "annotation/dialogues/talk.html", context, status=status)
    if act == "draft":
        return HttpResponse(status=204)
    if act == "end":
        messages.success(request, _("The dialogue is ended. Thank you."))
        return redirect("dialogues", project.slug)
    return redirect("dialogue", project.slug, dialogue.uid)


@project_view(*CAN_JUDGE)
@require_GET
def dialogue_state(request: HttpRequest, project: Project, uid: UUID) -> HttpResponse:
    """The state of the answers, for a page that can't read the stream."""
    dialogue = _own(request, project, uid)
    serving = candidates().serving(dialogue.campaign)
    return JsonResponse({**_now(acts.current(dialogue)), "serving": serving.state})


@project_view(*CAN_JUDGE)
@require_GET
def dialogue_stream(request: HttpRequest, project: Project, uid: UUID) -> HttpResponseBase:
    """The two answers as they grow, as server-sent events; 503 where too many are watching.

    A stream holds a thread of the web server, so there are only so many; a page then polls.
    """
    dialogue = _own(request, project, uid)
    if not _seats.acquire(blocking=False):
        return HttpResponse("Too many streams; ask for the state instead.", status=503)
    response = StreamingHttpResponse(_Events(dialogue), content_type="text/event-stream")
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"
    return response


class _Events:
    """Server-sent events until the answers are there. Its seat is given back however it ends."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._told = self._tell(dialogue)
        self._seated = True

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._told)

    def close(self) -> None:
        self._told.close()
        if self._seated:
            self._seated = False
            _seats.release()

    def _tell(self, dialogue: Dialogue) -> Generator[str, None, None]:
        until, last = time.monotonic() + STREAM_SECONDS, ""
        yield "retry: 1000\n\n"
        while time.monotonic() < until:
            now = _now(acts.current(dialogue))
            text = json.dumps(now)
            if text != last:
                last = text
                yield f"data: {text}\n\n"
            if now["state"] != State.WRITING:
                return
            time.sleep(TICK)


def _now(turn: Turn | None) -> dict[str, Any]:
    """How the answers stand, for a page: while they are written, both as far as they are."""
    if turn is None:
        return {"state": "", "panes": []}
    panes = [str(render_markdown(text)) for text in turn.partial] if _writing(turn) else []
    return {"state": str(turn.state), "panes": panes}


def _is_cut_off(candidate: dict[str, Any]) -> bool:
    """Whether an answer reached its length limit without an end, as far as that is known."""
    return (candidate.get("sampling") or {}).get("finished") is False


def _writing(turn: Turn) -> bool:
    return turn.state == State.WRITING


# --- What the buttons do --------------------------------------------------------------------------


def _say(request: HttpRequest, dialogue: Dialogue) -> None:
    acts.say(dialogue, request.POST.get("text", ""), key=_key(request))


def _choose(request: HttpRequest, dialogue: Dialogue) -> None:
    number = whole_number(request.POST.get("number"))
    acts.choose(dialogue, _posted(request, dialogue), number=number, key=_key(request))


def _ask_again(request: HttpRequest, dialogue: Dialogue) -> None:
    acts.ask_again(dialogue)


def _take_back(request: HttpRequest, dialogue: Dialogue) -> None:
    acts.take_back(dialogue)


def _keep_draft(request: HttpRequest, dialogue: Dialogue) -> None:
    acts.keep_draft(dialogue, request.POST.get("text", ""))


def _end(request: HttpRequest, dialogue: Dialogue) -> None:
    acts.end(dialogue)


def _unknown_act(request: HttpRequest, dialogue: Dialogue) -> None:
    raise DialogueError(_("Unknown action. Reload the page."))


ACTS = {
    "say": _say,
    "choose": _choose,
    "again": _ask_again,
    "undo": _take_back,
    "draft": _keep_draft,
    "end": _end,
}


# --- What the page shows --------------------------------------------------------------------------


def _posted(request: HttpRequest, dialogue: Dialogue) -> dict[str, Any]:
    """The form's fields (annotation/pages/answer_form.py) as an answer in letters."""
    return {
        **answer_form.protocol_parts(request.POST, dialogue.campaign.batch, LETTERS),
        "reason": request.POST.get("reason", ""),
        "seconds": measured_seconds(request.POST.get("seconds", "")),
    }


def _talk(
    dialogue: Dialogue,
    *,
    draft: str | None = None,
    answer: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The template context of a dialogue page."""
    campaign = dialogue.campaign
    batch, project = campaign.batch, campaign.batch.project
    turns = list(dialogue.turns.exclude(state=State.WITHDRAWN).select_related("comparison"))
    current_turn = acts.current(dialogue)
    chosen = [turn for turn in turns if turn.state == State.CHOSEN]
    if answer is None:
        answer = (
            acts.earlier_answer(current_turn)
            if current_turn and current_turn.state == State.READY
            else {}
        )
    texts, cut_off = [""] * 2, [False] * 2
    if current_turn is not None and _writing(current_turn):
        texts = current_turn.partial
    elif current_turn is not None:
        texts = [candidate["text"] for candidate in current_turn.candidates]
        cut_off = [_is_cut_off(candidate) for candidate in current_turn.candidates]
    serving = candidates().serving(campaign)
    why_over = acts.why_over(dialogue, turns)
    optional = optional_axes(batch)
    questions = answer_form.questions_of_batch(batch, LETTERS, answer, optional)
    return {
        **questions,
        "project": project,
        "dialogue": dialogue,
        "campaign": campaign,
        "batch": batch,
        "is_closed": batch.state != Batch.State.OPEN,
        "turns": [
            {
                "text": turn.text,
                "kept": turn.candidates["AB".index(turn.went_on)]["text"],
                "letter": turn.went_on,
                "other": turn.candidates[1 - "AB".index(turn.went_on)]["text"],
                "other_letter": "BA"["AB".index(turn.went_on)],
            }
            for turn in chosen
        ],
        "turn": current_turn,
        "panes": [
            {
                "letter": letter,
                "text": text,
                "is_cut_off": is_cut,
                "mark_questions": questions["marks"].get(letter),
            }
            for letter, text, is_cut in zip(LETTERS, texts, cut_off, strict=False)
        ],
        "reason": answer.get("reason", ""),
        "number": len(chosen) + 1,
        "serving": serving,
        "over": why_over,
        "draft": dialogue.draft if draft is None else draft,
        "key": uuid.uuid4(),
        "limits": {"message": acts.MAX_MESSAGE, "reason": MAX_REASON},
        "problem": "",
        "is_unwanted": acts.is_unwanted(dialogue.annotator, campaign),
    }


# --- Small questions ------------------------------------------------------------------------------


def _own(request: HttpRequest, project: Project, uid: UUID) -> Dialogue:
    return get_object_or_404(
        Dialogue.objects.select_related("campaign__batch__project", "annotator"),
        uid=uid,
        annotator=who_asks(request),
        campaign__batch__project=project,
    )


def _key(request: HttpRequest) -> UUID:
    try:
        return UUID(request.POST.get("key", ""))
    except ValueError as error:
        raise DialogueError(_("The form has no valid key. Reload the page.")) from error
