"""A worker's heartbeat: a thread that renews the worker's row, also while a fold takes its time."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

import psycopg
from sqlalchemy import Engine

from tallystick.errors import TallyError
from tallystick.store import workers
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.connection import transaction
from tallystick.store.queries import PACKAGE_VERSION

_log = logging.getLogger("tallystick.worker")


class Heartbeat:
    """Keeps the row of this process in the table of workers, from `start` to `end`."""

    def __init__(self, engine: Engine, schema: str, doing: Callable[[], str | None]) -> None:
        self._engine, self._schema, self._doing = engine, schema, doing
        self._id: int | None = None
        self._is_reached = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Stop, and remove the row; if the database could not be reached the last time, whoever looks sees it lost."""
        self._ended.set()
        self._thread.join()
        if self._id is None or not self._is_reached:
            return
        try:
            with transaction(self._engine) as cursor:
                workers.end(cursor, self._schema, self._id)
        except (TallyError, psycopg.Error) as error:
            _log.warning("could not sign off; the worker will be taken for lost", extra={"error": str(error)})

    def _run(self) -> None:
        while True:
            try:
                self._beat()
                self._is_reached = True
            except (TallyError, psycopg.Error) as error:
                self._is_reached = False
                _log.warning("heartbeat failed", extra={"error": str(error).strip()})
            if self._ended.wait(workers.BEAT_S):
                return

    def _beat(self) -> None:
        with transaction(self._engine) as cursor:
            if self._id is not None and workers.beat(cursor, self._schema, self._id, self._doing()):
                return
            if is_schema_installed(cursor, self._schema):
                self._id = workers.begin(cursor, self._schema, socket.gethostname(), os.getpid(), PACKAGE_VERSION)
