"""Label Studio as an opponent: its server, its people, and a count of what it kept.

It is installed by whoever runs the benchmark, into a folder of its own:

    python3.11 -m venv LS && LS/bin/pip install label-studio==1.23.2 gunicorn

On SQLite it runs as `label-studio start`, on PostgreSQL under gunicorn with as many workers and
threads as ours.
"""

import http.client
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.load_people import Person, Refused, Shown
from benchmarks.load_queue import ANSWER, PROMPT
from benchmarks.load_server import Server

LABELS = (
    '<View><Text name="prompt" value="$prompt"/><Pairwise name="pw" toName="a,b"/>'
    '<Text name="a" value="$a"/><Text name="b" value="$b"/></View>'
)
# Runs inside Label Studio's own Python: people with tokens, in one organization.
PEOPLE = """
import json, sys, django
django.setup()
from organizations.models import Organization
from users.models import User
made = []
for number in range(int(sys.argv[1])):
    user = User.objects.create_user(email=f"person{number}@example.com", password="a long password")
    org = Organization.objects.first() or Organization.create_organization(
        created_by=user, title="Load", legacy_api_tokens_enabled=True)
    if number:
        org.add_user(user)
    user.active_organization = org
    user.save()
    made.append({"name": user.email, "id": user.pk, "token": user.auth_token.key})
print("PEOPLE " + json.dumps(made))
"""
IMPORT_AT_ONCE = 5000
START_SECONDS = 180.0


class LabelStudio(Server):
    """Started and stopped like our own server."""

    def __init__(self, home: Path, folder: Path, *, database: str = "", **options: Any) -> None:
        super().__init__(folder, database=database, **options)
        self.home, self.database = home, database
        found = sorted((home / "lib").glob("python3*/site-packages/label_studio"))
        if not found:
            raise SystemExit(f"There is no Label Studio in {home}: pip install label-studio there.")
        self.package = found[0]
        self.env = {
            name: os.environ[name]
            for name in ("PATH", "HOME", "LANG", "TMPDIR")
            if name in os.environ
        } | {
            "DJANGO_SETTINGS_MODULE": "core.settings.label_studio",
            "LABEL_STUDIO_BASE_DATA_DIR": str(folder),
            "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
            "COLLECT_ANALYTICS": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "LATEST_VERSION_CHECK": "false",
            "DEBUG": "false",
            "LOG_LEVEL": "ERROR",
        }
        if database:
            url = urlsplit(database)
            self.env |= {
                "DJANGO_DB": "default",
                "POSTGRE_NAME": url.path[1:],
                "POSTGRE_USER": url.username or "",
                "POSTGRE_PASSWORD": url.password or "",
                "POSTGRE_HOST": url.hostname or "",
                "POSTGRE_PORT": str(url.port or 5432),
            }
        else:
            self.env["DJANGO_DB"] = "sqlite"

    def inside(self, *command: str) -> str:
        done = subprocess.run(
            [str(self.home / "bin" / "python"), *command],
            cwd=self.package, env=self.env, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"Label Studio: {' '.join(command)[:80]}: {done.stderr[-3000:]}")
        return done.stdout

    def fill(self, **options: int) -> dict[str, Any]:
        """Migrate, make people; the queue comes through its API, so it must be started in between."""
        self.inside("manage.py", "migrate", "-v", "0")
        said = self.inside("-c", PEOPLE, str(options["people"]))
        people = json.loads(said.split("PEOPLE ", 1)[1])
        self.start()
        made = self._json(
            people[0], "POST", "/api/projects/",
            {
                "title": "Load", "label_config": LABELS, "sampling": "Sequential sampling",
                "maximum_annotations": options["overlap"],
            },
        )  # fmt: skip
        for start in range(0, options["comparisons"], IMPORT_AT_ONCE):
            rows = [
                {
                    "prompt": PROMPT.format(n=n),
                    "a": ANSWER.format(n=1),
                    "b": ANSWER.format(n=2),
                }
                for n in range(start, min(start + IMPORT_AT_ONCE, options["comparisons"]))
            ]
            self._json(people[0], "POST", f"/api/projects/{made['id']}/import", rows)
        return {"slug": str(made["id"]), "people": people}

    def start(self) -> None:
        if self.process is not None:
            return
        log = (self.folder / "label-studio.log").open("ab")
        binaries = self.home / "bin"
        command = (
            [
                str(binaries / "gunicorn"), "core.wsgi:application",
                "--bind", f"127.0.0.1:{self.port}", "--workers", str(self.workers),
                "--threads", str(self.threads), "--timeout", "120",
            ]
            if self.database
            else [
                str(binaries / "label-studio"), "start", "-p", str(self.port),
                "--internal-host", "127.0.0.1", "--no-browser", "--enable-legacy-api-token",
            ]
        )  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=self.package, env=self.env, stdout=log, stderr=log, start_new_session=True
        )
        log.close()
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                time.sleep(0.3)
            finally:
                connection.close()
        raise RuntimeError(f"Label Studio did not start; see {self.folder / 'label-studio.log'}.")

    def _json(self, who: dict[str, Any], method: str, path: str, body: Any) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request(method, path, json.dumps(body), headers_of(who))
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        if reply.status not in (200, 201):
            raise RuntimeError(f"Label Studio: {method} {path}: {reply.status} {text[:500]!r}")
        return json.loads(text)

    def kept(self, project: str) -> list[tuple[int, int, int]]:
        """(annotation, task, person) of every annotation in its database."""
        sql = (
            "SELECT id, task_id, completed_by_id FROM task_completion "
            f"WHERE project_id = {int(project)} AND NOT was_cancelled"
        )
        if self.database:
            import psycopg

            with psycopg.connect(self.database) as connection:
                return [(a, b, c) for a, b, c in connection.execute(sql).fetchall()]
        import sqlite3

        path = next(self.folder.glob("*.sqlite3"))
        connected = sqlite3.connect(path)
        try:
            return list(connected.execute(sql).fetchall())
        finally:
            connected.close()


def headers_of(who: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Token {who['token']}", "Content-Type": "application/json"}


class LabelStudioPerson(Person):
    """Asks for the next task and sends one annotation for it."""

    def next(self) -> Shown | None:
        path = f"/api/projects/{self.slug}/next"
        status, answer = self.ask("GET", path, None, headers_of(self.who), self.next_seconds)
        if status == 404:
            return None
        if status != 200:
            raise Refused(f"next: {status} {answer[:300]!r}")
        self.bytes_of_next = len(answer)
        return Shown(str(json.loads(answer)["id"]), ["A", "B"])

    def send(self, shown: Shown, ranks: dict[str, dict[str, int]]) -> None:
        better = "left" if ranks["helpfulness"]["A"] == 1 else "right"
        body = json.dumps(
            {
                "result": [
                    {
                        "from_name": "pw", "to_name": "pw", "type": "pairwise",
                        "value": {"selected": better},
                    }
                ],
                "lead_time": 3.5,
            }
        ).encode()  # fmt: skip
        path = f"/api/tasks/{shown.uid}/annotations/"
        status, answer = self.ask("POST", path, body, headers_of(self.who), self.submit_seconds)
        if status != 201:
            raise Refused(f"annotate: {status} {answer[:300]!r}")
        shown.key = str(json.loads(answer)["id"])

    def release(self, shown: Shown) -> None:
        """It has no such thing: a task stays locked until its lock runs out."""
