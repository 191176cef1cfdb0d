"""What people say about a comparison: the one door for pages, API and simulated annotators.

Judgments are append-only. A correction is a new revision; taking one back leaves its row and only
clears `Assignment.judgment`.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from annotation.judge.answer_parts import (
    JudgmentError as JudgmentError,  # whoever judges catches it from here
)
from annotation.judge.answer_parts import (
    Ratings,
    Safety,
    checked_all_bad,
    checked_order,
    checked_ratings,
    checked_reason,
    checked_safety,
    checked_strength,
    checked_writing,
    conflicts,
    told_strength,
)
from annotation.judge.assignment import State, count, lease_end, lock, lock_with, take_place
from annotation.lib.text import storable
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Judgment,
    Project,
    Response,
    User,
    hot_queries,
)
from annotation.protocols import RANK, WRITING, Protocol

LETTERS = "ABCDEFGHI"
MAX_REWRITE, MAX_REASON, MAX_SKIP_REASON = 20_000, 4_000, 200
MAX_DRAFT_CHARACTERS = 60_000
MAX_SECONDS = 7 * 24 * 3600

Ranks = dict[str, dict[str, int]]
Flags = dict[str, list[dict[str, str]]]


class JudgmentConflict(JudgmentError):
    """The same idempotency key came with another answer."""


@dataclass(frozen=True)
class Answer:
    """What one person says about one comparison.

    `ranks` is `{axis: {response id: rank}}`, 1 is best, equal numbers are ties, a missing response
    was not ranked. `flags` is `{response id: [{"kind", "category"}]}`. `seconds` is the time from
    shown to sent as the page measured it. Response ids are strings.

    As the batch's protocol asks (annotation/protocols.py): `strength` is `{axis: level}` where 1 is
    the weakest and 0 a tie, `all_bad` the axes on which none is good enough, `ratings` `{response
    id: {attribute: number}}`, `safety` `{response id: {"safe", "harms"}}`, and `based_on` the
    response that `rewrite` corrects.

    `guideline_version` is the version that was there to be read meanwhile; None is the one in force.
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

    def checked(self, assignment: Assignment) -> "Answer":
        """The same answer in the form in which it is stored; JudgmentError if it makes no sense.

        Ranks become dense (1, 2, 2, 3), so that one order is stored in one way.
        """
        letters = letters_of(assignment)
        batch = assignment.comparison.batch
        interface, protocol = batch.effective_interface, batch.effective_protocol
        axes = {axis["key"]: axis["name"] for axis in batch.project.axes}
        ranks = _checked_ranks(self.ranks, letters, axes)
        checked_order(ranks, interface, protocol, letters, axes)
        rewrite = _checked_text(self.rewrite, gettext_noop("better answer"), MAX_REWRITE)
        texts = dict.fromkeys(letters, "")
        if interface in WRITING:
            told = Response.objects.filter(pk__in=assignment.shown_order)
            texts = {str(pk): text for pk, text in told.values_list("pk", "text")}
        if self.flags and not protocol.flags:
            raise JudgmentError(_("Responses are not flagged here."))
        return Answer(
            ranks={axis: of for axis, of in ranks.items() if of},
            flags=_checked_flags(self.flags, letters),
            rewrite=rewrite,
            reason=checked_reason(
                _checked_text(self.reason, gettext_noop("reason"), MAX_REASON), protocol
            ),
            seconds=_checked_seconds(self.seconds),
            strength=checked_strength(self.strength, ranks, interface, protocol, axes),
            all_bad=checked_all_bad(self.all_bad, interface, protocol, axes),
            ratings=checked_ratings(self.ratings, interface, protocol, letters),
            safety=checked_safety(self.safety, interface, protocol, letters),
            based_on=checked_writing(rewrite, self.based_on, interface, protocol, texts),
            guideline_version=_checked_version(self.guideline_version, batch.project),
        )

    @property
    def sha256(self) -> str:
        """Of what was said; how long it took and under which guidelines is no part of it, so that a

        retry stays a retry.
        """
        aside = ("seconds", "guideline_version")
        said = {name: of for name, of in vars(self).items() if name not in aside}
        canonical = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    @classmethod
    def from_letters(cls, assignment: Assignment, data: Mapping[str, Any]) -> "Answer":
        """An answer that names responses as they were shown (A, B, C …), as pages and API do."""
        ids = {letter: key for key, letter in letters_of(assignment).items()}

        def translate(given: Any, what: str) -> dict[str, Any]:
            if not isinstance(given, Mapping):
                raise JudgmentError(
                    _("The %(what)s must be given per response.") % {"what": _(what)}
                )
            unknown = next((letter for letter in given if letter not in ids), None)
            if unknown is not None:
                raise JudgmentError(
                    _("There is no response “%(given)s” here.") % {"given": _short(unknown)}
                )
            return {ids[letter]: value for letter, value in given.items()}

        ranks, based_on = data.get("ranks") or {}, data.get("based_on")
        if not isinstance(ranks, Mapping):
            raise JudgmentError(_("The ranks must be given per axis."))
        return cls(
            ranks={axis: translate(of, gettext_noop("ranks")) for axis, of in ranks.items()},
            flags=translate(data.get("flags") or {}, gettext_noop("flags")),
            rewrite=data.get("rewrite") or "",
            reason=data.get("reason") or "",
            seconds=data.get("seconds"),
            strength=data.get("strength") or {},
            all_bad=data.get("all_bad") or [],
            ratings=translate(data.get("ratings") or {}, gettext_noop("ratings")),
            safety=translate(data.get("safety") or {}, gettext_noop("votes on safety")),
            based_on=next(iter(translate({str(based_on): ""}, gettext_noop("response"))))
            if based_on
            else "",
            guideline_version=data.get("guideline_version"),
        )


