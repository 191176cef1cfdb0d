"""Prompts and comparisons written from files that other people made: all of a file, or nothing of it.

annotation/data/import_formats/ reads and checks; this module writes, in one transaction, when nothing
is wrong. Imported comparisons become a closed batch with judgments by the user `(imported)`, or by
one such user for each annotator whom the file names: the same rows that the judging pages write, in
bulk, with the same counters. `_write_comparisons` is the one place besides
annotation/judge/submitting.py that writes a Judgment.
"""

import hashlib
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from django.db import transaction
from django.db.models import OuterRef, Subquery
from django.utils import timezone
from django.utils.crypto import salted_hmac

from annotation.data.import_formats.read_file import read_comparisons, read_prompts
from annotation.data.import_formats.report import ComparisonItem, ImportReport, PromptItem
from annotation.data.sources import check_source, create_source
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Judgment,
    Project,
    Prompt,
    Response,
    Source,
    User,
)

CHUNK = 500
# The space makes it a name that nobody can sign up with.
IMPORTED_USERNAME = "(imported)"

KeyedVote = tuple[uuid.UUID, ComparisonItem]
# One comparison: the votes of different annotators on the same responses to the same prompt.
Votes = list[KeyedVote]


def import_prompts(
    project: Project,
    file: Path | BinaryIO,
    *,
    format: str = "auto",
    source: Mapping[str, str],
    by: User | None,
    sign_off: bool = False,
    split: str = "auto",
) -> ImportReport:
    """Write every prompt of the file to the project, or none and a report that says why.

    `source` has `name`, `licence`, `url`. `split` "auto" goes by each text's hash (80 % train, 5 %
    watch, 15 % held out) unless the row names one. A prompt that the project already has stays as
    it is, in its split, and counts as a duplicate.
    """
    started = time.monotonic()
    items, report = read_prompts(file, format=format)
    check_source(source, report, sign_off=sign_off)
    if report.ok:
        with transaction.atomic():
            Project.objects.lock(project.pk)  # two imports of one file can't both be first
            known = known_prompts(project, [item.sha256 for item in items])
            new = [item for item in items if item.sha256 not in known]
            report.n_duplicates += len(items) - len(new)
            report.n_imported = len(new)
            if new:
                report.source = create_source(
                    project, source, by=by, sign_off=sign_off, report=report
                )
                write_prompts(project, report.source, new, split)
                _record_import(project, by, "imported prompts", report)
    report.seconds = time.monotonic() - started
    return report


def import_comparisons(
    project: Project,
    file: Path | BinaryIO,
    *,
    axis: str,
    format: str = "auto",
    source: Mapping[str, str],
    by: User | None,
    sign_off: bool = False,
    split: str = "train",
) -> ImportReport:
    """Write every comparison of the file, with its judgments, as a closed batch; or none.

    Votes of several annotators on the same responses are judgments of one comparison. A judgment's idempotency key follows from its content, so that a file imported twice adds
    nothing. A batch has each prompt once: where a file compares a prompt's responses again, the
    later comparisons go to a second batch ("part 2"), and so on. `split` is where prompts that are
    new to the project go: "train", or "auto" for a share held out by the text's hash.
    """
    started = time.monotonic()
    items, report = read_comparisons(file, axis=axis, axes=project.axis_keys, format=format)
    check_source(source, report, sign_off=sign_off)
    if report.ok:
        with transaction.atomic():
            Project.objects.lock(project.pk)  # two imports of one file can't both be first
            items_by_key = {_judgment_key(project, item): item for item in items}
            known = _known_judgments(list(items_by_key))
            new = {key: item for key, item in items_by_key.items() if key not in known}
            report.n_duplicates += len(items_by_key) - len(new)
            report.n_imported = len(new)
            if new:
                report.source = create_source(
                    project, source, by=by, sign_off=sign_off, report=report
                )
                report.batches = _write_comparisons(project, report.source, new, split)
                _record_import(project, by, "imported comparisons", report)
    report.seconds = time.monotonic() - started
    return report


