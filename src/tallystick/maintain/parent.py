"""From a declared mirror to the parent table that takes the copies, and the columns by which a group finds it."""

from __future__ import annotations

from tallystick.compiler.snapshot import Mirror
from tallystick.declare.ordered import Kept
from tallystick.declare.sqltext import Shape, column_of
from tallystick.errors import DeclarationError, MissingPrivilege
from tallystick.store import catalog
from tallystick.store.connection import Cursor


def parent_of(cursor: Cursor, aggregate: Kept) -> str | None:
    """The parent's qualified name, found by the caller's search path; None if nothing is mirrored.

    Raises:
        DeclarationError: there is no such table, or no such column of it.
    """
    if aggregate.mirror is None:
        return None
    parent = catalog.qualified_name(cursor, aggregate.mirror.table)
    if parent is None:
        raise _refuse(aggregate, f"table {aggregate.mirror.table} does not exist", "Create it first.")
    has = catalog.columns_of(cursor, parent)
    for column in aggregate.mirror.columns.values():
        if column not in has:
            raise _refuse(
                aggregate, f'column "{column}" is not on {parent} (has: {", ".join(has)})', "Add it to the table first."
            )
    return parent


def mirror_of(cursor: Cursor, aggregate: Kept, shape: Shape, source: str, parent: str, used: tuple[str, ...]) -> Mirror:
    """Match the group keys with columns of the parent: by a foreign key of the source, else by its primary key.

    Raises:
        DeclarationError: they do not match, or a copy would change what is counted.
    """
    columns = aggregate.mirror.columns if aggregate.mirror is not None else {}
    required = _required(cursor, aggregate, shape, parent, columns)
    if parent == source and not set(used).isdisjoint(columns.values()):
        raise _refuse(
            aggregate, f"writes a column of {source} that the declaration reads", "Mirror into a column of its own."
        )
    grouped_by = [column_of(key.expression) for key in shape.keys]
    for there, here in catalog.parent_keys(cursor, source, parent):
        place: dict[str | None, str] = dict(zip(there, here, strict=False))
        if there and set(there) == set(grouped_by):
            return Mirror(parent, tuple(place[key] for key in grouped_by), columns, required)
        if not there and len(here) == len(grouped_by):
            return Mirror(parent, tuple(here), columns, required)
    raise _refuse(
        aggregate,
        f"finds no parent in {parent}: the group keys ({', '.join(key.name for key in shape.keys)}) are no foreign key,"
        " and not as many as the columns of its primary key",
        "Group by the parent's key.",
    )


def _required(cursor: Cursor, aggregate: Kept, shape: Shape, parent: str, columns: dict[str, str]) -> frozenset[str]:
    """The columns that take no NULL."""
    found = catalog.copied_columns(cursor, parent, list(columns.values()))
    for column, _, is_allowed in found:
        if not is_allowed:
            raise MissingPrivilege(
                f'aggregate "{aggregate.name}": mirror: no right to update {parent} ({column}).',
                hint=f"Ask its owner for: GRANT UPDATE ({column}) ON {parent}",
            )
    required = frozenset(column for column, is_required, _ in found if is_required)
    functions = {measure.name: measure.function for measure in shape.measures}
    for measure, column in columns.items():
        if column in required and functions[measure] in ("min", "max", "bool_and", "bool_or", "every"):
            raise _refuse(
                aggregate,
                f'column "{column}" of {parent} takes no NULL, and {measure} of a group without rows is NULL',
                f"Run: ALTER TABLE {parent} ALTER COLUMN {column} DROP NOT NULL",
            )
    return required


def _refuse(aggregate: Kept, what: str, instead: str) -> DeclarationError:
    return DeclarationError(f'aggregate "{aggregate.name}": mirror: {what}.', hint=instead)
