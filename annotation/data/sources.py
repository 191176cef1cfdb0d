"""Sources: the dataset that prompts and responses come from, its license, and who signed it off."""

from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone

from annotation.data.import_formats.report import ImportReport
from annotation.models import Event, Project, Source, User

LIMITS = (("name", 120), ("licence", 120), ("url", 200))


def check_source(source: Mapping[str, str], report: ImportReport, *, sign_off: bool) -> None:
    """Add to the report what is wrong with a source's name, license and link."""
    if not source.get("name", "").strip():
        report.add_problem(
            None, "Name the source: a dataset without a name and license can't be traced."
        )
    for key, limit in LIMITS:
        if len(source.get(key, "")) > limit:
            report.add_problem(None, f"The source's {key} is longer than {limit} characters.")
    if sign_off and not source.get("licence", "").strip():
        report.add_problem(None, "Name the license: a source is signed off for training under one.")
    url = source.get("url", "")
    if url and not url.startswith(("https://", "http://")):
        report.add_problem(None, "The source's link does not start with https:// or http://.")


def create_source(
    project: Project,
    source: Mapping[str, str],
    *,
    by: User | None,
    sign_off: bool,
    report: ImportReport | None = None,
) -> Source:
    """Record a source that `check_source` found correct, with the figures of the file it came in."""
    report = report or ImportReport()
    return Source.objects.create(
        project=project,
        name=source["name"].strip(),
        licence=source.get("licence", "").strip(),
        url=source.get("url", "").strip(),
        note=source.get("note", ""),
        n_rows=report.n_rows,
        n_duplicates=report.n_duplicates,
        sha256=report.sha256,
        created_by=by,
        signed_off_by=by if sign_off else None,
        signed_off_at=timezone.now() if sign_off else None,
    )


def sign_off_source(source: Source, by: User) -> None:
    """Allow training on it, as somebody who read the license."""
    source.signed_off_by, source.signed_off_at = by, timezone.now()
    with transaction.atomic():
        source.save(update_fields=["licence", "signed_off_by", "signed_off_at"])
        Event.record(source.project, by, "signed off source", source.name, source=source.pk)
