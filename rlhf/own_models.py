"""A model of one's own, from its name to the policy that the next round starts from."""

from django.db import transaction

from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.models import Event, Project, User
from rlhf import rounds
from rlhf.errors import RoundError
from rlhf.model_paths import model_path
from rlhf.models import Job, Round
from rlhf.round_config import base_config, longest_response
from rlhf.stages.prompts import pool

State = Round.State


def inspect_model(
    project: Project, by: User | None, name: str, *, preset_name: str = "", seed: int = 0
) -> Job | None:
    """Read the named model and say what was understood; the round waits until `use_model`.

    Round 0 where the project has no policy yet, else a round of its own. A round that stopped before
    its model was used is taken again.
    """
    path = model_path(name, project)
    last = Round.objects.select_related("project").filter(project=project).first()
    plan = list(Round.MODEL_PLAN)
    if not pool(project, "heldout").exists():
        plan.remove("evaluate")
    length = longest_response(last.config) if last else None
    config = base_config(project, preset_name, is_named=True, is_inspected=True, length=length)
    config["inspection"] = {"policy": path}
    if last is not None and _stopped_before_its_model(last):
        with transaction.atomic():
            last.plan, last.config, last.policy = plan, config, None
            last.failed_stage, last.stage_times = plan[0], {}
            last.save(update_fields=["plan", "config", "policy", "failed_stage", "stage_times"])
            Event.record(project, by, "named another model for", last, model=path)
            return rounds.retry_stage(last, by)
    round = Round(project=project, plan=plan, config=config, created_by=by)
    return rounds.open_numbered(round, by, None if last else seed, first=0)


def _stopped_before_its_model(round: Round) -> bool:
    """Whether a round ended before it had a policy that others could start from."""
    stopped = round.state in (State.FAILED, State.CANCELLED)
    return stopped and (round.number == 0 or "inspection" in round.plan)


def use_model(round: Round, by: User | None, *, fine_tune: bool = False) -> Job | None:
    """Take the inspected model: it is measured, and the next round starts from it.

    `fine_tune`: train it first on the demonstrations that people wrote in the project.

    RoundError where it can't be used, or where nothing waits for this. None if another request came
    first, and where nothing measures it.
    """
    with transaction.atomic():
        round = rounds.locked(round)
        if round.state != State.INSPECTION or round.policy is None:
            raise RoundError(f"{round} has no model that waits to be used.")
        if refusals := round.policy.understood.get("refusals"):
            raise RoundError(str(refusals[0]))
        if fine_tune:
            if not any(True for _ in demonstrations(round.project)):
                raise RoundError(
                    "There is nothing to fine-tune on: no written answer of this project may be "
                    "trained on. Use the model as it is, or collect demonstrations first."
                )
            round.plan = ["inspection", "sft", *(s for s in round.plan if s == "evaluate")]
            round.save(update_fields=["plan"])
        how = "took and fine-tunes its own model for" if fine_tune else "took its own model for"
        Event.record(round.project, by, how, round, model=round.policy.name)
        return rounds.enter_next(round)
