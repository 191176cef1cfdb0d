"""What a version says of itself: its query, counts and sources, in its row and in `snapshot.json`.

`snapshot.json` is one of the hashed files, so a version's hash stands for its settings too.
"""

import hashlib
import json
from typing import Any

from django.db.models import Count, Q

from annotation.data import preferences
from annotation.data.admission import IN_TRAIN_SPLIT, admitted, exclusions, kept_out_sources
from annotation.data.exports.schema_file import FORMAT
from annotation.data.filter_report import filter_report
from annotation.data.filters.table import FILTERS
from annotation.data.pseudonyms import pseudonym_key
from annotation.data.snapshot_files import DEMONSTRATIONS, RATINGS
from annotation.data.snapshot_rows import SnapshotRows
from annotation.lib.code_version import code_version
from annotation.models import Batch, Snapshot, Source

LEFT_OUT = ("heldout", "not_signed_off", "filtered", "excluded", "overruled")


def snapshot_record(rows: SnapshotRows, counts: dict[str, int]) -> dict[str, Any]:
    """The columns `query`, `counts` and `licences` of the version that these rows were written for.

    `counts` are `preferences.judgment_counts`.
    """
    guidelines = _guidelines(rows)
    return {
        "query": _query(rows, guidelines),
        "counts": _counts(rows, counts, guidelines),
        "licences": _licences(rows),
    }


def manifest(snapshot: Snapshot) -> bytes:
    """The content of `snapshot.json`: everything that the version's row says, but no name of a person."""
    content = {
        "format": FORMAT,
        "project": snapshot.project.slug,
        "version": snapshot.version,
        "note": snapshot.note,
        "created_at": snapshot.created_at.isoformat(),
        "query": snapshot.query,
        "counts": snapshot.counts,
        "agreement": snapshot.agreement,
        "licences": snapshot.licences,
    }
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()


def _query(rows: SnapshotRows, guidelines: dict[int, int]) -> dict[str, Any]:
    """What was asked for, and the versions of all that decided what the rows are."""
    project, options, tally = rows.project, rows.options, rows.tally
    used = Batch.objects.in_bulk(list(tally.batches))
    texts = dict(project.guideline_versions.values_list("version", "text"))
    return {
        "format": FORMAT,
        "batches": [
            {
                "id": pk,
                "name": used[pk].name,
                "is_imported": used[pk].is_imported,
                "interface": used[pk].effective_interface,
                "protocol": used[pk].effective_protocol.as_json(),
                "n_judgments": n,
                "sources": sorted(tally.sources_by_batch[pk]),
            }
            for pk, n in sorted(tally.batches.items())
        ],
        "all_batches": rows.batches is None,
        "asked_batches": None if rows.batches is None else sorted(b.pk for b in rows.batches),
        "rounds": None if rows.rounds is None else {str(pk): n for pk, n in rows.rounds.items()},
        "split": "train",
        "ties": options.ties,
        "options": {
            "votes": options.votes,
            "axes": list(options.axes),
            "filters": list(options.filters),
        },
        "axes": [axis for axis in project.axes if axis["key"] in rows.axes],
        "filters": [
            {
                "filter": setting.filter,
                "name": FILTERS[setting.filter].name,
                "threshold": setting.threshold,
                "version": setting.version,
                "set_by": "project" if setting.excludes else "version",
            }
            for setting, *_ in exclusions(project, options.filters)
        ],
        "filter_report": filter_report(project),
        "tags": [tag.name for tag in project.tags.filter(keeps_out=True).order_by("name")],
        "kept_out": _kept_out(rows),
        "pseudonyms": pseudonym_key(project),
        "guidelines": [
            {
                "version": version,
                "sha256": hashlib.sha256(texts[version].encode()).hexdigest()
                if version in texts
                else "",
                "n_judgments": n,
            }
            for version, n in guidelines.items()
        ],
        "code": code_version(),
    }


def _kept_out(rows: SnapshotRows) -> list[dict[str, Any]]:
    """Each source that is kept out although judgments of these batches rest on it, and why."""
    judgments = preferences.judgments_of(rows.project, batches=rows.batches).filter(IN_TRAIN_SPLIT)
    sources = []
    for pk, why in kept_out_sources(rows.project).items():
        of_source = Q(assignment__comparison__prompt__source=pk) | Q(
            assignment__comparison__batch__source=pk
        )
        if n := judgments.filter(of_source).count():
            name = Source.objects.values_list("name", flat=True).get(pk=pk)
            sources.append({"source": name, "why": why, "n_judgments": n})
    return sources


def _counts(
    rows: SnapshotRows, counts: dict[str, int], guidelines: dict[int, int]
) -> dict[str, Any]:
    tally = rows.tally
    return {
        "judgments": tally.judgments,
        "ratings": tally.response_rows[RATINGS],
        "demonstrations": tally.response_rows[DEMONSTRATIONS],
        "prompts": len(tally.prompts),
        "pairs": {axis: tally.pairs[axis] for axis in rows.axes},
        "ties": {axis: tally.ties[axis] for axis in rows.axes},
        "annotators": tally.people("annotator"),
        "simulated_annotators": tally.people("simulated"),
        "imported_annotators": tally.people("imported"),
        "reviewers": tally.people("reviewer"),
        "rulings": tally.judgments_by("reviewer"),
        "judgments_simulated": tally.judgments_by("simulated"),
        "judgments_imported": tally.judgments_by("imported"),
        "guidelines": {str(version): n for version, n in guidelines.items()},
        "responses_per_judgment": round(tally.responses / max(1, tally.judgments), 2),
        "left_out": {name: counts[name] for name in LEFT_OUT},
    }


def _licences(rows: SnapshotRows) -> list[dict[str, Any]]:
    """The sources that rows rest on, as they were signed off."""
    sources = Source.objects.in_bulk(list(rows.tally.sources))
    return [
        {
            "id": pk,
            "source": sources[pk].name,
            "licence": sources[pk].licence,
            "url": sources[pk].url,
            "sha256": sources[pk].sha256,
            "signed_off_at": signed.isoformat() if (signed := sources[pk].signed_off_at) else None,
            "n_judgments": n,
        }
        for pk, n in sorted(rows.tally.sources.items())
    ]


def _guidelines(rows: SnapshotRows) -> dict[int, int]:
    """How many of the judgments made here were made under each version of the guidelines."""
    judgments = admitted(
        rows.project,
        preferences.judgments_of(rows.project, batches=rows.batches),
        rows.options.filters,
    ).filter(assignment__comparison__batch__is_imported=False)
    versions = judgments.values_list("guideline_version").annotate(n=Count("pk"))
    return dict(versions.order_by("guideline_version"))
