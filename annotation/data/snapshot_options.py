"""What a person chooses when they freeze a version, in addition to its batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from annotation.models import Project

Ties = Literal["drop", "half"]
Votes = Literal["raw", "consensus"]


class OptionsError(ValueError):
    """An option that the project does not have, in one sentence."""


@dataclass(frozen=True)
class SnapshotOptions:
    """Options of a version; the defaults are those of a round's own version.

    `ties`: pairs of equal ranks are left out ("drop") or given in both directions at half the weight
    ("half"). `votes`: one row for each judgment ("raw") or for each comparison ("consensus"). `axes`:
    all of them if empty. `filters`: keys of filters that leave out rows in addition to those that
    exclude in the project anyway.
    """

    ties: Ties = "drop"
    votes: Votes = "raw"
    axes: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()

    def checked(self, project: Project) -> "SnapshotOptions":
        """These options, with the axes in the project's order, () for all of them. Raises OptionsError."""
        if self.ties not in get_args(Ties):
            raise OptionsError(f"ties is “drop” or “half”, not “{self.ties}”.")
        if self.votes not in get_args(Votes):
            raise OptionsError(f"votes is “raw” or “consensus”, not “{self.votes}”.")
        unknown = [axis for axis in self.axes if axis not in project.axis_keys]
        if unknown:
            raise OptionsError(f"The project has no axis “{unknown[0]}”.")
        axes = tuple(axis for axis in project.axis_keys if axis in self.axes)
        if len(axes) == len(project.axis_keys):
            axes = ()
        filters = tuple(sorted(set(self.filters)))
        return SnapshotOptions(ties=self.ties, votes=self.votes, axes=axes, filters=filters)

    @classmethod
    def of_query(cls, query: Mapping[str, Any]) -> "SnapshotOptions":
        """The options that a frozen version was made with; earlier versions name only the ties."""
        options = query.get("options", {})
        return cls(
            ties=query.get("ties", "drop"),
            votes=options.get("votes", "raw"),
            axes=tuple(options.get("axes", ())),
            filters=tuple(options.get("filters", ())),
        )
