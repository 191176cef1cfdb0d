"""The data behind every panel: a project's scores, rounds and finished jobs, fetched once."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.urls import reverse

from annotation.models import Project
from rlhf.estimates import Change, Estimate, change, in_words
from rlhf.models import Job, Round, Score
from rlhf.round_config import longest_response
from rlhf.training.configs import EvaluateConfig

JUDGES = {
    "gold": "rubric (simulated)",
    "model": "reward model",
    "human": "human",
}
RATES = {"violation_rate", "over_refusal_rate", "win_rate_vs_base", "win_rate_vs_previous"}
RATES |= {"entity_accuracy", "correct_rate", "unfinished_rate"}
COUNTED = {"mean_length", "unfinished_rate"}
"""Metrics that need no judge."""


@dataclass(frozen=True)
class Measured:
    """One round's policy as one judge scored it at one temperature."""

    round: Round
    estimates: dict[str, Estimate]
    categories: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    start: dict[str, Estimate] = field(default_factory=dict)
    """The same judge's estimates of the round's start policy."""

    @property
    def length(self) -> int | None:
        """The longest response in tokens that the round measured with."""
        return longest_response(self.round.config)

    @property
    def sampling(self) -> tuple[object, ...]:
        """The settings of sampling: figures of rounds with other ones are of another kind."""
        known, _ = EvaluateConfig.split_known(self.round.config.get("evaluate") or {})
        defaults = EvaluateConfig.settings()
        cut = (known.get(name, defaults[name].default) for name in ("top_k", "top_p", "min_p"))
        return (self.length, *cut)

    @property
    def label(self) -> str:
        return f"R{self.round.number}" if self.round.number else "base"

    @property
    def name(self) -> str:
        return f"round {self.round.number}" if self.round.number else "the base policy"


@dataclass(frozen=True)
class MetricChange:
    """How one metric changed up to the policy `after`."""

    after: Measured
    change: Change

    @property
    def direction(self) -> int:
        return self.change.direction


@dataclass(frozen=True)
class Evidence:
    """Scores of one judge at one temperature, with all rounds and the newest finished jobs."""

    project: Project
    judge: str
    temperature: float
    judges: list[str]
    temperatures: list[float]
    measured: list[Measured]
    """The rounds that have scores, oldest first."""
    jobs: dict[tuple[int, str], Job]
    """`{(round id, stage): newest finished job}`."""
    rounds: list[Round]

    @property
    def is_simulated(self) -> bool:
        return self.judge == "gold"

    @property
    def judge_name(self) -> str:
        return JUDGES[self.judge]

    @property
    def conditions(self) -> str:
        """Under which the estimates were made, in a sentence."""
        return (
            f"Judge: {self.judge_name}; temperature {self.temperature:g}{self._lengths}; 95 % "
            "intervals, bootstrapped by prompt; n counts prompts."
        )

    @property
    def _lengths(self) -> str:
        """The longest response, as far as it is known."""
        lengths = {m.label: m.length for m in self.measured if m.length}
        if len(set(lengths.values())) < 2:
            return "".join(f"; at most {length:,} tokens" for length in set(lengths.values()))
        listed = ", ".join(f"{label} {length:,}" for label, length in lengths.items())
        return f"; at most so many tokens: {listed}"

    def samples_url(self, round: Round, **query: str) -> str:
        """The page of answers from which a round's estimates were computed."""
        address = reverse("samples", args=[self.project.slug, round.number])
        return f"{address}?{urlencode({'temperature': self.temperature, **query})}"

    def changes(self, metric: str) -> list[MetricChange]:
        """The metric's changes from round to round, oldest first.

        A round that sampled with other settings than the one before is compared with its start
        policy, which it sampled with the same settings. Each round's reward model has its own scale. Under that judge a round is compared with its
        start policy, scored by the same reward model; rounds without such scores are left out.
        """
        rounds = [m for m in self.measured if metric in m.estimates]
        if self.judge == "model":
            return [_since_start(m, metric) for m in rounds if metric in m.start]
        changes = []
        for before, after in itertools.pairwise(rounds):
            if before.sampling == after.sampling:
                difference = change(before.estimates[metric], after.estimates[metric])
                changes.append(MetricChange(after, difference))
            elif metric in after.start:
                changes.append(_since_start(after, metric))
        return changes

    def in_words(self, estimate: Estimate, metric: str) -> str:
        return in_words(estimate, percent=metric in RATES)


def _since_start(m: Measured, metric: str) -> MetricChange:
    return MetricChange(m, change(m.start[metric], m.estimates[metric]))


def load_evidence(
    project: Project, judge: str = "", temperature: str = "", *, metrics: Sequence[str] = ()
) -> Evidence:
    """The project's evidence in three queries.

    With `metrics` only those are fetched, over all categories together. An unknown judge or
    temperature falls back to a known one, so an old link still opens.
    """
    rounds = list(
        Round.objects.filter(project=project)
        .select_related("policy", "snapshot", "start_policy")
        .order_by("number")
    )
    for round in rounds:
        round.project = project
    rows = Score.objects.filter(round__project=project).order_by("id")
    scores = list(rows.filter(metric__in=metrics, category="") if metrics else rows)
    judges = [name for name in JUDGES if any(s.judge == name for s in scores)]
    judge = judge if judge in judges else (judges or ["model"])[0]
    temperatures = sorted({s.temperature for s in scores if s.judge == judge}, reverse=True)
    chosen = _chosen_temperature(temperature, temperatures)
    done = Job.objects.filter(project=project, state=Job.State.DONE).order_by("created_at", "id")
    scores_by_round: dict[int, list[Score]] = {}
    for score in scores:
        if score.judge == judge and score.temperature == chosen:
            scores_by_round.setdefault(score.round_id, []).append(score)
    measured = [_measured(round, scores_by_round.get(round.pk, [])) for round in rounds]
    return Evidence(
        project=project,
        judge=judge,
        temperature=chosen,
        judges=judges,
        temperatures=temperatures,
        measured=[m for m in measured if m.estimates],
        jobs={(job.round_id, job.stage): job for job in done},
        rounds=rounds,
    )


def _chosen_temperature(text: str, temperatures: Sequence[float]) -> float:
    try:
        wanted = float(text)
    except ValueError:
        wanted = math.nan
    return wanted if wanted in temperatures else (temperatures or [1.0])[0]


def _measured(round: Round, scores: Sequence[Score]) -> Measured:
    estimates: dict[str, Estimate] = {}
    start: dict[str, Estimate] = {}
    categories: dict[str, dict[str, Estimate]] = {}
    for score in scores:
        estimate = score.estimate
        if round.policy_id is not None and score.checkpoint_id != round.policy_id:
            if score.checkpoint_id == round.start_policy_id and not score.category:
                start[score.metric] = estimate
        elif score.category:
            categories.setdefault(score.category, {})[score.metric] = estimate
        else:
            estimates[score.metric] = estimate
    return Measured(round, estimates, categories, start)
