"""Comparisons whose answer is known: mixed into people's work, and the round that lets them begin.

An annotator must not be able to tell gold from work. So a gold comparison lies in the same batch as
the work around it, has the same kind of address, holds a lease, a draft and a judgment like any
other, and appears in the same numbers ("12 of 40 today"). It is counted nowhere else: it needs
nobody, takes no place, is never data and never trained on. Reviewers and admins, who see what is
gold, are handed none of it.

An order is known by its pairs, and what is said of a response by itself by its mark or vote: a mark
that is near enough is right (`Attribute.tolerance`). A batch gets the items of which it asks at
least one thing that is known; the rest of what is known of them counts for nothing there.

Where gold comes is decided by a keyed hash: of each `gold_every` comparisons that somebody is handed
exactly one is gold, at a place that nobody without the server's key can foretell.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext, gettext_noop

from annotation import protocols
from annotation.judge.answer_parts import marks_by_place, short
from annotation.lib.text import storable
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    GoldItem,
    Judgment,
    Membership,
    Message,
    Project,
    Prompt,
    Response,
    Source,
    User,
    content_hash,
)

# Of what people write, and of a dialogue that is still to be held, no answer is known.
KNOWABLE = (protocols.RANK, protocols.PAIR, protocols.RATE)
ORDERED = (protocols.RANK, protocols.PAIR)
# An item is right when this share of its pairs and marks is; a pair leaves no room for error.
RIGHT = 0.75
# By role too: rows made in bulk were never asked.
KNOWS_GOLD = Q(knows_gold=True) | Q(role__in=Membership.SEES_GOLD)
ROWS_SEEN = 200
MAX_ITEMS = 2_000
MAX_TEXT = 20_000
MAX_WHY = 400


NOTHING_KNOWN = gettext_noop(
    "Gold works where given responses are ranked, compared or rated; of what people write or talk "
    "about here no answer is known beforehand."
)


class GoldError(Exception):
    """Why a gold item can't be, in sentences for whoever writes them. `field` is where in a row."""

    def __init__(self, told: str, field: str = "") -> None:
        super().__init__(told)
        self.field = field


# --- How good an answer is -----------------------------------------------------------------------------


def asked_of(interface: str, protocol: protocols.Protocol, measures: Iterable[str]) -> list[str]:
    """Of axes and marks (as in `GoldItem.expected`), those that people are asked about."""
    asked = {protocols.mark_on(one.key) for one in protocol.attributes}
    if protocol.safety:
        asked.add(protocols.SAFE_OR_NOT)
    return [
        of for of in measures if (of in asked if protocols.is_mark(of) else interface in ORDERED)
    ]


def for_qualification(project: Project) -> list[GoldItem]:
    """The items of a round begun now: marked for it, with something known of what is asked now."""
    items = project.gold_items.filter(is_active=True, is_qualification=True)
    return [
        item
        for item in items
        if asked_of(project.interface, project.effective_protocol, item.expected)
    ]


def tolerances(protocol: protocols.Protocol) -> dict[str, int]:
    """How far each mark may be from the known one and still be right."""
    return {protocols.mark_on(one.key): one.tolerance for one in protocol.attributes}


def score(
    expected: Mapping[str, Sequence[int | None]],
    given: Mapping[str, Any],
    tolerance: Mapping[str, int] | None = None,
) -> float | None:
    """Share of what is known that was said rightly; None where nothing is known.

    `given` is `{axis or mark: [rank or mark, or None, per response]}`, in the item's order of
    responses. Of an axis the known pairs count: a tie where one is better is half right; a response
    that was not ranked is wrong. Two that a top-k ranking left out (BELOW) were not asked about. Of
    a mark each known one counts: it is right where it is at most `tolerance[mark]` away (0 unless
    said), a vote on safety where it is the same.
    """
    points, n = 0.0, 0
    for measure, known in expected.items():
        if protocols.is_mark(measure):
            near = (tolerance or {}).get(measure, 0)
            for right, said in zip(known, given.get(measure) or [None] * len(known), strict=True):
                n += right is not None
                points += right is not None and said is not None and abs(said - right) <= near
            continue
        points_of, n_of = _score_order(known, given.get(measure) or [None] * len(known))
        points, n = points + points_of, n + n_of
    return points / n if n else None


