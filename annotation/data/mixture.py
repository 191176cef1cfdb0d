"""What a project's data consists of: shares by domain, source, risk, language, axis and split.

Counted over the judgments that a version would hold if it were frozen now; splits over all prompts.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Count

from annotation.data import preferences
from annotation.data.admission import admitted
from annotation.models import Flag, JudgmentQuerySet, Project, Prompt, Source

MAX_PARTS = 12


@dataclass(frozen=True)
class Part:
    """One slice: its name, how many, and its share from 0 to 1."""

    name: str
    n: int
    share: float


@dataclass(frozen=True)
class Breakdown:
    """One picture: what is counted by what."""

    key: str
    title: str
    unit: str
    parts: list[Part]


def breakdown(key: str, title: str, counts: Counter[str], unit: str = "judgments") -> Breakdown:
    """The largest parts in order, the rest as one."""
    total = sum(counts.values()) or 1
    ordered = counts.most_common()
    rest = sum(n for _, n in ordered[MAX_PARTS:])
    parts = [Part(name or "not named", n, n / total) for name, n in ordered[:MAX_PARTS]]
    if rest:
        parts.append(Part(f"{len(ordered) - MAX_PARTS} others", rest, rest / total))
    return Breakdown(key, title, unit, parts)


def mixture(project: Project) -> list[Breakdown]:
    """The pictures of the mixture page."""
    judgments = admitted(project, preferences.judgments_of(project))
    prompt = "assignment__comparison__prompt"
    names_of_risk = {
        "": "not known",
        "harmful": "safety (harmful)",
        "harmless": "helpfulness (harmless)",
    }
    risks = _counts(judgments, f"{prompt}__risk")
    return [
        breakdown("domain", "Domains", _counts(judgments, f"{prompt}__category")),
        breakdown("source", "Sources", _counts(judgments, f"{prompt}__source__name")),
        breakdown("risk", "Safety and helpfulness", Counter({names_of_risk[k]: n for k, n in risks.items()})),
        breakdown("axis", "Axes", Counter({
            axis: n
            for axis in project.axis_keys
            if (n := judgments.filter(**{f"ranks__{axis}__isnull": False}).count())
        })),
        breakdown("language", "Languages", _languages(project, judgments), "prompts"),
        breakdown("split", "Splits", _splits(project), "prompts"),
    ]  # fmt: skip


def _counts(judgments: JudgmentQuerySet, field: str) -> Counter[str]:
    return Counter(
        dict(
            judgments.order_by().values_list(field).annotate(n=Count("pk")).values_list(field, "n")
        )
    )


def _languages(project: Project, judgments: JudgmentQuerySet) -> Counter[str]:
    """By the filter of languages; prompts that it has not read, or that are too short, are unknown."""
    prompts = judgments.order_by().values("assignment__comparison__prompt").distinct()
    flags = Flag.objects.filter(project=project, filter="language", prompt__in=prompts)
    counts = Counter(
        {
            reason.removeprefix("language: "): n
            for reason, n in flags.order_by().values_list("reason").annotate(n=Count("pk"))
        }
    )
    unknown = prompts.count() - sum(counts.values())
    return counts + Counter({"not known": unknown})


def _splits(project: Project) -> Counter[str]:
    names = dict(Prompt.Split.choices)
    prompts = project.prompts.exclude(source__name=Source.GOLD).order_by()
    return Counter(
        {
            str(names[split]).lower(): n
            for split, n in prompts.values_list("split").annotate(n=Count("pk"))
        }
    )


@dataclass(frozen=True)
class Balance:
    """Specialized against general domains, and what is missing to a target share."""

    specialized: int
    general: int
    target: float

    @property
    def share(self) -> float:
        return self.specialized / max(1, self.specialized + self.general)

    @property
    def missing(self) -> tuple[str, int]:
        """Which kind is missing, and how many judgments of it reach the target."""
        if self.share < self.target and self.target < 1:
            n = self.target * self.general / (1 - self.target) - self.specialized
            return "specialized", max(0, round(n))
        if self.target > 0:
            n = self.specialized * (1 - self.target) / self.target - self.general
            return "general", max(0, round(n))
        return "general", 0


def balance(domains: Breakdown, specialized: Collection[str], target: float) -> Balance:
    """Of the domains shown: those that were called specialized against all others."""
    n = sum(part.n for part in domains.parts if part.name in specialized)
    return Balance(n, sum(part.n for part in domains.parts) - n, target)
