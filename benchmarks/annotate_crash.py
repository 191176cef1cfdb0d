"""Many annotators, a bad network and a web server that is killed: is every confirmed answer there?

    python -m benchmarks.annotate_crash --people 64 --overlap 1 3 [--postgres URL]

For SQLite and, where a server is named, PostgreSQL: people work a queue to its end over real HTTP
against gunicorn as production runs it, half of them through the API and half through the page. They
send twice, sometimes at once, hang up before the reply, and answer after they gave a place back. In
the middle the whole server is killed with SIGKILL and started again, and single workers are killed.
Then `manage.py audit_judgments` compares what was confirmed with what the database has. Ends with 1
if anything is lost, doubled, over-assigned or missing.
"""

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.load_people import ApiPerson, Notes, PagePerson, Person
from benchmarks.load_server import Server, database_of_its_own

LIMIT_SECONDS = 240.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--comparisons", type=int, default=0, help="default: 25 judgments a person")
    parser.add_argument("--overlap", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument(
        "--postgres", default="", help="URL of a database on a server to use as well"
    )
    parser.add_argument("--only-postgres", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    bad = False
    databases = [] if arguments.only_postgres else [""]
    for url in [*databases, *([arguments.postgres] if arguments.postgres else [])]:
        for overlap in arguments.overlap:
            figures = crash(
                people=arguments.people,
                comparisons=arguments.comparisons or arguments.people * 25 // overlap,
                overlap=overlap,
                kills=arguments.kills,
                postgres=url,
                seed=arguments.seed,
            )
            print(json.dumps(figures), flush=True)
            bad = bad or not figures["ok"]
    sys.exit(1 if bad else 0)


def crash(
    *,
    people: int,
    comparisons: int,
    overlap: int,
    kills: int,
    postgres: str = "",
    seed: int = 0,
    workers: int = 2,
) -> dict[str, Any]:
    """One run on one database; its figures, `ok` if nothing at all was wrong."""
    with (
        tempfile.TemporaryDirectory(prefix="annotate-crash-") as folder,
        database_of_its_own(postgres) if postgres else nullcontext("") as url,
    ):
        server = Server(Path(folder), database=url, workers=workers)
        made = server.fill(comparisons=comparisons, people=people, overlap=overlap)
        path = Path(folder) / "acknowledged.jsonl"
        notes = Notes(path)
        persons: list[Person] = [
            (ApiPerson if number % 2 else PagePerson)(
                port=server.port,
                slug=made["slug"],
                who=who,
                notes=notes,
                luck=random.Random(f"{seed} {number}"),
                trouble=True,
            )
            for number, who in enumerate(made["people"])
        ]
        server.start()
        began = time.monotonic()
        stop_at = began + LIMIT_SECONDS
        over = threading.Event()
        expected = comparisons * overlap
        killer = threading.Thread(target=_kill, args=(server, persons, expected, kills, over))
        killer.start()
        try:
            with ThreadPoolExecutor(people) as pool:
                list(pool.map(lambda person: _work(person, stop_at), persons))
        finally:
            over.set()
            killer.join()
            notes.close()
        seconds = time.monotonic() - began
        server.stop()
        found = json.loads(_audit(server, path))
        sent = sum(person.sent for person in persons)
        faults = ("lost", "changed", "doubled", "over_assigned", "miscounted")
        complete = found["judgments"] - found["extras"] == expected
        return {
            "database": "postgresql" if postgres else "sqlite",
            "people": people,
            "comparisons": comparisons,
            "overlap": overlap,
            "kills": kills,
            "seconds": round(seconds, 1),
            "sent_twice_or_dropped": sum(person.dropped for person in persons),
            "repeated": sum(person.repeated for person in persons),
            "late": sum(person.late for person in persons),
            "confirmed": sent,
            "expected": expected,
            **found,
            "complete": complete,
            "ok": complete
            and sent == found["acknowledged"] == found["judgments"]
            and not any(found[fault] for fault in faults),
        }


def _work(person: Person, stop_at: float) -> None:
    """To the end of the queue, and once more: what somebody else gave back may have come free."""
    empty = 0
    while empty < 3 and time.monotonic() < stop_at:
        before = person.sent
        person.work(stop_at, most=1_000_000)
        empty = 0 if person.sent > before else empty + 1
        time.sleep(0.3)


def _kill(
    server: Server, persons: list[Person], expected: int, kills: int, over: threading.Event
) -> None:
    """Kill all of the server at equal steps of the work, and one worker between them."""
    for number in range(2 * kills):
        mark = expected * (number + 1) / (2 * kills + 1)
        while sum(person.sent for person in persons) < mark:
            if over.wait(0.02):
                return
        if number % 2:
            server.kill_a_worker()
        else:
            server.kill()
            if over.wait(0.3):
                return
            server.start()


def _audit(server: Server, path: Path) -> str:
    import subprocess

    from benchmarks.load_server import ROOT

    done = subprocess.run(
        [sys.executable, "manage.py", "audit_judgments", "--json", "--acknowledged", str(path)],
        cwd=ROOT, env=server.env, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode > 1:
        raise RuntimeError(done.stderr)
    return done.stdout


if __name__ == "__main__":
    main()