def _score_order(known: Sequence[int | None], given: Sequence[int | None]) -> tuple[float, int]:
    """Over the known pairs of one axis: points, and how many there are."""
    points, n = 0.0, 0
    for (a, said_a), (b, said_b) in combinations(zip(known, given, strict=True), 2):
        if a is None or b is None or a == b or said_a == said_b == protocols.BELOW:
            continue
        n += 1
        if said_a is None or said_b is None:
            continue
        points += 0.5 if said_a == said_b else float((said_a < said_b) == (a < b))
    return points, n


@dataclass(frozen=True)
class Tally:
    """How many gold items somebody answered, and how many of them rightly."""

    right: int = 0
    of: int = 0

    @property
    def share(self) -> float | None:
        return self.right / self.of if self.of else None


def tallies(project: Project, *, attempt_of: Membership | None = None) -> dict[int, Tally]:
    """`{user id: Tally}` over mixed-in gold, or over one person's qualification round.

    Whoever could see what is gold is not measured by it, by what they answered before neither.
    """
    judgments = Judgment.objects.filter(
        current_for__isnull=False,
        assignment__comparison__gold__isnull=False,
        assignment__comparison__batch__project=project,
    )
    if attempt_of is None:
        knows = Membership.objects.filter(KNOWS_GOLD, project=project).values("user")
        judgments = judgments.filter(
            assignment__comparison__batch__qualification__isnull=True
        ).exclude(assignment__annotator__in=knows)
    else:
        judgments = judgments.filter(
            assignment__annotator=attempt_of.user_id,
            assignment__comparison__batch__qualification=attempt_of.attempt,
        )
    rows = list(
        judgments.values_list(
            "assignment__annotator_id",
            "assignment__comparison_id",
            "assignment__comparison__gold__expected",
            "ranks",
            "rest_below",
            "ratings",
            "safety",
            "assignment__comparison__batch",
        )
    )
    batches = Batch.objects.select_related("project").in_bulk({row[-1] for row in rows})
    order: dict[int, list[str]] = {}
    for comparison, pk in (
        Response.objects.filter(comparison__in={row[1] for row in rows})
        .order_by("pk")
        .values_list("comparison_id", "pk")
    ):
        order.setdefault(comparison, []).append(str(pk))
    found: dict[int, Tally] = {}
    for person, comparison, expected, ranks, rest_below, ratings, safety, batch in rows:
        left_out = protocols.BELOW if rest_below else None
        given = {
            axis: [of.get(pk, left_out) for pk in order[comparison]] for axis, of in ranks.items()
        } | marks_by_place(order[comparison], ratings, safety)
        interface, protocol = batches[batch].effective_interface, batches[batch].effective_protocol
        known = {of: expected[of] for of in asked_of(interface, protocol, expected)}
        share = score(known, given, tolerances(protocol))
        if share is not None:
            before = found.get(person, Tally())
            found[person] = Tally(before.right + (share >= RIGHT), before.of + 1)
    return found


# --- Mixed into the work ----------------------------------------------------------------------------------


def instead_of(comparison: Comparison, membership: Membership, project: Project) -> Comparison:
    """`comparison`, or gold of the same batch where this person's next one is to be gold.

    Under the membership's lock. The work that was found stays free for whoever comes next. Gold is
    looked for whether or not it is due: who times the answers learns nothing from it.
    """
    if project.gold_every < 2 or knows_gold(membership):
        return comparison
    handed = _handed(membership)
    is_due = handed % project.gold_every == _place(membership, project, handed)
    unseen = _unseen(membership.user_id, avoid_harm=_avoids_harm(membership))
    of_batch = unseen.filter(batch=comparison.batch_id)
    chosen = of_batch.select_related("prompt").order_by("shuffle").first()
    Membership.objects.filter(pk=membership.pk).update(handed=F("handed") + 1)
    return chosen if is_due and chosen is not None else comparison


