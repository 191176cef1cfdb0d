"""Panels of the evaluation's scores: axes, violations, win rates, length, facts."""

from collections.abc import Sequence

from rlhf.dashboard import charts
from rlhf.dashboard.charts import Drawing, Pair, Series
from rlhf.dashboard.evidence import Evidence, Measured
from rlhf.dashboard.panel import (
    Panel,
    capitalized,
    latest_change,
    metric_marks,
    metric_table,
    samples_filter,
    spoken,
    start_policy_marks,
)
from rlhf.estimates import Estimate, change, in_words, number

AXES = {"helpfulness": "circle", "safety": "square"}
"""Each axis with the shape of its marks."""


def score_finding(evidence: Evidence) -> str:
    """The latest round's change on both axes; a change whose interval includes 0 is not clear."""
    if not evidence.measured:
        return "Safety and helpfulness"
    changes = {axis: evidence.changes(axis) for axis in ("safety", "helpfulness")}
    latest = {axis: by_round[-1] for axis, by_round in changes.items() if by_round}
    if not latest:
        if len(evidence.measured) == 1:
            return f"So far only {evidence.measured[0].name} is measured"
        return "These rounds can't be compared: each reward model has its own scale"
    newest = max((c.after for c in latest.values()), key=lambda m: m.round.number)
    directions = {axis: c.direction for axis, c in latest.items() if c.after is newest}
    rose = [axis for axis, direction in directions.items() if direction > 0]
    fell = [axis for axis, direction in directions.items() if direction < 0]
    unchanged = [axis for axis, direction in directions.items() if direction == 0]
    if not rose and not fell:
        return f"No clear change in {newest.name}: {' and '.join(unchanged)}"
    parts = []
    if rose:
        parts.append(f"{' and '.join(rose)} rose")
    if fell:
        parts.append(f"{' and '.join(fell)} fell")
    sentence = ", ".join(parts) + f" in {newest.name}"
    if unchanged:
        sentence += f"; no clear change in {' and '.join(unchanged)}"
    return capitalized(sentence)


def scores(evidence: Evidence) -> Panel:
    """Helpfulness and safety per round."""
    drawings = []
    for axis, shape in AXES.items():
        marks = metric_marks(evidence, axis, samples_filter(axis))
        if marks:
            series = [Series(axis, axis, marks, shape)]
            if starts := start_policy_marks(evidence, axis):
                series.insert(0, Series("its start policy", "ink-3", starts, "diamond"))
            chart = charts.points(
                series,
                label=f"{axis.capitalize()} per round: {spoken(marks)}",
                height=220,
                connect=evidence.judge != "model",
            )
            drawings.append(Drawing(axis.capitalize(), chart))
    if evidence.judge == "model":
        scale = (
            "The judge is each round's test reward model, which PPO never uses. Each has its own "
            "scale (0: mean of the start policy, 1: one standard deviation): compare a round with "
            "its start policy, not with other rounds."
        )
    else:
        scale = "Higher is better on both."
    return Panel(
        "scores",
        score_finding(evidence),
        "Mean score on held-out prompts: helpfulness on all but the harmful, safety on all but "
        f"the harmless. {evidence.conditions}",
        drawings,
        metric_table(evidence, {"helpfulness": "Helpfulness", "safety": "Safety"}),
        is_simulated=evidence.is_simulated,
        empty="Each evaluated round adds a point. Build the base policy to get the first.",
        note=f"A ring marks a promoted policy. {scale}",
        wide=True,
    )


def small_multiples(evidence: Evidence) -> list[Drawing]:
    """Helpfulness and safety over the rounds, small, for mission control."""
    drawings = []
    for axis, shape in AXES.items():
        marks = metric_marks(evidence, axis, samples_filter(axis))
        if marks:
            chart = charts.points(
                [Series(axis, axis, marks, shape)],
                label=f"{axis.capitalize()} per round ({evidence.judge_name}): {spoken(marks)}",
                height=170,
                connect=evidence.judge != "model",
            )
            drawings.append(Drawing(axis.capitalize(), chart))
    return drawings


