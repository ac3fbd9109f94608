"""How fast a backfill goes on beside others: it rests after each chunk, and while replicas lag."""

from __future__ import annotations

import time
from threading import Event, Lock

from sqlalchemy import Engine

from tallystick.store import activity
from tallystick.store.connection import transaction

SHARE_BESIDE_WRITERS = 0.1
"""Of the time, of all workers together, while others write. On two cores 0.25 took a quarter of eight writers' rate."""
LAG_BYTES = 64 * 1024 * 1024
LOOK_AGAIN_S = 1.0


class Pace:
    """Of all workers of one backfill together.

    Args:
        workers: how many there are.
        max_rows_per_second: as many at most; as many as can be without it.
        stop: ends all rests.
    """

    def __init__(self, engine: Engine, schema: str, workers: int, max_rows_per_second: int | None, stop: Event) -> None:
        self._engine, self._schema, self._most, self._stop = engine, schema, max_rows_per_second, stop
        self._workers = workers
        self._lock = Lock()
        self._free_at = time.monotonic()

    def rest(self, rows: int, took_s: float) -> None:
        """Rest after so many rows, which took a worker so long."""
        rests = [self._until_allowed(rows)]
        with transaction(self._engine, read_only=True) as cursor:
            if activity.others_write(cursor, self._schema):
                rests.append(took_s * (self._workers / SHARE_BESIDE_WRITERS - 1))
        self._stop.wait(max(rests))
        while not self._stop.is_set() and self._lags():
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
            return activity.replica_lag(cursor) > LAG_BYTES