def ahead(membership: Membership, project: Project, n_free: int) -> int:
    """How many gold items come before this person has been handed `n_free` more comparisons of work."""
    every = project.gold_every
    if every < 2 or not n_free or knows_gold(membership):
        return 0
    batches = project.batches.filter(state=Batch.State.OPEN, qualification=None)
    available = (
        _unseen(membership.user_id, avoid_harm=_avoids_harm(membership))
        .filter(batch__in=list(batches.values_list("pk", flat=True)))
        .values("gold")
        .distinct()
        .count()
    )
    at, n, left = _handed(membership), 0, n_free
    # To the end of the block, then whole blocks of one gold and `every` - 1 others, then a rest.
    while left > 0 and n < available:
        start = at - at % every
        place = start + _place(membership, project, at)
        works = start + every - at - (place >= at)
        if left > works:
            n += place >= at
            left -= works
        else:  # gold comes only where work is left to come after it
            n += at <= place < at + left
            left = 0
        at = start + every
    return min(n, available)


def knows_gold(membership: Membership) -> bool:
    """Whether this person can see what is gold, or once could: then it would measure nothing."""
    return bool(membership.knows_gold or membership.role in Membership.SEES_GOLD)


def _handed(membership: Membership) -> int:
    """As it is now: the row at hand may have been read before another request of this person."""
    rows = Membership.objects.filter(pk=membership.pk).values_list("handed", flat=True)
    return int(rows.get())


def _unseen(user: Any, *, avoid_harm: bool) -> QuerySet[Comparison]:
    """Gold comparisons whose item this person has not been handed, in whichever batch of work."""
    handed = Exists(Assignment.objects.filter(comparison=OuterRef("pk"), annotator=user))
    at_work = Exists(Batch.objects.filter(pk=OuterRef("batch"), qualification=None))
    # One within the other, so that each is looked up by its key however much somebody has judged.
    known = Exists(Comparison.objects.filter(handed, at_work, gold=OuterRef("gold")))
    unseen = (
        Comparison.objects.filter(gold__isnull=False, gold__is_active=True, gold__is_mixed=True)
        .exclude(known)
        # Whoever wrote it knows it.
        .exclude(gold__created_by=user)
    )
    return unseen.exclude(prompt__risk=Prompt.Risk.HARMFUL) if avoid_harm else unseen


def _avoids_harm(membership: Membership) -> bool:
    return bool(membership.user.harmful_material == User.HarmfulMaterial.AVOID)


def _place(membership: Membership, project: Project, position: int) -> int:
    """Where in its block of `gold_every` this person's gold is: 0 to gold_every - 1."""
    block = position // project.gold_every
    value = f"{project.pk}:{membership.user_id}:{project.gold_every}:{block}"
    return int(salted_hmac("annotation.gold", value).hexdigest()[:8], 16) % project.gold_every


def sow(batch: Batch) -> int:
    """Put the project's gold among the comparisons of a batch of work; how many were added.

    Only items that look like the work: as many responses as its comparisons have, prompts that are
    not being judged there, and something known of what it asks.
    """
    if (
        batch.is_imported
        or batch.effective_interface not in KNOWABLE
        or batch.qualification is not None
    ):
        return 0
    with transaction.atomic():
        Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)  # Sown by one at a time.
        return _sow(batch)


