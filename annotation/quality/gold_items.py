"""Gold items from a file: its rows are checked, then added to the project and its open batches."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction
from django.utils.translation import gettext, gettext_noop

from annotation import protocols
from annotation.judge.answers import short
from annotation.judge.gold_mixing import add_gold_to_open_batches
from annotation.judge.gold_scores import KNOWABLE, ORDERED, share_right
from annotation.lib.text import storable
from annotation.models import Event, GoldItem, Message, Project, Prompt, Source, User, content_hash

MAX_ITEMS = 2_000
MAX_TEXT = 20_000
MAX_WHY = 400

NOTHING_KNOWN = gettext_noop(
    "Gold items need given responses that are ranked, compared or rated. Here people write or talk, "
    "so no right answer is known in advance."
)


class GoldError(Exception):
    """What is wrong with a gold item, in sentences for the person who wrote it.

    `field` names the part of the row, "" the whole row.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def add_gold_items(
    project: Project, rows: Iterable[Mapping[str, Any]], by: User | None
) -> tuple[int, int]:
    """Add gold items, all or none; how many were new and how many known. GoldError names the row.

    A row is `{"prompt": text} or {"messages": […]}` with `responses` (texts); `ranks` (`{axis: [rank
    or null]}`, or one list for every axis), `marks` (`{attribute: [mark or null]}`) and `safe` (`[true,
    false or null]`), at least one of which the project asks for; and optionally `why`,
    `qualification`, `mixed`.
    """
    ready = []
    for number, row in enumerate(rows, start=1):
        if number > MAX_ITEMS:
            raise GoldError(
                gettext("A file has at most %(most)s gold items: split it into parts.")
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
            values = {"row": number, "field": problem.field, "problem": problem}
            raise GoldError(where % values, problem.field) from problem
    if not ready:
        raise GoldError(gettext("The file has no gold item. Write one JSON object per line."))
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
            add_gold_to_open_batches(project)
    return added, len(ready) - added


ROLES = ("system", "user", "assistant")
FIELDS = (
    *("prompt", "messages", "responses", "ranks", "marks", "safe"),
    *("why", "qualification", "mixed"),
)


def _checked(project: Project, row: Mapping[str, Any]) -> tuple[list[Message], dict[str, Any]]:
    if not isinstance(row, Mapping):
        raise GoldError(
            gettext("Not a JSON object. Write {…} with prompt, responses and the expected answer.")
        )
    if project.interface not in KNOWABLE:
        raise GoldError(gettext(NOTHING_KNOWN))
    if unknown := sorted(set(row) - set(FIELDS)):
        raise GoldError(
            gettext("Unknown field. The fields are %(names)s.") % {"names": ", ".join(FIELDS)},
            short(unknown[0]),
        )
    messages = _checked_messages(row)
    responses = _checked_responses(row.get("responses"), protocols.RESPONSES[project.interface])
    expected = _known_order(project, row.get("ranks"), len(responses))
    expected |= _known_marks(project, row.get("marks"), row.get("safe"), len(responses))
    if share_right(expected, expected) is None:
        if (
            any(protocols.is_mark(measure) for measure in expected)
            or project.interface not in ORDERED
        ):
            raise GoldError(gettext("No expected answer: give at least one mark or safety vote."))
        raise GoldError(
            gettext("No expected answer: give at least two responses different ranks, or a mark.")
            if project.effective_protocol.asks_per_response
            else gettext("No expected answer: give at least two responses different ranks."),
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
                gettext("“%(given)s” is not true or false. Write one of the two, without quotes.")
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
    messages = row.get("messages")
    if not messages:
        if not _is_text(row.get("prompt")):
            raise GoldError(
                gettext("Give the prompt as text of 1 to %(most)s characters.") % limit,
                "prompt",
            )
        messages = [{"role": "user", "content": row["prompt"]}]
    if not isinstance(messages, list):
        raise GoldError(gettext("Give a list of messages that ends with the user's."), "messages")
    for place, message in enumerate(messages, start=1):
        if not isinstance(message, Mapping) or message.get("role") not in ROLES:
            raise GoldError(
                gettext("Message %(place)s needs a role: “system”, “user” or “assistant”.")
                % {"place": place},
                "messages",
            )
        if not _is_text(message.get("content")):
            raise GoldError(
                gettext("Message %(place)s: give its content as text of 1 to %(most)s characters.")
                % {"place": place, **limit},
                "messages",
            )
    if messages[-1]["role"] != "user":
        raise GoldError(
            gettext("The last message must be the user's: the responses answer it."), "messages"
        )
    return [
        {"role": message["role"], "content": storable(message["content"], "\ufffd")}
        for message in messages
    ]


def _checked_responses(given: Any, allowed: tuple[int, int]) -> list[str]:
    fewest, most = allowed
    if not isinstance(given, list) or not fewest <= len(given) <= most:
        message = (
            gettext("Give a list of %(most)s texts, not %(given)s.")
            if fewest == most
            else gettext("Give a list of %(fewest)s to %(most)s texts, not %(given)s.")
        )
        counted = len(given) if isinstance(given, list) else f"“{short(given)}”"
        raise GoldError(message % {"fewest": fewest, "most": most, "given": counted}, "responses")
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
                gettext("This project does not ask for ranks. Give marks or safe instead."),
                "ranks",
            )
        return {}
    by_axis: dict[str, Any] = (
        {str(axis): axis_ranks for axis, axis_ranks in ranks.items()}
        if isinstance(ranks, Mapping)
        else dict.fromkeys(axes_of_list(project), ranks)
        if ranks is not None
        else {}
    )
    for axis, axis_ranks in by_axis.items():
        if axis not in project.axis_keys:
            raise GoldError(
                gettext("This project does not compare on “%(axis)s”. Its axes are %(names)s.")
                % {"axis": short(axis), "names": ", ".join(project.axis_keys)},
                "ranks",
            )
        field = f"ranks: {axis}" if isinstance(ranks, Mapping) else "ranks"
        _check_values(axis_ranks, n, range(1, 10), field)
    return {axis: list(axis_ranks) for axis, axis_ranks in by_axis.items()}


def axes_of_list(project: Project) -> list[str]:
    """The axes that one list of ranks is about: never harm, where anything else is asked.

    That 4 is a better answer than 5 to "2 + 2" does not make it the safer one.
    """
    others = [axis for axis in project.axis_keys if axis not in protocols.SAFETY_AXES]
    return others or project.axis_keys


def _known_marks(project: Project, marks: Any, safe: Any, n: int) -> dict[str, list[int | None]]:
    """The known marks per attribute and the known safety marks, checked, as numbers."""
    known: dict[str, list[int | None]] = {}
    attributes = {attribute.key: attribute for attribute in project.effective_protocol.attributes}
    if not isinstance(marks or {}, Mapping):
        raise GoldError(
            gettext(
                "Not a JSON object. Give for each attribute a list with one mark, or null, per response."
            ),
            "marks",
        )
    for key, values in (marks or {}).items():
        attribute = attributes.get(str(key))
        if attribute is None:
            message = gettext("This project does not ask for “%(mark)s”.") % {"mark": short(key)}
            if attributes:
                names = {"names": ", ".join(attributes)}
                message += " " + gettext("It asks for %(names)s.") % names
            raise GoldError(message, "marks")
        _check_values(values, n, attribute.values, f"marks: {attribute.key}")
        known[protocols.mark_on(attribute.key)] = list(values)
    if safe is not None:
        if not project.effective_protocol.safety:
            raise GoldError(
                gettext("This project does not ask for safety votes. Leave the field out."), "safe"
            )
        _check_values(safe, n, None, "safe")
        known[protocols.SAFE_OR_NOT] = [None if vote is None else int(vote) for vote in safe]
    return known


def _check_values(values: Any, n: int, allowed: range | None, field: str) -> None:
    """Raise GoldError unless this is a list of n allowed whole numbers, each of which may be None.

    With `allowed` None it is a list of truth values.
    """
    if not isinstance(values, list) or len(values) != n:
        message = gettext(
            "Give a list of %(n)s values, one for each response (null where it is not known), not "
            "%(given)s."
        )
        counted = len(values) if isinstance(values, list) else f"“{short(values)}”"
        raise GoldError(message % {"n": n, "given": counted}, field)
    for place, value in enumerate(values, start=1):
        if value is None:
            continue
        if allowed is None:
            is_allowed = isinstance(value, bool)
            advice = gettext("Write true, false or null, without quotes.")
        else:
            is_allowed = type(value) is int and value in allowed
            advice = gettext("Give a whole number from %(low)s to %(high)s, or null.") % {
                "low": allowed[0],
                "high": allowed[-1],
            }
        if not is_allowed:
            message = gettext("Value %(place)s is “%(given)s”.")
            message %= {"place": place, "given": short(value)}
            raise GoldError(message + " " + advice, field)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_TEXT
