"""What is refused at install because kept and direct could come to differ, or a user's write could fail."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg.sql import Composable, Identifier

from tallystick.compiler.removal import read_names
from tallystick.compiler.snapshot import ColumnType
from tallystick.compiler.text import canonical, fill
from tallystick.declare.ordered import Kept, Ordered
from tallystick.declare.sqltext import Shape
from tallystick.errors import DeclarationError
from tallystick.store import catalog
from tallystick.store.catalog import Relation, ViewColumn
from tallystick.store.connection import Cursor

_SETTINGS = {
    "bytea_output": ("the text of a bytea", "Use encode(…, 'hex')."),
    "quote_all_identifiers": ("quote_ident()", "Keep the name itself and quote it when reading."),
}


def refuse_foreign_code(cursor: Cursor, aggregate: Kept, view: str) -> None:
    for what, owner in catalog.view_foreign_code(cursor, view):
        raise DeclarationError(
            f'aggregate "{aggregate.name}": {what} belongs to {owner}, who could redefine it and run code'
            " as the installer.",
            hint="Use code that belongs to the installing role or to a superuser.",
        )


def refuse_other_operators(aggregate: Kept, declared: set[tuple[int, str]] | None, found: set[tuple[int, str]]) -> None:
    if declared is not None and declared != found:
        names = ", ".join(sorted(name for _, name in declared ^ found))
        raise DeclarationError(
            f'aggregate "{aggregate.name}": IS DISTINCT FROM, NULLIF or CASE … WHEN uses {names}, which its canonical'
            " text does not name.",
            hint="Write the comparison with OPERATOR(schema.=).",
        )


def refuse_settings(cursor: Cursor, aggregate: Kept, view: str) -> None:
    for setting in catalog.view_settings(cursor, view):
        what, instead = _SETTINGS[setting]
        raise DeclarationError(
            f'aggregate "{aggregate.name}": {what} depends on the setting {setting} of each session.', hint=instead
        )


def refuse_virtual(aggregate: Kept, used: list[tuple[str, str]]) -> None:
    for name, generated in used:
        if generated == "v":
            raise DeclarationError(
                f'aggregate "{aggregate.name}": column "{name}" is a virtual generated column.',
                hint="Write its expression in the declaration, or make the column STORED.",
            )


def try_on_rows(cursor: Cursor, aggregate: Kept, query: Composable) -> None:
    """Compute the expressions of some rows as the triggers will: an error there would fail a user's write."""
    try:
        with cursor.connection.transaction():
            cursor.execute(fill("SELECT * FROM ({query}) AS q LIMIT 100", query=query))
    except (psycopg.errors.InsufficientPrivilege, psycopg.OperationalError):  # a time-out, a lost connection
        raise
    except psycopg.Error as error:
        raise DeclarationError(
            f'aggregate "{aggregate.name}": its expressions fail on rows of the table when names resolve in pg_catalog'
            f" only, as in a trigger: {error.diag.message_primary}.",
            hint="Functions of your own need ALTER FUNCTION … SET search_path, or qualified names inside.",
        ) from error


def refuse_unhashable(cursor: Cursor, aggregate: Kept, columns: list[ViewColumn]) -> None:
    """Groups are found again by a hash of their key, values of a count(DISTINCT …) by one of key and value."""
    for column in columns:
        # Functions in SQL and the like are not told that the seed is given, and then give NULL for a hash.
        is_hashable = column.hashed_in in (None, "internal", "c")
        with suppress(psycopg.errors.UndefinedFunction), cursor.connection.transaction():
            cursor.execute(fill("SELECT hash_record_extended(ROW(NULL::{t}), 0)", t=canonical(column.type.base)))
            if is_hashable:
                continue
        raise DeclarationError(
            f'aggregate "{aggregate.name}": values of type {column.type.text} cannot be hashed'
            + ("." if is_hashable else f" by a function in {column.hashed_in}."),
            hint="Cast the expression to a type that can be, such as text.",
        )


