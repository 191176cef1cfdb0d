"""The interface to whatever answers in a live dialogue, so that annotation knows no models or servers.

`rlhf/apps.py` registers the policies' servers once, when the application starts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from django.utils.translation import gettext as _

from annotation.models import DialogueCampaign, Message

Readiness = Literal["off", "starting", "ready", "failed", "gone"]


class CandidateError(Exception):
    """Why there is no answer, in one sentence for an annotator; it never names the policy."""


@dataclass(frozen=True)
class Serving:
    """Whether a campaign's policies can answer now."""

    state: Readiness
    sentence: str = ""
    """For an annotator: what is wrong and what to do; "" if nothing is wrong."""

    @property
    def is_ready(self) -> bool:
        return self.state == "ready"


@dataclass
class AnswerReport:
    """Facts about one answer, filled in while it is read."""

    n_tokens: int | None = None
    is_cut_off: bool = False
    """It reached its length limit without an end."""
    is_full: bool = False
    """The conversation leaves the policy no room for a further turn."""


@dataclass(frozen=True)
class Writer:
    """One policy with its sampling settings; `source` is what `Response.source` will say."""

    source: str
    sampling: dict[str, Any]


class Candidates(Protocol):
    """Writes answers for campaigns."""

    def serving(self, campaign: DialogueCampaign) -> Serving:
        """Whether it can answer now; asking wakes what had been put to sleep for want of use."""

    def writers(self, campaign: DialogueCampaign, n: int) -> list[Writer]:
        """`n` writers drawn at random; CandidateError if there are none."""

    def write(
        self, writer: Writer, messages: Sequence[Message], report: AnswerReport
    ) -> Iterator[str]:
        """The answer in pieces, as it is written; closing the iterator stops the writing.

        CandidateError if it can't be had, or breaks off.
        """


class _NoCandidates:
    """Answers nothing: used where nothing is registered."""

    def serving(self, campaign: DialogueCampaign) -> Serving:
        return Serving("off", "No policy is available; ask an admin.")

    def writers(self, campaign: DialogueCampaign, n: int) -> list[Writer]:
        raise CandidateError(_("No policy is available; ask an admin."))

    def write(
        self, writer: Writer, messages: Sequence[Message], report: AnswerReport
    ) -> Iterator[str]:
        raise CandidateError(_("No policy is available; ask an admin."))


_registered: Candidates = _NoCandidates()


def register(source: Candidates) -> None:
    """Have this source answer from now on."""
    global _registered
    _registered = source


def candidates() -> Candidates:
    return _registered
