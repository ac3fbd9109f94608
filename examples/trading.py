"""A market with many traders at once: holders, today's trades, and the trades of the last 24 hours.

1. Holders are those with a balance above zero: a *grouped* aggregate with `where`, fed by the table. A change that
   crosses the threshold moves the count by one, and every other change leaves it alone, however it is written.
2. Two *counters* of today, `trades_today` and `volume_today`, under 32 traders who trade the same two tokens. Each
   transaction moves a balance, stores the trade and adds to both counters; some are rolled back. No add waits for
   another, and at the end every total is what the traders themselves have counted.
3. The last 24 hours, exact to the row: an *ordered* aggregate, asked for a range that begins 24 hours before now. A
   trade leaves the answer by getting old; nothing is reset, and no job has to run.
4. The end of the day, where the two part: the counters are reset, in the transaction that begins the new day. A trade
   that is under way meanwhile is added to the new day, though its time belongs to the last: verify tells, and a
   backfill mends it. The last 24 hours know no such edge.

Run it:

    python examples/trading.py                # on the embedded server, about 10 seconds
    python examples/trading.py --scale 0.1    # a tenth of the data and of the trading
    python examples/trading.py --dsn postgresql://user@host/database

It makes the schemas `example_trading` and `example_trading_tally`, and drops them at the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter as Numbers
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    DateTime,
    Engine,
    Identity,
    Index,
    MetaData,
    Select,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from crowd import crowd
from place import Dsn, Scale, place, told
from tallystick import Tally
from verification import Check, Step, checks, differing, show, show_steps

SCHEMA = "example_trading"
TALLY_SCHEMA = "example_trading_tally"
HOT, QUIET = MARKETS = ("TALLY", "NOTCH")
HOT_SHARE = 0.8
HOLDERS, TRADES = 5_000, 100_000
"""Addresses of each market, half of them empty, and trades of the last two days, at scale 1."""
TRADERS = 32
TURNS = 60
"""Transactions of each trader, at scale 1."""
FOLD_EVERY_S = 0.2


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Holder(Base):
    __tablename__ = "holder"

    market: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    balance: Mapped[int] = mapped_column(BigInteger)


class Trade(Base):
    __tablename__ = "trade"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    market: Mapped[str]
    seller: Mapped[str]
    buyer: Mapped[str]
    quantity: Mapped[int] = mapped_column(BigInteger)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Day(Base):
    """The day that the counters count, one row. It is no clock, so that a reset and its day are one transaction."""

    __tablename__ = "day"

    id: Mapped[int] = mapped_column(primary_key=True)
    began_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


Index("trade_by_time", Trade.market, Trade.at, Trade.id)

tally = Tally(schema=TALLY_SCHEMA)

holders = tally.grouped(
    "holders",
    select(Holder.market, func.count().label("holders"), func.sum(Holder.balance).label("supply"))
    .where(Holder.balance > 0)
    .group_by(Holder.market),
)


def of_today(measure: ColumnElement[Any]) -> Select[Any]:
    """What a counter of today should be: a key, and its total from the trades. It may ask a second table."""
    began_at = select(Day.began_at).scalar_subquery()
    return select(Trade.market, measure).where(Trade.at >= began_at).group_by(Trade.market)


# As many shards as there are traders, where all of them meet; a reader adds them up.
trades_today = tally.counter("trades_today", shards=4, shards_for={HOT: TRADERS}, direct=of_today(func.count()))
volume_today = tally.counter(
    "volume_today", shards=4, shards_for={HOT: TRADERS}, direct=of_today(func.sum(Trade.quantity))
)

trades_by_time = tally.ordered(
    "trades_by_time", Trade, namespace=[Trade.market], key=[Trade.at], sums={"volume": Trade.quantity}
)
WINDOW = timedelta(hours=24)

Readings = dict[str, tuple[str, ColumnElement[Any]]]


def last_24_hours(market: str) -> Readings:
    since = func.now() - WINDOW
    return {
        f"trades in 24 h {market}": ("ordered", trades_by_time.count(market, lower=since)),
        f"volume in 24 h {market}": ("ordered", trades_by_time.sum("volume", market, lower=since)),
    }


def readings() -> Readings:
    """Everything that is kept, by name, each with the kind of its aggregate."""
    found: Readings = {}
    for market in MARKETS:
        found[f"holders {market}"] = ("grouped", holders.value("holders", market=market))
        found[f"supply {market}"] = ("grouped", holders.value("supply", market=market))
        found[f"trades today {market}"] = ("counter", trades_today.count(market))
        found[f"volume today {market}"] = ("counter", volume_today.count(market))
        found |= last_24_hours(market)
    return found


def trade(connection: Connection, chance: random.Random, number: int) -> Numbers[str]:
    """One transaction of a trader, who sells all or some of what an address has to another, which may be new.

    What changed is told by the names of the readings; nothing, where neither address has anything.
    """
    market = HOT if chance.random() < HOT_SHARE else QUIET
    known = select(Holder.address, Holder.balance).where(Holder.market == market)
    pair = [f"address {chance.randrange(100)}", f"address {chance.randrange(100)}"]
    if chance.random() < 0.1:
        pair[1] = f"new {number} {chance.getrandbits(40)}"
    # In the order of addresses, so that traders wait for each other, and do not deadlock.
    locked = known.where(Holder.address.in_(pair)).order_by(Holder.address).with_for_update()
    balances: dict[str, int] = {row.address: row.balance for row in connection.execute(locked)}
    seller, buyer = sorted(pair, key=lambda address: balances.get(address, 0), reverse=True)
    has = balances.get(seller, 0)
    if has == 0 or seller == buyer:
        return Numbers()
    quantity = has if chance.random() < 0.5 else chance.randint(1, has)
    if buyer not in balances:
        connection.execute(insert(Holder).values(market=market, address=buyer, balance=0))
    for address, change in ((seller, -quantity), (buyer, quantity)):
        moved = update(Holder).where(Holder.market == market, Holder.address == address)
        connection.execute(moved.values(balance=Holder.balance + change))
    store_trade(connection, market, seller, buyer, quantity)
    emptied, begun = has == quantity, balances.get(buyer, 0) == 0
    return Numbers({f"holders {market}": begun - emptied, **counted(market, quantity)})


def store_trade(connection: Connection, market: str, seller: str, buyer: str, quantity: int) -> None:
    connection.execute(insert(Trade).values(market=market, seller=seller, buyer=buyer, quantity=quantity))
    connection.execute(trades_today.inc(market))
    connection.execute(volume_today.add(market, quantity))


def counted(market: str, quantity: int) -> dict[str, int]:
    """What one trade changes, by the names of the readings."""
    changes = {"trades": 1, "volume": quantity}
    return {f"{what} {window} {market}": n for window in ("today", "in 24 h") for what, n in changes.items()}


def begin_day(connection: Connection) -> None:
    """What a scheduler runs at midnight. The reset and the new day are seen together, or not at all."""
    connection.execute(update(Day).values(began_at=func.clock_timestamp()))
    for market in MARKETS:
        connection.execute(trades_today.reset(market))
        connection.execute(volume_today.reset(market))


OLD_HOLDERS = text("""
    INSERT INTO example_trading.holder (market, address, balance)
    SELECT market, 'address ' || i, i % 2 * (100 + i % 50)
    FROM unnest(cast(:markets AS text[])) AS market, generate_series(0, :holders - 1) AS i