def _sow(batch: Batch) -> int:
    there = set(batch.comparisons.filter(gold__isnull=False).values_list("gold_id", flat=True))
    sizes = {
        len(pks)
        for pks in _response_ids(
            batch.comparisons.filter(gold__isnull=True).values_list("pk", flat=True)[:ROWS_SEEN]
        ).values()
    }
    items = (
        GoldItem.objects.filter(project=batch.project_id, is_active=True, is_mixed=True)
        .exclude(pk__in=there)
        .exclude(prompt__comparisons__batch=batch)
    )
    alike = [item for item in items if len(item.responses) in sizes]
    return _add(
        batch,
        [
            item
            for item in alike
            if asked_of(batch.effective_interface, batch.effective_protocol, item.expected)
        ],
    )


def sow_everywhere(project: Project) -> int:
    """`sow` for every open batch: after an item was added or gold was switched on."""
    if project.gold_every < 2:
        return 0
    batches = project.batches.filter(state=Batch.State.OPEN, qualification__isnull=True)
    return sum(sow(batch) for batch in batches)


def _response_ids(comparisons: Any) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for comparison, pk in Response.objects.filter(comparison__in=list(comparisons)).values_list(
        "comparison_id", "pk"
    ):
        found.setdefault(comparison, []).append(pk)
    return found


def _add(batch: Batch, items: Sequence[GoldItem]) -> int:
    with transaction.atomic():
        comparisons = Comparison.objects.bulk_create(
            Comparison(
                batch=batch,
                prompt_id=item.prompt_id,
                gold=item,
                needed=0,
                is_free=False,
                shuffle=random.random(),  # noqa: S311 - an order, not a secret
            )
            for item in items
        )
        Response.objects.bulk_create(
            Response(comparison=comparison, text=text)
            for comparison, item in zip(comparisons, items, strict=True)
            for text in item.responses
        )
    return len(items)


# --- The qualification round ---------------------------------------------------------------------------------


def must_qualify(membership: Membership, project: Project) -> bool:
    """Whether this person must pass the qualification round before they are handed work."""
    return bool(
        project.qualification_pass > 0
        and membership.role == Membership.Role.ANNOTATOR
        and not knows_gold(membership)
        and membership.qualification in ("", Membership.Qualification.FAILED)
        and not membership.user.is_simulated
    )


def qualifying(membership: Membership, project: Project, had: Exists) -> Comparison | None:
    """The next comparison of this person's qualification round, None when there is none left."""
    if membership.qualification == Membership.Qualification.FAILED:
        return None
    left = _round_of(membership, project).exclude(had)
    return left.select_related("batch__project", "prompt").order_by("shuffle").first()


def qualifying_left(membership: Membership, project: Project, had: Exists) -> int:
    if membership.qualification == Membership.Qualification.FAILED:
        return 0
    return int(_round_of(membership, project).exclude(had).count())


def _round_of(membership: Membership, project: Project) -> QuerySet[Comparison]:
    comparisons = Comparison.objects.filter(
        batch__project=project,
        batch__qualification=membership.attempt,
        batch__state=Batch.State.OPEN,
    )
    # Nobody who asked never to be given harmful material is.
    if _avoids_harm(membership):
        return comparisons.exclude(prompt__risk=Prompt.Risk.HARMFUL)
    return comparisons


def settle(membership: Membership, project: Project) -> bool:
    """After the last answer of a round: whether it was passed. Skipped ones count as not right."""
    if membership.qualification == Membership.Qualification.FAILED:
        return False
    of = _round_of(membership, project).count()
    if not of:
        return False  # no round has been made yet: somebody has to see to it
    right = tallies(project, attempt_of=membership).get(membership.user_id, Tally()).right
    passed = bool(100 * right >= project.qualification_pass * of)
    membership.qualification = (
        Membership.Qualification.PASSED if passed else Membership.Qualification.FAILED
    )
    membership.qualification_score = {
        "right": right,
        "of": of,
        "needed": project.qualification_pass,
        "attempt": membership.attempt,
        "at": timezone.now().isoformat(),
    }
    membership.save(update_fields=["qualification", "qualification_score"])
    if project.own_membership is not None and project.own_membership.pk == membership.pk:
        project.own_membership = membership
    Event.record(
        project,
        membership.user,
        "passed qualification" if passed else "failed qualification",
        membership.user,
        right=right,
        of=of,
    )
    return passed


