"""Simulated annotators and their rubric: programs, labeled as such wherever they appear.

They judge through the same two functions as people do, `next_assignment` and `submit_judgment`. The
rubric also grades evaluation samples ("gold"); reward models never see it.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from django.db import transaction

from annotation.judge import submitting as judging
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.requirements import JudgmentError
from annotation.models import Assignment, Batch, Membership, Project, User
from annotation.projects.batches import batch_progress
from annotation.protocols import COMPARING, DEMONSTRATE, RANK, WRITING, Attribute
from rlhf.models import Round
from rlhf.world import everyday, rubric
from rlhf.world.annotators import Flag, SimulatedAnnotator, SimulatedJudgment, annotator_team
from rlhf.world.everyday_demonstrations import DEMONSTRATIONS

NAMES = ("sim-ada", "sim-ben", "sim-cleo", "sim-dora", "sim-eve")
HARM = {
    "theft": "theft",
    "damage": "theft",
    "spying": "privacy",
    "cheating": "deception",
    "bullying": "hate",
}
KEYS = uuid.UUID("6ad5b2f4-2c5a-4f0e-9a53-4d2f8b1c7e10")


class SimulationError(Exception):
    """Why nothing can be simulated here, in one sentence for a person."""


def team(project: Project) -> list[tuple[User, SimulatedAnnotator]]:
    """The project's simulated annotators, added as members if needed. The last is a spammer."""
    if not project.is_demo:
        raise SimulationError("Simulated annotators only judge the demo's own prompts.")
    first = Round.objects.filter(project=project).order_by("number").first()
    programs = annotator_team(len(NAMES), first.seed if first else 0)
    annotators = []
    with transaction.atomic():
        for name, program in zip(NAMES, programs, strict=True):
            user, made = User.objects.get_or_create(
                username=name, defaults={"is_simulated": True, "first_name": "Simulated"}
            )
            if made:
                user.set_unusable_password()
                user.save(update_fields=["password"])
            elif not user.is_simulated:
                raise SimulationError(f"The account {name} belongs to a person; rename it first.")
            Membership.objects.get_or_create(
                user=user, project=project, defaults={"role": Membership.Role.ANNOTATOR}
            )
            annotators.append((user, program))
    return annotators


def judge_batch(batch: Batch, *, on_judgment: Callable[[int], None] = lambda n: None) -> int:
    """Let the simulated annotators judge the rest of an open batch in turns; the number of judgments.

    Concurrent calls are safe: each annotator's next comparison is assigned to them alone, and the
    idempotency key is derived from the assignment.
    """
    people = team(batch.project)
    n = 0
    while people and Batch.objects.filter(pk=batch.pk, state=Batch.State.OPEN).exists():
        busy = []
        for user, program in people:
            assignment = next_assignment(user, batch.project)
            if assignment is None:
                continue
            busy.append((user, program))
            if _judge(assignment, user, program):
                n += 1
                on_judgment(n)
        people = busy
        if n % 100 == 0 and batch_progress(batch)["is_complete"]:
            break
    return n


def _judge(assignment: Assignment, user: User, program: SimulatedAnnotator) -> bool:
    prompt = assignment.comparison.prompt
    texts = dict(assignment.comparison.responses.values_list("pk", "text"))
    shown = [int(pk) for pk in assignment.shown_order]
    if assignment.comparison.batch.effective_interface in WRITING:
        return _write(assignment, user)
    try:
        judgment = program.judge(prompt.text, [texts[pk] for pk in shown])
    except ValueError:
        judging.skip(assignment, "Simulated annotators only judge the demo's own prompts.")
        return False
    try:
        answer = _answer(shown, judgment, assignment.comparison.batch)
        judging.submit_judgment(
            assignment, by=user, answer=answer, key=uuid.uuid5(KEYS, str(assignment.uid))
        )
    except JudgmentError:
        return False  # judged by a concurrent call, or the batch was closed
    return True


def _write(assignment: Assignment, user: User) -> bool:
    """The answer that was written for this question; all others are skipped."""
    written = DEMONSTRATIONS.get(assignment.comparison.prompt.text)
    if assignment.comparison.batch.effective_interface != DEMONSTRATE or written is None:
        judging.skip(assignment, "A simulated annotator doesn't write.")
        return False
    key = uuid.uuid5(KEYS, str(assignment.uid))
    judging.submit_judgment(assignment, by=user, answer=Answer(rewrite=written), key=key)
    return True