def _record_import(project: Project, by: User | None, verb: str, report: ImportReport) -> None:
    source = report.source
    assert source is not None
    Event.record(
        project, by, verb, source.name, source=source.pk, n=report.n_imported, sha256=report.sha256
    )
    if source.is_signed_off:
        Event.record(project, by, "signed off source", source.name, source=source.pk)


def _chunks(items: Sequence[Any], size: int = CHUNK) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def known_prompts(project: Project, hashes: Sequence[str]) -> dict[str, int]:
    """Ids of the prompts that the project has, by hash."""
    known: dict[str, int] = {}
    for chunk in _chunks(hashes):
        known.update(
            Prompt.objects.filter(project=project, sha256__in=chunk).values_list("sha256", "pk")
        )
    return known


def _known_judgments(keys: Sequence[uuid.UUID]) -> set[uuid.UUID]:
    known: set[uuid.UUID] = set()
    for chunk in _chunks(keys):
        known.update(Judgment.objects.filter(key__in=chunk).values_list("key", flat=True))
    return known


def _judgment_key(project: Project, item: ComparisonItem) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_OID, f"import {project.pk} {item.digest()}")


def write_prompts(
    project: Project, source: Source, items: Iterable[PromptItem], split: str
) -> dict[str, int]:
    """Create new prompts in bulk; their ids by hash."""
    prompts = Prompt.objects.bulk_create(
        [
            Prompt(
                project=project,
                source=source,
                messages=item.messages,
                sha256=item.sha256,  # bulk_create skips save(), which would set it
                category=item.category,
                risk=item.risk,
                split=item.split or (Prompt.split_for(item.sha256) if split == "auto" else split),
                external_id=item.external_id,
                skill=item.skill,
                priority=item.priority,
            )
            for item in items
        ],
        batch_size=CHUNK,
    )
    return {prompt.sha256: prompt.pk for prompt in prompts}


def _write_comparisons(
    project: Project, source: Source, items: Mapping[uuid.UUID, ComparisonItem], split: str
) -> list[Batch]:
    """Batches, comparisons, responses, assignments and judgments in bulk, as judging leaves them."""
    prompts = {item.prompt.sha256: item.prompt for item in items.values()}
    prompt_ids = known_prompts(project, list(prompts))
    new = [prompt for sha256, prompt in prompts.items() if sha256 not in prompt_ids]
    prompt_ids |= write_prompts(project, source, new, split)
    users = _imported_users(project, source, {item.vote.annotator for item in items.values()})
    batches = []
    for number, part in enumerate(_parts(_comparisons(items)), start=1):
        now = timezone.now()
        batch = Batch.objects.create(
            project=project,
            source=source,
            name=source.name[:100] + (f", part {number}" if number > 1 else ""),
            state=Batch.State.CLOSED,
            is_imported=True,
            opened_at=now,
            closed_at=now,
        )
        for chunk in _chunks(part):
            _write_judged(project, source, batch, users, prompt_ids, chunk)
        Assignment.objects.filter(comparison__batch=batch).update(
            judgment_id=Subquery(
                Judgment.objects.filter(assignment=OuterRef("pk")).values("pk")[:1]
            )
        )
        batches.append(batch)
    return batches


def _comparisons(items: Mapping[uuid.UUID, ComparisonItem]) -> list[Votes]:
    """The votes, those of different annotators on the same responses together.

    A vote without an annotator is a comparison of its own, and so is a second vote of one annotator.
    """
    comparisons: list[Votes] = []
    n_earlier: Counter[tuple[str, tuple[str, ...], str]] = Counter()
    with_same_responses: defaultdict[tuple[str, tuple[str, ...]], list[Votes]] = defaultdict(list)
    for key, item in items.items():
        if not item.vote.annotator:
            comparisons.append([(key, item)])
            continue
        responses = (item.prompt.sha256, item.texts)
        # The annotator's first vote goes to the first comparison, the second one to the second.
        place = n_earlier[*responses, item.vote.annotator]
        n_earlier[*responses, item.vote.annotator] += 1
        same = with_same_responses[responses]
        if place == len(same):
            same.append([])
            comparisons.append(same[-1])
        same[place].append((key, item))
    return comparisons