def letters_of(assignment: Assignment) -> dict[str, str]:
    """Response id (as a string) to the letter under which this person saw it."""
    return {str(pk): LETTERS[i] for i, pk in enumerate(assignment.shown_order)}


def in_letters(assignment: Assignment, judgment: Judgment) -> dict[str, Any]:
    """A judgment as a draft: the same answer with letters in place of response ids."""
    letters = letters_of(assignment)

    def per_letter(given: Mapping[str, Any]) -> dict[str, Any]:
        return {letters[key]: of for key, of in given.items() if key in letters}

    said: dict[str, Any] = {
        "strength": {axis: of["level"] for axis, of in judgment.strength.items()},
        "all_bad": judgment.all_bad,
        "ratings": per_letter(judgment.ratings),
        "safety": per_letter(judgment.safety),
        "based_on": letters.get(str(judgment.based_on_id), ""),
    }
    return {
        "ranks": {
            axis: {letters[key]: rank for key, rank in of.items() if key in letters}
            for axis, of in judgment.ranks.items()
        },
        "flags": {letters[key]: of for key, of in judgment.flags.items() if key in letters},
        "rewrite": judgment.rewrite,
        "reason": judgment.reason,
        **{part: of for part, of in said.items() if of},
    }


def ranking_line(ranks: Mapping[str, int]) -> str:
    """`A > C = D > B`: what a person reads before sending; "" if nothing is ranked."""
    places: dict[int, list[str]] = {}
    for letter, rank in sorted(ranks.items()):
        places.setdefault(rank, []).append(letter)
    return " > ".join(" = ".join(places[rank]) for rank in sorted(places))


