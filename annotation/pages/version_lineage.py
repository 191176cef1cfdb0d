"""The picture of where a frozen version comes from and what was trained on it, as boxes and lines."""

from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from annotation.models import Snapshot

MOST = 8
WIDTH, HEIGHT, GAP = 190, 44, 12
# Left edges of the four columns, in the picture's own units.
COLUMNS = (0, 250, 500, 750)


@dataclass
class Box:
    """One source, batch, version or model; `x` and `y` are its upper left corner."""

    title: str
    sub: str
    href: str = ""
    x: int = 0
    y: int = 0
    is_here: bool = False

    @property
    def middle(self) -> int:
        return self.y + HEIGHT // 2

    @property
    def text_x(self) -> int:
        return self.x + 12


@dataclass(frozen=True)
class Picture:
    boxes: list[Box]
    lines: list[str]
    """Paths of SVG, from a box to the one that was made from it."""
    height: int
    hidden: list[str]
    """What has no room, in words: "3 sources"."""


def lineage_of(version: Snapshot) -> Picture:
    """Sources, the batches made from them, the version, and the models trained on it with their rounds.

    A column shows eight boxes; the rest is counted in `hidden`.
    """
    slug = version.project.slug
    sources = {
        entry.get("id"): Box(
            entry["source"],
            entry.get("licence") or "license not stated",
            reverse("source", args=[slug, entry["id"]]) if entry.get("id") else "",
        )
        for entry in version.licences[:MOST]
    }
    batches = [(entry, _batch(entry, slug)) for entry in version.query.get("batches", [])[:MOST]]
    here = Box(f"Version {version.version}", version.sha256[:16], is_here=True)
    # rlhf's rows, through their reverse relation: annotation's code knows nothing of them.
    trained: list[Any] = list(getattr(version, "checkpoints").all())  # noqa: B009
    models = [_model(model) for model in trained[:MOST]]
    columns = [list(sources.values()), [box for _, box in batches], [here], models]
    highest = max(len(column) for column in columns)
    total = highest * (HEIGHT + GAP) - GAP
    for x, column in zip(COLUMNS, columns, strict=True):
        top = (total - (len(column) * (HEIGHT + GAP) - GAP)) // 2
        for place, box in enumerate(column):
            box.x, box.y = x, top + place * (HEIGHT + GAP)
    lines = [
        _line(sources[pk], box)
        for entry, box in batches
        for pk in entry.get("sources", [])
        if pk in sources
    ]
    lines += [_line(box, here) for _, box in batches] + [_line(here, box) for box in models]
    counts = (
        ("sources", len(version.licences)),
        ("batches", len(version.query.get("batches", []))),
        ("models", len(trained)),
    )
    hidden = [f"{n - MOST} {noun}" for noun, n in counts if n > MOST]
    return Picture([box for column in columns for box in column], lines, total + 4, hidden)


def _batch(entry: dict[str, Any], slug: str) -> Box:
    noun = "imported judgments" if entry.get("is_imported") else "judgments"
    href = reverse("batch", args=[slug, entry["id"]]) if entry.get("id") else ""
    return Box(entry["name"], f"{entry.get('n_judgments', 0):,} {noun}", href)


def _model(model: Any) -> Box:
    made_in = f"round {model.round.number}, " if model.round else ""
    return Box(model.name, f"{made_in}{model.get_kind_display()}", model.get_absolute_url())


def _line(begin: Box, end: Box) -> str:
    bend = (begin.x + WIDTH + end.x) // 2
    return f"M{begin.x + WIDTH} {begin.middle} C{bend} {begin.middle} {bend} {end.middle} {end.x} {end.middle}"
