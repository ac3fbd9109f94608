"""The table of running workers: each writes its own row, and takes it away when it ends by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.sql import Identifier

from tallystick.compiler.text import fill, literal
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.connection import Cursor, one_row

BEAT_S = 10.0
"""Between two heartbeats of a worker."""
LOST_S = 60
"""A worker that was not seen for so long is lost."""
FORGOTTEN_S = 3600
"""The row of a lost worker stays for so long, to be seen by whoever watches."""


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker by its row. `seen_s` is the age of its last heartbeat in seconds; `doing` is what it did then."""

    id: int
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_s: float
    doing: str | None

    @property
    def is_alive(self) -> bool:
        return self.seen_s < LOST_S


def begin(cursor: Cursor, schema: str, host: str, pid: int, version: str) -> int:
    """Write the row of a worker that starts, and remove those that were lost long ago; its id."""
    cursor.execute(
        fill(
            "DELETE FROM {t} WHERE seen_at < clock_timestamp() - make_interval(secs => {s})",
            t=Identifier(schema, "worker"), s=literal(FORGOTTEN_S),
        )
    )  # fmt: skip
    inserted = fill(
        "INSERT INTO {t} (host, pid, version) VALUES ({host}, {pid}, {version}) RETURNING id",
        t=Identifier(schema, "worker"), host=literal(host), pid=literal(pid), version=literal(version),
    )  # fmt: skip
    return int(one_row(cursor.execute(inserted))[0])


def beat(cursor: Cursor, schema: str, worker: int, doing: str | None) -> bool:
    """Renew a worker's row, without waiting for the disk; False if the row is gone."""
    cursor.execute("SET LOCAL synchronous_commit = off")
    cursor.execute(
        fill(
            "UPDATE {t} SET seen_at = clock_timestamp(), doing = {doing} WHERE id = {id}",
            t=Identifier(schema, "worker"), doing=literal(doing), id=literal(worker),
        )
    )  # fmt: skip
    return cursor.rowcount == 1


def end(cursor: Cursor, schema: str, worker: int) -> None:
    cursor.execute(fill("DELETE FROM {t} WHERE id = {id}", t=Identifier(schema, "worker"), id=literal(worker)))


def every(cursor: Cursor, schema: str) -> list[WorkerSeen]:
    """All workers by their start, lost ones among them; none where nothing is installed."""
    if not is_schema_installed(cursor, schema):
        return []
    rows = cursor.execute(
        fill(
            "SELECT id, host, pid, version, started_at,"
            " extract(epoch FROM clock_timestamp() - seen_at)::float8, doing FROM {t} ORDER BY id",
            t=Identifier(schema, "worker"),
        )
    ).fetchall()
    return [WorkerSeen(*row) for row in rows]
