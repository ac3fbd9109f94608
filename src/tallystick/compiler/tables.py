"""Tables that aggregates of every kind have."""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.layout import Layout
from tallystick.compiler.snapshot import ColumnType
from tallystick.compiler.text import Statement, canonical, fill


def unlogged(layout: Layout) -> SQL:
    return SQL("UNLOGGED ") if layout.snapshot.source.unlogged else SQL("")


def delta_table(layout: Layout) -> Statement:
    """`x__delta`, without its indexes."""
    parts = layout.parts
    columns: list[Composable] = [SQL("epoch bigint NOT NULL"), SQL("xact xid8 NOT NULL DEFAULT pg_current_xact_id()")]
    columns += [SQL("partition regclass NOT NULL")] if layout.snapshot.source.is_partitioned else []
    columns += [SQL("narrow boolean NOT NULL")] if layout.has_wide_keys else []
    columns += [SQL("facet smallint NOT NULL")] if parts.facets else []
    columns += [*layout.key_definitions(), SQL("n bigint NOT NULL"), *additive_definitions(layout)]
    for extreme in parts.extremes:
        for name in (extreme.came, extreme.went):
            columns.append(fill("{n} {t}{c}", n=name, t=extreme.type, c=extreme.collation))
    columns += [fill("{v} {t}{c}", v=facet.value, t=facet.type, c=facet.collation) for facet in parts.facets]
    columns += [fill("{p} {t}", p=name, t=each) for name, each in place_definitions(layout)]
    options = SQL(
        " WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,"
        " autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,"
        " vacuum_truncate = false)"
    )
    return Statement(
        "signed changes, appended by the writers and consumed by the fold",
        table(unlogged(layout), layout.object("delta"), columns, options),
    )


def place_definitions(layout: Layout) -> list[tuple[SQL, Composed]]:
    """Names and types of the columns of a row's primary key."""
    types = layout.snapshot.source.primary_key
    return [(name, stored_type(type_)) for name, type_ in zip(layout.places, types, strict=False)]


def stored_type(type_: ColumnType) -> Composed:
    """As a column of ours is declared."""
    collation = fill(" COLLATE {c}", c=canonical(type_.collation)) if type_.collation else SQL("")
    return fill("{type}{collation}", type=canonical(type_.stored), collation=collation)


def additive_definitions(layout: Layout) -> list[Composable]:
    return [fill("{name} {type}", name=part.name, type=part.type) for part in layout.parts.additive]


def table(unlogged: Composable, name: Composable, columns: list[Composable], options: Composable) -> Composed:
    return fill(
        "CREATE {unlogged}TABLE {name} (\n    {body}\n){options}",
        unlogged=unlogged, name=name, body=SQL(",\n    ").join(columns), options=options,
    )  # fmt: skip