def submit_judgment(assignment: Assignment, *, by: User, answer: Answer, key: UUID) -> Judgment:
    """Accept the answer of `by`, whose assignment it is; its row. The one writer of judgments.

    The same key with the same answer gives the same row, with another answer JudgmentConflict. An
    answer that comes after its lease is accepted: it takes a place if one is left, and is kept as an
    extra otherwise. An answer to what was judged before is a new revision. JudgmentError if the
    answer makes no sense, comes from somebody else or the batch of an earlier judgment is closed.
    """
    if assignment.annotator_id != by.pk:
        raise JudgmentError(_("This comparison was handed to somebody else."))
    answer = answer.checked(assignment)
    try:
        with transaction.atomic():
            comparison = lock_with(assignment)
            earlier = hot_queries.earlier_judgments(key, assignment.pk)
            known = {judgment.key: judgment.revision for judgment in earlier}
            if key in known:
                return _replayed(Judgment.objects.get(key=key), assignment, answer)
            _occupy(comparison, assignment)
            revision = 1 + max(known.values(), default=0)
            return _write(comparison, assignment, answer, key, revision)
    except IntegrityError:
        # The key was used for another comparison in the same instant.
        replay = Judgment.objects.filter(key=key).first()
        if replay is None:
            raise
        return _replayed(replay, assignment, answer)


def skip(assignment: Assignment, reason: str) -> None:
    """Pass it on to somebody else, saying why. Skipping twice is skipping once."""
    reason = _checked_text(reason, gettext_noop("reason"), MAX_SKIP_REASON).strip()
    if not reason:
        raise JudgmentError(_("Say in a few words why you skip this one."))
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.state == State.JUDGED:
            raise JudgmentError(_("You have judged this one already; take that back first."))
        if assignment.state == State.LEASED and not assignment.is_extra:
            count(comparison, taken=-1)
        assignment.state, assignment.is_extra = State.SKIPPED, False
        assignment.skip_reason = reason
        assignment.save(update_fields=["state", "is_extra", "skip_reason"])


def undo_last(user: User, project: Project) -> Assignment | None:
    """Take back this person's last judgment that can be: it is open again, with its answer as draft.

    None if there is none in an open batch.
    """
    last = (
        Assignment.objects.filter(
            annotator=user,
            state=State.JUDGED,
            is_ruling=False,
            comparison__batch__project=project,
            comparison__batch__state=Batch.State.OPEN,
            comparison__is_live=False,
        )
        .order_by("-judgment__created_at", "-judgment_id")
        .first()
    )
    return reopen(last) if last else None


def reopen(assignment: Assignment) -> Assignment:
    """Open what this person judged or skipped once more; a judgment's answer becomes the draft."""
    with transaction.atomic():
        comparison = lock(assignment.comparison_id)
        assignment.refresh_from_db()
        _check_open(comparison)
        if assignment.state == State.JUDGED:
            if assignment.judgment is not None:
                assignment.draft = in_letters(assignment, assignment.judgment)
                assignment.draft_saved_at = timezone.now()
            if not assignment.is_extra:
                count(comparison, judged=-1)
        elif assignment.state in (State.SKIPPED, State.EXPIRED):
            assignment.is_extra = not take_place(comparison)
        assignment.state, assignment.judgment = State.LEASED, None
        assignment.lease_until = lease_end(comparison.batch.project)
        # Older than anything this person holds, so that it is what they are shown next.
        first = Assignment.objects.open_for(assignment.annotator).last()
        if first is not None:
            assignment.leased_at = min(
                assignment.leased_at, first.leased_at - timedelta(microseconds=1)
            )
        assignment.save()
    return assignment


def ruling_assignment(comparison: Comparison, reviewer: User) -> Assignment:
    """Where a reviewer's decision goes: an assignment that takes no place of the overlap.

    JudgmentError for whoever has a vote of their own there: nobody decides about themselves.
    """
    with transaction.atomic():
        comparison = lock(comparison.pk)
        order = list(comparison.responses.order_by("pk").values_list("pk", flat=True))
        assignment, made = Assignment.objects.get_or_create(
            comparison=comparison,
            annotator=reviewer,
            defaults={
                "state": State.SKIPPED,
                "is_extra": True,
                "is_ruling": True,
                "shown_order": order,
                "lease_until": timezone.now(),
            },
        )
        if not made and not assignment.is_ruling:
            if assignment.state == State.JUDGED:
                raise JudgmentError(_("You judged this one yourself; another reviewer decides it."))
            if assignment.state == State.LEASED and not assignment.is_extra:
                count(comparison, taken=-1)
            assignment.state, assignment.is_extra, assignment.is_ruling = State.SKIPPED, True, True
            assignment.shown_order, assignment.draft = order, {}
            assignment.save()
    return assignment