""")
# Two busy spells: the one ended 25 hours ago, the other began 22 hours ago and lasts.
OLD_TRADES = text("""
    INSERT INTO example_trading.trade (market, seller, buyer, quantity, at)
    SELECT CASE WHEN i % 5 < 4 THEN :hot ELSE :quiet END, 'address 1', 'address 2', 1 + i % 9,
           now() - CASE WHEN i % 2 = 0 THEN interval '25 hours' ELSE interval '1 second' END
                 - i * interval '22 hours' / :trades
    FROM generate_series(1, :trades) AS i
""")


def fill(engine: Engine, *, scale: float) -> None:
    """Make a market that has been open for two days; today began ten hours ago."""
    counts = {"holders": max(round(HOLDERS * scale), 100), "trades": round(TRADES * scale)}
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(OLD_HOLDERS, {"markets": list(MARKETS), **counts})
        connection.execute(OLD_TRADES, {"hot": HOT, "quiet": QUIET, **counts})
        connection.execute(insert(Day).values(id=1, began_at=func.now() - timedelta(hours=10)))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE example_trading.holder, example_trading.trade"))


def cross_the_threshold(engine: Engine) -> list[Step]:
    """Move one balance through all that can happen to it; how the number of holders changes."""
    changes = [
        ("balance 0 to 5", 1, 5, True),
        ("balance 5 to 8", 0, 8, True),
        ("balance 8 to 0, rolled back", 0, 0, False),
        ("balance 8 to 0", -1, 0, True),
        ("balance 0 to 0", 0, 0, True),
    ]
    steps = []
    before = holders_of(engine, QUIET)
    for done, expected, balance, is_committed in changes:
        with engine.connect() as connection:
            one = update(Holder).where(Holder.market == QUIET, Holder.address == "address 0")
            connection.execute(one.values(balance=balance))
            if is_committed:
                connection.commit()
        after = holders_of(engine, QUIET)
        steps.append(Step(done, expected, after - before))
        before = after
    return steps


def get_old(engine: Engine) -> list[Step]:
    """Store a trade of a chosen age; how many more trades there are in the last 24 hours. Each is rolled back."""
    trades = select(trades_by_time.count(QUIET, lower=func.now() - WINDOW))
    ages = [
        ("a trade of this moment", 1, timedelta()),
        ("24 hours ago", 1, WINDOW),
        ("a microsecond before that", 0, WINDOW + timedelta(microseconds=1)),
    ]
    steps = []
    with engine.connect() as connection:
        for done, expected, age in ages:
            before = connection.execute(trades).scalar_one()
            # For PostgreSQL, now is when the transaction began, for the trade and for the window alike.
            one = {"market": QUIET, "seller": "a", "buyer": "b", "quantity": 1}
            connection.execute(insert(Trade).values(**one, at=func.now() - age))
            steps.append(Step(done, expected, connection.execute(trades).scalar_one() - before))
            connection.rollback()
    return steps


def holders_of(engine: Engine, market: str) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(holders.value("holders", market=market))).scalar_one())


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found.

    Attributes:
        crossings: the number of holders, by changes of one balance.
        traded: what the traders counted of their committed transactions, by the names of the readings.
        aged: trades in the last 24 hours, by the age of one more trade.
        beside, after: both halves of the readings while the traders traded, and after them.
        expected, found: the readings after the traders, by their own count, and as they are kept.
        evening, morning, first: readings at the end of the day, after the reset, and after one trade of the new day.
        verified: every group and key was verified at the end, too, and was exact.
    """

    crossings: list[Step]
    aged: list[Step]
    traded: Numbers[str]
    trading_s: float
    beside: list[Check]
    after: list[Check]
    expected: dict[str, int]
    found: dict[str, int]
    evening: list[Check]
    morning: list[Check]
    first: list[Check]
    verified: bool

    @property
    def is_exact(self) -> bool:
        every = [*self.beside, *self.after, *self.evening, *self.morning, *self.first]
        stepped = all(step.found == step.expected for step in [*self.crossings, *self.aged])
        return self.verified and stepped and self.found == self.expected and all(check.is_exact for check in every)


