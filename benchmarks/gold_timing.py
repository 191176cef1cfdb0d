"""Can somebody tell gold from work by how long the server takes, or by how much it sends?

    python -m benchmarks.gold_timing [--items 600] [--database postgres://…]

One annotator at a time works through a queue in which every second comparison is gold, over real HTTP:
through the REST API and through the page. Gold and work alternate at places that a key decides, so
whatever else the machine does falls on both alike. For each request that a person can time it prints
both medians and the AUC: the probability that a random gold item took longer than a random piece of
work, 0.5 where time tells nothing, with the range in which chance alone stays 19 times out of 20
(Mann & Whitney 1947). `--database` is a PostgreSQL server; without it the database is SQLite's.
"""

import argparse
import contextlib
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.load_people import ApiPerson, Notes, PagePerson, Person
from benchmarks.load_queue import ANSWER, PROMPT
from benchmarks.load_server import Server, database_of_its_own

AXES = ("helpfulness", "safety")
UNHEARD = 20
"""Requests at the beginning that are not counted: caches fill, connections open."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", type=int, default=600, help="Gold items, and as much work.")
    parser.add_argument("--database", default="", help="A PostgreSQL server's URL.")
    parser.add_argument("--make-gold", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--tell-gold", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make_gold or arguments.tell_gold:
        _in_the_servers_place(arguments)
        return
    where = database_of_its_own(arguments.database) if arguments.database else nullcontext("")
    with tempfile.TemporaryDirectory() as folder, where as database:
        server = Server(Path(folder), database=database, workers=1, threads=4)
        try:
            print(f"{'':<22}{'gold ms':>9}{'work ms':>9}{'AUC':>8}   chance alone")
            report(server, arguments.items)
        finally:
            server.stop()


def report(server: Server, items: int) -> None:
    """Fill the queue, work through it both ways, print one line per kind of request."""
    made = server.fill(comparisons=4 * items, people=2)
    server.run("-m", "benchmarks.gold_timing", "--make-gold", str(items))
    server.start()
    notes = Notes(server.folder / "notes.jsonl")
    rows: dict[str, list[dict[str, Any]]] = {}
    for kind, who in zip((ApiPerson, PagePerson), made["people"], strict=True):
        person = kind(server.port, made["slug"], who, notes, random.Random(1))
        rows["API" if kind is ApiPerson else "page"] = walk(person, 2 * items)
    notes.close()
    gold = set(json.loads(server.run("-m", "benchmarks.gold_timing", "--tell-gold")))
    for through, answered in rows.items():
        for request in ("next", "bytes of next", "submit"):
            values = [(row[request], row["uid"] in gold) for row in answered if request in row]
            ours = [value for value, is_gold in values[UNHEARD:] if is_gold]
            theirs = [value for value, is_gold in values[UNHEARD:] if not is_gold]
            print(line(f"{through} {request}", ours, theirs), flush=True)


def walk(person: Person, n: int) -> list[dict[str, Any]]:
    """Judge n comparisons; for each its address and what could be observed about it.

    On the page the next one is fetched while the one before is shown: that request is about what
    `next` hands over afterwards.
    """
    answered: list[dict[str, Any]] = []
    fetched: dict[str, Any] = {}
    for _ in range(n):
        before = len(person.next_seconds)
        shown = person.next()
        if shown is None:
            break
        row: dict[str, Any] = {"uid": shown.uid} | fetched.pop(shown.uid, {})
        if len(person.next_seconds) > before:
            seen = {"next": 1000 * person.next_seconds[-1], "bytes of next": person.bytes_of_next}
            if not isinstance(person, PagePerson):
                row |= seen
            elif person.ahead is not None:
                fetched[person.ahead.uid] = seen
        before = len(person.submit_seconds)
        person.send(shown, {axis: person.order(shown.letters) for axis in AXES})
        if len(person.submit_seconds) > before:
            row["submit"] = 1000 * person.submit_seconds[-1]
        answered.append(row)
    return answered


def auc(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float]:
    """P(one of ours is larger than one of theirs), ties half; and 1.96 standard errors under chance."""
    values = sorted([(v, True) for v in ours] + [(v, False) for v in theirs])
    total, i = 0.0, 0
    while i < len(values):
        j = i
        while j < len(values) and values[j][0] == values[i][0]:
            j += 1
        rank = (i + 1 + j) / 2
        total += rank * sum(is_ours for _, is_ours in values[i:j])
        i = j
    n, m = len(ours), len(theirs)
    return (total - n * (n + 1) / 2) / (n * m), 1.96 * math.sqrt((n + m + 1) / (12 * n * m))


def line(name: str, ours: Sequence[float], theirs: Sequence[float]) -> str:
    value, reach = auc(ours, theirs)
    told = "" if abs(value - 0.5) <= reach else "   TELLS THEM APART"
    return (
        f"{name:<22}{statistics.median(ours):>9.2f}{statistics.median(theirs):>9.2f}{value:>8.3f}"
        f"   {0.5 - reach:.3f} … {0.5 + reach:.3f}  n={len(ours)}+{len(theirs)}{told}"
    )


def _in_the_servers_place(arguments: argparse.Namespace) -> None:
    """With the server's database: make gold that reads like the work, or say which was gold."""
    import django

    django.setup()
    from annotation.models import Assignment, Project
    from annotation.quality.gold_items import add_gold_items

    if arguments.tell_gold:
        rows = Assignment.objects.filter(comparison__gold__isnull=False)
        json.dump([str(uid) for uid in rows.values_list("uid", flat=True)], sys.stdout)
        return
    project = Project.objects.get(slug="load")
    project.gold_every = 2
    project.save()
    for first in range(0, arguments.make_gold, 1000):
        rows_of_gold = [
            {
                # Other words of the same length, with numbers spread as the work's are.
                "prompt": PROMPT.format(n=4 * n).replace("plants", "shrubs"),
                "responses": [ANSWER.format(n=1), ANSWER.format(n=2)],
                "ranks": [1, 2],
            }
            for n in range(first, min(first + 1000, arguments.make_gold))
        ]
        add_gold_items(project, rows_of_gold, None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
