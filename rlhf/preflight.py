"""Pre-flight: the checks before a round is launched, each a question with its answer."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.db.models import Count, Q
from django.utils import timezone

from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.models import Batch, Comparison, Project, Prompt, Source
from annotation.protocols import DEMONSTRATE
from rlhf.computing_cost import Requirements, requirements, round_cost
from rlhf.doubts import FEW_UPDATES, count_of, expected_updates
from rlhf.errors import RoundError
from rlhf.estimates import estimate_from, in_words, number
from rlhf.model_paths import model_path
from rlhf.models import Checkpoint, Round, Worker
from rlhf.round_config import FrozenConfig, RoundConfig, freeze, longest_response
from rlhf.stages import QUEUES
from rlhf.stages.evaluate import evaluation_samples
from rlhf.stages.prompts import pool, without_compared
from rlhf.training.architecture import T5_TYPES
from rlhf.training.configs import RewardModelConfig
from rlhf.training.score_summary import MANY_UNFINISHED, unfinished_rate

Verdict = Literal["go", "warning", "no-go"]

MIN_RANKING = 4
"""Fewer prompts than this can't be split between the train-RM and the test-RM."""

LEAST_DISK = 200 * 2**20
"""Bytes that a round writes whatever its model is."""

MEMORY_QUESTION = "Does every stage fit the memory?"
DISK_QUESTION = "Is there enough disk space?"

FEW_HELDOUT = 30
"""With fewer prompts than this, a small change can't be distinguished from chance."""


@dataclass(frozen=True)
class Check:
    """One question before launch, the answer, and the evidence for it. `fix` says what to do.

    `short` is the text of the launch button: the estimate's time and energy.
    """

    key: str
    question: str
    answer: str
    verdict: Verdict
    evidence: str = ""
    fix: str = ""
    short: str = ""


def preflight(
    project: Project, config: Mapping[str, Mapping[str, Any]] | FrozenConfig
) -> list[Check]:
    """The checks before a launch. A no-go can't be launched; a warning must be acknowledged."""
    question = "Is the configuration valid?"
    try:
        frozen = freeze(config, Round.FULL_PLAN, project)
    except RoundError as error:
        # The other questions need a valid configuration.
        return [Check("settings", question, str(error), "no-go", fix="Change that setting.")]
    sizes: RoundConfig = frozen.sections["round"]
    return [
        Check("settings", question, "Yes.", "go"),
        _check_policy(project),
        _check_endings(project, frozen),
        _check_length(project, frozen),
        _check_live(project),
        *(_check_prompts(project, purpose, frozen) for purpose in _PROMPT_QUESTIONS),
        check_risks(project),
        check_sources(project),
        *_check_trunk(project, sizes.reward_trunk),
        *([_check_demonstrations(project)] if frozen.sections["ppo"].ptx.weight else []),
        _check_people(project, sizes.overlap),
        _check_updates(project, frozen),
        *_check_precision(frozen),
        *_check_machine(project, frozen),
        _check_workers(),
        _check_estimate(project, frozen),
    ]


def _check_policy(project: Project) -> Check:
    question = "Is there a policy to start from?"
    policy = Checkpoint.objects.current_policy(project)
    if policy is None:
        return Check(
            "policy", question, "No.", "no-go", fix="Build the base policy, or name a model."
        )
    if policy.n_bytes and not Path(policy.path).is_dir():
        return Check(
            "policy", question, f"{policy.name} is missing from the disk.", "no-go", policy.path
        )
    if refusals := policy.root.understood.get("refusals"):
        fix = "Name another model."
        return Check("policy", question, str(refusals[0]), "no-go", policy.path, fix)
    if model_type := _encoder_decoder_without_heads(Path(policy.path)):
        answer = (
            f"{policy.name} is a {model_type}: of the encoder-decoders only T5 models can become "
            "the reward model."
        )
        fix = "Name a decoder-only model or a T5."
        return Check("policy", question, answer, "no-go", policy.path, fix)
    return Check("policy", question, policy.name, "go", policy.path)


