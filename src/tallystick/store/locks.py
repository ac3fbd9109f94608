"""Locks: advisory ones among ourselves; on sources, those that keep others out are taken at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from tallystick.compiler.text import Statement, canonical, comma, fill, literal
from tallystick.declare.names import fold_lock_key
from tallystick.errors import FoldLocked, SourceLocked
from tallystick.store import catalog
from tallystick.store.connection import Cursor, one_row

TRIES = 50
PAUSE_S = 0.01
BRIEFLY = "20ms"
"""How long others may stand behind us, where PostgreSQL asks for a lock itself and waits for it."""


def lock_installation(cursor: Cursor, schema: str) -> None:
    """Wait for other installers of this schema, for the rest of the transaction, and know what they have made.

    Who has waited for an advisory lock is not told of tables that came or went meanwhile, and goes by what the session
    remembers; the first lock of a table in a transaction tells. That of a catalog nobody else of us reads is the first.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallystick install ' || %s, 0))", (schema,))
    cursor.execute("SELECT FROM pg_catalog.pg_tablespace LIMIT 0")


def lock_fold(cursor: Cursor, schema: str, name: str) -> None:
    """Be the only one that writes an aggregate's state, for the rest of the transaction.

    Raises:
        FoldLocked: someone else is; nothing is waited for.
    """
    cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (fold_lock_key(schema, name),))
    if not one_row(cursor)[0]:
        raise FoldLocked(
            f'aggregate "{name}": another session is folding or rebuilding it.', hint="Try again when it has ended."
        )


