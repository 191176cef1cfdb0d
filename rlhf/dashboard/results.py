"""The result of a round: the same few figures at its head, in the list of rounds and side by side."""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings
from django.db.models import F, Sum

from annotation.models import Project
from rlhf.dashboard.evidence import Evidence, Measured, load_evidence
from rlhf.dashboard.panel import samples_filter
from rlhf.estimates import Change, Estimate, change, in_words, is_number, number
from rlhf.models import Job, Round
from rlhf.round_timeline import duration


@dataclass(frozen=True)
class Column:
    """One figure of every round. `better` is 1 where a higher value is better, -1 where a lower one
    is, and 0 where neither is."""

    key: str
    name: str
    help: str
    unit: str = ""
    percent: bool = False
    better: int = 0


WIN_RATE = "win_rate_vs_previous"
COLUMNS = (
    Column(
        WIN_RATE,
        "Win rate",
        "How often the policy's response is preferred to the response of the policy that the round "
        "started from; a tie counts one half.",
        percent=True,
        better=1,
    ),
    Column("helpfulness", "Helpfulness", "Mean score on held-out prompts.", better=1),
    Column("safety", "Safety", "Mean score on held-out prompts.", better=1),
    Column("kl", "KL", "KL to the reference at the end of PPO, in nats a response.", "nats"),
    Column("mean_length", "Length", "Mean tokens of a response to held-out prompts.", "tokens"),
    Column(
        "unfinished_rate",
        "Unfinished",
        "Share of responses that were cut off at the token limit.",
        percent=True,
        better=-1,
    ),
    Column("cost", "Computing", "Time of all jobs of the round, with energy and price."),
)
METRICS = tuple(column.key for column in COLUMNS if column.key not in ("kl", "cost"))

WORDS = {1: "better", -1: "worse", 0: "no clear change"}


@dataclass(frozen=True)
class Figure:
    """One figure of one round as text; `text` is "" where there is none."""

    column: Column
    text: str = ""
    details: str = ""
    """The interval and n, or what the value stands for."""
    change: str = ""
    """The difference from the start policy: `+0.17 from 0.41`."""
    word: str = ""
    """What the difference means: better, worse, longer, no clear change, …"""
    tone: str = ""
    """ "go" or "no-go" where the difference is clearly better or worse."""
    value: float | None = None
    """For sorting."""
    estimate: Estimate | None = None
    href: str = ""


@dataclass(frozen=True)
class Result:
    """What a round has come to so far."""

    round: Round
    figures: list[Figure]

    @property
    def is_measured(self) -> bool:
        """Whether the round's policy has been evaluated."""
        return any(figure.estimate is not None for figure in self.figures)

    def figure(self, key: str) -> Figure:
        """The figure of a column."""
        return next(figure for figure in self.figures if figure.column.key == key)


@dataclass(frozen=True)
class Results:
    """The results of all rounds of a project, by one judge at one temperature."""

    evidence: Evidence
    by_round: Mapping[int, Result]

    @property
    def note(self) -> str:
        """What the figures rest on, in one or two sentences."""
        text = self.evidence.conditions
        if self.evidence.judge == "model":
            text += " Each round's reward model has its own scale: compare a round with its start."
        return text


def load_results(project: Project) -> Results:
    """The results of a project's rounds, in a number of queries that does not grow with them."""
    evidence = load_evidence(project, metrics=METRICS)
    measured = {m.round.pk: m for m in evidence.measured}
    seconds = _seconds(project)
    by_round = {}
    for round in evidence.rounds:
        of_round = measured.get(round.pk)
        before = _before(evidence, of_round) if of_round else {}
        figures = [
            _score(evidence, of_round, before, column)
            if column.key in METRICS
            else _kl(evidence, round, column)
            if column.key == "kl"
            else _cost(seconds.get(round.pk), column)
            for column in COLUMNS
        ]
        by_round[round.pk] = Result(round, figures)
    return Results(evidence, by_round)


def _seconds(project: Project) -> dict[int, float]:
    """`{round id: seconds}` of all jobs that have ended, every attempt included."""
    ended = Job.objects.filter(project=project, ended_at__isnull=False, started_at__isnull=False)
    rows = ended.order_by().values("round_id").annotate(took=Sum(F("ended_at") - F("started_at")))
    return {row["round_id"]: row["took"].total_seconds() for row in rows}