def open_round(project: Project, attempt: int = 1) -> Batch | None:
    """The batch of a qualification attempt, made of the items marked for it if it is not there yet."""
    with transaction.atomic():
        Project.objects.lock(project.pk)
        found = project.batches.filter(qualification=attempt).first()
        if found is not None:
            return found
        items = for_qualification(project)
        if not items:
            return None
        batch = Batch.objects.create(
            project=project,
            name="Qualification" if attempt == 1 else f"Qualification, attempt {attempt}",
            state=Batch.State.OPEN,
            opened_at=timezone.now(),
            qualification=attempt,
            overlap=1,
            interface=project.interface,
            protocol=project.protocol,
        )
        _add(batch, items)
    return batch


def let_try_again(membership: Membership, by: User) -> None:
    """Another attempt for who failed, with the same items shown anew. Saying it twice gives one."""
    with transaction.atomic():
        membership.refresh_from_db(from_queryset=Membership.objects.select_for_update())
        if membership.qualification != Membership.Qualification.FAILED:
            return
        membership.attempt += 1
        membership.qualification = Membership.Qualification.NONE
        membership.save(update_fields=["attempt", "qualification"])
        open_round(membership.project, membership.attempt)
        Event.record(
            membership.project, by, "gave another attempt", membership.user, n=membership.attempt
        )


def waive(membership: Membership, by: User, reason: str) -> None:
    """Let somebody work without the round."""
    with transaction.atomic():
        membership.qualification = Membership.Qualification.WAIVED
        membership.save(update_fields=["qualification"])
        Event.record(membership.project, by, "waived qualification", membership.user, reason=reason)


# --- Making items -----------------------------------------------------------------------------------------------


def add_items(
    project: Project, rows: Iterable[Mapping[str, Any]], by: User | None
) -> tuple[int, int]:
    """Add gold items; (how many, how many were there already). All or none: GoldError names the row.

    A row is `{"prompt": text} or {"messages": […]}` with `responses` (texts); `ranks` (`{axis: [rank
    or null]}`, or one list for every axis), `marks` (`{attribute: [mark or null]}`) and `safe` (`[true,
    false or null]`), of which the project asks for one at least; and, if wished, `why`,
    `qualification`, `mixed`.
    """
    ready = []
    for number, row in enumerate(rows, start=1):
        if number > MAX_ITEMS:
            raise GoldError(
                gettext("A file has at most %(most)s gold items: divide it.")
                % {"most": f"{MAX_ITEMS:,}"}
            )
        try:
            ready.append(_checked(project, row))
        except GoldError as problem:
            where = (
                gettext("Row %(row)s, field “%(field)s”: %(problem)s")
                if problem.field
                else gettext("Row %(row)s: %(problem)s")
            )
            told = {"row": number, "field": problem.field, "problem": problem}
            raise GoldError(where % told, problem.field) from problem
    if not ready:
        raise GoldError(gettext("There is no gold item in the file: write one object a line."))
    added = 0
    with transaction.atomic():
        source, _ = Source.objects.get_or_create(
            project=project,
            name=Source.GOLD,
            defaults={"note": "Prompts whose answer is known; never trained on.", "created_by": by},
        )
        for messages, fields in ready:
            prompt, _ = Prompt.objects.get_or_create(
                project=project,
                sha256=content_hash(messages),
                defaults={
                    "messages": messages,
                    "source": source,
                    "split": Prompt.Split.HELDOUT,
                },
            )
            _, made = GoldItem.objects.get_or_create(
                project=project, prompt=prompt, defaults={**fields, "created_by": by}
            )
            added += made
        if added:
            Event.record(project, by, "added gold items", f"{added}", n=added)
            sow_everywhere(project)
    return added, len(ready) - added