def _check_trunk(project: Project, trunk: str) -> list[Check]:
    """Whether the reward models can be trained from the model that the settings name."""
    if trunk == "policy":
        return []
    question = "Can the reward models start from the model of reward_trunk?"
    try:
        path = model_path(trunk, project)
    except RoundError as error:
        fix = "Change round.reward_trunk, or set it to policy."
        return [Check("trunk", question, str(error), "no-go", fix=fix)]
    if model_type := _encoder_decoder_without_heads(Path(path)):
        answer = f"It is a {model_type}: of the encoder-decoders only T5 models can."
        fix = "Name a decoder-only model, an encoder or a T5."
        return [Check("trunk", question, answer, "no-go", path, fix)]
    evidence = "Its time and memory are estimated as if it had the policy's size."
    return [Check("trunk", question, f"They start from {trunk}.", "go", evidence)]


def _encoder_decoder_without_heads(folder: Path) -> str:
    """The type of an encoder-decoder that can't carry a reward model's heads; "" for all others.

    Also "" if the model is not a local folder (a name on the hub): the stage then refuses it.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = str(config["model_type"])
        return kind if config.get("is_encoder_decoder") and kind not in T5_TYPES else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _check_endings(project: Project, frozen: FrozenConfig) -> Check:
    """Whether most of the policy's responses end within the round's token limit, by the samples of
    its evaluation. A smaller limit than that of the evaluation is applied to their lengths."""
    question = "Do most responses end within the token limit?"
    limit: int = frozen.sections["generate"].max_new_tokens
    policy = Checkpoint.objects.current_policy(project)
    samples = evaluation_samples(policy) if policy else []
    hottest = max((row["temperature"] for row in samples), default=0.0)
    rows = [
        {**row, "finished": row["finished"] and row["n_tokens"] <= limit}
        for row in samples
        if row["temperature"] == hottest and "finished" in row
    ]
    share = estimate_from(unfinished_rate(rows), "value", "ci", "n")
    if share is None:
        return Check("endings", question, "Not known: the policy has not been sampled.", "go")
    longest = max(row["n_tokens"] for row in rows)
    figure = f"{in_words(share, percent=True)} prompts, temperature {hottest:g}"
    evidence = f"unfinished after {min(limit, longest):,} tokens: {figure}"
    if limit > longest and share.value > MANY_UNFINISHED:
        answer = f"Not known for {limit:,} tokens; its evaluation stopped at {longest:,}."
        return Check("endings", question, answer, "go", evidence)
    if share.value > MANY_UNFINISHED:
        answer = (
            f"No: {number(share.value, percent=True)} are cut off after {limit:,} tokens. People "
            "would judge half answers, and PPO would give most of them no_eos_score."
        )
        fix = "Raise the longest answer, or fine-tune the policy on responses that end (sft)."
        return Check("endings", question, answer, "warning", evidence, fix)
    return Check("endings", question, f"Yes, within {limit:,} tokens.", "go", evidence)


def _check_length(project: Project, frozen: FrozenConfig) -> Check:
    """Whether earlier evaluations had the same longest response."""
    question = "Were earlier policies measured with the same longest response?"
    length: int = frozen.sections["evaluate"].max_new_tokens
    measured = Round.objects.filter(project=project, jobs__stage="evaluate", jobs__state="done")
    last = measured.order_by("-number").first()
    before = longest_response(last.config) if last else None
    if before is None:
        answer = f"This is the first evaluation: {length:,} tokens."
        return Check("length", question, answer, "go")
    if before == length:
        return Check("length", question, f"Yes: {length:,} tokens.", "go")
    answer = (
        f"No: {before:,} tokens until now, {length:,} in this round. The base and the previous "
        "policy answer the held-out prompts again before anything is compared."
    )
    evidence = "the evaluation takes two to three times as long"
    return Check("length", question, answer, "go", evidence)


def _check_live(project: Project) -> Check:
    question = "Is no other round running?"
    live = Round.objects.live(project)
    if live:
        fix = "Wait until it ends, or cancel it."
        answer = f"{live} is in {Round.stage_name(live.state)}."
        return Check("live", question, answer, "no-go", fix=fix)
    return Check("live", question, "Yes.", "go")


_PROMPT_QUESTIONS = {
    "ranking": ("ranking_prompts", "Are there enough prompts that nobody has judged yet?"),
    "ppo": ("ppo_prompts", "Are there enough PPO training prompts?"),
    "watch": ("watch_prompts", "Are there validation prompts to monitor PPO?"),
    "heldout": ("heldout_prompts", "Are there enough held-out prompts for the evaluation?"),
}


def _check_prompts(project: Project, purpose: str, frozen: FrozenConfig) -> Check:
    sizes: RoundConfig = frozen.sections["round"]
    per_step: int = frozen.sections["ppo"].rollout.prompts_per_step
    name, question = _PROMPT_QUESTIONS[purpose]
    requested: int = getattr(sizes, name)
    prompts = pool(project, purpose)
    if purpose == "ranking":
        prompts = without_compared(prompts, project, before=timezone.now())
    n = prompts.count()
    harmful = prompts.filter(risk=Prompt.Risk.HARMFUL).count()
    evidence = f"{n:,} available, {harmful:,} of them labeled harmful; {requested:,} requested"
    answer = f"{min(n, requested):,} of {requested:,}"
    fix = f"Import more prompts and sign off their source, or lower {name}."
    smallest = MIN_RANKING if purpose == "ranking" else 0 if purpose == "watch" else 1
    if n < smallest:
        return Check(purpose, question, answer, "no-go", evidence, fix)
    if purpose == "watch" and not n:
        answer = "None: the test reward model can't monitor PPO, and the tripwire is off."
        return Check(purpose, question, answer, "warning", evidence, fix)
    if purpose == "ppo" and min(n, requested) < per_step:
        answer = f"No: PPO answers {per_step:,} prompts in each step, more than these {answer}."
        fix = (
            "Lower ppo.rollout.prompts_per_step, or import more prompts and sign off their source."
        )
        return Check(purpose, question, answer, "no-go", evidence, fix)
    if n < requested:
        return Check(purpose, question, answer, "warning", evidence, fix)
    if purpose == "heldout" and requested < FEW_HELDOUT:
        answer += ": too few to distinguish a small change from chance"
        return Check(purpose, question, answer, "warning", evidence, f"Set {name} to 100 or more.")
    return Check(purpose, question, answer, "go", evidence)


MANY_UNKNOWN = 0.5
"""From this share of held-out prompts without a known risk on, the two axes measure the same."""


def check_risks(project: Project) -> Check:
    """Whether it is known which prompts ask for something harmful."""
    question = "Is the risk of the prompts known?"
    rows: Any = (
        Prompt.objects.filter(project=project)
        .order_by()
        .annotate(is_known=~Q(risk=Prompt.Risk.UNKNOWN))
        .values_list("split", "is_known")
        .annotate(Count("pk"))
    )
    n: dict[tuple[str, bool], int] = {(split, is_known): count for split, is_known, count in rows}
    unknown = sum(count for (_, is_known), count in n.items() if not is_known)
    if not unknown:
        return Check("risks", question, "Yes.", "go")
    heldout = n.get(("heldout", False), 0)
    n_heldout = heldout + n.get(("heldout", True), 0)
    evidence = (
        f"not known: {unknown:,} of {sum(n.values()):,} prompts, {heldout:,} of {n_heldout:,} held out. In "
        "the evaluation these count for helpfulness and for safety, and for neither violations nor "
        "over-refusals; PPO's reward and shares of harmful prompts take them as harmless"
    )
    if heldout <= MANY_UNKNOWN * n_heldout:
        return Check("risks", question, f"Of {sum(n.values()) - unknown:,}.", "go", evidence)
    answer = f"Not of {heldout:,} of {n_heldout:,} held-out prompts: both axes measure the same."
    fix = "Import the prompts with their risk (harmless or harmful)."
    return Check("risks", question, answer, "warning", evidence, fix)


def check_sources(project: Project) -> Check:
    """Whether every source of prompts is signed off."""
    question = "Is every source signed off?"
    waiting = Source.objects.waiting().filter(project=project, prompts__isnull=False)
    names = list(waiting.distinct().values_list("name", flat=True)[:5])
    if names:
        answer = f"Not yet: {', '.join(names)}. Their prompts are not used."
        fix = "Sign them off on the prompts page."
        return Check("sources", question, answer, "warning", fix=fix)
    licensed = Source.objects.filter(project=project).exclude(licence="")
    licenses = sorted(set(licensed.values_list("licence", flat=True)))
    evidence = f"Licenses: {', '.join(licenses) or 'none named'}"
    return Check("sources", question, "Yes.", "go", evidence)


def _check_demonstrations(project: Project) -> Check:
    question = "Are there demonstrations for ptx.weight?"
    if any(True for _ in demonstrations(project)):
        return Check("written", question, "Yes.", "go")
    fix = "Collect some before PPO begins, or set ptx.weight to 0."
    return Check("written", question, "No.", "warning", fix=fix)


def _check_people(project: Project, overlap: int) -> Check:
    question = "Are there enough annotators?"
    can_judge = project.memberships.filter(role__in=("annotator", "reviewer", "admin"))
    n = can_judge.count()
    if n < overlap:
        answer = f"{n}, but each comparison needs {overlap} judgments by different people."
        fix = "Add annotators or lower the overlap."
        return Check("people", question, answer, "no-go", fix=fix)
    simulated = can_judge.filter(user__is_simulated=True).count()
    evidence = f"{simulated} of them simulated" if simulated else ""
    return Check("people", question, f"{n}", "go", evidence)


def _check_updates(project: Project, frozen: FrozenConfig) -> Check:
    """How many updates the reward models will learn by, from this round's rankings and earlier ones."""
    question = "Do the reward models get enough updates?"
    settings_of: RewardModelConfig = frozen.sections["reward_model"]
    now = timezone.now()
    waiting = without_compared(pool(project, "ranking"), project, before=now).count()
    new = min(waiting, frozen.sections["round"].ranking_prompts)
    earlier = Comparison.objects.filter(
        batch__project=project, batch__state=Batch.State.CLOSED, judged__gt=0, gold=None
    ).exclude(batch__interface=DEMONSTRATE)
    n = new + earlier.values("prompt").distinct().count()
    updates = expected_updates(n, settings_of)
    answer = (
        f"About {count_of(updates['train'])} of the train-RM and {updates['test']:,} of the test-RM"
    )
    evidence = (
        f"{n:,} prompts, {settings_of.test_share:.0%} of them for the test-RM; "
        f"{settings_of.rankings_per_batch} rankings a batch, epochs: {settings_of.epochs}"
    )
    if min(updates.values()) >= FEW_UPDATES:
        return Check("updates", question, f"{answer}.", "go", evidence)
    answer += f": with fewer than {FEW_UPDATES} they hardly learn, and the round waits before PPO."
    fix = "Let more prompts be ranked, lower rankings_per_batch, or raise epochs."
    return Check("updates", question, answer, "warning", evidence, fix)


