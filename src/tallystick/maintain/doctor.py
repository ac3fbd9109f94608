"""Doctor: what is wrong in the database or will make reads slow, each with the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine

from tallystick.compiler.removal import expected_triggers, object_names
from tallystick.compiler.source_index import walk_statement
from tallystick.compiler.text import canonical, comma, fill
from tallystick.declare.counter import Counter
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept, Ordering
from tallystick.declare.sqltext import shape_of
from tallystick.declare.tokens import split_name
from tallystick.store import aggregates, catalog, counters, partitions, plans
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor, one_row, transaction

LONG_BACKLOG = 100_000
_COUNTER_FUNCTIONS = ["counter_add", "counter_add_many", "counter_set", "counter_rebalance", "counter_estimate"]
_FIRES = {
    "D": "is disabled",
    "O": "does not fire for replicated changes",
    "R": "fires for replicated changes only",
    "A": "fires for replicated changes too",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `remedy` is the next command.

    `level` is "error" (answers are or may become wrong, or slow until somebody acts) or "advice".
    """

    level: str
    subject: str
    what: str
    remedy: str


def examine(
    engine: Engine, schema: str, declared: Iterable[Kept] = (), declared_counters: Iterable[Counter] = ()
) -> list[Finding]:
    """Examine an installation and, beside it, the declarations of the application."""
    by_name = {aggregate.name: aggregate for aggregate in declared}
    with transaction(engine, read_only=True) as cursor:
        installed = aggregates.every(cursor, schema)
        findings = list(_installation(cursor, schema, installed))
        for found in installed:
            findings += _aggregate(cursor, schema, found, by_name.get(found.name))
        findings += _counters(cursor, schema, {counter.name: counter for counter in declared_counters})
    known = {found.name for found in installed}
    for name in by_name:
        if name not in known:
            findings.append(Finding("advice", name, "declared and not installed", f"tally install {name}"))
    return findings


def _installation(cursor: Cursor, schema: str, installed: list[Installed]) -> Iterator[Finding]:
    if not aggregates.is_schema_installed(cursor, schema):
        yield Finding("advice", schema, f'nothing is installed in schema "{schema}"', "tally install")
        return
    (jit,) = one_row(cursor.execute("SELECT current_setting('jit')::boolean AND pg_jit_available()"))
    if installed and jit:
        yield Finding(
            "advice", "jit",
            "just-in-time compilation is on: PostgreSQL may spend hundreds of milliseconds compiling the half of a view"
            " that it never runs",
            "ALTER DATABASE … SET jit = off",
        )  # fmt: skip
    for publication in catalog.publications_of_changes(cursor, schema):
        yield Finding(
            "error", schema,
            f"publication {publication} takes in our tables, which have no replica identity: folds and backfills fail",
            "CREATE PUBLICATION … FOR TABLES IN SCHEMA … in its place, for the schemas of the application",
        )  # fmt: skip


def _counters(cursor: Cursor, schema: str, declared: dict[str, Counter]) -> Iterator[Finding]:
    installed = counters.every(cursor, schema)
    yield from _counter_functions(cursor, schema, [found.name for found in installed])
    for found in installed:
        name = found.name
        counter = declared.pop(name, None)
        if counter is not None and counter.fingerprint != found.fingerprint:
            yield Finding(
                "advice", name, "is installed with other settings than those declared", f"tally install {name}"
            )
        views = [name, *([internal_name(name, "direct")] if found.definition is not None else [])]
        for what in catalog.missing(cursor, schema, views, _COUNTER_FUNCTIONS):
            remedy = f"tally uninstall {name} && tally install {name}, which gives up its values"
            yield Finding("error", name, f'"{what}" is missing in schema "{schema}"', remedy)
        fresh = counters.fresh_rows(cursor, schema, name)
        if fresh > LONG_BACKLOG:
            yield Finding("advice", name, f"{fresh:,} rows wait to be folded; reads are slow", f"tally fold {name}")
    for name in declared:
        yield Finding("advice", name, "declared and not installed", f"tally install {name}")


