"""What redefining and renaming have in common: the objects of an aggregate take other names while nobody is in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg.sql import SQL

from tallystick.compiler.removal import UNDER_VIEWS
from tallystick.compiler.replacement import Objects
from tallystick.compiler.text import Statement
from tallystick.declare.sqltext import shape_of
from tallystick.errors import SourceLocked
from tallystick.maintain import install
from tallystick.store import catalog
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor
from tallystick.store.locks import lock_fold, take_with_views


def objects_of(found: Installed) -> Objects:
    """What an installed aggregate has in the database."""
    return Objects(found.name, shape_of(found.name, found.definition), found.order)


def triggers_of(cursor: Cursor, schema: str, *objects: Objects) -> list[tuple[str, str]]:
    """Tables and their triggers that call functions of aggregates."""
    return catalog.calling(cursor, schema, [name for each in objects for name in each.functions])


def under_views(cursor: Cursor, schema: str, objects: Objects) -> list[str]:
    """The functions that are there and that views need."""
    names = objects.functions[-len(UNDER_VIEWS) :]
    missing = catalog.missing(cursor, schema, [], names)
    return [name for name in names if f"{name}()" not in missing]


def move(
    cursor: Cursor,
    schema: str,
    found: Installed,
    objects: Sequence[Objects],
    triggers: Sequence[tuple[str, str]],
    statements: Iterable[Statement],
) -> None:
    """Run statements while nobody is in an aggregate, its next version if it has one, and their sources.

    Writers and readers wait as long as this takes; so everything is thought of before, and sent at once.

    Raises:
        FoldLocked: another session folds one of them.
        SourceLocked: somebody was in one of them each time.
        InstallError: PostgreSQL refuses a statement.
    """
    everything = SQL(";\n").join(statement.sql for statement in [catalog.FIXED_PATH, *statements])
    moving = Statement("all objects at once", everything)
    for each in objects:
        lock_fold(cursor, schema, each.name)
    tables = catalog.present(cursor, schema, [name for each in objects for name in each.tables])
    views = catalog.present(cursor, schema, [*objects[0].views, *objects[0].inner_views])
    take_with_views(cursor, views, [*tables, *dict.fromkeys(table for table, _ in triggers)])
    try:
        install.run_step(cursor, found.name, moving)
    except psycopg.errors.LockNotAvailable as error:
        raise SourceLocked(str(found.source), by_readers=True) from error
