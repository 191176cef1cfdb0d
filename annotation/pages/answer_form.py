"""The judging page's interfaces: what a form's fields mean, and what the page shows of an answer.

One form for all of them. Fields of a ranking: `rank-<axis>-<letter>`; of a pair: `pair-<axis>` with
`A3` … `A1`, `0`, `B1` … `B3`; `allbad` (axes); of marks: `rate-<letter>-<attribute>`; of safety
marks: `safe-<letter>` (yes, no) and `harms-<letter>`; of a correction: `based_on`; everywhere:
`flag-<letter>`, `harm-<letter>`, `rewrite`, `reason`, `seconds`, `guideline_version`.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from annotation.judge.answers import ranking_line
from annotation.models import Assignment, Axis, Batch, Judgment
from annotation.protocols import (
    COMPARING,
    RANK,
    REWRITE,
    WRITING,
    Attribute,
    Protocol,
)
from annotation.request import measured_seconds, whole_number


def _translated(text: str) -> str:
    """A protocol's text in the page's language, if the catalog has a translation."""
    return _(text) if text else ""


def _translated_attribute(attribute: Attribute) -> Attribute:
    """In the page's language; a scale without words for its ends says which end is which."""
    has_ends = bool(attribute.low_label or attribute.high_label or attribute.is_yes_no)
    return replace(
        attribute,
        name=_translated(attribute.name),
        question=_translated(attribute.question),
        low_label=_translated(attribute.low_label) if has_ends else _("lowest"),
        high_label=_translated(attribute.high_label) if has_ends else _("highest"),
    )


# --- What was sent ------------------------------------------------------------------------------------


def answer_from_form(post: QueryDict, assignment: Assignment) -> dict[str, Any]:
    """The form's fields as an answer in letters, whatever the interface."""
    letters = list(assignment.letters.values())
    ranks: dict[str, dict[str, int]] = {}
    for axis in assignment.comparison.batch.project.axis_keys:
        ranked = {letter: post.get(f"rank-{axis}-{letter}", "") for letter in letters}
        ranks[axis] = {letter: whole_number(value) for letter, value in ranked.items() if value}
    flags = {
        letter: [
            {"kind": kind, "category": post.get(f"harm-{letter}", "") if kind == "unsafe" else ""}
            for kind in post.getlist(f"flag-{letter}")
        ]
        for letter in letters
    }
    return {
        "ranks": ranks,
        "flags": {letter: kinds for letter, kinds in flags.items() if kinds},
        "rewrite": post.get("rewrite", ""),
        "reason": post.get("reason", ""),
        "seconds": measured_seconds(post.get("seconds", "")),
        "guideline_version": whole_number(post.get("guideline_version")) or None,
        **protocol_parts(post, assignment.comparison.batch, letters),
    }


def protocol_parts(post: QueryDict, batch: Batch, letters: list[str]) -> dict[str, Any]:
    """The fields that only some protocols have, as parts of an answer in letters."""
    protocol, interface = batch.effective_protocol, batch.effective_interface
    parts: dict[str, Any] = {}
    if interface in COMPARING:
        parts["all_bad"] = post.getlist("allbad")
    if interface in COMPARING and interface != RANK:
        pairs = {axis: _pair(post.get(f"pair-{axis}", "")) for axis in batch.project.axis_keys}
        parts["ranks"] = {axis: pair[0] for axis, pair in pairs.items() if pair}
        parts["strength"] = {axis: pair[1] for axis, pair in pairs.items() if pair}
    if interface not in WRITING:
        parts["ratings"] = {
            letter: marks
            for letter in letters
            if (marks := dict(_ratings(post, letter, protocol.attributes)))
        }
        if protocol.safety:
            parts["safety"] = {
                letter: {
                    "safe": post.get(f"safe-{letter}") == "yes",
                    "harms": post.getlist(f"harms-{letter}")
                    if post.get(f"safe-{letter}") == "no"
                    else [],
                }
                for letter in letters
                if post.get(f"safe-{letter}") in ("yes", "no")
            }
    if interface == REWRITE:
        parts["based_on"] = post.get("based_on", "")
    return parts


def _pair(value: str) -> tuple[dict[str, int], int] | None:
    """`B3` is B better by three, `0` a tie; None for any other value."""
    if value == "0":
        return {"A": 1, "B": 1}, 0
    if len(value) == 2 and value[0] in "AB" and value[1] in "1234":
        better = value[0]
        return {letter: 1 if letter == better else 2 for letter in "AB"}, int(value[1])
    return None


