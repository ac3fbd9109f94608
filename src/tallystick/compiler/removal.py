"""What takes an aggregate out again, from its name and definition alone; each step does nothing where it is done."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Identifier

from tallystick.compiler.text import Statement, canonical, fill, literal
from tallystick.declare.names import internal_name, trigger_name
from tallystick.declare.sqltext import Shape

VIEWS = ("front", "rest", "kept", "settled", "changed", "direct")
CAPTURED = ("insert", "update", "delete", "truncate")
FUNCTIONS = ("fold", "rebuild", *CAPTURED, "row", "source")


def trigger_names(schema: str, name: str, *, uses_columns: bool) -> list[str]:
    """The triggers that an aggregate needs on its source."""
    return [trigger_name(schema, name, event) for event in CAPTURED if event != "update" or uses_columns]


def object_names(name: str, shape: Shape, *, uses_columns: bool) -> tuple[list[str], list[str]]:
    """The relations and the functions that an aggregate always has."""
    views = VIEWS if shape.keys else ("kept", "direct")
    relations = [name, *(internal_name(name, suffix) for suffix in (*views, "state", "delta"))]
    return relations, [internal_name(name, suffix) for suffix in FUNCTIONS if suffix != "update" or uses_columns]


def table_names(name: str, shape: Shape) -> list[str]:
    """All tables that an aggregate may have."""
    facets = [f"facet{index}" for index in range(1, len(shape.measures) + 1)]
    return [internal_name(name, suffix) for suffix in ("delta", "state", *facets)]


def removal_statements(name: str, schema: str, shape: Shape, source: str | None) -> Iterator[Statement]:
    """Drop everything of an aggregate but its row in the table of aggregates.

    Args:
        source: the source as PostgreSQL prints it, None if it is gone.
    """
    if source is not None:
        for event in CAPTURED:
            trigger = Identifier(trigger_name(schema, name, event))
            yield Statement(
                f"stops capturing {event.upper()}",
                fill("DROP TRIGGER IF EXISTS {t} ON {source}", t=trigger, source=canonical(source)),
            )
    for suffix in FUNCTIONS:
        yield Statement(
            "a function",
            fill("DROP FUNCTION IF EXISTS {f}", f=Identifier(schema, internal_name(name, suffix))),
        )
    for view in (name, *(internal_name(name, suffix) for suffix in VIEWS)):
        yield Statement("a view", fill("DROP VIEW IF EXISTS {v}", v=Identifier(schema, view)))
    for table in table_names(name, shape):
        yield Statement("a table", fill("DROP TABLE IF EXISTS {t}", t=Identifier(schema, table)))
    yield Statement(
        "its reset markers",
        fill("DELETE FROM {r} WHERE aggregate = {n}", r=Identifier(schema, "reset"), n=literal(name)),
    )
