"""Sources: the dataset that prompts and responses come from, its license, and who signed it off.

A sign-off has two signatures, of the data steward (what the texts are, how they were collected) and of
legal counsel (what the license allows). One person may give both unless the project needs two people.
"""

import hashlib
from collections.abc import Mapping

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from annotation.data import preferences
from annotation.data.admission import IN_TRAIN_SPLIT
from annotation.data.import_formats.report import ImportReport
from annotation.data.licences import why_not_for_training
from annotation.models import Event, Project, Source, SourceSignature, User

Step = SourceSignature.Step
MAX_DOCUMENT = 5 * 2**20
LIMITS = (("name", 120), ("licence", 120), ("url", 200))


class SourceError(ValueError):
    """Why a source can't be signed or changed as asked, as one sentence."""


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
    """Record a source that `check_source` found correct, with the figures of the file it came in.

    `sign_off` gives the signatures that `by` may give: both, or in a project that needs two people
    that of the data steward.
    """
    report = report or ImportReport()
    created = Source.objects.create(
        project=project,
        name=source["name"].strip(),
        licence=source.get("licence", "").strip(),
        url=source.get("url", "").strip(),
        note=source.get("note", ""),
        n_rows=report.n_rows,
        n_duplicates=report.n_duplicates,
        sha256=report.sha256,
        created_by=by,
    )
    if sign_off:
        for step in steps_of_one(project):
            _sign(created, step, by)
    return created


def steps_of_one(project: Project) -> list[str]:
    """The signatures that one person gives who signs a source off in one act."""
    return [Step.DATA] if project.needs_two_signatures else [Step.DATA, Step.LEGAL]


def sign_off_source(source: Source, by: User) -> None:
    """Give every signature that this person may give, as somebody who read the license.

    Raises SourceError as `sign` does.
    """
    with transaction.atomic():
        source.save(update_fields=["licence"])
        signed = set(source.signatures.values_list("step", flat=True))
        missing = [step for step in Step.values if step not in signed]
        if source.project.needs_two_signatures:
            missing = missing[:1]
        for step in missing:
            sign(source, step, by)


def sign(
    source: Source, step: str, by: User, *, note: str = "", name: str = "", document: bytes = b""
) -> SourceSignature:
    """Give one of the two signatures, with the document that it rests on.

    Raises SourceError where the license is not named or does not allow training, where the step is
    signed already, and where the project needs two people and this one gave the other signature.
    """
    with transaction.atomic():
        project = Project.objects.lock(source.project_id)
        if not source.licence:
            raise SourceError(f"Name the license of {source.name} before you sign it off.")
        why = why_not_for_training(source.licence, is_commercial=project.is_commercial)
        if why:
            raise SourceError(f"{source.name} can't be signed off: {why}.")
        others = {other.step: other.signed_by_id for other in source.signatures.all()}
        if step in others:
            raise SourceError(f"{source.name} has this signature already.")
        if project.needs_two_signatures and by.pk in others.values():
            raise SourceError("This project needs two people: the other signature is yours.")
        if len(document) > MAX_DOCUMENT:
            raise SourceError(f"The document is larger than {MAX_DOCUMENT // 2**20} MiB.")
        return _sign(source, step, by, note=note, name=name, document=document)


def _sign(
    source: Source,
    step: str,
    by: User | None,
    *,
    note: str = "",
    name: str = "",
    document: bytes = b"",
) -> SourceSignature:
    signature = SourceSignature.objects.create(
        source=source,
        step=step,
        signed_by=by,
        note=note[:300],
        file_name=name[-120:] if document else "",
        file_sha256=hashlib.sha256(document).hexdigest() if document else "",
        file=document or None,
    )
    if source.signatures.count() == len(Step):
        source.signed_off_by, source.signed_off_at = by, timezone.now()
        source.save(update_fields=["signed_off_by", "signed_off_at"])
        Event.record(source.project, by, "signed off source", source.name, source=source.pk)
    else:
        Event.record(
            source.project, by, "signed source", source.name, source=source.pk, step=str(step)
        )
    return signature


def withdraw_sign_off(source: Source, by: User) -> None:
    """Take both signatures back: from now on nothing of the source is admitted."""
    with transaction.atomic():
        source.signatures.all().delete()
        source.signed_off_by = source.signed_off_at = None
        source.save(update_fields=["signed_off_by", "signed_off_at"])
        Event.record(source.project, by, "withdrew sign-off", source.name, source=source.pk)


def change_source(source: Source, by: User, **fields: str) -> bool:
    """Store the source's facts; another license takes the sign-off back. Returns whether it did."""
    with transaction.atomic():
        before = Source.objects.get(pk=source.pk)
        for name, value in fields.items():
            setattr(source, name, value)
        source.save(update_fields=list(fields))
        Event.record(source.project, by, "changed source", source.name, source=source.pk)
        withdrawn = before.licence != source.licence and source.signatures.exists()
        withdrawn = withdrawn or (before.licence != source.licence and before.is_signed_off)
        if withdrawn:
            withdraw_sign_off(source, by)
    return withdrawn


def judgments_resting_on(source: Source) -> int:
    """How many judgments of the train split rest on the source: what keeping it out costs."""
    return (
        preferences.judgments_of(source.project)
        .filter(IN_TRAIN_SPLIT)
        .filter(
            Q(assignment__comparison__prompt__source=source)
            | Q(assignment__comparison__batch__source=source)
        )
        .count()
    )
