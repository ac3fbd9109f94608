"""Ranges of an order: what `lower`, `upper`, `bounds`, `prefix` and `eq` say, checked before any SQL runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeGuard

from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import TypeEngine

from tallystick.errors import UsageError

BOUNDS = ("[]", "[)", "(]", "()")
EVERYTHING = "[]"


@dataclass(frozen=True, slots=True)
class Bound:
    """A place between items with one key: a sort key together with the primary key of an item.

    Args:
        key: the sort key, a scalar for one column and a tuple for several; `()` where there is none.
        pk: the primary key in the same form.
    """

    key: Any
    pk: Any = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A column of an order.

    Attributes:
        name: as rows carry it.
        expression: over the source.
    """

    name: str
    expression: ColumnElement[Any]

    @property
    def type(self) -> TypeEngine[Any]:
        """SQLAlchemy's type of it; that of a foreign key is known only once the other class is mapped."""
        return self.expression.type


@dataclass(frozen=True, slots=True)
class Span:
    """A range: the leading values of its lower and upper end, and which ends belong to it."""

    lower: tuple[Any, ...] = ()
    upper: tuple[Any, ...] = ()
    bounds: str = EVERYTHING


class Order:
    """The columns of an ordered aggregate, and what a caller's values mean for them.

    Attributes:
        namespace: columns of the namespace.
        key: columns of the sort key.
        pk: columns of the primary key, in its order.
        rest: those of them that neither namespace nor sort key has: they break ties.
    """

    def __init__(
        self,
        aggregate: str,
        *,
        namespace: Sequence[Part],
        key: Sequence[Part],
        pk: Sequence[Part],
        rest: Sequence[Part],
    ) -> None:
        self.aggregate = aggregate
        self.namespace = tuple(namespace)
        self.key = tuple(key)
        self.pk = tuple(pk)
        self.rest = tuple(rest)

    @property
    def position(self) -> tuple[Part, ...]:
        """What items of one namespace are ordered by."""
        return (*self.key, *self.rest)

    def refuse(self, what: str, hint: str) -> UsageError:
        return UsageError(f'aggregate "{self.aggregate}": {what}.', hint=hint)

    def in_namespace(self, values: Sequence[Any]) -> list[Any]:
        """The namespace's values, one for each column.

        Raises:
            UsageError: one is missing, too many, None, or of another type.
        """
        names = ", ".join(part.name for part in self.namespace) or "none"
        if len(values) != len(self.namespace):
            raise self.refuse(
                f"expected the values of its namespace ({names}) first, got {len(values)}",
                "Pass one for each column, in the declared order; ranges go by keyword.",
            )
        for part, value in zip(self.namespace, values, strict=True):
            if value is None:
                raise self.refuse(f"the namespace's {part.name} is None", "Rows without it belong to no namespace.")
            self._check(part, value)
        return list(values)

    def span(
        self,
        *,
        lower: Any = None,
        upper: Any = None,
        bounds: str = EVERYTHING,
        prefix: Any = None,
        eq: Any = None,
    ) -> Span:
        """A range in terms of leading values.

        Raises:
            UsageError: the arguments contradict each other, or a value is not of its column's type.
        """
        if bounds not in BOUNDS:
            raise self.refuse(f"bounds={bounds!r}", f"Write one of {', '.join(BOUNDS)}.")
        if prefix is not None and eq is not None:
            raise self.refuse("both prefix and eq are given", "Pass one of them.")
        if prefix is not None or eq is not None:
            word = "prefix" if prefix is not None else "eq"
            if lower is not None or upper is not None or bounds != EVERYTHING:
                raise self.refuse(f"{word} is given beside lower, upper or bounds", "Pass one or the other.")
            if word == "prefix":
                values = self._key(word, prefix if isinstance(prefix, tuple) else (prefix,))
            else:
                values = self.full_key(word, eq)
            return Span(values, values)
        return Span(self._end("lower", lower), self._end("upper", upper), bounds)

    def full_key(self, word: str, key: Any) -> tuple[Any, ...]:
        """All columns of the sort key.

        Raises:
            UsageError: too few or too many, or of another type.
        """
        values = self._key(word, _tuple(key, len(self.key)))
        if len(values) != len(self.key) or not values:
            names = ", ".join(part.name for part in self.key) or "none: it is ordered by primary key alone"
            raise self.refuse(f"{word}={key!r}, expected the sort key ({names})", "Pass a tuple for several columns.")
        return values

    def tie(self, word: str, pk: Any) -> tuple[Any, ...]:
        """The part of a primary key that breaks ties.

        Raises:
            UsageError: it is not the whole key, or of another type.
        """
        values = _tuple(pk, len(self.pk))
        if len(values) != len(self.pk) or any(value is None for value in values):
            names = ", ".join(part.name for part in self.pk)
            raise self.refuse(f"{word}={pk!r}, expected the primary key ({names})", "Pass a tuple for several columns.")
        for part, value in zip(self.pk, values, strict=True):
            self._check(part, value)
        by_name = dict(zip((part.name for part in self.pk), values, strict=True))
        return tuple(by_name[part.name] for part in self.rest)

    def primary_key(self, pk: Any) -> list[Any]:
        """All columns of the primary key.

        Raises:
            UsageError: the same as of `tie`.
        """
        self.tie("pk", pk)
        return list(_tuple(pk, len(self.pk)))

    def padded(self, values: Sequence[Any]) -> list[Any]:
        """Leading values with None for the columns that they leave out."""
        return [*values, *[None] * (len(self.position) - len(values))]

    def entries(
        self, queries: Sequence[Mapping[str, Any]], *known: str
    ) -> list[tuple[list[Any], Span, dict[str, Any]]]:
        """Queries of a batch: the namespace of each, its range, and the values of other keywords `known`.

        Raises:
            UsageError: a query is no mapping, or has an unknown keyword.
        """
        if isinstance(queries, Mapping | str) or not isinstance(queries, Iterable):
            raise self.refuse("expected a list of queries", 'Write it like [{"namespace": 7, "lower": start}, …].')
        found = []
        for query in queries:
            if not isinstance(query, Mapping):
                raise self.refuse(
                    f"the query {query!r} is no mapping", 'Write it like {"namespace": 7, "lower": start}.'
                )
            allowed = {"namespace", "lower", "upper", "bounds", "prefix", "eq", *known}
            if not set(query) <= allowed:
                raise self.refuse(
                    f"unknown in a query: {', '.join(map(str, set(query) - allowed))}",
                    f"Known are {', '.join(sorted(allowed))}.",
                )
            names = {"lower", "upper", "bounds", "prefix", "eq"} & set(query)
            given = _tuple(query["namespace"], len(self.namespace)) if "namespace" in query else ()
            values = self.in_namespace(given)
            span = self.span(**{name: query[name] for name in names})
            if any(is_expression(value) for value in (*values, *span.lower, *span.upper)):
                raise self.refuse("a batch takes values, not expressions", "Read expressions one by one.")
            found.append((values, span, {name: query.get(name) for name in known}))
        return found

    def _end(self, word: str, end: Any) -> tuple[Any, ...]:
        if end is None:
            return ()
        if isinstance(end, Bound):
            if end.pk is None:
                return self.full_key(word, end.key) if self.key else ()
            key = self.full_key(word, end.key) if self.key else ()
            if not self.key and end.key not in ((), None):
                raise self.refuse(f"{word}={end!r}: it is ordered by primary key alone", "Pass Bound((), pk).")
            return (*key, *self.tie(word, end.pk))
        if not self.key:
            return self.tie(word, end)
        return self._key(word, end if isinstance(end, tuple) else (end,))

    def _key(self, word: str, values: Sequence[Any]) -> tuple[Any, ...]:
        columns = self.key or self.rest
        if not values or len(values) > len(columns) or any(value is None for value in values):
            names = ", ".join(part.name for part in columns)
            raise self.refuse(
                f"{word}={tuple(values)!r}, expected values for the leading columns of ({names})",
                "Pass a scalar for one column and a tuple for several; Bound(key, pk) cuts between ties.",
            )
        for part, value in zip(columns, values, strict=False):
            self._check(part, value)
        return tuple(values)

    def _check(self, part: Part, value: Any) -> None:
        """A literal value has the column's type, as far as Python can tell."""
        if is_expression(value):
            return
        try:
            expected = part.type.python_type
        except NotImplementedError:
            return
        if not _fits(part.type, expected, value):
            raise self.refuse(
                f"{part.name} is compared with {value!r}, expected {expected.__name__}, got {type(value).__name__}",
                "Pass a value of the column's type.",
            )


def is_expression(value: object) -> TypeGuard[ColumnElement[Any]]:
    """A column or another SQL expression, as of a table or of a mapped class."""
    return isinstance(value, ColumnElement) or hasattr(value, "__clause_element__")


def _fits(type_: TypeEngine[Any], expected: type, value: object) -> bool:
    """What Python takes for a subtype is none to PostgreSQL: bool of int, datetime of date."""
    if hasattr(type_, "enums") and isinstance(value, str):
        return True
    if isinstance(value, bool) and expected in (int, float, Decimal):
        return False
    if isinstance(value, datetime) and expected is date:
        return False
    return isinstance(value, (int, float, Decimal) if expected in (float, Decimal) else expected)


def _tuple(value: Any, columns: int) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) and (columns != 1 or len(value) == 1) else (value,)
