"""Reads of a grouped aggregate, as SQLAlchemy expressions; building one executes nothing.

The kept and the direct half have the same reads over two views of the same columns. `direct_of` turns any statement
over kept views into the same statement over direct ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    MetaData,
    Select,
    Table,
    false,
    func,
    literal,
    literal_column,
    select,
    true,
    union_all,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import LateralFromClause
from sqlalchemy.types import NullType, TypeEngine

from tallystick.declare.halves import DirectHalf, ServingHalf
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape
from tallystick.errors import UsageError

DIRECT = "tallystick_direct"
_Statement = TypeVar("_Statement", bound=ClauseElement)


class GroupReads:
    """The reads of one half. `table` is the view with the declared columns, for any query of your own."""

    def __init__(self, name: str, shape: Shape, *, table: Table, parts: Sequence[Table] = ()) -> None:
        self._aggregate = name
        self._shape = shape
        self._parts = parts
        self.table = table

    def get(self, /, **key: Any) -> Select[Any]:
        """One group, always as one row: counts are 0 and other measures NULL where there is no such group.

        Args:
            key: a value for each group key; None finds the group of NULL.
        Raises:
            UsageError: a group key is missing or unknown.
        """
        view = self.table
        match = self._match(view, key)
        one = select(literal_column("1").label("one")).subquery("one")
        columns = (
            self._echo(view.c[name], key[name]) if name in key else self._measured(view, name)
            for name in self._shape.columns
        )
        return select(*columns).select_from(one.outerjoin(view, match))

    def value(self, measure: str, /, **key: Any) -> ColumnElement[Any]:
        """One measure of one group, as a column expression; 0 or NULL where there is no such group.

        Args:
            measure: name of a measure.
            key: a value for each group key, or a column of the query around it.
        Raises:
            UsageError: the measure or a group key is unknown or missing.
        """
        view = self.table.alias()
        column = self._measure_column(view, measure)
        found = select(column).where(self._match(view, key)).correlate_except(view).scalar_subquery()
        return func.coalesce(found, 0, type_=column.type) if self._counts(measure) else found

    def lateral(self, /, **key: Any) -> LateralFromClause:
        """One row of measures for each row of the query around it: `select(Chat, l.c.messages).join(l, true())`.

        Args:
            key: a column of the outer query, or a value, for each group key.
        Raises:
            UsageError: a group key is missing or unknown.
        """
        view = self.table.alias()
        one = select(literal_column("1").label("one")).subquery()
        measures = [self._measured(view, measure.name) for measure in self._shape.measures]
        # OFFSET 0 keeps the planner from merging this into the outer query, where the key would come too late to be
        # pushed into the view.
        rows = select(*measures).select_from(one.outerjoin(view, self._match(view, key))).offset(literal_column("0"))
        return rows.correlate_except(view, one).lateral()

    def top(self, measure: str, k: int = 10, /) -> Select[Any]:
        """The k groups with the greatest measure, NULLS LAST, ties by group key.

        Raises:
            UsageError: the measure is unknown or k below 1.
        """
        if k < 1:
            raise UsageError(f'aggregate "{self._aggregate}": top of {k} groups.', hint="Ask for 1 or more.")
        self._measure_column(self.table, measure)
        if not self._parts:
            return self._ordered(self.table, measure, k)
        # Each part is ordered by itself: the settled groups come from an index, which a view over all cannot use.
        best = union_all(*(self._ordered(part, measure, k).subquery().select() for part in self._parts)).subquery()
        return self._ordered(best, measure, k)

    def _ordered(self, view: FromClause, measure: str, k: int) -> Select[Any]:
        order = [view.c[measure].desc().nulls_last(), *(view.c[key.name] for key in self._shape.keys)]
        return select(*view.c).order_by(*order).limit(k)

    def _match(self, view: FromClause, key: Mapping[str, Any]) -> ColumnElement[bool]:
        names = [part.name for part in self._shape.keys]
        if set(names) != set(key):
            wanted = ", ".join(names) or "none"
            given = ", ".join(key) or "none"
            raise UsageError(
                f'aggregate "{self._aggregate}": expected a value for its group keys ({wanted}), got {given}.',
                hint="Pass each group key by name.",
            )
        condition: ColumnElement[bool] = true()
        for name in names:
            condition = condition & (view.c[name] == _bound(view.c[name], key[name]))
        return condition

    def _measure_column(self, view: FromClause, measure: str) -> ColumnElement[Any]:
        names = [part.name for part in self._shape.measures]
        if measure not in names:
            raise UsageError(
                f'aggregate "{self._aggregate}": measure "{measure}" is unknown (has: {", ".join(names)}).',
                hint="Use one of its measures.",
            )
        return view.c[measure]

    def _counts(self, measure: str) -> bool:
        return any(part.name == measure and part.function == "count" for part in self._shape.measures)

    def _measured(self, view: FromClause, name: str) -> ColumnElement[Any]:
        column = view.c[name]
        return func.coalesce(column, 0, type_=column.type).label(name) if self._counts(name) else column

    def _echo(self, column: ColumnElement[Any], value: Any) -> ColumnElement[Any]:
        if value is None:
            return column
        return func.coalesce(column, _bound(column, value), type_=column.type).label(column.name)


def _bound(column: ColumnElement[Any], value: Any) -> Any:
    """A value for a column whose type is not known here: PostgreSQL, which knows it, reads the parameter."""
    if (
        value is None
        or hasattr(value, "__clause_element__")
        or isinstance(value, ClauseElement)
        or not isinstance(column.type, NullType)
    ):
        return value
    return literal(value, NullType())


def halves(name: str, schema: str, shape: Shape, types: Mapping[str, TypeEngine[Any]]) -> tuple[GroupReads, GroupReads]:
    """The kept and the direct reads of an aggregate.

    Args:
        types: SQLAlchemy types of the declared columns, as far as they are known.
    """
    metadata = MetaData()

    def view(view_name: str) -> Table:
        columns = [Column(column, types.get(column, NullType())) for column in shape.columns]
        return Table(view_name, metadata, *columns, schema=schema)

    direct = view(internal_name(name, "direct"))
    kept = view(name)
    kept.info[DIRECT] = direct
    parts: list[Table] = []
    if shape.keys:
        front, rest = view(internal_name(name, "front")), view(internal_name(name, "rest"))
        front.info[DIRECT] = direct
        rest.info[DIRECT] = select(direct).where(false()).subquery()
        parts = [front, rest]
    return GroupReads(name, shape, table=kept, parts=parts), GroupReads(name, shape, table=direct)


def direct_of(read: _Statement) -> _Statement:
    """The same read over the source: every kept view and function in it is replaced by its direct twin.

    Args:
        read: a value, a Select, or any SQLAlchemy expression that holds kept reads.
    """

    def replace(element: Any, **_: Any) -> Any:
        if isinstance(element, ServingHalf):
            return DirectHalf()
        if isinstance(element, Table):
            return element.info.get(DIRECT)
        if isinstance(element, Column) and isinstance(element.table, Table):
            direct = element.table.info.get(DIRECT)
            return direct.c[element.name] if direct is not None else None
        return None

    return visitors.replacement_traverse(read, {}, replace)  # type: ignore[return-value]