def withdraw_ruling(assignment: Assignment) -> None:
    """Take a reviewer's decision back; its row stays, and the votes count again."""
    with transaction.atomic():
        lock(assignment.comparison_id)
        assignment.refresh_from_db()
        if assignment.is_ruling:
            assignment.state, assignment.judgment = State.SKIPPED, None
            assignment.save(update_fields=["state", "judgment"])


def save_draft(assignment: Assignment, draft: Any) -> None:
    """Keep what a person has so far, in letters. Saving shows that they are at it: the lease goes on.

    A draft may be incomplete but not senseless: what can't be part of an answer is left out.
    """
    kept = _clean_draft(assignment, draft)
    if len(json.dumps(kept)) > MAX_DRAFT_CHARACTERS:
        raise JudgmentError(_("The draft is too long to be kept; shorten the better answer."))
    now = timezone.now()
    open_ones = Assignment.objects.filter(pk=assignment.pk)
    open_ones.filter(state__in=[State.LEASED, State.EXPIRED]).update(draft=kept, draft_saved_at=now)
    open_ones.filter(state=State.LEASED).update(
        lease_until=lease_end(assignment.comparison.batch.project)
    )
    assignment.refresh_from_db()


def _check_open(comparison: Comparison) -> None:
    if comparison.batch.state != Batch.State.OPEN:
        raise JudgmentError(
            _("“%(batch)s” is closed: its judgments are in use and stay as they are.")
            % {"batch": comparison.batch}
        )


def _replayed(earlier: Judgment, assignment: Assignment, answer: Answer) -> Judgment:
    if earlier.assignment_id == assignment.pk and earlier.answer_sha256 == answer.sha256:
        return earlier
    raise JudgmentConflict(
        _(
            "This answer was sent before with other contents; nothing was changed. Load the page again."
        )
    )


def _occupy(comparison: Comparison, assignment: Assignment) -> None:
    """Under the lock: turn whatever the assignment holds into a judged place, or into an extra."""
    if assignment.state == State.JUDGED:
        if not assignment.is_ruling:
            _check_open(comparison)
        return
    holds = assignment.state == State.LEASED and not assignment.is_extra
    if not holds and not assignment.is_ruling:
        holds = take_place(comparison)
    if holds:
        count(comparison, judged=1)
    assignment.is_extra = not holds


def _write(
    comparison: Comparison,
    assignment: Assignment,
    answer: Answer,
    key: UUID,
    revision: int,
) -> Judgment:
    batch = comparison.batch
    last = None
    if revision > 1:
        last = Judgment.objects.filter(assignment=assignment, revision=revision - 1).first()
    rest_below = batch.effective_interface == RANK and batch.effective_protocol.unranked == "below"
    rest = letters_of(assignment) if rest_below else ()
    found = conflicts(answer.ranks, answer.safety, answer.flags, rest)
    judgment = Judgment(
        assignment=assignment,
        revision=revision,
        key=key,
        answer_sha256=answer.sha256,
        ranks=answer.ranks,
        rest_below=rest_below,
        strength=told_strength(answer.strength, batch.effective_protocol),
        all_bad=answer.all_bad,
        flags=answer.flags,
        ratings=answer.ratings,
        safety=answer.safety,
        rewrite=answer.rewrite,
        based_on_id=int(answer.based_on) if answer.based_on else None,
        conflicts=found,
        needs_review=bool(found),
        reason=answer.reason,
        seconds=answer.seconds,
        guideline_version=answer.guideline_version or batch.project.guideline_version,
        # What an admin took out does not come back by being corrected.
        excluded_at=last.excluded_at if last else None,
        excluded_reason=last.excluded_reason if last else "",
    )
    judgment.save(force_insert=True)
    assignment.judgment, assignment.state, assignment.draft = judgment, State.JUDGED, {}
    assignment.skip_reason = ""
    assignment.save(update_fields=["judgment", "state", "draft", "is_extra", "skip_reason"])
    return judgment


