"""Where a row stands in its primary key: captured with each change while a backfill of a grouped aggregate is due.

What tells it depends on the columns of the primary key, which an application must be free to change later, and makes
the changes of a group take more rows; so it is there no longer than needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from psycopg.sql import Identifier

from tallystick.compiler.building import building_objects, no_building_objects
from tallystick.compiler.snapshot import ColumnType, Snapshot, Source
from tallystick.compiler.text import canonical, fill
from tallystick.compiler.triggers import move_trigger
from tallystick.declare.names import internal_name, trigger_name
from tallystick.errors import InstallError
from tallystick.maintain.inspect import primary_key
from tallystick.store import aggregates, catalog, chunks, layouts, locks
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


def are_known(cursor: Cursor, schema: str, found: Installed) -> bool:
    """Each change that was captured since the backfill began tells where its row stands."""
    if found.ordering is not None:
        return True
    if not chunks.knows_places(cursor, schema, found) or chunks.has_misplaced(cursor, schema, found):
        return False
    key = catalog.primary_key(cursor, found.source_oid)
    view = catalog.qualified(schema, internal_name(found.name, "places"))
    if sorted(column for column, _ in catalog.view_used_columns(cursor, view, found.source_oid)) != sorted(key):
        return False
    is_used = set(key) <= set(aggregates.used_columns(cursor, schema, found))
    return is_used or _fires(cursor, schema, found) == "A"


def have_same_types(cursor: Cursor, schema: str, found: Installed) -> bool:
    """The primary key has the types that it had when the aggregate was installed."""
    types = _primary_key(cursor, schema, found)[1]
    return _as_stored(types) == _as_stored(chunks.place_types(cursor, schema, found.name))


def learn(cursor: Cursor, schema: str, found: Installed) -> None:
    """Have changes captured with the primary key of their row. Writers are kept out for a moment, if it is needed.

    Raises:
        SourceLocked: writers were in the source all the time.
        InstallError: the primary key is of other types than when the aggregate was installed.
    """
    if are_known(cursor, schema, found):
        return
    columns, types = _primary_key(cursor, schema, found)
    if _as_stored(types) != _as_stored(chunks.place_types(cursor, schema, found.name)):
        raise InstallError(
            f'aggregate "{found.name}": the primary key of {found.source} has other types than when it was installed.',
            hint=f"Run: tally backfill {found.name}. It counts all in one snapshot then; to go in chunks, uninstall and"
            " install it before.",
        )
    _forget(cursor, schema, found)
    source = Source(str(found.source), aggregates.used_columns(cursor, schema, found), False, None, types, columns)
    statements = [*building_objects(schema, found.name, source), *move_trigger(schema, found.name, source)]
    # The functions of capture run with the rights of their owner, and no other role may call what is made here.
    layouts.act_as_owner(cursor, schema, internal_name(found.name, "delta"))
    for statement in statements:
        cursor.execute(statement.sql)


def as_kept(cursor: Cursor, schema: str, found: Installed, snapshot: Snapshot) -> Snapshot:
    """What code is compiled from that goes with the tables of an aggregate, which may be older than its primary key.

    It captures no places: a backfill that is under way begins anew.
    """
    if found.ordering is not None:
        return snapshot
    types = chunks.place_types(cursor, schema, found.name) if chunks.has_chunks(cursor, schema, found.name) else ()
    return replace(snapshot, source=replace(snapshot.source, primary_key=types, key_columns=()))


def forget(cursor: Cursor, schema: str, name: str) -> None:
    """Have changes captured without it again, if a backfill has ended.

    Raises:
        SourceLocked: writers were in the source all the time.
        FoldLocked: another session folds the aggregate.
    """
    locks.lock_fold(cursor, schema, name)
    found = aggregates.get(cursor, schema, name)
    if found.is_complete and found.ordering is None and chunks.knows_places(cursor, schema, found):
        _forget(cursor, schema, found)


def _forget(cursor: Cursor, schema: str, found: Installed) -> None:
    source, trigger = str(found.source), _trigger(schema, found)
    if _fires(cursor, schema, found) is not None:
        locks.take_against_everyone(cursor, [source])
        cursor.execute(fill("DROP TRIGGER {g} ON {t}", g=Identifier(trigger), t=canonical(source)))
    else:
        locks.take_against_writers(cursor, source)
    for statement in no_building_objects(schema, found.name):
        cursor.execute(statement.sql)


def _trigger(schema: str, found: Installed) -> str:
    return trigger_name(schema, found.name, "move")


def _fires(cursor: Cursor, schema: str, found: Installed) -> str | None:
    """Whether the trigger of moves does, as `tgenabled` has it; None if there is none."""
    return catalog.triggers(cursor, [found.source_oid])[found.source_oid].get(_trigger(schema, found))


def _primary_key(cursor: Cursor, schema: str, found: Installed) -> tuple[tuple[str, ...], tuple[ColumnType, ...]]:
    cursor.execute(catalog.FIXED_PATH.sql)
    return primary_key(cursor, schema, found.name, found.source_oid, str(found.source))


def _as_stored(types: Sequence[ColumnType]) -> list[tuple[str, str | None]]:
    """What columns of ours tell of the types that they were made for: a domain is kept as what it is over."""
    return [(type_.stored, type_.collation) for type_ in types]
