"""What the fixtures were made with: an installation of some layout, by the code of its time.

Run it with that code on the path and the URL of an empty database, and dump the database (see tests/upgrade/README.md).
It calls what every version of the package has, and asks before it uses what later ones brought.
"""

import sys

import psycopg
from sqlalchemy import BigInteger, Column, Integer, MetaData, Numeric, Table, Text, create_engine, func, select
from sqlalchemy.pool import NullPool

from tallystick import Tally

SOURCE = """
CREATE TABLE shop (id integer PRIMARY KEY, orders bigint, total numeric);
CREATE TABLE sale (
    id bigint PRIMARY KEY, shop integer REFERENCES shop, item text, size integer, price numeric, rate real
);
INSERT INTO shop SELECT i FROM generate_series(1, 6) AS s (i);
INSERT INTO sale
SELECT i, nullif(i % 7, 0), 'item ' || i % 5, i % 11, i * 0.25, i * 0.1 FROM generate_series(1, 200) AS s (i);
"""
FOLDED = """
INSERT INTO sale SELECT i, i % 6 + 1, 'new', 50, 1.50, 0.3 FROM generate_series(201, 230) AS s (i);
DELETE FROM sale WHERE size = 10;
"""
UNFOLDED = """
INSERT INTO sale SELECT i, i % 3 + 1, 'late', 60 + i % 2, 2.5, 1e-3 FROM generate_series(231, 250) AS s (i);
UPDATE sale SET shop = 5, price = price + 1 WHERE id % 10 = 3;
DELETE FROM sale WHERE size = 0 OR size = 50;
"""
DEPENDENT = "CREATE VIEW report AS SELECT shop, n, total FROM tally.by_shop WHERE n > 1"
COUNTED = "SELECT tally.counter_add('visits', k, n) FROM (VALUES ('a', 3), ('b', 4), ('a', 5)) AS v (k, n)"

metadata = MetaData()
shop = Table(
    "shop", metadata,
    Column("id", Integer, primary_key=True), Column("orders", BigInteger), Column("total", Numeric),
)  # fmt: skip
sale = Table(
    "sale", metadata,
    Column("id", BigInteger, primary_key=True), Column("shop", Integer), Column("item", Text),
    Column("size", Integer), Column("price", Numeric),
)  # fmt: skip


def declared(*, counters: bool, orders: bool) -> Tally:
    """Grouped aggregates, also counters, also a mirror and an ordered aggregate."""
    tally = Tally()
    tally.grouped(
        "by_shop",
        "SELECT shop, count(*) AS n, sum(price) AS total, min(size) AS least, max(size) AS most,"
        " count(DISTINCT item) AS items FROM sale WHERE size > 1 GROUP BY shop",
    )
    tally.grouped(
        "by_item", "SELECT item, count(*) AS n, avg(price) AS mean, sum(rate) AS rates FROM sale GROUP BY item"
    )
    tally.grouped("totals", "SELECT count(*) AS n, sum(size) AS size FROM sale")
    if counters:
        tally.counter("visits", shards=4)
        tally.counter("sales", direct=select(func.count()).select_from(sale))
    if orders:
        copied = select(sale.c.shop, func.count().label("orders"), func.sum(sale.c.price).label("total"))
        tally.grouped("copied", copied.group_by(sale.c.shop), mirror={"orders": shop.c.orders, "total": shop.c.total})
        tally.ordered("by_price", sale, namespace=[sale.c.shop], key=[sale.c.price.desc()], sums={"size": sale.c.size})
    return tally


def main(url: str) -> None:
    engine = create_engine(url, poolclass=NullPool)
    tally = declared(counters=hasattr(Tally, "counter"), orders=hasattr(Tally, "ordered"))
    with psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute(SOURCE)
        tally.install(engine)
        tally.backfill(engine)
        connection.execute(FOLDED)
        tally.fold(engine)
        connection.execute(UNFOLDED)
        connection.execute(DEPENDENT)
        if hasattr(tally, "counters"):
            connection.execute(COUNTED)


if __name__ == "__main__":
    main(sys.argv[1])
