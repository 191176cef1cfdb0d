"""A frozen version in another form: which forms it can have, and their files in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from annotation.data.admission import admitted_prompts
from annotation.data.croissant_facts import croissant_facts
from annotation.data.exports.forms import ARCHIVE, FORMS, Form
from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.snapshot_files import (
    DEMONSTRATIONS,
    JUDGMENTS,
    RATINGS,
    SnapshotError,
    pair_file,
    snapshot_file,
)
from annotation.models import Prompt, Snapshot

WHY_NOT = {
    "pairs": "No two responses have different ranks.",
    "preferences": "Nobody compared responses.",
    "safety votes": "Nobody compared responses and voted on their safety.",
    "demonstrations": "Nobody wrote a response.",
    "everything": "",
    "heldout": "The project had no held-out prompts that may be used when this version was frozen.",
}


class Choice(NamedTuple):
    """A form as a version has it: the axes to choose from, and why it cannot be had ("" if it can)."""

    key: str
    form: Form
    axes: list[str]
    why_not: str


def choices(snapshot: Snapshot) -> list[Choice]:
    """Every form, in the table's order."""
    n_heldout = len(heldout_prompts(snapshot))
    return [_choice(snapshot, key, n_heldout) for key in FORMS]


def _choice(snapshot: Snapshot, key: str, n_heldout: int) -> Choice:
    form, counts = FORMS[key], snapshot.counts
    pairs = counts.get("pairs", {})
    axes: list[str] = []
    if form.reads == "pairs":
        axes = [axis for axis, n in pairs.items() if n]
        can = bool(axes)
    elif form.reads == "preferences":
        axes = list(pairs) if form.by_axis else []
        can = bool(counts.get("judgments"))
    elif form.reads == "safety votes":
        can = bool(counts.get("judgments") and counts.get("ratings"))
        can = can and {"helpfulness", "safety"} <= set(pairs)
    elif form.reads == "demonstrations":
        can = bool(counts.get("demonstrations"))
    else:
        can = n_heldout > 0 or form.reads == "everything"
    return Choice(key, form, axes if can else [], "" if can else WHY_NOT[form.reads])


def checked_choice(snapshot: Snapshot, key: str, axis: str) -> tuple[Form, str]:
    """The form and its axis, the first one if none is named; SnapshotError if it cannot be had."""
    if key not in FORMS:
        raise SnapshotError(f"There is no form “{key[:40]}”; there are {', '.join(FORMS)}.")
    choice = _choice(snapshot, key, len(heldout_prompts(snapshot)))
    if choice.why_not:
        raise SnapshotError(f"{choice.form.title}: {choice.why_not}")
    if axis and axis not in choice.axes:
        known = ", ".join(choice.axes)
        raise SnapshotError(
            f"{choice.form.title} has the axes {known}, not “{axis[:40]}”."
            if known
            else f"{choice.form.title} has no choice of an axis."
        )
    return choice.form, axis or next(iter(choice.axes), "")


def heldout_prompts(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The held-out prompts that were there when the version was frozen, from admitted sources."""
    prompts = admitted_prompts(
        snapshot.project,
        Prompt.objects.filter(
            project=snapshot.project_id,
            split=Prompt.Split.HELDOUT,
            created_at__lte=snapshot.created_at,
        ),
    )
    rows = prompts.order_by("pk").values_list("uid", "messages", "category", "risk")
    return [
        {"prompt_id": str(uid), "messages": messages, "category": category, "risk": risk}
        for uid, messages, category, risk in rows
    ]


def read_file(form: Form, axis: str) -> str:
    """The name, without ending, of the frozen file that a form is made of; "" for none."""
    if form.reads == "pairs":
        return pair_file(axis)
    return {"demonstrations": DEMONSTRATIONS, "heldout": "", "everything": ""}.get(
        form.reads, JUDGMENTS
    )


def _facts(snapshot: Snapshot, key: str) -> dict[str, Any] | None:
    """What a form of everything says about the version."""
    if key == ARCHIVE:
        paths = [(snapshot_file(snapshot, f["name"]), f["name"]) for f in snapshot.files]
        return {"files": snapshot.files, "paths": paths, "created_at": snapshot.created_at}
    return croissant_facts(snapshot) if FORMS[key].reads == "everything" else None


def write_form(
    snapshot: Snapshot,
    key: str,
    axis: str,
    folder: Path,
    on_progress: Callable[[int], None] = lambda n: None,
) -> Output:
    """Write a form's files to an existing empty folder; says how many rows, and what it left out.

    Raises SnapshotError if the version cannot have the form, if a frozen file is missing, and if
    the form can express none of the rows.
    """
    form, axis = checked_choice(snapshot, key, axis)
    name = read_file(form, axis)
    for file in (name, RATINGS if form.reads == "safety votes" else ""):
        if file:
            snapshot_file(snapshot, f"{file}.parquet")
    frozen = Frozen(
        snapshot.folder,
        axis,
        f"{snapshot.project.slug}-v{snapshot.version}",
        heldout_prompts(snapshot) if form.reads == "heldout" else (),
        _facts(snapshot, key),
    )
    output = Output(folder, on_progress)
    form.write(frozen, name, output)
    if not sum(output.rows.values()):
        reasons = ", ".join(f"{n} × {reason}" for reason, n in output.left_out.most_common(3))
        raise SnapshotError(
            f"{form.title} can hold none of the rows: {reasons or 'there are none'}."
        )
    return output
