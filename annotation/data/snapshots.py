"""Freeze the preferences of a project: files that never change, their hashes, and a dataset card.

A snapshot is a folder that `datasets.load_dataset` opens as it is. It is written beside its place
and renamed in the transaction that makes its row, so there is never a row without its files.
"""

import hashlib
import io
import json
import re
import shutil
import time
import uuid
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Count, Max
from django.utils import timezone

from annotation.data import preferences
from annotation.data.exports import (
    DEMONSTRATION_SCHEMA,
    EXPORT_FORMATS,
    MARGIN_SCHEMA,
    PAIR_SCHEMA,
    Row,
    judgment_schema,
    rating_schema,
)
from annotation.data.ratings_and_demonstrations import Statement, attributes_of, statements
from annotation.data.read_snapshot import one_moment
from annotation.models import Batch, Event, Project, Snapshot, Source
from annotation.protocols import (
    COMPARING,
    DEMONSTRATE,
    DIALOGUE,
    PAIR,
    RANK,
    RATE,
    REWRITE,
    SAFE_OR_NOT,
    WRITING,
    Protocol,
    called,
    is_mark,
)
from annotation.statistics.agreement import Gatherer

CARD, SUMS, JUDGMENTS = "README.md", "SHA256SUMS", "preferences"
RATINGS, DEMONSTRATIONS = "ratings", "demonstrations"
TOLD_EVERY = 500
ABANDONED_SECONDS = 86_400
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What the Hub's card knows by these names; anything else is "other" there, and named in the text.
HUB_LICENCES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-sa-3.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "bsd-3-clause", "unlicense",
}  # fmt: skip


class SnapshotError(Exception):
    """Nothing could be frozen or found; the message is one sentence for the person who asked."""


@dataclass
class Tally:
    """What is counted while the rows go by; ids and counts, no texts."""

    judgments: int = 0
    prompts: set[str] = field(default_factory=set)
    responses: int = 0
    annotators: Counter[str] = field(default_factory=Counter)
    batches: Counter[int] = field(default_factory=Counter)
    sources: Counter[int] = field(default_factory=Counter)
    sources_of: defaultdict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    pairs: Counter[str] = field(default_factory=Counter)
    ties: Counter[str] = field(default_factory=Counter)
    statements: Counter[str] = field(default_factory=Counter)
    others: int = 0
    """Judgments that rate or write and prefer nothing."""

    def state(self, said: Statement) -> None:
        """A rating or a demonstration; a judgment counts once, whether it ranks as well or not."""
        self.statements[said.file] += 1
        self.prompts.add(said.row["prompt_id"])
        if said.counts:
            self.others += 1
            self._of(said.origin, said.row)

    def add(self, origin: preferences.Origin, row: Row) -> None:
        self.judgments += 1
        self.prompts.add(row["prompt_id"])
        self.responses += len(row["responses"])
        self._of(origin, row)

    def _of(self, origin: preferences.Origin, row: Row) -> None:
        self.annotators[row["annotator"]] += 1
        self.batches[origin.batch] += 1
        self.sources.update(origin.sources)
        self.sources_of[origin.batch] |= origin.sources

    def people(self, kind: str) -> int:
        return sum(name.startswith(f"{kind}-") for name in self.annotators)


