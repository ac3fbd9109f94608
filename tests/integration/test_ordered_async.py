"""Reads of ordered aggregates over async engines and sessions, alone and as parts of larger queries."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from sqlalchemy import URL, BigInteger, Engine, ForeignKey, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.pool import NullPool

from tallystick import Bound, Tally, direct_of

tally = Tally()


class Base(DeclarativeBase):
    """Mapped classes of this module."""


class Score(Base):
    __tablename__ = "score"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    player_id: Mapped[int] = mapped_column(ForeignKey("player.id"))
    points: Mapped[int]


by_points = tally.ordered(
    "by_points", Score, namespace=[Score.player_id], key=[Score.points], sums={"points_total": Score.points}
)


class Player(Base):
    __tablename__ = "player"

    number: Mapped[int] = mapped_column("id", primary_key=True)
    aim: Mapped[int] = mapped_column()
    reached: Mapped[int] = column_property(by_points.count(number, lower=aim))


Run = Callable[[AsyncSession], Coroutine[Any, Any, Any]]


@pytest.fixture(params=["building", "kept", "unfolded"])
def scores(engine: Engine, database: URL, request: pytest.FixtureRequest) -> URL:
    """Three players with 30, 20 and no scores, in each of the states that answer differently."""
    Base.metadata.create_all(engine)
    tally.install(engine)
    if request.param != "building":
        tally.backfill(engine)
    with engine.begin() as connection:
        connection.execute(insert(Player), [{"number": n, "aim": 10 * n} for n in (1, 2, 3)])
        connection.execute(
            insert(Score),
            [
                {"id": 100 * player + n, "player_id": player, "points": n}
                for player, size in ((1, 30), (2, 20))
                for n in range(size)
            ],
        )
    if request.param == "kept":
        tally.fold(engine)
    return database


def over_session(url: URL, run: Run) -> Any:
    async def go() -> Any:
        engine = create_async_engine(url, poolclass=NullPool)
        async with AsyncSession(engine) as session:
            found = await run(session)
        await engine.dispose()
        return found

    return asyncio.run(go())


def test_values_and_rows(scores: URL) -> None:
    async def run(session: AsyncSession) -> None:
        values = select(
            by_points.count(1), by_points.count(1, lower=10, upper=20, bounds="[)"), by_points.sum("points_total", 2),
            by_points.rank(1, key=7, order="desc"), by_points.rank_of(205), by_points.count(9),
        )  # fmt: skip
        rows = [
            by_points.at(1, offset=-1), by_points.min(2, lower=Bound(5, 205)), by_points.percentile(1, p=0.5),
            by_points.page(3, limit=2), by_points.count_many([{"namespace": 2}, {"namespace": 1, "lower": 29}]),
        ]  # fmt: skip
        for is_direct in (False, True):
            asked = [direct_of(read) if is_direct else read for read in (values, *rows)]
            first, *found = [[tuple(row) for row in await session.execute(read)] for read in asked]
            assert first == [(30, 10, 190, 22, 5, 0)]
            assert found == [[(1, 29, 129, 29)], [(2, 5, 205, 5)], [(1, 14, 114, 14)], [], [(0, 20), (1, 1)]]

    over_session(scores, run)


def test_pages_are_read_one_after_the_other(scores: URL) -> None:
    async def run(session: AsyncSession) -> list[int]:
        found: list[int] = []
        cursor = None
        while page := (await session.execute(by_points.page(1, after=cursor, limit=7, order="desc"))).all():
            found += [row.points for row in page]
            cursor = page[-1].cursor
        return found

    assert over_session(scores, run) == list(range(29, -1, -1))


def test_column_property(scores: URL) -> None:
    async def run(session: AsyncSession) -> list[tuple[int, int]]:
        players = (await session.scalars(select(Player).order_by(Player.number))).all()
        return [(player.number, player.reached) for player in players]

    assert over_session(scores, run) == [(1, 20), (2, 0), (3, 0)]


def test_in_select_where_and_order_by(scores: URL) -> None:
    count = by_points.count(Player.number)
    total = by_points.sum("points_total", Player.number, lower=Player.aim - 5)
    queries: dict[str, tuple[Any, list[tuple[Any, ...]]]] = {
        "select": (select(Player.number, count, total).order_by(Player.number), [(1, 30, 425), (2, 20, 85), (3, 0, 0)]),
        "where": (select(Player.number).where(by_points.count(Player.number, lower=Player.aim) > 0), [(1,)]),
        "order by": (select(Player.number).order_by(count, Player.number), [(3,), (2,), (1,)]),
        "rank within a join": (
            select(Score.id, by_points.rank(Score.player_id, key=Score.points, pk=Score.id))
            .join(Player, Player.number == Score.player_id)
            .where(Score.points == Player.aim),
            [(110, 10)],
        ),
    }

    async def run(session: AsyncSession) -> None:
        for name, (query, expected) in queries.items():
            for read in (query, direct_of(query)):
                assert [tuple(row) for row in await session.execute(read)] == expected, name

    over_session(scores, run)


def test_uncommitted_writes_are_read_in_their_own_session(scores: URL) -> None:
    async def run(session: AsyncSession) -> None:
        session.add(Score(id=999, player_id=3, points=50))
        await session.flush()
        assert await session.scalar(select(by_points.count(3))) == 1
        async with AsyncSession(create_async_engine(scores, poolclass=NullPool)) as other:
            assert await other.scalar(select(by_points.count(3))) == 0
        await session.rollback()
        assert await session.scalar(select(by_points.count(3))) == 0

    over_session(scores, run)
