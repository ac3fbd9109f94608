"""Roll back and resume: which half readers are served, by the update of one row, at once for readers in every language.

A rollback lasts until `resume`: whatever finishes meanwhile, a backfill too, leaves readers on the source. Triggers and
folds go on, so that nothing is lost, unless maintenance is stopped as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from sqlalchemy import Engine

from tallystick.compiler.removal import function_names, stop_statements
from tallystick.errors import NotKept, UsageError
from tallystick.maintain.complete import refuse_incomplete
from tallystick.maintain.patience import patiently
from tallystick.maintain.verify import VerifyReport, comparable, compare
from tallystick.store import aggregates, catalog, chunks, events
from tallystick.store.connection import transaction
from tallystick.store.locks import lock_installation, take_against_everyone


@dataclass(frozen=True, slots=True)
class RolledBack:
    """An aggregate whose readers are served by the source; `was` tells by which half before: "kept" or "direct".

    `is_maintained`: triggers and folds go on.
    """

    aggregate: str
    was: str
    is_maintained: bool


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was verified before, and which half readers are `serving` now: "direct" still if the halves differ."""

    aggregate: str
    serving: str
    report: VerifyReport


def refuse_counters(names: Iterable[str]) -> None:
    """Raise UsageError if there are any."""
    named = sorted(names)
    if named:
        raise UsageError(
            f'counter "{named[0]}" has no switch: what it counts is written by hand and kept nowhere else.',
            hint="In Python, direct_of(read) turns a read of a counter into one of its direct query, if it has one.",
        )


def rollback(engine: Engine, schema: str, name: str, *, stop_maintenance: bool = False) -> RolledBack:
    """Put all readers on the source until `resume`. Waits for no reader, writer or fold.

    Args:
        stop_maintenance: take the triggers off the source too. What is kept is given up: it takes an install, a
            backfill and a resume to come back.
    Raises:
        NotInstalled: there is no such aggregate.
        InstallError: others kept us out of the source all the time; readers are on the source, the triggers are there.
    """
    with transaction(engine) as cursor:
        found = aggregates.get(cursor, schema, name)
        aggregates.serve_direct(cursor, schema, name)
        events.record(cursor, schema, "rollback", name, was=found.serving)
    if stop_maintenance:
        patiently(engine, _stop, engine, schema, name)
    return RolledBack(name, found.serving, is_maintained=not stop_maintenance)


def resume(engine: Engine, schema: str, name: str) -> Resumed:
    """Compare both halves in one snapshot, and let readers use the kept one only if they are equal.

    Exact beside writers: what they commit later comes as deltas to a state that was right in that snapshot. A rollback
    that comes meanwhile prevails.

    Raises:
        NotInstalled: there is no such aggregate.
        InstallError, NotKept, NotWhole: nothing is kept that could be served, or it was changed meanwhile.
    """
    with comparable(engine, schema, name) as (cursor, found):
        refuse_incomplete(cursor, schema, found, "resume")
        report = compare(cursor, schema, found)
        if not report.is_exact or found.serving == "kept":
            return Resumed(name, found.serving, report)
        try:
            aggregates.end_rollback(cursor, schema, name)
        except psycopg.errors.SerializationFailure as error:
            raise NotKept(
                f'aggregate "{name}" was rolled back or changed by others while it was verified.',
                hint=f"Run: tally resume {name}",
            ) from error
        events.record(cursor, schema, "resume", name, **{report.unit: report.groups})
    return Resumed(name, "kept", report)


def _stop(engine: Engine, schema: str, name: str) -> None:
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        # Before the source, as a backfill does. What is written while no trigger is there is in none of its chunks.
        chunks.give_up(cursor, schema, name)
        triggers = catalog.calling(cursor, schema, function_names(name))
        if triggers:
            take_against_everyone(cursor, [*dict.fromkeys(table for table, _ in triggers)])
        for statement in stop_statements(triggers):
            cursor.execute(statement.sql)
        aggregates.give_up_state(cursor, schema, name)
        events.record(cursor, schema, "stop maintenance", name)
