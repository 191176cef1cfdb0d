"""The table of stages: what each is given in its run folder, and what is taken back from it.

`prepare` writes `config.json` and `data/` (docs/formats.md) and is a pure function of the frozen
round, so a job that is taken up again gets the same input. `collect` reads what the program left and
returns a function that writes it to the database; that one is called inside the transaction that
ends the job, so it opens no file.
"""

import functools
import hashlib
import itertools
import json
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet

from annotation.data import snapshots
from annotation.data.ratings_and_demonstrations import demonstrations
from annotation.judge.assignment import score_comparisons
from annotation.models import MAX_RESPONSES, Batch, Comparison, Project, Prompt, Snapshot
from annotation.projects import batches
from annotation.projects.batches import ResponseText
from annotation.protocols import COMPARING
from rlhf import simulation
from rlhf.models import Checkpoint, Job, Round, Score
from rlhf.training import configs, rundir
from rlhf.training.rundir.files import link_tree, read_jsonl, write_jsonl
from rlhf.training.rundir.reports import read_result
from rlhf.training.settings import StageConfig, load, save
from rlhf.world.answers import corpus

Write = Callable[[], None]
Row = dict[str, Any]
Kind = Checkpoint.Kind
Split = Prompt.Split

# Settings of a stage that name models or the machine: filled in here, never by a person.
FILLED_IN = (
    "policy",
    "reference",
    "reward_model",
    "test_reward_model",
    "trunk",
    "seed",
    "threads",
    "axes",
)

MOST_SELECTED = 20_000
"""Comparisons that one job scores: drawn at random where more wait, and the rest next time."""


class StageError(Exception):
    """A stage can't be given what it needs; one sentence for a person. Trying again won't help."""


@dataclass(frozen=True)
class Stage:
    """One row of the table. A stage has either `prepare` (a program does it) or `work` (we do)."""

    queue: str
    collect: Callable[[Job, Path, Row], Write]
    config: type[StageConfig] | None = None
    prepare: Callable[[Job, Path], None] | None = None
    work: Callable[[Job], Row] | None = None


# --- base -------------------------------------------------------------------------------------


def prepare_base(job: Job, run_dir: Path) -> None:
    """The corpus of the small world; or the finished policy, if this machine has built it before."""
    config = stage_config(job.round, "base", seed=base_seed(job.round), threads=threads(least=1))
    sizes = corpus_sizes(job.round)
    cached = base_cache(config, sizes)
    save(config, run_dir / rundir.CONFIG)
    if read_result(cached) is not None:
        link_tree(cached / rundir.POLICY, run_dir / rundir.POLICY)
        shutil.copyfile(cached / rundir.RESULT, run_dir / rundir.RESULT)
        return
    rows = corpus(base_seed(job.round), sizes["corpus"], clean_share=sizes["clean_share"])
    write_jsonl(run_dir / rundir.DATA / "corpus.jsonl", rows)


def collect_base(job: Job, run_dir: Path, result: Row) -> Write:
    config = load(configs.BaseConfig, run_dir / rundir.CONFIG, stored=True)
    cached = base_cache(config, corpus_sizes(job.round))
    if read_result(cached) is None:
        beside = cached.with_name(f".{cached.name}.{uuid.uuid4().hex}")
        link_tree(run_dir / rundir.POLICY, beside / rundir.POLICY)
        shutil.copyfile(run_dir / rundir.RESULT, beside / rundir.RESULT)
        try:
            beside.rename(cached)
        except OSError:  # another job has put the same one there
            shutil.rmtree(beside, ignore_errors=True)
    checkpoint = new_checkpoint(
        job,
        Kind.POLICY,
        "base policy",
        run_dir / rundir.POLICY,
        config=config.to_dict(),
        metrics=result,
        n_parameters=int(result.get("n_parameters", 0)),
    )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write


