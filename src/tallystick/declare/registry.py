"""The registry: a value that is passed around, like SQLAlchemy's MetaData; never a global."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Select

from tallystick.declare.counter import SHARDS, Counter
from tallystick.declare.grouped import Grouped
from tallystick.declare.names import checked_schema
from tallystick.errors import DeclarationError, UsageError


class Registry:
    """Declared aggregates by name, for one schema of one database.

    To iterate and to index gives the grouped ones; `counters` holds the free-standing counters by name.
    """

    def __init__(self, *, schema: str = "tally") -> None:
        self.schema = checked_schema(schema)
        self._aggregates: dict[str, Grouped] = {}
        self.counters: dict[str, Counter] = {}

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
        self._refuse_taken(name)
        aggregate = Grouped(name, select, schema=self.schema, mirror=mirror)
        self._aggregates[name] = aggregate
        return aggregate

    def counter(
        self,
        name: str,
        shards: int = SHARDS,
        shards_for: Mapping[str, int] | None = None,
        numeric: bool = False,
        direct: Select[*tuple[Any, ...]] | None = None,
    ) -> Counter:
        """Declare a free-standing counter, written by hand in your own transactions.

        Args:
            name: of the counter; its view in the schema gets this name. At most 63 bytes.
            shards: rows that the value of a key is spread over, 1 to 10,000; about as many as add to it at once.
            shards_for: the same for single keys.
            numeric: values are `numeric`, else `bigint`.
            direct: what the counter should be: a select of one total, counted under the key "", or of keys and their
                totals. It can then be verified, backfilled and set again from the source.
        Raises:
            DeclarationError: the name is taken, or an argument means nothing.
        """
        if isinstance(name, str):
            self._refuse_taken(name)
        counter = Counter(
            name, schema=self.schema, shards=shards, shards_for=shards_for, numeric=numeric, direct=direct
        )
        self.counters[name] = counter
        return counter

    def _refuse_taken(self, name: str) -> None:
        if name in self._aggregates or name in self.counters:
            raise DeclarationError(f'aggregate "{name}" is declared twice.', hint="Give each aggregate its own name.")

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
