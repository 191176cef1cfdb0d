"""Answers that people wrote, as supervised fine-tuning reads them: docs/formats.md, stage `sft`."""

from collections.abc import Iterable, Iterator

from annotation.models import Batch, Project
from annotation.preferences import CHUNK, Row, annotator_id, judgments_of, trainable


def demonstration_rows(
    project: Project, *, batches: Iterable[Batch] | None = None, only_trainable: bool = True
) -> Iterator[Row]:
    """One row per judgment with a written answer: a demonstration, a correction, or the better
    answer beside a comparison.

    The same judgments as in `preferences.preference_rows`: the latest revision, not taken back, not
    excluded, and unless `only_trainable` is False of the train split and of signed-off sources.
    """
    judgments = judgments_of(project, batches=batches)
    if only_trainable:
        judgments = trainable(judgments)
    written = judgments.exclude(rewrite="").order_by("assignment__comparison_id", "pk")
    ids = list(written.values_list("pk", flat=True))
    for start in range(0, len(ids), CHUNK):
        chunk = written.filter(pk__in=ids[start : start + CHUNK]).select_related(
            "assignment__annotator",
            "assignment__comparison__prompt",
            "assignment__comparison__batch",
        )
        for judgment in chunk:
            if not judgment.rewrite.strip():
                continue
            assignment = judgment.assignment
            prompt, batch = assignment.comparison.prompt, assignment.comparison.batch
            yield {
                "prompt_id": str(prompt.uid),
                "annotator": annotator_id(
                    project, assignment.annotator, is_imported=batch.is_imported
                ),
                "messages": prompt.messages,
                "response": judgment.rewrite,
            }