def trade_off(evidence: Evidence) -> Panel:
    """Violations against over-refusals: a policy that refuses everything is useless, not safe."""
    pairs: list[Pair] = []
    finding = "Violations against over-refusals"
    for m in evidence.measured:
        over_refusals = m.estimates.get("over_refusal_rate")
        violations = m.estimates.get("violation_rate")
        if over_refusals is None or violations is None:
            continue
        title = (
            f"{m.name}: violation {in_words(violations, percent=True)}; over-refusal "
            f"{in_words(over_refusals, percent=True)}"
        )
        samples = evidence.samples_url(m.round, risk="harmful")
        is_promoted = m.round.verdict == "promoted"
        pairs.append(Pair(m.label, over_refusals, violations, samples, is_promoted, title))
        finding = _trade_off_finding(evidence, m, over_refusals, violations)
    drawings = []
    if pairs:
        chart = charts.scatter(
            pairs,
            label="Violation rate against over-refusal rate. "
            + "; ".join(pair.title for pair in pairs),
            x_title="over-refusal rate (harmless prompts)",
            y_title="violation rate (harmful prompts)",
            corner="target region",
        )
        drawings.append(Drawing("", chart, "scatter"))
    metrics = {"violation_rate": "Violation rate", "over_refusal_rate": "Over-refusal rate"}
    if evidence.measured:
        empty = (
            "A reward model can't tell compliance from refusal. Choose another judge to see "
            "violations and over-refusals."
        )
    else:
        empty = "Appears with the first evaluation by people or by the demo's rubric."
    return Panel(
        "trade_off",
        finding,
        "Share of harmful prompts that the policy complied with, and of harmless prompts that it "
        "refused. " + evidence.conditions,
        drawings,
        metric_table(evidence, metrics),
        is_simulated=evidence.is_simulated,
        empty=empty,
    )


def _trade_off_finding(
    evidence: Evidence, m: Measured, over_refusals: Estimate, violations: Estimate
) -> str:
    finding = (
        f"{m.name} complies with {number(violations.value, percent=True)} of harmful prompts and "
        f"refuses {number(over_refusals.value, percent=True)} of harmless ones"
    )
    changes = evidence.changes("violation_rate")
    if changes and changes[-1].after is m:
        finding += {
            1: "; violations rose",
            -1: "; violations fell",
            0: "; no clear change in violations",
        }[changes[-1].direction]
    return capitalized(finding)


OPPONENTS = {"win_rate_vs_base": "the base", "win_rate_vs_previous": "the previous round"}


def win_rates(evidence: Evidence) -> Panel:
    """How often a round's answer is preferred to the base's and to the previous round's."""
    styles = (
        ("win_rate_vs_base", "against base", "accent", "circle", ""),
        ("win_rate_vs_previous", "against previous", "ink-2", "diamond", "6 4"),
    )
    series = []
    for metric, name, token, shape, dash in styles:
        if marks := metric_marks(evidence, metric, samples_filter(metric)):
            series.append(Series(name, token, marks, shape, dash))
    finding, drawings = "Win rates", []
    if series:
        newest = [m for m in evidence.measured if OPPONENTS.keys() & m.estimates.keys()][-1]
        finding = _win_rate_finding(newest)
        chart = charts.points(
            series,
            label="Win rates per round with intervals; 50 % means no preference",
            height=260,
            percent=True,
            lines=[(0.5, "no preference")],
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "win_rates",
        finding,
        "How often an answer was preferred to the other policy's on the same prompt; a tie counts "
        f"one half. {evidence.conditions}",
        drawings,
        metric_table(
            evidence, {"win_rate_vs_base": "vs base", "win_rate_vs_previous": "vs previous"}
        ),
        is_simulated=evidence.is_simulated,
        empty="Appears when a round has an opponent: the base policy or the previous round.",
    )


def _win_rate_finding(m: Measured) -> str:
    parts = []
    for metric, opponent in OPPONENTS.items():
        estimate = m.estimates.get(metric)
        if estimate is None:
            continue
        share = number(estimate.value, percent=True)
        if estimate.low is not None and estimate.low > 0.5:
            parts.append(f"beats {opponent} ({share})")
        elif estimate.high is not None and estimate.high < 0.5:
            parts.append(f"loses to {opponent} ({share})")
        else:
            parts.append(f"ties with {opponent} ({share}; the interval includes 50 %)")
    return capitalized(f"{m.name} {' and '.join(parts)}")


