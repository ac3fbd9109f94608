"""Conditions over an order: what lies before, behind and between places, so that one index answers.

A *place* is given by values for the columns of the order (sort key, then the rest of the primary key). A *cut* is a
place that may leave out its last columns, with NULL, and lies before all items that have the values given, or behind
them. Columns may ascend or descend, each by itself, so rows cannot be compared with `<`: the items behind a place
are those that differ from it first in the last column, those that differ first in the last but one, and so on. Each
of these *pieces* is one range of an index on (namespace, order); together they are disjoint, and come in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.layout import Layout
from tallystick.compiler.text import canonical, column, comma, conjunction, fill
from tallystick.declare.ordered import Ordering

Values = Sequence[Composable]
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "="}
NOTHING = SQL("false")
ALWAYS = SQL("true")


@dataclass(frozen=True)
class Order:
    """Columns that rows are ordered by, within those that have equal values in the columns of a namespace.

    Attributes:
        namespace, position: columns of both, by the names that they have in our own tables.
        descending: those of the order that descend.
    """

    layout: Layout
    namespace: list[SQL]
    position: list[SQL]
    descending: list[SQL]

    @classmethod
    def of(cls, layout: Layout, ordering: Ordering) -> Order:
        namespace, position = layout.keys[: ordering.namespace], layout.keys[ordering.namespace :]
        down = [name for name, each in zip(position, ordering.descending, strict=True) if each]
        return cls(layout, namespace, position, down)

    def of_namespaces(self) -> Order:
        """The order of the namespaces themselves."""
        return Order(self.layout, [], self.namespace, [])

    def type_of(self, name: SQL) -> SQL:
        """The type that a variable for a column has."""
        return canonical(self.layout.snapshot.keys[self.layout.keys.index(name)].stored)

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
        index = self.layout.keys.index(name)
        type_ = self.layout.snapshot.keys[index]
        return fill(
            "{left} OPERATOR({schema}.{op}) {value}{collation}",
            left=left or name, schema=Identifier(type_.operator_schema),
            op=canonical(_FLIPPED[operator] if name in self.descending else operator), value=value,
            collation=fill(" COLLATE {c}", c=canonical(type_.collation)) if type_.collation else SQL(""),
        )  # fmt: skip

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
        found: Composable = NOTHING
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

    def behind(self, cut: Values, after: Composable, *, whole: bool = False) -> Iterator[Composed]:
        """Conditions of the pieces behind a cut, in order.

        Args:
            after: SQL that says whether the cut lies behind the items that have its values.
            whole: the cut leaves no column out.
        """
        yield from self._beyond(cut, ">", fill("NOT ({after})", after=after), whole=whole)

    def before(self, cut: Values, after: Composable, *, whole: bool = False) -> Iterator[Composed]:
        """Conditions of the pieces before a cut, from the cut back; arguments as of `behind`."""
        yield from self._beyond(cut, "<", after, whole=whole)

    def _beyond(self, cut: Values, operator: str, touching: Composable, *, whole: bool) -> Iterator[Composed]:
        size = len(self.position)
        for given in [size] if whole else range(size, -1, -1):
            conditions = self._prefix(cut, given)
            if given < size:
                conditions.append(fill("{v} IS NULL", v=cut[given]))
            if given:
                conditions.append(Composed([touching]))
            yield conjunction(conditions)
        for index in range(size - 1, -1, -1):
            yield conjunction([*self._prefix(cut, index), self.compare(self.position[index], operator, cut[index])])

    def between(self, low: Values, high: Values, *, low_in: Composable, high_in: Composable) -> Iterator[Composed]:
        """Conditions of the pieces between two places, in order; the second place is not before the first.

        Args:
            low_in: SQL that says whether an item at the first place is among them.
            high_in: the same of the second.
        """
        last = len(self.position)
        apart = self._apart(low, high, last)
        both_in = low_in if high_in is ALWAYS else fill("({apart} OR {high_in})", apart=apart, high_in=high_in)
        yield conjunction([*self._prefix(low, last), low_in, both_in])
        for index in range(last - 1, 0, -1):
            yield conjunction([self._apart(low, high, index), *self._prefix(low, index), self._side(index, ">", low)])
        for index in range(last):
            both = [self._side(index, ">", low), self._side(index, "<", high)]
            yield conjunction([*self._same(low, high, index), *self._prefix(low, index), *both])
        for index in range(1, last):
            yield conjunction([self._apart(low, high, index), *self._prefix(high, index), self._side(index, "<", high)])
        yield conjunction([apart, *self._prefix(high, last), high_in])

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
