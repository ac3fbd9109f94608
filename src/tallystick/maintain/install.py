"""Install and uninstall: all or nothing for each aggregate, and never in a writer's way.

Everything that touches only the installation's own schema is made first. The source is locked last, with NOWAIT:
waiting for a lock would make writers queue behind us. A lock that is not free is tried again for half a second; then
everything is rolled back, and done again a little later.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import psycopg
from sqlalchemy import Engine

from tallystick.compiler.grouped import Compiled, compile_grouped
from tallystick.compiler.ordered import compile_ordered
from tallystick.compiler.removal import function_names, removal_statements, table_names
from tallystick.compiler.snapshot import Snapshot
from tallystick.compiler.text import Statement
from tallystick.declare.changes import Change
from tallystick.declare.ordered import Kept, Ordered
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.errors import DeclarationError, InstallError
from tallystick.maintain import source_index
from tallystick.maintain.inspect import inspect
from tallystick.maintain.patience import patiently
from tallystick.maintain.refusals import refuse_arrays, refuse_other_primary_key, refuse_taken_functions
from tallystick.maintain.source_index import NeededIndex, Told, needed_index
from tallystick.store import aggregates, catalog, events
from tallystick.store.aggregates import Installed, Version
from tallystick.store.connection import Cursor, transaction
from tallystick.store.locks import (
    against_writers,
    lock_installation,
    take_against_everyone,
    take_against_writers,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Planned:
    """What install runs for one aggregate, in one transaction. `compiled` is None if it is installed already.

    `index` is what an ordered one needs: if it is not there, it is built before that transaction. `changes` tell how
    the declared definition differs from the installed one, which `tally redefine` puts in its place.
    """

    aggregate: str
    source: str
    compiled: Compiled | None
    before_lock: tuple[Statement, ...] = ()
    after_lock: tuple[Statement, ...] = ()
    index: NeededIndex | None = None
    changes: tuple[Change, ...] = ()

    @property
    def is_installed(self) -> bool:
        return self.compiled is None

    @property
    def statements(self) -> tuple[Statement, ...]:
        """All statements in order, the lock among them; none if it is installed already."""
        first = (self.index.statement(),) if self.index is not None and self.index.found is None else ()
        if not self.compiled:
            return first
        return (*first, *self.before_lock, against_writers(self.source), *self.after_lock)


def plan(engine: Engine, aggregate: Kept) -> Planned:
    """Compile an aggregate against the database, which is left as it was.

    Raises:
        DeclarationError: it cannot be kept.
    """
    with transaction(engine, rollback=True) as cursor:
        return planned(cursor, aggregate)


def install(engine: Engine, aggregate: Kept, *, version: Version | None = None, told: Told = _log.warning) -> bool:
    """Install an aggregate, which serves from its source until it is backfilled.

    The index that an ordered one needs is built first, if there is none; also if it has gone since.

    Args:
        version: under which it is installed beside the one that it is to replace; that one's mirror is left alone.
        told: is told whom the build of an index waits for.
    Returns:
        False if it is installed already, with the same definition.
    Raises:
        DeclarationError: it cannot be kept, or is installed with another definition.
        InstallError: the source stayed locked by others, or PostgreSQL refused a statement. Nothing is left behind.
    """

    def attempt() -> bool:
        with transaction(engine) as cursor:
            needed = planned(cursor, aggregate, version)
            refuse_changed(needed)
            if needed.index is not None and needed.index.found is None:
                raise _IndexMissing(needed.index)
            if needed.compiled is None:
                _note_index(cursor, aggregate, needed)
                return needed.index is not None
            for statement in needed.before_lock:
                run_step(cursor, aggregate.name, statement)
            take_against_writers(cursor, needed.source)
            for statement in needed.after_lock:
                run_step(cursor, aggregate.name, statement)
            _note_index(cursor, aggregate, needed)
            events.record(cursor, aggregate.schema, "install", needed.aggregate, source=needed.source)
        return True

    try:
        return patiently(engine, attempt)
    except _IndexMissing as missing:
        built = source_index.build(engine, missing.index, told)
    try:
        return patiently(engine, attempt)
    except BaseException:
        source_index.drop(engine, aggregate.schema, built)
        raise


class _IndexMissing(Exception):
    def __init__(self, index: NeededIndex) -> None:
        super().__init__(index.name)
        self.index = index


def _note_index(cursor: Cursor, aggregate: Kept, planned: Planned) -> None:
    if planned.index is not None:
        aggregates.note_index(cursor, aggregate.schema, planned.aggregate, planned.index.used)


def uninstall(engine: Engine, schema: str, name: str) -> None:
    """Remove an aggregate with everything that belongs to it, its next version if one is being built too.

    Raises:
        NotInstalled: there is none of this name.
        InstallError: the source stayed locked by others, or something outside depends on its views.
    """

    def attempt() -> str | None:
        with transaction(engine) as cursor:
            lock_installation(cursor, schema)
            found = aggregates.get(cursor, schema, name)
            shape = shape_of(name, found.definition)
            # Readers and folds of ours are in these; the source comes last, so that its users wait for nothing of ours.
            tables = catalog.present(cursor, schema, table_names(name, shape))
            triggers = catalog.calling(cursor, schema, function_names(name))
            tables += dict.fromkeys(table for table, _ in triggers)
            if tables:
                take_against_everyone(cursor, tables)
            for statement in removal_statements(name, schema, shape, found.order, triggers):
                run_step(cursor, name, statement)
            aggregates.remove(cursor, schema, name)
            events.record(cursor, schema, "uninstall", name)
        return found.index

    with transaction(engine, read_only=True) as cursor:
        begun = [found.name for found in aggregates.every(cursor, schema) if found.replaces == name]
    for version in begun:
        uninstall(engine, schema, version)
    source_index.drop(engine, schema, patiently(engine, attempt))


def planned(cursor: Cursor, aggregate: Kept, version: Version | None = None) -> Planned:
    """What is to be run for an aggregate, and whether any of it is; what is made here, the caller rolls back or keeps.

    Raises:
        DeclarationError: it cannot be kept.
    """
    lock_installation(cursor, aggregate.schema)
    aggregates.ensure_schema(cursor, aggregate.schema)
    name = version.name if version is not None else aggregate.name
    found = aggregates.find(cursor, aggregate.schema, name)
    if found is not None and found.fingerprint != aggregate.fingerprint:
        inspect(cursor, aggregate)
        return Planned(name, found.source or "", None, changes=tuple(aggregates.changes(found, aggregate)))
    if found is not None:
        return _missing(cursor, aggregate, found)
    if isinstance(aggregate, Ordered):
        refuse_taken_functions(cursor, aggregate, name)
    return compiled_for(cursor, aggregate, version)


def compiled_for(cursor: Cursor, aggregate: Kept, version: Version | None = None) -> Planned:
    """Compile an aggregate against the database, whatever is there of it.

    Raises:
        DeclarationError: it cannot be kept.
    """
    as_ = version or Version(aggregate.name, aggregates.next_version(cursor, aggregate.schema))
    shape, snapshot, source = inspect(cursor, aggregate)
    if as_.replaces is not None:
        shape = arranged(cursor, aggregate, shape, as_.replaces)
        # Two versions that copy into one parent would undo each other's work.
        snapshot = replace(snapshot, mirror=None)
    index = None
    if isinstance(aggregate, Ordered):
        refuse_other_primary_key(cursor, aggregate, source)
        refuse_arrays(aggregate, snapshot.keys)
        index = needed_index(cursor, aggregate, shape, source)
    compiled = compiled_as(aggregate, as_.name, as_.number, shape, snapshot)
    mirror = snapshot.mirror.table if snapshot.mirror is not None else None
    by = index.used if index is not None else None
    known = aggregates.registration(aggregate, as_, source.name, mirror, by)
    before = (catalog.FIXED_PATH, *compiled.objects, *known)
    return Planned(as_.name, source.name, compiled, before, compiled.triggers, index)


def _missing(cursor: Cursor, aggregate: Kept, found: Installed) -> Planned:
    """What an installed aggregate lacks: its index, or the triggers that a rollback took off."""
    lacks_index = isinstance(aggregate, Ordered) and found.index is None
    is_captured = aggregates.is_captured(cursor, aggregate.schema, found.name)
    if found.source is None or (is_captured and not lacks_index):
        return Planned(found.name, found.source or "", None)
    shape, snapshot, source = inspect(cursor, aggregate)
    index = None
    if lacks_index and isinstance(aggregate, Ordered):
        index = needed_index(cursor, aggregate, shape, source)
    if is_captured:
        return Planned(found.name, source.name, None, index=index)
    compiled = compiled_as(
        aggregate, found.name, found.version, arranged(cursor, aggregate, shape, found.name), snapshot
    )
    return Planned(found.name, source.name, compiled, (catalog.FIXED_PATH,), compiled.triggers, index)


def arranged(cursor: Cursor, aggregate: Kept, shape: Shape, installed_as: str) -> Shape:
    """The columns that the readers of a grouped aggregate have stay where they are; new ones follow."""
    if isinstance(aggregate, Ordered):
        return shape
    present = catalog.columns_of(cursor, catalog.qualified(aggregate.schema, installed_as))
    kept = [name for name in present if name in shape.columns]
    return replace(shape, columns=tuple(dict.fromkeys([*kept, *shape.columns])))


def compiled_as(aggregate: Kept, name: str, version: int, shape: Shape, snapshot: Snapshot) -> Compiled:
    """Compile a declaration under a name, which need not be the declared one.

    Raises:
        DeclarationError: something that cannot be kept.
    """
    if isinstance(aggregate, Ordered):
        return compile_ordered(name, aggregate.schema, shape, snapshot, aggregate.ordering, version)
    return compile_grouped(name, aggregate.schema, shape, snapshot, version)


def refuse_changed(planned: Planned) -> None:
    """What is installed is not replaced by an install.

    Raises:
        DeclarationError: it has another definition than the one declared.
    """
    if planned.changes:
        raise DeclarationError(
            f'aggregate "{planned.aggregate}" is installed with another definition: '
            f"{'; '.join(map(str, planned.changes))}.",
            hint=f"Run: tally redefine {planned.aggregate}",
        )


def run_step(cursor: Cursor, name: str, statement: Statement) -> None:
    """Run a statement of an aggregate's life.

    Raises:
        InstallError: PostgreSQL refused it.
    """
    try:
        cursor.execute(statement.sql)
    except psycopg.errors.InsufficientPrivilege:
        raise
    except (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.errors.DependentObjectsStillExist) as error:
        said = error.diag.message_primary or str(error)
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise InstallError(
            f'aggregate "{name}": PostgreSQL refused a step ("{statement.purpose}"): {said}{detail}.',
            hint=error.diag.message_hint or "Nothing of this aggregate was changed.",
        ) from error