def freeze_snapshot(
    project: Project,
    *,
    by: Any,
    batches: Iterable[Batch] | None = None,
    note: str = "",
    rounds: Mapping[int, Any] | None = None,
    told: Callable[[int], None] = lambda n: None,
) -> Snapshot:
    """Write the judgments that training may see to SNAPSHOTS_DIR/<uid>/ and record the snapshot.

    All of it is as it was at one moment. `told` hears now and then how many judgments are written,
    and must not write to the database with this thread's connection. Raises SnapshotError, with
    nothing written, when there is nothing to freeze.
    """
    batches = None if batches is None else list(batches)
    uid = uuid.uuid4()
    place = Path(settings.SNAPSHOTS_DIR) / str(uid)
    partial = place.with_name(f".partial-{uid}")
    _clear_away(place.parent)
    partial.mkdir(parents=True)
    try:
        tally, gatherer = Tally(), Gatherer()
        with one_moment():
            counts = preferences.counts(project, batches=batches)
            if not counts["used"]:
                raise SnapshotError(_why_empty(counts))
            _write_rows(project, partial, tally, gatherer, batches, rounds, told)
            facts = _facts(project, tally, counts, batches, note)
        agreement = gatherer.result()
        # Two people may freeze at the same moment: the one who comes second takes the next version.
        for _ in range(10):
            latest = project.snapshots.aggregate(latest=Max("version"))["latest"]
            snapshot = Snapshot(
                uid=uid,
                project=project,
                version=(latest or 0) + 1,
                note=note[:200],
                agreement=agreement,
                created_by=by,
                created_at=timezone.now(),
                **facts,
            )
            _write_card(snapshot, partial, tally)
            try:
                with transaction.atomic():
                    snapshot.save(force_insert=True)
                    Event.record(
                        project,
                        by,
                        "froze data",
                        f"version {snapshot.version}",
                        snapshot=snapshot.pk,
                        sha256=snapshot.sha256,
                    )
                    partial.rename(place)
            except IntegrityError:
                continue
            return snapshot
        raise SnapshotError("Other people are freezing this project too; try again in a moment.")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _clear_away(folder: Path) -> None:
    """What was being written when a server was killed, a day ago or more."""
    for left in folder.glob(".partial-*"):
        if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def snapshot_file(snapshot: Snapshot, name: str) -> Path:
    """Where one file of a snapshot lies; SnapshotError for any name that it does not list."""
    known = {file["name"] for file in snapshot.files}
    path = Path(settings.SNAPSHOTS_DIR) / str(snapshot.uid) / name
    if name not in known or not FILE_NAME.fullmatch(name):
        raise SnapshotError(f"Version {snapshot.version} has no such file.")
    if not path.is_file():
        raise SnapshotError(f"{name} of version {snapshot.version} is missing from the disk.")
    return path


def archive(snapshot: Snapshot) -> Iterator[bytes]:
    """Every file in one zip, a piece at a time: a folder that `load_dataset` opens.

    Parquet is packed already and stored as it is. Times are the snapshot's, so
    the same version gives the same bytes.
    """
    when = snapshot.created_at.timetuple()[:6]
    pieces = _Pieces()
    with zipfile.ZipFile(pieces, "w") as packed:
        for file in snapshot.files:
            path = snapshot_file(snapshot, file["name"])
            info = zipfile.ZipInfo(file["name"], when)
            is_packed = path.suffix == ".parquet"
            info.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            info.file_size = file["bytes"]
            with path.open("rb") as source, packed.open(info, "w") as target:
                while chunk := source.read(2**16):
                    target.write(chunk)
                    yield pieces.take()
    yield pieces.take()


class _Pieces(io.RawIOBase):
    """What zipfile writes to: cannot seek, keeps what has not been sent yet."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting += data
        return len(data)

    def take(self) -> bytes:
        piece = bytes(self._waiting)
        self._waiting.clear()
        return piece


def damaged_files(snapshot: Snapshot) -> list[str]:
    """Names of files that are missing or whose bytes no longer have the recorded hash."""
    damaged = []
    for file in snapshot.files:
        path = Path(settings.SNAPSHOTS_DIR) / str(snapshot.uid) / file["name"]
        if not path.is_file() or _sha256(path) != file["sha256"]:
            damaged.append(file["name"])
    return damaged


def pair_file(axis: str) -> str:
    """The name, without ending, of the file of one axis' pairs."""
    return f"pairs-{re.sub(r'[^A-Za-z0-9_-]', '_', axis)}"


