"""Redefine: a changed declaration is built beside the installed one, and takes its place when it is exact.

The next version is an aggregate of its own, `x__next`, that triggers keep, that is backfilled and verified as any
other, beside the present one, which goes on answering. Then, in one transaction that waits for nobody, its tables take
the names of the present ones and the views come to read them. Whatever is interrupted goes on when it is run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from tallystick.compiler.replacement import next_name, replacement_statements
from tallystick.declare.changes import Change
from tallystick.declare.ordered import Kept
from tallystick.errors import FoldLocked, NotInstalled, RedefinitionRefused
from tallystick.maintain import backfill, folding, install, mirror, moving, places, source_index, verify
from tallystick.maintain.backfill import AT_EASE, Manner
from tallystick.maintain.inspect import inspect
from tallystick.maintain.patience import patiently
from tallystick.maintain.source_index import Told
from tallystick.store import aggregates, events, readers
from tallystick.store.aggregates import Installed, Version
from tallystick.store.connection import Cursor, transaction
from tallystick.store.locks import lock_installation

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Redefined:
    """What came of it: the changes, and the number of groups (or buckets) of the new version; none if none was due."""

    aggregate: str
    changes: tuple[Change, ...]
    groups: int = 0
    unit: str = "groups"


def redefine(
    engine: Engine,
    aggregate: Kept,
    manner: Manner = AT_EASE,
    *,
    step: Callable[[str], None] = _log.info,
    told: Told = _log.warning,
    progress: backfill.Told | None = None,
) -> Redefined:
    """Have an installed aggregate keep what is declared now; readers are answered exactly all the time.

    Run it again after an interruption: what is done is not done again.

    Args:
        manner: how the next version is backfilled.
        step: is told what is being done.
        told: is told whom the build of an index waits for.
        progress: is told how far the backfill has come.
    Raises:
        NotInstalled: there is no such aggregate.
        DeclarationError: the new declaration cannot be kept.
        RedefinitionRefused: objects of others need what would go, or another redefinition is under way, or this one
            was given up by another session.
        InstallError: others kept us out of the tables all the time. It goes on when it is run again.
    """
    schema, name = aggregate.schema, aggregate.name
    version, changes = _begun(engine, aggregate)
    if not changes:
        return Redefined(name, ())
    step(f"installing the next version of {name}")
    install.install(engine, aggregate, version=version, told=told)
    try:
        step(f"backfilling the next version of {name}")
        if _is_kept(engine, schema, version.name):
            _fold(engine, schema, version.name)  # adopts partitions that have come since
        else:
            backfill.backfill(engine, schema, version.name, manner, told=progress)
        step(f"verifying the next version of {name}")
        report = verify.verify(engine, schema, version.name)
    except NotInstalled as gone:
        if _begun(engine, aggregate)[1]:
            raise RedefinitionRefused(
                f'aggregate "{name}": another session has given up its redefinition.', hint=f"See: tally plan {name}"
            ) from gone
        return Redefined(name, ())
    if report.drifted:
        raise RedefinitionRefused(
            f'aggregate "{name}": its next version is not exact ({report.drifted:,} of {report.groups:,} {report.unit}'
            " drift); readers have the present one.",
            hint=f"Run: tally redefine --abort {name}, then tally redefine {name}",
        )
    if not report.is_exact:
        raise RedefinitionRefused(
            f'aggregate "{name}": its next version could not be compared ({report.status}), for others have changed it'
            " or its source meanwhile; readers have the present one.",
            hint=f"Run: tally redefine {name}",
        )
    step(f"switching {name} to its next version")
    old = patiently(engine, _switched, engine, aggregate, changes)
    source_index.drop(engine, schema, old.index if old is not None else None)
    _fold(engine, schema, name)
    if aggregate.mirror is not None:
        mirror.note_parents(engine, schema, name, skip_existing=False)
        mirror.copy(engine, schema, name)
    return Redefined(name, tuple(changes), report.groups, report.unit)


def abort(engine: Engine, schema: str, name: str) -> None:
    """Give up a redefinition that has not been switched to; readers notice nothing.

    Raises:
        NotInstalled: none is under way.
    """
    with transaction(engine, read_only=True) as cursor:
        aggregates.get(cursor, schema, name)
        begun = aggregates.find(cursor, schema, next_name(name))
    if begun is None:
        raise NotInstalled(f'aggregate "{name}": no redefinition is under way.', hint=f"See: tally plan {name}")
    install.uninstall(engine, schema, begun.name)


def _begun(engine: Engine, aggregate: Kept) -> tuple[Version, list[Change]]:
    """The version that is to be built, or is being built; and what changes with it."""
    schema, name = aggregate.schema, aggregate.name
    with transaction(engine, rollback=True) as cursor:
        lock_installation(cursor, schema)
        old = aggregates.get(cursor, schema, name)
        changes = aggregates.changes(old, aggregate)
        begun = aggregates.find(cursor, schema, next_name(name))
        if begun is not None and begun.fingerprint != aggregate.fingerprint:
            raise RedefinitionRefused(
                f'aggregate "{name}": another redefinition is under way, to {begun.definition}.',
                hint=f"Let it end, or run: tally redefine --abort {name}",
            )
        if begun is not None:
            return Version(begun.name, begun.version, begun.replaces), changes
        version = Version(next_name(name), aggregates.next_version(cursor, schema), name)
        if changes:
            _refuse(cursor, aggregate, old, version, changes)
    return version, changes


def _refuse(cursor: Cursor, aggregate: Kept, old: Installed, version: Version, changes: list[Change]) -> None:
    """Make the next version's objects, which the caller rolls back, and see what would go with the present ones."""
    schema = aggregate.schema
    if changes[0].part == "kind":
        raise RedefinitionRefused(
            f'aggregate "{old.name}": {changes[0]}: readers of the one cannot read the other.',
            hint="Declare it under a name of its own, and uninstall this one when nobody reads it any more.",
        )
    for statement in install.planned(cursor, aggregate, version).before_lock:
        install.run_step(cursor, aggregate.name, statement)
    before, after = moving.objects_of(old), moving.objects_of(aggregates.get(cursor, schema, version.name))
    private, readable = [*before.tables, *before.inner_views, *before.functions], [*before.views, *before.reads]
    gone = [*private, *readers.not_replaceable(cursor, schema, before, after)]
    found = readers.dependents(cursor, schema, gone, own=[*private, *readable, *before.building_views])
    if found:
        raise RedefinitionRefused(
            f'aggregate "{old.name}": its columns or parameters would change under {", ".join(found)}.',
            hint="Keep the columns, in their types, and add others; or drop these objects and make them again later.",
        )


