"""Freezing what has been judged: no program runs, a version of the data comes out."""

from pathlib import Path

from annotation.data.snapshot_files import SnapshotError
from annotation.data.snapshots import freeze_snapshot
from annotation.models import Batch, Snapshot
from rlhf.errors import StageError
from rlhf.models import Job, Round
from rlhf.round_config import RoundConfig
from rlhf.stages.stage import Row, Write, set_on_round


def freeze(job: Job) -> Row:
    """Freeze what has been judged so far: every closed batch, or those that the round names."""
    round = job.round
    note = f"Round {round.number}"
    # A claim that was lost after the files were written has left its snapshot: that one counts.
    snapshot = Snapshot.objects.filter(
        project=round.project, note=note, created_at__gte=job.created_at
    ).first()
    if snapshot is None:
        snapshot = _freeze(round, note)
    return {
        "snapshot": snapshot.pk,
        "version": snapshot.version,
        "n_judgments": snapshot.counts.get("judgments", 0),
        "agreement": snapshot.agreement,
    }


def _freeze(round: Round, note: str) -> Snapshot:
    rounds = Round.objects.filter(project=round.project, batch__isnull=False)
    numbers = dict(rounds.values_list("batch_id", "number"))
    named = RoundConfig.of(round).batches
    judged = Batch.objects.filter(project=round.project)
    judged = judged.filter(pk__in=named) if named else judged.filter(state=Batch.State.CLOSED)
    number_of_batch = {pk: numbers.get(pk, "") for pk in judged.values_list("pk", flat=True)}
    try:
        return freeze_snapshot(
            round.project, by=round.created_by, batches=judged, note=note, rounds=number_of_batch
        )
    except SnapshotError as error:
        raise StageError(str(error)) from None


def collect_snapshot(job: Job, run_dir: Path, result: Row) -> Write:
    snapshot = Snapshot.objects.get(pk=result["snapshot"])
    return lambda: set_on_round(job, snapshot=snapshot)
