"""How fast people can judge: our REST API and our page, and Label Studio's API, over real HTTP.

    python -m benchmarks.annotate_load --sizes 1000 50000 --people 1 8 32 64 [--postgres URL]
    python -m benchmarks.annotate_load --sizes 1000 --people 8 --label-studio LS [--postgres URL]

For every database and size of the queue a server is started as docs/production.md says (gunicorn,
2 workers, 8 threads) and worked by so many annotators at once, each as fast as it can, for --seconds
or until a fifth of the queue is judged. Times are milliseconds as the annotator sees them, on
loopback, the client on the same machine. `cpu_ms` is the web server's processor time for one judgment
(next and submit), which depends less on what else the machine does. Then the database is audited. With --label-studio (a folder
with `bin/label-studio`) it does the same work first, and the ratio is printed.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.label_studio import LabelStudio, LabelStudioPerson
from benchmarks.load_people import ApiPerson, Notes, PagePerson, Person
from benchmarks.load_server import ROOT, Server, database_of_its_own

KINDS: dict[str, type[Person]] = {"api": ApiPerson, "page": PagePerson}
COLUMNS = (
    "who", "database", "queue", "people", "next_p50", "next_p95", "next_p99", "submit_p50",
    "submit_p95", "submit_p99", "per_second", "judged", "cpu_ms", "over", "lost", "doubled",
    "repeated", "MiB",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 50_000, 1_000_000])
    parser.add_argument("--people", type=int, nargs="+", default=[1, 8, 32, 64])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--overlap", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0, help="at most, for each line")
    parser.add_argument(
        "--postgres", default="", help="URL of a database on a server to use as well"
    )
    parser.add_argument("--only-postgres", action="store_true")
    parser.add_argument(
        "--label-studio", type=Path, metavar="FOLDER", help="its virtual environment"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--out", type=Path, help="the lines as JSON as well")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    print(" ".join(f"{name:>10}" for name in COLUMNS), flush=True)
    databases = [] if arguments.only_postgres else [""]
    for url in [*databases, *([arguments.postgres] if arguments.postgres else [])]:
        for size in arguments.sizes:
            if arguments.label_studio:
                rows += measure(arguments, url, size, opponent=True)
            rows += measure(arguments, url, size, opponent=False)
    if arguments.label_studio:
        compare(rows)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


def measure(
    arguments: argparse.Namespace, url: str, size: int, *, opponent: bool
) -> list[dict[str, Any]]:
    """Every number of people on one queue in one database; a line each."""
    with (
        tempfile.TemporaryDirectory(prefix="annotate-load-") as folder,
        database_of_its_own(url) if url else nullcontext("") as database,
    ):
        options = {"workers": arguments.workers, "threads": arguments.threads}
        server = (
            LabelStudio(
                arguments.label_studio.absolute(), Path(folder), database=database, **options
            )
            if opponent
            else Server(Path(folder), database=database, **options)
        )
        rows = []
        try:
            made = server.fill(
                comparisons=size, people=max(arguments.people), overlap=arguments.overlap
            )
            server.start()
            for number in arguments.people:
                for kind in ["label-studio"] if opponent else arguments.kinds:
                    rows.append(line(arguments, server, made, kind, number, size, database))
                    print(" ".join(f"{_short(rows[-1][name]):>10}" for name in COLUMNS), flush=True)
        finally:
            server.stop()
        return rows


def line(
    arguments: argparse.Namespace,
    server: Server,
    made: dict[str, Any],
    kind: str,
    people: int,
    size: int,
    database: str,
) -> dict[str, Any]:
    path = server.folder / f"acknowledged-{kind}-{people}.jsonl"
    notes = Notes(path)
    maker = LabelStudioPerson if kind == "label-studio" else KINDS[kind]
    persons = [
        maker(
            port=server.port,
            slug=made["slug"],
            who=who,
            notes=notes,
            luck=random.Random(number),
        )
        for number, who in enumerate(made["people"][:people])
    ]
    # Two each, so that connections, templates and the database's caches are as in the middle of a day.
    _all(persons, time.monotonic() + 30, 2, None)
    for person in persons:
        person.next_seconds.clear()
        person.submit_seconds.clear()
    before = sum(person.sent for person in persons)
    most = size * arguments.overlap // 5
    cpu = server.cpu_seconds()
    began = time.monotonic()
    _all(persons, began + arguments.seconds, most, before + most)
    seconds = time.monotonic() - began
    cpu = server.cpu_seconds() - cpu
    notes.close()
    server.remember_memory()
    nexts = [one for person in persons for one in person.next_seconds]
    submits = [one for person in persons for one in person.submit_seconds]
    judged = sum(person.sent for person in persons) - before
    return {
        "who": kind,
        "database": "postgresql" if database else "sqlite",
        "queue": size,
        "people": people,
        **_percentiles("next", nexts),
        **_percentiles("submit", submits),
        "per_second": judged / seconds,
        "judged": judged,
        "cpu_ms": 1000 * cpu / judged if judged else float("nan"),
        "repeated": sum(person.repeated for person in persons),
        "bytes_of_next": max(person.bytes_of_next for person in persons),
        "MiB": server.peak_kib // 1024,
        **(
            _count(server, made["slug"], path, arguments.overlap)
            if isinstance(server, LabelStudio)
            else _audit(server, path)
        ),
    }


def _all(persons: list[Person], stop_at: float, each: int, limit: int | None) -> None:
    """Everybody at once: `each` judgments a person at most, and `limit` of all together."""

    def work(person: Person) -> None:
        until = person.sent + each
        while person.sent < until and time.monotonic() < stop_at:
            before = person.sent
            person.work(stop_at, most=person.sent + 1)
            if person.sent == before:
                return
            if limit and sum(one.sent for one in persons) >= limit:
                return

    with ThreadPoolExecutor(len(persons)) as pool:
        list(pool.map(work, persons))


def _audit(server: Server, path: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "manage.py", "audit_judgments", "--json", "--acknowledged", str(path)],
        cwd=ROOT, env=server.env, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    found = json.loads(done.stdout)
    return {
        "over": found["over_assigned"],
        "lost": found["lost"] + found["changed"],
        "doubled": found["doubled"],
        "extras": found["extras"],
    }


def _count(server: LabelStudio, project: str, path: Path, overlap: int) -> dict[str, int]:
    """What Label Studio kept, held against what it confirmed."""
    kept = server.kept(project)
    confirmed = {json.loads(row)["key"] for row in path.read_text().splitlines()}
    per_task = Counter(task for _, task, _ in kept)
    per_person = Counter((task, person) for _, task, person in kept)
    return {
        "over": sum(n > overlap for n in per_task.values()),
        "lost": len(confirmed - {str(annotation) for annotation, _, _ in kept}),
        "doubled": sum(n > 1 for n in per_person.values()),
        "extras": 0,
    }


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    if len(seconds) < 2:
        return {f"{name}_{p}": float("nan") for p in ("p50", "p95", "p99")}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p{n}": 1000 * cuts[n - 1] for n in (50, 95, 99)}


def _short(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def compare(rows: list[dict[str, Any]]) -> None:
    """Ours against Label Studio's, where both did the same."""
    print()
    for theirs in (row for row in rows if row["who"] == "label-studio"):
        same = ("database", "queue", "people")
        for ours in rows:
            if ours["who"] == "label-studio" or any(ours[x] != theirs[x] for x in same):
                continue
            print(
                f"{ours['who']} against Label Studio, {ours['database']}, {ours['queue']:,} queued, "
                f"{ours['people']} people: next p95 {theirs['next_p95'] / ours['next_p95']:.1f} times "
                f"lower, {ours['per_second'] / theirs['per_second']:.1f} times its judgments a second"
            )


if __name__ == "__main__":
    main()
