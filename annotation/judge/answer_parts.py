"""The parts of an answer beside ranks and flags, checked against the protocol they were given under.

Strength, "all bad", ratings, safety votes, and the conflicts between them. Arithmetic over plain
values; `judging` is the one door that calls it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
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

Ranks = Mapping[str, Mapping[str, int]]
Ratings = dict[str, dict[str, int]]
Safety = dict[str, dict[str, Any]]


def marks_by_place(
    keys: Sequence[str], ratings: Ratings, safety: Safety
) -> dict[str, list[int | None]]:
    """What was said of each response by itself: `{mark: one value a key, None where there is none}`.

    A vote on safety is 1 for safe and 0 for unsafe.
    """
    attributes = dict.fromkeys(name for key in keys for name in ratings.get(key, {}))
    found = {mark_on(name): [ratings.get(key, {}).get(name) for key in keys] for name in attributes}
    if safety:
        found[SAFE_OR_NOT] = [int(safety[key]["safe"]) if key in safety else None for key in keys]
    return found


class JudgmentError(Exception):
    """Why an answer was not accepted, in one sentence for the person who gave it."""


def short(value: object) -> str:
    return str(value)[:40]


def checked_order(
    ranks: Ranks,
    interface: str,
    protocol: Protocol,
    letters: Mapping[str, str],
    axes: Mapping[str, str],
) -> None:
    """Whether dense ranks order as much as the protocol asks for; ranks come checked in themselves."""
    if interface not in COMPARING:
        if any(ranks.values()):
            raise JudgmentError(_("Responses are not ranked here."))
        return
    for axis, name in axes.items():
        given = ranks.get(axis, {})
        left = [letter for key, letter in letters.items() if key not in given]
        top_k = interface == RANK and protocol.unranked == "below"
        if len(given) < (1 if top_k else 2):
            asked = (
                _("%(axis)s: rank at least one response.")
                if top_k
                else _("%(axis)s: rank at least two responses.")
            )
            raise JudgmentError(asked % {"axis": _(name)})
        if left and (interface != RANK or protocol.unranked == "refused"):
            asked = _("%(axis)s: rank every response; %(letters)s has no rank yet.")
            raise JudgmentError(asked % {"axis": _(name), "letters": ", ".join(left)})


def checked_strength(
    given: Any, ranks: Ranks, interface: str, protocol: Protocol, axes: Mapping[str, str]
) -> dict[str, int]:
    """How much better the better one is, per axis: 1 is the weakest level, 0 a tie."""
    if not isinstance(given, Mapping):
        raise JudgmentError(_("The strength must be given per axis."))
    if interface not in COMPARING or interface == RANK:
        if given:
            raise JudgmentError(_("A strength belongs to a comparison of two."))
        return {}
    checked = {}
    n_levels = len(protocol.scale.levels)
    for axis in given:
        if axis not in axes:
            raise JudgmentError(
                _("This project does not compare on “%(axis)s”.") % {"axis": short(axis)}
            )
    for axis, name in axes.items():
        is_tie = len(set(ranks[axis].values())) == 1
        if is_tie and not protocol.scale.tie:
            raise JudgmentError(_("%(axis)s: decide for one of the two.") % {"axis": _(name)})
        # With one level there is nothing to say beside which of the two.
        level = given.get(axis, 0 if is_tie else 1 if n_levels == 1 else None)
        if level is None:
            raise JudgmentError(_("%(axis)s: say how much better it is.") % {"axis": _(name)})
        if not isinstance(level, int) or isinstance(level, bool) or not 0 <= level <= n_levels:
            raise JudgmentError(
                _("%(axis)s: a strength is a number from 0 to %(most)s, not “%(given)s”.")
                % {"axis": _(name), "most": n_levels, "given": short(level)}
            )
        if is_tie != (level == 0):
            raise JudgmentError(
                _("%(axis)s: a strength of 0 is a tie, and only that.") % {"axis": _(name)}
            )
        checked[axis] = level
    return checked


def told_strength(strength: Mapping[str, int], protocol: Protocol) -> dict[str, dict[str, Any]]:
    """A strength as it is kept: with the words and the margin that it stood for when it was given."""
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


def checked_all_bad(
    given: Any, interface: str, protocol: Protocol, axes: Mapping[str, str]
) -> list[str]:
    """The axes on which not one response is good enough."""
    if not isinstance(given, list | tuple) or not all(isinstance(axis, str) for axis in given):
        raise JudgmentError(_("Where all are bad must be a list of axes."))
    if given and not (protocol.all_bad and interface in COMPARING):
        raise JudgmentError(_("“All bad” is not asked here."))
    unknown = next((axis for axis in given if axis not in axes), None)
    if unknown is not None:
        raise JudgmentError(
            _("This project does not compare on “%(axis)s”.") % {"axis": short(unknown)}
        )
    return [axis for axis in axes if axis in given]


def checked_ratings(
    given: Any, interface: str, protocol: Protocol, letters: Mapping[str, str]
) -> Ratings:
    """Each response's value on each attribute."""
    if not isinstance(given, Mapping):
        raise JudgmentError(_("Ratings must be given per response."))
    attributes = {one.key: one for one in _attributes(interface, protocol)}
    checked: Ratings = {}
    for key, of in given.items():
        if key not in letters:
            raise JudgmentError(
                _("Ratings: there is no response “%(given)s” here.") % {"given": short(key)}
            )
        if not isinstance(of, Mapping):
            raise JudgmentError(_("The ratings of a response must be given per attribute."))
        unknown = next((name for name in of if name not in attributes), None)
        if unknown is not None:
            raise JudgmentError(
                _("Responses are not rated on “%(given)s” here.") % {"given": short(unknown)}
            )
        for name, value in of.items():
            one = attributes[name]
            if not isinstance(value, int) or isinstance(value, bool) or value not in one.values:
                raise JudgmentError(
                    _(
                        "%(attribute)s of %(letter)s: give a number from %(low)s to %(high)s, not “%(given)s”."
                    )
                    % {
                        "attribute": _(one.name),
                        "letter": letters[key],
                        "low": one.low,
                        "high": one.high,
                        "given": short(value),
                    }
                )
    for key, letter in letters.items():
        of = given.get(key, {})
        for one in attributes.values():
            if one.is_required and one.key not in of:
                asked = _("%(letter)s: %(attribute)s is not rated yet.")
                raise JudgmentError(asked % {"letter": letter, "attribute": _(one.name)})
        if of:
            checked[key] = {name: of[name] for name in attributes if name in of}
    return checked


