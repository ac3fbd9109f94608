"""The index of the source that an ordered aggregate walks along."""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.text import canonical, column, comma, conjunction, fill
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Ordering
from tallystick.declare.sqltext import Shape


def index_definition(shape: Shape, ordering: Ordering, table: Composable) -> Composed:
    """What follows CREATE INDEX: the table, namespace and order as its columns, and the items' own condition.

    Args:
        table: any table with the columns of the source, by whatever name.
    """
    directions = [False] * ordering.namespace + list(ordering.descending)
    columns = comma(
        fill("({e}){d}", e=canonical(key.expression), d=SQL(" DESC") if down else SQL(""))
        for key, down in zip(shape.keys, directions, strict=True)
    )
    where = fill(" WHERE {w}", w=canonical(shape.where)) if shape.where else SQL("")
    return fill("ON {table} USING btree ({columns}){where}", table=table, columns=columns, where=where)


def create_index(name: str, definition: Composable, *, concurrently: bool) -> Composed:
    return fill(
        "CREATE INDEX {how}{name} {definition}",
        how=SQL("CONCURRENTLY ") if concurrently else SQL(""), name=Identifier(name), definition=definition,
    )  # fmt: skip


def walk_statement(schema: str, aggregate: str, ordering: Ordering) -> Composed:
    """What most reads do again and again: find the first item behind a value, `$1 …` being what it is looked for by."""
    ends = ordering.namespace + 1
    namespace = [fill("{k} = ${n}", k=column("k", n), n=SQL(str(n))) for n in range(1, ends)]
    behind = fill("{k} > ${n}", k=column("k", ends), n=SQL(str(ends)))
    by = comma(
        fill("{k}{d}", k=column("k", ends + index), d=SQL(" DESC") if down else SQL(""))
        for index, down in enumerate(ordering.descending)
    )
    return fill(
        "SELECT 1 FROM {items} WHERE {c} ORDER BY {by} LIMIT 1",
        items=Identifier(schema, internal_name(aggregate, "direct")), c=conjunction([*namespace, behind]), by=by,
    )  # fmt: skip
