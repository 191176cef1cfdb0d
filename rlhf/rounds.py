"""Rounds: opening, advancing from stage to stage, ending. The only writers of `Round.state`.

Every act is a conditional update on the expected state, with its line in the audit log in the same
transaction. An act returns the job that it creates, or None: people do the next stage, or another
request came first. No act sends a message; the caller passes the job to `tasks.wake`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Max
from django.utils import timezone

from annotation.models import Batch, Event, Project, User
from annotation.projects import batches
from rlhf import jobs
from rlhf.doubts import doubts_about
from rlhf.errors import RoundError
from rlhf.model_paths import model_path
from rlhf.models import Checkpoint, Job, Round
from rlhf.preflight import preflight
from rlhf.round_config import (
    FrozenConfig,
    base_config,
    default_config,
    freeze,
    parsed,
    with_changes,
    without_filled_in,
)
from rlhf.selection import select
from rlhf.stages import STAGES
from rlhf.stages.prompts import pool
from rlhf.training.model_files import read_shape
from rlhf.verdict import propose_verdict

State = Round.State

OUTSIDE_THE_PLAN = {
    "selection": ("could not score comparisons in", "scored waiting comparisons in"),
    "calibrate": ("could not measure the model of", "measured the model of"),
}
"""Jobs that no round waits for: the audit log's words when they failed, and when they are done."""

RETRAINED = ("epochs", "rankings_per_batch", "learning_rate")
"""The settings of the reward models that a person may change while a round waits for a decision."""

# --- Opening the base round -------------------------------------------------------------------


def open_base_round(
    project: Project,
    by: User | None,
    *,
    preset_name: str = "",
    seed: int = 0,
    policy: str = "",
) -> Job | None:
    """Round 0: build the base policy (or take the model named `policy`) and measure it.

    There is one base per project: a second call returns what is running, or resumes where the first
    one stopped (with another model, if one is named now); None when it is done.
    """
    policy = model_path(policy, project) if policy else ""
    existing = Round.objects.select_related("project").filter(project=project, number=0).first()
    if existing is not None and existing.has_ended:
        if existing.state == State.DONE:
            return None
        if policy and (existing.policy is None or existing.policy.path != policy):
            with transaction.atomic():
                return _restart_with(existing, policy, by)
        return retry_stage(existing, by)
    if existing is not None:
        return existing.jobs.exclude(state__in=Job.ENDED).first()
    plan = list(Round.BASE_PLAN)
    if not pool(project, "heldout").exists():
        # Imported comparisons alone: reward models can start from the base, nothing measures it.
        plan.remove("evaluate")
    config = base_config(project, preset_name, is_named=bool(policy))
    round = Round(project=project, number=0, plan=plan, config=config, seed=seed, created_by=by)
    if policy:
        _skip_building(round)
    try:
        with transaction.atomic():
            job = _launch(round, by)
            if policy:
                _use_model(round, policy)
    except IntegrityError:
        raise RoundError("Somebody else has just started the base policy.") from None
    return job


def _skip_building(round: Round) -> None:
    """Take the stage that builds out of a base round that is given its model."""
    round.plan = [stage for stage in round.plan if stage != "base"]
    round.config.pop("base", None)


def _use_model(round: Round, path: str) -> None:
    """Make the named model the round's policy; where nothing measures it, that ends the round."""
    shape = read_shape(path)
    round.policy = Checkpoint.objects.create(
        project=round.project,
        kind=Checkpoint.Kind.POLICY,
        name=Path(path).name[:120],
        path=path,
        round=round,
        # A name on a hub tells neither; `calibrate` fills them in.
        n_bytes=shape.n_bytes if shape else 0,
        n_parameters=shape.n_parameters if shape else 0,
    )
    round.save(update_fields=["policy"])
    if not round.plan:
        enter_next(round)


def _restart_with(round: Round, path: str, by: User | None) -> Job | None:
    """Give a base round that stopped another model than the one that it stopped with."""
    _skip_building(round)
    round.failed_stage = round.plan[0] if round.plan else ""
    round.save(update_fields=["plan", "config", "failed_stage"])
    Event.record(round.project, by, "named another model for", round, model=path)
    _use_model(round, path)
    return retry_stage(round, by) if round.plan else None


# --- Opening ----------------------------------------------------------------------------------


