"""The evaluation's scores on a round's page: a row per metric, a column per judge and temperature."""

from typing import Any

from rlhf.dashboard.evidence import COUNTED, JUDGES, RATES
from rlhf.estimates import in_words, number
from rlhf.models import Round

METRICS = {
    "helpfulness": "helpfulness",
    "safety": "safety",
    "violation_rate": "violation rate",
    "over_refusal_rate": "over-refusal rate",
    "win_rate_vs_base": "win rate against base",
    "win_rate_vs_previous": "win rate against previous",
    "entity_accuracy": "correct statements",
    "correct_rate": "correct answers",
    "mean_length": "mean length in tokens",
    "unfinished_rate": "unfinished responses",
}


def score_table(round: Round) -> dict[str, Any]:
    """`{columns, rows}` of the scores of the round's own policy; `{}` where there are none."""
    cells: dict[tuple[str, float, str], tuple[str, str]] = {}
    for score in round.scores.filter(category="", checkpoint=round.policy_id):
        percent = score.metric in RATES
        value = number(score.value, percent=percent)
        words = in_words(score.estimate, percent=percent)
        details = words.removeprefix(value).lstrip(", ")  # the interval and n, in smaller print
        cells[score.judge, score.temperature, score.metric] = value, details
    judging = {judge for judge, _, metric in cells if metric not in COUNTED}
    keys = sorted({(judge, t) for judge, t, _ in cells}, key=lambda key: (key[0], -key[1]))
    columns = [
        {
            "judge": JUDGES.get(judge, judge) if judge in judging else "no judge",
            "is_simulated": judge == "gold",
            "temperature": f"{temperature:g}",
        }
        for judge, temperature in keys
    ]
    rows = []
    for metric, name in METRICS.items():
        row = [cells.get((judge, temperature, metric)) for judge, temperature in keys]
        if any(row):
            rows.append((name, list(zip(columns, row, strict=True))))
    return {"columns": columns, "rows": rows} if rows else {}
