"""Doctor: what is wrong in the database or will make reads slow, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.removal import object_names
from tallystick.compiler.text import canonical, fill
from tallystick.declare.counter import Counter
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept
from tallystick.declare.sqltext import shape_of
from tallystick.maintain.checks.capture import of_capture, of_partitions
from tallystick.maintain.checks.counters import of_counters
from tallystick.maintain.checks.dead_rows import of_dead_rows
from tallystick.maintain.checks.finding import LONG_BACKLOG, Finding, anew
from tallystick.maintain.checks.rights import of_readers, of_rights
from tallystick.maintain.checks.source_index import of_index
from tallystick.maintain.checks.surroundings import of_settings, of_versions
from tallystick.store import aggregates, catalog, health, layouts
from tallystick.store.aggregates import LAYOUT_VERSION, Installed
from tallystick.store.connection import Cursor, transaction

__all__ = ["Finding", "examine"]


def examine(
    engine: Engine, schema: str, declared: Iterable[Kept] = (), declared_counters: Iterable[Counter] = ()
) -> list[Finding]:
    """Examine an installation and, beside it, the declarations of the application.

    Raises:
        InstallError: it is of a later layout than this version knows.
    """
    by_name = {aggregate.name: aggregate for aggregate in declared}
    with transaction(engine, read_only=True) as cursor:
        version = aggregates.layout_version(cursor, schema)
        if version is not None and version < LAYOUT_VERSION:
            what = f"has layout {version}, this version works with {LAYOUT_VERSION}"
            return [Finding("error", schema, what, "tally upgrade")]
        installed = aggregates.every(cursor, schema)
        findings = []
        if version is None:
            what = f'nothing is installed in schema "{schema}"'
            findings.append(Finding("advice", schema, what, "tally install"))
        else:
            findings += of_versions(cursor, schema)
            findings += of_settings(cursor, schema, has_aggregates=bool(installed))
            findings += of_dead_rows(cursor, schema)
        for found in installed:
            findings += _aggregate(cursor, schema, found, by_name.get(found.name))
        findings += of_counters(cursor, schema, {counter.name: counter for counter in declared_counters})
    known = {found.name for found in installed}
    for name in by_name:
        if name not in known:
            findings.append(Finding("advice", name, "declared and not installed", f"tally install {name}"))
    return findings


def _aggregate(cursor: Cursor, schema: str, found: Installed, declared: Kept | None) -> Iterator[Finding]:
    name = found.name
    if found.replaces is not None:
        what = f"its next version is being built; or give that up: tally redefine --abort {found.replaces}"
        yield Finding("advice", found.replaces, what, f"tally redefine {found.replaces}")
        return
    if declared is not None and declared.fingerprint != found.fingerprint:
        what = f"is declared otherwise: {'; '.join(map(str, aggregates.changes(found, declared)))}"
        yield Finding("error", name, what, f"tally redefine {name}")
    if found.source is None:
        yield Finding("error", name, "its source table has been dropped", f"tally uninstall {name}")
        return
    if found.phase == "building" and layouts.is_at_rest(cursor, schema, name):
        what = "serves from its source, and nothing is kept: an upgrade was stopped"
        yield Finding("error", name, what, "tally upgrade")
        return
    if found.phase == "building" and not aggregates.is_captured(cursor, schema, name):
        resume = f" && tally resume {name}" if found.rolled_back else ""
        back = f"tally install {name} && tally backfill {name}{resume}"
        yield Finding("advice", name, "serves from its source, and its triggers are off", back)
        return
    shape = shape_of(name, found.definition)
    yield from _source(cursor, schema, found)
    relations, functions = object_names(
        name, shape, found.order, is_partitioned=found.is_partitioned, has_mirror=found.mirror is not None
    )
    for what in catalog.missing(cursor, schema, relations, functions):
        yield Finding("error", name, f'"{what}" is missing in schema "{schema}"', anew(found))
    yield from of_rights(cursor, schema, found, relations, functions)
    yield from of_readers(cursor, schema, found, shape)
    yield from of_capture(cursor, schema, found)
    if found.is_complete:
        yield from of_partitions(cursor, schema, found)
    if found.order is not None:
        yield from of_index(cursor, schema, found, found.order)
    yield from _state(cursor, schema, found)
    backlog = catalog.counted_rows(cursor, catalog.qualified(schema, internal_name(name, "delta")))
    if backlog > LONG_BACKLOG:
        yield Finding("advice", name, f"{backlog:,} deltas wait to be folded; reads are slow", f"tally fold {name}")


def _source(cursor: Cursor, schema: str, found: Installed) -> Iterator[Finding]:
    """What has become of the source's owner and of its generated columns."""
    if found.is_complete and aggregates.used_as(cursor, schema, found) != found.generated:
        what = f"{found.source} computes a generated column otherwise than when it was counted"
        yield Finding("error", found.name, what, f"tally backfill {found.name}")
    direct = catalog.qualified(schema, internal_name(found.name, "direct"))
    readable = catalog.may_read(cursor, direct, found.source_oid)
    if readable is not None and not readable[0]:
        grant = fill("GRANT SELECT ON {t} TO {r}", t=canonical(str(found.source)), r=Identifier(readable[1]))
        what = f"{readable[1]}, who installed it, may not read {found.source}: every read of the view is refused"
        yield Finding("error", found.name, what, grant.as_string(None))


def _state(cursor: Cursor, schema: str, found: Installed) -> Iterator[Finding]:
    """What is kept, beside what the source has become since."""
    name = found.name
    state = catalog.qualified(schema, internal_name(name, found.kept_in))
    inherits, persistence, kept = catalog.source_state(cursor, found.source_oid, state)
    if inherits and not found.is_partitioned:
        what = f"{found.source} is part of an inheritance tree: not all of its changes are captured"
        yield Finding("error", name, what, f"tally uninstall {name}")
    if kept is not None and (persistence == "u") != (kept == "u"):
        yield Finding("error", name, f"{found.source} and its state are not both logged", anew(found))
    if found.phase == "building":
        yield Finding("advice", name, "serves from its source until it is backfilled", f"tally backfill {name}")
    elif not health.is_of_this_release(cursor, schema, name):
        what = "was folded by another major version of PostgreSQL, whose hashes may be others"
        yield Finding("advice", name, what, f"tally fold {name}")
    if not catalog.has_primary_key(cursor, found.source_oid):
        yield Finding(
            "advice", name, f"{found.source} has no primary key, so it can be backfilled in one transaction only",
            fill("ALTER TABLE {table} ADD PRIMARY KEY (…)", table=canonical(str(found.source))).as_string(None),
        )  # fmt: skip
