"""Partitions that come and go: adopt what is new, detach what is to leave; writers wait for moments only."""

from __future__ import annotations

import psycopg
from psycopg.sql import Composed, Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import canonical, comma, fill, literal
from tallystick.compiler.triggers import partition_triggers
from tallystick.declare.names import internal_name, trigger_name
from tallystick.errors import NotWhole, SourceLocked, UsageError
from tallystick.maintain.inspect import why_not_counted
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, catalog, events, locks, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.catalog import Relation
from tallystick.store.connection import Cursor, lift_timeouts, transaction

DETACH_LOCK_MS = 20


def adopt_new(engine: Engine, schema: str, name: str) -> list[str]:
    """Count in the partitions that are not counted yet; names of those that were adopted.

    Raises:
        NotWhole: a partition went or was truncated by itself, or one that came cannot be counted. Nothing was done.
        InstallError: others kept us out of a new partition all the time.
    """
    with transaction(engine, read_only=True) as cursor:
        found = aggregates.get(cursor, schema, name)
        lacking = partitions.differences(cursor, schema, found) if found.is_complete else []
        if not lacking:
            return []
        listed = partitions.listed(cursor, schema, name)
        new = [relation for relation in catalog.tree(cursor, found.source_oid) if relation.oid not in listed]
    others = [difference for difference in lacking if difference.what != "new"]
    if others:
        raise NotWhole(
            f'aggregate "{name}": {"; ".join(map(str, others))}. Readers are served by the source.',
            hint=f"Run: tally backfill {name}",
        )
    prepare(engine, schema, found)
    for relation in new:
        patiently(engine, _adopt, engine, schema, found, relation)
    return [relation.name for relation in new]


def prepare(engine: Engine, schema: str, found: Installed) -> None:
    """Have every partition tell when it is truncated, and none that has gone, each in a transaction of its own.

    Raises:
        NotWhole: a partition cannot be counted.
        InstallError: others kept us out of a partition all the time.
    """
    trigger = trigger_name(schema, found.name, "truncate")
    with transaction(engine, read_only=True) as cursor:
        tree = catalog.tree(cursor, found.source_oid)
        leaves = [leaf for leaf in tree if leaf.kind != "p"]
        for leaf in leaves:
            why = why_not_counted(leaf)
            if why is not None:
                raise NotWhole(
                    f'aggregate "{found.name}": partition {leaf.name} {why}. Readers are served by the source.',
                    hint=f"Run: ALTER TABLE {found.source} DETACH PARTITION {leaf.name}",
                )
        on_leaves = catalog.triggers(cursor, [leaf.oid for leaf in leaves])
        silent = [leaf.name for leaf in leaves if trigger not in on_leaves[leaf.oid]]
        calling = catalog.calling(cursor, schema, [internal_name(found.name, "truncate")])
    inside = {found.source, *(leaf.name for leaf in leaves)}
    for name in silent:
        patiently(engine, _add_trigger, engine, schema, found.name, name)
    for table, orphan in calling:
        if table not in inside:
            patiently(engine, _drop_trigger, engine, table, orphan)


def _add_trigger(engine: Engine, schema: str, name: str, partition: str) -> None:
    with transaction(engine) as cursor:
        locks.take_against_writers(cursor, partition)
        for statement in partition_triggers(schema, name, partition):
            cursor.execute(statement.sql)


def _drop_trigger(engine: Engine, table: str, trigger: str) -> None:
    with transaction(engine) as cursor:
        locks.take_against_everyone(cursor, [table])
        cursor.execute(fill("DROP TRIGGER {g} ON {t}", g=Identifier(trigger), t=canonical(table)))


def _adopt(engine: Engine, schema: str, found: Installed, relation: Relation) -> None:
    with transaction(engine, snapshot=True) as cursor:
        locks.hold_partitions(cursor, str(found.source), relation.name)
        locks.lock_fold(cursor, schema, found.name)
        lift_timeouts(cursor)
        if relation.oid in partitions.listed(cursor, schema, found.name):
            return  # by another fold
        cursor.execute(_call(schema, found.name, "adopt", relation))
        events.record(cursor, schema, "adopt", found.name, partition=relation.name)
        _note_files(cursor, schema, found, [relation])