def run(engine: Engine, console: Console, *, scale: float = 1) -> Report:
    """The whole example, in its schemas, which exist and are empty."""
    say = partial(console.print, soft_wrap=True)
    fill(engine, scale=scale)
    tally.install(engine)
    tally.backfill(engine)

    crossings = cross_the_threshold(engine)
    say("[b]1. A balance crosses zero[/b], and the number of holders changes:")
    show_steps(console, crossings)

    before = values(checks(engine, readings()))
    beside = []
    started = time.perf_counter()
    with crowd(engine, trade, users=TRADERS, least=max(round(TURNS * scale), 1)) as traders:
        traders.end()
        while not traders.has_ended(within_s=FOLD_EVERY_S):
            tally.fold(engine)
            beside += checks(engine, readings())
        traded = traders.stop()
    trading_s = time.perf_counter() - started
    after = checks(engine, readings())
    found = values(after)
    expected = {name: before[name] + traded[name] for name in found}
    say(
        f"\n[b]2. {TRADERS} traders[/b] committed {traded['committed']:,} transactions and rolled back"
        f" {traded['rolled back']:,} in {trading_s:.1f} s. Beside them, {len(beside)} answers of both halves were"
        f" compared: {differing(beside)}. Totals by the traders' own count:"
        f" {'all equal' if found == expected else 'THEY DIFFER'}."
    )
    show(console, after)

    aged = get_old(engine)
    say("\n[b]3. A trade gets old[/b], and the number of trades in the last 24 hours changes:")
    show_steps(console, aged)

    evening = checks(engine, readings())
    with engine.begin() as connection:
        begin_day(connection)
    morning = checks(engine, readings())
    with engine.begin() as connection:
        store_trade(connection, HOT, "address 1", "address 2", 7)
    first = checks(engine, readings())
    say("\n[b]4. A new day begins[/b]:")
    show_days(console, evening, morning, first)
    verified = all(report.is_exact for report in tally.verify(engine))
    return Report(crossings, aged, traded, trading_s, beside, after, expected, found, evening, morning, first, verified)


def values(found: list[Check]) -> dict[str, int]:
    return {check.name: int(check.actual) for check in found}


def show_days(console: Console, *days: list[Check]) -> None:
    table = Table("reading")
    for heading in ("in the evening", "after the reset", "after a trade"):
        table.add_column(heading, justify="right")
    for of_one in zip(*days, strict=True):
        if HOT in of_one[0].name:
            table.add_row(of_one[0].name, *(f"{check.actual:,}" for check in of_one))
    console.print(table)


def main(scale: Scale = 1, dsn: Dsn = None) -> None:
    """Count holders and trades beside 32 traders, and lay each answer beside the direct one."""
    with told(), place(dsn, SCHEMA, TALLY_SCHEMA, connections=TRADERS + 2) as engine:
        report = run(engine, Console(highlight=False), scale=scale)
    raise typer.Exit(0 if report.is_exact else 1)


if __name__ == "__main__":
    typer.run(main)
