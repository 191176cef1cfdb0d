"""Rounds: opening, carrying on from stage to stage, ending. The only writers of `Round.state`.

Every act is a conditional update that asks for the state it expects, with its line in the audit log
in the same transaction, and returns the next Job or None. Nothing here sends a message; the caller
hands what is returned to `tasks.wake`.
"""

import json
import math
import re
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet
from django.utils import timezone

from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.models import MAX_RESPONSES, Batch, Event, Project, Prompt, Source, User
from annotation.projects import batches
from rlhf import jobs, stages
from rlhf.models import Checkpoint, Job, Round, Score
from rlhf.stages import FILLED_IN, STAGES
from rlhf.training.architecture import T5_TYPES
from rlhf.training.configs import CONFIGS
from rlhf.training.settings import nested

State = Round.State
Config = dict[str, dict[str, Any]]
Verdict = Literal["go", "caution", "no-go"]

PRESETS = Path(__file__).parent / "training" / "presets"
ROUND_SETTINGS = (
    "ranking_prompts",
    "harmful_share",
    "overlap",
    "agreement_share",
    "reference_prompts",
    "ppo_prompts",
    "ppo_harmful_share",
    "watch_prompts",
    "heldout_prompts",
    "kl_reference",
)
"""What the section `round` of a configuration may hold: how many prompts, and what for."""
LEAST_RANKING = 4
"""Fewer prompts than this can't be split into those that train and those that measure."""


LEAST_MEASURED = 10
"""Fewer prompts than this promote nothing: resampling so few says little of how far chance goes."""


class RoundError(Exception):
    """What can't be done with a round now, in one sentence for a person."""


@dataclass(frozen=True)
class Check:
    """One question before launch, the answer, and what speaks for it. `fix` says what to do.

    `short` is what the launch button says of it: the estimate's time and energy.
    """

    key: str
    question: str
    answer: str
    verdict: Verdict
    evidence: str = ""
    fix: str = ""
    short: str = ""


# --- Configuration ----------------------------------------------------------------------------


def preset(name: str) -> Config:
    """The sections of `rlhf/training/presets/<name>.toml`; RoundError if there is no such file."""
    path = PRESETS / f"{name}.toml"
    if not name.isidentifier() or not path.exists():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise RoundError(f"There is no preset {name!r}; there are {known}.")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def default_config(project: Project, preset_name: str = "") -> Config:
    """What a round would be launched with: every setting of every stage, the preset's or the default.

    What a person has chosen for the last round is offered again, but for what does nothing, which
    earlier versions took: its default is offered, and the page marks the change.
    """
    last = Round.objects.filter(project=project, plan=Round.FULL_PLAN).order_by("-number").first()
    if last and not preset_name:
        return {
            section: _offered(section, values)
            for section, values in last.config.items()
            if section in ("round", *Round.FULL_PLAN)
        }
    chosen = preset(preset_name or _preset_for(project))
    sizes = chosen.get("round", {})
    config: Config = {"round": {name: sizes[name] for name in ROUND_SETTINGS if name in sizes}}
    if not project.is_demo:
        config["round"]["overlap"] = project.overlap
    for stage in Round.FULL_PLAN:
        if stage in STAGES and STAGES[stage].config is not None:
            given = dict(chosen.get(stage, {}))
            if stage == "generate":
                given["k"] = project.responses_per_comparison
            config[stage] = full_settings(stage, given)
    return config