FIELDS = (
    *("prompt", "messages", "responses", "ranks", "marks", "safe"),
    *("why", "qualification", "mixed"),
)


def _checked(project: Project, row: Mapping[str, Any]) -> tuple[list[Message], dict[str, Any]]:
    if not isinstance(row, Mapping):
        raise GoldError(
            gettext(
                "This is no object. Write {…} with prompt, responses and what is known of them."
            )
        )
    if project.interface not in KNOWABLE:
        raise GoldError(gettext(NOTHING_KNOWN))
    if unknown := sorted(set(row) - set(FIELDS)):
        raise GoldError(
            gettext("There is no such field. Leave it out, or name it one of %(names)s.")
            % {"names": ", ".join(FIELDS)},
            short(unknown[0]),
        )
    messages = _checked_messages(row)
    responses = _checked_responses(row.get("responses"), protocols.RESPONSES[project.interface])
    expected = _known_order(project, row.get("ranks"), len(responses))
    expected |= _known_marks(project, row.get("marks"), row.get("safe"), len(responses))
    if score(expected, expected) is None:
        if any(protocols.is_mark(of) for of in expected) or project.interface not in ORDERED:
            raise GoldError(
                gettext("Nothing is known of it: give at least one mark or vote on safety.")
            )
        raise GoldError(
            gettext(
                "Nothing is known of it: give at least two responses different ranks, or a mark."
            )
            if project.effective_protocol.asks_per_response
            else gettext("Nothing is known of it: give at least two responses different ranks."),
            "ranks",
        )
    why = row.get("why") or ""
    if not isinstance(why, str) or len(why) > MAX_WHY:
        raise GoldError(
            gettext("Give a text of at most %(most)s characters.") % {"most": MAX_WHY}, "why"
        )
    flags = {
        name: row.get(name, default)
        for name, default in (("qualification", False), ("mixed", True))
    }
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise GoldError(
                gettext("“%(given)s” is neither true nor false. Write one of them, without quotes.")
                % {"given": short(value)},
                name,
            )
    return messages, {
        "responses": responses,
        "expected": expected,
        "why": storable(why, "\ufffd"),
        "is_qualification": flags["qualification"],
        "is_mixed": flags["mixed"],
    }


def _checked_messages(row: Mapping[str, Any]) -> list[Message]:
    """The conversation of a row, as it is stored."""
    limit = {"most": f"{MAX_TEXT:,}"}
    given = row.get("messages")
    if not given:
        if not _is_text(row.get("prompt")):
            raise GoldError(
                gettext("Give the request here as text of 1 to %(most)s characters.") % limit,
                "prompt",
            )
        given = [{"role": "user", "content": row["prompt"]}]
    if not isinstance(given, list):
        raise GoldError(gettext("Give a list of turns, the last one the user's."), "messages")
    for place, turn in enumerate(given, start=1):
        if not isinstance(turn, Mapping) or turn.get("role") not in ("system", "user", "assistant"):
            raise GoldError(
                gettext("Turn %(place)s has no role: give it “system”, “user” or “assistant”.")
                % {"place": place},
                "messages",
            )
        if not _is_text(turn.get("content")):
            raise GoldError(
                gettext("Turn %(place)s: give its content as text of 1 to %(most)s characters.")
                % {"place": place, **limit},
                "messages",
            )
    if given[-1]["role"] != "user":
        raise GoldError(
            gettext("The last turn is not the user's: the responses answer that one."), "messages"
        )
    return [
        {"role": turn["role"], "content": storable(turn["content"], "\ufffd")} for turn in given
    ]