def base_seed(round: Round) -> int:
    """The base policy's own seed: walks with different seeds share one base, as people would."""
    return int(round.config.get("base", {}).get("seed", 0))


def corpus_sizes(round: Round) -> dict[str, Any]:
    sizes = round.config.get("round", {})
    return {
        "corpus": int(sizes.get("corpus", 30_000)),
        "clean_share": float(sizes.get("corpus_clean_share", 0.6)),
    }


def base_cache(config: StageConfig, sizes: Mapping[str, Any]) -> Path:
    """Where a base policy of this configuration, corpus and code is kept once it is built."""
    values = {
        k: v for k, v in config.to_dict().items() if k not in ("threads", "checkpoint_seconds")
    }
    digest = hashlib.sha256(json.dumps([values, dict(sizes)], sort_keys=True).encode())
    code = Path(__file__).parent
    for name in (
        "training/base.py",
        "training/forward_pass.py",
        "training/packing.py",
        "training/cpu/llama_layers.py",
        "training/word_tokenizer.py",
        "world/lexicon.py",
        "world/prompts.py",
        "world/answers.py",
    ):
        digest.update((code / name).read_bytes())
    folder = Path(settings.CACHE_DIR) / "base"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / digest.hexdigest()[:32]


# --- generate ---------------------------------------------------------------------------------


def prepare_generate(job: Job, run_dir: Path) -> None:
    round = job.round
    config = stage_config(round, "generate", policy=start_policy(round).path)
    save(config, run_dir / rundir.CONFIG)
    ranking = choose(round, "ranking")
    if not ranking:
        raise StageError(
            "There is no prompt left that nobody has judged; import more prompts for training."
        )
    rows = [{"prompt_id": str(p.uid), "messages": p.messages} for p in ranking]
    write_jsonl(run_dir / rundir.DATA / "prompts.jsonl", rows)


def collect_generate(job: Job, run_dir: Path, result: Row) -> Write:
    """A batch with one comparison for every prompt that got at least two different answers."""
    round, policy = job.round, start_policy(job.round)
    config = load(configs.GenerateConfig, run_dir / rundir.CONFIG, stored=True)
    given = {
        row["prompt_id"]: row["responses"]
        for row in read_jsonl(run_dir / "responses.jsonl", required=("prompt_id", "responses"))
    }
    sampling = {"temperature": config.temperature, "max_new_tokens": config.max_new_tokens}
    comparisons = []
    for prompt in choose(round, "ranking"):
        responses = given.get(str(prompt.uid), [])
        if len(responses) >= 2:
            texts = [
                ResponseText(
                    text=response["text"],
                    source=source_label(policy),
                    sampling=sampling | {"finished": response.get("finished")},
                    logprob=response.get("logprob"),
                    n_tokens=response.get("n_tokens"),
                )
                for response in responses[:MAX_RESPONSES]
            ]
            comparisons.append((prompt, texts))
    if not comparisons:
        raise StageError(
            "The policy gave every prompt only one answer, so there is nothing to rank; raise the "
            "temperature of generate."
        )
    sizes = round.config.get("round", {})

    def write() -> None:
        overlap = int(sizes.get("overlap", round.project.overlap))
        name = f"Round {round.number}"
        batch = batches.create_batch(round.project, name, overlap=overlap, by=round.created_by)
        batches.add_comparisons(batch, comparisons)
        ask_again(batch, float(sizes.get("agreement_share", 0.0)), round.seed)
        batches.open_batch(batch, round.created_by)
        set_on_round(job, batch=batch)

    return write


def ask_again(batch: Batch, share: float, seed: int) -> None:
    """Let a seeded share of a draft batch be judged by one more person, to measure agreement."""
    pks = list(batch.comparisons.order_by("pk").values_list("pk", flat=True))
    pks.sort(key=lambda pk: hashlib.sha256(f"{seed}/again/{pk}".encode()).digest())
    twice = pks[: round_up(share * len(pks))]
    Comparison.objects.filter(pk__in=twice).update(needed=batch.overlap + 1)


