"""The dashboard's panels. To add one: a function `(Evidence) -> Panel`, and its row in PANELS."""

from collections.abc import Callable

from rlhf.dashboard import category_panel, score_panels, training_panels
from rlhf.dashboard.evidence import Evidence
from rlhf.dashboard.panel import Panel

PANELS: dict[str, Callable[[Evidence], Panel]] = {
    "scores": score_panels.scores,
    "trade_off": score_panels.trade_off,
    "win_rates": score_panels.win_rates,
    "kl": training_panels.reward_over_kl,
    "agreement": training_panels.agreement,
    "length": score_panels.length,
    "unfinished": score_panels.unfinished,
    "facts": score_panels.facts,
    "categories": category_panel.by_category,
}


def all_panels(evidence: Evidence) -> list[Panel]:
    """Every panel in the dashboard's order, the empty ones last."""
    panels = [build(evidence) for build in PANELS.values()]
    return sorted(panels, key=lambda panel: panel.is_empty)
