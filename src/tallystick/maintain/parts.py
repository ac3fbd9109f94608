"""Parts of an aggregate that are compared by themselves: ranges of group keys, or of an ordered aggregate's buckets.

A *position* is a group key, or level and place of a bucket, each value as text. Positions are in the order of their
types' own B-trees, in which NULL comes last and keys that are equal stand at the same place, however they are spelled.
So both halves of a group lie in the same part, and every group that either half has, or could have, lies in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.text import canonical, comma, conjunction, fill, literal
from tallystick.declare.names import internal_name
from tallystick.store import catalog
from tallystick.store.aggregates import Installed
from tallystick.store.catalog import ViewColumn
from tallystick.store.connection import Cursor

Position = list[str | None]


@dataclass(frozen=True, slots=True)
class Part:
    """What lies behind one position and not behind another; None is no bound."""

    behind: Position | None = None
    upto: Position | None = None


WHOLE = Part()


class Places:
    """The positions that are kept of one aggregate, in order."""

    def __init__(self, cursor: Cursor, schema: str, found: Installed) -> None:
        self._table = Identifier(schema, internal_name(found.name, found.kept_in))
        columns = catalog.view_columns(cursor, self._table.as_string(None))
        is_narrow = any(column.name == "narrow" for column in columns)
        # The index of a wide key holds the narrow ones alone.
        self._indexed = [SQL("narrow")] if is_narrow else []
        self.columns = [column for column in columns if column.name == "level" or _is_key(column.name)]

    def part(self, cursor: Cursor, behind: Position | None, size: int) -> Part:
        """The next part of so many kept positions, about; the last one has no end."""
        if not self.columns:
            return WHOLE
        names = self._names
        conditions = [*self._indexed, *self._conditions(names, Part(behind))]
        row = cursor.execute(
            fill(
                "SELECT {position} FROM {t} WHERE {c} ORDER BY {by} LIMIT 1 OFFSET {n}",
                position=_texts(names), t=self._table, c=conjunction(conditions), by=comma(names), n=literal(size - 1),
            )
        ).fetchone()  # fmt: skip
        return Part(behind, row[0] if row is not None else None)

    def sample(self, cursor: Cursor, size: int) -> list[Part]:
        """Parts of one kept position each, with all that lies between it and the one before; taken at random."""
        if not self.columns:
            return [WHOLE]
        rows = cursor.execute(
            fill(
                "SELECT position FROM (SELECT NULL::text[] AS position UNION ALL SELECT {position} FROM {t}) AS p"
                " ORDER BY random() LIMIT {n}",
                position=_texts(self._names), t=self._table, n=literal(size),
            )
        ).fetchall()  # fmt: skip
        return [self.part(cursor, position, 1) for (position,) in rows]

    def within(self, names: Sequence[Composable], part: Part) -> Composed:
        """The condition under which columns, of the types of the positions or of domains over them, lie in a part."""
        return conjunction(self._conditions(names, part))

    @property
    def _names(self) -> list[Identifier]:
        return [Identifier(column.name) for column in self.columns]

    def _conditions(self, names: Sequence[Composable], part: Part) -> list[Composable]:
        conditions: list[Composable] = []
        for position, template in ((part.behind, "{is_beyond}"), (part.upto, "NOT {is_beyond}")):
            if position is not None:
                conditions.append(SQL(template).format(is_beyond=self._is_beyond(names, position)))
        return [*conditions, *self._for_an_index(names[0], part)] if conditions else []

    def _is_beyond(self, names: Sequence[Composable], position: Position) -> Composed:
        typed = [
            fill("({n})::{t}", n=name, t=canonical(column.type.text))
            for name, column in zip(names, self.columns, strict=True)
        ]
        values = [_value(column, text) for column, text in zip(self.columns, position, strict=True)]
        return fill("record_gt(ROW({typed}), ROW({values}))", typed=comma(typed), values=comma(values))

    def _for_an_index(self, name: Composable, part: Part) -> list[Composable]:
        """What follows for the first column, spelled so that an index of it can serve it."""
        column = self.columns[0]
        first, last = (position[0] if position is not None else None for position in (part.behind, part.upto))

        def compared(template: str, text: str) -> Composed:
            schema = Identifier(column.type.operator_schema)
            operator = SQL(template).format(s=schema)
            return fill("{n} {operator} {v}", n=name, operator=operator, v=_value(column, text))

        if part.behind is not None and first is None:
            return [fill("{n} IS NULL", n=name)]
        behind = [compared("OPERATOR({s}.>=)", first)] if first is not None else []
        if last is not None:
            return [*behind, compared("OPERATOR({s}.<=)", last)]
        return [fill("({c} OR {n} IS NULL)", c=condition, n=name) for condition in behind]


def _is_key(name: str) -> bool:
    return name.startswith("k") and name[1:].isdigit()


def _texts(names: Sequence[Composable]) -> Composed:
    return fill("ARRAY[{texts}]::text[]", texts=comma(fill("{n}::text", n=name) for name in names))


def _value(column: ViewColumn, text: str | None) -> Composed:
    collation = column.type.collation
    return fill(
        "{v}::{t}{collation}",
        v=literal(text), t=canonical(column.type.text),
        collation=fill(" COLLATE {c}", c=canonical(collation)) if collation else SQL(""),
    )  # fmt: skip
