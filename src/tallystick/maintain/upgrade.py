"""Upgrade: an installation of an earlier layout is brought to this one beside readers and writers.

An upgrade is an uninstall that leaves the readers on the source, and an install:

1. Each aggregate is put to *rest*: what readers name answers from the source alone, and the rest of it is dropped.
2. The installation's own tables, which nothing needs any more, are made anew; counters keep theirs.
3. Each aggregate is installed again under the names that readers know, and serves from its source until a backfill.

Every step is a transaction of its own with the rights of the role that installed, and asks first whether it has been
done: an upgrade that was stopped goes on where it was, and two at once share the work. What would be refused is refused
before anything is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.grouped import resting_grouped
from tallystick.compiler.ordered import resting_ordered
from tallystick.compiler.removal import function_names, inner_views, resting_statements, table_names
from tallystick.compiler.text import Statement, fill, literal
from tallystick.declare.grouped import Grouped
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept, Ordered
from tallystick.declare.sqltext import shape_of
from tallystick.errors import InstallError, NotInstalled, UsageError
from tallystick.maintain.inspect import inspect
from tallystick.maintain.install import compiled_for, run_step
from tallystick.maintain.patience import patiently
from tallystick.store import aggregates, catalog, events, layouts, readers
from tallystick.store.aggregates import LAYOUT_VERSION
from tallystick.store.connection import Cursor, transaction
from tallystick.store.layouts import Recorded
from tallystick.store.locks import briefly, lock_installation, take_against_everyone, take_against_writers

OF_READERS = ("front", "rest")
"""Views beside the aggregate's own that readers name."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """Layouts before and after, and the aggregates that were made anew: they serve from their sources until a backfill.

    Nothing was to be done if there are none and both layouts are the same.
    """

    before: int
    after: int
    aggregates: tuple[str, ...]


def upgrade(
    engine: Engine, schema: str, declared: Iterable[Kept] = (), *, told: Callable[[str], None] = lambda _: None
) -> Upgraded:
    """Bring an installation to the layout of this version.

    Args:
        declared: the application's aggregates. Ordered aggregates and mirrors are not told by the database alone.
        told: is told what is being done.
    Raises:
        NotInstalled: nothing is installed.
        UsageError: a declaration is missing, or another one than is installed.
        DeclarationError: an aggregate cannot be kept any more as it is declared.
        InstallError: the layout is of a later version, others have built on what is to be dropped, or a table stayed
            locked. What was not refused at first, and has been done, stays; run it again.
    """
    with transaction(engine, rollback=True) as cursor:
        before = aggregates.layout_version(cursor, schema)
        if before is None:
            raise NotInstalled(f'nothing is installed in schema "{schema}".', hint="Run: tally install")
        found = layouts.recorded(cursor, schema)
        if before == LAYOUT_VERSION:
            found = [each for each in found if layouts.is_at_rest(cursor, schema, each.name)]
        gone = [each for each in found if not each.has_source]
        found = [each for each in found if each.has_source]
        chosen = _kept(schema, found, {aggregate.name: aggregate for aggregate in declared})
        _refuse_dependents(cursor, schema, found)
        path = cursor.execute("SELECT current_setting('search_path')").fetchone()
        for each, aggregate in zip(found, chosen, strict=True):
            cursor.execute("SELECT set_config('search_path', %s, true)", path)
            _refuse_other_source(cursor, each, aggregate)
    if before < LAYOUT_VERSION:
        patiently(engine, _replace_functions, engine, schema)
        for each in gone:
            told(f"{each.name}: its source has been dropped")
            patiently(engine, _rest, engine, schema, each)
        for each, aggregate in zip(found, chosen, strict=True):
            told(f"{each.name}: readers go to its source")
            patiently(engine, _rest, engine, schema, each, aggregate)
        told(f'tables of schema "{schema}"')
        patiently(engine, _remake_tables, engine, schema, before)
    for aggregate in chosen:
        told(f"{aggregate.name}: installing again")
        patiently(engine, _install, engine, schema, aggregate)
    return Upgraded(before, LAYOUT_VERSION, tuple(aggregate.name for aggregate in chosen))


def _kept(schema: str, found: list[Recorded], declared: dict[str, Kept]) -> list[Kept]:
    """The declaration of each aggregate: the application's, or what the database says of it."""
    chosen: list[Kept] = []
    unknown = []
    for each in found:
        aggregate = declared.get(each.name)
        if aggregate is not None and aggregate.fingerprint == each.fingerprint:
            chosen.append(aggregate)
        elif each.kind == "grouped" and not each.has_mirror:
            chosen.append(Grouped(each.name, each.definition, schema=schema))
        else:
            unknown.append(each.name)
    if unknown:
        raise UsageError(
            f"the declarations of {', '.join(unknown)} are needed as they were installed: an order, and the columns of"
            " a mirror, are not told by the database.",
            hint="Run: tally upgrade --app module:registry, with the application as it was when they were installed.",
        )
    return chosen


