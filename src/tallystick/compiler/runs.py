"""SELECTs over the pieces of an order: the items, buckets or deltas that lie before, behind or between places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.order import Order, Values
from tallystick.compiler.text import comma, conjunction, fill


def rows(
    order: Order,
    table: Composable,
    columns: Sequence[Composable],
    namespace: Values,
    pieces: Iterable[Composable],
    *conditions: Composable,
) -> Composed:
    """The rows of all pieces, in no order."""
    selects = [
        fill("SELECT {columns} FROM {table} WHERE {c}", columns=comma(columns), table=table, c=condition)
        for condition in _conditions(order, namespace, pieces, conditions)
    ]
    return fill("({rows})", rows=SQL("\n      UNION ALL ").join(selects))


def first(
    order: Order,
    table: Composable,
    columns: Sequence[Composable],
    namespace: Values,
    pieces: Iterable[Composable],
    *conditions: Composable,
    backwards: bool = False,
    limit: Composable | None = None,
    offset: Composable | None = None,
) -> Composed:
    """The first rows of the pieces, which come in order.

    Args:
        backwards: the last come first.
        limit: how many, one without it.
        offset: how many of them to pass over before.
    """
    limit = limit or SQL("1")
    most = limit if offset is None else fill("{limit} + {offset}", limit=limit, offset=offset)
    by = order.order_by(backwards=backwards)
    selects = [
        fill(
            "(SELECT {piece} AS piece, {columns} FROM {table} WHERE {c} ORDER BY {by} LIMIT {most})",
            piece=SQL(str(number)), columns=comma(columns), table=table, c=condition, by=by, most=most,
        )
        for number, condition in enumerate(_conditions(order, namespace, pieces, conditions))
    ]  # fmt: skip
    return fill(
        "(SELECT {columns} FROM ({rows}) AS p ORDER BY piece, {by} LIMIT {limit}{offset})",
        columns=comma(columns), rows=SQL("\n      UNION ALL ").join(selects), by=by, limit=limit,
        offset=fill(" OFFSET {o}", o=offset) if offset is not None else SQL(""),
    )  # fmt: skip


def _conditions(
    order: Order, namespace: Values, pieces: Iterable[Composable], conditions: Sequence[Composable]
) -> list[Composed]:
    inside = order.in_namespace(namespace)
    return [conjunction([*inside, piece, *conditions]) for piece in pieces]