def _checked_responses(given: Any, allowed: tuple[int, int]) -> list[str]:
    fewest, most = allowed
    if not isinstance(given, list) or not fewest <= len(given) <= most:
        told = (
            gettext("Give a list of %(most)s texts, not %(given)s.")
            if fewest == most
            else gettext("Give a list of %(fewest)s to %(most)s texts, not %(given)s.")
        )
        counted = len(given) if isinstance(given, list) else f"“{short(given)}”"
        raise GoldError(told % {"fewest": fewest, "most": most, "given": counted}, "responses")
    for place, text in enumerate(given, start=1):
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise GoldError(
                gettext("Response %(place)s: give a text of at most %(most)s characters.")
                % {"place": place, "most": f"{MAX_TEXT:,}"},
                "responses",
            )
    return [storable(text, "\ufffd") for text in given]


def _known_order(project: Project, ranks: Any, n: int) -> dict[str, list[int | None]]:
    """The known ranks per axis, checked; none under an interface that asks for no order."""
    if project.interface not in ORDERED:
        if ranks:
            raise GoldError(
                gettext("This project asks for no order. Leave it out; give marks, or safe."),
                "ranks",
            )
        return {}
    by_axis: dict[str, Any] = (
        {str(axis): of for axis, of in ranks.items()}
        if isinstance(ranks, Mapping)
        else dict.fromkeys(project.axis_keys, ranks)
        if ranks is not None
        else {}
    )
    for axis, of in by_axis.items():
        if axis not in project.axis_keys:
            raise GoldError(
                gettext("This project does not compare on “%(axis)s”. Its axes are %(names)s.")
                % {"axis": short(axis), "names": ", ".join(project.axis_keys)},
                "ranks",
            )
        field = f"ranks: {axis}" if isinstance(ranks, Mapping) else "ranks"
        _check_values(of, n, range(1, 10), field)
    return {axis: list(of) for axis, of in by_axis.items()}


def _known_marks(project: Project, marks: Any, safe: Any, n: int) -> dict[str, list[int | None]]:
    """The known marks per attribute and the known votes on safety, checked, as numbers."""
    found: dict[str, list[int | None]] = {}
    attributes = {one.key: one for one in project.effective_protocol.attributes}
    if not isinstance(marks or {}, Mapping):
        raise GoldError(
            gettext(
                "This is no object. Give for each attribute a list of one mark, or null, a response."
            ),
            "marks",
        )
    for key, of in (marks or {}).items():
        one = attributes.get(str(key))
        if one is None:
            told = gettext("This project does not ask for “%(mark)s”.") % {"mark": short(key)}
            if attributes:
                names = {"names": ", ".join(attributes)}
                told += " " + gettext("It asks for %(names)s.") % names
            raise GoldError(told, "marks")
        _check_values(of, n, one.values, f"marks: {one.key}")
        found[protocols.mark_on(one.key)] = list(of)
    if safe is not None:
        if not project.effective_protocol.safety:
            raise GoldError(
                gettext("This project asks for no vote on safety. Leave it out."), "safe"
            )
        _check_values(safe, n, None, "safe")
        found[protocols.SAFE_OR_NOT] = [None if vote is None else int(vote) for vote in safe]
    return found


def _check_values(values: Any, n: int, allowed: range | None, field: str) -> None:
    """Whether this is a list of n whole numbers that are allowed, or of truth values where `allowed`
    is None, each of which may be None; GoldError says which one is not."""
    if not isinstance(values, list) or len(values) != n:
        told = gettext(
            "Give a list of %(n)s values, one for each response (null where it is not known), not "
            "%(given)s."
        )
        counted = len(values) if isinstance(values, list) else f"“{short(values)}”"
        raise GoldError(told % {"n": n, "given": counted}, field)
    for place, value in enumerate(values, start=1):
        if value is None:
            continue
        if allowed is None:
            is_right = isinstance(value, bool)
            asked = gettext("Write true, false or null, without quotes.")
        else:
            is_right = type(value) is int and value in allowed
            asked = gettext("Give a whole number from %(low)s to %(high)s, or null.") % {
                "low": allowed[0],
                "high": allowed[-1],
            }
        if not is_right:
            said = gettext("Value %(place)s is “%(given)s”.")
            raise GoldError(said % {"place": place, "given": short(value)} + " " + asked, field)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_TEXT
