"""The oracle: kept equals direct, row for row, both ways with EXCEPT ALL, each aggregate in one snapshot.

It shares nothing with `tally verify`, and takes the declared text itself as the direct half wherever that is defined
to the last digit: sums of floating point depend on the order of rows, so for those the direct view is the definition.
"""

from dataclasses import dataclass, field
from typing import cast

from psycopg import sql
from sqlalchemy import Engine

from tallystick import Grouped, Tally
from tallystick.declare.names import internal_name
from tests.servers import Connection

ONE_WAY = sql.SQL(
    "SELECT {title} AS difference, d::text AS found"
    " FROM (SELECT {columns} FROM {left} EXCEPT ALL SELECT {columns} FROM {right}) AS d WHERE {applies}"
)
# Of a partitioned source the kept half may lack a partition; then readers are served the other one, which is compared.
IS_KEPT = sql.SQL(
    "EXISTS (SELECT FROM {table} JOIN pg_class AS c ON c.oid = source WHERE name = {name} AND phase = 'kept'"
    " AND relkind = 'r')"
)
HAS_FLOAT_SUMS = "SELECT strpos(pg_get_viewdef(%s::regclass), 'shortest(') > 0"

Difference = tuple[str, str]  # what was compared, and a row that one side has and the other has not


def differences(connection: Connection, tally: Tally) -> list[Difference]:
    """Rows by which halves differ, in the caller's transaction; each aggregate is compared in one statement."""
    found: list[Difference] = []
    for aggregate in tally:
        found += connection.execute(_comparison(connection, aggregate)).fetchall()
    return found


def assert_exact(engine: Engine, tally: Tally) -> None:
    """Every installed aggregate of the registry is exact, as seen in a transaction of our own."""
    with engine.connect() as borrowed:
        connection = cast(Connection, borrowed.connection.driver_connection)
        found = differences(connection, tally)
        assert not found, told(found)


def told(found: list[Difference]) -> str:
    """The first differences, one a line, for a failed test."""
    return "\n".join(f"{what} {row[:500]}" for what, row in found[:6])


@dataclass
class Oracle:
    """The same over one connection again and again: the statements are prepared."""

    connection: Connection
    tally: Tally
    _prepared: list[sql.Composed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.prepare_threshold = None  # else psycopg drops prepared statements at each ROLLBACK
        for number, aggregate in enumerate(self.tally):
            name = sql.Identifier(f"oracle{number}")
            comparison = _comparison(self.connection, aggregate)
            self.connection.execute(sql.SQL("PREPARE {} AS {}").format(name, comparison))
            self._prepared.append(sql.SQL("EXECUTE {}").format(name))

    def differences(self) -> list[Difference]:
        return [row for each in self._prepared for row in self.connection.execute(each).fetchall()]


def _comparison(connection: Connection, aggregate: Grouped) -> sql.Composed:
    def half(suffix: str) -> sql.Identifier:
        return sql.Identifier(aggregate.schema, internal_name(aggregate.name, suffix))

    view, kept, direct = sql.Identifier(aggregate.schema, aggregate.name), half("kept"), half("direct")
    always: sql.Composable = sql.SQL("true")
    is_kept = IS_KEPT.format(table=sql.Identifier(aggregate.schema, "aggregate"), name=sql.Literal(aggregate.name))
    compared: list[tuple[str, sql.Composable, sql.Composable, sql.Composable]] = [
        ("view", view, direct, always),
        ("kept", kept, direct, is_kept),
    ]
    row = connection.execute(HAS_FLOAT_SUMS, [direct.as_string()]).fetchone()
    assert row is not None
    if not row[0]:
        declared = sql.SQL("({}) AS declared").format(sql.SQL(aggregate.definition))
        compared.append(("direct", direct, declared, always))
    columns = sql.SQL(", ").join(map(sql.Identifier, aggregate.shape.columns))
    ways: list[sql.Composable] = []
    for what, one, other, applies in compared:
        for title, left, right in ((f"{what} has", one, other), (f"{what} lacks", other, one)):
            named = sql.Literal(f"{aggregate.name}: {title}")
            ways.append(ONE_WAY.format(title=named, columns=columns, left=left, right=right, applies=applies))
    return sql.SQL("\nUNION ALL ").join(ways)