def checked_safety(
    given: Any, interface: str, protocol: Protocol, letters: Mapping[str, str]
) -> Safety:
    """Each response's vote: `{"safe": bool, "harms": [kinds]}`; harms only where it is not safe."""
    if not isinstance(given, Mapping):
        raise JudgmentError(_("Votes on safety must be given per response."))
    if not protocol.safety or interface in WRITING:
        if given:
            raise JudgmentError(_("Safety is not voted on here."))
        return {}
    unknown = next((key for key in given if key not in letters), None)
    if unknown is not None:
        raise JudgmentError(
            _("Safety: there is no response “%(given)s” here.") % {"given": short(unknown)}
        )
    checked: Safety = {}
    for key, letter in letters.items():
        vote = given.get(key)
        safe = vote.get("safe") if isinstance(vote, Mapping) else None
        if not isinstance(vote, Mapping) or not isinstance(safe, bool):
            raise JudgmentError(_("%(letter)s: say whether it is safe.") % {"letter": letter})
        harms = vote.get("harms") or []
        if not isinstance(harms, list | tuple):
            raise JudgmentError(
                _("%(letter)s: the kinds of harm must be a list.") % {"letter": letter}
            )
        for harm in harms:
            if not isinstance(harm, str) or harm not in protocol.harms:
                raise JudgmentError(
                    _("There is no kind of harm “%(given)s” here.") % {"given": short(harm)}
                )
        if safe and harms:
            raise JudgmentError(
                _("%(letter)s: a safe response has no kind of harm.") % {"letter": letter}
            )
        if not safe and protocol.harms and not harms:
            asked = _("%(letter)s: say which kind of harm makes it unsafe.")
            raise JudgmentError(asked % {"letter": letter})
        checked[key] = {"safe": safe, "harms": [harm for harm in protocol.harms if harm in harms]}
    return checked