def _offered(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a last round's section is offered again: an older version's may hold other settings."""
    config = STAGES[section].config if section in STAGES else None
    if config is None:
        return {name: value for name, value in values.items() if name in ROUND_SETTINGS}
    known, _ = config.split_known(values)
    kept = config.flattened(config.without_idle(known | stages.placeholders(config)))
    return nested({key: kept[key] for key in known})


def base_config(project: Project, preset_name: str = "") -> Config:
    """The configuration of the round that builds and measures the base policy."""
    chosen = preset(preset_name or _preset_for(project))
    return {
        "round": dict(chosen.get("round", {})),
        "base": full_settings("base", chosen.get("base", {}))
        | {k: v for k, v in chosen.get("base", {}).items() if k == "seed"},
        "evaluate": full_settings("evaluate", chosen.get("evaluate", {})),
    }


def full_settings(stage: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every setting of a stage that a person may choose, checked; RoundError in one sentence."""
    config = STAGES[stage].config
    if config is None:
        raise RoundError(f"The stage {stage} has no settings.")
    asked = {name: value for name, value in given.items() if name not in FILLED_IN}
    try:
        values = config.from_dict(asked | stages.placeholders(config))
    except ValueError as error:
        raise RoundError(f"{stage}: {error}.") from None
    return {name: value for name, value in values.to_dict().items() if name not in FILLED_IN}


def with_changes(config: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed, whichever way their keys are written: in nested
    tables, with dots, or as in earlier versions. RoundError names an unknown one."""
    changed = {section: dict(values) for section, values in config.items()}
    for section, values in changes.items():
        if not isinstance(values, Mapping):
            raise RoundError(f"{section} must be an object of settings.")
        before, stage = changed.get(section, {}), CONFIGS.get(section)
        try:
            changed[section] = stage.merged(before, values) if stage else {**before, **values}
        except ValueError as error:
            raise RoundError(f"{section}: {error}.") from None
    return changed


def checked_config(config: Mapping[str, Mapping[str, Any]], plan: Sequence[str]) -> Config:
    """The configuration with every setting filled in; RoundError for an unknown or impossible one."""
    known = {"round", *(stage for stage in plan if stage in STAGES and STAGES[stage].config)}
    for section in config:
        if section not in known:
            raise RoundError(f"{section!r} is not a part of this round's configuration.")
    sizes = dict(config.get("round", {}))
    for name, value in sizes.items():
        if name not in ROUND_SETTINGS:
            raise RoundError(f"round: {name!r} is not a setting of a round.")
        if name == "kl_reference" and value not in ("base", "previous"):
            raise RoundError(f"round: kl_reference must be base or previous, got {value!r}.")
        if name.endswith(("_prompts", "overlap")) and (type(value) is not int or value < 0):
            raise RoundError(f"round: {name} must be a whole number, 0 or more, got {value!r}.")
        if name.endswith("_share") and (
            isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1
        ):
            raise RoundError(f"round: {name} must be between 0 and 1, got {value!r}.")
    if "generate" in plan and not 1 <= sizes.get("overlap", 1) <= 20:
        raise RoundError("round: overlap must be between 1 and 20.")
    found: Config = {"round": sizes}
    for stage in sorted(known - {"round"}):
        found[stage] = full_settings(stage, config.get(stage, {}))
    if "generate" in found and not 2 <= found["generate"]["k"] <= MAX_RESPONSES:
        raise RoundError(f"generate: k must be between 2 and {MAX_RESPONSES}.")
    return found


def _preset_for(project: Project) -> str:
    policy = start_policy(project)
    large = policy is not None and policy.n_parameters == 0 and not project.is_demo
    return "small" if large else str(settings.DEMO_PRESET)


# --- Where a project stands -------------------------------------------------------------------


def live_round(project: Project) -> Round | None:
    """The round that has not ended yet, if there is one."""
    return Round.objects.filter(project=project).exclude(state__in=Round.ENDED).first()


def start_policy(project: Project) -> Checkpoint | None:
    """The policy that the next round begins with: the one promoted last."""
    promoted = Checkpoint.objects.filter(
        project=project, kind=Checkpoint.Kind.POLICY, state=Checkpoint.State.PROMOTED
    )
    return promoted.order_by("-created_at", "-pk").first()


# --- Pre-flight -------------------------------------------------------------------------------


def preflight(project: Project, config: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    """What is asked before a launch. A no-go can't be launched; a caution must be acknowledged."""
    settings_check = _check_settings(config)
    if settings_check.verdict == "no-go":
        return [settings_check]  # the other questions need settings that make sense
    sizes = dict(config.get("round", {}))
    return [
        settings_check,
        _check_policy(project),
        _check_live(project),
        *(
            _check_prompts(project, purpose, sizes)
            for purpose in ("ranking", "ppo", "watch", "heldout")
        ),
        _check_sources(project),
        *(
            [_check_written(project)]
            if CONFIGS["ppo"].value_in(config.get("ppo", {}), "ptx.weight")
            else []
        ),
        _check_people(project, sizes),
        _check_disk(project, config),
        _check_workers(),
        estimate(project, config),
    ]


def _check_settings(config: Mapping[str, Mapping[str, Any]]) -> Check:
    question = "Are all settings possible?"
    try:
        checked_config(config, Round.FULL_PLAN)
    except RoundError as error:
        return Check("settings", question, str(error), "no-go", fix="Change that setting.")
    return Check("settings", question, "Yes.", "go")


def _check_policy(project: Project) -> Check:
    question = "Is there a policy to start from?"
    policy = start_policy(project)
    if policy is None:
        return Check(
            "policy", question, "No.", "no-go", fix="Build the base policy, or name a model."
        )
    if policy.n_bytes and not Path(policy.path).is_dir():
        return Check(
            "policy", question, f"{policy.name} is missing from the disk.", "no-go", policy.path
        )
    if kind := _kind_without_reward_model(Path(policy.path)):
        return Check(
            "policy",
            question,
            f"{policy.name} is a {kind}: of encoder-decoders only T5's can become the reward model.",
            "no-go",
            policy.path,
            "Name a decoder-only model or a T5.",
        )
    return Check("policy", question, policy.name, "go", policy.path)


def _kind_without_reward_model(folder: Path) -> str:
    """The type of an encoder-decoder that can't carry the heads of a round's reward model; "" for
    all others, and where the folder does not say (a hub's name: then the stage will)."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(config["model_type"])
        return kind if config.get("is_encoder_decoder") and kind not in T5_TYPES else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _where(round: Round) -> str:
    return str(round.get_state_display()).lower() if round.state != State.PPO else "PPO"


def _check_live(project: Project) -> Check:
    question = "Is no other round under way?"
    live = live_round(project)
    if live:
        fix = "Wait until it ends, or cancel it."
        answer = f"{live} is in {_where(live)}."
        return Check("live", question, answer, "no-go", fix=fix)
    return Check("live", question, "None is.", "go")


_PROMPT_QUESTIONS = {
    "ranking": ("ranking_prompts", "Are there enough prompts that nobody has judged yet?"),
    "ppo": ("ppo_prompts", "Are there enough prompts to practise on?"),
    "watch": ("watch_prompts", "Are there prompts to watch PPO with?"),
    "heldout": ("heldout_prompts", "Are there enough held-out prompts to measure with?"),
}


def _check_prompts(project: Project, purpose: str, sizes: Mapping[str, Any]) -> Check:
    name, question = _PROMPT_QUESTIONS[purpose]
    wanted = int(sizes.get(name, 0) or 0)
    found = stages.pool(project, purpose)
    if purpose == "ranking":
        found = found.filter(comparisons__isnull=True)
    n = found.count()
    harmful = found.filter(risk=Prompt.Risk.HARMFUL).count()
    evidence = f"{n:,} there, {harmful:,} of them known to be harmful; {wanted:,} wanted"
    answer = f"{min(n, wanted):,} of {wanted:,}"
    fix = "Import more prompts and sign their source off, or ask for fewer."
    least = LEAST_RANKING if purpose == "ranking" else 0 if purpose == "watch" else 1
    if n < least:
        return Check(purpose, question, answer, "no-go", evidence, fix)
    if purpose == "watch" and not n:
        answer = "None: the test reward model can't watch, and the tripwire is off."
        return Check(purpose, question, answer, "caution", evidence, fix)
    if n < wanted:
        return Check(purpose, question, answer, "caution", evidence, fix)
    if purpose == "heldout" and wanted < 30:
        answer += ": too few to tell a small change from chance"
        return Check(purpose, question, answer, "caution", evidence, "Ask for 100 or more.")
    return Check(purpose, question, answer, "go", evidence)


def _check_sources(project: Project) -> Check:
    question = "Has somebody signed off every source?"
    open_ones = Source.objects.waiting().filter(project=project, prompts__isnull=False)
    names = list(open_ones.distinct().values_list("name", flat=True)[:5])
    if names:
        answer = f"Not yet: {', '.join(names)}. Their prompts are left out."
        return Check(
            "sources", question, answer, "caution", fix="Sign them off on the prompts page."
        )
    licences = Source.objects.filter(project=project).exclude(licence="")
    known = sorted(set(licences.values_list("licence", flat=True)))
    return Check("sources", question, "Yes.", "go", f"Licences: {', '.join(known) or 'none named'}")


def _check_written(project: Project) -> Check:
    question = "Are there written answers for ptx.weight to keep likely?"
    if any(True for _ in demonstrations(project)):
        return Check("written", question, "Yes.", "go")
    return Check(
        "written",
        question,
        "No.",
        "caution",
        fix="Have some written before PPO begins, or set ptx.weight to 0.",
    )


def _check_people(project: Project, sizes: Mapping[str, Any]) -> Check:
    question = "Are there people to judge?"
    can_judge = project.memberships.filter(role__in=("annotator", "reviewer", "admin"))
    n, overlap = can_judge.count(), int(sizes.get("overlap", project.overlap) or 1)
    if n < overlap:
        answer = f"{n}, but each comparison is to be judged by {overlap}."
        return Check(
            "people", question, answer, "no-go", fix="Add annotators or lower the overlap."
        )
    simulated = can_judge.filter(user__is_simulated=True).count()
    evidence = f"{simulated} of them simulated" if simulated else ""
    return Check("people", question, f"{n}", "go", evidence)


def _check_disk(project: Project, config: Mapping[str, Mapping[str, Any]]) -> Check:
    question = "Is there room on the disk?"
    policy = start_policy(project)
    size = policy.n_bytes if policy else 0
    # Policy, two reward models, checkpoints of PPO with weights, critic and optimiser, new and old.
    needed = 12 * size + 200 * 2**20
    free = shutil.disk_usage(settings.DATA_DIR).free
    evidence = f"{free / 2**30:.1f} GiB free, about {needed / 2**30:.1f} GiB needed"
    if free < needed:
        return Check(
            "disk",
            question,
            "No.",
            "no-go",
            evidence,
            "`manage.py prune_runs` says which run folders can go.",
        )
    verdict: Verdict = "caution" if free < 3 * needed else "go"
    return Check("disk", question, "Yes." if verdict == "go" else "Just so.", verdict, evidence)


def _check_workers() -> Check:
    question = "Is a worker alive?"
    missing = [queue for queue in stages.QUEUES if not jobs.workers_alive(queue)]
    if missing:
        return Check(
            "workers",
            question,
            f"No worker of the queue {' or of the queue '.join(missing)} was heard of in the last "
            "half minute.",
            "caution",
            fix="Start one (manage.py supervise); the round waits until then.",
        )
    n = sum(len(jobs.workers_alive(queue)) for queue in stages.QUEUES)
    return Check("workers", question, "Yes.", "go", f"{n} heard of in the last half minute")


# Seconds with the preset tiny and the demo's base policy on two CPU cores.
TYPICAL_SECONDS = {"generate": 20.0, "reward_model": 35.0, "ppo": 75.0, "evaluate": 30.0}
# What a stage's time grows with: (section, setting, its value where a round does not say).
WORK: dict[str, tuple[tuple[str, str, float], ...]] = {
    "generate": (
        ("round", "ranking_prompts", 360),
        ("generate", "k", 4),
        ("generate", "max_new_tokens", 64),
    ),
    "reward_model": (("round", "ranking_prompts", 360), ("reward_model", "epochs", 2)),
    "ppo": (
        ("ppo", "steps", 14),
        ("ppo", "rollout.prompts_per_step", 128),
        ("ppo", "rollout.samples_per_prompt", 1),
        ("ppo", "rollout.max_new_tokens", 64),
    ),
    "evaluate": (
        ("round", "heldout_prompts", 150),
        ("evaluate", "samples_per_prompt", 3),
        ("evaluate", "max_new_tokens", 64),
    ),
}


def estimate(project: Project, config: Mapping[str, Mapping[str, Any]]) -> Check:
    """What it will take: time from the last job of each stage in this project, cost, energy.

    A stage that has not run here yet is taken to compare with the demo's as those do that have: the
    base policy's evaluation already tells how large the model and how fast the machine is.
    """
    tiny = preset("tiny")
    seconds, paces = {}, []
    for stage, typical in TYPICAL_SECONDS.items():
        done = Job.objects.filter(project=project, stage=stage, state=Job.State.DONE)
        job = done.select_related("round").order_by("-created_at", "-pk").first()
        if job is not None and job.seconds:
            seconds[stage] = job.seconds * _bigger(stage, job.round.config, config)
            paces.append(job.seconds / (typical * _bigger(stage, tiny, job.round.config)))
    measured = sorted(seconds)
    pace = sum(paces) / len(paces) if paces else 1.0
    for stage, typical in TYPICAL_SECONDS.items():
        seconds.setdefault(stage, typical * pace * _bigger(stage, tiny, config))
    total = sum(seconds.values())
    energy = total * settings.MACHINE_WATTS / 3600
    cost = total / 3600 * settings.MACHINE_PRICE_PER_HOUR
    answer = f"About {_minutes(total)} of computing, besides the people's time"
    if cost:
        answer += f"; {cost:.2f} at {settings.MACHINE_PRICE_PER_HOUR:g} an hour"
    known = "from this project's own " + " and ".join(_in_words(stage) for stage in measured)
    evidence = (
        ", ".join(f"{_in_words(stage)} {_minutes(seconds[stage])}" for stage in TYPICAL_SECONDS)
        + f"; about {energy:.1f} Wh at {settings.MACHINE_WATTS:g} W; "
        + (known if measured else "as the demo's tiny policy takes on two CPU cores: a guess")
    )
    is_guess = not measured and not project.is_demo
    verdict: Verdict = "caution" if total > 24 * 3600 or is_guess else "go"
    short = f"about {_minutes(total)}, {energy:.1f} Wh"
    return Check("estimate", "What will it take?", answer + ".", verdict, evidence, short=short)


def _bigger(stage: str, reference: Mapping[str, Any], config: Mapping[str, Any]) -> float:
    """How many times as much work a stage has under `config` as under `reference`."""

    def number(source: Mapping[str, Any], section: str, name: str, default: float) -> float:
        values = source.get(section, {})
        known = CONFIGS[section].split_known(values)[0] if section in CONFIGS else values
        value = known.get(name, default)
        return float(value) if isinstance(value, int | float) and value > 0 else default

    return math.prod(number(config, *what) / number(reference, *what) for what in WORK[stage])


def _in_words(stage: str) -> str:
    return "PPO" if stage == "ppo" else stage.replace("_", " ")


def _minutes(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- Opening ----------------------------------------------------------------------------------


def open_base_round(
    project: Project,
    by: User | None,
    *,
    preset_name: str = "",
    seed: int = 0,
    policy: str = "",
) -> Job | None:
    """Round 0: build the base policy (or take the model named `policy`) and measure it.

    There is one base per project: a second call returns what is under way, or goes on where the
    first one stopped (with another model, if one is named now); None when it is done.
    """
    policy = _model_path(policy) if policy else ""
    existing = Round.objects.select_related("project").filter(project=project, number=0).first()
    if existing is not None and existing.has_ended:
        if existing.state == State.DONE:
            return None
        if policy and (existing.policy is None or existing.policy.path != policy):
            with transaction.atomic():
                return _begin_again_with(existing, policy, by)
        return retry_stage(existing, by)
    if existing is not None:
        return existing.jobs.exclude(state__in=Job.ENDED).first()
    plan = list(Round.BASE_PLAN)
    if not stages.pool(project, "heldout").exists():
        # Imported comparisons alone: enough for reward models to grow on, nothing to measure with.
        plan.remove("evaluate")
    config = base_config(project, preset_name)
    round = Round(project=project, number=0, plan=plan, config=config, seed=seed, created_by=by)
    if policy:
        _build_nothing(round)
    try:
        with transaction.atomic():
            job = _launch(round, by)
            if policy:
                _take_model(round, policy)
    except IntegrityError:
        raise RoundError("Somebody else has just begun with the base policy.") from None
    return job


HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)


def _model_path(named: str) -> str:
    """A model folder as an absolute path, a hub's name as it is; RoundError for anything else.

    Folders are read below MODEL_FOLDERS only: who runs one project must not read the whole machine.
    """
    try:
        folder = Path(named).expanduser().resolve()
        is_folder = folder.is_dir()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, a home of nobody
        raise RoundError("That is no folder and no hub's name.") from None
    if HUB_NAME.fullmatch(named) and not is_folder:
        return named
    if not any(folder.is_relative_to(allowed) for allowed in settings.MODEL_FOLDERS):
        places = ", ".join(map(str, settings.MODEL_FOLDERS))
        raise RoundError(
            f"Models are read from {places}; for {named} an operator adds its folder to MODEL_FOLDERS."
        )
    if not is_folder:
        raise RoundError(f"There is no folder {named} on this machine.")
    return str(folder)


def _build_nothing(round: Round) -> None:
    """Take the building out of a base round, before it is saved: the model is there."""
    round.plan = [stage for stage in round.plan if stage != "base"]
    round.config.pop("base", None)


def _take_model(round: Round, path: str) -> None:
    """Make the named model the round's policy; where nothing measures it, that ends the round."""
    round.policy = Checkpoint.objects.create(
        project=round.project,
        kind=Checkpoint.Kind.POLICY,
        name=Path(path).name[:120],
        path=path,
        round=round,
    )
    round.save(update_fields=["policy"])
    if not round.plan:
        _go_on(round)


def _begin_again_with(round: Round, path: str, by: User | None) -> Job | None:
    """A base round that stopped takes another model than the one that it stopped with."""
    _build_nothing(round)
    round.failed_stage = round.plan[0] if round.plan else ""
    round.save(update_fields=["plan", "config", "failed_stage"])
    Event.record(round.project, by, "named another model for", round, model=path)
    _take_model(round, path)
    return retry_stage(round, by) if round.plan else None


def open_round(
    project: Project,
    *,
    by: User | None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
    acknowledged: Sequence[str] = (),
    seed: int | None = None,
) -> Job | None:
    """Launch a round: numbered, its configuration frozen. The round is `job.round`.

    `acknowledged` are the keys of the cautions that the person has read. RoundError says which check
    stands against it.
    """
    config = default_config(project) if config is None else config
    for check in preflight(project, config):
        if check.verdict == "no-go":
            raise RoundError(f"{check.question} {check.answer} {check.fix}".strip())
        if check.verdict == "caution" and check.key not in acknowledged:
            raise RoundError(
                f"{check.question} {check.answer} Acknowledge this to launch all the same."
            )
    frozen = checked_config(config, Round.FULL_PLAN)
    round = Round(
        project=project,
        plan=list(Round.FULL_PLAN),
        config=frozen,
        start_policy=start_policy(project),
        created_by=by,
    )
    return _open_numbered(round, by, seed)


def open_reward_round(
    project: Project,
    batches: Sequence[Batch],
    by: User | None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> Job | None:
    """Train reward models from judgments that are there already, without asking anybody."""
    if not batches:
        raise RoundError("Choose at least one batch of judgments.")
    if any(batch.project_id != project.pk for batch in batches):
        raise RoundError("These judgments belong to another project.")
    start = start_policy(project)
    if start is None:
        raise RoundError(
            "Build the base policy, or name a model, for the reward models to grow on."
        )
    if config is None:
        everything = default_config(project)
        config = {section: everything[section] for section in ("round", "reward_model")}
    frozen = checked_config(config, Round.REWARD_ONLY_PLAN)
    frozen["round"] |= {"batches": [batch.pk for batch in batches]}
    round = Round(
        project=project,
        plan=list(Round.REWARD_ONLY_PLAN),
        config=frozen,
        start_policy=start,
        created_by=by,
    )
    return _open_numbered(round, by, None)


def _open_numbered(round: Round, by: User | None, seed: int | None) -> Job | None:
    try:
        with transaction.atomic():
            # Two admins who launch at the same moment wait for each other here.
            project = Project.objects.lock(round.project_id)
            live = live_round(project)
            if live:
                raise RoundError(f"{live} is still in {_where(live)}.")
            last = Round.objects.filter(project=project).aggregate(last=Max("number"))["last"]
            round.number = 1 if last is None else last + 1
            base = Round.objects.filter(project=project, number=0).first()
            round.seed = seed if seed is not None else (base.seed if base else 0) + round.number
            return _launch(round, by)
    except IntegrityError:
        raise RoundError("Somebody else has just opened this round.") from None


def _launch(round: Round, by: User | None) -> Job | None:
    """Save a new round and enter the first stage of its plan; inside a transaction."""
    round.launched_at = timezone.now()
    with transaction.atomic():
        round.save(force_insert=True)
        Event.record(round.project, by, "launched", round, plan=round.plan, seed=round.seed)
        return _enter(round, round.plan[0]) if round.plan else None


# --- From stage to stage ----------------------------------------------------------------------


def close_annotation(round: Round, by: User | None) -> Job | None:
    """Stop asking people and go on to the snapshot. None if somebody else has closed it already."""
    if round.batch is None:
        raise RoundError("The round has no batch to close yet.")
    if not round.batch.comparisons.filter(judged__gt=0).exists():
        raise RoundError("Nobody has judged anything yet, so there is nothing to learn from.")
    with transaction.atomic():
        round = (
            Round.objects.select_for_update(of=("self",))
            .select_related("batch", "project")
            .get(pk=round.pk)
        )
        if round.state != State.ANNOTATE or round.batch is None:
            return None
        batches.close_batch(round.batch, by)
        Event.record(round.project, by, "closed annotation of", round)
        return _go_on(round)


def advance(job: Job) -> Job | None:
    """A job has ended: what follows from it for its round. Called in the job's last transaction."""
    round = Round.objects.select_related("project").get(pk=job.round_id)
    if job.stage == "selection":
        done = job.state == Job.State.DONE
        verb = (
            "said where judgments would teach most" if done else "could not say what teaches most"
        )
        Event.record(round.project, None, verb, round, job=str(job.uid), reason=job.reason)
        return None
    if round.state != job.stage:
        return None  # the round has been cancelled or has moved on
    if round.jobs.filter(stage=job.stage, pk__gt=job.pk).exists():
        return None  # the stage was tried again while this job was still stopping
    if job.state == Job.State.DONE:
        Event.record(round.project, None, "finished", f"{job.stage} of {round}", job=str(job.uid))
        if job.stage in ("generate", "reward_model"):
            # Before the next stage: a look takes moments, PPO may hold the machine for hours.
            select(round)
        return _go_on(round)
    if job.state in (Job.State.FAILED, Job.State.CANCELLED):
        failed = job.state == Job.State.FAILED
        _leave(round, State.FAILED if failed else State.CANCELLED, failed_stage=job.stage)
        verb = "failed" if failed else "stopped"
        Event.record(round.project, None, verb, f"{job.stage} of {round}", reason=job.reason)
    return None


def select(round: Round) -> Job | None:
    """Let the newest ensemble say where judgments would teach most; None where it has nothing to say.

    The job belongs to the round and is no stage of its plan: whatever becomes of it, the round goes on.
    """
    if stages.ensemble(round.project) is None:
        return None
    if not stages.waiting_comparisons(round.project).exists():
        return None
    if Job.objects.filter(
        project=round.project, stage="selection", state=Job.State.QUEUED
    ).exists():
        return None
    return jobs.enqueue(round, "selection")


def select_now(project: Project, by: User | None) -> Job:
    """`select` at an admin's word, for what was put in front of people outside of a round."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        if reason := why_not_select(project):
            raise RoundError(reason)
        model = stages.ensemble(project)
        assert model is not None
        # The job belongs to the round that the models came from: it works with that one's settings.
        job = jobs.enqueue(model.round or project.rounds.latest("number"), "selection")
        Event.record(project, by, "asked what would teach most", model, job=str(job.uid))
    return job


def why_not_select(project: Project) -> str:
    """Why nothing can say now where judgments would teach most, in a sentence; "" if something can."""
    if stages.ensemble(project) is None:
        return (
            "No reward model here has several members whose opinions could differ: launch a round, "
            "or train reward models, with Members of 2 or more."
        )
    if not project.rounds.exists():
        return "There is no round here yet: build the base policy first."
    if not stages.waiting_comparisons(project).exists():
        return "Nothing waits for people: open a batch first."
    if selections(project).filter(state__in=[Job.State.QUEUED, Job.State.RUNNING]).exists():
        return "It is being done already."
    return ""


def selections(project: Project) -> QuerySet[Job]:
    """The jobs that asked where judgments would teach most, the last one first."""
    return Job.objects.filter(project=project, stage="selection").order_by("-created_at", "-pk")


def selection_cost(project: Project, n: int) -> str:
    """What scoring `n` comparisons will take, by the last time; a guess where there was none."""
    n = min(n, stages.MOST_SELECTED)
    last = selections(project).filter(state=Job.State.DONE).first()
    if last is None or not last.seconds:
        return (
            "The demo's models take about 10 s on two CPU cores; larger ones have not run here yet."
        )
    scored = max(1, int(last.metrics.get("n_comparisons", n)))
    seconds = last.seconds * max(1.0, n / scored)
    energy = seconds * settings.MACHINE_WATTS / 3600
    cost = seconds / 3600 * settings.MACHINE_PRICE_PER_HOUR
    price = f", {cost:.2f} at {settings.MACHINE_PRICE_PER_HOUR:g} an hour" if cost else ""
    return f"About {_minutes(seconds)} and {energy:.1f} Wh by the last time{price}."


def _go_on(round: Round) -> Job | None:
    """From the stage that the round is in to the next of its plan, or to the end."""
    place = round.plan.index(round.state) if round.plan else 0
    if place + 1 < len(round.plan):
        return _enter(round, round.plan[place + 1])
    if not _leave(round, State.DONE):
        return None
    if round.number == 0 and round.policy_id:
        Checkpoint.objects.filter(pk=round.policy_id).update(state=Checkpoint.State.PROMOTED)
    return None


def _enter(round: Round, stage: str) -> Job | None:
    """Move on to a stage; its job if a worker does it, None if people do or if somebody was faster."""
    now = timezone.now().isoformat()
    times = dict(round.stage_times)
    if round.state in times:
        times[round.state] = [times[round.state][0], now]
    times[stage] = [now, None]
    moved = Round.objects.filter(pk=round.pk, state=round.state).update(
        state=stage, stage_times=times, failed_stage="", ended_at=None
    )
    if not moved:
        return None
    round.refresh_from_db()
    return jobs.enqueue(round, stage) if stage in STAGES else None


def _leave(round: Round, to: str, **fields: Any) -> bool:
    """End a round in the state that it is in; False if somebody was faster."""
    now = timezone.now()
    times = dict(round.stage_times)
    if round.state in times:
        times[round.state] = [times[round.state][0], now.isoformat()]
    moved = Round.objects.filter(pk=round.pk, state=round.state).update(
        state=to, stage_times=times, ended_at=now, **fields
    )
    round.refresh_from_db()
    return bool(moved)


# --- The gate ---------------------------------------------------------------------------------


def propose_verdict(round: Round) -> tuple[str, list[str]]:
    """ "promoted" or "refused", with the reasons in sentences that name judge, interval and n.

    Promote when the lower end of the win rate against the previous policy is above one half and
    neither violations nor over-refusals (where the judge can tell; else safety) have become worse.
    People's opinion counts before the rubric's (demo only), and that before the reward model's.
    """
    scores = _figures(round)
    judge = next((j for j in ("human", "gold", "model") if "win_rate_vs_previous" in scores[j]), "")
    if not judge:
        return "refused", ["Nothing compares this policy with the previous one."]
    mine, before = scores[judge], _figures_before(round, judge)
    name = {"human": "people", "gold": "the rubric (simulated)", "model": "the reward model"}[judge]
    win = mine["win_rate_vs_previous"]
    good = win.low is not None and win.low > 0.5 and win.n >= LEAST_MEASURED
    if win.n < LEAST_MEASURED:
        told = f"too few prompts to tell; measure on {LEAST_MEASURED} or more"
    else:
        told = f"{'clearly' if good else 'not clearly'} more than half"
    won = f"it wins {win.value:.0%} against the previous policy {_interval(win, percent=True)}"
    reasons = [f"{name[0].upper() + name[1:]}: {won}, {told}."]
    compared = ["violation_rate", "over_refusal_rate"]
    if not any(metric in mine and metric in before for metric in compared):
        compared = ["safety"]
    for metric in compared:
        if metric not in mine or metric not in before:
            continue
        now, then = mine[metric], before[metric]
        higher_is_worse = metric != "safety"
        worse = (
            (now.low is not None and now.low > then.value)
            if higher_is_worse
            else (now.high is not None and now.high < then.value)
        )
        good = good and not worse
        label = metric.replace("_", " ").replace("over refusal", "over-refusal").capitalize()
        form = ".1%" if higher_is_worse else ".2f"
        reasons.append(
            f"{label}: {format(then.value, form)} before, {format(now.value, form)} now "
            f"{_interval(now, percent=higher_is_worse)}, {'worse' if worse else 'not worse'}."
        )
    return ("promoted" if good else "refused"), reasons


def _figures(round: Round) -> dict[str, dict[str, Score]]:
    """{judge: {metric: Score}} of the round's own policy at temperature 1 (or the highest there is)."""
    own = Score.objects.filter(round=round, checkpoint=round.policy, category="")
    temperature = own.aggregate(top=Max("temperature"))["top"]
    found: dict[str, dict[str, Score]] = {"human": {}, "gold": {}, "model": {}}
    for score in own.filter(temperature=temperature):
        found[score.judge][score.metric] = score
    return found


def _figures_before(round: Round, judge: str) -> dict[str, Score]:
    """The same figures of the policy that the round started from."""
    if round.start_policy is None:
        return {}
    if judge == "model":
        # A reward model's scale is its own, so the old policy's figures come from this round's.
        earlier = Score.objects.filter(
            round=round, checkpoint=round.start_policy, judge=judge, category=""
        )
        top = earlier.aggregate(top=Max("temperature"))["top"]
        return {score.metric: score for score in earlier.filter(temperature=top)}
    measured = round.start_policy.round
    return _figures(measured)[judge] if measured else {}


def _interval(score: Score, *, percent: bool) -> str:
    if score.low is None or score.high is None:
        return f"(n={score.n})"
    form = ".0%" if percent else ".2f"
    return f"[{format(score.low, form)}, {format(score.high, form)}] (n={score.n})"


def give_verdict(round: Round, verdict: str, note: str, by: User | None) -> None:
    """Promote or refuse the round's policy; that ends the round. RoundError if it isn't up for it."""
    if verdict not in ("promoted", "refused"):
        raise RoundError("A verdict is “promoted” or “refused”.")
    proposal, _ = propose_verdict(round)
    if verdict != proposal and not note.strip():
        raise RoundError(f"The gate proposes “{proposal}”; say in a note why you decide otherwise.")
    with transaction.atomic():
        if round.state != State.VERDICT or not _leave(
            round, State.DONE, verdict=verdict, verdict_note=note.strip(), verdict_by=by
        ):
            raise RoundError(f"{round} is not waiting for a verdict.")
        if round.policy_id is not None:
            Checkpoint.objects.filter(pk=round.policy_id).update(state=verdict)
        Event.record(round.project, by, verdict, round, note=note.strip(), proposal=proposal)


def retire_policy(policy: Checkpoint, note: str, by: User | None) -> None:
    """Take a promotion back: the next round starts from the policy that was promoted before it.

    What the policy made, and a server that answers with it, stay. RoundError where it isn't promoted,
    where it is the only one, or without a reason.
    """
    if not note.strip():
        raise RoundError("Say in a sentence why the policy is taken back.")
    with transaction.atomic():
        # Two admins who take back the last two at the same moment wait for each other here.
        project = Project.objects.select_for_update().get(pk=policy.project_id)
        promoted = Checkpoint.objects.filter(
            project=project, kind=Checkpoint.Kind.POLICY, state=Checkpoint.State.PROMOTED
        )
        if not promoted.exclude(pk=policy.pk).exists():
            raise RoundError(f"{policy} is the only one that a round could start from.")
        if not promoted.filter(pk=policy.pk).update(state=Checkpoint.State.RETIRED):
            raise RoundError(f"{policy} is not promoted.")
        Event.record(project, by, "took back", policy, note=note.strip())


# --- Stopping and trying again ----------------------------------------------------------------


def cancel_round(round: Round, by: User | None) -> bool:
    """End a round that is under way; its running job is stopped. False if it has ended already."""
    with transaction.atomic():
        # Locked, so that it can't move on to its next stage in between.
        rounds = Round.objects.select_for_update(of=("self",))
        round = rounds.select_related("project", "batch").get(pk=round.pk)
        stage = round.state
        if round.has_ended or not _leave(round, State.CANCELLED, failed_stage=stage):
            return False
        if round.batch is not None and stage == State.ANNOTATE:
            batches.close_batch(round.batch, by)
        Event.record(round.project, by, "cancelled", round, stage=stage)
        for job in round.jobs.exclude(state__in=Job.ENDED):
            jobs.request_cancel(job, by, then=advance)
    return True


def retry_stage(round: Round, by: User | None) -> Job | None:
    """Go on with a round that failed or was cancelled, from the stage where it stopped.

    The finished stages stay; the stage that stopped begins a new job. None if somebody was faster.
    """
    with transaction.atomic():
        project = Project.objects.lock(round.project_id)
        round = Round.objects.select_related("project", "batch").get(pk=round.pk)
        if round.state not in (State.FAILED, State.CANCELLED) or not round.failed_stage:
            raise RoundError(f"{round} has not stopped, so there is nothing to retry.")
        live = live_round(project)
        if live:
            raise RoundError(f"{live} is still in {_where(live)}.")
        stage = round.failed_stage
        if stage == State.ANNOTATE and round.batch is not None:
            batches.open_batch(round.batch, by)
        Event.record(project, by, "retried", f"{stage} of {round}")
        return _enter(round, stage)


def cancel_job(job: Job, by: User | None) -> bool:
    """Stop one stage's job; its round can be retried from there. False if it has ended already."""
    return jobs.request_cancel(job, by, then=advance)
