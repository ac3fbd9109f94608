"""How far aggregates have been verified part by part, so that a pass goes on where it was left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as OneOf

from psycopg.sql import Identifier

from tallystick.compiler.text import fill, literal, text_array
from tallystick.store.connection import Cursor

Pass = OneOf["worker", "asked"]
FIRST_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Progress:
    """Of one pass. `position` is where its last part ended, None between passes; `size` is that of the next part."""

    position: list[str | None] | None
    groups: int
    drifted: int
    passes: int
    size: int


def progress(cursor: Cursor, schema: str, name: str, which: Pass) -> Progress:
    """As it is stored; that of a pass that has not begun if nothing is."""
    row = cursor.execute(
        fill(
            "SELECT position, groups, drifted, passes, size FROM {audit} WHERE aggregate = {name} AND pass = {which}",
            audit=Identifier(schema, "audit"), name=literal(name), which=literal(which),
        )
    ).fetchone()  # fmt: skip
    return Progress(*row) if row is not None else Progress(None, 0, 0, 0, FIRST_SIZE)


def advance(cursor: Cursor, schema: str, name: str, which: Pass, before: Progress, after: Progress) -> bool:
    """Store progress; False if another session has gone on from `before` meanwhile: then nothing is stored."""
    row = cursor.execute(
        fill(
            "INSERT INTO {audit} AS a (aggregate, pass, position, groups, drifted, passes, size, verified_at)"
            " VALUES ({name}, {which}, {position}, {groups}, {drifted}, {passes}, {size}, clock_timestamp())"
            " ON CONFLICT (aggregate, pass) DO UPDATE SET position = excluded.position, groups = excluded.groups,"
            " drifted = excluded.drifted, passes = excluded.passes, size = excluded.size,"
            " verified_at = excluded.verified_at"
            " WHERE a.position IS NOT DISTINCT FROM {was} AND a.passes = {was_passes} RETURNING 1",
            audit=Identifier(schema, "audit"), name=literal(name), which=literal(which),
            position=text_array(after.position), groups=literal(after.groups), drifted=literal(after.drifted),
            passes=literal(after.passes), size=literal(after.size), was=text_array(before.position),
            was_passes=literal(before.passes),
        )
    ).fetchone()  # fmt: skip
    return row is not None
