"""Copies of measures in a parent table: brought up to date in short transactions, of a few parents each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg.sql import Identifier
from sqlalchemy import Engine

from tallystick.compiler.text import fill, literal
from tallystick.declare.names import internal_name
from tallystick.maintain.patience import patiently
from tallystick.store import locks
from tallystick.store.connection import Row, one_row, transaction

BATCH = 100
"""Parents in one transaction. Whoever wants to change one of them waits for that transaction, a few milliseconds."""


@dataclass(frozen=True, slots=True)
class Copied:
    """Notes that were done, each for one parent, and notes that were left because somebody had the parent locked."""

    done: int
    locked: int


def note_parents(engine: Engine, schema: str, name: str, *, skip_existing: bool) -> int:
    """Have all parents copied to, or only those that have no value yet; how many these are."""
    with transaction(engine) as cursor:
        function = Identifier(schema, internal_name(name, "note"))
        statement = fill("SELECT {f}({skip}::boolean)", f=function, skip=literal(str(skip_existing)))
        return int(one_row(cursor.execute(statement))[0])


def copy(
    engine: Engine, schema: str, name: str, *, batch_size: int = BATCH, progress: Callable[[int], None] | None = None
) -> Copied:
    """Bring the copies of changed groups up to date, in one pass over what the folds have noted.

    Args:
        batch_size: parents in one transaction.
        progress: is told after each transaction how many notes are done.
    Raises:
        FoldLocked: another session folded this aggregate all the time; what is left is left to the next pass.
    """
    function = Identifier(schema, internal_name(name, "copy"))

    def attempt(after: int) -> Row:
        with transaction(engine) as cursor:
            # A statement of its own: what is copied must be younger than the lock, lest it replaces something newer.
            locks.lock_fold(cursor, schema, name)
            return one_row(
                cursor.execute(
                    fill(
                        "SELECT last, done, locked FROM {f}({after}, {most})",
                        f=function, after=literal(after), most=literal(batch_size),
                    )
                )
            )  # fmt: skip

    last, done, locked = 0, 0, 0
    while True:
        found = patiently(engine, attempt, last)
        if found[0] is None:
            return Copied(done, locked)
        last, done, locked = found[0], done + found[1], locked + found[2]
        if progress is not None:
            progress(done)
