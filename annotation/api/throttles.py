"""Rate limits whose counting costs almost nothing."""

import threading
from collections import deque
from typing import Any

from rest_framework.throttling import UserRateThrottle

PEOPLE_REMEMBERED = 10_000


class ExportThrottle(UserRateThrottle):
    """Whole datasets cost more to answer than rows do."""

    scope = "export"


class JudgingThrottle(UserRateThrottle):
    """The user rate, counted in this process's memory: the shared cache costs more than an answer.

    With several web processes a person may ask that many times more; it keeps a runaway script off
    and is no quota.
    """

    request_times: dict[str, "deque[float]"] = {}
    lock = threading.Lock()
    seconds_left = 0.0

    def allow_request(self, request: Any, view: Any) -> bool:
        who = self.get_cache_key(request, view)
        if self.rate is None or who is None:
            return True
        most, seconds = self.parse_rate(self.rate)
        if most is None or seconds is None:
            return True
        self.now = self.timer()
        with self.lock:
            if len(self.request_times) > PEOPLE_REMEMBERED:
                self.request_times.clear()
            times = self.request_times.setdefault(who, deque())
            while times and times[0] <= self.now - seconds:
                times.popleft()
            if len(times) >= most:
                self.seconds_left = seconds - (self.now - times[0]) if times else float(seconds)
                return False
            times.append(self.now)
        return True

    def wait(self) -> float | None:
        """Seconds until one more is allowed."""
        return self.seconds_left