def length(evidence: Evidence) -> Panel:
    """Mean length of the answers: reward models are easily misled by length."""
    measured = [m for m in evidence.measured if "mean_length" in m.estimates]
    marks = metric_marks(evidence, "mean_length", {})
    finding, drawings = "Length", []
    if marks:
        finding = _length_finding(measured)
        chart = charts.points(
            [Series("length", "ink-2", marks)],
            label=f"Mean length per round in tokens: {spoken(marks)}",
            include=[0.0],
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "length",
        finding,
        f"Mean tokens per answer on held-out prompts. {evidence.conditions}",
        drawings,
        metric_table(evidence, {"mean_length": "Tokens"}),
        empty="Appears with the first evaluation.",
    )


def _length_finding(measured: Sequence[Measured]) -> str:
    first, last = (m.estimates["mean_length"] for m in (measured[0], measured[-1]))
    finding = f"Answers are {number(last.value)} tokens long on average"
    is_alike = measured[0].sampling == measured[-1].sampling
    if is_alike and len(measured) > 1 and first.value and first.has_interval and last.has_interval:
        share = number(last.value / first.value - 1, percent=True, signed=True)
        difference = share if change(first, last).direction else "no clear change"
        finding += f", {difference} against {measured[0].name}"
    return finding


def unfinished(evidence: Evidence) -> Panel:
    """Responses that reached their token limit: people and reward models judge half a sentence."""
    measured = [m for m in evidence.measured if "unfinished_rate" in m.estimates]
    marks = metric_marks(evidence, "unfinished_rate", samples_filter("unfinished_rate"))
    finding, drawings = "Unfinished responses", []
    if marks:
        newest = measured[-1]
        share = number(newest.estimates["unfinished_rate"].value, percent=True)
        finding = f"{share} of {newest.name}'s responses reach their token limit without an end"
        if sentence := latest_change("the share", evidence.changes("unfinished_rate")):
            finding += f": {sentence}"
        chart = charts.points(
            [Series("unfinished", "ink-2", marks)],
            label=f"Share of unfinished responses per round: {spoken(marks)}",
            percent=True,
            lines=[(0.5, "most are unfinished")],
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "unfinished",
        finding,
        "Share of responses to held-out prompts that reached the token limit without an end. The "
        "interval is Wilson's, with one observation per prompt. "
        f"Temperature {evidence.temperature:g}; n counts prompts.",
        drawings,
        metric_table(evidence, {"unfinished_rate": "Unfinished"}),
        empty="Appears with the first evaluation.",
        note="In PPO an unfinished response gets no_eos_score in place of its own score.",
    )


def facts(evidence: Evidence) -> Panel:
    """Correct names and facts: better style alone is not progress.

    Two shares, because an answer that states nothing is neither wrong nor correct.
    """
    marks = metric_marks(evidence, "correct_rate", {})
    stated = metric_marks(evidence, "entity_accuracy", {})
    finding, drawings = "Facts and names", []
    if marks:
        share = number(marks[-1].estimate.value, percent=True)
        finding = f"{share} of answers to harmless prompts state correct facts and names"
        if sentence := latest_change("the share", evidence.changes("correct_rate")):
            finding += f": {sentence}"
        chart = charts.points(
            [
                Series("correct answers", "accent", marks, "diamond"),
                Series("correct statements", "ink-2", stated),
            ],
            label=f"Share of answers that state facts or names, all correct: {spoken(marks)}. "
            f"Share of the stated facts and names that are correct: {spoken(stated)}",
            percent=True,
        )
        drawings.append(Drawing("", chart))
    return Panel(
        "facts",
        finding,
        "Correct answers: the share of answers to harmless prompts that state at least one fact or "
        "name and no wrong one. Correct statements: the share of stated facts and names that are "
        f"correct. {evidence.conditions}",
        drawings,
        metric_table(
            evidence,
            {"correct_rate": "Correct answers", "entity_accuracy": "Correct statements"},
        ),
        is_simulated=evidence.is_simulated,
        empty="This judge doesn't check facts."
        if evidence.measured
        else "Appears with the first evaluation.",
    )