def _before(evidence: Evidence, m: Measured) -> Mapping[str, Estimate]:
    """The start policy's estimates: as the round itself measured it, else (by a judge whose scale is
    the same in all rounds, with the same sampling settings) as its own round did."""
    if m.start or evidence.judge == "model":
        return m.start
    for other in evidence.measured:
        is_start = other.round.policy_id == m.round.start_policy_id is not None
        if is_start and other.round.pk != m.round.pk and other.sampling == m.sampling:
            return other.estimates
    return {}


def _score(
    evidence: Evidence, m: Measured | None, before: Mapping[str, Estimate], column: Column
) -> Figure:
    estimate = m.estimates.get(column.key) if m else None
    if m is None or estimate is None:
        return Figure(column)
    text = number(estimate.value, percent=column.percent)
    details = in_words(estimate, percent=column.percent).removeprefix(text).lstrip(", ")
    details = details.replace("n = ", "n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    difference, word, tone = "", "", ""
    if column.key == WIN_RATE:
        word, tone = _against_half(estimate)
    elif was := before.get(column.key):
        difference, word, tone = _difference(was, estimate, column)
    return Figure(
        column,
        text,
        details,
        difference,
        word,
        tone,
        estimate.value,
        estimate,
        evidence.samples_url(m.round, **samples_filter(column.key)),
    )


def _against_half(estimate: Estimate) -> tuple[str, str]:
    """What a win rate says: (word, tone)."""
    if estimate.low is not None and estimate.low > 0.5:
        return "clearly preferred", "go"
    if estimate.high is not None and estimate.high < 0.5:
        return "clearly not preferred", "no-go"
    return "not clearly preferred", ""


def _difference(was: Estimate, now: Estimate, column: Column) -> tuple[str, str, str]:
    """(difference in words, what it means, tone) of a figure against the start policy's."""
    difference: Change = change(was, now)
    direction = difference.direction
    start = number(was.value, percent=column.percent)
    if column.key == "mean_length":
        by = number(now.value / was.value - 1, percent=True, signed=True) if was.value else ""
        word = {1: "longer", -1: "shorter", 0: WORDS[0]}[direction]
        return f"{by} from {start}".strip(), word, ""
    size = difference.value * (100 if column.percent else 1)
    by = number(size, signed=True) + (" points" if column.percent else "")
    meaning = direction * column.better
    tone = {1: "go", -1: "no-go", 0: ""}[meaning]
    return f"{by} from {start}", WORDS[meaning], tone


def _kl(evidence: Evidence, round: Round, column: Column) -> Figure:
    job = evidence.jobs.get((round.pk, "ppo"))
    value = job.metrics.get("kl") if job and isinstance(job.metrics, dict) else None
    if not is_number(value):
        return Figure(column)
    steps = job.metrics.get("kept_step", job.metrics.get("steps")) if job else None
    details = f"after step {number(steps)}" if is_number(steps) else ""
    href = f"{round.get_absolute_url()}?stage=ppo"
    return Figure(column, number(value), details, value=float(value), href=href)


def _cost(seconds: float | None, column: Column) -> Figure:
    if seconds is None:
        return Figure(column)
    hours = seconds / 3600
    details = f"about {number(hours * settings.MACHINE_WATTS)} Wh"
    if settings.MACHINE_PRICE_PER_HOUR:
        details += f", cost {number(hours * settings.MACHINE_PRICE_PER_HOUR)}"
    return Figure(column, duration(seconds), details, value=seconds)


def sorted_results(results: list[Result], key: str, *, descending: bool) -> list[Result]:
    """By one column; rounds without the figure come last in both orders."""
    if key not in {column.key for column in COLUMNS}:
        return sorted(results, key=lambda result: result.round.number, reverse=descending)
    known = [(r.figure(key).value, r) for r in results]
    there = [(value, r) for value, r in known if value is not None]
    there.sort(key=lambda pair: pair[0], reverse=descending)
    return [r for _, r in there] + [r for value, r in known if value is None]
