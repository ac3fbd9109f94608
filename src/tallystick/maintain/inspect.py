"""From a declaration to what the compiler needs: PostgreSQL reads the query, we read the catalog.

Everything happens in the caller's transaction and leaves nothing behind. The declared text becomes a view under the
caller's search path; its canonical text is taken back; a second view over the single expressions tells their types;
and a temporary table with generated columns makes PostgreSQL itself judge whether each expression is immutable.
"""

from __future__ import annotations

import difflib
import re

import psycopg
from psycopg.sql import SQL, Composable, Identifier

from tallystick.compiler.snapshot import ColumnType, Snapshot, Source
from tallystick.compiler.text import canonical, comma, fill
from tallystick.declare.grouped import Grouped
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.errors import DeclarationError
from tallystick.maintain.parent import mirror_of, parent_of
from tallystick.store import catalog
from tallystick.store.catalog import Relation
from tallystick.store.connection import Cursor

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
}
_SETTINGS = {
    "bytea_output": ("the text of a bytea", "Use encode(…, 'hex')."),
    "quote_all_identifiers": ("quote_ident()", "Keep the name itself and quote it when reading."),
}


def inspect(cursor: Cursor, aggregate: Grouped) -> tuple[Shape, Snapshot, Relation]:
    """Read a declaration through PostgreSQL.

    Args:
        cursor: in a transaction whose search path is the one that the declaration was written for; the path is
            pg_catalog afterwards.
    Returns:
        the canonical shape, what the catalog says about it, and the source.
    Raises:
        DeclarationError: PostgreSQL does not take the query, or it cannot be kept.
    """
    probe = internal_name(aggregate.name, "probe")
    view = catalog.qualified(aggregate.schema, probe)
    _declare(cursor, aggregate, probe)
    parent = parent_of(cursor, aggregate)
    cursor.execute(catalog.FIXED_PATH.sql)
    source = _source(cursor, aggregate, view)
    leaves = _leaves(cursor, aggregate, source)
    shape = shape_of(aggregate.name, catalog.view_text(cursor, view), canonical=True)
    by_name = {column.name: column for column in catalog.view_columns(cursor, view)}
    measures = tuple(by_name[measure.name].type for measure in shape.measures)
    used = catalog.view_used_columns(cursor, view, source.oid)
    catalog.drop_view(cursor, aggregate.schema, probe)

    names, expressions = _expressions(shape)
    items = comma(fill("{e} AS {n}", e=e, n=Identifier(n)) for n, e in zip(names, expressions, strict=True))
    where = SQL(" WHERE {w}").format(w=canonical(shape.where)) if shape.where else SQL("")
    # Over nothing but the named columns used, as the triggers see a row: whole rows and system columns show here.
    query = fill(
        "SELECT {items} FROM (SELECT {used} FROM {source}) AS {alias}{where}",
        items=items, used=comma(Identifier(name) for name, _ in used), source=canonical(shape.source),
        alias=Identifier(shape.alias), where=where,
    )  # fmt: skip
    try:
        with cursor.connection.transaction():
            catalog.create_view(cursor, aggregate.schema, probe, query)
    except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
        pseudo = re.fullmatch(r'column "(\w+)" has pseudo-type (\w+)', error.diag.message_primary or "")
        if pseudo:
            expression = expressions[names.index(pseudo[1])].as_string(None)
            raise DeclarationError(
                f'aggregate "{aggregate.name}": {expression} has the type {pseudo[2]}, which no column can store.',
                hint="Name its parts one by one.",
            ) from error
        raise _not_from_one_row(aggregate, "its expressions", error) from error
    columns = catalog.view_columns(cursor, view)
    _refuse_foreign_code(cursor, aggregate, view)
    _refuse_settings(cursor, aggregate, view)
    catalog.drop_view(cursor, aggregate.schema, probe)

    _refuse_virtual(aggregate, used)
    probed: list[tuple[Composable, str]] = [(e, c.type.text) for e, c in zip(expressions, columns, strict=True)]
    if shape.where:
        probed.append((canonical(shape.where), "boolean"))
    _refuse_mutable(cursor, aggregate, shape, probed)
    _try_on_rows(cursor, aggregate, query)

    count = len(shape.keys)
    # Filters follow the arguments and are left over.
    arguments = dict(zip(_argument_texts(shape), (column.type for column in columns[count:]), strict=False))
    distinct = [arguments[measure.argument] for measure in shape.measures if measure.distinct and measure.argument]
    _refuse_unhashable(cursor, aggregate, [*(column.type for column in columns[:count]), *distinct])
    used_names = tuple(name for name, _ in used)
    partitions = tuple(leaf.name for leaf in leaves) if source.kind == "p" else None
    snapshot = Snapshot(
        Source(source.name, used_names, unlogged=source.persistence == "u", partitions=partitions),
        tuple(column.type for column in columns[:count]),
        arguments,
        measures,
        mirror_of(cursor, aggregate, shape, source.name, parent, used_names) if parent is not None else None,
    )
    return shape, snapshot, source


