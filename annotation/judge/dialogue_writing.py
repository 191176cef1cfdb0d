"""The two answers of a dialogue's turn, written side by side.

Answers are written by a thread of the web server and kept in the turn's row as they grow, so any
number of pages can follow, from any web process, and a lost connection loses nothing. Both answers
are shown equally far at each moment: how fast each came would tell which policy wrote it.
"""

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from annotation.judge.candidates import AnswerReport, CandidateError, Candidates, Writer, candidates
from annotation.lib.text import storable
from annotation.models import Message, Turn

State = Turn.State
TICK = 0.2
"""Seconds between two looks at what has been written."""
DRAWS = 3
"""How often the second answer is sampled again when both are identical."""
ALIKE = gettext_noop(
    "Both answers are identical, so there is nothing to choose. Retry, or rephrase the message."
)

log = logging.getLogger(__name__)


def conversation(turns: Sequence[Turn]) -> list[Message]:
    """Chosen turns as messages, each with the answer that went on."""
    messages: list[Message] = []
    for turn in turns:
        kept = turn.candidates["AB".index(turn.went_on)]["text"]
        messages.append({"role": "user", "content": turn.text})
        messages.append({"role": "assistant", "content": kept})
    return messages


@dataclass
class GrowingAnswer:
    """One answer as it grows, filled by a thread of its own."""

    writer: Writer
    text: str = ""
    report: AnswerReport = field(default_factory=AnswerReport)
    problem: str = ""
    is_done: bool = False
    is_wanted: bool = True

    def write(self, candidates: Candidates, messages: Sequence[Message]) -> None:
        try:
            pieces = candidates.write(self.writer, messages, self.report)
            for piece in pieces:
                self.text += piece
                if not self.is_wanted:
                    break
        except CandidateError as problem:
            self.problem = str(problem)
        except Exception:
            log.exception("An answer could not be written.")
            self.problem = "The policy could not answer. Your message is saved: retry."
            raise
        finally:
            self.is_done = True
            connection.close()


def level(texts: Sequence[str], done: Sequence[bool]) -> list[str]:
    """Texts cut so that all are shown equally far; one that is done may be shown whole before.

    >>> level(["a long one", "short"], [False, False])
    ['a lon', 'short']
    """
    growing = [len(text) for text, is_done in zip(texts, done, strict=True) if not is_done]
    if not growing:
        return list(texts)
    return [text[: min(growing)] for text in texts]


def write_turn(turn: Turn, *, tick: float = TICK) -> None:
    """Write a turn's answers, from its claim to READY or FAILED; stop when the claim is another's."""
    source = candidates()
    before = turn.dialogue.turns.filter(state=State.CHOSEN, number__lt=turn.number)
    question: Message = {"role": "user", "content": turn.text}
    messages = [*conversation(list(before)), question]
    answers = [GrowingAnswer(Writer(**writer)) for writer in turn.writers]
    mine = Turn.objects.filter(pk=turn.pk, claim=turn.claim, state=State.WRITING)
    try:
        for draw in range(DRAWS):
            for answer in answers:
                if not answer.is_done:
                    threading.Thread(
                        target=answer.write, args=(source, messages), daemon=True
                    ).start()
            while not all(answer.is_done for answer in answers):
                time.sleep(tick)
                shown = level(
                    [answer.text for answer in answers], [answer.is_done for answer in answers]
                )
                if not mine.update(partial=shown, beat_at=timezone.now()):
                    return  # taken back, or ended
            if any(answer.problem for answer in answers) or answers[0].text != answers[1].text:
                break
            if draw < DRAWS - 1:
                answers[1] = GrowingAnswer(answers[1].writer)
    finally:
        for answer in answers:
            answer.is_wanted = False
    problem = next((answer.problem for answer in answers if answer.problem), "")
    if not problem and answers[0].text.strip() == answers[1].text.strip():
        problem = ALIKE
    if problem:
        mine.update(state=State.FAILED, reason=problem[:300])
        return
    mine.update(
        state=State.READY,
        partial=[],
        is_full=any(answer.report.is_full for answer in answers),
        candidates=[
            {
                "text": storable(answer.text, "\ufffd"),
                "source": answer.writer.source,
                "sampling": answer.writer.sampling | {"finished": not answer.report.is_cut_off},
                "n_tokens": answer.report.n_tokens,
            }
            for answer in answers
        ],
    )


def write_soon(turn: Turn) -> None:
    def run() -> None:
        try:
            write_turn(Turn.objects.select_related("dialogue").get(pk=turn.pk))
        except DatabaseError:
            log.warning("The database went away; a turn is left to be asked again.", exc_info=True)
        finally:
            connection.close()

    transaction.on_commit(threading.Thread(target=run, name="answers", daemon=True).start)