def open_round(
    project: Project,
    *,
    by: User | None,
    config: Mapping[str, Mapping[str, Any]] | FrozenConfig | None = None,
    acknowledged: Sequence[str] = (),
    seed: int | None = None,
) -> Job | None:
    """Launch a round: numbered, its configuration frozen. The round is `job.round`.

    `acknowledged` are the keys of the warnings that the person has read. RoundError says which check
    stands against the launch.
    """
    frozen = freeze(config or default_config(project), Round.FULL_PLAN, project)
    for check in preflight(project, frozen):
        if check.verdict == "no-go":
            raise RoundError(f"{check.question} {check.answer} {check.fix}".strip())
        if check.verdict == "warning" and check.key not in acknowledged:
            raise RoundError(
                f"{check.question} {check.answer} Acknowledge this warning to launch anyway."
            )
    round = Round(
        project=project,
        plan=list(Round.FULL_PLAN),
        config=frozen.to_dict(),
        start_policy=Checkpoint.objects.current_policy(project),
        created_by=by,
    )
    return open_numbered(round, by, seed)


def open_reward_round(
    project: Project,
    batches: Sequence[Batch],
    by: User | None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> Job | None:
    """Train reward models from judgments that exist already, without asking anybody."""
    if not batches:
        raise RoundError("Choose at least one batch of judgments.")
    if any(batch.project_id != project.pk for batch in batches):
        raise RoundError("These judgments belong to another project.")
    start = Checkpoint.objects.current_policy(project)
    if start is None:
        raise RoundError(
            "Build the base policy, or name a model, for the reward models to start from."
        )
    if config is None:
        defaults = default_config(project)
        config = {section: defaults[section] for section in ("round", "reward_model")}
    frozen = freeze(config, Round.REWARD_ONLY_PLAN, project).to_dict()
    frozen["round"]["batches"] = [batch.pk for batch in batches]
    round = Round(
        project=project,
        plan=list(Round.REWARD_ONLY_PLAN),
        config=frozen,
        start_policy=start,
        created_by=by,
    )
    return open_numbered(round, by, None)


def open_numbered(round: Round, by: User | None, seed: int | None, first: int = 1) -> Job | None:
    """Launch a round under the next number; two admins who launch at once wait for each other."""
    try:
        with transaction.atomic():
            project = Project.objects.lock(round.project_id)
            _check_none_live(project)
            last = Round.objects.filter(project=project).aggregate(last=Max("number"))["last"]
            round.number = first if last is None else last + 1
            base = Round.objects.filter(project=project, number=0).first()
            round.seed = seed if seed is not None else (base.seed if base else 0) + round.number
            return _launch(round, by)
    except IntegrityError:
        raise RoundError("Somebody else has just opened this round.") from None


def _check_none_live(project: Project) -> None:
    live = Round.objects.live(project)
    if live:
        raise RoundError(f"{live} is still in {Round.stage_name(live.state)}.")


def _launch(round: Round, by: User | None) -> Job | None:
    """Save a new round and enter the first stage of its plan; inside a transaction."""
    round.launched_at = timezone.now()
    with transaction.atomic():
        round.save(force_insert=True)
        Event.record(round.project, by, "launched", round, plan=round.plan, seed=round.seed)
        return _enter(round, round.plan[0]) if round.plan else None


# --- From stage to stage ----------------------------------------------------------------------


def close_annotation(round: Round, by: User | None) -> Job | None:
    """Close the batch and start the snapshot. None if another request has closed it already."""
    if round.batch is None:
        raise RoundError("The round has no batch to close yet.")
    if not round.batch.comparisons.filter(judged__gt=0).exists():
        raise RoundError("There are no judgments yet, so no reward model can be trained.")
    with transaction.atomic():
        round = locked(round)
        if round.state != State.ANNOTATE or round.batch is None:
            return None
        batches.close_batch(round.batch, by)
        Event.record(round.project, by, "closed annotation of", round)
        return enter_next(round)


def settle(job: Job, outcome: jobs.Outcome) -> None:
    """Write what came of a claim, and what follows: outputs, state and next job in one transaction.

    `jobs.Lost` if the claim is over: then nothing is written at all.
    """
    with transaction.atomic():
        jobs.lock_round(job)
        if jobs.record(job, outcome):
            advance(Job.objects.select_related("round__project", "project").get(pk=job.pk))


def advance(job: Job) -> Job | None:
    """What follows for its round from a job that has ended, in the transaction that ends it."""
    round = Round.objects.select_related("project").get(pk=job.round_id)
    if job.stage in OUTSIDE_THE_PLAN:
        verb = OUTSIDE_THE_PLAN[job.stage][job.state == Job.State.DONE]
        Event.record(round.project, None, verb, round, job=str(job.uid), reason=job.reason)
        return None
    if round.state != job.stage:
        return None  # the round has been cancelled or has moved on
    if round.jobs.filter(stage=job.stage, pk__gt=job.pk).exists():
        return None  # the stage was retried while this job was still stopping
    if job.state == Job.State.DONE:
        Event.record(round.project, None, "finished", f"{job.stage} of {round}", job=str(job.uid))
        if job.stage in ("generate", "reward_model"):
            # Before the next stage: scoring takes moments, PPO may hold the machine for hours.
            select(round)
        waits = job.stage == "inspection" or _hold_in_doubt(round, job)  # until a person has looked
        return None if waits else enter_next(round)
    if job.state in (Job.State.FAILED, Job.State.CANCELLED):
        failed = job.state == Job.State.FAILED
        _leave(round, State.FAILED if failed else State.CANCELLED, failed_stage=job.stage)
        verb = "failed" if failed else "stopped"
        Event.record(round.project, None, verb, f"{job.stage} of {round}", reason=job.reason)
    return None


def _hold_in_doubt(round: Round, job: Job) -> bool:
    """Let the round wait where its reward models are in doubt; `continue_in_doubt` or `retrain` ends it."""
    if job.stage != State.REWARD_MODEL or State.PPO not in round.plan:
        return False
    doubts = doubts_about(job.metrics)
    if doubts:
        hold = {"stage": job.stage, "doubts": doubts, "at": timezone.now().isoformat()}
        undecided = {"decision": "", "by": "", "decided_at": None, "note": ""}
        round.holds = [*round.holds, hold | undecided]
        round.save(update_fields=["holds"])
        Event.record(round.project, None, "waits for a decision on", round, reason=" ".join(doubts))
    return bool(doubts)


def fail_expired() -> list[Job]:
    """End the jobs whose lease ran out and that may not be claimed again."""
    ended = []
    for job in Job.objects.expired().select_related("round", "project"):
        with transaction.atomic():
            jobs.lock_round(job)
            if jobs.end_expired(job):
                advance(job)
                ended.append(job)
    return ended


def enter_next(round: Round) -> Job | None:
    """From the stage that the round is in to the next of its plan, or to the end."""
    place = round.plan.index(round.state) if round.plan else 0
    if place + 1 < len(round.plan):
        return _enter(round, round.plan[place + 1])
    if not _leave(round, State.DONE):
        return None
    if round.policy_id and (round.number == 0 or "inspection" in round.plan):
        Checkpoint.objects.filter(pk=round.policy_id).update(state=Checkpoint.State.PROMOTED)
    return None


def _enter(round: Round, stage: str) -> Job | None:
    """Enter a stage. Returns its job; None if people do the stage or another request came first."""
    now = timezone.now().isoformat()
    times = dict(round.stage_times)
    if round.state in times:
        times[round.state] = [times[round.state][0], now]
    times[stage] = [now, None]
    is_ours = Round.objects.filter(pk=round.pk, state=round.state).update(
        state=stage, stage_times=times, failed_stage="", ended_at=None
    )
    if not is_ours:
        return None
    round.refresh_from_db()
    return jobs.enqueue(round, stage) if stage in STAGES else None


def _leave(round: Round, state: str, **fields: Any) -> bool:
    """End a round in its current stage; False if another request came first."""
    now = timezone.now()
    times = dict(round.stage_times)
    if round.state in times:
        times[round.state] = [times[round.state][0], now.isoformat()]
    is_ours = Round.objects.filter(pk=round.pk, state=round.state).update(
        state=state, stage_times=times, ended_at=now, **fields
    )
    round.refresh_from_db()
    return bool(is_ours)


def locked(round: Round) -> Round:
    """The round as it is now, locked until the transaction ends."""
    rows = Round.objects.select_for_update(of=("self",)).select_related("project", "batch")
    return rows.get(pk=round.pk)


# --- Doubts about the reward models -----------------------------------------------------------


def continue_in_doubt(round: Round, note: str, by: User | None) -> Job | None:
    """Go on to PPO with reward models that are in doubt; RoundError without a reason. None if the round
    does not wait any more."""
    if not note.strip():
        raise RoundError("Say in a sentence why the round may go on with these reward models.")
    with transaction.atomic():
        round = locked(round)
        if not _decide_hold(round, "continued", note, by):
            return None
        return enter_next(round)


def retrain(round: Round, changes: Mapping[str, Any], note: str, by: User | None) -> Job | None:
    """Train the reward models of a round that waits again, with other settings (`RETRAINED`);
    RoundError where none is changed. None if the round does not wait any more."""
    if unknown := sorted(set(changes) - set(RETRAINED)):
        raise RoundError(f"{unknown[0]} can't be changed here, only {', '.join(RETRAINED)}.")
    with transaction.atomic():
        round = locked(round)
        config = with_changes(round.config, {"reward_model": changes})
        trained = without_filled_in(parsed("reward_model", config["reward_model"]))
        before = without_filled_in(parsed("reward_model", round.config["reward_model"]))
        changed = [
            f"{name} {before[name]} → {trained[name]}"
            for name in changes
            if trained[name] != before[name]
        ]
        if round.open_hold and not changed:
            raise RoundError("Change a setting: the same ones give the same reward models.")
        words = ", ".join(changed)
        if not _decide_hold(round, "retrained", f"{words}. {note.strip()}".strip(), by):
            return None
        round.config = config | {"reward_model": trained}
        round.save(update_fields=["config"])
        return _enter(round, State.REWARD_MODEL)


def _decide_hold(round: Round, decision: str, note: str, by: User | None) -> bool:
    """Record what a person decided about the doubts for which a locked round waits; False if it does
    not wait."""
    if round.open_hold is None:
        return False
    round.open_hold.update(
        decision=decision,
        by=str(by) if by else "",
        decided_at=timezone.now().isoformat(),
        note=note.strip(),
    )
    round.save(update_fields=["holds"])
    Event.record(round.project, by, f"{decision} in doubt", round, note=note.strip())
    return True


# --- The verdict ------------------------------------------------------------------------------


def give_verdict(round: Round, verdict: str, note: str, by: User | None) -> None:
    """Promote or refuse the round's policy; that ends the round. RoundError in any other stage."""
    if verdict not in ("promoted", "refused"):
        raise RoundError("A verdict is “promoted” or “refused”.")
    proposal = propose_verdict(round)
    if verdict != proposal.verdict and not note.strip():
        raise RoundError("The gate proposes the opposite; say in a note why you decide otherwise.")
    with transaction.atomic():
        if round.state != State.VERDICT or not _leave(
            round,
            State.DONE,
            verdict=verdict,
            verdict_note=note.strip(),
            verdict_by=by,
            verdict_evidence=proposal.as_json(),
        ):
            raise RoundError(f"{round} is not waiting for a verdict.")
        if round.policy_id is not None:
            Checkpoint.objects.filter(pk=round.policy_id).update(state=verdict)
        Event.record(
            round.project, by, verdict, round, note=note.strip(), proposal=proposal.verdict
        )


def retire_policy(policy: Checkpoint, note: str, by: User | None) -> None:
    """Roll back a promotion: the next round starts from the policy that was promoted before it.

    What the policy made, and a server that answers with it, stay. RoundError where it isn't promoted,
    where it is the only one, or without a reason.
    """
    if not note.strip():
        raise RoundError("Say in a sentence why the policy is rolled back.")
    with transaction.atomic():
        # Two admins who roll back the last two at the same moment wait for each other here.
        project = Project.objects.select_for_update().get(pk=policy.project_id)
        promoted = Checkpoint.objects.promoted_policies(project)
        if not promoted.exclude(pk=policy.pk).exists():
            raise RoundError(f"{policy} is the only one that a round could start from.")
        if not promoted.filter(pk=policy.pk).update(state=Checkpoint.State.RETIRED):
            raise RoundError(f"{policy} is not promoted.")
        Event.record(project, by, "rolled back", policy, note=note.strip())


# --- Cancelling and retrying ------------------------------------------------------------------


def cancel_round(round: Round, by: User | None) -> bool:
    """End a running round; its running job is stopped. False if it has ended already."""
    with transaction.atomic():
        # Locked, so that it can't move on to its next stage in between.
        round = locked(round)
        stage = round.state
        _decide_hold(round, "cancelled", "", by)
        if round.has_ended or not _leave(round, State.CANCELLED, failed_stage=stage):
            return False
        if round.batch is not None and stage == State.ANNOTATE:
            batches.close_batch(round.batch, by)
        Event.record(round.project, by, "cancelled", round, stage=stage)
        for job in round.jobs.exclude(state__in=Job.ENDED):
            cancel_job(job, by)
    return True


def cancel_job(job: Job, by: User | None) -> bool:
    """Stop one stage's job; its round can be retried from there. False if it has ended already."""
    with transaction.atomic():
        jobs.lock_round(job)
        is_stopped = jobs.request_cancel(job, by)
        if is_stopped and job.has_ended:
            advance(job)
    return is_stopped


def retry_stage(round: Round, by: User | None) -> Job | None:
    """Resume a round that failed or was cancelled, from the stage where it stopped.

    Finished stages are kept; the stage that stopped gets a new job. None if another request came
    first.
    """
    with transaction.atomic():
        project = Project.objects.lock(round.project_id)
        round = Round.objects.select_related("project", "batch").get(pk=round.pk)
        if round.state not in (State.FAILED, State.CANCELLED) or not round.failed_stage:
            raise RoundError(f"{round} has not stopped, so there is nothing to retry.")
        _check_none_live(project)
        stage = round.failed_stage
        if stage == State.ANNOTATE and round.batch is not None:
            batches.open_batch(round.batch, by)
        Event.record(project, by, "retried", f"{stage} of {round}")
        return _enter(round, stage)