def _refuse_dependents(cursor: Cursor, schema: str, found: list[Recorded]) -> None:
    gone = [*layouts.OF_AGGREGATES, "epoch"]
    for each in found:
        gone += [*inner_views(each.name), *table_names(each.name, shape_of(each.name, each.definition))]
        gone += function_names(each.name)
    others = readers.dependents(cursor, schema, gone)
    if others:
        raise InstallError(
            f'others have built on what schema "{schema}" keeps for itself: {", ".join(others)}. Nothing was changed.',
            hint="Build them on the views that have the names of the aggregates, then run: tally upgrade",
        )


def _refuse_other_source(cursor: Cursor, found: Recorded, aggregate: Kept) -> None:
    """Also refuses what can no longer be kept."""
    _, _, source = inspect(cursor, aggregate)
    if source.oid != found.source_oid:
        raise UsageError(
            f'aggregate "{aggregate.name}": its declaration means {source.name} in this session, and was installed over'
            " another table.",
            hint="Connect with the search_path of the application. Nothing was changed.",
        )


def _replace_functions(engine: Engine, schema: str) -> None:
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        if aggregates.layout_version(cursor, schema) != LAYOUT_VERSION:
            layouts.act_as_owner(cursor, schema, "layout")
            layouts.replace_functions(cursor, schema)


def _rest(engine: Engine, schema: str, found: Recorded, aggregate: Kept | None = None) -> None:
    """What readers name answers from the source; triggers, functions, tables and inner views are dropped.

    Args:
        aggregate: None if the source has been dropped, and with it what readers name.
    """
    name = found.name
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        if aggregates.layout_version(cursor, schema) == LAYOUT_VERSION:
            return  # another upgrade was faster
        layouts.act_as_owner(cursor, schema, name)
        public = _resting(cursor, aggregate) if aggregate is not None else []
        shape = shape_of(name, found.definition)
        triggers = catalog.calling(cursor, schema, function_names(name))
        tables = catalog.present(cursor, schema, table_names(name, shape))
        tables += dict.fromkeys(table for table, _ in triggers)
        if tables:
            take_against_everyone(cursor, tables)
        with briefly(cursor, catalog.qualified(schema, name)):
            for statement in public:
                run_step(cursor, name, statement.replacing())
            for statement in resting_statements(name, schema, shape, triggers, has_source=aggregate is not None):
                run_step(cursor, name, statement)


def _resting(cursor: Cursor, aggregate: Kept) -> list[Statement]:
    shape, snapshot, _ = inspect(cursor, aggregate)
    if isinstance(aggregate, Ordered):
        return resting_ordered(aggregate.name, aggregate.schema, shape, snapshot, aggregate.ordering)
    return resting_grouped(aggregate.name, aggregate.schema, shape, snapshot)


def _remake_tables(engine: Engine, schema: str, before: int) -> None:
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        if aggregates.layout_version(cursor, schema) == LAYOUT_VERSION:
            return
        layouts.act_as_owner(cursor, schema, "layout")
        with briefly(cursor, catalog.qualified(schema, "aggregate")):
            layouts.remake_tables(cursor, schema)
        events.record(cursor, schema, "upgrade", layout=LAYOUT_VERSION, before=before)


def _install(engine: Engine, schema: str, aggregate: Kept) -> None:
    """Make everything of an aggregate but what readers name, then, with the source locked, that and the triggers."""
    name = aggregate.name
    with transaction(engine) as cursor:
        lock_installation(cursor, schema)
        if not layouts.is_at_rest(cursor, schema, name):
            return
        layouts.act_as_owner(cursor, schema, name)
        planned = compiled_for(cursor, aggregate)
        direct = Identifier(schema, internal_name(name, "direct"))
        views = [Identifier(schema, view) for view in (name, *(internal_name(name, each) for each in OF_READERS))]
        table = Identifier(schema, "aggregate")
        cursor.execute(fill("DELETE FROM {t} WHERE name = {n}", t=table, n=literal(name)))
        for statement in planned.before_lock:
            if statement.creates not in [direct, *views]:
                run_step(cursor, name, statement.replacing())
        take_against_writers(cursor, planned.source)
        with briefly(cursor, catalog.qualified(schema, name)):
            for statement in planned.before_lock:
                if statement.creates in views:
                    run_step(cursor, name, statement.replacing())
        for statement in planned.after_lock:
            run_step(cursor, name, statement)
        if aggregate.mirror is not None:
            note = Identifier(schema, internal_name(name, "note"))
            cursor.execute(fill("SELECT {f}(false)", f=note))
        events.record(cursor, schema, "install", name, source=planned.source, upgrade=True)
