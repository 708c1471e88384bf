"""When to query a server: a rate limit, growing delays after failures, and pauses for all workers.

    Retry-After: 20        Retry-After: Wed, 21 Oct 2026 07:28:00 GMT
"""

from __future__ import annotations

import hashlib
import math
import re
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST = 60.0  # seconds of one delay


class Cancelled(Exception):
    """The run ended while a worker was waiting."""


class RateLimiter:
    """One limit shared by all workers."""

    def __init__(self, per_minute: float = math.inf):
        self.spacing = 60.0 / per_minute
        self.free_at = 0.0
        self.lock = threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Returns when this worker may send. No place is reserved, so a pause holds all waiters."""
        delay = 0.0
        while not stop.wait(delay):
            with self.lock:
                delay = self.free_at - time.monotonic()
                if delay <= 0:
                    self.free_at = time.monotonic() + self.spacing
                    return
        raise Cancelled

    def pause(self, seconds: float) -> None:
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic() + seconds)


def backoff(key: str, attempt: int, first: float) -> float:
    """Returns seconds before the next attempt: doubled each time, with jitter from a hash."""
    digest = hashlib.sha256(f"{key}\x1f{attempt}".encode()).digest()
    jitter = int.from_bytes(digest[:4], "little") / 2**32
    return min(LONGEST, first * 2.0 ** min(attempt, 30)) * (0.5 + jitter / 2)


def retry_after(header: str, now: datetime | None = None) -> float:
    """Returns the seconds of a Retry-After header (a number or an HTTP date); 0 if unreadable."""
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
