"""What the filters found in a project, as a frozen version records it."""

from typing import Any

from annotation.data.filtering import calibration, cost_of
from annotation.data.filters.table import FILTERS
from annotation.models import Project


def filter_report(project: Project) -> list[dict[str, Any]]:
    """One entry for each filter that has read texts of the project, in the table's order.

    `{"filter", "name", "threshold", "version", "excludes", "read": {"prompts", "responses"},
    "flagged": {"prompts", "responses", "judgments"}, "measured": [{"precision", "recall", "n",
    "data"}], "labels": {"n", "precision", "precision_ci", "recall", "recall_ci"}}`: `measured` are
    the product's own figures at its default threshold, `labels` those on this project's labels.
    """
    report = []
    for setting in project.filters.exclude(version=0):
        chosen = FILTERS.get(setting.filter)
        if chosen is None:
            continue
        cost = cost_of(setting)
        own = calibration(project, setting.filter, setting.threshold)
        report.append(
            {
                "filter": setting.filter,
                "name": chosen.name,
                "threshold": setting.threshold,
                "version": setting.version,
                "excludes": setting.excludes,
                "read": {"prompts": setting.n_prompts, "responses": setting.n_responses},
                "flagged": cost._asdict(),
                "measured": [
                    {
                        "precision": figures.precision,
                        "recall": figures.recall,
                        "n": figures.n,
                        "data": figures.data,
                    }
                    for figures in chosen.figures
                ],
                "labels": {
                    "n": own.n,
                    "precision": own.precision,
                    "precision_ci": own.precision_ci,
                    "recall": own.recall,
                    "recall_ci": own.recall_ci,
                },
            }
        )
    order = list(FILTERS)
    return sorted(report, key=lambda entry: order.index(entry["filter"]))
