"""examples/trading.py on little data: totals are counted here as well, from the rows and from what was committed."""

from collections import Counter as Numbers
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

import trading
from place import own_schemas
from tallystick import direct_of
from verification import Step, checks

SCALE = 0.02


@pytest.fixture
def schemas(engine: Engine) -> Iterator[None]:
    with own_schemas(engine, trading.SCHEMA, trading.TALLY_SCHEMA):
        yield


@pytest.fixture
def market(engine: Engine, schemas: None) -> None:
    """A market that is open, and kept."""
    trading.fill(engine, scale=SCALE)
    trading.tally.install(engine)
    trading.tally.backfill(engine)


def test_every_total_is_exact_after_32_traders(engine: Engine, schemas: None) -> None:
    report = trading.run(engine, Console(quiet=True), scale=SCALE)
    assert report.is_exact
    assert report.traded["committed"] >= trading.TRADERS
    assert [step.found for step in report.crossings] == [1, 0, 0, -1, 0]

    with Session(engine) as session:
        balances = session.execute(select(trading.Holder.market, trading.Holder.balance)).all()
        trades = session.execute(select(trading.Trade.market, trading.Trade.quantity).order_by(trading.Trade.id)).all()
    rows, volume = Numbers[str](), Numbers[str]()
    for market, quantity in trades[round(trading.TRADES * SCALE) : -1]:  # the last is of the new day
        rows[market] += 1
        volume[market] += quantity
    for market in trading.MARKETS:
        assert report.found[f"holders {market}"] == sum(of == market and balance > 0 for of, balance in balances)
        assert report.found[f"supply {market}"] == sum(balance for of, balance in balances if of == market)
        assert report.traded[f"trades today {market}"] == rows[market]
        assert report.traded[f"volume today {market}"] == volume[market]

        assert report.traded[f"trades in 24 h {market}"] == rows[market]
        assert report.traded[f"volume in 24 h {market}"] == volume[market]
    assert [step.found for step in report.aged] == [1, 1, 0]

    ends = {check.name: [check.actual] for check in report.evening}
    for check in [*report.morning, *report.first]:
        ends[check.name].append(check.actual)
    assert ends["trades today TALLY"][1:] == [0, 1]
    assert ends["volume today TALLY"][1:] == [0, 7]
    assert ends["trades today NOTCH"][1:] == [0, 0]
    before_night = report.found["trades in 24 h TALLY"]
    assert ends["trades in 24 h TALLY"] == [before_night, before_night, before_night + 1]
    assert ends["trades today TALLY"][0] == report.found["trades today TALLY"] > 0


def test_traders_change_every_total_but_the_supply(engine: Engine, schemas: None) -> None:
    report = trading.run(engine, Console(quiet=True), scale=0.1)
    assert report.is_exact
    assert report.traded["rolled back"] > 0
    for market in trading.MARKETS:
        assert report.traded[f"trades today {market}"] > 0
        assert report.traded[f"supply {market}"] == 0
        assert len({check.actual for check in report.beside if check.name == f"supply {market}"}) == 1


def test_a_report_of_a_difference_is_not_exact(engine: Engine, schemas: None) -> None:
    report = trading.run(engine, Console(quiet=True), scale=0.001)
    assert report.is_exact
    assert not replace(report, verified=False).is_exact
    assert not replace(report, found={**report.found, "holders TALLY": -1}).is_exact
    assert not replace(report, crossings=[Step("a step", 1, 0)]).is_exact
    odd = [replace(check, direct=check.direct + 1) for check in report.after]
    assert not replace(report, beside=odd).is_exact
    assert not replace(report, after=odd).is_exact
    assert not replace(report, evening=odd).is_exact
    assert not replace(report, morning=odd).is_exact
    assert not replace(report, first=odd).is_exact


def test_a_trade_under_way_while_the_day_ends(engine: Engine, market: None) -> None:
    """The edge of a counter that is reset: it drifts by that trade, and a backfill mends it."""
    with engine.connect() as trader, engine.begin() as midnight:
        trading.store_trade(trader, trading.HOT, "address 1", "address 2", 3)
        trading.begin_day(midnight)
        midnight.commit()
        trader.commit()
    readings = {name: read for name, read in trading.readings().items() if name.endswith(f"today {trading.HOT}")}
    assert [(check.actual, check.direct) for check in checks(engine, readings)] == [(1, 0), (3, 0)]
    drifting = [report.aggregate for report in trading.tally.verify(engine) if not report.is_exact]
    assert drifting == ["trades_today", "volume_today"]
    trading.tally.backfill(engine, only=["trades_today", "volume_today"], force=True)
    assert [(check.actual, check.direct) for check in checks(engine, readings)] == [(0, 0), (0, 0)]
    assert all(report.is_exact for report in trading.tally.verify(engine))


def test_the_last_24_hours_are_those_of_the_rows(engine: Engine, market: None) -> None:
    readings = {name: read for of in trading.MARKETS for name, (_, read) in trading.last_24_hours(of).items()}
    trades = select(trading.Trade.market, trading.Trade.quantity, trading.Trade.at)
    with engine.connect() as connection:
        found = dict(zip(readings, connection.execute(select(*readings.values())).one(), strict=True))
        direct = connection.execute(select(*map(direct_of, readings.values()))).one()
        now = connection.execute(select(func.now())).scalar_one()
        rows = connection.execute(trades).all()
    assert tuple(found.values()) == tuple(direct)
    for of in trading.MARKETS:
        recent = [row.quantity for row in rows if row.market == of and row.at >= now - trading.WINDOW]
        assert (found[f"trades in 24 h {of}"], found[f"volume in 24 h {of}"]) == (len(recent), sum(recent))
        assert 0 < len(recent) < sum(row.market == of for row in rows)
