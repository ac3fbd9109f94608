"""How a long-running command ends in time: the work at hand is finished, and cancelled if that takes too long.

All work is done in transactions, so whatever is cancelled is as if it had not begun.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

import psycopg
from sqlalchemy import Engine, event

GRACE_S = 2.0
"""What the work at hand may take once the end is asked for."""
CANCELS = 2
"""So often a statement is cancelled. After that its connection is cut off: the server does not answer."""
_CANCEL_EVERY_S = 0.25
_CANCEL_TIMEOUT_S = 0.25

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
        """Ask for the end. Statements that still run after the grace are cancelled, until `over`."""
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
        wait_s, cancels = self._grace_s, 0
        while not self._over.wait(wait_s):
            for connection in tuple(self._lent):
                if cancels < CANCELS:
                    with suppress(psycopg.Error):  # the server is not there: the connection is cut off soon
                        connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
                else:
                    _cut_off(connection)
            wait_s, cancels = _CANCEL_EVERY_S, cancels + 1

    def _lend(self, connection: _Connection, *_: object) -> None:
        self._lent.add(connection)

    def _take_back(self, connection: _Connection | None, *_: object) -> None:
        if connection is not None:
            self._lent.discard(connection)


def _cut_off(connection: _Connection) -> None:
    """End whatever waits for a server that says nothing. The server rolls back when it notices."""
    with suppress(psycopg.OperationalError, OSError), socket.socket(fileno=os.dup(connection.pgconn.socket)) as ours:
        ours.shutdown(socket.SHUT_RDWR)
