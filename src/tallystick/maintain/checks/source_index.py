"""The index of the source that an ordered aggregate walks along."""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.compiler.source_index import walk_statement
from tallystick.compiler.text import canonical, fill
from tallystick.declare.ordered import Ordering
from tallystick.declare.tokens import split_name
from tallystick.maintain.checks.finding import Finding
from tallystick.store import aggregates, catalog, plans
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


def of_index(cursor: Cursor, schema: str, found: Installed, ordering: Ordering) -> Iterator[Finding]:
    """Whether the source's index is there, and whether the planner walks along it."""
    if found.is_complete and not aggregates.is_as_folded(cursor, schema, found):
        what = f"serves from its source: {found.source} was truncated, written anew or restored since the last fold"
        yield Finding("advice", found.name, what, f"tally fold {found.name}")
    if found.index is None:
        what = f"its index on {found.source} is gone: each read goes through the whole table"
        yield Finding("error", found.name, what, f"tally install {found.name}")
        return
    if not catalog.is_valid_index(cursor, found.index):
        what = f"its index {found.index} is not valid, so no read uses it: each goes through the whole table"
        again = fill("REINDEX INDEX CONCURRENTLY {i}", i=canonical(found.index)).as_string(None)
        yield Finding("error", found.name, what, again)
        return
    walked = plans.steps_of(cursor, walk_statement(schema, found.name, ordering))
    _, index = split_name(found.index)
    # Of a partitioned table each partition has an index of its own name.
    others = [step for step in walked if step.index is None or (step.index != index and not found.is_partitioned)]
    if others:
        what = f"the planner does not walk along {found.index} alone: {', '.join(map(str, others))}"
        analyze = fill("ANALYZE {t}", t=canonical(str(found.source))).as_string(None)
        yield Finding("advice", found.name, what, f"{analyze}; then look at EXPLAIN of a read")
