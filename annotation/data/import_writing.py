"""Items of a file, written chunk after chunk with no more than one chunk in memory.

Prompts become Prompt rows. Votes become closed batches with judgments by users who can't sign in,
one for each rater whom the file names: the same rows that the judging pages write, in bulk, with the
same counters. Responses that nobody judged wait in a closed batch, from which "New batch" takes
them. What one chunk needs to know of the earlier ones is in the database, so an import can stop after
any chunk and go on later. `Writer` is the one place besides annotation/judge/submitting.py that
writes a Judgment.
"""

import hashlib
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from django.db.models import OuterRef, Subquery
from django.utils import timezone

from annotation.data.clusters import Clusters
from annotation.data.import_formats.report import ComparisonItem, ImportReport, PromptItem
from annotation.lib.pseudonyms import keyed_hash
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Interface,
    Judgment,
    Project,
    Prompt,
    Response,
    Source,
    User,
)
from annotation.protocols import Attribute, Protocol

CHUNK = 500
# The space makes it a name that nobody can sign up with.
IMPORTED_USERNAME = "(imported)"


@dataclass
class _Place:
    """A comparison, written or about to be, with the votes that it gets from this chunk."""

    part: int
    prompt_id: int
    texts: tuple[str, ...]
    comparison: Comparison
    annotators: set[int] = field(default_factory=set)
    votes: list[tuple[uuid.UUID, ComparisonItem]] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    is_new: bool = False