def _ratings(
    post: QueryDict, letter: str, attributes: tuple[Attribute, ...]
) -> Iterator[tuple[str, int]]:
    for attribute in attributes:
        value = post.get(f"rate-{letter}-{attribute.key}", "")
        if value in {str(number) for number in attribute.values}:
            yield attribute.key, int(value)
        elif is_box(attribute):  # An empty check box means no.
            yield attribute.key, 0


def is_box(attribute: Attribute) -> bool:
    """An optional yes-or-no attribute is a check box."""
    return attribute.is_yes_no and not attribute.is_required


# --- What is shown -----------------------------------------------------------------------------------------


def questions(assignment: Assignment, draft: dict[str, Any]) -> dict[str, Any]:
    """The questions of the page, with the answers given so far."""
    return questions_of_batch(assignment.comparison.batch, list(assignment.letters.values()), draft)


def questions_of_batch(
    batch: Batch, letters: list[str], draft: dict[str, Any], optional: Collection[str] = ()
) -> dict[str, Any]:
    """The questions for responses without a comparison, such as two answers of a live dialogue.

    Axes that are `optional` need no answer.
    """
    protocol, interface = batch.effective_protocol, batch.effective_interface
    asks_marks = interface not in WRITING and protocol.asks_per_response
    return {
        "interface": interface,
        "protocol": protocol,
        "pairs": [
            {**_scale(axis, protocol, draft), "is_optional": axis["key"] in optional}
            for axis in batch.project.axes
        ]
        if interface in COMPARING and interface != RANK
        else [],
        "directions": _directions(protocol) if interface == RANK and asks_marks else [],
        "all_bad": draft.get("all_bad", []),
        "based_on": draft.get("based_on", ""),
        "asks_marks": asks_marks,
        "marks": {letter: _mark_questions(letter, protocol, draft) for letter in letters}
        if asks_marks
        else {},
    }


def _directions(protocol: Protocol) -> list[str]:
    """Next to a ranking, where 1 is best: the high end of each mark, as ("Quality", "7 excellent")."""
    marks = [_translated_attribute(mark) for mark in protocol.attributes if not is_box(mark)]
    return [f"{mark.name}: {mark.high} = {mark.high_label}" for mark in marks if not mark.is_yes_no]


def _scale(axis: Axis, protocol: Protocol, draft: dict[str, Any]) -> dict[str, Any]:
    """The points of one axis from "A is far better" to "B is far better"."""
    levels = protocol.scale.levels
    n = len(levels)
    points = [
        {
            "value": f"A{level}",
            "better": "A",
            "size": level,
            "label": _translated(levels[level - 1].label),
        }
        for level in range(n, 0, -1)
    ]
    if protocol.scale.tie:
        points.append(
            {"value": "0", "better": "", "size": 0, "label": _translated(protocol.scale.tie)}
        )
    points += [
        {
            "value": f"B{level}",
            "better": "B",
            "size": level,
            "label": _translated(levels[level - 1].label),
        }
        for level in range(1, n + 1)
    ]
    ranks = draft.get("ranks", {}).get(axis["key"], {})
    strength = draft.get("strength", {}).get(axis["key"])
    chosen = ""
    if set(ranks) == {"A", "B"} and strength is not None:
        better = "A" if ranks["A"] < ranks["B"] else "B"
        chosen = "0" if ranks["A"] == ranks["B"] else f"{better}{strength}"
    return {
        "axis": {
            **axis,
            "name": _translated(axis["name"]),
            "question": _translated(axis["question"]),
        },
        "is_open": not chosen,
        "points": [
            {**point, "key": number, "is_chosen": point["value"] == chosen}
            for number, point in enumerate(points, start=1)
        ],
        "is_all_bad": axis["key"] in draft.get("all_bad", []),
    }


def _mark_questions(letter: str, protocol: Protocol, draft: dict[str, Any]) -> dict[str, Any]:
    rated = draft.get("ratings", {}).get(letter, {})
    vote = draft.get("safety", {}).get(letter, {})
    boxes = [attribute for attribute in protocol.attributes if is_box(attribute)]
    return {
        "attributes": [
            {"attribute": _translated_attribute(attribute), "value": rated.get(attribute.key)}
            for attribute in protocol.attributes
            if not is_box(attribute)
        ],
        "boxes": [
            {"attribute": _translated_attribute(box), "is_set": rated.get(box.key) == 1}
            for box in boxes
        ],
        "safety": protocol.safety,
        "safe": vote.get("safe"),
        "harms": [
            {"value": value, "name": _translated(name), "is_set": value in vote.get("harms", [])}
            for value, name in protocol.harms.items()
        ],
    }


