"""Conditions over an order: what lies before, behind and between places, so that one index answers.

A *place* is given by values for the columns of the order (sort key, then the rest of the primary key). A *cut* is a
place that may leave out its last columns, and lies before all items that have the values given, or behind them.

Where all columns have one direction, PostgreSQL compares rows as the order has them, and a range is one condition. Else
the items behind a place are those that differ from it first in the last column, those that differ first in the last but
one, and so on. Each of these *pieces* is one range of an index on (namespace, order); they are disjoint, and come in
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.layout import Layout
from tallystick.compiler.snapshot import ColumnType
from tallystick.compiler.text import canonical, column, comma, conjunction, fill
from tallystick.declare.ordered import Ordering

Values = Sequence[Composable]
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "="}


@dataclass(frozen=True)
class Order:
    """Columns that rows are ordered by, within those that have equal values in the columns of a namespace.

    Attributes:
        namespace, position: columns of both, by the names that they have in our own tables.
        descending: those of the order that descend.
        types: of the columns of the namespace and of the position.
    """

    layout: Layout
    namespace: list[SQL]
    position: list[SQL]
    descending: list[SQL]
    types: Sequence[ColumnType]

    @classmethod
    def of(cls, layout: Layout, ordering: Ordering) -> Order:
        namespace, position = layout.keys[: ordering.namespace], layout.keys[ordering.namespace :]
        down = [name for name, each in zip(position, ordering.descending, strict=True) if each]
        return cls(layout, namespace, position, down, layout.snapshot.keys)

    @classmethod
    def of_primary_key(cls, layout: Layout) -> Order:
        """The order of the source's rows by their primary key."""
        return cls(layout, [], layout.places, [], layout.snapshot.source.primary_key)

    def of_namespaces(self) -> Order:
        """The order of the namespaces themselves."""
        return Order(self.layout, [], self.namespace, [], self.types[: len(self.namespace)])

    def of_all(self) -> Order:
        """One order over all namespaces, each of them in its own."""
        return Order(self.layout, [], [*self.namespace, *self.position], self.descending, self.types)

    def _type(self, name: SQL) -> ColumnType:
        return self.types[[*self.namespace, *self.position].index(name)]

    def type_of(self, name: SQL) -> SQL:
        """The type that a variable for a column has."""
        return canonical(self._type(name).stored)

    def variables(self, prefix: str) -> list[SQL]:
        """Names of variables for a place."""
        return [column(prefix, index) for index in range(1, len(self.position) + 1)]

    def declarations(self, *prefixes: str) -> Composed:
        """PL/pgSQL declarations of places."""
        return SQL("").join(
            fill("  {v} {t};\n", v=variable, t=self.type_of(name))
            for prefix in prefixes
            for variable, name in zip(self.variables(prefix), self.position, strict=True)
        )

    def compare(self, name: SQL, operator: str, value: Composable, *, left: Composable | None = None) -> Composed:
        """`name operator value` by the order of the column: of one that descends, the greater comes first.

        Args:
            left: a value that takes the column's place.
        """
        schema = self._type(name).operator_schema
        return fill(
            "{left} OPERATOR({schema}.{op}) {value}",
            left=left or name, schema=Identifier(schema), value=self.collated(name, value),
            op=canonical(_FLIPPED[operator] if name in self.descending else operator),
        )  # fmt: skip

    def collated(self, name: SQL, value: Composable) -> Composable:
        """A value that compares, and is hashed, by the collation of a column."""
        collation = self._type(name).collation
        return fill("{v} COLLATE {c}", v=value, c=canonical(collation)) if collation else value

    def in_namespace(self, values: Values) -> list[Composable]:
        return [self.compare(name, "=", value) for name, value in zip(self.namespace, values, strict=True)]

    def is_at(self, place: Values) -> Composed:
        """The row has all values of a place."""
        return conjunction(self._prefix(place, len(self.position)))

    def is_before(self, place: Values, *, values: Values | None = None) -> Composed:
        """The row lies before a place, as one condition: no index but that on the namespace answers it.

        Args:
            values: a place that is asked about instead of the row.
        """
        found: Composable = SQL("false")
        own = values or self.position
        for name, left, value in reversed(list(zip(self.position, own, place, strict=True))):
            less, equal = (self.compare(name, operator, value, left=left) for operator in ("<", "="))
            found = fill("({less} OR ({equal} AND {rest}))", less=less, equal=equal, rest=found)
        return Composed([found])

    def order_by(self, *, backwards: bool = False) -> Composed:
        """The columns of the order as ORDER BY takes them."""
        down = (SQL(" DESC") if (name in self.descending) != backwards else SQL("") for name in self.position)
        return comma(fill("{c}{d}", c=name, d=each) for name, each in zip(self.position, down, strict=True))

    def index_columns(self) -> Composed:
        """Namespace and order as the columns of an index."""
        return comma(
            fill("{c}{d}", c=name, d=SQL(" DESC") if name in self.descending else SQL(""))
            for name in (*self.namespace, *self.position)
        )

    def behind(self, cut: Values, *, after: bool) -> list[Composed]:
        """Conditions of the pieces behind a cut, in order.

        Args:
            cut: values for the first columns, for one at least.
            after: the cut lies behind the items that have these values, else before them.
        """
        return self._beyond(cut, ">", or_at=not after)

    def before(self, cut: Values, *, after: bool) -> list[Composed]:
        """Conditions of the pieces before a cut, from the cut back; arguments as of `behind`."""
        return self._beyond(cut, "<", or_at=after)

    def _beyond(self, cut: Values, operator: str, *, or_at: bool) -> list[Composed]:
        if self.is_uniform:
            return [self._row(f"{operator}=" if or_at else operator, cut)]
        pieces = [conjunction(self._prefix(cut, len(cut)))] if or_at else []
        for index in range(len(cut) - 1, -1, -1):
            pieces.append(conjunction([*self._prefix(cut, index), self._side(index, operator, cut)]))
        return pieces

    def between(self, low: Values, high: Values, *, low_in: bool = True, high_in: bool = True) -> list[Composed]:
        """Conditions of the pieces from one place to another, which is not before it; in order.

        Args:
            low_in: an item at the first place is among them.
            high_in: an item at the second place is among them; where both are one place, both are to hold.
        """
        if self.is_uniform:
            ends = [self._row(">=" if low_in else ">", low), self._row("<=" if high_in else "<", high)]
            return [conjunction(ends)]
        last = len(self.position)
        apart = self._apart(low, high, last)
        pieces = [conjunction([apart, self.is_at(low)])] if low_in else []
        for index in range(last - 1, 0, -1):
            beyond = [*self._prefix(low, index), self._side(index, ">", low)]
            pieces.append(conjunction([self._apart(low, high, index), *beyond]))
        for index in range(last):
            both = [self._side(index, ">", low), self._side(index, "<", high)]
            pieces.append(conjunction([*self._same(low, high, index), *self._prefix(low, index), *both]))
        for index in range(1, last):
            within = [*self._prefix(high, index), self._side(index, "<", high)]
            pieces.append(conjunction([self._apart(low, high, index), *within]))
        if high_in:
            pieces.append(self.is_at(high) if low_in else conjunction([apart, self.is_at(high)]))
        return pieces

    @property
    def is_uniform(self) -> bool:
        """PostgreSQL compares rows as the order has them: all columns in one direction, by operators of its own."""
        types = [self._type(name) for name in self.position]
        one_way = self.descending in ([], self.position)
        return one_way and all(type_.operator_schema == "pg_catalog" for type_ in types)

    def _row(self, operator: str, values: Values) -> Composed:
        names = self.position[: len(values)]
        return fill(
            "ROW({names}) {op} ROW({values})",
            names=comma(names), op=canonical(_FLIPPED[operator] if self.descending else operator),
            values=comma(self.collated(name, value) for name, value in zip(names, values, strict=True)),
        )  # fmt: skip

    def _side(self, index: int, operator: str, place: Values) -> Composed:
        return self.compare(self.position[index], operator, place[index])

    def _apart(self, low: Values, high: Values, length: int) -> Composed:
        return fill("NOT ({same})", same=conjunction(self._same(low, high, length)))

    def _prefix(self, values: Values, length: int) -> list[Composable]:
        return [self.compare(name, "=", value) for name, value in zip(self.position[:length], values, strict=False)]

    def _same(self, low: Values, high: Values, length: int) -> list[Composable]:
        """The first values of two places are equal; known before a row is read."""
        pairs = zip(self.position[:length], low, high, strict=False)
        return [self.compare(name, "=", other, left=one) for name, one, other in pairs]
