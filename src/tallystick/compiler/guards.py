"""Expressions that a declaration computes for some rows only, and that may fail on others.

PostgreSQL tests a FILTER before it computes the argument. A trigger computes all arguments of a row at once, and the
planner those of a single row even before the WHERE clause; so each is put behind the condition that it needs.
"""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.text import canonical, fill
from tallystick.declare.sqltext import Shape, column_of


def guarded_by(shape: Shape) -> dict[str, Composable]:
    """Conditions of arguments that filtered measures alone use, by the argument's text; none for plain columns."""
    filters: dict[str, list[str] | None] = {}
    for measure in shape.measures:
        if measure.argument is None or column_of(measure.argument) is not None:
            continue
        known = filters.setdefault(measure.argument, [])
        if measure.filter is None:
            filters[measure.argument] = None
        elif known is not None:
            known.append(measure.filter)
    return {
        argument: SQL(" OR ").join(fill("({f})", f=canonical(text)) for text in dict.fromkeys(texts))
        for argument, texts in filters.items()
        if texts
    }


def guarded(expression: Composable, condition: Composable | None) -> Composed:
    """The expression where the condition holds, else NULL."""
    if condition is None:
        return Composed([expression])
    return fill("CASE WHEN {condition} THEN {expression} END", condition=condition, expression=expression)