def _parts(comparisons: list[Votes]) -> list[list[Votes]]:
    """The comparisons in as few parts as possible, each with every prompt at most once."""
    n_seen: Counter[str] = Counter()
    parts: list[list[Votes]] = []
    for votes in comparisons:
        prompt = votes[0][1].prompt.sha256
        part = n_seen[prompt]
        n_seen[prompt] += 1
        if part == len(parts):
            parts.append([])
        parts[part].append(votes)
    return parts


def _imported_users(project: Project, source: Source, annotators: Iterable[str]) -> dict[str, User]:
    """A user for each name in the file, who can't sign in; "" is for votes without a name.

    The name itself is not stored: it may be an e-mail address.
    """
    users = {}
    for annotator in annotators:
        username = IMPORTED_USERNAME
        if annotator:
            identity = f"{project.pk}:{source.name}:{annotator}"
            username += " " + salted_hmac("annotation.imported", identity).hexdigest()[:12]
        user, created = User.objects.get_or_create(username=username, defaults={"is_active": False})
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        users[annotator] = user
    return users


def _write_judged(
    project: Project,
    source: Source,
    batch: Batch,
    users: Mapping[str, User],
    prompt_ids: Mapping[str, int],
    comparisons: Sequence[Votes],
) -> None:
    rows = Comparison.objects.bulk_create(
        Comparison(
            batch=batch,
            prompt_id=prompt_ids[votes[0][1].prompt.sha256],
            needed=len(votes),
            taken=len(votes),
            judged=len(votes),
            is_free=False,
        )
        for votes in comparisons
    )
    # Files put the better response first; stored in an order that follows from the texts alone, so
    # that nothing downstream can learn from the position.
    responses = Response.objects.bulk_create(
        Response(
            comparison=comparison,
            text=text,
            source=(model or f"import: {source.name}")[:200],
        )
        for comparison, votes in zip(rows, comparisons, strict=True)
        for text, model in sorted(votes[0][1].responses, key=_text_digest)
    )
    pending = iter(responses)
    now = timezone.now()
    assignments, judgments = [], []
    for comparison, votes in zip(rows, comparisons, strict=True):
        shown = [next(pending) for _ in votes[0][1].responses]
        for key, item in votes:
            assignment = Assignment(
                comparison=comparison,
                annotator=users[item.vote.annotator],
                state=Assignment.State.JUDGED,
                shown_order=[response.pk for response in shown],
                leased_at=now,
                lease_until=now,
            )
            assignments.append(assignment)
            judgments.append(_judgment(project, assignment, key, item, shown))
    Assignment.objects.bulk_create(assignments)
    Judgment.objects.bulk_create(judgments)


def _text_digest(response: tuple[str, str]) -> bytes:
    return hashlib.sha256(response[0].encode()).digest()


def _judgment(
    project: Project,
    assignment: Assignment,
    key: uuid.UUID,
    item: ComparisonItem,
    responses: Sequence[Response],
) -> Judgment:
    """A vote as a judgment of the stored responses; equal texts are matched in their order."""
    ids_by_text: defaultdict[str, list[int]] = defaultdict(list)
    for response in responses:
        ids_by_text[response.text].append(response.pk)
    ids = [ids_by_text[text].pop(0) for text, _ in item.responses]
    return Judgment(
        assignment=assignment,
        key=key,
        answer_sha256=item.digest(),
        ranks={
            axis: {str(ids[i]): rank for i, rank in enumerate(ranks) if rank is not None}
            for axis, ranks in item.ranks.items()
        },
        rest_below=item.rest_below,
        strength=item.vote.strength,
        all_bad=item.vote.all_bad,
        reason=item.vote.reason,
        guideline_version=project.guideline_version,
    )
