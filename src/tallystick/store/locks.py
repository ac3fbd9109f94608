"""Locks: advisory ones among ourselves, and table locks that are taken at once or not at all."""

from __future__ import annotations

import psycopg
from psycopg.sql import SQL

from tallystick.compiler.text import canonical, fill
from tallystick.errors import FoldLocked, SourceLocked
from tallystick.store.connection import Cursor, one_row


def lock_installation(cursor: Cursor, schema: str) -> None:
    """Wait for other installers of this schema, for the rest of the transaction."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallystick install ' || %s, 0))", (schema,))


def lock_fold(cursor: Cursor, schema: str, name: str) -> None:
    """Be the only one that writes an aggregate's state, for the rest of the transaction.

    Raises:
        FoldLocked: someone else is; nothing is waited for.
    """
    cursor.execute(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('tallystick fold ' || %s || '.' || %s, 0))", (schema, name)
    )
    if not one_row(cursor)[0]:
        raise FoldLocked(
            f'aggregate "{name}": another session is folding or rebuilding it.', hint="Try again when it has ended."
        )


def lock_against_writers(cursor: Cursor, table: str) -> None:
    """Keep writers out of a table.

    Raises:
        SourceLocked: a writer is in it; nothing is waited for.
    """
    _lock(cursor, table, SQL("SHARE ROW EXCLUSIVE"))


def lock_out_everyone(cursor: Cursor, table: str) -> None:
    """Keep everyone out of a table.

    Raises:
        SourceLocked: someone is in it; nothing is waited for.
    """
    _lock(cursor, table, SQL("ACCESS EXCLUSIVE"))


def _lock(cursor: Cursor, table: str, mode: SQL) -> None:
    try:
        cursor.execute(fill("LOCK TABLE {t} IN {mode} MODE NOWAIT", t=canonical(table), mode=mode))
    except psycopg.errors.LockNotAvailable as error:
        raise SourceLocked(table) from error


def pause(cursor: Cursor, seconds: float) -> None:
    """Wait in the database, holding nothing."""
    cursor.execute("SELECT pg_sleep(%s)", (seconds,))
