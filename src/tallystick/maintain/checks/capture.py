"""Capture: the triggers of a source and of its partitions."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Identifier

from tallystick.compiler.removal import expected_triggers
from tallystick.compiler.text import canonical, fill
from tallystick.maintain.checks.finding import Finding, anew
from tallystick.store import aggregates, catalog, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor

_FIRES = {
    "D": "is disabled",
    "O": "does not fire for replicated changes",
    "R": "fires for replicated changes only",
    "A": "fires for replicated changes too",
}


def of_capture(cursor: Cursor, schema: str, found: Installed) -> Iterator[Finding]:
    """What a source, and those of its partitions that are counted, lack of triggers."""
    used = aggregates.used_columns(cursor, schema, found)
    expected = expected_triggers(schema, found.name, uses_columns=bool(used), is_partitioned=found.is_partitioned)
    tables = {found.source_oid: str(found.source)}
    if found.is_partitioned:
        listed = partitions.listed(cursor, schema, found.name)
        leaves = catalog.tree(cursor, found.source_oid)
        tables |= {leaf.oid: leaf.name for leaf in leaves if leaf.kind != "p" and leaf.oid in listed}
    for oid, actual in catalog.triggers(cursor, list(tables)).items():
        yield from _of_triggers(found, tables[oid], expected, actual)


def of_partitions(cursor: Cursor, schema: str, found: Installed) -> Iterator[Finding]:
    """Partitions that came or went."""
    for difference in partitions.differences(cursor, schema, found):
        level, command = ("advice", "fold") if difference.what == "new" else ("error", "backfill")
        what = f"serves from its source: {difference}"
        yield Finding(level, found.name, what, f"tally {command} {found.name}")


def _of_triggers(found: Installed, table: str, expected: dict[str, str], actual: dict[str, str]) -> Iterator[Finding]:
    name = found.name
    for trigger, enabled in expected.items():
        if trigger not in actual:
            yield Finding("error", name, f'trigger "{trigger}" is missing on {table}', anew(found))
        elif actual[trigger] != enabled:
            yield Finding(
                "error", name, f'trigger "{trigger}" on {table} {_FIRES[actual[trigger]]}',
                _enable_trigger(table, trigger, enabled) + f"; then: tally backfill {name} --force",
            )  # fmt: skip


def _enable_trigger(table: str, trigger: str, enabled: str) -> str:
    how = {"O": SQL(""), "A": SQL("ALWAYS "), "R": SQL("REPLICA ")}[enabled]
    statement = fill("ALTER TABLE {t} ENABLE {how}TRIGGER {g}", t=canonical(table), how=how, g=Identifier(trigger))
    return statement.as_string(None)
