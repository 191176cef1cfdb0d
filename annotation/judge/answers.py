"""What a person says about a comparison, and the one parser of it.

`parse` returns the parts that have a meaning and a message for each that has none. Submitting raises
the first message, then `complete` asks for all that the protocol requires; a draft keeps the parts
and drops the rest.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.judge.dialogue_campaigns import optional_axes
from annotation.judge.requirements import (
    Flags,
    JudgmentError,
    Ranks,
    Ratings,
    Safety,
    check_order,
    check_ratings,
    check_reason,
    check_safety,
    complete_based_on,
    complete_strength,
)
from annotation.lib.text import storable
from annotation.models import Assignment, Batch, Judgment, Project, Response
from annotation.protocols import COMPARING, DIALOGUE, RANK, WRITING

MAX_REWRITE, MAX_REASON, MAX_SKIP_REASON = 20_000, 4_000, 200
MAX_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Answer:
    """What one person says about one comparison.

    `ranks` is `{axis: {response id: rank}}`, 1 is best, equal numbers are ties, a missing response
    was not ranked. `flags` is `{response id: [{"kind", "category"}]}`. `seconds` is the time from
    shown to sent as the page measured it. Response ids are strings.

    As the batch's protocol asks (annotation/protocols): `strength` is `{axis: level}` where 1 is
    the weakest and 0 a tie, `all_bad` the axes on which none is good enough, `ratings` `{response
    id: {attribute: number}}`, `safety` `{response id: {"safe", "harms"}}`, and `based_on` the
    response that `rewrite` corrects.

    `guideline_version` is the version of the guidelines that the person could read; None is the current
    one.
    """

    ranks: Ranks = field(default_factory=dict)
    flags: Flags = field(default_factory=dict)
    rewrite: str = ""
    reason: str = ""
    seconds: float | None = None
    strength: dict[str, int] = field(default_factory=dict)
    all_bad: list[str] = field(default_factory=list)
    ratings: Ratings = field(default_factory=dict)
    safety: Safety = field(default_factory=dict)
    based_on: str = ""
    guideline_version: int | None = None

    @property
    def sha256(self) -> str:
        """Hash of the answer without time and guidelines, so that a retry has the same hash."""
        left_out = ("seconds", "guideline_version")
        content = {name: value for name, value in vars(self).items() if name not in left_out}
        canonical = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def from_letters(cls, assignment: Assignment, data: Mapping[str, Any]) -> "Answer":
        """The answer in `data`, which names responses as they were shown (A, B, C …).

        JudgmentError for the first part without a meaning.
        """
        names = {letter: key for key, letter in assignment.letters.items()}
        return _raised(
            parse(assignment.comparison.batch, data, names, {letter: letter for letter in names})
        )


def complete(assignment: Assignment, given: Answer | Mapping[str, Any]) -> Answer:
    """The answer in the form in which it is stored; JudgmentError if the protocol asks for more.

    A mapping names responses by letter, as pages and the API do; an Answer names them by id. Ranks
    become dense (1, 2, 2, 3), so that one order is stored in one way.
    """
    letters, batch = assignment.letters, assignment.comparison.batch
    if isinstance(given, Answer):
        answer = _raised(parse(batch, vars(given), {key: key for key in letters}, letters))
    else:
        answer = Answer.from_letters(assignment, given)
    interface, protocol = batch.effective_interface, batch.effective_protocol
    axes = {axis["key"]: axis["name"] for axis in batch.project.axes}
    optional = optional_axes(batch) if interface == DIALOGUE else ()
    check_order(answer.ranks, interface, protocol, letters, axes, optional)
    ranks = {axis: _dense(places) for axis, places in answer.ranks.items() if places}
    texts = dict.fromkeys(letters, "")
    if interface in WRITING:
        responses = Response.objects.filter(pk__in=assignment.shown_order)
        texts = {str(pk): text for pk, text in responses.values_list("pk", "text")}
    check_reason(answer.reason, protocol)
    strength = complete_strength(answer.strength, ranks, interface, protocol, axes)
    check_ratings(answer.ratings, interface, protocol, letters)
    check_safety(answer.safety, interface, protocol, letters)
    return replace(
        answer,
        ranks=ranks,
        flags={
            key: [_with_category(flag) for flag in flags] for key, flags in answer.flags.items()
        },
        strength=strength,
        reason="" if protocol.reason == "none" else answer.reason,
        based_on=complete_based_on(answer.rewrite, answer.based_on, interface, protocol, texts),
    )


def parse(
    batch: Batch, data: Any, names: Mapping[str, str], letters: Mapping[str, str]
) -> tuple[Answer, list[str]]:
    """The parts of `data` that have a meaning in this batch, and a message for each that has none.

    `names` says by what the answer names each response that `data` names, `letters` under which
    letter each of `data`'s was shown. Whether all that is asked was said is not looked at.
    """
    parser = _Parser(batch, names, letters)
    return parser.answer(data), parser.problems


def _raised(parsed: tuple[Answer, list[str]]) -> Answer:
    answer, problems = parsed
    if problems:
        raise JudgmentError(problems[0])
    return answer


def _dense(ranks: Mapping[str, int]) -> dict[str, int]:
    places = {rank: place for place, rank in enumerate(sorted(set(ranks.values())), start=1)}
    return {key: places[rank] for key, rank in ranks.items()}


def _with_category(flag: dict[str, str]) -> dict[str, str]:
    return flag | {"category": flag["category"] or "other"} if flag["kind"] == "unsafe" else flag


class _Parser:
    """Reads one answer part by part; what is wrong is dropped and named in `problems`."""

    def __init__(self, batch: Batch, names: Mapping[str, str], letters: Mapping[str, str]) -> None:
        self.names, self.letters = names, letters
        self.project: Project = batch.project
        self.interface, self.protocol = batch.effective_interface, batch.effective_protocol
        self.axes = {axis["key"]: axis["name"] for axis in self.project.axes}
        self.problems: list[str] = []

    def answer(self, data: Any) -> Answer:
        if not isinstance(data, Mapping):
            raise JudgmentError(_("A draft is an object with ranks, flags, rewrite and reason."))
        return Answer(
            ranks=self.ranks(data.get("ranks") or {}),
            rewrite=self.text(data.get("rewrite"), gettext_noop("better answer"), MAX_REWRITE),
            flags=self.flags(data.get("flags") or {}),
            reason=self.text(data.get("reason"), gettext_noop("reason"), MAX_REASON),
            seconds=_seconds(data.get("seconds")),
            strength=self.strength(data.get("strength") or {}),
            all_bad=self.all_bad(data.get("all_bad") or []),
            ratings=self.ratings(data.get("ratings") or {}),
            safety=self.safety(data.get("safety") or {}),
            based_on=self.based_on(data.get("based_on")),
            guideline_version=_version(data.get("guideline_version"), self.project),
        )

    def fail(self, message: str, **values: object) -> None:
        self.problems.append(message % values if values else message)

    def mapping(self, given: Any, message: str) -> Mapping[Any, Any]:
        if isinstance(given, Mapping):
            return given
        self.fail(message)
        return {}

    def known_axes(self, given: Mapping[Any, Any] | list[Any]) -> list[str]:
        """The axes of the project that are in `given`, in the project's order."""
        for axis in given:
            if axis not in self.axes:
                self.fail(_("This project does not compare on “%(axis)s”."), axis=short(axis))
        return [axis for axis in self.axes if axis in given]

    def known_responses(self, given: Mapping[Any, Any], message: str, **values: str) -> list[str]:
        """What `given` calls its responses, in the order in which they were shown."""
        for name in given:
            if name not in self.names:
                self.fail(message, given=short(name), **values)
        return [name for name in self.names if name in given]

    def ranks(self, given: Any) -> Ranks:
        by_axis = self.mapping(given, _("The ranks must be given per axis."))
        if self.interface not in COMPARING:
            if any(by_axis.values()):
                self.fail(_("Responses are not ranked here."))
            return {}
        return {axis: self.ranks_on(axis, by_axis[axis]) for axis in self.known_axes(by_axis)}

    def ranks_on(self, axis: str, given: Any) -> dict[str, int]:
        title = _(self.axes[axis])
        by_response = self.mapping(
            given or {}, _("%(axis)s: the ranks must be given per response.") % {"axis": title}
        )
        ranks = {}
        for name in self.known_responses(
            by_response, _("%(axis)s: there is no response “%(given)s” here."), axis=title
        ):
            rank = by_response[name]
            if _is_number(rank, range(1, len(self.names) + 1)):
                ranks[self.names[name]] = rank
            else:
                self.fail(
                    _("%(axis)s: a rank is a number from 1 to %(most)s, not “%(given)s”."),
                    axis=title,
                    most=len(self.names),
                    given=short(rank),
                )
        return ranks

    def flags(self, given: Any) -> Flags:
        by_response = self.mapping(given, _("Flags must be given per response."))
        if by_response and not self.protocol.flags:
            self.fail(_("Responses are not flagged here."))
            return {}
        parsed: Flags = {}
        for name in self.known_responses(
            by_response, _("Flags: there is no response “%(given)s” here.")
        ):
            flags = by_response[name]
            if not isinstance(flags, list):
                self.fail(_("The flags of a response must be a list."))
                continue
            categories = dict(filter(None, map(self.flag, flags)))
            if categories:
                parsed[self.names[name]] = [
                    {"kind": kind, "category": categories[kind]}
                    for kind in Judgment.FLAGS
                    if kind in categories
                ]
        return parsed

    def flag(self, given: Any) -> tuple[str, str] | None:
        """A flag, `{"kind", "category"}` or its kind alone, as (kind, category)."""
        kind = given.get("kind") if isinstance(given, Mapping) else given
        category = (given.get("category") or "") if isinstance(given, Mapping) else ""
        if not isinstance(kind, str) or kind not in Judgment.FLAGS:
            self.fail(_("There is no flag “%(given)s”."), given=short(kind))
        elif kind != "unsafe" and category:
            self.fail(_("Only the flag “unsafe” has a kind of harm."))
        elif category and (
            not isinstance(category, str) or category not in Judgment.HARM_CATEGORIES
        ):
            self.fail(_("There is no kind of harm “%(given)s”."), given=short(category))
        else:
            return kind, category
        return None

    def text(self, given: Any, title: str, most: int) -> str:
        text, problem = read_text("" if given is None else given, title, most)
        if problem:
            self.fail(problem)
        return text

    def strength(self, given: Any) -> dict[str, int]:
        by_axis = self.mapping(given, _("The strength must be given per axis."))
        if self.interface not in COMPARING or self.interface == RANK:
            if by_axis:
                self.fail(_("A strength needs a comparison of two responses."))
            return {}
        n_levels = len(self.protocol.scale.levels)
        strength = {}
        for axis in self.known_axes(by_axis):
            if _is_number(by_axis[axis], range(n_levels + 1)):
                strength[axis] = by_axis[axis]
            else:
                self.fail(
                    _("%(axis)s: a strength is a number from 0 to %(most)s, not “%(given)s”."),
                    axis=_(self.axes[axis]),
                    most=n_levels,
                    given=short(by_axis[axis]),
                )
        return strength

    def all_bad(self, given: Any) -> list[str]:
        if not isinstance(given, list | tuple) or not all(isinstance(axis, str) for axis in given):
            self.fail(_("The field all_bad must be a list of axes."))
            return []
        if given and not (self.protocol.all_bad and self.interface in COMPARING):
            self.fail(_("“All bad” is not an option here."))
            return []
        return self.known_axes(list(given))

    def ratings(self, given: Any) -> Ratings:
        by_response = self.mapping(given, _("Ratings must be given per response."))
        ratings: Ratings = {}
        for name in self.known_responses(
            by_response, _("Ratings: there is no response “%(given)s” here.")
        ):
            marks = self.marks(name, by_response[name])
            if marks:
                ratings[self.names[name]] = marks
        return ratings

    def marks(self, name: str, given: Any) -> dict[str, int]:
        """One response's value on each attribute."""
        values = self.mapping(given, _("The ratings of a response must be given per attribute."))
        attributes = (
            {}
            if self.interface in WRITING
            else {attribute.key: attribute for attribute in self.protocol.attributes}
        )
        for key in values:
            if key not in attributes:
                self.fail(_("Responses are not rated on “%(given)s” here."), given=short(key))
        marks = {}
        for key, attribute in attributes.items():
            if key not in values:
                continue
            if _is_number(values[key], attribute.values):
                marks[key] = values[key]
                continue
            self.fail(
                _(
                    "%(attribute)s of %(letter)s: give a number from %(low)s to %(high)s, not “%(given)s”."
                ),
                attribute=_(attribute.name),
                letter=self.letters[name],
                low=attribute.low,
                high=attribute.high,
                given=short(values[key]),
            )
        return marks

    def safety(self, given: Any) -> Safety:
        by_response = self.mapping(given, _("Safety votes must be given per response."))
        if not self.protocol.safety or self.interface in WRITING:
            if by_response:
                self.fail(_("Safety votes are not collected here."))
            return {}
        safety: Safety = {}
        for name in self.known_responses(
            by_response, _("Safety: there is no response “%(given)s” here.")
        ):
            letter, entry = self.letters[name], by_response[name]
            is_safe = entry.get("safe") if isinstance(entry, Mapping) else None
            if not isinstance(is_safe, bool):
                self.fail(_("%(letter)s: choose safe or unsafe."), letter=letter)
                continue
            harms = self.harms(letter, entry.get("harms") or [])
            if is_safe and harms:
                self.fail(_("%(letter)s: a safe response has no kind of harm."), letter=letter)
                harms = []
            safety[self.names[name]] = {"safe": is_safe, "harms": harms}
        return safety

    def harms(self, letter: str, given: Any) -> list[str]:
        if not isinstance(given, list | tuple):
            self.fail(_("%(letter)s: the kinds of harm must be a list."), letter=letter)
            return []
        for harm in given:
            if not isinstance(harm, str) or harm not in self.protocol.harms:
                self.fail(_("There is no kind of harm “%(given)s” here."), given=short(harm))
        return [harm for harm in self.protocol.harms if harm in given]

    def based_on(self, given: Any) -> str:
        if given in (None, ""):
            return ""
        if isinstance(given, str) and given in self.names:
            return self.names[given]
        self.fail(_("There is no response “%(given)s” to correct."), given=short(given))
        return ""


