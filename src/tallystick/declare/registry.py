"""The registry: a value that is passed around, like SQLAlchemy's MetaData; never a global."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Select

from tallystick.declare.counter import SHARDS, Counter
from tallystick.declare.grouped import Grouped
from tallystick.declare.names import checked_schema
from tallystick.declare.ordered import Kept, Ordered
from tallystick.errors import DeclarationError, UsageError


class Registry:
    """Declared aggregates by name, for one schema of one database.

    To iterate and to index gives the grouped ones; `orders` and `counters` hold the ordered ones and the free-standing
    counters by name.
    """

    def __init__(self, *, schema: str = "tally") -> None:
        self.schema = checked_schema(schema)
        self._aggregates: dict[str, Grouped] = {}
        self.orders: dict[str, Ordered] = {}
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

    def ordered(
        self,
        name: str,
        source: Any,
        *,
        namespace: Sequence[Any] = (),
        key: Sequence[Any] = (),
        sums: Mapping[str, Any] | None = None,
        where: Any = None,
    ) -> Ordered:
        """Declare counts, sums, ranks and offsets over an order of a table's rows, one order for each namespace.

        Rows with NULL in a column of the namespace or of the sort key are no items.

        Args:
            name: of the aggregate; its view gets this name, its SQL functions begin with it. At most 63 bytes.
            source: a mapped class or a Table, with a primary key, which breaks ties.
            namespace: columns that items have in common; none for one order over the whole table.
            key: columns that items are ordered by, `column.desc()` for those that descend; none to order by primary
                key. Any immutable expression of the row that has a name will do.
            sums: columns to be summed, by the name of the sum.
            where: which rows are items.
        Raises:
            DeclarationError: the name is taken, or an argument means nothing.
        """
        self._refuse_taken(name)
        aggregate = Ordered(name, source, schema=self.schema, namespace=namespace, key=key, sums=sums, where=where)
        self.orders[name] = aggregate
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
        if name in self._aggregates or name in self.orders or name in self.counters:
            raise DeclarationError(f'aggregate "{name}" is declared twice.', hint="Give each aggregate its own name.")

    def __iter__(self) -> Iterator[Grouped]:
        return iter(self._aggregates.values())

    def __len__(self) -> int:
        return len(self._aggregates)

    def kept(self) -> list[Kept]:
        """All that triggers keep: the grouped and the ordered ones."""
        return [*self._aggregates.values(), *self.orders.values()]

    def declared(self, name: str) -> Kept | Counter:
        """Whatever has a name.

        Raises:
            UsageError: nothing has it.
        """
        every: dict[str, Kept | Counter] = {**self._aggregates, **self.orders, **self.counters}
        if name not in every:
            known = ", ".join(every) or "none"
            raise UsageError(f'aggregate "{name}" is not declared (declared: {known}).', hint="Check the name.")
        return every[name]

    def __getitem__(self, name: str) -> Grouped:
        found = self.declared(name)
        if not isinstance(found, Grouped):
            raise UsageError(f'"{name}" is not a grouped aggregate.', hint="See tally.orders and tally.counters.")
        return found