def filled_fields(letter: str, draft: dict[str, Any]) -> list[tuple[str, str]]:
    """The form fields that a draft sets for one response: (field, value)."""
    vote = draft.get("safety", {}).get(letter, {})
    fields = [
        (f"rate-{letter}-{key}", str(value))
        for key, value in draft.get("ratings", {}).get(letter, {}).items()
    ]
    if "safe" in vote:
        fields.append((f"safe-{letter}", "yes" if vote["safe"] else "no"))
    fields += [(f"harms-{letter}", harm) for harm in vote.get("harms", [])]
    for flag in draft.get("flags", {}).get(letter, []):
        fields.append((f"flag-{letter}", flag["kind"]))
        if flag.get("category"):
            fields.append((f"harm-{letter}", flag["category"]))
    return fields


# --- An answer as lines of text ------------------------------------------------------------------------------


def as_text(assignment: Assignment, answer: dict[str, Any]) -> str:
    """The whole answer in lines to read: orders and marks, flags, then what was written."""
    lines = [f"{line['name']}: {line['line'] or '–'}" for line in summary(assignment, answer)]
    for letter, flags in answer.get("flags", {}).items():
        names = (_translated(Judgment.FLAGS.get(flag["kind"], flag["kind"])) for flag in flags)
        lines.append(f"⚑ {letter}: {', '.join(names)}")
    lines += [answer[field] for field in ("reason", "rewrite") if answer.get(field)]
    return "\n".join(lines)


def summary(assignment: Assignment, answer: dict[str, Any]) -> list[dict[str, str]]:
    """The answer, one line for each question: `{"key", "name", "line"}`."""
    batch = assignment.comparison.batch
    interface, protocol = batch.effective_interface, batch.effective_protocol
    lines = []
    if interface in COMPARING:
        lines = [
            _axis_line(axis, interface, protocol, assignment, answer) for axis in batch.project.axes
        ]
    if interface in WRITING:
        n = len(answer.get("rewrite", "").split())
        wrote = ngettext("%(n)s word", "%(n)s words", n) % {"n": n}
        if interface == REWRITE:
            based_on = answer.get("based_on", "")
            name = _("Correction of %(letter)s") % {"letter": based_on} if based_on else _("Text")
            lines.append({"key": "", "name": name, "line": wrote})
        else:
            lines.append({"key": "", "name": _("Answer"), "line": wrote})
    for letter in assignment.letters.values():
        if line := _response_line(letter, protocol, answer):
            lines.append({"key": "", "name": letter, "line": line})
    return lines


def _axis_line(
    axis: Axis, interface: str, protocol: Protocol, assignment: Assignment, answer: dict[str, Any]
) -> dict[str, str]:
    ranks = answer.get("ranks", {}).get(axis["key"], {})
    line = ranking_line(ranks)
    if (
        line
        and interface == RANK
        and protocol.unranked == "below"
        and len(ranks) < len(assignment.shown_order)
    ):
        line += " > " + _("the rest")
    strength = answer.get("strength", {}).get(axis["key"])
    if line and interface != RANK and strength is not None:
        label = _translated(
            protocol.scale.levels[strength - 1].label if strength else protocol.scale.tie
        )
        line += f", {label}"
    if axis["key"] in answer.get("all_bad", []):
        line += ", " + (_("all bad") if interface == RANK else _("both bad"))
    return {"key": axis["key"], "name": _translated(axis["name"]), "line": line}


def _response_line(letter: str, protocol: Protocol, answer: dict[str, Any]) -> str:
    rated = answer.get("ratings", {}).get(letter, {})
    parts = [
        _translated(attribute.name)
        if is_box(attribute)
        else f"{_translated(attribute.name)} {rated[attribute.key]}"
        for attribute in protocol.attributes
        if attribute.key in rated and (rated[attribute.key] or not is_box(attribute))
    ]
    vote = answer.get("safety", {}).get(letter)
    if vote:
        harms = ", ".join(
            _translated(protocol.harms.get(harm, harm)) for harm in vote.get("harms", [])
        )
        parts.append(_("safe") if vote["safe"] else _("unsafe") + (f" ({harms})" if harms else ""))
    return " · ".join(parts)