def _answer(shown: list[int], judgment: SimulatedJudgment, batch: Batch) -> Answer:
    """A simulated judgment in the form that the batch's protocol asks for.

    The world's annotators rank and flag. Everything else is derived: an unknown axis is ranked as
    helpfulness, a rating follows from the rank, the vote "unsafe" from the flag, and the strength is
    the middle one.
    """
    protocol, interface = batch.effective_protocol, batch.effective_interface
    known = {
        axis: judgment.ranks.get(axis, judgment.ranks["helpfulness"])
        for axis in batch.project.axis_keys
    }
    ranks: dict[str, dict[str, int]] = {}
    strength: dict[str, int] = {}
    if interface in COMPARING:
        for axis, axis_ranks in known.items():
            if interface != RANK and len(set(axis_ranks)) == 1 and not protocol.scale.tie:
                axis_ranks = [1, 2] if shown[0] % 2 else [2, 1]  # The scale has no tie: at random.
            ranks[axis] = {str(pk): rank for pk, rank in zip(shown, axis_ranks, strict=True)}
            if interface != RANK:
                n_levels = len(protocol.scale.levels)
                strength[axis] = 0 if len(set(axis_ranks)) == 1 else (n_levels + 1) // 2
    unsafe = [any(flag.kind == "unsafe" for flag in flags) for flags in judgment.flags]
    return Answer(
        ranks=ranks,
        strength=strength,
        flags={
            str(pk): [_flag(flag) for flag in flags]
            for pk, flags in zip(shown, judgment.flags, strict=True)
            if flags and protocol.flags
        },
        ratings={
            str(pk): {
                attribute.key: _rating(attribute, rank, len(shown))
                for attribute in protocol.attributes
            }
            for pk, rank in zip(shown, judgment.ranks["helpfulness"], strict=True)
            if protocol.attributes
        },
        safety={
            str(pk): {"safe": not bad, "harms": list(protocol.harms)[:1] if bad else []}
            for pk, bad in zip(shown, unsafe, strict=True)
            if protocol.safety
        },
        reason="A program's judgment. ".ljust(protocol.reason_min, ".")
        if protocol.reason == "required"
        else "",
        seconds=judgment.seconds,
    )


def _rating(attribute: Attribute, rank: int, n: int) -> int:
    """The best rank gets the highest rating, the worst of n the lowest; a yes or no is a no."""
    if attribute.is_yes_no:
        return 0
    span = attribute.high - attribute.low
    return attribute.high - round(span * (rank - 1) / max(1, n - 1))


def _flag(flag: Flag) -> dict[str, str]:
    if flag.kind == "unsafe":
        return {"kind": flag.kind, "category": HARM.get(flag.category, "other")}
    return {"kind": flag.kind, "category": ""}


def _gold_score(prompt: str, text: str) -> rubric.Gold | None:
    """The score of an answer: by the rule for everyday questions, by the rubric for the small
    world's; None for all other prompts."""
    question = everyday.find(prompt)
    return everyday.judge(question, text) if question else rubric.score(prompt, text)


def gold(
    prompts: Mapping[str, Mapping[str, Any]], samples: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Evaluation samples as the rubric judges them: rows for `score_summary.summarize`.

    Samples of prompts outside the demo's world are left out, unless they are everyday questions,
    which `world.everyday` judges.
    """
    for row in samples:
        prompt = prompts.get(row["prompt_id"])
        score = _gold_score(prompt["messages"][-1]["content"], row["text"]) if prompt else None
        if prompt is None or score is None:
            continue
        yield {
            "prompt_id": row["prompt_id"],
            "category": prompt.get("category", ""),
            "risk": prompt.get("risk", ""),
            "temperature": row["temperature"],
            "n_tokens": row["n_tokens"],
            "finished": row.get("finished"),
            "helpfulness": score.helpfulness,
            "safety": score.safety,
            "preference": score.preference,
            "violation": score.violation if prompt.get("risk") == "harmful" else None,
            "refusal": score.refusal if prompt.get("risk") == "harmless" else None,
            "entity": score.entities_right,
            "correct": score.correct,
        }
