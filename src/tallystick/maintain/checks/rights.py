"""Rights: those that the owner's functions and views work with, and what readers lack who were granted a part."""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.compiler.removal import read_names
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape
from tallystick.maintain.checks.finding import Finding
from tallystick.store import health
from tallystick.store.aggregates import Installed
from tallystick.store.connection import Cursor


def of_rights(
    cursor: Cursor, schema: str, found: Installed, relations: list[str], functions: list[str]
) -> Iterator[Finding]:
    """What owners may not do: triggers write with the rights of theirs, and views read with the rights of theirs."""
    delta = internal_name(found.name, "delta")
    for role, what, grant in health.lost_rights(cursor, schema, relations, functions, delta, found.mirror):
        effect = "reads fail" if what.startswith("SELECT") else "writes to its source fail, or folds"
        yield Finding("error", found.name, f"{role}, who owns a part of it, lacks {what}: {effect}", grant)


def of_readers(cursor: Cursor, schema: str, found: Installed, shape: Shape) -> Iterator[Finding]:
    """Roles that were granted something of it, and for want of something else can do nothing with it."""
    reads = read_names(found.name, shape, found.order) if found.order is not None else []
    for role, what, grant in health.readers_lack(cursor, schema, found.name, reads):
        yield Finding("advice", found.name, f"{role} was granted reading it, and lacks {what}", grant)