def _check_precision(frozen: FrozenConfig) -> list[Check]:
    """A warning where half precision is asked for on a CPU, where it is rarely faster."""
    if Worker.objects.compute_machine().get("kind", "cpu") == "cuda":
        return []
    half = [
        Round.stage_name(stage)
        for stage, section in frozen.sections.items()
        if getattr(section, "dtype", "") == "bfloat16"
    ]
    if not half:
        return []
    answer = f"No: bfloat16 on a CPU in {', '.join(half)}."
    evidence = (
        "Decoding took 3 to 8 times as long as in float32 on a CPU without bfloat16 instructions; the "
        "doctor measures it on the worker's."
    )
    fix = "Set dtype to auto, which is float32 on a CPU and bfloat16 on a GPU."
    question = "Is the precision right for the device?"
    return [Check("precision", question, answer, "warning", evidence, fix)]


def _check_machine(project: Project, frozen: FrozenConfig) -> list[Check]:
    """Whether the round fits the workers' memory and disk."""
    needed = requirements(project, frozen.to_dict())
    if needed is None:
        answer = "The model's size is not known yet."
        fix = "It will be once a worker has measured the model; or name a folder on this machine."
        unknown = [
            Check(key, question, answer, "warning", fix=fix)
            for key, question in (("memory", MEMORY_QUESTION), ("disk", DISK_QUESTION))
        ]
        # The web server's own disk at least, for what every round writes.
        own_disk = shutil.disk_usage(settings.DATA_DIR).free
        return unknown if own_disk > LEAST_DISK else [unknown[0], _check_disk(needed, own_disk)]
    free = needed.disk_free
    if free is None:
        free = shutil.disk_usage(settings.DATA_DIR).free
    return [_check_memory(needed), _check_disk(needed, free)]


