"""The answers from which a round's scores were computed, filtered and in pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from rlhf import run_reports
from rlhf.pages.lookup import find_round
from rlhf.run_reports import Sample

SAMPLES_PER_PAGE = 24
OPPONENTS = ("base", "previous")
ENDINGS = ("ended", "cut")


@dataclass(frozen=True)
class SampleFilter:
    """The values of the filter form above the answers; "" means no restriction."""

    temperature: str
    category: str
    risk: str
    axis: str
    """The axis to sort by, lowest score first."""
    ending: str
    """`cut` or `ended`: whether the response reached its token limit."""
    q: str

    @classmethod
    def from_query(cls, query: QueryDict) -> "SampleFilter":
        names = ("category", "risk", "axis", "ending", "q")
        values = {name: query.get(name, "") for name in names}
        return cls(temperature=_number_text(query.get("temperature", "")), **values)

    def apply(self, samples: Sequence[Sample]) -> list[Sample]:
        """The matching samples, sorted if a sample has a score on `axis`."""
        matching = [sample for sample in samples if self._matches(sample)]
        if any(self.axis in sample.scores for sample in samples):
            matching.sort(key=lambda sample: sample.scores.get(self.axis, 0.0))
        return matching

    def _matches(self, sample: Sample) -> bool:
        text = f"{sample.prompt}\n{sample.text}".casefold()
        return (
            self.temperature in ("", f"{sample.temperature:g}")
            and self.category in ("", sample.category)
            and self.risk in ("", sample.risk)
            and (self.ending not in ENDINGS or sample.finished == (self.ending == "ended"))
            and self.q.casefold() in text
        )


def _number_text(text: str) -> str:
    try:
        return f"{float(text):g}"
    except ValueError:
        return ""


@english_only
@project_view(*CAN_READ_DATA)
def samples(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    """The answers of a round's evaluation, optionally with an opponent's next to them."""
    round = find_round(project, number)
    job = round.newest_job("evaluate")
    opponent = request.GET.get("vs", "")
    opponent = opponent if opponent in OPPONENTS else ""
    all_samples = run_reports.evaluation_samples(job, opponent=opponent) if job else []
    chosen = SampleFilter.from_query(request.GET)
    matching = chosen.apply(all_samples)
    query = request.GET.copy()
    query.pop("page", None)
    context: dict[str, Any] = {
        "round": round,
        "page": Paginator(matching, SAMPLES_PER_PAGE).get_page(request.GET.get("page")),
        "total": len(all_samples),
        "temperatures": [
            f"{t:g}" for t in sorted({s.temperature for s in all_samples}, reverse=True)
        ],
        "categories": sorted({s.category for s in all_samples if s.category}),
        "axes": sorted({axis for s in all_samples for axis in s.scores}),
        "chosen": chosen,
        "opponent": opponent,
        "query": query.urlencode(),
    }
    return render(request, "rlhf/samples.html", context)
