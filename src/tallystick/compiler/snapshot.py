"""What the compiler needs to know from the catalog, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type as the catalog describes it.

    Attributes:
        text: as `format_type` prints it with its modifier, for example `numeric(12,2)`.
        base: the same under all domains, without modifier, for example `numeric`.
        scale: digits after the point that the type fixes (numeric with a modifier), else None.
        fixed_width: no value takes more bytes than another.
        collation: qualified and quoted name, for collatable types.
        operator_schema: schema in which the type's own `=` lives.
        is_domain: a domain over `base`.
        is_composite: a row of several fields.
    """

    text: str
    base: str
    scale: int | None = None
    fixed_width: bool = True
    collation: str | None = None
    operator_schema: str = "pg_catalog"
    is_domain: bool = False
    is_composite: bool = False

    @property
    def stored(self) -> str:
        """As it is kept: a domain may be given a constraint that the values of rows long gone do not meet."""
        return self.base if self.is_domain else self.text


@dataclass(frozen=True, slots=True)
class Source:
    """The table that an aggregate is computed from.

    Attributes:
        name: qualified and quoted, as PostgreSQL prints it.
        used: names of the columns that the declaration reads, in the table's order.
        unlogged: the table is not crash-safe, so what is kept of it need not be either.
        partitions: of a partitioned table those that hold rows, by name as PostgreSQL prints it; else None.
        primary_key: types of its columns, in its order.
        key_columns: their names; none where changes are not to be captured with the place of their row.
    """

    name: str
    used: tuple[str, ...]
    unlogged: bool = False
    partitions: tuple[str, ...] | None = None
    primary_key: tuple[ColumnType, ...] = ()
    key_columns: tuple[str, ...] = ()

    @property
    def is_partitioned(self) -> bool:
        return self.partitions is not None


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where measures are copied to.

    Attributes:
        table: the parent table, qualified and quoted.
        keys: names of its columns that equal the group keys, in their order.
        columns: names of the columns that take a copy, by measure.
        required: those of them that take no NULL: a missing value is 0 there.
    """

    table: str
    keys: tuple[str, ...]
    columns: dict[str, str]
    required: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Types of the group keys, of each distinct argument text, and of the measures, beside source and mirror."""

    source: Source
    keys: tuple[ColumnType, ...]
    arguments: dict[str, ColumnType]
    measures: tuple[ColumnType, ...]
    mirror: Mirror | None = None