def _write_rows(
    project: Project,
    folder: Path,
    tally: Tally,
    gatherer: Gatherer,
    batches: list[Batch] | None,
    rounds: Mapping[int, Any] | None,
    told: Callable[[int], None],
) -> None:
    """Fill every file: one pass over what prefers, then one over what rates and writes."""
    schema = judgment_schema(project.axis_keys)
    with ExitStack() as stack:

        def writers(name: str, schema: Any) -> list[Any]:
            return [
                stack.enter_context(make(folder / f"{name}.{ending}", schema))
                for ending, make in EXPORT_FORMATS.items()
            ]

        raw = writers(JUDGMENTS, schema)
        margins = preferences.has_strength(project, batches=batches)
        pair_schema = MARGIN_SCHEMA if margins else PAIR_SCHEMA
        by_axis = {axis: writers(pair_file(axis), pair_schema) for axis in project.axis_keys}
        for origin, row in preferences.rows_with_origins(
            project, batches=batches, rounds=rounds, adjudicated=False
        ):
            row["round"] = "" if row["round"] is None else str(row["round"])
            # Agreement is that of the annotators, what a reviewer decided afterwards included.
            if not origin.is_ruling:
                gatherer.add(row)
            if origin.is_overruled:
                continue
            tally.add(origin, row)
            if tally.judgments % TOLD_EVERY == 0:
                told(tally.judgments)
            for writer in raw:
                writer.write(row)
            for axis, axis_writers in by_axis.items():
                for pair in preferences.pairs([row], axis, margins=margins):
                    tally.pairs[axis] += 1
                    for writer in axis_writers:
                        writer.write(pair)
                tally.ties[axis] += preferences.n_ties(row, axis)
        files = {
            RATINGS: writers(RATINGS, rating_schema(attributes_of(project))),
            DEMONSTRATIONS: writers(DEMONSTRATIONS, DEMONSTRATION_SCHEMA),
        }
        for said in statements(project, batches=batches, rounds=rounds, adjudicated=False):
            if said.file == RATINGS and not said.origin.is_ruling:
                gatherer.add(said.row)
            if said.origin.is_overruled:
                continue
            said.row["round"] = "" if said.row["round"] is None else str(said.row["round"])
            tally.state(said)
            if sum(tally.statements.values()) % TOLD_EVERY == 0:
                told(tally.judgments + tally.others)
            for writer in files[said.file]:
                writer.write(said.row)
    if not tally.judgments + tally.others:
        raise SnapshotError("None of the judgments ranks, rates or writes anything.")
    unused = [file for file in files if not tally.statements[file]]
    for file in unused if tally.judgments else [*unused, JUDGMENTS]:
        for ending in EXPORT_FORMATS:
            (folder / f"{file}.{ending}").unlink()
    for axis in project.axis_keys:
        if not tally.pairs[axis]:  # an empty file would only make a loader stumble
            for ending in EXPORT_FORMATS:
                (folder / f"{pair_file(axis)}.{ending}").unlink()


def _facts(
    project: Project,
    tally: Tally,
    counts: dict[str, int],
    batches: list[Batch] | None,
    note: str,
) -> dict[str, Any]:
    """The snapshot's columns that follow from what was counted."""
    used = Batch.objects.in_bulk(list(tally.batches))
    sources = Source.objects.in_bulk(list(tally.sources))
    left_out = {
        name: counts[name] for name in ("heldout", "not_signed_off", "excluded", "overruled")
    }
    return {
        "query": {
            "batches": [
                {
                    "id": pk,
                    "name": used[pk].name,
                    "is_imported": used[pk].is_imported,
                    "interface": used[pk].face,
                    "protocol": used[pk].rules.as_json(),
                    "n_judgments": n,
                    "sources": sorted(tally.sources_of[pk]),
                }
                for pk, n in sorted(tally.batches.items())
            ],
            "all_batches": batches is None,
            "split": "train",
            "ties": "drop",
        },
        "counts": {
            "judgments": tally.judgments,
            "ratings": tally.statements[RATINGS],
            "demonstrations": tally.statements[DEMONSTRATIONS],
            "prompts": len(tally.prompts),
            "pairs": {axis: tally.pairs[axis] for axis in project.axis_keys},
            "ties": {axis: tally.ties[axis] for axis in project.axis_keys},
            "annotators": tally.people("annotator"),
            "simulated_annotators": tally.people("simulated"),
            "imported_annotators": tally.people("imported"),
            "reviewers": tally.people("reviewer"),
            "rulings": _of_kind(tally, "reviewer"),
            "judgments_simulated": _of_kind(tally, "simulated"),
            "judgments_imported": _of_kind(tally, "imported"),
            "guidelines": _guidelines(project, batches),
            "responses_per_judgment": round(tally.responses / max(1, tally.judgments), 2),
            "left_out": left_out,
        },
        "licences": [
            {
                "id": pk,
                "source": sources[pk].name,
                "licence": sources[pk].licence,
                "url": sources[pk].url,
                "n_judgments": n,
            }
            for pk, n in sorted(tally.sources.items())
        ],
    }


