"""Rename: an aggregate takes the name under which it is declared now, with all that is kept; nothing is built anew."""

from __future__ import annotations

from sqlalchemy import Engine

from tallystick.compiler.replacement import Objects, next_name, renaming_statements
from tallystick.declare.ordered import Kept
from tallystick.errors import NotInstalled, RedefinitionRefused
from tallystick.maintain import install, moving, places
from tallystick.maintain.inspect import inspect
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, events
from tallystick.store.connection import transaction
from tallystick.store.locks import lock_installation


def rename(engine: Engine, name: str, aggregate: Kept) -> None:
    """Give an installed aggregate the name under which it is declared now.

    Grants on its views and functions, and views upon them, stay. Whoever reads the old name afterwards is refused by
    PostgreSQL.

    Args:
        name: under which it is installed.
        aggregate: its declaration, under the new name.
    Raises:
        NotInstalled: there is none of the old name.
        RedefinitionRefused: the new name is taken, the declaration is another one, or a redefinition is under way.
        InstallError: others kept us out of the tables all the time, or its triggers are off; nothing was changed.
    """
    patiently(engine, _renamed, engine, name, aggregate)


def _renamed(engine: Engine, name: str, aggregate: Kept) -> None:
    schema = aggregate.schema
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        found = aggregates.find(cursor, schema, name)
        if found is None:
            raise NotInstalled(
                f'aggregate "{name}" is not installed in schema "{schema}".',
                hint="Name it as it is installed: tally status",
            )
        if aggregates.find(cursor, schema, aggregate.name) is not None:
            raise RedefinitionRefused(
                f'aggregate "{name}": "{aggregate.name}" is installed already.',
                hint=f"Run: tally uninstall {name}, if it is not read any more.",
            )
        if aggregates.find(cursor, schema, next_name(name)) is not None:
            raise RedefinitionRefused(
                f'aggregate "{name}": a redefinition of it is under way.',
                hint=f"Let it end, or run: tally redefine --abort {name}",
            )
        aggregates.refuse_uncaptured(cursor, schema, name)
        changes = aggregates.changes(found, aggregate)
        if changes:
            raise RedefinitionRefused(
                f'aggregate "{name}": "{aggregate.name}" is declared otherwise: {"; ".join(map(str, changes))}.',
                hint="Rename it with the definition that is installed, then run: tally redefine " + aggregate.name,
            )
        shape, snapshot, _ = inspect(cursor, aggregate)
        version = aggregates.next_version(cursor, schema)
        drift = events.drifting(cursor, schema).get(name)
        was = moving.objects_of(found)
        shape = install.arranged(cursor, aggregate, shape, name)
        snapshot = places.as_kept(cursor, schema, found, snapshot)
        compiled = install.compiled_as(aggregate, aggregate.name, version, shape, snapshot)
        now = Objects(aggregate.name, was.shape, was.ordering)
        triggers = moving.triggers_of(cursor, schema, was)
        under_views = moving.under_views(cursor, schema, was)
        statements = renaming_statements(schema, was, now, compiled, under_views=under_views, triggers=triggers)
        moving.move(cursor, schema, found, (was,), triggers, statements)
        aggregates.rename(cursor, schema, name, aggregate.name, version)
        events.record(cursor, schema, "rename", aggregate.name, was=name)
        if drift is not None:  # it has come along
            events.record(cursor, schema, "drift", aggregate.name, **drift.detail)