def detach(engine: Engine, schema: str, partition: str) -> list[str]:
    """Detach a partition and count it out of every aggregate that counts it; names of these.

    The partition is counted beside writers; readers are served by the source meanwhile. Then it is detached, for which
    PostgreSQL needs the partitioned table for itself for a moment. Stopped in between, it can be run again, or the next
    fold adopts the partition again.

    Raises:
        UsageError: no such partition, or no aggregate over the table that it is a partition of.
        NotWhole: it was truncated by itself, so what is kept of it cannot be told.
        InstallError: the tables stayed locked by others.
    """
    with transaction(engine, read_only=True) as cursor:
        try:
            place = catalog.partition_of(cursor, partition)
        except psycopg.errors.InvalidName:
            place = None
        if place is None:
            raise UsageError(f"{partition} is not a partition.", hint="Name it as schema.table.")
        itself, parent = place
        leaves = [relation for relation in catalog.tree(cursor, itself.oid) if relation.kind != "p"]
        leaves = leaves if itself.kind == "p" else [itself]
        over = [
            found
            for found in aggregates.every(cursor, schema)
            if found.is_partitioned and itself in catalog.tree(cursor, found.source_oid)
        ]
    if not over:
        raise UsageError(
            f'no aggregate in schema "{schema}" counts {itself.name}.',
            hint=f"Run: ALTER TABLE {parent} DETACH PARTITION {itself.name}",
        )
    for found in over:
        patiently(engine, _release_beside_writers, engine, schema, found, itself.name, leaves)
    patiently(engine, _detach, engine, schema, over, itself.name, parent, leaves)
    return [found.name for found in over]


def _release_beside_writers(
    engine: Engine, schema: str, found: Installed, partition: str, leaves: list[Relation]
) -> None:
    with transaction(engine, snapshot=True) as cursor:
        locks.hold_partitions(cursor, str(found.source), partition)
        locks.lock_fold(cursor, schema, found.name)
        lift_timeouts(cursor)
        _release(cursor, schema, found, leaves)


def _release(cursor: Cursor, schema: str, found: Installed, leaves: list[Relation]) -> None:
    truncated = [each for each in partitions.differences(cursor, schema, found) if each.what == "truncated"]
    if truncated and found.is_complete:
        raise NotWhole(
            f'aggregate "{found.name}": {"; ".join(map(str, truncated))}, so it cannot be counted out.',
            hint=f"Run: tally backfill {found.name}, and then detach it.",
        )
    listed = partitions.listed(cursor, schema, found.name)
    for leaf in leaves:
        if leaf.oid in listed:
            cursor.execute(_call(schema, found.name, "release", leaf))


def _detach(
    engine: Engine, schema: str, over: list[Installed], partition: str, parent: str, leaves: list[Relation]
) -> None:
    with transaction(engine) as cursor:
        locks.take_alone(cursor, parent, partition)
        for found in over:
            # Adopted again meanwhile by a fold: count it out here, alone in it.
            locks.lock_fold(cursor, schema, found.name)
            _release(cursor, schema, found, leaves)
            _forget(cursor, schema, found.name, partition, leaves)
        # It also locks a DEFAULT partition, and tables that foreign keys lead to: not for long while we hold these.
        cursor.execute("SELECT set_config('lock_timeout', %s, true)", (f"{DETACH_LOCK_MS}ms",))
        try:
            cursor.execute(fill("ALTER TABLE {t} DETACH PARTITION {p}", t=canonical(parent), p=canonical(partition)))
        except psycopg.errors.LockNotAvailable as error:
            raise SourceLocked(parent, by_readers=True) from error
        for found in over:
            _note_files(cursor, schema, found, leaves)
            events.record(cursor, schema, "detach", found.name, partition=partition)


def _note_files(cursor: Cursor, schema: str, found: Installed, relations: list[Relation]) -> None:
    """Buckets are right for the files of the source, which has those of some partitions more now, or less."""
    if found.ordering is None:
        return
    files = comma(
        fill("pg_catalog.pg_relation_filenode({oid}::oid)", oid=literal(relation.oid))
        for relation in relations
        if relation.kind != "p"
    )
    function = Identifier(schema, internal_name(found.name, "refile"))
    cursor.execute(fill("SELECT {f}(ARRAY[{files}]::oid[])", f=function, files=files))


def _forget(cursor: Cursor, schema: str, name: str, partition: str, leaves: list[Relation]) -> None:
    """The triggers of a partition, what was written to it since it was counted out, and its place in the list."""
    tables = {leaf.name for leaf in leaves}
    for table, trigger in catalog.calling(cursor, schema, [internal_name(name, "truncate")]):
        if table in tables:
            cursor.execute(fill("DROP TRIGGER {g} ON {t}", g=Identifier(trigger), t=canonical(table)))
    delta = Identifier(schema, internal_name(name, "delta"))
    for leaf in leaves:
        cursor.execute(fill("DELETE FROM {t} WHERE partition = {p}::oid", t=delta, p=literal(leaf.oid)))
    partitions.forget(cursor, schema, name, partition)


def _call(schema: str, name: str, what: str, relation: Relation) -> Composed:
    function = Identifier(schema, internal_name(name, what))
    return fill("SELECT {f}({relation}::oid::regclass)", f=function, relation=literal(relation.oid))
