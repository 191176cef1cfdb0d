"""Terms and limits of a frozen version, and how to cite it: sentences for the card and for Croissant."""

from typing import Any

from annotation.data.licences import licence_of
from annotation.models import Snapshot

FEW_ANNOTATORS = 5
# Krippendorff advises against conclusions from data whose alpha is lower.
LOW_ALPHA = 0.667


def terms(snapshot: Snapshot) -> list[str]:
    """What the licenses of all sources together allow and demand, one sentence each."""
    stated = {entry["source"]: entry["licence"] for entry in snapshot.licences}
    rows = {name: licence_of(text) for name, text in stated.items()}
    sentences = []
    if unknown := sorted(name for name, row in rows.items() if row is None):
        sentences.append(
            f"The terms of {_listed(unknown)} are for you to read; they are not listed here."
        )
    known = {name: row for name, row in rows.items() if row}
    for demand, sentence in (
        ("attribution", "Name the authors of {}."),
        ("share_alike", "What is made of {} is passed on under the same license."),
    ):
        if names := sorted(name for name, row in known.items() if getattr(row, demand)):
            sentences.append(sentence.format(_listed(names)))
    if names := sorted(name for name, row in known.items() if row.training == "non-commercial"):
        sentences.append(f"Texts of {_listed(names)} may not be used commercially.")
    if names := sorted(name for name, row in known.items() if not row.sharing):
        sentences.append(
            f"Texts of {_listed(names)} may not be passed on: do not publish this data."
        )
    return sentences


def limits(snapshot: Snapshot) -> list[str]:
    """What this version cannot show, from its own counts, one sentence each."""
    counts = snapshot.counts
    n, people = counts.get("judgments", 0), counts.get("annotators", 0)
    sentences = []
    if simulated := counts.get("judgments_simulated", 0):
        sentences.append(
            f"{simulated} of {max(n, simulated)} judgments are by programs that follow a rubric; they "
            "are no evidence of what people prefer."
        )
    if people and people < FEW_ANNOTATORS:
        who = "one person" if people == 1 else f"{people} people"
        sentences.append(f"All judgments by people come from {who}: their taste, not a public's.")
    if counts.get("judgments_imported", 0):
        sentences.append(
            "Imported judgments were made elsewhere, under rules that are not known here."
        )
    for measure, figures in snapshot.agreement.items():
        if figures.get("alpha") is None:
            sentences.append(f"How well annotators agree on {measure} was not measured.")
        elif (figures.get("alpha_ci") or [figures["alpha"]])[0] < LOW_ALPHA:
            sentences.append(
                f"Annotators may agree on {measure} less than the {LOW_ALPHA} that conclusions about "
                f"single rows would need (alpha {figures['alpha']:.2f})."
            )
    if any(counts.get("ties", {}).values()):
        sentences.append("The pairs leave out ties; `preferences` has them.")
    sentences.append(
        "Nothing about the annotators' age, origin or views was collected, so nobody can say whom they "
        "represent."
    )
    return sentences


def filter_lines(snapshot: Snapshot) -> list[str]:
    """What each filter flagged, and how well it is known to find it, one sentence each."""
    lines = []
    for entry in snapshot.query.get("filter_report", []):
        flagged, read = entry["flagged"], entry["read"]
        line = (
            f"**{entry['name']}** (from {entry['threshold']:g}, version {entry['version']}): flagged "
            f"{flagged['prompts']} of {read['prompts']} prompts and {flagged['responses']} of "
            f"{read['responses']} responses; "
        )
        line += (
            f"judgments left out: {flagged['judgments']}"
            if entry["excludes"]
            else "flags only, nothing left out"
        )
        lines.append(f"{line}. {_figures(entry)}")
    return lines


def _figures(entry: dict[str, Any]) -> str:
    own = entry["labels"]
    if own["n"] and own["precision"] is not None and own["recall"] is not None:
        return (
            f"On {own['n']} labels of this project: precision {_share(own, 'precision')}, recall "
            f"{_share(own, 'recall')}."
        )
    if entry["measured"]:
        parts = (
            f"precision {row['precision']:.2f}, recall {row['recall']:.2f} on {row['data']} "
            f"(n = {row['n']})"
            for row in entry["measured"]
        )
        return f"Not measured on this project; elsewhere {'; '.join(parts)}."
    return "Precision and recall were not measured."


def _share(own: dict[str, Any], name: str) -> str:
    low, high = own[f"{name}_ci"]
    return f"{own[name]:.2f} [{low:.2f}, {high:.2f}]"


def citation(snapshot: Snapshot) -> str:
    """A BibTeX entry. The version's hash is in it once the version has one."""
    key = f"{snapshot.project.slug}-v{snapshot.version}"
    title = " ".join(str(snapshot.project.name).split())
    for character, escaped in ("\\", ""), ("{", ""), ("}", ""), ("&", r"\&"), ("%", r"\%"):
        title = title.replace(character, escaped)
    note = f"Snapshot {snapshot.uid}"
    return (
        f"@misc{{{key},\n  title = {{{title}, version {snapshot.version}}},\n"
        f"  year = {{{snapshot.created_at:%Y}}},\n  note = {{{note}}}\n}}"
    )


def _listed(names: list[str]) -> str:
    shown = [" ".join(name.split()) for name in names[:5]]
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(shown)}{more}"
