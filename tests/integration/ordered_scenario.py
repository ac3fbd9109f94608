"""Ordered aggregates over the tables of the scenarios, and what their tests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

from sqlalchemy import URL, BigInteger, Column, Integer, MetaData, Numeric, Table, Text

from tallystick import Tally
from tests.conftest import Connect
from tests.integration import scenario
from tests.integration.scenario import Stage
from tests.order_oracle import OrderOracle, small_buckets
from tests.servers import Server

ITEM = Table(
    "item", MetaData(),
    Column("id", BigInteger, primary_key=True), Column("place", Integer), Column("kind", Text), Column("size", Integer),
    Column("price", Numeric), Column("twice", Integer), schema="public",
)  # fmt: skip
# By an index rows may come in another order, and so get other numbers: without us there are the same indexes.
INDEXES: LiteralString = """
DO $$ DECLARE definition text; BEGIN
    FOR definition IN SELECT replace(pg_get_indexdef(indexrelid), 'public.', 'plain.') FROM pg_index
        WHERE indrelid = 'public.item'::regclass AND NOT indisprimary
    LOOP EXECUTE definition; END LOOP;
END $$
"""


def declared() -> Tally:
    """By a namespace and a key with ties and NULLs; two directions and a condition; by primary key alone."""
    tally, item = Tally(), ITEM.c
    tally.ordered("by_size", ITEM, namespace=[item.place], key=[item.size], sums={"price": item.price})
    tally.ordered(
        "priced", ITEM, namespace=[item.kind], key=[item.price.desc(), (item.twice % 4).label("rest")],
        sums={"size": item.size, "twice": item.twice}, where=item.size > 1,
    )  # fmt: skip
    tally.ordered("by_id", ITEM, sums={"size": item.size})
    return tally


def template(server: Server) -> str:
    """Name of a template database with the tables, and the aggregates serving, in three levels of buckets."""
    with small_buckets():
        return scenario.template(server, "written in order", declared, INDEXES)


@contextmanager
def stage(connect: Connect, database: URL, *, fold_every: int) -> Iterator[Stage]:
    with scenario.stage(connect, database, fold_every=fold_every, declare=declared, ask=OrderOracle) as stage:
        yield stage
