"""What the common licenses of data sets allow, by SPDX identifier (spdx.org/licenses).

A summary for people who decide, not legal advice: the license's own text counts.
"""

from typing import Literal, NamedTuple, cast

Training = Literal["yes", "non-commercial", "no"]


class Licence(NamedTuple):
    """One row of the table: what may be done with the texts, and what must be done in return."""

    spdx: str
    name: str
    training: Training
    sharing: bool
    """Whether the texts may be passed on, as in an export."""
    attribution: bool
    share_alike: bool
    """Whether what is made of the texts must be under the same license when it is passed on."""


# SPDX identifier | name | training | sharing allowed, attribution and share-alike demanded
_ROWS = (
    "CC0-1.0 | Creative Commons Zero | yes | sharing",
    "PDDL-1.0 | Public Domain Dedication (ODC) | yes | sharing",
    "CC-BY-4.0 | Creative Commons Attribution 4.0 | yes | sharing attribution",
    "CC-BY-3.0 | Creative Commons Attribution 3.0 | yes | sharing attribution",
    "ODC-By-1.0 | Open Data Commons Attribution | yes | sharing attribution",
    "CDLA-Permissive-2.0 | Community Data License, permissive | yes | sharing",
    "MIT | MIT License | yes | sharing attribution",
    "Apache-2.0 | Apache License 2.0 | yes | sharing attribution",
    "BSD-3-Clause | BSD 3-Clause | yes | sharing attribution",
    "CC-BY-SA-4.0 | Creative Commons Attribution, share alike 4.0 | yes | sharing attribution share-alike",
    "CC-BY-SA-3.0 | Creative Commons Attribution, share alike 3.0 | yes | sharing attribution share-alike",
    "ODbL-1.0 | Open Database License | yes | sharing attribution share-alike",
    "CDLA-Sharing-1.0 | Community Data License, sharing | yes | sharing attribution share-alike",
    "GPL-3.0-or-later | GNU General Public License 3 | yes | sharing attribution share-alike",
    "CC-BY-NC-4.0 | Creative Commons, non-commercial 4.0 | non-commercial | sharing attribution",
    "CC-BY-NC-SA-4.0 | Creative Commons, non-commercial, share alike 4.0 | non-commercial | sharing attribution share-alike",
    "CC-BY-ND-4.0 | Creative Commons, no derivatives 4.0 | no | sharing attribution",
    "CC-BY-NC-ND-4.0 | Creative Commons, non-commercial, no derivatives 4.0 | no | sharing attribution",
    "LicenseRef-no-training | Terms that forbid training | no | ",
    "LicenseRef-internal | Own data, not to be passed on | yes | ",
)


def _read(row: str) -> Licence:
    spdx, name, training, terms = (part.strip() for part in row.split("|"))
    words = terms.split()
    return Licence(
        spdx,
        name,
        cast(Training, training),
        sharing="sharing" in words,
        attribution="attribution" in words,
        share_alike="share-alike" in words,
    )


LICENCES = {licence.spdx: licence for licence in map(_read, _ROWS)}
_BY_SPELLING = {spdx.lower(): row for spdx, row in LICENCES.items()}


def licence_of(text: str) -> Licence | None:
    """The row of a license as somebody typed it; None where the table does not have it."""
    spelling = "-".join(text.lower().split())
    return _BY_SPELLING.get(spelling)


def why_not_for_training(text: str, *, is_commercial: bool) -> str:
    """Why texts under this license may not train a model of the project; "" if they may.

    A license that the table does not have is for the person who signs the source off to judge.
    """
    row = licence_of(text)
    if row is None or row.training == "yes":
        return ""
    if row.training == "no":
        return f"{row.spdx} does not allow training"
    return (
        f"{row.spdx} allows no commercial use, and this project is commercial"
        if is_commercial
        else ""
    )
