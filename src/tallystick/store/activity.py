"""What others do on the server."""

from __future__ import annotations

from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import named


def others_write(cursor: Cursor, schema: str) -> bool:
    """Somebody writes at this moment to tables of this database that are not of the schema of tallystick."""
    return bool(one_row(cursor.execute(named("others_write"), {"schema": schema}))[0])


def replica_lag(cursor: Cursor) -> int:
    """Bytes of WAL that the slowest connected replica has not replayed; 0 without one, or without the right to see."""
    return int(one_row(cursor.execute(named("replica_lag")))[0])
