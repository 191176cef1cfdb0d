"""Live dialogues (Bai et al. 2022, section 2): the policy answers each message twice, and the
chosen answer continues.

A choice becomes an ordinary comparison with two responses and a judgment, through
`submit_judgment`, so other code needs no knowledge of dialogues.
"""

import random
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.judge.answers import in_letters
from annotation.judge.candidates import CandidateError, candidates
from annotation.judge.dialogue_campaigns import DialogueError, leading_axis
from annotation.judge.dialogue_writing import conversation, write_soon
from annotation.judge.permission import may_work
from annotation.judge.submitting import reopen, skip, submit_judgment
from annotation.lib.heartbeat import is_stale
from annotation.lib.text import storable
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Dialogue,
    DialogueCampaign,
    Judgment,
    Message,
    Prompt,
    Response,
    Turn,
    User,
    content_hash,
)

State = Turn.State
CURRENT = (State.WRITING, State.READY, State.FAILED)

MAX_MESSAGE = 4_000
# How models mark turns and their ends. A person who types one would speak as the policy or the system.
CONTROL_TOKENS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk)>",
    re.IGNORECASE,
)
STALE_AFTER = timedelta(seconds=15)
"""A turn without a heartbeat for this long counts as interrupted."""
INTERRUPTED = gettext_noop("Generation was interrupted. Your message is saved: retry.")

# --- Acts of an annotator --------------------------------------------------------------------------


def begin(user: User, campaign: DialogueCampaign, *, acknowledged: bool = False) -> Dialogue:
    """This person's open dialogue in the campaign, else a new one."""
    _check_open(campaign)
    with transaction.atomic():
        DialogueCampaign.objects.select_for_update().get(pk=campaign.pk)
        ongoing = Dialogue.objects.filter(campaign=campaign, annotator=user, ended_at=None).first()
        if ongoing:
            return ongoing
        _check_may_begin(user, campaign)
        _check_material(user, campaign)
        if campaign.is_redteam and not acknowledged:
            raise DialogueError(_("Confirm first that you have read the warning."))
        return Dialogue.objects.create(campaign=campaign, annotator=user)


def say(dialogue: Dialogue, text: str, *, key: UUID) -> Turn:
    """Add a message and start writing its two answers. A repeated key gets the same turn."""
    text = storable(text.replace("\r\n", "\n")).strip()
    if (earlier := Turn.objects.filter(key=key).first()) is not None:
        return _same(earlier, dialogue, text)
    if not text:
        raise DialogueError(_("Write a message first."))
    if len(text) > MAX_MESSAGE:
        raise DialogueError(
            _("The message has %(length)s characters; the maximum is %(most)s.")
            % {"length": f"{len(text):,}", "most": f"{MAX_MESSAGE:,}"}
        )
    if control := CONTROL_TOKENS.search(text):
        raise DialogueError(
            _("“%(text)s” controls the model: write it differently.") % {"text": control[0]}
        )
    campaign = dialogue.campaign
    _check_open(campaign)
    _check_may_begin(dialogue.annotator, campaign)
    _check_material(dialogue.annotator, campaign)
    _check_rate(dialogue.annotator)
    who = candidates()
    serving = who.serving(campaign)
    if not serving.is_ready:
        raise DialogueError(serving.sentence or _("The policy can't answer now."))
    try:
        writers = who.writers(campaign, 2)
    except CandidateError as problem:
        raise DialogueError(_(str(problem))) from problem
    random.SystemRandom().shuffle(writers)
    try:
        with transaction.atomic():
            dialogue = _locked(dialogue)
            # The same message may have arrived twice at once.
            if (earlier := Turn.objects.filter(key=key).first()) is not None:
                return _same(earlier, dialogue, text)
            turns = list(dialogue.turns.exclude(state=State.WITHDRAWN))
            if turns and turns[-1].state in CURRENT:
                raise DialogueError(
                    _("Choose one of the two answers first, or withdraw your message.")
                )
            if reason := why_over(dialogue, turns):
                raise DialogueError(reason)
            turn = Turn.objects.create(
                dialogue=dialogue,
                number=len(turns) + 1,
                key=key,
                text=text,
                writers=[
                    {"source": writer.source, "sampling": writer.sampling} for writer in writers
                ],
                partial=["", ""],
            )
            Dialogue.objects.filter(pk=dialogue.pk).update(draft="")
    except IntegrityError:
        # The key was used in another dialogue in the same instant.
        return _same(Turn.objects.get(key=key), dialogue, text)
    write_soon(turn)
    return turn


def why_over(dialogue: Dialogue, turns: Sequence[Turn]) -> str:
    """Why no further message can be sent in this dialogue, "" if one can."""
    if dialogue.ended_at is not None:
        return _("This dialogue has ended; start a new one.")
    if len(turns) >= dialogue.campaign.max_turns:
        return _("This dialogue has reached its last turn: end it, then start a new one.")
    if turns and turns[-1].is_full:
        return _("The conversation fills the policy's context: end it, then start a new one.")
    return ""