def _fold(engine: Engine, schema: str, name: str) -> None:
    with suppress(FoldLocked):  # whoever has it does what is to be done
        folding.fold(engine, schema, name)


def _is_kept(engine: Engine, schema: str, name: str) -> bool:
    with transaction(engine, read_only=True) as cursor:
        return aggregates.get(cursor, schema, name).is_complete


def _switched(engine: Engine, aggregate: Kept, changes: Sequence[Change]) -> Installed | None:
    """Put the next version in the place of the present one, which is returned; None if that has been done."""
    schema = aggregate.schema
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        old = aggregates.get(cursor, schema, aggregate.name)
        begun = aggregates.find(cursor, schema, next_name(aggregate.name))
        if begun is None:
            return None
        shape, snapshot, _ = inspect(cursor, aggregate)
        shape = install.arranged(cursor, aggregate, shape, old.name)
        snapshot = places.as_kept(cursor, schema, begun, snapshot)
        compiled = install.compiled_as(aggregate, old.name, begun.version, shape, snapshot)
        built = install.compiled_as(aggregate, old.name, begun.version, shape, replace(snapshot, mirror=None))
        before, after = moving.objects_of(old), moving.objects_of(begun)
        triggers = moving.triggers_of(cursor, schema, before, after)
        statements = replacement_statements(
            schema, before, after, compiled, built, triggers=triggers,
            gone=readers.not_replaceable(cursor, schema, before, after),
            under_views=moving.under_views(cursor, schema, before),
        )  # fmt: skip
        granted = readers.grants(cursor, schema, before.views, before.reads)
        moving.move(cursor, schema, old, (before, after), triggers, statements)
        aggregates.take_over(cursor, schema, old, begun, snapshot.mirror.table if snapshot.mirror is not None else None)
        readers.restore(cursor, schema, granted)
        events.record(cursor, schema, "redefine", old.name, changes=[str(change) for change in changes])
    return old
