"""The table of schedules: tasks, and when each is due next, by the database's clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg.sql import SQL, Composed, Identifier

from tallystick.compiler.text import comma, fill, literal
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.connection import Cursor, one_row

_COLUMNS = SQL("name, cron, task, aggregate, key, due_at, done_at")


@dataclass(frozen=True, slots=True)
class Schedule:
    """A task at the times of a cron expression, which is in UTC.

    `task` is "reset" (of a counter, `aggregate`: one `key`, or all without it) or "verify" (of one aggregate, or of all
    without it). `due_at` is when it is done next; `done_at` when it was done last.
    """

    name: str
    cron: str
    task: str
    aggregate: str | None
    key: str | None
    due_at: datetime
    done_at: datetime | None = None


def now(cursor: Cursor) -> datetime:
    """The time by the database's clock, in UTC."""
    at: datetime = one_row(cursor.execute("SELECT clock_timestamp()"))[0]
    return at.astimezone(UTC)


def add(cursor: Cursor, schema: str, schedule: Schedule) -> bool:
    """Add a schedule; False if there is one of its name."""
    texts = (schedule.name, schedule.cron, schedule.task, schedule.aggregate, schedule.key, schedule.due_at.isoformat())
    cursor.execute(
        fill(
            "INSERT INTO {t} (name, cron, task, aggregate, key, due_at) VALUES ({values}) ON CONFLICT DO NOTHING",
            t=_table(schema), values=comma(literal(text) for text in texts),
        )
    )  # fmt: skip
    return cursor.rowcount == 1


def remove(cursor: Cursor, schema: str, name: str) -> bool:
    """Remove a schedule; False if there is none of this name."""
    cursor.execute(fill("DELETE FROM {t} WHERE name = {name}", t=_table(schema), name=literal(name)))
    return cursor.rowcount == 1


def every(cursor: Cursor, schema: str) -> list[Schedule]:
    """All schedules by name; none where nothing is installed."""
    return _read(cursor, schema, SQL("true")) if is_schema_installed(cursor, schema) else []


def due(cursor: Cursor, schema: str) -> list[Schedule]:
    """Those that are due, the longest due first; none where nothing is installed."""
    found = _read(cursor, schema, SQL("due_at <= clock_timestamp()")) if is_schema_installed(cursor, schema) else []
    return sorted(found, key=lambda schedule: schedule.due_at)


def if_due(cursor: Cursor, schema: str, name: str) -> Schedule | None:
    """One schedule, if it is still there and still due."""
    condition = fill("name = {name} AND due_at <= clock_timestamp()", name=literal(name))
    return next(iter(_read(cursor, schema, condition)), None)


def move_on(cursor: Cursor, schema: str, name: str, due_at: datetime) -> None:
    """Note that the task is done, and when it is due next."""
    cursor.execute(
        fill(
            "UPDATE {t} SET done_at = clock_timestamp(), due_at = {due_at} WHERE name = {name}",
            t=_table(schema), due_at=literal(due_at.isoformat()), name=literal(name),
        )
    )  # fmt: skip


def _read(cursor: Cursor, schema: str, condition: SQL | Composed) -> list[Schedule]:
    rows = cursor.execute(
        fill(
            "SELECT {columns} FROM {t} WHERE {condition} ORDER BY name",
            columns=_COLUMNS, t=_table(schema), condition=condition,
        )
    ).fetchall()  # fmt: skip
    return [Schedule(*row) for row in rows]


def _table(schema: str) -> Identifier:
    return Identifier(schema, "schedule")