def round_up(value: float) -> int:
    return int(-(-value // 1))


# --- snapshot ---------------------------------------------------------------------------------


def freeze(job: Job) -> Row:
    """Freeze what has been judged so far: every closed batch, or those that the round names."""
    round = job.round
    note = f"Round {round.number}"
    # A claim that was lost after the files were written has left its snapshot: it is the one.
    earlier = Snapshot.objects.filter(
        project=round.project, note=note, created_at__gte=job.created_at
    ).first()
    if earlier is None:
        numbers = dict(
            Round.objects.filter(project=round.project, batch__isnull=False).values_list(
                "batch_id", "number"
            )
        )
        named = round.config.get("round", {}).get("batches")
        judged = Batch.objects.filter(project=round.project)
        judged = judged.filter(pk__in=named) if named else judged.filter(state=Batch.State.CLOSED)
        rounds = {pk: numbers.get(pk, "") for pk in judged.values_list("pk", flat=True)}
        try:
            earlier = snapshots.freeze_snapshot(
                round.project, by=round.created_by, batches=judged, note=note, rounds=rounds
            )
        except snapshots.SnapshotError as error:
            raise StageError(str(error)) from None
    return {
        "snapshot": earlier.pk,
        "version": earlier.version,
        "n_judgments": earlier.counts.get("judgments", 0),
        "agreement": earlier.agreement,
    }


def collect_snapshot(job: Job, run_dir: Path, result: Row) -> Write:
    snapshot = Snapshot.objects.get(pk=result["snapshot"])
    return lambda: set_on_round(job, snapshot=snapshot)


# --- reward_model -----------------------------------------------------------------------------


def prepare_reward_model(job: Job, run_dir: Path) -> None:
    """The frozen preferences, as a researcher downloads them, and samples of the starting policy."""
    round = job.round
    if round.snapshot is None:
        raise StageError("The round has no snapshot of preferences yet.")
    config = stage_config(
        round,
        "reward_model",
        trunk=root(start_policy(round)).path,
        axes=tuple(round.project.axis_keys),
    )
    save(config, run_dir / rundir.CONFIG)
    try:
        frozen = snapshots.snapshot_file(round.snapshot, f"{snapshots.JUDGMENTS}.jsonl")
    except snapshots.SnapshotError as error:
        if not round.snapshot.counts.get("judgments"):
            raise StageError(
                f"Version {round.snapshot.version} of the data ranks nothing: it holds ratings or "
                "written answers, and a reward model learns from rankings."
            ) from None
        raise StageError(str(error)) from None
    shutil.copyfile(frozen, run_dir / rundir.DATA / "preferences.jsonl")
    write_jsonl(run_dir / rundir.DATA / "reference.jsonl", reference_rows(round, frozen))


def reference_rows(round: Round, frozen: Path) -> Iterable[Row]:
    """What the scores are shifted and scaled by: one sample of the starting policy per prompt.

    The first response to a ranked prompt is as good a sample of the policy as any other. A round
    without a generate stage (imported preferences) takes the responses that were ranked.
    """
    n = int(round.config.get("round", {}).get("reference_prompts", 200))
    generated = finished_run(round, "generate")
    if generated is not None:
        prompts = {str(prompt.uid): prompt for prompt in choose(round, "ranking")}
        for row in itertools.islice(read_jsonl(generated / "responses.jsonl"), n):
            prompt = prompts.get(row["prompt_id"])
            if prompt is not None and row["responses"]:
                text = row["responses"][0]["text"]
                yield reference_row(row["prompt_id"], prompt.messages, prompt.risk, text)
        return
    needed = ("prompt_id", "messages", "responses")
    for i, row in enumerate(itertools.islice(read_jsonl(frozen, required=needed), n)):
        # The first response of half the rows and the last of the others: in a file of pairs the
        # first is often the better one.
        text = row["responses"][0 if i % 2 else -1]
        yield reference_row(row["prompt_id"], row["messages"], row.get("risk", ""), text)


def reference_row(prompt_id: str, messages: Any, risk: str, text: str) -> Row:
    return {"prompt_id": prompt_id, "messages": messages, "risk": risk, "text": text}


def collect_reward_model(job: Job, run_dir: Path, result: Row) -> Write:
    config = load(configs.RewardModelConfig, run_dir / rundir.CONFIG, stored=True).to_dict()
    name = f"round {job.round.number}"
    made = [
        new_checkpoint(
            job,
            kind,
            f"{name} {word}",
            run_dir / part,
            parent=root(start_policy(job.round)),
            config=config,
            metrics={part: result.get(part), "calibration": result.get("calibration")},
        )
        for kind, word, part in (
            (Kind.REWARD_MODEL, "reward model", "train"),
            (Kind.TEST_REWARD_MODEL, "test reward model", "test"),
        )
    ]

    def write() -> None:
        for checkpoint in made:
            checkpoint.save()

    return write


# --- ppo --------------------------------------------------------------------------------------


def prepare_ppo(job: Job, run_dir: Path) -> None:
    round, policy = job.round, start_policy(job.round)
    held = round.config.get("round", {}).get("kl_reference", "base")
    watch = choose(round, "watch")
    judge = reward_model_of(round, Kind.TEST_REWARD_MODEL).path
    config = stage_config(
        round,
        "ppo",
        policy=policy.path,
        reference=(root(policy) if held == "base" else policy).path,
        reward_model=reward_model_of(round, Kind.REWARD_MODEL).path,
        test_reward_model=judge if watch else "",  # without prompts it has nothing to watch
    )
    save(config, run_dir / rundir.CONFIG)
    for file, chosen in (("prompts", choose(round, "ppo")), ("watch", watch)):
        if chosen:
            rows = map(prompt_row, chosen)
            write_jsonl(run_dir / rundir.DATA / f"{file}.jsonl", rows)
    if configs.PPOConfig.value_in(round.config.get("ppo", {}), "ptx.weight"):
        # What was written before this job, so that one that is taken up again gets the same.
        written = list(demonstrations(round.project, until=job.created_at))
        if not written:
            raise StageError(
                "ptx.weight keeps the answers that people wrote likely, but nobody has written one "
                "that may be trained on; have some written, or set ptx.weight to 0."
            )
        write_jsonl(run_dir / rundir.DATA / "ptx.jsonl", written)


def collect_ppo(job: Job, run_dir: Path, result: Row) -> Write:
    round, parent = job.round, start_policy(job.round)
    checkpoint = new_checkpoint(
        job,
        Kind.POLICY,
        f"round {round.number} policy",
        run_dir / rundir.POLICY,
        parent=parent,
        config=load(configs.PPOConfig, run_dir / rundir.CONFIG, stored=True).to_dict(),
        metrics=result,
        n_parameters=parent.n_parameters,
    )

    def write() -> None:
        checkpoint.save()
        set_on_round(job, policy=checkpoint)

    return write


# --- evaluate ---------------------------------------------------------------------------------


def prepare_evaluate(job: Job, run_dir: Path) -> None:
    """Held-out prompts and what the base and the previous policy answered to the same ones.

    The judge is the test reward model: the one that PPO has never seen.
    """
    round = job.round
    if round.policy is None:
        raise StageError("The round has no policy to evaluate yet.")
    judge = models_of(round, Kind.TEST_REWARD_MODEL).first()
    config = stage_config(
        round, "evaluate", policy=round.policy.path, reward_model=judge.path if judge else ""
    )
    save(config, run_dir / rundir.CONFIG)
    chosen = choose(round, "heldout")
    if not chosen:
        raise StageError(
            "There is no held-out prompt to evaluate on; import prompts (15 % of them are held out)."
        )
    write_jsonl(run_dir / rundir.DATA / "prompts.jsonl", map(prompt_row, chosen))
    known = {str(prompt.uid) for prompt in chosen}
    temperatures = set(config.to_dict()["temperatures"])
    for name, policy in opponents(round).items():
        rows = [
            row
            for row in evaluation_samples(policy)
            if row["prompt_id"] in known and row["temperature"] in temperatures
        ]
        if rows:
            write_jsonl(run_dir / rundir.DATA / "opponents" / f"{name}.jsonl", rows)


def opponents(round: Round) -> dict[str, Checkpoint]:
    """Whom the round's policy is compared with: the base, and the policy that it started from."""
    if round.policy is None or round.policy.parent is None:
        return {}
    return {"base": root(round.policy), "previous": round.policy.parent}


def evaluation_samples(policy: Checkpoint) -> list[Row]:
    """The samples of the round that measured this policy; [] if none did."""
    if policy.round is None:
        return []
    folder = finished_run(policy.round, "evaluate")
    if folder is None or not (folder / "samples.jsonl").exists():
        return []
    return list(read_jsonl(folder / "samples.jsonl"))


def collect_evaluate(job: Job, run_dir: Path, result: Row) -> Write:
    """Score rows: the reward model's opinion and, in the demo's world, the rubric's."""
    round, policy = job.round, job.round.policy
    assert policy is not None
    rows: list[Score] = []
    for summary, checkpoint in (
        (result.get("summary"), policy),
        *(
            (result.get("opponents", {}).get(name), opponent)
            # `previous` last and once: where it is the base itself, one set of rows is enough.
            for name, opponent in {o.pk: (n, o) for n, o in opponents(round).items()}.values()
        ),
    ):
        rows += score_rows(job, checkpoint, Score.Judge.MODEL, summary or {})
    if round.project.is_demo:
        gold = gold_summary(job, run_dir)
        result["gold"] = gold
        rows += score_rows(job, policy, Score.Judge.GOLD, gold)

    def write() -> None:
        judges = [Score.Judge.MODEL, Score.Judge.GOLD]
        Score.objects.filter(round=round, judge__in=judges).delete()
        Score.objects.bulk_create(rows)

    return write


def gold_summary(job: Job, run_dir: Path) -> dict[str, Row]:
    """The rubric's Summary for each temperature; it judges all policies' samples by one measure."""
    from rlhf.training.score_summary import Sample, by_temperature, summarize

    prompts = {p["prompt_id"]: p for p in read_jsonl(run_dir / "data" / "prompts.jsonl")}

    def judged(path: Path) -> dict[str, list[Sample]]:
        rows = read_jsonl(path) if path.exists() else iter(())
        return by_temperature(simulation.gold(prompts, rows))

    mine = judged(run_dir / "samples.jsonl")
    theirs = {
        name: judged(run_dir / rundir.DATA / "opponents" / f"{name}.jsonl")
        for name in ("base", "previous")
    }
    return {
        temperature: summarize(
            samples,
            {name: found[temperature] for name, found in theirs.items() if temperature in found},
            seed=job.round.seed,
        )
        for temperature, samples in mine.items()
    }


def score_rows(
    job: Job, checkpoint: Checkpoint, judge: str, summaries: Mapping[str, Row]
) -> list[Score]:
    """A Summary of docs/formats.md as rows; a figure that the judge can't tell makes none."""

    def row(metric: str, temperature: str, figure: Any, category: str = "") -> Iterable[Score]:
        if not isinstance(figure, Mapping):
            return
        value = figure.get("score", figure.get("value"))
        if value is None:
            return
        low, high = figure.get("ci") or (None, None)
        yield Score(
            round=job.round,
            job=job,
            checkpoint=checkpoint,
            judge=judge,
            metric=metric,
            temperature=float(temperature),
            category=category[:60],
            value=value,
            low=low,
            high=high,
            n=figure.get("n") or 0,
        )

    found: list[Score] = []
    for temperature, summary in summaries.items():
        for metric, figure in summary.items():
            if metric == "by_category":
                for category, figures in figure.items():
                    if category:
                        found += row("score", temperature, figures, category)
                        wins = figures.get("win_rate_vs_base")
                        found += row("win_rate_vs_base", temperature, wins, category)
            else:
                found += row(metric, temperature, figure)
    return found


# --- selection --------------------------------------------------------------------------------


def prepare_selection(job: Job, run_dir: Path) -> None:
    """The comparisons that wait for people, and the ensemble that is asked about them."""
    model = ensemble(job.project)
    if model is None:
        raise StageError("No reward model has several members, so nothing can disagree.")
    waiting = waiting_comparisons(job.project).select_related("prompt")
    rows = waiting.prefetch_related("responses").order_by("shuffle", "pk")[:MOST_SELECTED]
    newer = policy_ages(job.project)
    comparisons = []
    for comparison in rows:
        responses = sorted(comparison.responses.all(), key=lambda response: response.pk)
        comparisons.append(
            {
                "comparison_id": str(comparison.pk),
                "messages": comparison.prompt.messages,
                "responses": [response.text for response in responses],
                "age": min((newer.get(response.source, 0) for response in responses), default=0),
            }
        )
    if not comparisons:
        raise StageError("Nothing waits for people any more, so there is nothing to select from.")
    save(stage_config(job.round, "selection", reward_model=model.path), run_dir / rundir.CONFIG)
    write_jsonl(run_dir / rundir.DATA / "comparisons.jsonl", comparisons)


def collect_selection(job: Job, run_dir: Path, result: Row) -> Write:
    """The scores on the comparisons, by which `annotation` hands out; it knows no more about them."""
    scores = {
        int(row["comparison_id"]): float(row["score"])
        for row in read_jsonl(run_dir / "scores.jsonl", required=("comparison_id", "score"))
    }
    config = load(configs.SelectionConfig, run_dir / rundir.CONFIG, stored=True)
    model = Checkpoint.objects.filter(project=job.project, path=config.reward_model).first()
    by = str(model) if model else "reward model"

    def write() -> None:
        for batch in Batch.objects.filter(project=job.project, state=Batch.State.OPEN):
            mine = set(batch.comparisons.filter(is_free=True).values_list("pk", flat=True))
            if found := {pk: score for pk, score in scores.items() if pk in mine}:
                score_comparisons(batch, found, by=by)

    return write


def ensemble(project: Project) -> Checkpoint | None:
    """The project's newest reward model that has several members, whose opinions can differ."""
    models = Checkpoint.objects.filter(project=project, kind=Kind.REWARD_MODEL)
    return models.filter(config__members__gt=1).order_by("-created_at", "-pk").first()


def waiting_comparisons(project: Project) -> QuerySet[Comparison]:
    """What people may still be handed in order to say which response is better."""
    return Comparison.objects.filter(
        Q(batch__interface__in=COMPARING)
        # A batch without its own has the project's.
        | Q(batch__interface="", batch__project__interface__in=COMPARING),
        batch__project=project,
        batch__state=Batch.State.OPEN,
        batch__qualification=None,
        is_free=True,
        is_live=False,
        gold=None,
    )


def policy_ages(project: Project) -> dict[str, int]:
    """How many promoted policies are newer, by the label of the responses that a policy wrote."""
    promoted = Checkpoint.objects.filter(
        project=project, kind=Kind.POLICY, state=Checkpoint.State.PROMOTED
    ).order_by("-created_at", "-pk")
    return {source_label(policy): age for age, policy in enumerate(promoted)}


def source_label(policy: Checkpoint) -> str:
    """What `Response.source` says of a policy's responses; annotators never see it."""
    return f"policy {policy.uid}"


# --- The table --------------------------------------------------------------------------------

STAGES: dict[str, Stage] = {
    "base": Stage("gpu", collect_base, configs.BaseConfig, prepare_base),
    "generate": Stage("gpu", collect_generate, configs.GenerateConfig, prepare_generate),
    "snapshot": Stage("default", collect_snapshot, work=freeze),
    "reward_model": Stage(
        "gpu", collect_reward_model, configs.RewardModelConfig, prepare_reward_model
    ),
    "ppo": Stage("gpu", collect_ppo, configs.PPOConfig, prepare_ppo),
    "evaluate": Stage("gpu", collect_evaluate, configs.EvaluateConfig, prepare_evaluate),
    # In no round's plan: `rounds.select` adds it beside the stages when there is something new to say.
    "selection": Stage("gpu", collect_selection, configs.SelectionConfig, prepare_selection),
}
QUEUES = ("default", "gpu")


# --- Which prompts ----------------------------------------------------------------------------

# purpose: (split, the setting that says how many, the setting that says how many of them harmful)
PURPOSES: dict[str, tuple[str, str, str]] = {
    "ranking": (Split.TRAIN, "ranking_prompts", "harmful_share"),
    "ppo": (Split.TRAIN, "ppo_prompts", "ppo_harmful_share"),
    "watch": (Split.EVAL, "watch_prompts", "ppo_harmful_share"),
    "heldout": (Split.HELDOUT, "heldout_prompts", ""),
}


def pool(project: Project, purpose: str) -> QuerySet[Prompt]:
    """The prompts that may be used for a purpose. Held-out prompts train nothing."""
    split = PURPOSES[purpose][0]
    prompts = Prompt.objects.filter(project=project, split=split)
    return (
        prompts if split == Split.HELDOUT else prompts.filter(source__signed_off_at__isnull=False)
    )


def choose(round: Round, purpose: str) -> list[Prompt]:
    """The round's prompts for a purpose: the same ones whenever it is asked.

    Drawn by a hash of the round's seed and the prompt's text from what there was when the round was
    launched. For ranking only prompts that nobody had been asked about before; held-out prompts are
    the same in every round, so that rounds can be compared.
    """
    split, size, share = PURPOSES[purpose]
    sizes = round.config.get("round", {})
    wanted = int(sizes.get(size, 0))
    launched = round.launched_at or round.created_at
    prompts = pool(round.project, purpose).filter(created_at__lte=launched)
    key = f"{round.project_id}/heldout" if split == Split.HELDOUT else f"{round.seed}/{purpose}"
    if purpose == "ranking":
        asked = Comparison.objects.filter(
            batch__project=round.project, batch__created_at__lt=launched
        )
        prompts = prompts.exclude(pk__in=asked.values("prompt_id"))
    return draw(prompts, wanted, key, float(sizes[share]) if sizes.get(share) else None)


def draw(prompts: QuerySet[Prompt], n: int, key: str, harmful_share: float | None) -> list[Prompt]:
    """Up to `n` prompts in an order that the key decides, a share of them harmful if there are any.

    Where there are too few of one sort, more of the other are taken.
    """
    rows = [
        (hashlib.sha256(f"{key}/{sha}".encode()).digest(), pk, risk == Prompt.Risk.HARMFUL)
        for pk, sha, risk in prompts.values_list("pk", "sha256", "risk")
    ]
    rows.sort()
    if harmful_share is not None:
        harmful = [row for row in rows if row[2]]
        others = [row for row in rows if not row[2]]
        n_harmful = min(round(n * harmful_share), len(harmful))
        n_harmful = max(n_harmful, min(n - len(others), len(harmful)))
        rows = sorted(harmful[:n_harmful] + others[: n - n_harmful])
    chosen = [pk for _, pk, _ in rows[:n]]
    found = Prompt.objects.in_bulk(chosen)
    return [found[pk] for pk in chosen]


def prompt_row(prompt: Prompt) -> Row:
    """A prompt as the run folder has it."""
    return {
        "prompt_id": str(prompt.uid),
        "messages": prompt.messages,
        "category": prompt.category,
        "risk": prompt.risk,
    }


# --- Models and configurations ----------------------------------------------------------------


def stage_config(round: Round, stage: str, **filled_in: Any) -> StageConfig:
    """The stage's configuration as the round froze it, with models and seed filled in.

    What does nothing was refused when the round was launched; here it may come from a round of an
    earlier version, or of what was filled in (without watch prompts there is no test reward model).
    """
    config = STAGES[stage].config
    assert config is not None
    filled_in = {"threads": threads()} | filled_in
    if "seed" in config.__dataclass_fields__:
        filled_in = {"seed": round.seed} | filled_in
    try:
        return config.from_dict({**round.config.get(stage, {}), **filled_in}, stored=True)
    except ValueError as error:
        raise StageError(f"{stage}: {error}.") from None


def placeholders(config: type[StageConfig]) -> dict[str, str]:
    """Something in place of every model that is filled in later, so that the rest can be checked."""
    names = config.__dataclass_fields__
    return {n: "…" for n in FILLED_IN if n in names and n not in ("seed", "threads", "axes")}


def threads(*, least: int = 0) -> int:
    return max(least * 2, settings.TRAINING_THREADS) if least else int(settings.TRAINING_THREADS)


def start_policy(round: Round) -> Checkpoint:
    """The policy that the round begins with; StageError if it has none."""
    if round.start_policy is None:
        raise StageError(
            "The round has no policy to start from; build or name a base policy first."
        )
    return round.start_policy


def root(policy: Checkpoint) -> Checkpoint:
    """The base policy that this one comes from."""
    while policy.parent is not None:
        policy = policy.parent
    return policy


def models_of(round: Round, kind: str) -> QuerySet[Checkpoint]:
    return Checkpoint.objects.filter(round=round, kind=kind).order_by("-created_at", "-pk")


def reward_model_of(round: Round, kind: str) -> Checkpoint:
    found = models_of(round, kind).first()
    if found is None:
        raise StageError("The round has no reward model yet.")
    return found


def finished_run(round: Round, stage: str) -> Path | None:
    """The run folder of the last job of a stage that is done."""
    jobs = Job.objects.filter(round=round, stage=stage, state=Job.State.DONE)
    job = jobs.order_by("-created_at", "-pk").first()
    return job.run_dir if job else None


def new_checkpoint(
    job: Job,
    kind: str,
    name: str,
    folder: Path,
    *,
    config: Row,
    metrics: Row,
    parent: Checkpoint | None = None,
    n_parameters: int = 0,
) -> Checkpoint:
    """An unsaved row for a model folder, with its size and the hash of its files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise StageError(f"The stage left no model in {folder.name}/.")
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{inner}  {path.relative_to(folder).as_posix()}\n".encode())
    return Checkpoint(
        project=job.project,
        kind=kind,
        name=name,
        parent=parent,
        round=job.round,
        snapshot=job.round.snapshot,
        path=str(folder),
        sha256=digest.hexdigest(),
        n_bytes=sum(path.stat().st_size for path in files),
        n_parameters=n_parameters,
        config=config,
        metrics=metrics,
        code_version=code_version(),
    )


def set_on_round(job: Job, **fields: Any) -> None:
    """What came out, on the round's row; never its state, which only `rounds` writes."""
    Round.objects.filter(pk=job.round_id).update(**fields)


@functools.cache
def code_version() -> str:
    """The commit that this code is at, or the package's version where there is no repository."""
    command: Sequence[str] = ("git", "describe", "--always", "--dirty")
    try:
        found = subprocess.run(
            command, cwd=settings.BASE_DIR, capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return settings.VERSION
    return found.stdout.strip()[:60] or settings.VERSION