def _declare(cursor: Cursor, aggregate: Grouped, probe: str) -> None:
    try:
        with cursor.connection.transaction():
            catalog.create_view(cursor, aggregate.schema, probe, canonical(aggregate.definition))
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise _refused_by_postgres(cursor, aggregate, error) from error


def _refused_by_postgres(cursor: Cursor, aggregate: Grouped, error: psycopg.Error) -> DeclarationError:
    """PostgreSQL's own words, with the columns there are and the nearest of them."""
    said = error.diag.message_primary or str(error)
    if isinstance(error, psycopg.errors.InvalidTableDefinition) and "temporary" in said:
        return _not_capturable(aggregate, aggregate.shape.source, "a temporary table")
    message = f'aggregate "{aggregate.name}": {said}'
    hint = "Correct the declaration."
    if isinstance(error, psycopg.errors.UndefinedColumn):
        columns = catalog.columns_of(cursor, aggregate.shape.source)
        message += f" on {aggregate.shape.source} (has: {', '.join(columns)})"
        wanted = re.search(r'column "?([^"]+?)"? does not exist', said)
        near = difflib.get_close_matches(wanted.group(1).split(".")[-1], columns, 1) if wanted else []
        if near:
            hint = f'Did you mean "{near[0]}"?'
    elif isinstance(error, psycopg.errors.UndefinedTable):
        hint = "Create the table first, or qualify its name with its schema."
    return DeclarationError(message + ".", hint=hint)


def _source(cursor: Cursor, aggregate: Grouped, view: str) -> Relation:
    relations = catalog.view_relations(cursor, view)
    if not relations:
        # Dependencies on what PostgreSQL itself brought are not recorded.
        name = catalog.qualified_name(cursor, aggregate.shape.source) or aggregate.shape.source
        raise _not_capturable(aggregate, name, "a system table")
    if len(relations) > 1:
        found = ", ".join(relation.name for relation in relations)
        raise DeclarationError(
            f'aggregate "{aggregate.name}": expected one source table, got {found}.',
            hint="Declare the aggregate over one table.",
        )
    source = relations[0]
    what = _KINDS.get(source.kind)
    if source.kind == "r" and source.inherits:
        what = "part of an inheritance tree or a partition"
    if what is not None:
        raise _not_capturable(aggregate, source.name, what)
    return source


def _leaves(cursor: Cursor, aggregate: Grouped, source: Relation) -> list[Relation]:
    """The partitions that hold the rows of a partitioned table."""
    leaves = catalog.leaves(cursor, source.oid)
    for leaf in leaves:
        why = why_not_counted(leaf)
        if why is not None:
            raise DeclarationError(
                f'aggregate "{aggregate.name}": partition {leaf.name} of {source.name} {why}.',
                hint="Declare the aggregate over a table all of whose partitions are plain tables.",
            )
    return leaves


def why_not_counted(leaf: Relation) -> str | None:
    """Why a partition cannot be counted, None if it can."""
    if leaf.kind != "r":
        return f"is {_KINDS.get(leaf.kind, 'no plain table')}, whose changes cannot all be captured"
    return "is UNLOGGED: a crash empties it, and not what was kept of it" if leaf.persistence == "u" else None


