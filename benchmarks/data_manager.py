"""What a page of the data manager costs at a million rows: `python benchmarks/data_manager.py`.

Builds a database of its own with ROWS responses (a quarter as many prompts and comparisons, half as many
judgments), another project among them, and prints the processor time and the wall-clock time of each
query, the worst of five. `--database postgresql://…` names an empty PostgreSQL database; without it a
SQLite file is built. `--rows 100000` builds fewer. The text index is filled by the database as rows
arrive, so the time to build has it as well.
"""

import argparse
import os
import random
import tempfile
import time

WORDS = [
    "water",
    "fern",
    "window",
    "bridge",
    "letter",
    "garden",
    "engine",
    "river",
    "candle",
    "market",
    "winter",
    "signal",
    "orchard",
    "teacher",
    "planet",
    "copper",
    "village",
    "ticket",
    "shadow",
    "harbor",
    "melody",
    "pencil",
    "forest",
    "island",
    "kitchen",
    "ladder",
    "mirror",
]
RARE = "quokka"
CHUNK = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--database", default="")
    options = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="data-manager-")
    os.environ["GROUND_CONTROL_DATA"] = folder
    if options.database:
        os.environ["DATABASE_URL"] = options.database
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    begin = time.perf_counter()
    project = build(options.rows)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
    print(f"{connection.vendor}: {options.rows:,} responses in {time.perf_counter() - begin:.0f} s")
    print(f"{'table':12} {'filters':44} {'rows':>5} {'cpu ms':>8} {'wall ms':>8}")
    measure(project)


def build(rows: int):
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
        User,
    )

    draw = random.Random(3)
    user = User.objects.create(username="ada")
    # A project of the same size, whose rows are among the measured one's.
    projects = [Project.objects.create(slug=slug, name=slug) for slug in ("other", "measured")]
    sources, batches = {}, {}
    for project in projects:
        sources[project] = Source.objects.create(
            project=project, name="made", licence="CC0-1.0", signed_off_at=timezone.now()
        )
        batches[project] = [
            Batch.objects.create(project=project, name=f"Batch {n}", state="closed")
            for n in range(10)
        ]
    n_prompts, now = rows // 4, timezone.now()
    for start in range(0, n_prompts, CHUNK // 4):
        for project in projects:
            numbers = range(start, min(start + CHUNK // 4, n_prompts))
            prompts = Prompt.objects.bulk_create(
                Prompt(
                    project=project,
                    source=sources[project],
                    messages=[{"role": "user", "content": text(draw, number)}],
                    sha256=f"{project.pk}-{number}",
                    category=f"category {number % 40}",
                    risk="harmful" if number % 50 == 0 else "harmless",
                    split=("train", "train", "train", "eval", "heldout")[number % 5],
                )
                for number in numbers
            )
            comparisons = Comparison.objects.bulk_create(
                Comparison(
                    batch=batches[project][number * 10 // n_prompts],
                    prompt=prompt,
                    needed=2,
                    judged=2 if number % 3 else 0,
                    is_free=False,
                )
                for number, prompt in zip(numbers, prompts, strict=True)
            )
            Response.objects.bulk_create(
                Response(
                    comparison=comparison, text=text(draw, 4 * number + k), source=f"policy {k}"
                )
                for number, comparison in zip(numbers, comparisons, strict=True)
                for k in range(4)
            )
            assignments = Assignment.objects.bulk_create(
                Assignment(
                    comparison=comparison,
                    annotator=user,
                    state="judged",
                    shown_order=[],
                    lease_until=now,
                )
                for comparison in comparisons
            )
            Judgment.objects.bulk_create(
                Judgment(
                    assignment=assignment,
                    revision=revision,
                    key=draw_uuid(draw),
                    answer_sha256="",
                    ranks={},
                    reason=text(draw, number) if number % 4 == 0 else "",
                )
                for number, assignment in zip(numbers, assignments, strict=True)
                for revision in (1, 2)
            )
    return projects[1]


def text(draw: random.Random, number: int) -> str:
    words = draw.choices(WORDS, k=24)
    if number % 100_003 == 7:
        words[5] = RARE
    return f"{' '.join(words)} number{number}"


def draw_uuid(draw: random.Random):
    import uuid

    return uuid.UUID(int=draw.getrandbits(128))


def measure(project) -> None:
    from annotation.data.records.paging import Query, page_of
    from annotation.data.records.tables import TABLES

    batch = str(project.batches.order_by("pk")[4].pk)
    for table in TABLES:
        cases = [
            {}, {"sort": "oldest"}, {"words": "fern"}, {"words": "fern water"}, {"words": RARE},
            {"words": "number77"}, {"words": "nowhere"}, {"filters": {"risk": "harmful"}},
            {"filters": {"excluded": "yes"}}, {"filters": {"batch": batch}},
            {"filters": {"risk": "harmful"}, "words": "fern"},
        ]  # fmt: skip
        if table == "prompts":
            cases += [
                {"sort": "category"},
                {"filters": {"category": "category 7", "risk": "harmful"}},
                {"filters": {"split": "heldout"}},
            ]
        if table == "comparisons":
            cases += [{"filters": {"state": "unjudged"}}, {"filters": {"gold": "yes"}}]
        if table == "judgments":
            cases += [{"filters": {"state": "superseded"}}, {"filters": {"reason": "yes"}}]
        for case in cases:
            if set(case.get("filters", {})) <= set(TABLES[table].filters):
                print_case(project, page_of, Query(table=table, **case))
        first = page_of(project, Query(table=table))
        print_case(project, page_of, Query(table=table, after=first.following), "page 2")


def print_case(project, page_of, query, note: str = "") -> None:
    cpu, wall = [], []
    for _ in range(5):
        begin, begin_cpu = time.perf_counter(), time.process_time()
        page = page_of(project, query)
        wall.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - begin_cpu)
    filters = " ".join(f"{key}={value}" for key, value in query.filters.items())
    label = " ".join(part for part in (note, query.words, filters, query.sort) if part)
    n = f"{len(page.ids)}{'…' if page.is_partial else ''}"
    print(f"{query.table:12} {label:44} {n:>5} {1000 * max(cpu):8.0f} {1000 * max(wall):8.0f}")


if __name__ == "__main__":
    main()