def _counter_functions(cursor: Cursor, schema: str, names: list[str]) -> Iterator[Finding]:
    """What keeps the functions of counters from working, for everybody or for a role that was granted a part of it."""
    if not names:
        return
    if catalog.counters_name_another_schema(cursor, schema):
        what = "was renamed: every add to its counters fails, since their functions name another schema"
        yield Finding("error", schema, what, f"tally install {names[0]}")
    grants = catalog.counter_grants(cursor, schema, names)
    somebody_adds = any(each.may_add for each in grants)
    for each in grants:
        role = Identifier(each.role)
        if not each.may_enter:
            grant = fill("GRANT USAGE ON SCHEMA {s} TO {r}", s=Identifier(schema), r=role)
            what = f"{each.role} was granted the use of counters and may not use the schema"
            yield Finding("advice", schema, what, grant.as_string(None))
        if each.may_add and not each.may_read:
            views = comma(Identifier(schema, name) for name in names)
            grant = fill("GRANT SELECT ON {views} TO {r}", views=views, r=role)
            what = f"{each.role} may add to counters and read none of them"
            yield Finding("advice", schema, what, grant.as_string(None))
        if not somebody_adds:
            functions = comma(Identifier(schema, name) for name in _COUNTER_FUNCTIONS)
            grant = fill("GRANT EXECUTE ON FUNCTION {functions} TO {r}", functions=functions, r=role)
            what = f"{each.role} may read counters, and no role beside the owner may add to them"
            yield Finding("advice", schema, what, grant.as_string(None))


def _aggregate(cursor: Cursor, schema: str, found: Installed, declared: Kept | None) -> Iterator[Finding]:
    name = found.name
    rebuild = f"tally uninstall {name} && tally install {name} && tally backfill {name}"
    if declared is not None and declared.fingerprint != found.fingerprint:
        yield Finding("error", name, "is installed with another definition than the one declared", rebuild)
    if found.source is None:
        yield Finding("error", name, "its source table has been dropped", f"tally uninstall {name}")
        return
    triggers = catalog.triggers(cursor, found.source_oid)
    shape = shape_of(name, found.definition)
    direct = catalog.qualified(schema, internal_name(name, "direct"))
    used = [column for column, _ in catalog.view_used_columns(cursor, direct, found.source_oid)]
    uses_columns = bool(used)
    yield from _source(cursor, found, direct, used)
    needed = object_names(
        name, shape, found.order, is_partitioned=found.is_partitioned, has_mirror=found.mirror is not None
    )
    for what in catalog.missing(cursor, schema, *needed):
        yield Finding("error", name, f'"{what}" is missing in schema "{schema}"', rebuild)
    expected = expected_triggers(schema, name, uses_columns=uses_columns, is_partitioned=found.is_partitioned)
    yield from _triggers(name, found.source, expected, triggers, rebuild)
    if found.is_partitioned:
        yield from _partitions(cursor, schema, found, expected, rebuild)
    if found.order is not None:
        yield from _index(cursor, schema, found, found.order)
    state = catalog.qualified(schema, internal_name(name, found.kept_in))
    inherits, persistence, kept = catalog.source_state(cursor, found.source_oid, state)
    if inherits and not found.is_partitioned:
        what = f"{found.source} is part of an inheritance tree: not all of its changes are captured"
        yield Finding("error", name, what, f"tally uninstall {name}")
    if kept is not None and (persistence == "u") != (kept == "u"):
        yield Finding("error", name, f"{found.source} and its state are not both logged", rebuild)
    if found.phase == "building":
        yield Finding("advice", name, "serves from its source until it is backfilled", f"tally backfill {name}")
    if not catalog.has_primary_key(cursor, found.source_oid):
        yield Finding(
            "advice", name, f"{found.source} has no primary key, so it can be backfilled in one transaction only",
            fill("ALTER TABLE {table} ADD PRIMARY KEY (…)", table=canonical(found.source)).as_string(None),
        )  # fmt: skip
    backlog = catalog.counted_rows(cursor, catalog.qualified(schema, internal_name(name, "delta")))
    if backlog > LONG_BACKLOG:
        yield Finding("advice", name, f"{backlog:,} deltas wait to be folded; reads are slow", f"tally fold {name}")


