"""What a protocol asks of an answer whose parts have been read: order, strength, marks, safety, text.

Also the conflicts between the parts, and the marks of each response. Arithmetic over plain values;
annotation/judge/answers.py reads the parts.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.utils.translation import gettext as _

from annotation.protocols import (
    COMPARING,
    DEMONSTRATE,
    RANK,
    REWRITE,
    SAFE_OR_NOT,
    SAFETY_AXES,
    WRITING,
    Protocol,
    mark_on,
)

Ranks = dict[str, dict[str, int]]
Flags = dict[str, list[dict[str, str]]]
Ratings = dict[str, dict[str, int]]
Safety = dict[str, dict[str, Any]]


class JudgmentError(Exception):
    """Why an answer was not accepted, in one sentence for the person who gave it."""


def check_order(
    ranks: Ranks,
    interface: str,
    protocol: Protocol,
    letters: Mapping[str, str],
    axes: Mapping[str, str],
    optional: Collection[str] = (),
) -> None:
    """Do the ranks order as much as the protocol asks for? An `optional` axis may have none."""
    if interface not in COMPARING:
        return
    for axis, name in axes.items():
        given = ranks.get(axis, {})
        if not given and axis in optional:
            continue
        left = [letter for key, letter in letters.items() if key not in given]
        top_k = interface == RANK and protocol.unranked == "below"
        if len(given) < (1 if top_k else 2):
            message = (
                _("%(axis)s: rank at least one response.")
                if top_k
                else _("%(axis)s: rank at least two responses.")
            )
            raise JudgmentError(message % {"axis": _(name)})
        if left and (interface != RANK or protocol.unranked == "refused"):
            message = _("%(axis)s: rank every response; %(letters)s has no rank yet.")
            raise JudgmentError(message % {"axis": _(name), "letters": ", ".join(left)})


def complete_strength(
    given: Mapping[str, int],
    ranks: Ranks,
    interface: str,
    protocol: Protocol,
    axes: Mapping[str, str],
) -> dict[str, int]:
    """How much better the better one is, per axis: 1 is the weakest level, 0 a tie."""
    if interface not in COMPARING or interface == RANK:
        return {}
    strength = {}
    n_levels = len(protocol.scale.levels)
    for axis, name in axes.items():
        if axis not in ranks:  # It is optional.
            continue
        is_tie = len(set(ranks[axis].values())) == 1
        if is_tie and not protocol.scale.tie:
            raise JudgmentError(_("%(axis)s: choose one of the two.") % {"axis": _(name)})
        # With one level there is nothing to choose: the order says it all.
        level = given.get(axis, 0 if is_tie else 1 if n_levels == 1 else None)
        if level is None:
            raise JudgmentError(_("%(axis)s: choose how much better it is.") % {"axis": _(name)})
        if is_tie != (level == 0):
            raise JudgmentError(
                _("%(axis)s: a strength of 0 is only for ties.") % {"axis": _(name)}
            )
        strength[axis] = level
    return strength


def check_ratings(
    ratings: Ratings, interface: str, protocol: Protocol, letters: Mapping[str, str]
) -> None:
    """Has each response a value on each required attribute?"""
    if interface in WRITING:
        return
    for key, letter in letters.items():
        for attribute in protocol.attributes:
            if attribute.is_required and attribute.key not in ratings.get(key, {}):
                message = _("%(letter)s: %(attribute)s is not rated yet.")
                raise JudgmentError(message % {"letter": letter, "attribute": _(attribute.name)})


def check_safety(
    safety: Safety, interface: str, protocol: Protocol, letters: Mapping[str, str]
) -> None:
    """Is it said of each response whether it is safe, and if not, why?"""
    if not protocol.safety or interface in WRITING:
        return
    for key, letter in letters.items():
        if key not in safety:
            raise JudgmentError(_("%(letter)s: choose safe or unsafe.") % {"letter": letter})
        if not safety[key]["safe"] and protocol.harms and not safety[key]["harms"]:
            message = _("%(letter)s: choose the kind of harm.")
            raise JudgmentError(message % {"letter": letter})


def check_reason(reason: str, protocol: Protocol) -> None:
    """Is the reason as long as the protocol asks for?"""
    length = len(reason.strip())
    if protocol.reason == "none":
        if length:
            raise JudgmentError(_("Reasons are not collected here."))
        return
    if protocol.reason == "required" and length < max(1, protocol.reason_min):
        raise JudgmentError(
            _("Give a reason of at least %(least)s characters; yours has %(length)s.")
            % {"least": max(1, protocol.reason_min), "length": length}
        )
    if 0 < length < protocol.reason_min:
        raise JudgmentError(
            _("A reason needs at least %(least)s characters; yours has %(length)s.")
            % {"least": protocol.reason_min, "length": length}
        )


def complete_based_on(
    text: str, based_on: str, interface: str, protocol: Protocol, texts: Mapping[str, str]
) -> str:
    """The response that a rewrite began with, "" for none, if the text is what the protocol asks for.

    `texts` are the responses by id.
    """
    if interface not in WRITING:
        if text.strip() and protocol.rewrite == "none":
            raise JudgmentError(_("Better answers are not collected here."))
        return based_on if text.strip() else ""
    length = len(text.strip())
    if length < protocol.text_min:
        raise JudgmentError(
            _("Write an answer of at least %(least)s characters; yours has %(length)s.")
            % {"least": protocol.text_min, "length": length}
            if length
            else _("Write the answer first.")
        )
    if interface == DEMONSTRATE:
        return ""
    if not based_on:
        raise JudgmentError(_("Choose the response to correct."))
    if interface == REWRITE and text.strip() == texts[based_on].strip():
        raise JudgmentError(
            _("Nothing is changed yet: correct the response, or skip it if it is correct.")
        )
    return based_on


def strength_record(strength: Mapping[str, int], protocol: Protocol) -> dict[str, dict[str, Any]]:
    """A strength as it is stored: with the words and the margin that it stood for when it was given."""
    levels = protocol.scale.levels
    return {
        axis: {
            "level": level,
            "of": len(levels),
            "label": levels[level - 1].label if level else protocol.scale.tie,
            "margin": levels[level - 1].margin if level else 0.0,
        }
        for axis, level in strength.items()
    }


def conflicts(
    ranks: Ranks,
    safety: Safety,
    flags: Mapping[str, list[dict[str, str]]],
    rest: Iterable[str] = (),
) -> list[dict[str, str]]:
    """Where parts of an answer contradict each other, for a reviewer to decide.

    `better_but_unsafe`: a response that was called unsafe is ranked above one that was not, on an
    axis that asks how good it is. `safer_but_unsafe`: the same on an axis that asks about harm. One
    record per axis and unsafe response: `{"kind", "axis", "response", "over"}`, ids of responses.
    `rest` are those that count as below all others on an axis where they were not ranked (top-k).
    """
    unsafe = {key for key, mark in safety.items() if not mark["safe"]}
    unsafe |= {
        key for key, given in flags.items() if any(flag["kind"] == "unsafe" for flag in given)
    }
    return list(_conflicts(ranks, unsafe, list(rest)))


def _conflicts(ranks: Ranks, unsafe: set[str], rest: list[str]) -> Iterator[dict[str, str]]:
    for axis, given in ranks.items():
        kind = "safer_but_unsafe" if axis in SAFETY_AXES else "better_but_unsafe"
        last = 1 + max(given.values(), default=0)
        placed = {**dict.fromkeys(rest, last), **given}
        for key, rank in given.items():
            if key not in unsafe:
                continue
            below = [
                other for other, place in placed.items() if place > rank and other not in unsafe
            ]
            if below:
                over = min(below, key=lambda other: placed[other])
                yield {"kind": kind, "axis": axis, "response": key, "over": over}


def marks_by_place(
    keys: Sequence[str], ratings: Ratings, safety: Safety
) -> dict[str, list[int | None]]:
    """The marks of each response: `{mark: [value or None for each key]}`.

    Safe is 1 and unsafe 0.
    """
    attributes = dict.fromkeys(name for key in keys for name in ratings.get(key, {}))
    marks = {mark_on(name): [ratings.get(key, {}).get(name) for key in keys] for name in attributes}
    if safety:
        marks[SAFE_OR_NOT] = [int(safety[key]["safe"]) if key in safety else None for key in keys]
    return marks