def refuse_other_primary_key(cursor: Cursor, aggregate: Ordered, source: Relation) -> None:
    """Ties are broken by the primary key, so the declared one must be the table's."""
    found, declared = catalog.primary_key(cursor, source.oid), list(aggregate.ordering.primary_key)
    if found != declared:
        raise DeclarationError(
            f'aggregate "{aggregate.name}": the primary key of {source.name} is ({", ".join(found) or "none"}),'
            f" declared is ({', '.join(declared)}).",
            hint="Give the class the primary key of its table"
            if found
            else fill("Run: ALTER TABLE {t} ADD PRIMARY KEY (…)", t=canonical(source.name)).as_string(None),
        )


def refuse_arrays(aggregate: Ordered, keys: Sequence[ColumnType]) -> None:
    """An array of arrays is one array of more dimensions, and places are gathered in arrays."""
    for key in keys:
        if key.base.endswith("[]"):
            raise DeclarationError(
                f'aggregate "{aggregate.name}": values of the array type {key.text} cannot be ordered by.',
                hint="Order by an element, or by array_to_string(…) as a generated column.",
            )


def refuse_taken_functions(cursor: Cursor, aggregate: Ordered, installed_as: str) -> None:
    """Two functions of one name would have to be told apart by their arguments."""
    names = read_names(installed_as, aggregate.shape, aggregate.ordering)
    missing = catalog.missing(cursor, aggregate.schema, [], names)
    taken = [name for name in names if f"{name}()" not in missing]
    for name in taken or {name for name in names if names.count(name) > 1}:
        raise DeclarationError(
            f'aggregate "{aggregate.name}": a function "{name}" is in schema "{aggregate.schema}" already, or would be'
            " there twice.",
            hint="Rename the aggregate or the sum.",
        )


def refuse_composite(aggregate: Kept, columns: list[ViewColumn]) -> None:
    """A row with a NULL in it is neither NULL nor not NULL, and a row of NULLs is NULL and counted."""
    for column in columns:
        if column.type.is_composite:
            raise DeclarationError(
                f'aggregate "{aggregate.name}": values of the composite type {column.type.text} cannot be kept.',
                hint="Name their fields one by one, as in (price).amount.",
            )


def not_from_one_row(aggregate: Kept, what: str, error: psycopg.Error) -> DeclarationError:
    return DeclarationError(
        f'aggregate "{aggregate.name}": {what} cannot be computed from one row: {error.diag.message_primary}.',
        hint="Use expressions over the row's own columns.",
    )


def refuse_mutable(cursor: Cursor, aggregate: Kept, shape: Shape, expressions: list[tuple[Composable, str]]) -> None:
    """Generated columns must be immutable; so must whatever a trigger computes once and a reader later again."""
    table = Identifier("pg_temp", shape.alias)
    cursor.execute(fill("CREATE TEMP TABLE {t} (LIKE {source})", t=table, source=canonical(shape.source)))
    taken = catalog.columns_of(cursor, shape.source)
    prefix = "tallystick"
    while any(column.startswith(prefix) for column in taken):
        prefix += "_"
    for number, (expression, type_) in enumerate(expressions):
        try:
            cursor.execute(
                fill(
                    "ALTER TABLE {t} ADD COLUMN {c} {type} GENERATED ALWAYS AS ({e}) STORED",
                    t=table, c=Identifier(f"{prefix}{number}"), type=canonical(type_), e=expression,
                )
            )  # fmt: skip
        except psycopg.errors.InvalidObjectDefinition as error:
            raise DeclarationError(
                f'aggregate "{aggregate.name}": {expression.as_string(None)} is not immutable: its value depends on'
                " more than the row, such as the time, the time zone or a setting.",
                hint="Spell it so that it does not, for example date_trunc('day', timezone('UTC', created_at));"
                " what depends on the time of reading is a condition of the read.",
            ) from error
        except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
            raise not_from_one_row(aggregate, expression.as_string(None), error) from error
    cursor.execute(fill("DROP TABLE {t}", t=table))
