"""How fast a backfill goes on beside others: it rests after each chunk, and while replicas lag."""

from __future__ import annotations

import logging
import time
from threading import Event, Lock

from sqlalchemy import Engine

from tallystick.store import activity
from tallystick.store.connection import transaction

SHARE_BESIDE_WRITERS = 0.1
"""Of the time, of all workers together, while others write. On two cores 0.25 took a quarter of eight writers' rate."""
LAG_BYTES = 64 * 1024 * 1024
LOOK_AGAIN_S = 1.0
LOOKS = 60
"""After each chunk, at replicas that lag: a replica that replays late on purpose slows a backfill down, no more."""
_log = logging.getLogger(__name__)


class Pace:
    """Of all workers of one backfill together.

    Args:
        workers: how many there are.
        max_rows_per_second: as many at most. Beside writers it may be less, as without it.
        stop: ends all rests.
    """

    def __init__(self, engine: Engine, schema: str, workers: int, max_rows_per_second: int | None, stop: Event) -> None:
        self._engine, self._schema, self._most, self._stop = engine, schema, max_rows_per_second, stop
        self._workers = workers
        self._lock = Lock()
        self._free_at = time.monotonic()
        self._said: set[str] = set()

    def rest(self, rows: int, took_s: float) -> None:
        """Rest after so many rows, which took a worker so long."""
        rests = [self._until_allowed(rows)]
        with transaction(self._engine, read_only=True) as cursor:
            if activity.others_write(cursor, self._schema):
                rests.append(took_s * (self._workers / SHARE_BESIDE_WRITERS - 1))
        self._stop.wait(max(rests))
        for _ in range(LOOKS):
            if self._stop.is_set() or not self._lags():
                return
            self._stop.wait(LOOK_AGAIN_S)

    def _until_allowed(self, rows: int) -> float:
        """Seconds until the rows that all workers have counted are no more than allowed."""
        if self._most is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - LOOK_AGAIN_S) + rows / self._most
            return max(0.0, self._free_at - now)

    def _lags(self) -> bool:
        with transaction(self._engine, read_only=True) as cursor:
            lag = activity.replica_lag(cursor)
            if lag is None:
                self._once(
                    "The backfill does not rest for replicas: this role may not see how far they are. Run: %s",
                    activity.grant_to_see(cursor),
                )
                return False
        if lag > LAG_BYTES:
            self._once("The backfill rests: a replica has %s bytes of WAL to replay.", f"{lag:,}")
        return lag > LAG_BYTES

    def _once(self, message: str, value: str) -> None:
        with self._lock:
            is_new = message not in self._said
            self._said.add(message)
        if is_new:
            _log.warning(message, value)
