"""Dead rows of our tables, over which reads walk, and what keeps VACUUM from taking them away."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Identifier

from tallystick.compiler.text import fill
from tallystick.maintain.checks.finding import Finding
from tallystick.store import activity, health
from tallystick.store.connection import Cursor

MANY_DEAD = 20_000
"""Twice as many as deltas are vacuumed at."""


def of_dead_rows(cursor: Cursor, schema: str) -> Iterator[Finding]:
    """Tables with many of them, and the oldest snapshot there is, which VACUUM leaves everything to."""
    tables = health.dead_rows(cursor, schema, MANY_DEAD)
    holder = health.oldest_holder(cursor) if tables else None
    for table, dead in tables:
        what = f"{dead:,} dead rows, over which reads walk"
        if holder is None and not activity.sees_others(cursor):
            said = (
                f"{what}: autovacuum has not come to it yet, or has to leave them to somebody whom this role cannot see"
            )
            yield Finding("advice", table, said, activity.grant_to_see(cursor))
        elif holder is None:
            vacuum = fill("VACUUM {t}", t=Identifier(schema, table)).as_string(None)
            yield Finding("advice", table, f"{what}: autovacuum has not come to it yet", vacuum)
        else:
            yield Finding("advice", table, f"{what}; VACUUM has to leave them to {holder.who}", holder.remedy)
