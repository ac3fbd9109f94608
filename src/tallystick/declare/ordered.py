"""The declaration of an ordered aggregate: a table, its namespaces, its order and what is summed over it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, func, inspect, select
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import BinaryExpression, Label, UnaryExpression
from sqlalchemy.types import TypeEngine

from tallystick.declare.grouped import Grouped, text_of
from tallystick.declare.names import checked_name
from tallystick.declare.order_reads import CURSOR, OrderReads
from tallystick.declare.ranges import Order, Part, is_expression
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.declare.tokens import tokenize
from tallystick.errors import DeclarationError

COUNT = "count(*)"
"""Name of the measure that counts items, which no column has."""


@dataclass(frozen=True, slots=True)
class Ordering:
    """How the group keys of an ordered aggregate's query divide: namespace, sort key, and the rest of the primary key.

    Attributes:
        namespace: number of columns.
        key: number of columns.
        descending: for each column of the sort key and of the rest of the primary key.
        primary_key: names of its columns, in its order.
    """

    namespace: int
    key: int
    descending: tuple[bool, ...]
    primary_key: tuple[str, ...]

    def text(self) -> str:
        """As it is stored."""
        return json.dumps([self.namespace, self.key, list(self.descending), list(self.primary_key)])

    @classmethod
    def of(cls, text: str) -> Ordering:
        namespace, key, descending, primary_key = json.loads(text)
        return cls(namespace, key, tuple(descending), tuple(primary_key))


class Ordered(OrderReads):
    """Counts, sums, ranks and offsets over an order, one order for each namespace.

    The reads answer from the kept half; `direct` has the same over the source.

    Attributes:
        name: of the aggregate and of its view.
        schema: of the installation.
        definition: the items as a query that groups by namespace, sort key and primary key, so that each row is one.
        shape: that query taken apart.
        ordering: how its group keys divide.
        table: the view of the items: namespace, sort key, primary key, sums.
        direct: the same reads over the source.
    """

    mirror = None

    def __init__(
        self,
        name: str,
        source: Any,
        *,
        schema: str,
        namespace: Sequence[Any] = (),
        key: Sequence[Any] = (),
        sums: Mapping[str, Any] | None = None,
        where: Any = None,
    ) -> None:
        self.name = checked_name(name)
        self.schema = schema
        table = _table(name, source)
        parts: list[Part] = []
        expressions: list[ColumnElement[Any]] = []
        descending: list[bool] = []
        for word, columns in (("namespace", namespace), ("key", key)):
            for column in _listed(name, word, columns):
                expression, is_descending = _directed(name, word, column)
                expressions.append(expression.element if isinstance(expression, Label) else expression)
                parts.append(Part(_name(name, word, expression), expression))
                if word == "key":
                    descending.append(is_descending)
                elif is_descending:
                    raise _refuse(name, f"namespace {column} has a direction", "Order the sort key only.")
        pk = [Part(column.name, column) for column in table.primary_key.columns]
        if not pk:
            raise _refuse(name, f"{table.fullname} has no primary key", "Ties are broken by it: declare one.")
        first = len(_listed(name, "namespace", namespace))
        known = [part.name for part, each in zip(parts, expressions, strict=True) if _is_column(each, part.name, table)]
        rest = [part for part in pk if part.name not in known]
        order = Order(name, namespace=parts[:first], key=parts[first:], pk=pk, rest=rest)
        expressions += [table.columns[part.name] for part in rest]
        descending += [False] * len(rest)
        self.ordering = Ordering(first, len(order.key), tuple(descending), tuple(part.name for part in pk))

        totals = _sums(name, sums)
        names = [*(part.name for part in (*order.namespace, *order.position)), *totals]
        for repeated in {each for each in names if [*names, COUNT, CURSOR].count(each) > 1}:
            raise _refuse(name, f'"{repeated}" names two of its columns', "Label one of them: column.label(…).")
        query = select(
            *(each.label(label) for each, label in zip(expressions, names, strict=False)),
            func.count().label(COUNT),
            *(func.sum(total).label(label) for label, total in totals.items()),
        ).select_from(table)
        if where is not None:
            query = query.where(where)
        self.definition = text_of(name, query.group_by(*expressions))
        self.shape: Shape = shape_of(name, self.definition)
        types = [*(part.type for part in (*order.namespace, *order.position)), *(t.type for t in totals.values())]
        typed: dict[str, TypeEngine[Any]] = dict(zip(names, types, strict=True))
        results: dict[str, TypeEngine[Any]] = {label: func.sum(total).type for label, total in totals.items()}
        super().__init__(name, schema, order, typed, results)
        self.direct = OrderReads(name, schema, order, typed, results, is_direct=True)

    @property
    def fingerprint(self) -> str:
        """What tells two declarations apart: the SHA-256 of query and order, in hexadecimal."""
        tokens = " ".join(token.text for token in tokenize(self.definition))
        return hashlib.sha256(f"{tokens} {self.ordering.text()}".encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Ordered {self.schema}.{self.name}: {self.definition!r}>"


Kept = Grouped | Ordered
"""An aggregate that triggers keep."""


def _table(name: str, source: object) -> Table:
    if isinstance(source, Table):
        return source
    try:
        mapper = inspect(source)
    except NoInspectionAvailable:
        mapper = None
    if isinstance(mapper, Mapper) and isinstance(mapper.local_table, Table) and len(mapper.tables) == 1:
        return mapper.local_table
    raise _refuse(name, f"expected a mapped class of one table, or a Table, got {source!r}", "Pass the class itself.")


def _is_column(expression: ColumnElement[Any], name: str, table: Table) -> bool:
    """The expression is the table's column of that name, and nothing more."""
    return name in table.columns and isinstance(expression, Column) and expression.shares_lineage(table.columns[name])


