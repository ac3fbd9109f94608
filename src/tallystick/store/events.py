"""The log of operations in the database: who did what to which aggregate, and when."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.sql import SQL, Identifier

from tallystick.compiler.text import fill, literal, text_array
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.connection import Cursor, one_row

PURGED_AT_ONCE = 10_000
"""Events deleted in one transaction."""
_MENDING = ["repair", "backfill", "install", "resume", "redefine"]
"""After these there is no drift: what is kept was computed or compared anew."""
_COLUMNS = SQL("at, role, application, what, aggregate, detail")


@dataclass(frozen=True, slots=True)
class Event:
    """One operation. `role` is the login role, `application` the session's application_name."""

    at: datetime
    role: str
    application: str
    what: str
    aggregate: str | None
    detail: dict[str, Any]


def record(cursor: Cursor, schema: str, what: str, aggregate: str | None = None, **detail: Any) -> None:
    """Log an operation in the transaction that carries it out: there is an event if, and only if, it happened.

    Args:
        what: a verb, as the command line has it: install, backfill, rollback.
        detail: what JSON can hold; no values of the user's rows.
    """
    cursor.execute(
        fill(
            "INSERT INTO {event} (what, aggregate, detail) VALUES ({what}, {aggregate}, {detail})",
            event=Identifier(schema, "event"), what=literal(what), aggregate=literal(aggregate),
            detail=literal(json.dumps(detail)),
        )
    )  # fmt: skip


def recent(cursor: Cursor, schema: str, limit: int = 100) -> list[Event]:
    """The last events, the latest first; none where nothing is installed."""
    if not is_schema_installed(cursor, schema):
        return []
    rows = cursor.execute(
        fill(
            "SELECT {columns} FROM {event} ORDER BY id DESC LIMIT {n}",
            columns=_COLUMNS, event=Identifier(schema, "event"), n=literal(limit),
        )
    ).fetchall()  # fmt: skip
    return [Event(*row) for row in rows]


def drifting(cursor: Cursor, schema: str) -> dict[str, Event]:
    """Verifications that found drift in what is installed, and nothing has been done about it since; by aggregate."""
    if not is_schema_installed(cursor, schema):
        return {}
    rows = cursor.execute(
        fill(
            "SELECT {columns} FROM (SELECT DISTINCT ON (aggregate) * FROM {event}"
            " WHERE what = 'verify' OR what = 'drift' OR what = ANY ({mending})"
            " ORDER BY aggregate, id DESC) AS last WHERE (what = 'drift' OR detail ->> 'status' = 'drift')"
            " AND aggregate IN (SELECT name FROM {installed} UNION ALL SELECT name FROM {counter})",
            columns=_COLUMNS, event=Identifier(schema, "event"), mending=text_array(_MENDING),
            installed=Identifier(schema, "aggregate"), counter=Identifier(schema, "counter"),
        )
    ).fetchall()  # fmt: skip
    found = [Event(*row) for row in rows]
    return {event.aggregate: event for event in found if event.aggregate is not None}


def last_mending(cursor: Cursor, schema: str, name: str) -> int:
    """Id of the last event after which there was no drift of an aggregate or counter; 0 if there is none."""
    query = fill(
        "SELECT coalesce(max(id), 0) FROM {event} WHERE aggregate = {name} AND what = ANY ({mending})",
        event=Identifier(schema, "event"), name=literal(name), mending=text_array(_MENDING),
    )  # fmt: skip
    return int(one_row(cursor.execute(query))[0])


def purge(cursor: Cursor, schema: str, older_than: timedelta) -> int:
    """Delete some of the events of that age, the oldest first; how many."""
    table = Identifier(schema, "event")
    cursor.execute(
        fill(
            "DELETE FROM {event} WHERE at < clock_timestamp() - make_interval(secs => {age})"
            " AND id = ANY (ARRAY(SELECT id FROM {event} ORDER BY id LIMIT {n}))",
            event=table, age=literal(round(older_than.total_seconds())), n=literal(PURGED_AT_ONCE),
        )
    )  # fmt: skip
    return cursor.rowcount
