"""Measuring a policy: held-out prompts and the opponents' samples in, scores out."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf import simulation
from rlhf.errors import StageError
from rlhf.models import Checkpoint, Job, Round, Score
from rlhf.stages.prompts import choose, prompt_row
from rlhf.stages.stage import Row, Write, stage_config
from rlhf.training import configs, rundir
from rlhf.training.configs.evaluate import OPPONENTS
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import read_jsonl, write_jsonl
from rlhf.training.score_summary import Sample, group_by_temperature, summarize
from rlhf.training.settings import load, save

SAMPLING = ("max_new_tokens", "top_k", "top_p", "min_p")
"""Settings under which responses can be compared only if they are equal."""


def prepare_evaluate(job: Job, run_dir: Path) -> None:
    """Held-out prompts, and the responses of the base and the previous policy to the same prompts.

    An opponent whose kept samples were drawn with other settings (a shorter longest response,
    another temperature), or for fewer prompts, answers again in this run: `config.opponents`. The
    judge is the test reward model, which PPO has never seen.
    """
    round = job.round
    if round.policy is None:
        raise StageError("The round has no policy to evaluate yet.")
    judge = round.newest_model(Checkpoint.Kind.TEST_REWARD_MODEL)
    config = stage_config(
        round,
        configs.EvaluateConfig,
        "evaluate",
        policy=round.policy.path,
        reward_model=judge.path if judge else "",
    )
    prompts = choose(round, "heldout")
    if not prompts:
        raise StageError(
            "There is no held-out prompt to evaluate on; import prompts (15 % of them are held out)."
        )
    write_jsonl(run_dir / rundir.DATA / "prompts.jsonl", map(prompt_row, prompts))
    prompt_ids = {str(prompt.uid) for prompt in prompts}
    again: dict[str, str] = {}
    for name, policy in opponents(round).items():
        rows = comparable_samples(policy, config, prompt_ids, before=round)
        if rows is None:
            again[name] = policy.path
        elif rows:
            write_jsonl(run_dir / rundir.DATA / "opponents" / f"{name}.jsonl", rows)
    settings = config.to_dict() | {"opponents": again}
    save(configs.EvaluateConfig.from_dict(settings, stored=True), run_dir / rundir.CONFIG)


def comparable_samples(
    policy: Checkpoint, config: configs.EvaluateConfig, prompt_ids: set[str], *, before: Round
) -> list[Row] | None:
    """A policy's kept samples of these prompts that were drawn as `config` says, from its own round
    or from a later one (before `before`) that it was an opponent in; None if there are none.

    A prompt that did not fit into the model's context has no sample, and lacks none.
    """
    for folder, file in _sampled(policy, before):
        try:
            drawn = load(configs.EvaluateConfig, folder / rundir.CONFIG, stored=True)
            given = {row["prompt_id"] for row in read_jsonl(folder / "data" / "prompts.jsonl")}
        except (InputError, OSError):  # an earlier version's folder, or one that somebody removed
            continue
        if not file.exists() or not prompt_ids <= given:
            continue
        if not set(config.temperatures) <= set(drawn.temperatures):
            continue
        if any(getattr(drawn, name) != getattr(config, name) for name in SAMPLING):
            continue
        return [
            row
            for row in read_jsonl(file)
            if row["prompt_id"] in prompt_ids and row["temperature"] in config.temperatures
        ]
    return None


def _sampled(policy: Checkpoint, before: Round) -> Iterator[tuple[Path, Path]]:
    """(run folder, file of samples) of every evaluation that the policy answered in; its own first."""
    own = policy.round.last_done("evaluate") if policy.round else None
    if own is not None:
        yield own.run_dir, own.run_dir / "samples.jsonl"
    rounds = Round.objects.filter(project=policy.project, number__lt=before.number)
    for round in rounds.select_related("policy__parent").order_by("-number"):
        names = [name for name, other in opponents(round).items() if other.pk == policy.pk]
        job = round.last_done("evaluate") if names else None
        if job is not None:
            yield job.run_dir, job.run_dir / "opponents" / f"{names[0]}.jsonl"


def opponents(round: Round) -> dict[str, Checkpoint]:
    """The policies that the round's is compared with: the base, and the one it started from."""
    if round.policy is None or round.policy.parent is None:
        return {}
    return {"base": round.policy.root, "previous": round.policy.parent}