def ask_again(dialogue: Dialogue) -> Turn:
    """Retry the answers to the current message after a failure or an interruption.

    The retry is a new turn in place of the failed one, so that it counts against the rate limit.
    """
    _check_may_begin(dialogue.annotator, dialogue.campaign)
    _check_material(dialogue.annotator, dialogue.campaign)
    serving = candidates().serving(dialogue.campaign)
    if not serving.is_ready:
        raise DialogueError(serving.sentence or _("The policy can't answer now."))
    with transaction.atomic():
        turn = current(_locked(dialogue))
        if turn is None or turn.state not in (State.FAILED, State.WRITING):
            raise DialogueError(_("There is nothing to retry."))
        if turn.state == State.WRITING:
            return turn
        _check_rate(dialogue.annotator)
        _withdraw(turn)
        again = Turn.objects.create(
            dialogue=dialogue,
            number=turn.number,
            key=uuid4(),
            text=turn.text,
            writers=turn.writers,
            partial=["", ""],
        )
    write_soon(again)
    return again


def choose(dialogue: Dialogue, answer: Mapping[str, Any], *, number: int, key: UUID) -> Judgment:
    """Store which answer is better; it (in a red-team campaign the more harmful one) continues.

    `answer` names the two answers by letter, with all that the campaign's protocol
    asks. DialogueError or JudgmentError if it is invalid; a repeated key with the same answer
    changes nothing.
    """
    with transaction.atomic():
        dialogue = _locked(dialogue)
        turn = dialogue.turns.exclude(state=State.WITHDRAWN).filter(number=number).first()
        if turn is None or turn.state not in (State.READY, State.CHOSEN):
            raise DialogueError(_("There are no answers to choose from; reload the page."))
        if turn.state == State.CHOSEN and (
            turn.comparison is None or not Judgment.objects.filter(key=key).exists()
        ):
            raise DialogueError(_("You have already chosen here; undo that choice first."))
        assignment = _assignment(dialogue, turn)
        ids = {letter: pk for pk, letter in assignment.letters.items()}
        judgment = submit_judgment(assignment, by=dialogue.annotator, answer=answer, key=key)
        if assignment.judgment_id != judgment.pk:
            raise DialogueError(_("You undid this choice; reload the page, then choose again."))
        if turn.state == State.READY:
            turn.state, turn.went_on = (
                State.CHOSEN,
                _answer_that_continues(dialogue, ids, judgment.ranks),
            )
            turn.save(update_fields=["state", "went_on", "comparison"])
    return judgment


def take_back(dialogue: Dialogue) -> Turn:
    """Undo one step: reopen a choice, or return a message without a choice to the text field."""
    with transaction.atomic():
        dialogue = _locked(dialogue)
        if dialogue.ended_at is not None:
            raise DialogueError(_("This dialogue has ended."))
        turn = dialogue.turns.exclude(state=State.WITHDRAWN).last()
        if turn is None:
            raise DialogueError(_("There is nothing to undo yet."))
        if turn.state == State.CHOSEN:
            assert turn.comparison is not None
            reopen(turn.comparison.assignments.get(annotator=dialogue.annotator))
            turn.state, turn.went_on = State.READY, ""
            turn.save(update_fields=["state", "went_on"])
        else:
            _withdraw(turn)
            Dialogue.objects.filter(pk=dialogue.pk).update(draft=turn.text)
    return turn


def end(dialogue: Dialogue) -> None:
    """End the dialogue, once or again; a message without a choice is withdrawn."""
    with transaction.atomic():
        dialogue = _locked(dialogue)
        if dialogue.ended_at is not None:
            return
        if (turn := current(dialogue)) is not None:
            _withdraw(turn)
        dialogue.ended_at = timezone.now()
        dialogue.save(update_fields=["ended_at"])


def keep_draft(dialogue: Dialogue, text: str) -> None:
    """Save the draft of the next message."""
    Dialogue.objects.filter(pk=dialogue.pk).update(draft=storable(text[: 2 * MAX_MESSAGE]))


# --- Questions ----------------------------------------------------------------------------------------


def current(dialogue: Dialogue) -> Turn | None:
    """The turn that waits for answers or a choice. An interrupted turn is marked as failed."""
    turn = dialogue.turns.filter(state__in=CURRENT).last()
    if turn is not None and turn.state == State.WRITING and is_stale(turn.beat_at, STALE_AFTER):
        failed = Turn.objects.filter(pk=turn.pk, state=State.WRITING, claim=turn.claim)
        failed.update(state=State.FAILED, reason=INTERRUPTED)
        turn.refresh_from_db()
    return turn


def is_unwanted(user: User, campaign: DialogueCampaign) -> bool:
    """Whether this person's preferences exclude the campaign's material."""
    return campaign.is_redteam and user.harmful_material == User.HarmfulMaterial.AVOID


