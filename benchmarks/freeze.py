"""How fast a version is frozen: rows to JSON Lines and Parquet, and judgments from the database.

    python -m benchmarks.freeze --rows 1000000 --judgments 50000

`--rows` synthetic comparisons of two go through the writers of a snapshot to both formats: no database.
`--judgments` are stored in a database of their own and frozen by `freeze_snapshot`: rankings, the pairs
of two axes, agreement, card and hashes. 0 leaves a part out. Prints rows per second of processor time and
of wall clock, and the growth of the resident memory. Targets for a million rows on two cores: 50,000 rows
a second to each format, less than 100 MB.
"""

import argparse
import os
import random
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

AXES = ["helpfulness", "safety"]
WORDS = [
    "snake",
    "plants",
    "need",
    "little",
    "light",
    "and",
    "forgive",
    "a",
    "week",
    "without",
    "water",
    "while",
    "ferns",
    "like",
    "a",
    "window",
    "to",
    "the",
    "north",
    "and",
    "soil",
    "that",
    "never",
    "dries",
    "so",
    "look",
    "at",
    "the",
    "leaves",
    "before",
    "you",
    "reach",
    "for",
    "the",
    "can",
]
Row = dict[str, Any]


def text(draw: random.Random, n_words: int) -> str:
    return " ".join(draw.choices(WORDS, k=n_words))


def rows(n: int, seed: int = 0) -> Iterator[Row]:
    """Comparisons of two, of about a kilobyte each, with all columns of `preferences`."""
    draw = random.Random(seed)
    # Drawing texts would take longer than writing them.
    texts = [text(draw, 40) for _ in range(5_000)]
    for number in range(n):
        yield {
            "judgment_id": str(uuid.UUID(int=draw.getrandbits(128))),
            "prompt_id": str(uuid.UUID(int=number // 2)),
            "annotator": f"annotator-{number % 40:010x}",
            "round": "round 1",
            "messages": [{"role": "user", "content": texts[number % 4_999]}],
            "category": "plants",
            "risk": "harmless",
            "responses": [texts[number % 4_998], texts[(number + 1) % 4_997]],
            "finished": [True, None],
            "ranks": {"helpfulness": [1, 2], "safety": [1, 1]},
            "weight": 1.0,
            "strength": {"helpfulness": 3, "safety": None},
            "margin": {"helpfulness": 1 / (1 + number % 7), "safety": None},
            "unranked": "unknown",
            "all_bad": [],
            "reason": "",
        }


def resident() -> float:
    """Most memory that this process ever held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def measured(what: str, n: int) -> Iterator[None]:
    memory, wall, processor = resident(), time.perf_counter(), time.process_time()
    yield
    seconds, worked = time.perf_counter() - wall, time.process_time() - processor
    print(
        f"{what}: {n:,} rows, {n / seconds:,.0f} rows/s wall clock ({seconds:.1f} s), "
        f"{n / worked:,.0f} rows/s of processor time ({worked:.1f} s), "
        f"+{resident() - memory:.0f} MB",
        flush=True,
    )


def write(n: int, folder: Path) -> None:
    """The writers alone."""
    from annotation.data.exports.schemas import judgment_schema
    from annotation.data.exports.writers import EXPORT_FORMATS, TableWriter

    schema = judgment_schema(AXES)
    with TableWriter(folder, "warm-up", schema) as table:
        for row in rows(20_000):
            table.write(row)
    with measured("making the rows", n):
        for _ in rows(n):
            pass
    every = dict(EXPORT_FORMATS)
    for formats in (["jsonl"], ["parquet"], ["jsonl", "parquet"]):
        EXPORT_FORMATS.clear()
        EXPORT_FORMATS.update({name: every[name] for name in formats})
        name = "and".join(formats)
        with (
            measured(f"making and writing {' and '.join(formats)}", n),
            TableWriter(folder, name, schema) as table,
        ):
            for row in rows(n):
                table.write(row)
    EXPORT_FORMATS.clear()
    EXPORT_FORMATS.update(every)
    sizes = {path.suffix: path.stat().st_size / 2**20 for path in folder.glob("jsonlandparquet.*")}
    print(", ".join(f"{ending} {size:.0f} MB" for ending, size in sizes.items()))


def fill(n: int) -> Any:
    """A project of n judgments of comparisons of two, two judgments each."""
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from annotation.models import (
        Assignment,
        Batch,
        Comparison,
        Judgment,
        Project,
        Prompt,
        Response,
        Source,
        content_hash,
    )

    draw = random.Random(1)
    people = [get_user_model().objects.create(username=f"person {i}") for i in range(8)]
    project = Project.objects.create(slug="freeze", name="Freeze")
    source = Source.objects.create(
        project=project, name="Synthetic", licence="CC0-1.0", signed_off_at=timezone.now()
    )
    batch = Batch.objects.create(project=project, name="Round 1", state=Batch.State.CLOSED)
    for start in range(0, n // 2, 2_000):
        numbers = range(start, min(start + 2_000, n // 2))
        contents = [[{"role": "user", "content": f"{i}: {text(draw, 40)}"}] for i in numbers]
        prompts = Prompt.objects.bulk_create(
            Prompt(
                project=project,
                source=source,
                messages=messages,
                sha256=content_hash(messages),  # type: ignore[arg-type]
                split=Prompt.Split.TRAIN,
            )
            for messages in contents
        )
        comparisons = Comparison.objects.bulk_create(
            Comparison(batch=batch, prompt=prompt) for prompt in prompts
        )
        responses = Response.objects.bulk_create(
            Response(comparison=comparison, text=text(draw, 40))
            for comparison in comparisons
            for _ in range(2)
        )
        assignments = Assignment.objects.bulk_create(
            Assignment(
                comparison=comparison,
                annotator=people[(place + k) % len(people)],
                state=Assignment.State.JUDGED,
                shown_order=[r.pk for r in responses[2 * place : 2 * place + 2]],
                lease_until=timezone.now(),
            )
            for place, comparison in enumerate(comparisons)
            for k in range(2)
        )
        judgments = Judgment.objects.bulk_create(
            Judgment(
                assignment=assignment,
                key=uuid.uuid4(),
                answer_sha256="0" * 64,
                ranks={
                    axis: dict(
                        zip(map(str, assignment.shown_order), draw.sample((1, 2), 2), strict=True)
                    )
                    for axis in project.axis_keys
                },
            )
            for assignment in assignments
        )
        for assignment, judgment in zip(assignments, judgments, strict=True):
            assignment.judgment = judgment
        Assignment.objects.bulk_update(assignments, ["judgment"], batch_size=500)
    return project


def freeze(n: int) -> None:
    """The whole way, from a database of its own."""
    from django.core.management import call_command

    from annotation.data.preferences import rows_with_origins
    from annotation.data.snapshots import freeze_snapshot

    call_command("migrate", verbosity=0)
    project = fill(n)
    with measured("reading the rows from the database", n):
        for _ in rows_with_origins(project):
            pass
    with measured("freezing", n):
        snapshot = freeze_snapshot(project, by=None)
    print(f"{snapshot.counts['pairs']} pairs, {len(snapshot.files)} files")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--judgments", type=int, default=50_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GROUND_CONTROL_DATA"] = folder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
        import django

        django.setup()
        if given.rows:
            write(given.rows, Path(folder))
        if given.judgments:
            freeze(given.judgments)


if __name__ == "__main__":
    sys.exit(main())