def read_text(given: Any, title: str, most: int) -> tuple[str, str]:
    """A text as it is stored, and what is wrong with it; of one that is too long nothing is cut."""
    if not isinstance(given, str):
        return "", _("The %(what)s must be text.") % {"what": _(title)}
    text = storable(given.replace("\r\n", "\n"))  # Browsers send CR LF.
    if len(text) <= most:
        return text, ""
    message = _("The %(what)s has %(length)s characters; the maximum is %(most)s.")
    return text, message % {"what": _(title), "length": f"{len(text):,}", "most": f"{most:,}"}


def short(value: object) -> str:
    """The beginning of a value, to be named in a message."""
    return str(value)[:40]


def _is_number(value: Any, allowed: range) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value in allowed


def _seconds(given: Any) -> float | None:
    """The time that a page measured; an impossible value is dropped, not refused."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    if not math.isfinite(given) or not 0 <= given <= MAX_SECONDS:
        return None
    return round(float(given), 2)


def _version(given: Any, project: Project) -> int | None:
    """The guidelines that an answer was given under, at most the newest."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        return None
    return min(given, project.guideline_version)


# --- An answer as it was shown --------------------------------------------------------------------


def in_letters(assignment: Assignment, judgment: Judgment) -> dict[str, Any]:
    """A judgment as a draft: the same answer with letters in place of response ids."""
    letters = assignment.letters

    def per_letter(given: Mapping[str, Any]) -> dict[str, Any]:
        return {letters[key]: value for key, value in given.items() if key in letters}

    optional: dict[str, Any] = {
        "strength": {axis: kept["level"] for axis, kept in judgment.strength.items()},
        "all_bad": judgment.all_bad,
        "ratings": per_letter(judgment.ratings),
        "safety": per_letter(judgment.safety),
        "based_on": letters.get(str(judgment.based_on_id), ""),
    }
    return {
        "ranks": {axis: per_letter(ranks) for axis, ranks in judgment.ranks.items()},
        "flags": per_letter(judgment.flags),
        "rewrite": judgment.rewrite,
        "reason": judgment.reason,
        **{part: value for part, value in optional.items() if value},
    }


def ranking_line(ranks: Mapping[str, int]) -> str:
    """`A > C = D > B`: what a person reads before sending; "" if nothing is ranked."""
    places: dict[int, list[str]] = {}
    for letter, rank in sorted(ranks.items()):
        places.setdefault(rank, []).append(letter)
    return " > ".join(" = ".join(places[rank]) for rank in sorted(places))


def as_draft(answer: Answer) -> dict[str, Any]:
    """An answer in letters as a draft: optional parts that are empty are left out."""
    always = ("ranks", "flags", "rewrite", "reason")
    parts = {part.name: getattr(answer, part.name) for part in fields(answer)}
    del parts["guideline_version"]
    return {
        name: value
        for name, value in parts.items()
        if name in always or (value is not None if name == "seconds" else value)
    }
