"""Capture: the triggers of a source and of its partitions."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Identifier

from tallystick.compiler.text import canonical, fill
from tallystick.maintain.checks.finding import Finding
from tallystick.store import catalog, partitions
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor

_FIRES = {
    "D": "is disabled",
    "O": "does not fire for replicated changes",
    "R": "fires for replicated changes only",
    "A": "fires for replicated changes too",
}


def of_triggers(
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


def of_partitions(
    cursor: Cursor, schema: str, found: Installed, expected: dict[str, str], rebuild: str
) -> Iterator[Finding]:
    """Partitions that came or went, and what those that are counted lack of triggers."""
    if found.is_complete:
        for difference in partitions.differences(cursor, schema, found):
            level, command = ("advice", "fold") if difference.what == "new" else ("error", "backfill")
            what = f"serves from its source: {difference}"
            yield Finding(level, found.name, what, f"tally {command} {found.name}")
    listed = partitions.listed(cursor, schema, found.name)
    for leaf in catalog.tree(cursor, found.source_oid):
        if leaf.kind != "p" and leaf.oid in listed:
            yield from of_triggers(found.name, leaf.name, expected, catalog.triggers(cursor, leaf.oid), rebuild)


def _enable_trigger(table: str, trigger: str, enabled: str) -> str:
    how = {"O": SQL(""), "A": SQL("ALWAYS "), "R": SQL("REPLICA ")}[enabled]
    statement = fill("ALTER TABLE {t} ENABLE {how}TRIGGER {g}", t=canonical(table), how=how, g=Identifier(trigger))
    return statement.as_string(None)