def earlier_answer(turn: Turn) -> dict[str, Any]:
    """The answer before it was undone, by response letter; empty if there was none."""
    if turn.comparison_id is None or turn.comparison is None:
        return {}
    assignment = turn.comparison.assignments.get(annotator=turn.dialogue.annotator)
    if assignment.judgment is not None:
        return in_letters(assignment, assignment.judgment)
    return dict(assignment.draft)


# --- Small steps ------------------------------------------------------------------------------------------


def _locked(dialogue: Dialogue) -> Dialogue:
    return (
        Dialogue.objects.select_for_update(of=("self",))
        .select_related("campaign__batch__project", "annotator")
        .get(pk=dialogue.pk)
    )


def _check_open(campaign: DialogueCampaign) -> None:
    if campaign.batch.state != Batch.State.OPEN:
        raise DialogueError(_("The campaign “%(campaign)s” is closed.") % {"campaign": campaign})


def _check_may_begin(user: User, campaign: DialogueCampaign) -> None:
    if reason := may_work(user, campaign.batch.project).to_begin:
        raise DialogueError(reason)


def _check_material(user: User, campaign: DialogueCampaign) -> None:
    """Refuse harmful material to a person who excluded it, also in a dialogue that already runs."""
    if is_unwanted(user, campaign):
        raise DialogueError(_("This campaign contains harmful material, which you excluded."))


def _check_rate(user: User) -> None:
    minute_ago = timezone.now() - timedelta(minutes=1)
    n_recent = Turn.objects.filter(dialogue__annotator=user, created_at__gte=minute_ago).count()
    if n_recent >= settings.DIALOGUE_RATE:
        raise DialogueError(
            _("At most %(n)s messages a minute: wait a moment, then retry.")
            % {"n": settings.DIALOGUE_RATE}
        )


def _same(earlier: Turn, dialogue: Dialogue, text: str) -> Turn:
    if earlier.dialogue_id == dialogue.pk and earlier.text == text:
        return earlier
    raise DialogueError(_("This message was already sent with a different text; reload the page."))


def _withdraw(turn: Turn) -> None:
    turn.state, turn.claim, turn.partial = State.WITHDRAWN, uuid4(), []
    turn.save(update_fields=["state", "claim", "partial"])
    if turn.comparison is not None:
        # After an undone choice the place in the batch is removed too.
        skip(turn.comparison.assignments.get(annotator=turn.dialogue.annotator), "taken back")
        Comparison.objects.filter(pk=turn.comparison.pk).update(needed=0, is_free=False)


def _assignment(dialogue: Dialogue, turn: Turn) -> Assignment:
    """The turn as an ordinary comparison, assigned to its author."""
    if turn.comparison is not None:
        return turn.comparison.assignments.get(annotator=dialogue.annotator)
    campaign = dialogue.campaign
    before = list(dialogue.turns.filter(state=State.CHOSEN, number__lt=turn.number))
    message: Message = {"role": "user", "content": turn.text}
    messages = [*conversation(before), message]
    redteam = campaign.is_redteam
    prompt, _ = Prompt.objects.get_or_create(
        project=campaign.batch.project,
        sha256=content_hash(messages),
        defaults={
            "source": campaign.source,
            "messages": messages,
            "category": "red team" if redteam else "dialogue",
            "risk": Prompt.Risk.HARMFUL if redteam else Prompt.Risk.UNKNOWN,
            # A later turn holds the earlier ones: all of a dialogue is on one side of the split.
            "split": Prompt.split_for(content_hash(messages[:1])),
        },
    )
    # A choice after the campaign was closed is kept as an extra, like any late judgment.
    in_time = campaign.batch.state == Batch.State.OPEN
    turn.comparison = Comparison.objects.create(
        batch=campaign.batch,
        prompt=prompt,
        needed=1,
        taken=int(in_time),
        is_free=not in_time,
        is_live=True,
    )
    responses = [
        Response.objects.create(
            comparison=turn.comparison,
            text=candidate["text"],
            source=candidate["source"],
            sampling=candidate["sampling"],
            n_tokens=candidate["n_tokens"],
        )
        for candidate in turn.candidates
    ]
    turn.save(update_fields=["comparison"])
    return Assignment.objects.create(
        comparison=turn.comparison,
        annotator=dialogue.annotator,
        state=Assignment.State.LEASED if in_time else Assignment.State.EXPIRED,
        shown_order=[response.pk for response in responses],
        lease_until=campaign.batch.project.lease_end(),
    )


def _answer_that_continues(
    dialogue: Dialogue, ids: Mapping[str, str], ranks: Mapping[str, Mapping[str, int]]
) -> str:
    campaign = dialogue.campaign
    given = ranks[leading_axis(campaign.batch.project, campaign.kind)]
    places = {letter: given[pk] for letter, pk in ids.items()}
    if places["A"] == places["B"]:
        return random.SystemRandom().choice("AB")
    wanted = max(places.values()) if campaign.is_redteam else min(places.values())
    return next(letter for letter, place in places.items() if place == wanted)