def _not_capturable(aggregate: Grouped, source: str, what: str) -> DeclarationError:
    return DeclarationError(
        f'aggregate "{aggregate.name}": {source} is {what}, whose changes cannot all be captured.',
        hint="Declare the aggregate over a plain table.",
    )


def _argument_texts(shape: Shape) -> list[str]:
    return list(dict.fromkeys(m.argument for m in shape.measures if m.argument is not None))


def _expressions(shape: Shape) -> tuple[list[str], list[Composable]]:
    """Keys, arguments and filters under positional names."""
    texts = [
        *((f"k{i}", key.expression) for i, key in enumerate(shape.keys, start=1)),
        *((f"x{i}", text) for i, text in enumerate(_argument_texts(shape), start=1)),
        *((f"f{i}", measure.filter) for i, measure in enumerate(shape.measures, start=1) if measure.filter),
    ]
    return [name for name, _ in texts], [canonical(text) for _, text in texts]


def _refuse_foreign_code(cursor: Cursor, aggregate: Grouped, view: str) -> None:
    for what, owner in catalog.view_foreign_code(cursor, view):
        raise DeclarationError(
            f'aggregate "{aggregate.name}": {what} belongs to {owner}, who could redefine it and run code'
            " as the installer.",
            hint="Use code that belongs to the installing role or to a superuser.",
        )


def _refuse_settings(cursor: Cursor, aggregate: Grouped, view: str) -> None:
    for setting in catalog.view_settings(cursor, view):
        what, instead = _SETTINGS[setting]
        raise DeclarationError(
            f'aggregate "{aggregate.name}": {what} depends on the setting {setting} of each session.', hint=instead
        )


def _refuse_virtual(aggregate: Grouped, used: list[tuple[str, str]]) -> None:
    for name, generated in used:
        if generated == "v":
            raise DeclarationError(
                f'aggregate "{aggregate.name}": column "{name}" is a virtual generated column.',
                hint="Write its expression in the declaration, or make the column STORED.",
            )


def _try_on_rows(cursor: Cursor, aggregate: Grouped, query: Composable) -> None:
    """Compute the expressions of some rows as the triggers will: an error there would fail a user's write."""
    try:
        with cursor.connection.transaction():
            cursor.execute(fill("SELECT * FROM ({query}) AS q LIMIT 100", query=query))
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        raise DeclarationError(
            f'aggregate "{aggregate.name}": its expressions fail on rows of the table when names resolve in pg_catalog'
            f" only, as in a trigger: {error.diag.message_primary}.",
            hint="Functions of your own need ALTER FUNCTION … SET search_path, or qualified names inside.",
        ) from error


def _refuse_unhashable(cursor: Cursor, aggregate: Grouped, types: list[ColumnType]) -> None:
    """Groups are found again by a hash of their key, values of a count(DISTINCT …) by one of key and value."""
    for type_ in types:
        try:
            cursor.execute(fill("SELECT hash_record_extended(ROW(NULL::{t}), 0)", t=canonical(type_.base)))
        except psycopg.errors.UndefinedFunction as error:
            raise DeclarationError(
                f'aggregate "{aggregate.name}": values of type {type_.text} cannot be hashed.',
                hint="Cast the expression to a type that can be, such as text.",
            ) from error


def _not_from_one_row(aggregate: Grouped, what: str, error: psycopg.Error) -> DeclarationError:
    return DeclarationError(
        f'aggregate "{aggregate.name}": {what} cannot be computed from one row: {error.diag.message_primary}.',
        hint="Use expressions over the row's own columns.",
    )


def _refuse_mutable(
    cursor: Cursor, aggregate: Grouped, shape: Shape, expressions: list[tuple[Composable, str]]
) -> None:
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
            raise _not_from_one_row(aggregate, expression.as_string(None), error) from error
    cursor.execute(fill("DROP TABLE {t}", t=table))
