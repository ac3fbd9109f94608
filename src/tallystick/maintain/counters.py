"""The life of a counter: install, fold, verify and backfill from its source, uninstall. Adds wait for none of these."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import psycopg
from sqlalchemy import Engine

from tallystick.compiler.text import Statement
from tallystick.declare.counter import Counter
from tallystick.errors import DeclarationError, InstallError, SourceLocked, TallyError, UsageError
from tallystick.maintain.backfill import BackfillResult
from tallystick.maintain.folding import FoldResult
from tallystick.maintain.install import Planned
from tallystick.maintain.patience import patiently
from tallystick.maintain.verify import SHOWN, Drift, VerifyReport
from tallystick.store import aggregates, catalog, counters, events
from tallystick.store.connection import Cursor, lift_timeouts, transaction
from tallystick.store.counters import InstalledCounter
from tallystick.store.locks import lock_installation

KEYS_AT_ONCE = 100
"""Keys that a fold holds in one transaction; adds to them make new rows meanwhile."""


@dataclass(frozen=True, slots=True)
class PlannedCounter(Planned):
    """What install runs for one counter, in one transaction; nothing if it is installed as declared."""

    @property
    def is_installed(self) -> bool:
        return not self.before_lock

    @property
    def statements(self) -> tuple[Statement, ...]:
        return self.before_lock


@dataclass(frozen=True, slots=True)
class CounterCheck:
    """One key of both halves: actual is what was counted, direct what the source gives; status "exact" or "drift"."""

    counter: str
    key: str | None
    actual: Decimal
    direct: Decimal
    diff: Decimal
    status: str


def plan(engine: Engine, counter: Counter) -> PlannedCounter:
    """What install would run; the database is left as it was.

    Raises:
        DeclarationError: the name is taken, or it is installed with values of the other type.
    """
    with transaction(engine, rollback=True) as cursor:
        return _planned(cursor, counter)


def install(engine: Engine, counter: Counter) -> bool:
    """Install a counter, or give an installed one the shards and the direct query that are declared now.

    Returns:
        False if it is installed as declared.
    Raises:
        DeclarationError: the name is taken, it is installed with values of the other type, or PostgreSQL refuses the
            direct query.
    """

    def attempt() -> bool:
        with transaction(engine) as cursor:
            planned = _planned(cursor, counter)
            for statement in planned.statements:
                _run(cursor, counter.name, statement)
        return not planned.is_installed

    return patiently(engine, attempt)


def installed_names(engine: Engine, schema: str) -> list[str]:
    """Names of the counters that are installed."""
    with transaction(engine, read_only=True) as cursor:
        return [found.name for found in counters.every(cursor, schema)]


def uninstall(engine: Engine, schema: str, name: str) -> None:
    """Remove a counter with all its values. An add that is under way is lost with them.

    Raises:
        NotInstalled: there is none of this name.
        InstallError: its view stayed locked by others, or something outside depends on it.
    """

    def attempt() -> None:
        with transaction(engine) as cursor:
            lock_installation(cursor, schema)
            counters.get(cursor, schema, name)
            # Readers of the view come behind us while we wait for others. LOCK … NOWAIT would lock the tables below the
            # view as well, in which there is always somebody who adds.
            cursor.execute("SET LOCAL lock_timeout = '20ms'")
            try:
                for statement in counters.removal(schema, name):
                    _run(cursor, name, statement)
            except psycopg.errors.LockNotAvailable as error:
                raise SourceLocked(catalog.qualified(schema, name), by_readers=True) from error

    patiently(engine, attempt)


def fold(engine: Engine, schema: str, name: str) -> FoldResult:
    """Bring each key back to one row for each of its shards; rows that others hold are left to the next fold.

    Returns:
        Rows that were taken together (`deltas`) and keys that were looked at (`groups`).
    Raises:
        NotInstalled: there is no such counter.
    """
    started = time.perf_counter()
    rows = keys = 0
    after: str | None = None
    while True:
        with transaction(engine) as cursor:
            found = counters.get(cursor, schema, name)
            folded, before, behind, last = counters.fold_keys(cursor, schema, name, after, KEYS_AT_ONCE)
        rows += max(before - behind, 0)
        keys += folded
        if folded < KEYS_AT_ONCE:
            break
        after = last
    if found.is_resized:
        with transaction(engine) as cursor:
            counters.settle_size(cursor, schema, name)
    return FoldResult(name, rows, keys, time.perf_counter() - started)


def verify(engine: Engine, schema: str, name: str) -> VerifyReport:
    """Compare the counter with its direct query in one snapshot.

    Raises:
        NotInstalled: there is no such counter.
        UsageError: it was declared without a direct query.
    """
    started = time.perf_counter()
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        _with_direct(cursor, schema, name)
        keys, drifted, found = counters.differences(cursor, schema, name, limit=SHOWN)
    first = tuple(Drift({"key": key}, {"count": actual}, {"count": direct}) for key, actual, direct in found)
    status = "drift" if drifted else "exact"
    return VerifyReport(name, keys, drifted, first, status, time.perf_counter() - started)


def checks(engine: Engine, schema: str, name: str, keys: Sequence[str] | None = None) -> list[CounterCheck]:
    """Every key that drifts, or those asked for whether they do or not.

    Raises:
        NotInstalled: there is no such counter.
        UsageError: it was declared without a direct query.
    """
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        _with_direct(cursor, schema, name)
        _, _, found = counters.differences(cursor, schema, name, list(keys) if keys is not None else None)
    return [
        CounterCheck(name, key, actual, direct, actual - direct, "exact" if actual == direct else "drift")
        for key, actual, direct in found
    ]


def backfill(engine: Engine, schema: str, name: str) -> BackfillResult:
    """Set every key to what the direct query gives, in one snapshot, beside adds and writers of the source.

    Exact for applications that change the source and the counter in one transaction. Waits for sets under way, and sets
    wait for it.

    Raises:
        NotInstalled: there is no such counter.
        UsageError: it was declared without a direct query.
        TallyError: the direct query gives a key or a total that the counter cannot hold. Nothing was changed.
    """
    started = time.perf_counter()
    with transaction(engine) as cursor:
        found = _with_direct(cursor, schema, name)
        lift_timeouts(cursor)
        counters.hold(cursor, schema, name)
        unfit = counters.first_unfit(cursor, schema, name, is_numeric=found.is_numeric)
        if unfit is not None:
            key, total = unfit
            kind = "a number" if found.is_numeric else "a number without a fraction"
            raise TallyError(
                f'counter "{name}": its direct query gives {total} for the key {key!r};'
                f" expected {kind} and a key of at most 2,000 bytes.",
                hint="Mend the query; nothing was changed.",
            )
        changed = counters.correct(cursor, schema, name)
        events.record(cursor, schema, "backfill", name, keys=changed)
    return BackfillResult(name, changed, time.perf_counter() - started)


def _with_direct(cursor: Cursor, schema: str, name: str) -> InstalledCounter:
    found = counters.get(cursor, schema, name)
    if found.definition is None:
        raise UsageError(
            f'counter "{name}" has no direct query: nothing says what it should be.',
            hint="Declare one: tally.counter(name, direct=select(…)), then run: tally install.",
        )
    return found


def _planned(cursor: Cursor, counter: Counter) -> PlannedCounter:
    lock_installation(cursor, counter.schema)
    aggregates.ensure_schema(cursor, counter.schema)
    if aggregates.find(cursor, counter.schema, counter.name) is not None:
        raise DeclarationError(
            f'counter "{counter.name}": a grouped aggregate of that name is installed.', hint="Choose another name."
        )
    found = counters.find(cursor, counter.schema, counter.name)
    if found is None:
        statements = [*counters.sweep(counter.schema), *counters.registration(counter)]
    elif found.is_numeric != counter.is_numeric:
        kinds = {True: "numeric", False: "bigint"}
        raise DeclarationError(
            f'counter "{counter.name}" is installed with {kinds[found.is_numeric]} values, and declared with'
            f" {kinds[counter.is_numeric]}.",
            hint=f"Declare it as it is, or give up its values: tally uninstall {counter.name}, then install it again.",
        )
    else:
        statements = counters.changes(counter) if found.fingerprint != counter.fingerprint else []
    if catalog.counters_name_another_schema(cursor, counter.schema):
        statements += [catalog.FIXED_PATH, counters.functions(counter.schema)]
    return PlannedCounter(counter.name, "", None, tuple(statements))


def _run(cursor: Cursor, name: str, statement: Statement) -> None:
    try:
        cursor.execute(statement.sql)
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.errors.DependentObjectsStillExist) as error:
        said = error.diag.message_primary or str(error)
        raise InstallError(
            f'counter "{name}": PostgreSQL refused a step ("{statement.purpose}"): {said}.',
            hint=error.diag.message_hint or "Nothing of this counter was changed.",
        ) from error