def claim(cursor: Cursor, schema: str, task: str) -> bool:
    """Whether a task is ours for the rest of the transaction; nobody is waited for."""
    key = f"tallystick task {schema} {task}"
    return bool(one_row(cursor.execute("SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (key,)))[0])


def against_writers(table: str, *, only: bool = False) -> Statement:
    """Keeps writers out of a table until the end of the transaction; fails at once if one is in it.

    Args:
        only: of a partitioned table, not of its partitions.
    """
    which = fill("ONLY {t}" if only else "{t}", t=canonical(table))
    return Statement("no writer in the table", fill("LOCK TABLE {t} IN SHARE ROW EXCLUSIVE MODE NOWAIT", t=which))


def against_everyone(tables: Sequence[str]) -> Statement:
    """Keeps everyone out of tables until the end of the transaction; fails at once if anyone is in one."""
    return Statement(
        "nobody in the tables",
        fill("LOCK TABLE {t} IN ACCESS EXCLUSIVE MODE NOWAIT", t=comma(canonical(table) for table in tables)),
    )


def hold_state(cursor: Cursor, state: str) -> None:
    """Keep folds out of the state, which writers never touch."""
    cursor.execute(fill("LOCK TABLE {t} IN SHARE ROW EXCLUSIVE MODE", t=canonical(state)))


def hold_source(cursor: Cursor, source: str, *, at_once: bool = False) -> None:
    """Keep a table from being emptied or written anew; writers and readers go on.

    LOCK takes no snapshot. After TRUNCATE and after an ALTER TABLE that writes it anew, a table is empty for snapshots
    that are older; that of a transaction which begins with this is not.

    Args:
        at_once: do not wait for who empties it or writes it anew.
    Raises:
        SourceLocked: somebody does, and is not waited for.
    """
    if not at_once:
        cursor.execute(fill("LOCK TABLE {t} IN ACCESS SHARE MODE", t=canonical(source)))
        return
    try:
        cursor.execute(fill("LOCK TABLE {t} IN ACCESS SHARE MODE NOWAIT", t=canonical(source)))
    except psycopg.errors.LockNotAvailable as error:
        raise SourceLocked(source, by_readers=False) from error


def hold_partitions(cursor: Cursor, source: str, partition: str) -> None:
    """Keep the partitions of a table as they are, and a TRUNCATE of one of them from beginning; writers go on.

    LOCK takes no snapshot, so the one of a transaction that begins with this is younger than both locks.

    Raises:
        SourceLocked: somebody attaches, detaches or truncates.
    """
    try:
        cursor.execute(fill("LOCK TABLE ONLY {t} IN SHARE UPDATE EXCLUSIVE MODE NOWAIT", t=canonical(source)))
    except psycopg.errors.LockNotAvailable as error:
        raise SourceLocked(source, by_readers=False) from error
    # Waiting for a TRUNCATE, whose transaction goes on to the whole table, would be a deadlock.
    hold_source(cursor, partition, at_once=True)


def take_against_writers(cursor: Cursor, table: str, *, only: bool = False) -> None:
    """Keep writers out, within half a second, never by waiting in the queue: that would make others wait behind us.

    Raises:
        SourceLocked: writers were in the table each time.
    """
    _take(cursor, [against_writers(table, only=only)], SourceLocked(table, by_readers=False))


def take_alone(cursor: Cursor, parent: str, partition: str) -> None:
    """Keep everyone out of a partition and of its parent, not of the parent's other partitions.

    Raises:
        SourceLocked: somebody was in one of them each time.
    """
    tables = fill("ONLY {parent}, {p}", parent=canonical(parent), p=canonical(partition))
    alone = fill("LOCK TABLE {t} IN ACCESS EXCLUSIVE MODE NOWAIT", t=tables)
    _take(cursor, [Statement("nobody in the partition", alone)], SourceLocked(parent, by_readers=True))


def take_against_everyone(cursor: Cursor, tables: Sequence[str]) -> None:
    """The same against everyone, for all tables at once; the last is named if it fails.

    Raises:
        SourceLocked: someone was in the table each time.
    """
    _take(cursor, [against_everyone(tables)], SourceLocked(tables[-1], by_readers=True))


@contextmanager
def briefly(cursor: Cursor, relation: str) -> Iterator[None]:
    """Statements that lock by themselves wait no longer than others may stand behind us; for views, above all.

    LOCK … NOWAIT of a view would lock the tables below it as well.

    Raises:
        SourceLocked: somebody is in the relation, by the name of which the failure is told.
    """
    before = one_row(cursor.execute("SELECT current_setting('lock_timeout')"))
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", (BRIEFLY,))
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        raise SourceLocked(relation, by_readers=True) from error
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", before)


def take_with_views(cursor: Cursor, views: Sequence[str], tables: Sequence[str]) -> None:
    """The same for views and tables; nothing in the rest of the transaction waits for a lock longer than for a view.

    Busy views are never without a reader, so whoever is in one is waited for, `BRIEFLY` at most; whoever comes
    meanwhile waits behind us. Nothing is tried while somebody is there who looks like staying.

    Args:
        views: each before those that it reads, as readers take them.
    Raises:
        SourceLocked: someone was in one of them each time; the last table is named.
    """
    timeout = Statement("not for long", fill("SET LOCAL lock_timeout = {ms}", ms=literal(BRIEFLY)))
    alone = [
        # LOCK would take all that a view reads as well, the catalog's own tables among it. Ours have no such option.
        Statement("nobody in a view", fill("ALTER VIEW {v} RESET (check_option)", v=canonical(view)))
        for view in views
    ]
    failure = SourceLocked(tables[-1], by_readers=True)
    _take(cursor, [timeout, *alone, against_everyone(tables)], failure, unless_held=views)


def _take(
    cursor: Cursor, locks: Sequence[Statement], failure: SourceLocked, *, unless_held: Sequence[str] = ()
) -> None:
    for _ in range(TRIES):
        if unless_held and catalog.are_held(cursor, unless_held):
            pause(cursor, PAUSE_S)
            continue
        try:
            with cursor.connection.transaction():
                for lock in locks:
                    cursor.execute(lock.sql)
            return
        except psycopg.errors.LockNotAvailable:
            pause(cursor, PAUSE_S)
    raise failure


def pause(cursor: Cursor, seconds: float) -> None:
    """Wait in the database."""
    cursor.execute("SELECT pg_sleep(%s)", (seconds,))