def _check_memory(needed: Requirements) -> Check:
    largest = needed.largest
    stages = ", ".join(
        f"{Round.stage_name(need.stage)} {in_gib(need.total)}" for need in needed.stages
    )
    basis = "activations as measured" if needed.is_measured else "rough: activations by arithmetic"
    evidence = f"{stages}; most for the {largest.largest}; {basis}"
    if needed.memory_free is None:
        answer = f"It needs {in_gib(largest.total)}; no worker has reported its memory yet."
        return Check("memory", MEMORY_QUESTION, answer, "warning", evidence)
    evidence = f"{in_gib(needed.memory_free)} free on {needed.device}; {evidence}"
    answer = (
        f"{Round.stage_name(largest.stage).capitalize()} needs about {in_gib(largest.total)}, and "
        f"{in_gib(needed.memory_free)} are free."
        if largest.stage != "ppo"
        else f"PPO needs about {in_gib(largest.total)}, and {in_gib(needed.memory_free)} are free."
    )
    if largest.total > needed.memory_free:
        # Without a measurement the sum may be twice too large: then a person decides.
        surely = needed.is_measured or largest.total > 2 * needed.memory_free
        return Check(
            "memory",
            MEMORY_QUESTION,
            f"No: {answer}",
            "no-go" if surely else "warning",
            evidence,
            largest.remedy,
        )
    if largest.total > 0.8 * needed.memory_free:
        answer = f"Just enough: {answer}"
        return Check("memory", MEMORY_QUESTION, answer, "warning", evidence, largest.remedy)
    return Check("memory", MEMORY_QUESTION, "Yes.", "go", evidence)