class Writer:
    """Writes the items of one file; the caller holds a transaction around each `write`."""

    def __init__(self, project: Project, source: Source, *, split: str = "") -> None:
        self.project, self.source, self.split = project, source, split
        self.users: dict[str, User] = {}
        self.n_new = self.n_duplicates = 0
        self.has_ranks = self.has_safety = False

    def parts(self, *, are_judged: bool) -> list[Batch]:
        """The batches of this source, in order: each has a prompt at most once."""
        batches = Batch.objects.filter(source=self.source, is_imported=True).order_by("pk")
        return [batch for batch in batches if batch.has_imported_responses != are_judged]

    def write(self, items: Sequence[ComparisonItem]) -> None:
        """Add what the project does not have; the rest counts as duplicates."""
        prompt_ids, new = self._write_prompts(items)
        judged: dict[uuid.UUID, ComparisonItem] = {}
        unjudged = []
        for item in items:
            if item.is_judged:
                key = judgment_key(self.project, item)
                self.n_duplicates += key in judged
                judged.setdefault(key, item)
            elif item.responses:
                unjudged.append(item)
            elif item.prompt.sha256 in new:
                self.n_new += 1
                new.discard(item.prompt.sha256)
            else:
                self.n_duplicates += 1
        known = known_judgments(self.project, judged)
        self.n_duplicates += len(known)
        fresh = {key: item for key, item in judged.items() if key not in known}
        self.n_new += len(fresh)
        if fresh:
            self._write_votes(fresh, prompt_ids)
        if unjudged:
            self._write_unjudged(unjudged, prompt_ids)

    def finish(self, report: ImportReport) -> None:
        """Give the batches the marks and kinds of harm that the file turned out to have."""
        report.n_imported = self.n_new
        report.n_duplicates += self.n_duplicates
        report.batches = self.parts(are_judged=True) + self.parts(are_judged=False)
        if not report.attributes and not self.has_safety:
            return
        protocol = Protocol(
            attributes=tuple(
                Attribute(
                    key=key,
                    name=key.replace("_", " ").capitalize(),
                    low=low,
                    high=high,
                    is_required=False,
                )
                for key, (low, high) in report.attributes.items()
            ),
            safety=self.has_safety,
            harms=report.harms if self.has_safety else {},
        )
        interface = Interface.RANK if self.has_ranks else Interface.RATE
        for batch in self.parts(are_judged=True):
            batch.interface, batch.protocol = interface, protocol.as_json()
            batch.save(update_fields=["interface", "protocol"])

    # --- Prompts ---------------------------------------------------------------------------------

    def _write_prompts(self, items: Sequence[ComparisonItem]) -> tuple[dict[str, int], set[str]]:
        """Ids of all prompts of the chunk by hash, and the hashes of those that are new."""
        prompts = {item.prompt.sha256: item for item in reversed(items)}
        ids = known_prompts(self.project, list(prompts))
        new = {sha256: item for sha256, item in prompts.items() if sha256 not in ids}
        for is_judged in (True, False):
            # Judged prompts are for training; others are divided by their text's hash.
            split = self.split or ("train" if is_judged else "auto")
            chosen = [item.prompt for item in new.values() if item.is_judged == is_judged]
            ids |= write_prompts(self.project, self.source, reversed(chosen), split)
        return ids, set(new)

    # --- Votes -----------------------------------------------------------------------------------

    def _write_votes(
        self, items: Mapping[uuid.UUID, ComparisonItem], prompt_ids: Mapping[str, int]
    ) -> None:
        self._find_users({item.vote.annotator for item in items.values()})
        parts = self.parts(are_judged=True)
        ids = {prompt_ids[item.prompt.sha256] for item in items.values()}
        places = self._places(parts, ids)
        for key, item in items.items():
            prompt_id = prompt_ids[item.prompt.sha256]
            place = self._place_for(item, places[prompt_id], parts, prompt_id)
            place.votes.append((key, item))
            place.annotators.add(self.users[item.vote.annotator].pk)
            self.has_ranks |= bool(item.ranks)
            self.has_safety |= bool(item.safety)
        changed = [place for group in places.values() for place in group if place.votes]
        self._write_comparisons(changed)
        self._write_judgments(changed)

    def _places(self, parts: Sequence[Batch], prompt_ids: set[int]) -> dict[int, list[_Place]]:
        """The comparisons of these prompts that earlier chunks wrote."""
        number = {batch.pk: index for index, batch in enumerate(parts)}
        places: dict[int, list[_Place]] = defaultdict(list)
        written = Comparison.objects.filter(batch__in=number, prompt__in=prompt_ids)
        for comparison in written.prefetch_related("responses", "assignments").order_by("pk"):
            responses = sorted(comparison.responses.all(), key=lambda response: response.pk)
            places[comparison.prompt_id].append(
                _Place(
                    number[comparison.batch_id],
                    comparison.prompt_id,
                    tuple(sorted(response.text for response in responses)),
                    comparison,
                    {a.annotator_id for a in comparison.assignments.all()},
                    responses=responses,
                )
            )
        return places

    def _place_for(
        self, item: ComparisonItem, places: list[_Place], parts: list[Batch], prompt_id: int
    ) -> _Place:
        """The comparison of the same responses that this rater has not judged yet, or a new one.

        A vote without a name is a comparison of its own.
        """
        if item.vote.annotator:
            rater = self.users[item.vote.annotator].pk
            taken = {rater, self.users[""].pk} if "" in self.users else {rater}
            for place in places:
                if place.texts == item.texts and not taken & place.annotators:
                    return place
        part = next(n for n in range(len(places) + 1) if all(place.part != n for place in places))
        if part == len(parts):
            parts.append(self._new_batch(part))
        comparison = Comparison(batch=parts[part], prompt_id=prompt_id, needed=0, is_free=False)
        places.append(_Place(part, prompt_id, item.texts, comparison, is_new=True))
        return places[-1]

    def _new_batch(self, part: int, prefix: str = "") -> Batch:
        now = timezone.now()
        return Batch.objects.create(
            project=self.project,
            source=self.source,
            name=prefix + self.source.name[:90] + (f", part {part + 1}" if part else ""),
            state=Batch.State.CLOSED,
            is_imported=True,
            opened_at=now,
            closed_at=now,
        )

    def _write_comparisons(self, places: Sequence[_Place]) -> None:
        for place in places:
            n = len(place.votes)
            place.comparison.needed += n
            place.comparison.taken += n
            place.comparison.judged += n
        new = [place for place in places if place.is_new]
        Comparison.objects.bulk_create([place.comparison for place in new])
        earlier = [place.comparison for place in places if not place.is_new]
        Comparison.objects.bulk_update(earlier, ["needed", "taken", "judged"], batch_size=CHUNK)
        # Files put the better response first; stored in an order that follows from the texts alone,
        # so that nothing downstream can learn from the position.
        self._write_responses(
            [(place, sorted(place.votes[0][1].responses, key=_text_digest)) for place in new]
        )

    def _write_responses(self, rows: Sequence[tuple[_Place, Sequence[tuple[str, str]]]]) -> None:
        written = iter(
            Response.objects.bulk_create(
                Response(
                    comparison=place.comparison,
                    text=text,
                    source=(model or f"import: {self.source.name}")[:200],
                )
                for place, responses in rows
                for text, model in responses
            )
        )
        for place, responses in rows:
            place.responses = [next(written) for _ in responses]

    def _write_judgments(self, places: Sequence[_Place]) -> None:
        now = timezone.now()
        assignments, judgments = [], []
        for place in places:
            for key, item in place.votes:
                assignment = Assignment(
                    comparison=place.comparison,
                    annotator=self.users[item.vote.annotator],
                    state=Assignment.State.JUDGED,
                    shown_order=[response.pk for response in place.responses],
                    leased_at=now,
                    lease_until=now,
                )
                assignments.append(assignment)
                judgments.append(self._judgment(assignment, key, item, place.responses))
        Assignment.objects.bulk_create(assignments)
        Judgment.objects.bulk_create(judgments)
        Assignment.objects.filter(pk__in=[assignment.pk for assignment in assignments]).update(
            judgment_id=Subquery(
                Judgment.objects.filter(assignment=OuterRef("pk")).values("pk")[:1]
            )
        )

    def _judgment(
        self,
        assignment: Assignment,
        key: uuid.UUID,
        item: ComparisonItem,
        responses: Sequence[Response],
    ) -> Judgment:
        """A vote as a judgment of the stored responses; equal texts are matched in their order."""
        ids_by_text: defaultdict[str, list[int]] = defaultdict(list)
        for response in responses:
            ids_by_text[response.text].append(response.pk)
        ids = [str(ids_by_text[text].pop(0)) for text, _ in item.responses]
        return Judgment(
            assignment=assignment,
            key=key,
            answer_sha256=item.digest(),
            ranks={
                axis: {ids[i]: rank for i, rank in enumerate(ranks) if rank is not None}
                for axis, ranks in item.ranks.items()
            },
            rest_below=item.rest_below,
            strength=item.vote.strength,
            all_bad=item.vote.all_bad,
            ratings={ids[i]: marks for i, marks in enumerate(item.ratings) if marks},
            safety={ids[i]: vote for i, vote in enumerate(item.safety) if vote},
            reason=item.vote.reason,
            guideline_version=self.project.guideline_version,
        )

    def _find_users(self, annotators: Iterable[str]) -> None:
        """A user for each name in the file, who can't sign in; "" is for votes without a name.

        The name itself is not stored: it may be an e-mail address.
        """
        for annotator in annotators:
            if annotator in self.users:
                continue
            username = IMPORTED_USERNAME
            if annotator:
                identity = f"{self.project.pk}:{self.source.name}:{annotator}"
                username += " " + keyed_hash("annotation.imported", identity)[:12]
            user, created = User.objects.get_or_create(
                username=username, defaults={"is_active": False}
            )
            if created:
                user.set_unusable_password()
                user.save(update_fields=["password"])
            self.users[annotator] = user

    # --- Responses that nobody judged -----------------------------------------------------------

    def _write_unjudged(
        self, items: Sequence[ComparisonItem], prompt_ids: Mapping[str, int]
    ) -> None:
        """Comparisons that need nobody, in closed batches: "New batch" takes the responses."""
        ids = {prompt_ids[item.prompt.sha256] for item in items}
        known = known_responses(ids)
        parts = self.parts(are_judged=False)
        places = self._places(parts, ids)
        new: list[tuple[_Place, Sequence[tuple[str, str]]]] = []
        for item in items:
            prompt_id = prompt_ids[item.prompt.sha256]
            responses = [pair for pair in item.responses if pair[0] not in known[prompt_id]]
            if not responses:
                self.n_duplicates += 1
                continue
            self.n_new += 1
            known[prompt_id] |= {text for text, _ in responses}
            used = {place.part for place in places[prompt_id]}
            part = next(n for n in range(len(used) + 1) if n not in used)
            while part >= len(parts):
                parts.append(self._new_batch(len(parts), Batch.RESPONSES))
            comparison = Comparison(batch=parts[part], prompt_id=prompt_id, needed=0, is_free=False)
            place = _Place(part, prompt_id, item.texts, comparison, is_new=True)
            places[prompt_id].append(place)
            new.append((place, responses))
        Comparison.objects.bulk_create([place.comparison for place, _ in new])
        self._write_responses(new)


