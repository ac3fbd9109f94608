"""What a grouped aggregate has only while it is backfilled: where each row of the source stands in its primary key.

These depend on the columns of the primary key, which an application must be free to change later; so they are made when
a backfill begins and dropped when it has ended.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Composable, Identifier

from tallystick.compiler.removal import OF_BUILDING
from tallystick.compiler.snapshot import Source
from tallystick.compiler.text import Statement, canonical, column, comma, fill, private
from tallystick.declare.names import internal_name


def no_building_objects(schema: str, name: str) -> Iterator[Statement]:
    """Takes them out again."""
    for view in OF_BUILDING:
        drop = fill("DROP VIEW IF EXISTS {v}", v=Identifier(schema, internal_name(name, view)))
        yield Statement("a view of a backfill", drop)
    drop = fill("DROP FUNCTION IF EXISTS {f}", f=Identifier(schema, internal_name(name, "place")))
    yield Statement("a function of a backfill", drop)


def building_objects(schema: str, name: str, source: Source) -> Iterator[Statement]:
    """`x__place(source_row)`, `x__places` and `x__rows`; none without a primary key.

    Args:
        schema: of the installation.
        name: of the aggregate.
        source: of which only the name and the primary key are looked at.
    """
    if not source.key_columns:
        return

    def own(suffix: str) -> Identifier:
        return Identifier(schema, internal_name(name, suffix))

    names = [column("p", index) for index in range(1, len(source.primary_key) + 1)]

    def items(row: Composable) -> Composable:
        return comma(
            fill("({row}.{c})::{t} AS {p}" if type_.is_domain else "{row}.{c} AS {p}",
                 row=row, c=Identifier(key), t=canonical(type_.stored), p=p)
            for p, key, type_ in zip(names, source.key_columns, source.primary_key, strict=True)
        )  # fmt: skip

    returned = [fill("{p} {t}", p=p, t=canonical(t.stored)) for p, t in zip(names, source.primary_key, strict=True)]
    table, row = canonical(source.name), canonical("t")
    yield Statement(
        "where a row stands",
        fill(
            "CREATE FUNCTION {f}(source_row {table}) RETURNS TABLE ({columns}) LANGUAGE sql IMMUTABLE PARALLEL SAFE\n"
            "BEGIN ATOMIC SELECT {items}; END",
            f=own("place"), table=table, columns=comma(returned), items=items(canonical("(source_row)")),
        ),
    )  # fmt: skip
    yield private([own("place")])
    yield Statement(
        "where there are rows",
        fill("CREATE VIEW {v} AS SELECT {items} FROM {t} AS t", v=own("places"), items=items(row), t=table),
    )
    yield Statement(
        "group key, arguments and filters of rows, and where they stand",
        fill(
            "CREATE VIEW {v} AS SELECT o.*, {items} FROM {t} AS t, {row}(t.*) AS o",
            v=own("rows"), items=items(row), t=table, row=own("row"),
        ),
    )  # fmt: skip
