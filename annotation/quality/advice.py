"""What the data of a project is enough for, what is odd about it, and what to collect next.

Every finding has its figures and the rule behind it; every recommendation that a batch can serve names
the batch.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from annotation.data import preferences
from annotation.data.filtering import wilson
from annotation.data.mixture import Breakdown, mixture
from annotation.lib.numbers import share as percent
from annotation.models import Batch, Comparison, Flag, Project
from annotation.quality.votes import votes_of

WORDS = re.compile(r"\w+")
TOKENS_A_WORD = 1.33
CHEAPEST_TO_TRAIN, CHEAPEST_TO_RUN = 10, 100
"""Words a parameter. Hoffmann and others 2022 ("Training compute-optimal large language models"): about
20 tokens a parameter for the least compute in training, which is 10 to 15 words by tokenizer. Sardana and
others 2024 ("Beyond Chinchilla-optimal"): quality goes on rising to 10,000 tokens a parameter, so a model
that is run a lot is cheapest when small and trained on ten times as many words and more."""
MIN_SHARE = 0.05
"""A domain with less is hardly covered."""
MAX_ROWS = 20_000
BATCH_SIZE = 50
"""Comparisons of a recommended batch."""
MANY_DUPLICATES = 0.1


@dataclass(frozen=True)
class Finding:
    """One sentence with its figures; `level` is `go`, `caution` or `no-go`."""

    key: str
    title: str
    text: str
    level: str = "go"


@dataclass(frozen=True)
class Recommendation:
    """Something to collect next; with `responses_of` it can be created as a batch at one press."""

    key: str
    title: str
    why: str
    responses_of: Batch | None = None
    n: int = 0
    overlap: int = 1


@dataclass(frozen=True)
class Advice:
    findings: list[Finding]
    recommendations: list[Recommendation]
    n_words: int
    n_tokens: int


def advice(project: Project, *, n_parameters: int, agreement: dict[str, Any]) -> Advice:
    """Findings and recommendations; `agreement` as the quality page has it, by axis."""
    text = _Texts(project)
    breakdowns = {part.key: part for part in mixture(project)}
    findings = [
        _volume(text.n_words, n_parameters),
        *_duplicates(project),
        *_label_balance(text),
        *_coverage(breakdowns["domain"]),
        *_biases(text),
        *_ceiling(agreement),
    ]
    tokens = round(text.n_words * TOKENS_A_WORD)
    recommendations = _recommendations(project, breakdowns, agreement)
    return Advice(findings, recommendations, text.n_words, tokens)


class _Texts:
    """Words of the rankings that training may see, and pairs of every current vote."""

    def __init__(self, project: Project) -> None:
        self.n_words = self.n_pairs = self.n_ties = 0
        self.longer_wins = self.n_lengths = self.first_wins = self.n_first = 0
        prompts: set[str] = set()
        for number, row in enumerate(preferences.preference_rows(project)):
            if number == MAX_ROWS:
                break
            self.n_words += sum(len(WORDS.findall(response)) for response in row["responses"])
            if row["prompt_id"] not in prompts:
                prompts.add(row["prompt_id"])
                self.n_words += sum(len(WORDS.findall(m["content"])) for m in row["messages"])
        for vote in votes_of(project)[0]:
            self._count_pairs(vote.ranks, vote.lengths)

    def _count_pairs(self, ranks: Sequence[int | None], lengths: Sequence[int]) -> None:
        """Pairs of one vote, in the order in which the responses were shown."""
        for (a, rank_a), (b, rank_b) in combinations(enumerate(ranks), 2):
            if rank_a is None or rank_b is None:
                continue
            self.n_pairs += 1
            if rank_a == rank_b:
                self.n_ties += 1
                continue
            if lengths[a] != lengths[b]:
                self.n_lengths += 1
                self.longer_wins += (lengths[a] > lengths[b]) == (rank_a < rank_b)
            self.n_first += 1
            self.first_wins += rank_a < rank_b


def _volume(n_words: int, n_parameters: int) -> Finding:
    ratio = n_words / n_parameters
    figures = f"{n_words:,} words for {n_parameters:,} parameters are {ratio:.2g} words a parameter"
    if ratio >= CHEAPEST_TO_RUN:
        text = f"{figures}: cheapest to run (100 and more, Sardana and others 2024)."
        return Finding("volume", "Words a parameter", text)
    if ratio >= CHEAPEST_TO_TRAIN:
        text = (
            f"{figures}: about cheapest to train (10 to 15, Hoffmann and others 2022); 100 and more "
            "are cheapest to run (Sardana and others 2024)."
        )
        return Finding("volume", "Words a parameter", text)
    text = (
        f"{figures}. Trained from scratch the model is far too big for the data: about 10 words a "
        "parameter are cheapest to train (Hoffmann and others 2022), 100 and more cheapest to run "
        "(Sardana and others 2024). Start from a pre-trained model, or take a smaller one."
    )
    return Finding("volume", "Words a parameter", text, "no-go" if ratio < 1 else "caution")


def _duplicates(project: Project) -> list[Finding]:
    setting = project.filters.filter(filter="near_duplicate").first()
    if setting is None or not setting.n_prompts:
        text = "Not known: run the filters first."
        return [Finding("duplicates", "Near-duplicates", text, "caution")]
    n = Flag.objects.filter(
        project=project, filter="near_duplicate", score__gte=setting.threshold
    ).count()
    share = n / setting.n_prompts
    text = (
        f"{n:,} of {setting.n_prompts:,} prompts ({percent(share, 1)}) are nearly an earlier one."
    )
    level = "caution" if share > MANY_DUPLICATES else "go"
    return [Finding("duplicates", "Near-duplicates", text, level)]


def _label_balance(text: _Texts) -> list[Finding]:
    if not text.n_pairs:
        return []
    share = text.n_ties / text.n_pairs
    sentence = f"{percent(share, 1)} of {text.n_pairs:,} pairs are ties, which teach a reward model nothing."
    return [Finding("ties", "Label balance", sentence, "caution" if share > 0.4 else "go")]


def _coverage(domains: Breakdown) -> list[Finding]:
    thin = [part for part in domains.parts if part.share < MIN_SHARE]
    if not domains.parts:
        return []
    if not thin:
        text = f"Each of {len(domains.parts)} domains has at least 5 % of the judgments."
        return [Finding("coverage", "Coverage of domains", text)]
    names = ", ".join(part.name for part in thin[:5])
    text = (
        f"{len(thin)} of {len(domains.parts)} domains have less than 5 % of the judgments: {names}."
    )
    return [Finding("coverage", "Coverage of domains", text, "caution")]


def _biases(text: _Texts) -> list[Finding]:
    findings = []
    for key, title, what, wins, n in (
        ("length", "Length bias", "the longer response wins", text.longer_wins, text.n_lengths),
        (
            "position", "Position bias", "the response shown first wins", text.first_wins,
            text.n_first,
        ),
    ):  # fmt: skip
        if not n:
            continue
        share = wins / n
        low, high = wilson(wins, n)
        sentence = f"In {percent(share, 1)} [{percent(low, 1)}, {percent(high, 1)}] of {n:,} decided pairs {what}; 50 % is no bias."
        is_biased = (low > 0.5 or high < 0.5) and abs(share - 0.5) > 0.05
        findings.append(Finding(key, title, sentence, "caution" if is_biased else "go"))
    return findings


def _ceiling(agreement: dict[str, Any]) -> list[Finding]:
    findings = []
    for axis, figures in agreement.items():
        if figures.get("pairwise") is None:
            sentence = f"On {axis} nobody's judgments overlap, so no ceiling is known."
            findings.append(Finding(f"ceiling-{axis}", "Agreement as ceiling", sentence, "caution"))
            continue
        sentence = (
            f"On {axis} two people agree in {percent(figures['pairwise'], 1)} of pairs: a reward model that is "
            "measured on single votes can hardly be more accurate."
        )
        level = "caution" if figures["pairwise"] < 0.65 else "go"
        findings.append(Finding(f"ceiling-{axis}", "Agreement as ceiling", sentence, level))
    return findings


def _recommendations(
    project: Project, breakdowns: dict[str, Breakdown], agreement: dict[str, Any]
) -> list[Recommendation]:
    judged_before = (
        Comparison.objects.filter(
            prompt__in=project.prompts.all().trainable(), gold=None, responses__isnull=False
        )
        .exclude(batch__state=Batch.State.DRAFT)
        .exclude(batch__is_by_hand=True)
        .order_by("-batch__created_at")
        .select_related("batch")
        .first()
    )
    with_responses = judged_before.batch if judged_before else None
    recommendations = []
    if with_responses is not None and any(f.get("pairwise") is None for f in agreement.values()):
        recommendations.append(
            Recommendation(
                "overlap",
                f"{BATCH_SIZE} comparisons judged by two people each",
                "Without overlap nobody knows how far people agree, which is the ceiling of a model.",
                with_responses,
                BATCH_SIZE,
                2,
            )
        )
    if with_responses is not None:
        recommendations.append(
            Recommendation(
                "more",
                f"{BATCH_SIZE} more comparisons of {with_responses.name}",
                "Each doubling of the judgments narrows every interval by 29 %.",
                with_responses,
                BATCH_SIZE,
                project.overlap,
            )
        )
    thin = [part.name for part in breakdowns["domain"].parts if part.share < MIN_SHARE]
    if thin:
        recommendations.append(
            Recommendation(
                "domains",
                f"Prompts of {', '.join(thin[:3])}",
                "These domains have less than 5 % of the judgments. Import prompts of them first.",
            )
        )
    return recommendations
