"""Reads of an ordered aggregate, as SQLAlchemy expressions over its SQL functions; building one executes nothing.

Each function takes as its last argument which half answers. `direct_of` turns that argument, so a read of either half
is the same expression otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Column, Double, MetaData, Select, Table, Text, cast, func, literal, select
from sqlalchemy.sql.elements import ColumnElement, quoted_name
from sqlalchemy.sql.functions import Function
from sqlalchemy.sql.selectable import TableValuedAlias
from sqlalchemy.types import Enum, Numeric, String, TypeDecorator, TypeEngine

from tallystick.declare.cursors import refuse_foreign
from tallystick.declare.halves import DirectHalf, ServingHalf
from tallystick.declare.literals import argument, arguments
from tallystick.declare.names import read_name
from tallystick.declare.ranges import Order, Part, Span, is_expression

CURSOR = "cursor"
MOST = 2**62
"""Offsets and limits are this far from 0 at most, so that the sum of two is a bigint."""


class OrderReads:
    """The reads of one half. `table` is the view of the items, for any query of your own.

    Every read takes the values of the namespace first, by position and in the declared order, and a range by keyword:

    - `lower=`, `upper=` and `bounds="[]"`, which says whether the ends belong to it as PostgreSQL writes it. An end is
      a value for one column and a tuple for several; of a composite key it may leave out the last columns, and then
      covers all items that have the others. `Bound(key, pk)` cuts between items of one key. None is no end.
    - `prefix=`: keys whose first columns equal it;
    - `eq=`: exactly that key.

    Without a range: everything. A value may be an expression, such as a column of the query around it. All of them
    raise UsageError before any SQL runs where an argument means nothing.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        order: Order,
        columns: Mapping[str, TypeEngine[Any]],
        sums: Mapping[str, TypeEngine[Any]],
        *,
        is_direct: bool = False,
    ) -> None:
        self._aggregate = name
        self._schema = schema
        self._order = order
        self._columns = columns
        self._sums = sums
        self._half = DirectHalf() if is_direct else ServingHalf()
        self.table = Table(name, MetaData(), *(Column(key, type_) for key, type_ in columns.items()), schema=schema)

    def count(self, /, *namespace: Any, **span: Any) -> ColumnElement[Any]:
        """Number of items in a range, 0 if there are none."""
        return self._value("count", self._of(namespace), self._range(span), type_=BigInteger())

    def sum(self, measure: str, /, *namespace: Any, **span: Any) -> ColumnElement[Any]:
        """Sum over the items of a range, 0 if there are none; NULLs count for nothing.

        Args:
            measure: name of a declared sum.
        """
        return self._value(*self._measure(measure), self._of(namespace), self._range(span), type_=self._sums[measure])

    def rank(self, /, *namespace: Any, key: Any = None, pk: Any = None, order: str = "asc") -> ColumnElement[Any]:
        """Number of items before a place, `order="desc"`: behind it. No item need be there.

        Args:
            key: the sort key; left out where the order is by primary key alone.
            pk: the primary key. Without it, items of the same key are not counted.
        """
        values = () if key is None and not self._order.key else self._order.full_key("key", key)
        if pk is not None:
            values = (*values, *self._order.tie("pk", pk))
        if not values:
            raise self._order.refuse("rank of no place", "Pass pk=.")
        arguments = [*self._of(namespace), *self._place(values), self._direction(order)]
        return self._call("rank", arguments, BigInteger())

    def rank_of(self, pk: Any, /, *, order: str = "asc") -> ColumnElement[Any]:
        """Number of items before the item of this primary key in its namespace; NULL if it is no item."""
        values = self._order.primary_key(pk)
        arguments = [_argument(part, value) for part, value in zip(self._order.pk, values, strict=True)]
        return self._call("rank_of", [*arguments, self._direction(order)], BigInteger())

    def at(self, /, *namespace: Any, offset: Any, **span: Any) -> Select[Any]:
        """The item at an offset in a range, counted from 0, or from the end if negative (-1 is the last); or no row."""
        return self._rows("at", [*self._of(namespace), self._integer("offset", offset)], self._range(span))

    def min(self, /, *namespace: Any, **span: Any) -> Select[Any]:
        """The first item of a range, or no row."""
        return self._rows("min", self._of(namespace), self._range(span))

    def max(self, /, *namespace: Any, **span: Any) -> Select[Any]:
        """The last item of a range, or no row."""
        return self._rows("max", self._of(namespace), self._range(span))

    def percentile(self, /, *namespace: Any, p: Any, **span: Any) -> Select[Any]:
        """The item of the nearest rank, or no row: the first that has a share of at least p at or before it.

        Args:
            p: 0 to 1.
        """
        if not is_expression(p):
            if not isinstance(p, int | float) or not 0 <= p <= 1:
                raise self._order.refuse(f"p={p!r}", "Pass a number from 0 to 1.")
            p = literal(float(p), Double())
        return self._rows("percentile", [*self._of(namespace), p], self._range(span))

    def random(self, /, *namespace: Any, **span: Any) -> Select[Any]:
        """An item of a range, each as likely as any other, or no row."""
        return self._rows("percentile", [*self._of(namespace), 1 - func.random()], self._range(span))

    def page(
        self, /, *namespace: Any, after: str | None = None, limit: int, order: str = "asc", **span: Any
    ) -> Select[Any]:
        """Items of a range in their order, each with the `cursor` that the next page goes on `after`.

        What is inserted or deleted between pages neither repeats other items nor hides them.

        Args:
            after: the cursor of the last item of the page before.
            limit: items of a page, from 1.
            order: "asc", or "desc" from the last item back.
        """
        if type(limit) is not int or not 1 <= limit <= MOST:
            raise self._order.refuse(f"limit={limit!r}", "Pass an int from 1, of at most 62 bits.")
        if after is not None:
            refuse_foreign(self._order, after, namespace)
        arguments = [
            *self._of(namespace), literal(limit, BigInteger()), literal(after, Text()), self._direction(order)
        ]  # fmt: skip
        return self._rows("page", arguments, self._range(span), Column(CURSOR, Text))

    def namespaces(self) -> Select[Any]:
        """All namespaces that have items, in their order."""
        if not self._order.namespace:
            raise self._order.refuse("it has no namespace", "Leave namespaces() out.")
        rows = self._call("namespaces", []).table_valued(*(Column(p.name, p.type) for p in self._order.namespace))
        return select(rows)

    def count_many(self, queries: Sequence[Mapping[str, Any]], /) -> Select[Any]:
        """One row (position, count) for each query, in their order.

        Args:
            queries: each the keywords of a range, and `namespace`: a value for one column, a tuple for several.
        """
        return self._many("count", queries, BigInteger())

    def sum_many(self, measure: str, queries: Sequence[Mapping[str, Any]], /) -> Select[Any]:
        """One row (position, sum) for each query, in their order; queries as of `count_many`."""
        (name,) = self._measure(measure)
        return self._many(name, queries, self._sums[measure], label="sum")

    def at_many(self, queries: Sequence[Mapping[str, Any]], /) -> Select[Any]:
        """One row for each query, in their order: position and the item, NULLs where there is none.

        Args:
            queries: as of `count_many`, each with an `offset`.
        """
        entries = self._order.entries(queries, "offset")
        for _, _, other in entries:
            self._integer("offset", other["offset"])
        asked = self._asked(
            [(values, span) for values, span, _ in entries], [other["offset"] for _, _, other in entries]
        )
        offset = asked.c.at_offset
        arguments = [*self._columns_of(asked, self._order.namespace, "of"), offset, *self._span_of(asked)]
        rows = self._call("at", arguments).table_valued(*self._row_columns()).lateral()
        return (
            select(asked.c.position, *rows.c)
            .select_from(asked.outerjoin(rows, literal(True)))
            .order_by(asked.c.position)
        )

    def _many(
        self, name: str, queries: Sequence[Mapping[str, Any]], type_: TypeEngine[Any], label: str = "count"
    ) -> Select[Any]:
        entries = self._order.entries(queries)
        arrays = [array for _, _, array in self._arrays([(values, span) for values, span, _ in entries])]
        columns = [Column("query", BigInteger), Column("result", type_)]
        found = self._call(f"{name}_many", arrays).table_valued(*columns)
        position = found.c.query.label("position")
        return select(position, found.c.result.label(label)).order_by(found.c.query)

    def _asked(self, queries: list[tuple[list[Any], Span]], offsets: list[int]) -> TableValuedAlias:
        """The queries of a batch as rows of a table, numbered from 0, whose columns are a function's arguments."""
        arrays = [
            ("position", BigInteger(), literal(list(range(len(queries))), ARRAY(BigInteger()))),
            *((name, type_, cast(array, _array_type(type_))) for name, type_, array in self._arrays(queries)),
            ("at_offset", BigInteger(), literal(offsets, ARRAY(BigInteger()))),
        ]
        columns = [Column(name, type_) for name, type_, _ in arrays]
        return func.unnest(*(array for _, _, array in arrays)).table_valued(*columns).render_derived()

    def _arrays(self, queries: list[tuple[list[Any], Span]]) -> list[tuple[str, TypeEngine[Any], ColumnElement[Any]]]:
        """Namespaces, ends and bounds of many ranges: the name, the type and the values of each."""
        columns: list[tuple[str, TypeEngine[Any], list[Any]]] = []
        for index, part in enumerate(self._order.namespace):
            columns.append((f"of_{index}", part.type, [values[index] for values, _ in queries]))
        for word in ("lower", "upper"):
            ends = [self._order.padded(getattr(span, word)) for _, span in queries]
            for index, part in enumerate(self._order.position):
                columns.append((f"{word}_{index}", part.type, [end[index] for end in ends]))
        columns.append(("bounds", Text(), [span.bounds for _, span in queries]))
        return [(name, type_, arguments(values, type_)) for name, type_, values in columns]

    def _columns_of(self, asked: TableValuedAlias, parts: Sequence[Part], word: str) -> list[ColumnElement[Any]]:
        return [asked.c[f"{word}_{index}"] for index in range(len(parts))]

    def _span_of(self, asked: TableValuedAlias) -> list[ColumnElement[Any]]:
        ends = [self._columns_of(asked, self._order.position, word) for word in ("lower", "upper")]
        return [*ends[0], *ends[1], asked.c.bounds]

    def _value(self, name: str, namespace: list[Any], span: list[Any], *, type_: TypeEngine[Any]) -> ColumnElement[Any]:
        return self._call(name, [*namespace, *span], type_)

    def _rows(self, name: str, arguments: list[Any], span: list[Any], *more: Column[Any]) -> Select[Any]:
        rows = self._call(name, [*arguments, *span]).table_valued(*self._row_columns(), *more)
        return select(rows)

    def _row_columns(self) -> list[Column[Any]]:
        return [Column(name, type_) for name, type_ in self._columns.items()]

    def _call(self, name: str, arguments: list[Any], type_: TypeEngine[Any] | None = None) -> Function[Any]:
        # SQLAlchemy quotes the schema of a function only where the function's own name says that it is to be quoted.
        function = quoted_name(read_name(self._aggregate, name), quote=True)
        return Function(function, *arguments, self._half, packagenames=(self._schema,), type_=type_)

    def _of(self, namespace: Sequence[Any]) -> list[Any]:
        values = self._order.in_namespace(namespace)
        return [_argument(part, value) for part, value in zip(self._order.namespace, values, strict=True)]

    def _range(self, given: Mapping[str, Any]) -> list[Any]:
        unknown = set(given) - {"lower", "upper", "bounds", "prefix", "eq"}
        if unknown:
            raise self._order.refuse(
                f"unknown keyword {', '.join(sorted(unknown))}",
                "A range has lower, upper and bounds, or prefix, or eq.",
            )
        span = self._order.span(**given)
        return [*self._place(span.lower), *self._place(span.upper), literal(span.bounds, Text())]

    def _place(self, values: Sequence[Any]) -> list[Any]:
        padded = self._order.padded(values)
        return [_argument(part, value) for part, value in zip(self._order.position, padded, strict=True)]

    def _measure(self, measure: str) -> tuple[str]:
        if measure not in list(self._sums):  # whatever it is; a mapping would want it hashable
            raise self._order.refuse(
                f"the sum {measure!r} is unknown (has: {', '.join(self._sums) or 'none'})", "Use one of its sums."
            )
        return (f"sum_{measure}",)

    def _direction(self, order: str) -> ColumnElement[Any]:
        if order not in ("asc", "desc"):
            raise self._order.refuse(f"order={order!r}", 'Write "asc" or "desc".')
        return literal(order, Text())

    def _integer(self, word: str, value: Any) -> ColumnElement[Any]:
        if is_expression(value):
            return value
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MOST:
            raise self._order.refuse(f"{word}={value!r}", "Pass an int of at most 62 bits.")
        return literal(value, BigInteger())


def _argument(part: Part, value: Any) -> Any:
    return value if is_expression(value) else argument(value, part.type)


def _array_type(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Of elements of a type; a type's own precision is not to round a bound."""
    if isinstance(type_, TypeDecorator | Enum):
        return ARRAY(type_)
    return ARRAY(Text() if isinstance(type_, String) else Numeric() if type(type_) is Numeric else type_)
