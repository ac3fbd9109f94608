"""From a declaration to what the compiler needs: PostgreSQL reads the query, we read the catalog.

Everything happens in the caller's transaction and leaves nothing behind. The declared text becomes a view under the
caller's search path; its canonical text is taken back; a second view over the single expressions tells their types;
and a temporary table with generated columns makes PostgreSQL itself judge whether each expression is immutable.
"""

from __future__ import annotations

import difflib
import re

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.guards import guarded, guarded_by
from tallystick.compiler.snapshot import ColumnType, Snapshot, Source
from tallystick.compiler.text import canonical, comma, fill
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.errors import DeclarationError
from tallystick.maintain.parent import mirror_of, parent_of
from tallystick.maintain.refusals import (
    not_from_one_row,
    refuse_composite,
    refuse_foreign_code,
    refuse_mutable,
    refuse_other_operators,
    refuse_settings,
    refuse_unhashable,
    refuse_virtual,
    try_on_rows,
)
from tallystick.store import catalog
from tallystick.store.catalog import Relation
from tallystick.store.connection import Cursor

_KINDS = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
}


def inspect(cursor: Cursor, aggregate: Kept) -> tuple[Shape, Snapshot, Relation]:
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
    operators = _declared_operators(cursor, aggregate)
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
    # Over nothing but the named columns used, as the triggers see a row: whole rows and system columns show here.
    table = fill("SELECT {used} FROM {t}", used=comma(Identifier(n) for n, _ in used), t=canonical(shape.source))
    query = _rows(shape, table)
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
        raise not_from_one_row(aggregate, "its expressions", error) from error
    columns = catalog.view_columns(cursor, view)
    refuse_foreign_code(cursor, aggregate, view)
    refuse_other_operators(aggregate, operators, catalog.view_operators(cursor, view))
    refuse_settings(cursor, aggregate, view)
    catalog.drop_view(cursor, aggregate.schema, probe)

    refuse_virtual(aggregate, used)
    probed: list[tuple[Composable, str]] = [(e, c.type.text) for e, c in zip(expressions, columns, strict=True)]
    if shape.where:
        probed.append((canonical(shape.where), "boolean"))
    refuse_mutable(cursor, aggregate, shape, probed)
    try_on_rows(cursor, aggregate, query)

    count = len(shape.keys)
    # Filters follow the arguments and are left over.
    arguments = dict(zip(_argument_texts(shape), (column.type for column in columns[count:]), strict=False))
    hashed = {m.argument for m in shape.measures if m.distinct and m.argument}
    hashed_columns = [c for text, c in zip(_argument_texts(shape), columns[count:], strict=False) if text in hashed]
    refuse_unhashable(cursor, aggregate, [*columns[:count], *hashed_columns])
    refuse_composite(aggregate, columns)
    used_names = tuple(name for name, _ in used)
    partitions = tuple(leaf.name for leaf in leaves) if source.kind == "p" else None
    key_columns, key_types = primary_key(cursor, aggregate.schema, aggregate.name, source.oid, source.name)
    snapshot = Snapshot(
        Source(source.name, used_names, source.persistence == "u", partitions, key_types, key_columns),
        tuple(column.type for column in columns[:count]),
        arguments,
        measures,
        mirror_of(cursor, aggregate, shape, source.name, parent, used_names) if parent is not None else None,
    )
    return shape, snapshot, source


def primary_key(
    cursor: Cursor, schema: str, name: str, source_oid: int, source: str
) -> tuple[tuple[str, ...], tuple[ColumnType, ...]]:
    """Names and types of the columns of a table's primary key; none where there is none.

    Args:
        schema, name: of the aggregate over it.
    """
    names = tuple(catalog.primary_key(cursor, source_oid))
    if not names:
        return (), ()
    probe = internal_name(name, "probe")
    query = fill("SELECT {k} FROM {t}", k=comma(map(Identifier, names)), t=canonical(source))
    catalog.create_view(cursor, schema, probe, query)
    columns = catalog.view_columns(cursor, catalog.qualified(schema, probe))
    catalog.drop_view(cursor, schema, probe)
    return names, tuple(column.type for column in columns)


def _declare(cursor: Cursor, aggregate: Kept, probe: str) -> None:
    try:
        with cursor.connection.transaction():
            catalog.create_view(cursor, aggregate.schema, probe, canonical(aggregate.definition))
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError) as error:
        raise _refused_by_postgres(cursor, aggregate, error) from error


def _refused_by_postgres(cursor: Cursor, aggregate: Kept, error: psycopg.Error) -> DeclarationError:
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


def _source(cursor: Cursor, aggregate: Kept, view: str) -> Relation:
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


def _leaves(cursor: Cursor, aggregate: Kept, source: Relation) -> list[Relation]:
    """The partitions that hold the rows of a partitioned table."""
    leaves = [relation for relation in catalog.tree(cursor, source.oid) if relation.kind != "p"]
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


def _not_capturable(aggregate: Kept, source: str, what: str) -> DeclarationError:
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


def _declared_operators(cursor: Cursor, aggregate: Kept) -> set[tuple[int, str]] | None:
    """The operators in the declared expressions, found by the caller's path; None if these need more than a row."""
    shape = aggregate.shape
    probe = internal_name(aggregate.name, "operators")
    try:
        with cursor.connection.transaction():
            table = fill("TABLE {t}", t=canonical(shape.source))
            catalog.create_view(cursor, aggregate.schema, probe, _rows(shape, table))
    except (psycopg.ProgrammingError, psycopg.NotSupportedError):
        return None
    operators = catalog.view_operators(cursor, catalog.qualified(aggregate.schema, probe))
    catalog.drop_view(cursor, aggregate.schema, probe)
    return operators


def _rows(shape: Shape, table: Composable) -> Composed:
    """Keys, arguments and filters of each row of a table that the declaration does not leave out."""
    names, expressions = _expressions(shape)
    guards = guarded_by(shape)
    items = [
        fill("{e} AS {n}", e=guarded(e, guards.get(e.as_string(None))), n=Identifier(n))
        for n, e in zip(names, expressions, strict=True)
    ]
    return fill(
        "SELECT {items} FROM ({table}) AS {alias}{where}",
        items=comma(items), table=table, alias=Identifier(shape.alias),
        where=fill(" WHERE {w}", w=canonical(shape.where)) if shape.where else SQL(""),
    )  # fmt: skip