def _short(value: object) -> str:
    return str(value)[:40]


def _checked_ranks(ranks: Any, letters: dict[str, str], axes: dict[str, str]) -> Ranks:
    if not isinstance(ranks, Mapping):
        raise JudgmentError(_("The ranks must be given per axis."))
    for axis in ranks:
        if axis not in axes:
            raise JudgmentError(
                _("This project does not compare on “%(axis)s”.") % {"axis": _short(axis)}
            )
    checked: Ranks = {}
    for axis, name in axes.items():
        given = ranks.get(axis) or {}
        if not isinstance(given, Mapping):
            raise JudgmentError(
                _("%(axis)s: the ranks must be given per response.") % {"axis": _(name)}
            )
        for key, rank in given.items():
            if key not in letters:
                raise JudgmentError(
                    _("%(axis)s: there is no response “%(given)s” here.")
                    % {"axis": _(name), "given": _short(key)}
                )
            if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= len(letters):
                raise JudgmentError(
                    _("%(axis)s: a rank is a number from 1 to %(most)s, not “%(given)s”.")
                    % {"axis": _(name), "most": len(letters), "given": _short(rank)}
                )
        dense = {rank: place for place, rank in enumerate(sorted(set(given.values())), start=1)}
        checked[axis] = {key: dense[given[key]] for key in letters if key in given}
    return checked


def _checked_flags(flags: Any, letters: dict[str, str]) -> Flags:
    if not isinstance(flags, Mapping):
        raise JudgmentError(_("Flags must be given per response."))
    checked: Flags = {}
    for key, given in flags.items():
        if key not in letters:
            raise JudgmentError(
                _("Flags: there is no response “%(given)s” here.") % {"given": _short(key)}
            )
        if not isinstance(given, list):
            raise JudgmentError(_("The flags of a response must be a list."))
        kinds: dict[str, str] = {}
        for flag in given:
            kind = flag.get("kind") if isinstance(flag, Mapping) else flag
            if not isinstance(kind, str) or kind not in Judgment.FLAGS:
                raise JudgmentError(_("There is no flag “%(given)s”.") % {"given": _short(kind)})
            category = (flag.get("category") or "") if isinstance(flag, Mapping) else ""
            if kind == "unsafe":
                category = category or "other"
                if not isinstance(category, str) or category not in Judgment.HARM_CATEGORIES:
                    raise JudgmentError(
                        _("There is no kind of harm “%(given)s”.") % {"given": _short(category)}
                    )
            elif category:
                raise JudgmentError(_("Only the flag “unsafe” has a kind of harm."))
            kinds[kind] = category
        if kinds:
            checked[key] = [
                {"kind": kind, "category": kinds[kind]} for kind in Judgment.FLAGS if kind in kinds
            ]
    return {key: checked[key] for key in letters if key in checked}


def _checked_text(text: Any, what: str, most: int) -> str:
    if not isinstance(text, str):
        raise JudgmentError(_("The %(what)s must be text.") % {"what": _(what)})
    clean = storable(text.replace("\r\n", "\n"))  # Browsers send CR LF.
    if len(clean) > most:
        raise JudgmentError(
            _("The %(what)s has %(length)s characters; at most %(most)s are kept.")
            % {"what": _(what), "length": f"{len(clean):,}", "most": f"{most:,}"}
        )
    return clean


