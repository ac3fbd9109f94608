"""Status: what is installed, what readers are served, and how much waits to be folded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.declare.counter import Counter
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept, Ordered
from tallystick.store import aggregates, catalog, counters, partitions
from tallystick.store import backlog as backlogs
from tallystick.store.connection import Cursor, transaction


@dataclass(frozen=True, slots=True)
class AggregateStatus:
    """One aggregate.

    `phase` is "declared" (not installed), "building" or "kept"; `serving` is "kept", "direct" or None.
    `groups` is the planner's estimate of folded groups; `backlog` counts unfolded deltas exactly, and `age_s` is how
    many seconds a worker has seen some wait, None if there are none or no worker has looked. `uncounted` tells why
    an aggregate that is kept serves "direct" all the same: partitions that came or went, or, of an ordered one, a
    source that was truncated, written anew or restored since the last fold.

    `rolled_back`: an operator keeps readers on the source until `tally resume`. `is_captured` is False if nothing
    captures changes of the source, as after `tally rollback --stop-maintenance`.

    Of an ordered one, `groups` are its buckets, counted, and `depth` is the number of their levels.

    `replaces` names the aggregate whose next version this is, while it is being built.

    Of a counter, `groups` are its keys and `backlog` its rows that no fold has seen; it has no source, and is "kept".
    """

    name: str
    kind: str
    source: str | None
    phase: str
    serving: str | None
    groups: int
    backlog: int
    is_declared: bool
    is_current: bool
    age_s: float | None = None
    uncounted: tuple[str, ...] = ()
    depth: int | None = None
    rolled_back: bool = False
    is_captured: bool = True
    replaces: str | None = None


def status(
    engine: Engine, schema: str, declared: Iterable[Kept] = (), declared_counters: Iterable[Counter] = ()
) -> list[AggregateStatus]:
    """Installed and declared aggregates by name. `is_current` tells whether code and database agree."""
    by_name = {aggregate.name: aggregate for aggregate in declared}
    found: dict[str, AggregateStatus] = {}
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        ages = backlogs.ages(cursor, schema)
        for installed in aggregates.every(cursor, schema):
            state = Identifier(schema, internal_name(installed.name, installed.kept_in))
            delta = Identifier(schema, internal_name(installed.name, "delta"))
            groups, depth = catalog.estimated_rows(cursor, state.as_string(None)), None
            if installed.ordering is not None:
                groups, depth = catalog.buckets(cursor, state.as_string(None))
            backlog = catalog.counted_rows(cursor, delta.as_string(None))
            aggregate = by_name.get(installed.name)
            is_kept = installed.is_complete
            uncounted = tuple(map(str, partitions.differences(cursor, schema, installed))) if is_kept else ()
            if is_kept and not uncounted and installed.ordering is not None:
                is_folded = aggregates.is_as_folded(cursor, schema, installed)
                uncounted = () if is_folded else (f"written anew since the last fold: tally fold {installed.name}",)
            found[installed.name] = AggregateStatus(
                installed.name, installed.kind, installed.source, installed.phase,
                "direct" if uncounted else installed.serving,
                groups=groups, backlog=backlog, age_s=ages.get(installed.name) if backlog else None,
                is_declared=aggregate is not None,
                is_current=aggregate is None or aggregate.fingerprint == installed.fingerprint, uncounted=uncounted,
                depth=depth, rolled_back=installed.rolled_back, replaces=installed.replaces,
                is_captured=is_kept or aggregates.is_captured(cursor, schema, installed.name),
            )  # fmt: skip
        found |= _counters(cursor, schema, {counter.name: counter for counter in declared_counters}, ages)
    for name, aggregate in by_name.items():
        if name not in found:
            found[name] = AggregateStatus(
                name,
                "ordered" if isinstance(aggregate, Ordered) else "grouped",
                aggregate.shape.source,
                "declared",
                None,
                0,
                0,
                is_declared=True,
                is_current=False,
            )
    return [found[name] for name in sorted(found)]


def _counters(
    cursor: Cursor, schema: str, declared: dict[str, Counter], ages: dict[str, float]
) -> dict[str, AggregateStatus]:
    found = {}
    for installed in counters.every(cursor, schema):
        counter = declared.pop(installed.name, None)
        keys = counters.keys(cursor, schema, installed.name)
        fresh = counters.fresh_rows(cursor, schema, installed.name)
        found[installed.name] = AggregateStatus(
            installed.name, "counter", None, "kept", "kept", keys, fresh, is_declared=counter is not None,
            is_current=counter is None or counter.fingerprint == installed.fingerprint,
            age_s=ages.get(installed.name) if fresh else None,
        )  # fmt: skip
    for name in declared:
        found[name] = AggregateStatus(
            name, "counter", None, "declared", None, 0, 0, is_declared=True, is_current=False
        )  # fmt: skip
    return found