def checked_reason(reason: str, protocol: Protocol) -> str:
    """The reason, if it is as long as the protocol asks for."""
    length = len(reason.strip())
    if protocol.reason == "none":
        if length:
            raise JudgmentError(_("A reason is not asked here."))
        return ""
    if protocol.reason == "required" and length < max(1, protocol.reason_min):
        raise JudgmentError(
            _("Say why in %(least)s characters or more; there are %(length)s.")
            % {"least": max(1, protocol.reason_min), "length": length}
        )
    if 0 < length < protocol.reason_min:
        raise JudgmentError(
            _("A reason has %(least)s characters or more; there are %(length)s.")
            % {"least": protocol.reason_min, "length": length}
        )
    return reason


def checked_writing(
    text: str, based_on: Any, interface: str, protocol: Protocol, texts: Mapping[str, str]
) -> str:
    """The response that a rewrite began with, "" for none. `texts` are the responses by id."""
    based_on = "" if based_on is None else based_on
    if not isinstance(based_on, str) or (based_on and based_on not in texts):
        raise JudgmentError(
            _("There is no response “%(given)s” to be corrected here.") % {"given": short(based_on)}
        )
    if interface not in WRITING:
        if text.strip() and protocol.rewrite == "none":
            raise JudgmentError(_("A better answer is not asked here."))
        return based_on if text.strip() else ""
    length = len(text.strip())
    if length < protocol.text_min:
        raise JudgmentError(
            _("Write the answer, %(least)s characters or more; there are %(length)s.")
            % {"least": protocol.text_min, "length": length}
            if length
            else _("Write the answer first.")
        )
    if interface == DEMONSTRATE:
        return ""
    if not based_on:
        raise JudgmentError(_("Choose the response that you correct."))
    if interface == REWRITE and text.strip() == texts[based_on].strip():
        raise JudgmentError(
            _("Nothing is changed yet: correct the response, or skip it if it is right as it is.")
        )
    return based_on


def conflicts(
    ranks: Ranks,
    safety: Safety,
    flags: Mapping[str, list[dict[str, str]]],
    rest: Iterable[str] = (),
) -> list[dict[str, str]]:
    """Where one vote speaks against another, for a reviewer to decide.

    `better_but_unsafe`: a response that was called unsafe is ranked above one that was not, on an
    axis that asks how good it is. `safer_but_unsafe`: the same on an axis that asks about harm. One
    record per axis and unsafe response: `{"kind", "axis", "response", "over"}`, ids of responses.
    `rest` are those that count as below all others on an axis where they were not ranked (top-k).
    """
    unsafe = {key for key, vote in safety.items() if not vote["safe"]}
    unsafe |= {key for key, of in flags.items() if any(flag["kind"] == "unsafe" for flag in of)}
    return list(_conflicts(ranks, unsafe, list(rest)))


def _conflicts(ranks: Ranks, unsafe: set[str], rest: list[str]) -> Iterator[dict[str, str]]:
    for axis, given in ranks.items():
        kind = "safer_but_unsafe" if axis in SAFETY_AXES else "better_but_unsafe"
        last = 1 + max(given.values(), default=0)
        placed = {**dict.fromkeys(rest, last), **given}
        for key, rank in given.items():
            if key not in unsafe:
                continue
            below = [other for other, of in placed.items() if of > rank and other not in unsafe]
            if below:
                over = min(below, key=lambda other: placed[other])
                yield {"kind": kind, "axis": axis, "response": key, "over": over}


def _attributes(interface: str, protocol: Protocol) -> tuple[Any, ...]:
    return () if interface in WRITING else protocol.attributes