def _guidelines(project: Project, batches: list[Batch] | None) -> dict[str, int]:
    """How many of the judgments made here were made under each version of the guidelines."""
    made = preferences.trainable(preferences.judgments_of(project, batches=batches)).filter(
        assignment__comparison__batch__is_imported=False
    )
    versions = made.values_list("guideline_version").annotate(n=Count("pk"))
    return {str(version): n for version, n in versions.order_by("guideline_version")}


def _of_kind(tally: Tally, kind: str) -> int:
    return sum(n for name, n in tally.annotators.items() if name.startswith(f"{kind}-"))


def _write_card(snapshot: Snapshot, folder: Path, tally: Tally) -> None:
    """README.md and SHA256SUMS, and on the row: the files with their hashes and the whole's hash."""
    snapshot.card = dataset_card(snapshot)
    (folder / CARD).write_text(snapshot.card, encoding="utf-8")
    (folder / SUMS).unlink(missing_ok=True)
    rows = {JUDGMENTS: tally.judgments}
    rows |= {pair_file(axis): n for axis, n in tally.pairs.items()} | dict(tally.statements)
    files = [
        {
            "name": path.name,
            "bytes": path.stat().st_size,
            "rows": rows.get(path.stem),
            "sha256": _sha256(path),
        }
        for path in sorted(folder.iterdir())
    ]
    sums = "".join(f"{file['sha256']}  {file['name']}\n" for file in files).encode()
    (folder / SUMS).write_bytes(sums)
    snapshot.sha256 = hashlib.sha256(sums).hexdigest()
    snapshot.files = [
        *files,
        {"name": SUMS, "bytes": len(sums), "rows": None, "sha256": snapshot.sha256},
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _why_empty(counts: dict[str, int]) -> str:
    """One sentence: why there is nothing to freeze, and what would change that."""
    reasons = []
    if counts["not_signed_off"]:
        reasons.append(f"{counts['not_signed_off']} are from sources that nobody has signed off")
    if counts["heldout"]:
        reasons.append(f"{counts['heldout']} are about held-out or watch prompts")
    if counts["excluded"]:
        reasons.append(f"{counts['excluded']} were excluded")
    if not reasons:
        return (
            "There are no judgments yet, so there is nothing to freeze; rank some responses first."
        )
    return f"There is nothing that training may see: of the judgments, {' and '.join(reasons)}."


# --- The dataset card -----------------------------------------------------------------------------


def dataset_card(snapshot: Snapshot) -> str:
    """The card in the Hub's form: front matter that `load_dataset` reads, then prose for people."""
    return "\n".join(
        [*_front_matter(snapshot), "", *_prose(snapshot), *_licence_table(snapshot), ""]
    )


def _front_matter(snapshot: Snapshot) -> list[str]:
    counts = snapshot.counts
    licences = {entry["licence"].lower() for entry in snapshot.licences}
    licence = licences.pop() if len(licences) == 1 else "other"
    lines = [
        "---",
        f"pretty_name: {json.dumps(_one_line(str(snapshot.project.name)), ensure_ascii=False)}",
        f"license: {licence if licence in HUB_LICENCES else 'other'}",
        "task_categories:",
        "- text-generation",
        "tags:",
        "- preference",
        "- rlhf",
        "- trl",
        f"size_categories:\n- {_size_category(counts['judgments'])}",
        "configs:",
    ]
    default = True
    for name, n in [
        *((pair_file(axis), n) for axis, n in counts["pairs"].items()),
        (JUDGMENTS, counts["judgments"]),
        (RATINGS, counts.get("ratings")),
        (DEMONSTRATIONS, counts.get("demonstrations")),
    ]:
        if not n:
            continue
        lines.append(f"- config_name: {config_name(name)}")
        if default:
            lines.append("  default: true")
        lines += ["  data_files:", "  - split: train", f"    path: {name}.parquet"]
        default = False
    return [*lines, "---"]


def config_name(file_name: str) -> str:
    """What `load_dataset` calls a file: its axis, or `judgments`."""
    return "judgments" if file_name == JUDGMENTS else file_name.removeprefix("pairs-")


def _prose(snapshot: Snapshot) -> list[str]:
    counts, project = snapshot.counts, snapshot.project
    left_out = counts["left_out"]
    people, simulated = counts["annotators"], counts["simulated_annotators"]
    made_by = []
    if people:
        made_by.append("one person" if people == 1 else f"{people} people")
    if simulated:
        made_by.append(
            f"**{simulated} simulated {'annotator' if simulated == 1 else 'annotators'}** "
            f"(programs that play a person; {counts['judgments_simulated']} judgments, "
            "`annotator` starts with `simulated-`)"
        )
    if counts["judgments_imported"]:
        made_by.append(
            f"an import from files made elsewhere ({counts['judgments_imported']} judgments, "
            "`annotator` starts with `imported-`)"
        )
    lines = [
        f"# {_one_line(str(project.name))}, version {snapshot.version}",
        "",
        _one_line(snapshot.note) or "Human preferences between responses of language models.",
        "",
        (
            f"Frozen {snapshot.created_at:%Y-%m-%d %H:%M} UTC. The files never change; "
            "`sha256sum -c SHA256SUMS` checks them."
        ),
        "",
        "## What is in it",
        "",
        f"{_amounts(counts)}, made by {', '.join(made_by)}.",
        "",
        "| part | rows | what a row is |",
        "|---|---|---|",
    ]
    for axis, n in counts["pairs"].items():
        ties = counts["ties"][axis]
        what = f"a pair of responses ranked on {axis}, in TRL's conversational preference format"
        lines.append(f"| `{config_name(pair_file(axis))}` | {n} | {what} ({ties} ties left out) |")
    what = "one person's ranking of all responses of a prompt, on every axis"
    lines += [
        *([f"| `judgments` | {counts['judgments']} | {what} |"] if counts["judgments"] else []),
        *_statement_lines(counts),
        "",
        (
            "Ranks are one per response: 1 is best, equal numbers are ties, `null` was not ranked. "
            "`annotator` is an opaque name, the same for one person throughout the project."
        ),
        "",
        (
            "Left out: "
            f"{left_out['heldout']} judgments of held-out and watch prompts (never exported for "
            f"training), {left_out['not_signed_off']} from sources that nobody signed off, "
            f"{left_out['excluded']} that were excluded, "
            f"{left_out.get('overruled', 0)} where a reviewer's ruling counts instead."
        ),
        "",
        "## How it was collected",
        "",
        *_protocol(snapshot),
        "",
        *(f"- **{_one_line(a['name'])}**: {_one_line(a['question'])}" for a in project.axes),
        "",
        (
            f"{_under_guidelines(counts)}Prompts belong to one split for ever; only the train split "
            "is here."
        ),
        "",
        "## Agreement",
        "",
    ]
    for axis, figures in snapshot.agreement.items():
        lines.append(f"- **{called(axis)}**: {agreement_sentence(axis, figures)}")
    return [*lines, ""]


def _under_guidelines(counts: dict[str, Any]) -> str:
    """Which guidelines people had: a judgment notes the version that it was made under."""
    versions = counts.get("guidelines") or {}
    if not versions:
        return ""
    if len(versions) == 1:
        return f"Guidelines: version {next(iter(versions))}. "
    told = ", ".join(f"{version} ({n} judgments)" for version, n in versions.items())
    return f"Guidelines: versions {told}. "


def _amounts(counts: dict[str, Any]) -> str:
    if counts["judgments"]:
        return (
            f"{counts['judgments']} judgments of {counts['prompts']} prompts, on average "
            f"{counts['responses_per_judgment']:g} responses each"
        )
    parts = []
    if counts["ratings"]:
        parts.append(f"{counts['ratings']} ratings of responses")
    if counts["demonstrations"]:
        parts.append(f"{counts['demonstrations']} written answers")
    return f"{' and '.join(parts)} to {counts['prompts']} prompts"


def _statement_lines(counts: dict[str, Any]) -> list[str]:
    lines = []
    if n := counts.get("ratings"):
        what = "one response as one person rated it: marks, safe or not, kinds of harm"
        lines.append(f"| `ratings` | {n} | {what} |")
    if n := counts.get("demonstrations"):
        what = "an answer that a person wrote, or corrected from a response (`based_on`)"
        lines.append(f"| `demonstrations` | {n} | {what} |")
    return lines


def _protocol(snapshot: Snapshot) -> list[str]:
    """How the judgments were made, of those made here and of those made elsewhere."""
    counts, told = snapshot.counts, []
    if counts["annotators"] or counts["simulated_annotators"]:
        told.append(
            "Annotators saw a conversation and its responses side by side, in an order shuffled "
            "for each of them, without a hint of which model wrote what."
        )
        asked = {
            (batch["interface"], json.dumps(batch["protocol"], sort_keys=True)): batch
            for batch in snapshot.query["batches"]
            if not batch["is_imported"]
        }
        told += [
            _asked(batch["interface"], Protocol.from_json(batch["protocol"]))
            for batch in asked.values()
        ]
    if counts["judgments_imported"]:
        told.append(
            "Imported judgments were made elsewhere; their sources say how. A file that only "
            "named the better of two answers gives ranks 1 and 2."
        )
    return [" ".join(told), "", "The axes:"]


def _asked(interface: str, rules: Protocol) -> str:
    """What one protocol asked, in words."""
    parts = [ASKED[interface]]
    if interface in (PAIR, DIALOGUE) and (len(rules.scale.levels) > 1 or rules.scale.tie):
        steps = [f"{level.label} (margin {level.margin:.3g})" for level in rules.scale.levels]
        parts.append(f"with a strength: {', '.join(reversed(steps))}")
        if rules.scale.tie:
            parts[-1] += f", or “{_one_line(rules.scale.tie)}”"
    if interface == RANK and rules.unranked == "below":
        parts.append("only the best had to be ranked, the rest is below (`unranked`: `below`)")
    if rules.all_bad and interface in COMPARING:
        parts.append("they could say that none is good enough (`all_bad`)")
    if interface not in WRITING:
        if rules.attributes:
            names = [f"{one.name} ({one.low} to {one.high})" for one in rules.attributes]
            parts.append(f"each response was rated on {', '.join(names)}")
        if rules.safety:
            harms = f", with {len(rules.harms)} kinds of harm" if rules.harms else ""
            parts.append(f"each response was voted safe or not, as a vote of its own{harms}")
    if rules.reason == "required":
        parts.append(f"a reason of {rules.reason_min} characters or more was required")
    label = f" (`{rules.preset}`)" if rules.preset else ""
    return f"They {'; '.join(parts)}{label}."


ASKED = {
    RANK: "ranked the responses, ties allowed",
    PAIR: "chose the better of two responses",
    DIALOGUE: "wrote to the model and chose the better of two responses at each turn",
    DEMONSTRATE: "wrote the ideal answer",
    REWRITE: "chose a response and corrected it",
    RATE: "judged each response by itself",
}


def agreement_sentence(measure: str, figures: dict[str, Any]) -> str:
    """Agreement on one axis or mark, in words with intervals and n."""
    if figures["pairwise"] is None:
        return str(figures.get("reason", "not measured."))
    share = f"{figures['pairwise']:.1%} of the time{_range(figures['pairwise_ci'], '.1%')}"
    if is_mark(measure):
        what = (
            "call a response safe or unsafe alike"
            if measure == SAFE_OR_NOT
            else "give the same mark"
        )
        parts = [f"two annotators {what} {share} (n = {figures['n_pairs']})"]
    else:
        alike = f"two annotators order two responses alike {share}"
        parts = [f"{alike} (ties count a half, n = {figures['n_pairs']})"]
    if figures["alpha"] is not None:
        parts.append(
            f"Krippendorff's alpha (ordinal) {figures['alpha']:.3f}"
            f"{_range(figures['alpha_ci'], '.3f')}, {figures['n_units']} responses"
        )
    return "; ".join(parts) + "."


def _range(interval: list[float] | None, form: str) -> str:
    if not interval:
        return ""
    return f" [{format(interval[0], form)}, {format(interval[1], form)}]"


def _licence_table(snapshot: Snapshot) -> list[str]:
    lines = ["## Sources and licences", "", "| source | licence | judgments |", "|---|---|---|"]
    for entry in snapshot.licences:
        name = _cell(entry["source"])
        if entry["url"]:
            name = f"[{name}]({entry['url']})"
        licence = _cell(entry["licence"]) or "not stated"
        lines.append(f"| {name} | {licence} | {entry['n_judgments']} |")
    return lines


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")


def _size_category(n: int) -> str:
    for limit, name in [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")]:
        if n < limit:
            return name
    return "100K<n<1M"
