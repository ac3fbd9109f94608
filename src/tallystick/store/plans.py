"""What PostgreSQL's planner makes of a statement whose parameters it does not know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed

from tallystick.compiler.text import comma, fill
from tallystick.store.connection import Cursor, one_row

_HARMLESS = frozenset({"Limit", "Result", "Append", "Merge Append", "Subquery Scan"})


@dataclass(frozen=True, slots=True)
class Step:
    """A node of a plan that reads or sorts rows; `index` is the name of the index that it walks along, if it does."""

    kind: str
    index: str | None

    def __str__(self) -> str:
        return self.kind if self.index is None else f"{self.kind} on {self.index}"


def steps_of(cursor: Cursor, statement: Composed) -> list[Step]:
    """Plan a statement as the functions of ordered aggregates do: once for all values, along an index if any serves."""
    for setting in ("enable_seqscan", "enable_bitmapscan"):
        cursor.execute("SELECT set_config(%s, 'off', true)", (setting,))
    cursor.execute("SELECT set_config('plan_cache_mode', 'force_generic_plan', true)")
    cursor.execute(fill("PREPARE tallystick_plan AS {s}", s=statement))
    (parameters,) = one_row(
        cursor.execute("SELECT cardinality(parameter_types) FROM pg_prepared_statements WHERE name = 'tallystick_plan'")
    )
    values = comma(SQL("NULL") for _ in range(parameters))
    ((plan,),) = cursor.execute(fill("EXPLAIN (FORMAT JSON) EXECUTE tallystick_plan ({v})", v=values)).fetchall()
    cursor.execute("DEALLOCATE tallystick_plan")
    return list(_steps(plan[0]["Plan"]))


def _steps(node: dict[str, Any]) -> Iterator[Step]:
    if node["Node Type"] not in _HARMLESS:
        yield Step(node["Node Type"], node.get("Index Name"))
    for child in node.get("Plans", ()):
        yield from _steps(child)