def _listed(name: str, word: str, columns: object) -> list[Any]:
    if isinstance(columns, str) or is_expression(columns) or not isinstance(columns, Iterable):
        raise _refuse(name, f"{word} is a list of columns, got {columns!r}", f"Write {word}=[column].")
    found = list(columns)
    for column in found:
        if not is_expression(column):
            raise _refuse(name, f"{word} has {column!r}, which is no column", f"Write {word}=[Class.column].")
    return found


def _directed(name: str, word: str, column: Any) -> tuple[ColumnElement[Any], bool]:
    """The expression without its direction, and whether that is descending."""
    expression: ColumnElement[Any] = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    descending = False
    if isinstance(expression, UnaryExpression) and expression.modifier is not None:
        if expression.modifier not in (operators.asc_op, operators.desc_op):
            raise _refuse(name, f"{word} orders NULLs", "Rows with NULL in the sort key are no items; leave it out.")
        descending = expression.modifier is operators.desc_op
        expression = expression.element
    return expression, descending


def _name(name: str, word: str, expression: ColumnElement[Any]) -> str:
    if isinstance(expression, BinaryExpression) and expression.operator is operators.collate:
        return _name(name, word, expression.left)
    found = getattr(expression, "name", None)
    if not isinstance(found, str):
        raise _refuse(name, f"{word} has the expression {expression} without a name", "Name it with .label(…).")
    return str(found)


def _sums(name: str, sums: object) -> dict[str, ColumnElement[Any]]:
    if sums is None:
        return {}
    if not isinstance(sums, Mapping):
        raise _refuse(
            name, f"sums is a mapping of names to columns, got {sums!r}", 'Write sums={"total": Class.column}.'
        )
    found: dict[str, ColumnElement[Any]] = {}
    for label, column in sums.items():
        if not isinstance(label, str) or not is_expression(column):
            raise _refuse(name, f"sums has {label!r}: {column!r}", 'Write sums={"total": Class.column}.')
        expression = column.__clause_element__() if hasattr(column, "__clause_element__") else column
        found[label] = expression.element if isinstance(expression, Label) else expression
    return found


def _refuse(name: str, what: str, hint: str) -> DeclarationError:
    return DeclarationError(f'aggregate "{name}": {what}.', hint=hint)
