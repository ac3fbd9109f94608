"""How a long-running command ends in time: the work at hand is finished, and cancelled if that takes too long.

All work is done in transactions, so whatever is cancelled is as if it had not begun.
"""

from __future__ import annotations

import threading
from typing import Any

import psycopg
from sqlalchemy import Engine, event

GRACE_S = 3.0
"""What the work at hand may take once the end is asked for."""
CANCEL_EVERY_S = 0.25
_CANCEL_TIMEOUT_S = 1.0

_Connection = psycopg.Connection[Any]


class Stop:
    """A request to end, from any thread or signal handler, over the connections that an engine has lent."""

    def __init__(self, engine: Engine, *, grace_s: float = GRACE_S) -> None:
        self._requested, self._over = threading.Event(), threading.Event()
        self._grace_s = grace_s
        self._lent: set[_Connection] = set()
        event.listen(engine, "checkout", self._lend)
        event.listen(engine, "checkin", self._take_back)
        event.listen(engine, "invalidate", self._take_back)

    def is_requested(self) -> bool:
        return self._requested.is_set()

    def request(self) -> None:
        """Ask for the end. Statements that still run after the grace are cancelled, again and again until `over`."""
        if not self._requested.is_set():
            self._requested.set()
            threading.Thread(target=self._cancel_at_last, name="cancel", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until the end is asked for; whether it is."""
        return self._requested.wait(seconds)

    def over(self) -> None:
        """The work has ended; what follows is not cancelled."""
        self._over.set()

    def _cancel_at_last(self) -> None:
        wait_s = self._grace_s
        while not self._over.wait(wait_s):
            for connection in tuple(self._lent):
                if not connection.closed:
                    connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            wait_s = CANCEL_EVERY_S

    def _lend(self, connection: _Connection, *_: object) -> None:
        self._lent.add(connection)

    def _take_back(self, connection: _Connection | None, *_: object) -> None:
        if connection is not None:
            self._lent.discard(connection)