def _checked_seconds(seconds: Any) -> float | None:
    """A page's own measurement: what can't be right is left out instead of refusing the answer."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    if not math.isfinite(seconds) or not 0 <= seconds <= MAX_SECONDS:
        return None
    return round(float(seconds), 2)


def _checked_version(given: Any, project: Project) -> int | None:
    """The guidelines that an answer was given under: none that are not written yet."""
    if not isinstance(given, int) or isinstance(given, bool) or given < 1:
        return None
    return min(given, project.guideline_version)


def _clean_draft(assignment: Assignment, draft: Any) -> dict[str, Any]:
    if not isinstance(draft, Mapping):
        raise JudgmentError(_("A draft is an object with ranks, flags, rewrite and reason."))
    letters = set(letters_of(assignment).values())
    axes = set(assignment.comparison.batch.project.axis_keys)

    def per_letter(given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            return {}
        return {letter: value for letter, value in given.items() if letter in letters}

    ranks = draft.get("ranks")
    kept_ranks = {
        axis: {
            letter: rank
            for letter, rank in per_letter(of).items()
            if isinstance(rank, int) and 1 <= rank <= len(letters)
        }
        for axis, of in (ranks.items() if isinstance(ranks, Mapping) else ())
        if axis in axes
    }
    kept_flags: Flags = {}
    for letter, of in per_letter(draft.get("flags")).items():
        kinds = [
            {"kind": flag["kind"], "category": category}
            for flag in (of if isinstance(of, list) else ())
            if isinstance(flag, Mapping)
            and isinstance(flag.get("kind"), str)
            and flag["kind"] in Judgment.FLAGS
            and (category := str(flag.get("category") or "")) in ("", *Judgment.HARM_CATEGORIES)
        ]
        if kinds:
            kept_flags[letter] = kinds
    kept: dict[str, Any] = {"ranks": kept_ranks, "flags": kept_flags}
    for name in ("rewrite", "reason"):
        text = draft.get(name)
        kept[name] = storable(text) if isinstance(text, str) else ""
    kept |= _clean_votes(draft, letters, axes, assignment.comparison.batch.effective_protocol)
    seconds = _checked_seconds(draft.get("seconds"))
    if seconds is not None:
        kept["seconds"] = seconds
    return kept


def _clean_votes(
    draft: Mapping[str, Any], letters: set[str], axes: set[str], protocol: Protocol
) -> dict[str, Any]:
    """The parts of a draft that only some protocols have, those that are there and have sense."""
    values = {one.key: one.values for one in protocol.attributes}

    def is_one_of(value: Any, allowed: range) -> bool:
        return isinstance(value, int) and value in allowed

    def mapping(value: Any) -> Mapping[str, Any]:
        return value if isinstance(value, Mapping) else {}

    def harms(vote: Mapping[str, Any]) -> list[Any]:
        given = vote.get("harms")
        return given if isinstance(given, list) else []

    all_bad = draft.get("all_bad")
    based_on = draft.get("based_on")
    votes: dict[str, Any] = {
        "strength": {
            axis: level
            for axis, level in mapping(draft.get("strength")).items()
            if axis in axes and is_one_of(level, range(len(protocol.scale.levels) + 1))
        },
        "all_bad": [axis for axis in sorted(axes) if axis in all_bad]
        if isinstance(all_bad, list)
        else [],
        "ratings": {
            letter: {
                name: value
                for name, value in mapping(of).items()
                if name in values and is_one_of(value, values[name])
            }
            for letter, of in mapping(draft.get("ratings")).items()
            if letter in letters
        },
        "safety": {
            letter: {
                "safe": of["safe"],
                "harms": [harm for harm in protocol.harms if harm in harms(of)],
            }
            for letter, of in mapping(draft.get("safety")).items()
            if letter in letters and isinstance(of, Mapping) and isinstance(of.get("safe"), bool)
        },
        "based_on": based_on if isinstance(based_on, str) and based_on in letters else "",
    }
    return {part: of for part, of in votes.items() if of}
