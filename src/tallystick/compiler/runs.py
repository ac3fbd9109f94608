"""Reading along an order: the items, buckets or deltas that lie before, behind or between places."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.order import Order, Values
from tallystick.compiler.text import comma, conjunction, fill

Pieces = Sequence[Composable]
EVERYTHING: Pieces = [SQL("true")]


def rows(
    order: Order,
    table: Composable,
    columns: Sequence[Composable],
    namespace: Values,
    pieces: Pieces,
    *conditions: Composable,
    in_order: bool = False,
) -> Composed:
    """The rows of all pieces.

    Args:
        in_order: those of each piece are, so that the index of the order is walked along.
    """
    by = fill(" ORDER BY {by} OFFSET 0", by=order.order_by()) if in_order else SQL("")
    selects = [
        fill("(SELECT {columns} FROM {table} WHERE {c}{by})", columns=comma(columns), table=table, c=condition, by=by)
        for condition in _conditions(order, namespace, pieces, conditions)
    ]
    return fill("({rows})", rows=SQL("\n      UNION ALL ").join(selects))


def first(
    order: Order,
    table: Composable,
    columns: Sequence[Composable],
    namespace: Values,
    pieces: Pieces,
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
    by, names = order.order_by(backwards=backwards), comma(columns)
    passed = fill(" OFFSET {o}", o=offset) if offset is not None else SQL("")
    found = _conditions(order, namespace, pieces, conditions)
    if len(found) == 1:
        return fill(
            "(SELECT {names} FROM {table} WHERE {c} ORDER BY {by} LIMIT {limit}{passed})",
            names=names, table=table, c=found[0], by=by, limit=limit, passed=passed,
        )  # fmt: skip
    most = limit if offset is None else fill("{limit} + {offset}", limit=limit, offset=offset)
    selects = [
        fill(
            "(SELECT {piece} AS piece, {names} FROM {table} WHERE {c} ORDER BY {by} LIMIT {most})",
            piece=SQL(str(number)), names=names, table=table, c=condition, by=by, most=most,
        )
        for number, condition in enumerate(found)
    ]  # fmt: skip
    return fill(
        "(SELECT {names} FROM ({rows}) AS p ORDER BY piece, {by} LIMIT {limit}{passed})",
        names=names, rows=SQL("\n      UNION ALL ").join(selects), by=by, limit=limit, passed=passed,
    )  # fmt: skip


def seek(
    order: Order,
    into: Values,
    table: Composable,
    namespace: Values,
    cut: Values,
    *conditions: Composable,
    after: Composable | bool,
    backwards: bool = False,
    whole: bool = False,
) -> Composed:
    """PL/pgSQL: the place of the first row behind a cut, or backwards of the last before it; NULLs if there is none.

    Args:
        into: variables for the place.
        cut: NULL for the columns that it leaves out; for all of them, every row is behind it, or before it.
        after: whether it lies behind the rows that have its values; SQL where only the call tells.
        whole: it leaves out all columns or none.
    """

    def found(pieces: Pieces) -> Composed:
        row = first(order, table, order.position, namespace, pieces, *conditions, backwards=backwards)
        return fill("SELECT * INTO {into} FROM {row} AS u;", into=comma(into), row=row)

    beyond = order.before if backwards else order.behind
    branches = []
    for length in [len(cut)] if whole else range(len(cut), 0, -1):
        given = cut[:length]
        if isinstance(after, bool):
            step = found(beyond(given, after=after))
        else:
            behind, at = (found(beyond(given, after=each)) for each in (True, False))
            step = fill("IF {after} THEN {behind} ELSE {at} END IF;", after=after, behind=behind, at=at)
        branches.append(fill("IF {v} IS NOT NULL THEN\n    {step}\n  ", v=given[-1], step=step))
    return fill(
        "  {branches}ELSE\n    {all}\n  END IF;\n", branches=SQL("ELS").join(branches), all=found(EVERYTHING)
    )  # fmt: skip


def sought(
    order: Order,
    table: Composable,
    namespace: Values,
    cut: Values,
    *,
    after: Composable,
    backwards: bool = False,
) -> Composed:
    """The same in SQL: no row or one."""
    beyond = order.before if backwards else order.behind
    found = [
        first(
            order, table, order.position, namespace, EVERYTHING, fill("{v} IS NULL", v=cut[0]), backwards=backwards
        )
    ]  # fmt: skip
    for length in range(1, len(cut) + 1):
        gates = [fill("{v} IS NOT NULL", v=cut[length - 1])]
        gates += [fill("{v} IS NULL", v=cut[length])] if length < len(cut) else []
        for gate, is_after in ((after, True), (fill("NOT {a}", a=after), False)):
            pieces = beyond(cut[:length], after=is_after)
            found.append(first(order, table, order.position, namespace, pieces, *gates, gate, backwards=backwards))
    return fill("({rows})", rows=SQL("\n      UNION ALL ").join(found))


def _conditions(order: Order, namespace: Values, pieces: Pieces, conditions: Sequence[Composable]) -> list[Composed]:
    inside = order.in_namespace(namespace)
    return [conjunction([*inside, piece, *conditions]) for piece in pieces]
