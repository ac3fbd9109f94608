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
_MENDING = ("repair", "backfill", "install", "redefine")
"""After these there is no drift: what is kept was computed anew, or the whole of it compared."""
_OF_DRIFT = ["verify", "drift", *_MENDING]
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

    What tells of drift, or ends it, waits for others that do, and so comes last in its transaction.

    Args:
        what: a verb, as the command line has it: install, backfill, rollback.
        detail: what JSON can hold; no values of the user's rows.
    """
    if aggregate is not None and what in _OF_DRIFT:
        _take_turn(cursor, schema, aggregate)
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
            " WHERE what = ANY ({of_drift}) AND (what <> 'verify' OR detail ->> 'status' IN ('exact', 'drift'))"
            " ORDER BY aggregate, id DESC) AS last WHERE (what = 'drift' OR detail ->> 'status' = 'drift')"
            " AND aggregate IN (SELECT name FROM {installed} UNION ALL SELECT name FROM {counter})",
            columns=_COLUMNS, event=Identifier(schema, "event"), of_drift=text_array(_OF_DRIFT),
            installed=Identifier(schema, "aggregate"), counter=Identifier(schema, "counter"),
        )
    ).fetchall()  # fmt: skip
    found = [Event(*row) for row in rows]
    return {event.aggregate: event for event in found if event.aggregate is not None}


def last_of_drift(cursor: Cursor, schema: str, name: str) -> int:
    """Id of the last event that tells whether an aggregate or counter drifts; 0 if there is none."""
    query = fill(
        "SELECT coalesce(max(id), 0) FROM {event} WHERE aggregate = {name} AND what = ANY ({of_drift})",
        event=Identifier(schema, "event"), name=literal(name), of_drift=text_array(_OF_DRIFT),
    )  # fmt: skip
    return int(one_row(cursor.execute(query))[0])


def is_contradicted(cursor: Cursor, schema: str, name: str, since: int, *, drifts: bool) -> bool:
    """Whether others have told since an event that it does not drift, or that it does; nobody does from here on.

    What was found in a snapshot from then must not be recorded then: a drift that was mended meanwhile is none, and one
    that was found meanwhile must not be followed by an "exact" from before.
    """
    _take_turn(cursor, schema, name)
    if drifts:
        told = fill("what = ANY ({mending}) OR detail ->> 'status' = 'exact'", mending=text_array(_MENDING))
    else:
        told = fill("what = 'drift' OR detail ->> 'status' = 'drift'")
    query = fill(
        "SELECT EXISTS (SELECT FROM {event} WHERE aggregate = {name} AND id > {since} AND ({told}))",
        event=Identifier(schema, "event"), name=literal(name), since=literal(since), told=told,
    )  # fmt: skip
    return bool(one_row(cursor.execute(query))[0])


def _take_turn(cursor: Cursor, schema: str, name: str) -> None:
    """Events that tell of drift are committed in the order of their ids. It is the last lock of a transaction."""
    key = f"tallystick drift {schema}.{name}"
    cursor.execute(fill("SELECT pg_advisory_xact_lock(hashtextextended({key}, 0))", key=literal(key)))


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