def evaluation_samples(policy: Checkpoint) -> list[Row]:
    """The samples of the round that measured this policy; [] if none did."""
    job = policy.round.last_done("evaluate") if policy.round else None
    if job is None or not (job.run_dir / "samples.jsonl").exists():
        return []
    return list(read_jsonl(job.run_dir / "samples.jsonl"))


def collect_evaluate(job: Job, run_dir: Path, result: Row) -> Write:
    """Score rows: the reward model's opinion and, in the demo's world, the rubric's."""
    round, policy = job.round, job.round.policy
    assert policy is not None
    # Without a reward model there is what can be counted.
    summary = result.get("summary") or result.get("responses") or {}
    rows = score_rows(job, policy, Score.Judge.MODEL, summary)
    # `previous` last and once: where it is the base itself, one set of rows is enough.
    others = {o.pk: (n, o) for n, o in opponents(round).items()}.values()
    for name, opponent in others:
        summary = result.get("opponents", {}).get(name) or {}
        rows += score_rows(job, opponent, Score.Judge.MODEL, summary)
    if round.project.is_demo:
        own, theirs = rubric_summaries(job, run_dir)
        result["gold"] = own
        rows += score_rows(job, policy, Score.Judge.GOLD, own)
        for name, opponent in others:
            rows += score_rows(job, opponent, Score.Judge.GOLD, theirs.get(name, {}))

    def write() -> None:
        judges = [Score.Judge.MODEL, Score.Judge.GOLD]
        Score.objects.filter(round=round, judge__in=judges).delete()
        Score.objects.bulk_create(rows)

    return write


def rubric_summaries(job: Job, run_dir: Path) -> tuple[dict[str, Row], dict[str, dict[str, Row]]]:
    """The rubric's Summary for each temperature, of the policy and of its opponents by name; the
    rubric judges all policies' samples by one measure."""
    prompts = {p["prompt_id"]: p for p in read_jsonl(run_dir / "data" / "prompts.jsonl")}
    seed = job.round.seed

    def judged(path: Path) -> dict[str, list[Sample]]:
        rows = read_jsonl(path) if path.exists() else iter(())
        return group_by_temperature(simulation.gold(prompts, rows))

    theirs = {name: judged(run_dir / "opponents" / f"{name}.jsonl") for name in OPPONENTS}
    own = {
        temperature: summarize(
            samples,
            {name: rows[temperature] for name, rows in theirs.items() if temperature in rows},
            seed=seed,
        )
        for temperature, samples in judged(run_dir / "samples.jsonl").items()
    }
    opposing = {
        name: {
            temperature: summarize(samples, {}, seed=seed) for temperature, samples in rows.items()
        }
        for name, rows in theirs.items()
    }
    return own, opposing


def score_rows(
    job: Job, checkpoint: Checkpoint, judge: str, summaries: Mapping[str, Row]
) -> list[Score]:
    """A Summary of docs/formats.md as rows; a figure that the judge can't tell makes none."""
    rows = []
    for temperature, summary in summaries.items():
        for metric, category, figure in _figures(summary):
            value = figure.get("score", figure.get("value"))
            if value is None:
                continue
            low, high = figure.get("ci") or (None, None)
            rows.append(
                Score(
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
            )
    return rows


def _figures(summary: Row) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(metric, category or "", figure) of one temperature."""
    figures: Iterable[tuple[str, str, Any]] = (
        (metric, "", figure) for metric, figure in summary.items() if metric != "by_category"
    )
    by_category: list[tuple[str, str, Any]] = []
    for category, of_category in summary.get("by_category", {}).items():
        if category:
            wins = of_category.get("win_rate_vs_base")
            by_category += [("score", category, of_category), ("win_rate_vs_base", category, wins)]
    for metric, category, figure in (*figures, *by_category):
        if isinstance(figure, Mapping):
            yield metric, category, figure