def judgment_key(project: Project, item: ComparisonItem) -> uuid.UUID:
    """The same vote in the same project has the same key, which nobody outside can calculate."""
    return uuid.uuid5(project.import_namespace, f"{project.pk} {item.digest()}")


def _earlier_key(project: Project, item: ComparisonItem) -> uuid.UUID:
    """Keys of imports before projects had a namespace of their own."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"import {project.pk} {item.digest()}")


def known_judgments(project: Project, items: Mapping[uuid.UUID, ComparisonItem]) -> set[uuid.UUID]:
    """The keys of those votes that this project has."""
    by_key = {key: key for key in items}
    by_key |= {_earlier_key(project, item): key for key, item in items.items()}
    keys = list(by_key)
    known: set[uuid.UUID] = set()
    for start in range(0, len(keys), CHUNK):
        stored = Judgment.objects.of_project(project).filter(key__in=keys[start : start + CHUNK])
        known.update(by_key[key] for key in stored.values_list("key", flat=True))
    return known


def known_responses(prompt_ids: Iterable[int]) -> defaultdict[int, set[str]]:
    """The imported texts of each prompt that nobody judged."""
    known: defaultdict[int, set[str]] = defaultdict(set)
    texts = Response.objects.filter(
        comparison__prompt__in=list(prompt_ids),
        comparison__batch__is_imported=True,
        comparison__judged=0,
    ).values_list("comparison__prompt_id", "text")
    for prompt_id, text in texts:
        known[prompt_id].add(text)
    return known


def known_prompts(project: Project, hashes: Sequence[str]) -> dict[str, int]:
    """Ids of the prompts that the project has, by hash."""
    known: dict[str, int] = {}
    for start in range(0, len(hashes), CHUNK):
        known.update(
            Prompt.objects.filter(
                project=project, sha256__in=hashes[start : start + CHUNK]
            ).values_list("sha256", "pk")
        )
    return known


def write_prompts(
    project: Project, source: Source, items: Iterable[PromptItem], split: str
) -> dict[str, int]:
    """Create new prompts in bulk; their ids by hash."""
    prompts = [
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
    ]
    clusters = Clusters(project, prompts)
    Prompt.objects.bulk_create(prompts, batch_size=CHUNK)
    clusters.store()
    return {prompt.sha256: prompt.pk for prompt in prompts}


def _text_digest(response: tuple[str, str]) -> bytes:
    return hashlib.sha256(response[0].encode()).digest()
