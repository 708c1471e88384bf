"""When to ask a server: not more often than agreed, later after a failure, and for all workers later if it says so.

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

LONGEST = 60.0  # seconds of one back-off


class Stopped(Exception):
    """The run has ended while a worker waited."""


class Pace:
    """One gate for all workers."""

    def __init__(self, per_minute: float = math.inf):
        self.spacing, self.free_at, self.lock = 60.0 / per_minute, 0.0, threading.Lock()

    def wait(self, stop: threading.Event) -> None:
        """Until this worker may ask. Nobody holds a place in a queue, so a pause reaches those who wait already."""
        delay = 0.0
        while not stop.wait(delay):
            with self.lock:
                delay = self.free_at - time.monotonic()
                if delay <= 0:
                    self.free_at = time.monotonic() + self.spacing
                    return
        raise Stopped

    def pause(self, seconds: float) -> None:
        with self.lock:
            self.free_at = max(self.free_at, time.monotonic() + seconds)


def backoff(key: str, attempt: int, first: float) -> float:
    """Seconds before the next attempt: doubling, and spread by a share that depends on the request alone."""
    share = int.from_bytes(hashlib.sha256(f"{key}\x1f{attempt}".encode()).digest()[:4], "little") / 2**32
    return min(LONGEST, first * 2.0 ** min(attempt, 30)) * (0.5 + share / 2)


def retry_after(header: str, now: datetime | None = None) -> float:
    """The seconds of a Retry-After header, a number or an HTTP date; 0 where it says nothing that can be read."""
    if re.fullmatch(r"\d+(\.\d+)?", header.strip()):
        return float(header)
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())
