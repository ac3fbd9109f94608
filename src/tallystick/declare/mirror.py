"""The declaration of copies: which columns of which parent table take which measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Table, inspect
from sqlalchemy.orm import InstrumentedAttribute

from tallystick.declare.sqltext import Shape, quote_name
from tallystick.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Mirrored:
    """`table` is the parent's quoted name, `columns` are the names of its columns by measure."""

    table: str
    columns: dict[str, str]


def mirrored(aggregate: str, shape: Shape, mirror: Mapping[str, Any]) -> Mirrored:
    """Take a declared mirror apart.

    Raises:
        DeclarationError: an unknown measure, something that is no table's column, columns of two tables, one column
            for two measures, or no group key to find a parent by.
    """

    def refuse(what: str, instead: str) -> DeclarationError:
        return DeclarationError(f'aggregate "{aggregate}": mirror {what}.', hint=instead)

    if not shape.keys:
        raise refuse("needs a group key to find the parent by", "Group by the parent's key, or read the view.")
    measures = [measure.name for measure in shape.measures]
    columns: dict[str, str] = {}
    tables: list[Table] = []
    for measure, target in mirror.items():
        if measure not in measures:
            raise refuse(f'of "{measure}", which is no measure (has: {", ".join(measures)})', "Name a measure.")
        column = _column(target)
        if column is None:
            raise refuse(f'of "{measure}" into {target!r}, which is no table\'s column', "Pass Parent.column.")
        columns[measure] = column.name
        tables.append(column.table)
    if any(table is not tables[0] for table in tables):
        names = ", ".join(sorted({table.fullname for table in tables}))
        raise refuse(f"into two tables ({names})", "Mirror into columns of one parent table.")
    if len(set(columns.values())) < len(columns):
        raise refuse("of two measures into one column", "Give each measure its own column.")
    schema = f"{quote_name(tables[0].schema)}." if tables[0].schema else ""
    return Mirrored(f"{schema}{quote_name(tables[0].name)}", columns)


def _column(target: object) -> Column[Any] | None:
    if isinstance(target, InstrumentedAttribute):
        expressions = getattr(inspect(target).property, "columns", [None])
        target = expressions[0]
    return target if isinstance(target, Column) and isinstance(target.table, Table) else None
