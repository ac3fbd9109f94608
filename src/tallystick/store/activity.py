"""What others do on the server."""

from __future__ import annotations

from psycopg.sql import Identifier

from tallystick.compiler.text import fill
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import named


def others_write(cursor: Cursor, schema: str) -> bool:
    """Somebody writes at this moment to tables of this database that are not of the schema of tallystick."""
    return bool(one_row(cursor.execute(named("others_write"), {"schema": schema}))[0])


def replica_lag(cursor: Cursor) -> int | None:
    """Bytes of WAL that the slowest connected replica has not replayed, 0 without one.

    None if there is one, and the role is none of pg_read_all_stats: then nobody tells it how far that is.
    """
    (lag,) = one_row(cursor.execute(named("replica_lag")))
    return lag if lag is None else int(lag)


def sees_others(cursor: Cursor) -> bool:
    """Whether this role may see since when sessions of other roles are in a transaction, and which rows they hold."""
    return bool(one_row(cursor.execute("SELECT pg_has_role('pg_read_all_stats', 'USAGE')"))[0])


def grant_to_see(cursor: Cursor) -> str:
    """The statement that gives this role the right to."""
    (role,) = one_row(cursor.execute("SELECT current_user"))
    return fill("GRANT pg_read_all_stats TO {r}", r=Identifier(role)).as_string(None)
