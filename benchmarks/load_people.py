"""Annotators as programs, over real HTTP: through the REST API, or through the page as a browser does.

A person notes what the server confirmed, so that `manage.py audit_judgments` can hold it against the
database. With `trouble` they also send twice, hang up before the reply, leave and come back late.
"""

import contextlib
import http.client
import json
import random
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

GIVE_UP_SECONDS = 120.0
REPLY_SECONDS = 60.0


class Refused(Exception):
    """The server answered something that no annotator should ever see."""


class Notes:
    """The file of acknowledgements, shared by all people; written through, line by line."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a", buffering=1, encoding="utf-8")
        self.lock = threading.Lock()

    def write(self, **row: Any) -> None:
        line = json.dumps(row)
        with self.lock:
            self.file.write(line + "\n")

    def close(self) -> None:
        self.file.close()


@dataclass
class Shown:
    """A comparison as one person has it: its address, its letters and the key of the answer."""

    uid: str
    letters: list[str]
    key: str = field(default_factory=lambda: str(uuid.uuid4()))
    form: dict[str, str] = field(default_factory=dict)


@dataclass
class Person:
    """One annotator. Times are seconds; a request that had to be repeated is not timed."""

    port: int
    slug: str
    who: dict[str, str]
    notes: Notes
    luck: random.Random
    trouble: bool = False
    next_seconds: list[float] = field(default_factory=list)
    submit_seconds: list[float] = field(default_factory=list)
    sent: int = 0
    repeated: int = 0
    dropped: int = 0
    late: int = 0
    bytes_of_next: int = 0
    _connection: http.client.HTTPConnection | None = None

    # --- What differs between the API and the page -------------------------------------------------

    def next(self) -> Shown | None:
        raise NotImplementedError

    def send(self, shown: Shown, ranks: dict[str, dict[str, int]]) -> None:
        raise NotImplementedError

    def release(self, shown: Shown) -> None:
        raise NotImplementedError

    # --- Work ---------------------------------------------------------------------------------------------

    def work(self, stop_at: float, most: int) -> None:
        """Judge until nothing is left, the clock (monotonic) says stop, or `most` are done."""
        while self.sent < most and time.monotonic() < stop_at:
            shown = self.next()
            if shown is None:
                return
            ranks = {axis: self.order(shown.letters) for axis in ("helpfulness", "safety")}
            if self.trouble and self.luck.random() < 0.05:
                self.release(shown)  # The answer comes after the place was given back.
                self.late += 1
            self.send(shown, ranks)
            self.notes.write(
                key=shown.key, assignment=shown.uid, annotator=self.who["name"], ranks=ranks
            )
            self.sent += 1

    def order(self, letters: list[str]) -> dict[str, int]:
        places = list(range(1, len(letters) + 1))
        self.luck.shuffle(places)
        return dict(zip(letters, places, strict=True))

    # --- HTTP -----------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: dict[str, str],
        timed: list[float] | None,
    ) -> tuple[int, bytes]:
        """One request, repeated until the server has answered; (status, body)."""
        give_up = time.monotonic() + GIVE_UP_SECONDS
        first = True
        while True:
            began = time.perf_counter()
            try:
                status, answer = self._once(method, path, body, headers)
            except (OSError, http.client.HTTPException):
                self._hang_up()
                status, answer = 0, b""
            if status and status < 500 and status != 429:
                if first and timed is not None:
                    timed.append(time.perf_counter() - began)
                return status, answer
            first = False
            self.repeated += 1
            if time.monotonic() > give_up:
                raise Refused(f"{method} {path}: {status} {answer[:300]!r}")
            time.sleep(0.05 + 0.2 * self.luck.random())

    def _once(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(
                "127.0.0.1", self.port, timeout=REPLY_SECONDS
            )
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def meddle(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        """What goes wrong before a good try: the reply is not waited for, or two are sent at once."""
        if not self.trouble:
            return
        turn = self.luck.random()
        if turn < 0.15:
            self.dropped += 1
            with contextlib.suppress(OSError):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request(method, path, body, headers)
                if turn < 0.08:
                    time.sleep(0.02 * self.luck.random())
                connection.close()
        elif turn < 0.35:
            again = threading.Thread(target=self._again, args=(method, path, body, headers))
            again.start()
            if turn < 0.2:
                again.join()

    def _again(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REPLY_SECONDS)
            connection.request(method, path, body, headers)
            connection.getresponse().read()
            connection.close()


class ApiPerson(Person):
    """Works through /api/v1/ with a token."""

    def _headers(self) -> dict[str, str]:
        return {
            "Authorization": f"Token {self.who['token']}",
            "Content-Type": "application/json",
        }

    def next(self) -> Shown | None:
        path = f"/api/v1/projects/{self.slug}/judging/next/"
        if self.trouble and self.luck.random() < 0.1:
            self.meddle("POST", path, b"", self._headers())
        status, answer = self.ask("POST", path, b"", self._headers(), self.next_seconds)
        if status == 204:
            return None
        if status != 200:
            raise Refused(f"next: {status} {answer[:300]!r}")
        self.bytes_of_next = len(answer)
        shown = json.loads(answer)
        return Shown(shown["uid"], [one["letter"] for one in shown["responses"]])

    def send(self, shown: Shown, ranks: dict[str, dict[str, int]]) -> None:
        path = f"/api/v1/projects/{self.slug}/judging/{shown.uid}/submit/"
        body = json.dumps({"key": shown.key, "ranks": ranks, "seconds": 3.5}).encode()
        self.meddle("POST", path, body, self._headers())
        status, answer = self.ask("POST", path, body, self._headers(), self.submit_seconds)
        if status != 200:
            raise Refused(f"submit: {status} {answer[:300]!r}")

    def release(self, shown: Shown) -> None:
        path = f"/api/v1/projects/{self.slug}/judging/{shown.uid}/release/"
        self.ask("POST", path, b"", self._headers(), None)


class PagePerson(Person):
    """Works through the judge page as its script does: the next comparison is fetched ahead."""

    ahead: Shown | None = None
    current: Shown | None = None

    def _headers(self, *, posts: bool = False) -> dict[str, str]:
        token = "a" * 32
        headers = {"Cookie": f"sessionid={self.who['session']}; csrftoken={token}"}
        if posts:
            headers |= {
                "X-CSRFToken": token,
                "Content-Type": "application/x-www-form-urlencoded",
                "Accept": "application/json",
            }
        return headers

    def next(self) -> Shown | None:
        """The first comparison comes with the page, every other by `after` of the one before."""
        if self.ahead is None:
            path = f"/projects/{self.slug}/judge/"
            status, answer = self.ask("GET", path, None, self._headers(), None)
            if status != 200:
                raise Refused(f"judge: {status} {answer[:300]!r}")
            self.ahead = self._read(answer)
            if self.ahead is None:
                return None
        current, self.ahead = self.ahead, None
        path = f"/projects/{self.slug}/judge/{current.uid}/after/"
        status, answer = self.ask("GET", path, None, self._headers(), self.next_seconds)
        if status not in (200, 204):
            raise Refused(f"after: {status} {answer[:300]!r}")
        if status == 200:
            self.bytes_of_next = len(answer)
            self.ahead = self._read(answer)
        return current

    def _read(self, page: bytes) -> Shown | None:
        html = page.decode()
        uid = re.search(r'data-uid="([0-9a-f-]{36})"', html)
        key = re.search(r'name="key" value="([0-9a-f-]{36})"', html)
        letters = re.findall(r'class="response[^"]*" data-letter="([A-I])"', html)
        return Shown(uid[1], letters, key[1]) if uid and key else None

    def send(self, shown: Shown, ranks: dict[str, dict[str, int]]) -> None:
        path = f"/projects/{self.slug}/judge/{shown.uid}/"
        fields = {"act": "send", "key": shown.key, "seconds": "3.5"}
        for axis, of in ranks.items():
            fields |= {f"rank-{axis}-{letter}": str(rank) for letter, rank in of.items()}
        body, headers = urlencode(fields).encode(), self._headers(posts=True)
        self.meddle("POST", path, body, headers)
        status, answer = self.ask("POST", path, body, headers, self.submit_seconds)
        if status != 200 or not json.loads(answer).get("sent"):
            raise Refused(f"send: {status} {answer[:300]!r}")

    def release(self, shown: Shown) -> None:
        path = f"/projects/{self.slug}/judge/{shown.uid}/"
        body = urlencode({"act": "release", "json": "1"}).encode()
        self.ask("POST", path, body, self._headers(posts=True), None)