def _source(cursor: Cursor, found: Installed, direct: str, used: list[str]) -> Iterator[Finding]:
    """What has become of the source's owner and of its generated columns."""
    if found.is_complete and catalog.generated_as(cursor, found.source_oid, used) != found.generated:
        what = f"{found.source} computes a generated column otherwise than when it was counted"
        yield Finding("error", found.name, what, f"tally backfill {found.name}")
    readable = catalog.may_read(cursor, direct, found.source_oid)
    if readable is not None and not readable[0]:
        grant = fill("GRANT SELECT ON {t} TO {r}", t=canonical(str(found.source)), r=Identifier(readable[1]))
        what = f"{readable[1]}, who installed it, may not read {found.source}: every read of the view is refused"
        yield Finding("error", found.name, what, grant.as_string(None))


def _index(cursor: Cursor, schema: str, found: Installed, ordering: Ordering) -> Iterator[Finding]:
    """Whether the source's index is there, and whether the planner walks along it."""
    if found.is_complete and not aggregates.is_as_folded(cursor, schema, found):
        what = f"serves from its source: {found.source} was truncated, written anew or restored since the last fold"
        yield Finding("advice", found.name, what, f"tally fold {found.name}")
    if found.index is None:
        what = f"its index on {found.source} is gone: each read goes through the whole table"
        yield Finding("error", found.name, what, f"tally install {found.name}")
        return
    walked = plans.steps_of(cursor, walk_statement(schema, found.name, ordering))
    _, index = split_name(found.index)
    # Of a partitioned table each partition has an index of its own name.
    others = [step for step in walked if step.index is None or (step.index != index and not found.is_partitioned)]
    if others:
        what = f"the planner does not walk along {found.index} alone: {', '.join(map(str, others))}"
        analyze = fill("ANALYZE {t}", t=canonical(str(found.source))).as_string(None)
        yield Finding("advice", found.name, what, f"{analyze}; then look at EXPLAIN of a read")


def _triggers(
    name: str, table: str, expected: dict[str, str], actual: dict[str, str], rebuild: str
) -> Iterator[Finding]:
    """What a table lacks of the triggers that it needs."""
    for trigger, enabled in expected.items():
        if trigger not in actual:
            yield Finding("error", name, f'trigger "{trigger}" is missing on {table}', rebuild)
        elif actual[trigger] != enabled:
            yield Finding(
                "error", name, f'trigger "{trigger}" on {table} {_FIRES[actual[trigger]]}',
                _enable_trigger(table, trigger, enabled) + f"; then: tally backfill {name} --force",
            )  # fmt: skip


def _partitions(
    cursor: Cursor, schema: str, found: Installed, expected: dict[str, str], rebuild: str
) -> Iterator[Finding]:
    if found.is_complete:
        for difference in partitions.differences(cursor, schema, found):
            level, command = ("advice", "fold") if difference.what == "new" else ("error", "backfill")
            what = f"serves from its source: {difference}"
            yield Finding(level, found.name, what, f"tally {command} {found.name}")
    listed = partitions.listed(cursor, schema, found.name)
    for leaf in catalog.tree(cursor, found.source_oid):
        if leaf.kind != "p" and leaf.oid in listed:
            yield from _triggers(found.name, leaf.name, expected, catalog.triggers(cursor, leaf.oid), rebuild)


def _enable_trigger(table: str, trigger: str, enabled: str) -> str:
    how = {"O": SQL(""), "A": SQL("ALWAYS "), "R": SQL("REPLICA ")}[enabled]
    statement = fill("ALTER TABLE {t} ENABLE {how}TRIGGER {g}", t=canonical(table), how=how, g=Identifier(trigger))
    return statement.as_string(None)
