"""The registry: a value that is passed around, like SQLAlchemy's MetaData; never a global."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Select

from tallystick.declare.grouped import Grouped
from tallystick.declare.names import checked_schema
from tallystick.errors import DeclarationError, UsageError


class Registry:
    """Declared aggregates by name, for one schema of one database."""

    def __init__(self, *, schema: str = "tally") -> None:
        self.schema = checked_schema(schema)
        self._aggregates: dict[str, Grouped] = {}

    def grouped(
        self, name: str, select: Select[*tuple[Any, ...]] | str, mirror: Mapping[str, Any] | None = None
    ) -> Grouped:
        """Declare a `SELECT … FROM one table … GROUP BY` that is to be kept.

        Args:
            name: of the aggregate; its view in the schema gets this name. At most 63 bytes.
            select: the query, as a SQLAlchemy select over ORM classes or tables, or as SQL text.
            mirror: columns of a parent table that take copies of measures: `{"messages": Chat.message_count}`. The
                group keys find the parent, by a foreign key or its primary key. Copies are eventual: the fold makes
                them; the view stays the exact answer.
        Raises:
            DeclarationError: the name is taken, or the query's shape rules out keeping it.
        """
        if name in self._aggregates:
            raise DeclarationError(f'aggregate "{name}" is declared twice.', hint="Give each aggregate its own name.")
        aggregate = Grouped(name, select, schema=self.schema, mirror=mirror)
        self._aggregates[name] = aggregate
        return aggregate

    def __iter__(self) -> Iterator[Grouped]:
        return iter(self._aggregates.values())

    def __len__(self) -> int:
        return len(self._aggregates)

    def __getitem__(self, name: str) -> Grouped:
        try:
            return self._aggregates[name]
        except KeyError:
            known = ", ".join(self._aggregates) or "none"
            raise UsageError(
                f'aggregate "{name}" is not declared (declared: {known}).', hint="Check the name."
            ) from None