def _check_disk(needed: Requirements | None, free: float) -> Check:
    parts = needed.disk if needed else {"samples and logs": float(LEAST_DISK)}
    total = sum(parts.values())
    listed = ", ".join(f"{name} {in_gib(size)}" for name, size in parts.items())
    evidence = f"{in_gib(free)} free, about {in_gib(total)} needed: {listed}"
    if free < total:
        fix = "`manage.py prune_runs` lists the run folders that can be removed."
        return Check("disk", DISK_QUESTION, "No.", "no-go", evidence, fix)
    if free < 3 * total:
        return Check("disk", DISK_QUESTION, "Just enough.", "warning", evidence)
    return Check("disk", DISK_QUESTION, "Yes.", "go", evidence)


def in_gib(size: float) -> str:
    """Bytes in GiB: `0.52 GiB`, `15.7 GiB`, `120 GiB`."""
    gib = size / 2**30
    return f"{gib:.0f} GiB" if gib >= 100 else f"{gib:.1f} GiB" if gib >= 10 else f"{gib:.2f} GiB"


def _check_workers() -> Check:
    question = "Is a worker online for each queue?"
    missing = [queue for queue in QUEUES if not Worker.objects.online(queue)]
    if missing:
        answer = f"No worker of the queue {' or of the queue '.join(missing)} is online."
        fix = "Start one (manage.py supervise); the round waits until then."
        return Check("workers", question, answer, "warning", fix=fix)
    n = sum(len(Worker.objects.online(queue)) for queue in QUEUES)
    return Check("workers", question, "Yes.", "go", f"{n} workers online")


def _check_estimate(project: Project, frozen: FrozenConfig) -> Check:
    question = "How much computing does it take?"
    cost = round_cost(project, frozen.to_dict())
    is_risky = cost.seconds > 24 * 3600 or cost.is_guess
    return Check(
        "estimate",
        question,
        cost.sentence,
        "warning" if is_risky else "go",
        cost.evidence,
        short=cost.short,
    )
