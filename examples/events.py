"""An events application: each user's statistics, and a leaderboard with places, pages and percentiles.

1. Statistics of a user in one statement: captures of the last 7 days, upcoming events and their minutes, all events,
   follows. Each is a range of an *ordered* aggregate, with one order for each user; time goes on without a write. The
   user has 1,000 events and 500 follows, which an index counts a little faster: what is kept pays with more rows, as
   on the leaderboard below. Upcoming *followed* events need a join, which is not kept yet: left out.
2. An event is captured, moved, deleted: what is upcoming changes with each committed UPDATE, and with no other.
3. A leaderboard: an *ordered* aggregate by points, descending, then by who had them first. The place of a player, who
   is at a place, pages, and the points at percentiles. Between two pages somebody new takes the first place; the
   second page goes on behind the last player of the first, and repeats nobody.
4. Eight users at once; both halves of all answers are compared, and totals with what the users have counted.

Run it:

    python examples/events.py                # on the embedded server, about 12 seconds
    python examples/events.py --scale 0.1    # a tenth of the users, players and work
    python examples/events.py --dsn postgresql://user@host/database

It makes the schemas `example_events` and `example_events_tally`, and drops them at the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter as Numbers
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from statistics import median
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
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as insert_or
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from crowd import crowd
from place import Dsn, Scale, place, told
from tallystick import Tally, direct_of
from verification import Check, Step, checks, differing, show, show_steps

SCHEMA = "example_events"
TALLY_SCHEMA = "example_events_tally"
USERS, PLAYERS = 200, 100_000
"""At scale 1."""
EVENTS, FOLLOWS = 1_000, 500
"""Of each user, at any scale; of 50 events one is deleted."""
USER, NEWCOMER, SEASON = 1, 0, 2026
PAGE = 5
ONLINE = 8
TURNS = 100
"""Transactions of each user, at scale 1."""
FOLD_EVERY_S = 0.2
WARM_ROUNDS, TIMED_ROUNDS = 11, 51
"""An application's connections have asked before: from the eleventh time on, no statement is planned any more."""


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Event(Base):
    __tablename__ = "event"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    start_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    minutes: Mapped[int]
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Follow(Base):
    __tablename__ = "follow"

    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    event_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)


class Score(Base):
    __tablename__ = "score"

    season: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    points: Mapped[int]
    reached_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


IS_THERE = Event.deleted_at.is_(None)

# What the ordered aggregates walk along; install builds those that are not there. For follows, the primary key serves.
Index("event_by_start", Event.user_id, Event.start_at, Event.id, postgresql_where=IS_THERE)
Index("event_by_creation", Event.user_id, Event.created_at, Event.id, postgresql_where=IS_THERE)
Index("score_by_points", Score.season, Score.points.desc(), Score.reached_at, Score.user_id)

tally = Tally(schema=TALLY_SCHEMA)
events_by_start = tally.ordered(
    "events_by_start",
    Event,
    namespace=[Event.user_id],
    key=[Event.start_at],
    sums={"minutes": Event.minutes},
    where=IS_THERE,
)
events_by_creation = tally.ordered(
    "events_by_creation", Event, namespace=[Event.user_id], key=[Event.created_at], where=IS_THERE
)
follows = tally.ordered("follows", Follow, namespace=[Follow.user_id])
board = tally.ordered("board", Score, namespace=[Score.season], key=[Score.points.desc(), Score.reached_at])


def statistics_of(user_id: int) -> dict[str, ColumnElement[Any]]:
    now = func.now()
    return {
        "captures in 7 days": events_by_creation.count(user_id, lower=now - timedelta(days=7), upper=now),
        "upcoming": events_by_start.count(user_id, lower=now),
        "minutes upcoming": events_by_start.sum("minutes", user_id, lower=now),
        "all time": events_by_start.count(user_id),
        "follows": follows.count(user_id),
    }


def user_statistics(user_id: int) -> Select[Any]:
    """One row, one statement, one snapshot."""
    return select(*(value.label(name) for name, value in statistics_of(user_id).items()))


def standing_of(user_id: int) -> dict[str, ColumnElement[Any]]:
    """A player's place, from 1, and what it takes to be among the best."""

    def best(share: float) -> ColumnElement[Any]:
        return select(board.percentile(SEASON, p=share).subquery().c.points).scalar_subquery()

    return {
        "place": board.rank_of((SEASON, user_id)) + 1,
        "players": board.count(SEASON),
        "points of the best 1 %": best(0.01),
        "points of the best 10 %": best(0.1),
        "points of the median": best(0.5),
    }


def readings() -> dict[str, tuple[str, ColumnElement[Any]]]:
    """What is compared beside the users at work, by name, each with the kind of its aggregate."""
    return {name: ("ordered", value) for name, value in (statistics_of(USER) | standing_of(USER)).items()}


# What the application does. Each function is a step of a transaction of its caller's.


def capture(connection: Connection, user_id: int, starts_in: timedelta) -> int:
    """Store an event; its id."""
    stored = insert(Event).values(user_id=user_id, start_at=func.now() + starts_in, minutes=90)
    return connection.scalars(stored.returning(Event.id)).one()


def move(connection: Connection, event_id: int, starts_in: timedelta) -> None:
    connection.execute(update(Event).where(Event.id == event_id).values(start_at=func.now() + starts_in))


def mark_deleted(connection: Connection, event_id: int) -> bool:
    """Whether the event was there."""
    one = update(Event).where(Event.id == event_id, IS_THERE).values(deleted_at=func.now())
    return connection.scalar(one.returning(Event.id)) is not None


def score(connection: Connection, user_id: int, points: int) -> None:
    """Give a player points, who is new or not."""
    stored = insert_or(Score).values(season=SEASON, user_id=user_id, points=points)
    more = {"points": Score.points + stored.excluded.points, "reached_at": func.now()}
    connection.execute(stored.on_conflict_do_update(index_elements=[Score.season, Score.user_id], set_=more))


def be_online(connection: Connection, chance: random.Random, number: int) -> Numbers[str]:
    """One transaction: for one user's events and follows, or for the points of the player of that number.

    What changed is told by the names of the readings.
    """
    kind = chance.random()
    if kind < 0.3:
        capture(connection, USER, timedelta(minutes=chance.randint(-1000, 1000)))
        return Numbers({"all time": 1})
    if kind < 0.6:
        offset = chance.randrange(100)
        found = connection.execute(events_by_start.at(USER, offset=offset)).one()
        if kind < 0.45:
            move(connection, found.id, timedelta(minutes=chance.randint(1, 1000)))
            return Numbers()
        return Numbers({"all time": -1 if mark_deleted(connection, found.id) else 0})
    if kind < 0.8:
        score(connection, number + 1, chance.randint(1, 500))
        return Numbers()
    if kind < 0.9:
        one = insert_or(Follow).values(user_id=USER, event_id=-chance.randint(1, 1_000_000))
        followed = one.on_conflict_do_nothing().returning(Follow.event_id)
        return Numbers({"follows": 0 if connection.scalar(followed) is None else 1})
    one_of_them = connection.execute(follows.random(USER)).one()
    gone = delete(Follow).where(Follow.user_id == USER, Follow.event_id == one_of_them.event_id)
    return Numbers({"follows": 0 if connection.scalar(gone.returning(Follow.event_id)) is None else -1})


OLD_EVENTS = text("""
    INSERT INTO example_events.event (user_id, created_at, start_at, minutes, deleted_at)
    SELECT u, now() - n * interval '1 hour', now() + (n - 500) * interval '1 hour', 30 + (u * 31 + n * 17) % 120,
           CASE WHEN n % 50 = 0 THEN now() END
    FROM generate_series(1, :users) AS u CROSS JOIN generate_series(1, :events) AS n
""")
OLD_FOLLOWS = text("""
    INSERT INTO example_events.follow (user_id, event_id)
    SELECT u, 1 + (u * 13 + n * 7) % (cast(:users AS bigint) * :events)
    FROM generate_series(1, :users) AS u CROSS JOIN generate_series(1, :follows) AS n
""")
# The first hundred are better than the others. Many have the same points, some since the same moment.
OLD_SCORES = text("""
    INSERT INTO example_events.score (season, user_id, points, reached_at)
    SELECT s, i, CASE WHEN i <= 100 THEN 2000 ELSE 0 END + i % 101 * 37 % 101 * 10, now() - i % 5 * interval '1 hour'
    FROM generate_series(:season - 1, :season) AS s CROSS JOIN generate_series(1, :players) AS i
""")


def fill(engine: Engine, *, scale: float) -> None:
    """Make the data of an application that has been running for a while."""
    users, players = max(round(USERS * scale), 2), max(round(PLAYERS * scale), 200)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(OLD_EVENTS, {"users": users, "events": EVENTS})
        connection.execute(OLD_FOLLOWS, {"users": users, "events": EVENTS, "follows": FOLLOWS})
        connection.execute(OLD_SCORES, {"players": players, "season": SEASON})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE example_events.event, example_events.follow, example_events.score"))


def live_an_event(engine: Engine) -> list[Step]:
    """Take an event through all that can happen to it; how the number of upcoming ones changes."""
    steps: list[Step] = []

    def step(done: str, expected: int, change: Callable[[Connection], Any], *, is_committed: bool = True) -> Any:
        before = row(engine, user_statistics(USER))["upcoming"]
        with engine.connect() as connection:
            found = change(connection)
            if is_committed:
                connection.commit()
        steps.append(Step(done, expected, row(engine, user_statistics(USER))["upcoming"] - before))
        return found

    day = timedelta(days=1)
    event_id = step("captured for tomorrow", 1, lambda connection: capture(connection, USER, day))
    step("moved to yesterday", -1, lambda connection: move(connection, event_id, -day))
    step("moved to tomorrow, rolled back", 0, lambda connection: move(connection, event_id, day), is_committed=False)
    step("moved to tomorrow", 1, lambda connection: move(connection, event_id, day))
    step("marked as deleted", -1, lambda connection: mark_deleted(connection, event_id))
    step("moved, though deleted", 0, lambda connection: move(connection, event_id, 2 * day))
    return steps


def two_pages(engine: Engine) -> list[Any]:
    """Players of the first two pages, though somebody takes the first place between them."""
    with engine.connect() as connection:
        first = list(connection.execute(board.page(SEASON, limit=PAGE)))
        score(connection, NEWCOMER, 1_000_000)
        connection.commit()
        return [*first, *connection.execute(board.page(SEASON, limit=PAGE, after=first[-1].cursor))]


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found.

    Attributes:
        statistics, standing: of the user, by name, kept; `direct` has both, counted.
        kept_ms, direct_ms: medians of the statistics of the user.
        lived: the number of upcoming events, by what happened to one.
        best, paged: the first players before somebody took the first place, by the source, and by two pages.
        newcomer: who is at the first place afterwards.
        worked: what the users counted of their committed transactions, by the names of the readings.
        beside, after: both halves of the readings while the users worked, and after them.
        expected, found: readings after them by their own count, and as they are kept.
        verified: every item was verified at the end, too, and was exact.
    """

    statistics: dict[str, int]
    standing: dict[str, int]
    direct: dict[str, int]
    kept_ms: float
    direct_ms: float
    lived: list[Step]
    best: list[int]
    paged: list[int]
    newcomer: int
    worked: Numbers[str]
    beside: list[Check]
    after: list[Check]
    expected: dict[str, int]
    found: dict[str, int]
    verified: bool

    @property
    def is_exact(self) -> bool:
        same = self.statistics | self.standing == self.direct and self.found == self.expected
        ordered = self.paged == self.best and self.newcomer == NEWCOMER
        compared = all(check.is_exact for check in [*self.beside, *self.after])
        return self.verified and same and ordered and compared and all(s.found == s.expected for s in self.lived)


def run(engine: Engine, console: Console, *, scale: float = 1) -> Report:
    """The whole example, in its schemas, which exist and are empty."""
    say = partial(console.print, soft_wrap=True)
    fill(engine, scale=scale)
    tally.install(engine)
    tally.backfill(engine)

    first = checks(engine, readings())
    kept = {check.name: int(check.actual) for check in first}
    direct = {check.name: int(check.direct) for check in first}
    statistics, standing = ({name: kept[name] for name in part(USER)} for part in (statistics_of, standing_of))
    kept_ms = median_ms(engine, user_statistics(USER))
    direct_ms = median_ms(engine, direct_of(user_statistics(USER)))
    say(
        f"[b]1. All statistics[/b] of a user with {EVENTS:,} events and {FOLLOWS:,} follows, in one statement:"
        f" {kept_ms:.2f} ms, counted {direct_ms:.2f} ms (medians of {TIMED_ROUNDS})."
    )
    show_row(console, statistics)

    lived = live_an_event(engine)
    say("\n[b]2. An event is captured, moved and deleted[/b], and the number of upcoming events changes:")
    show_steps(console, lived)

    with engine.connect() as connection:
        best = [each.user_id for each in connection.execute(board.direct.page(SEASON, limit=2 * PAGE))]
    pages = two_pages(engine)
    paged = [each.user_id for each in pages]
    with engine.connect() as connection:
        newcomer: int = connection.execute(board.at(SEASON, offset=0)).one().user_id
    place = select(*standing_of(USER).values())
    place_ms, place_direct_ms = median_ms(engine, place), median_ms(engine, direct_of(place))
    say(
        f"\n[b]3. The place of a player[/b] and points at percentiles, in one statement: {place_ms:.2f} ms,"
        f" counted {place_direct_ms:.2f} ms."
    )
    show_row(console, standing)
    say(
        f"Two pages of the leaderboard, between which somebody else took the first place:"
        f" {'those who were first before' if paged == best else 'THEY DIFFER'}."
    )
    show_pages(console, pages)

    before = values(checks(engine, readings()))
    beside = []
    started = time.perf_counter()
    with crowd(engine, be_online, users=ONLINE, least=max(round(TURNS * scale), 1)) as online:
        online.end()
        are_working = True
        while are_working:
            tally.fold(engine)
            beside += checks(engine, readings())
            are_working = not online.has_ended(within_s=FOLD_EVERY_S)
        worked = online.stop()
    took_s = time.perf_counter() - started
    after = checks(engine, readings())
    found = {name: values(after)[name] for name in ("all time", "follows")}
    expected = {name: before[name] + worked[name] for name in found}
    say(
        f"\n[b]4. {ONLINE} users at once[/b] committed {worked['committed']:,} transactions and rolled back"
        f" {worked['rolled back']:,} in {took_s:.1f} s. Beside them, {len(beside)} answers of both halves were"
        f" compared: {differing(beside)}. Totals by the users' own count:"
        f" {'all equal' if found == expected else 'THEY DIFFER'}."
    )
    show(console, after)
    verified = all(report.is_exact for report in tally.verify(engine))
    return Report(
        statistics, standing, direct, kept_ms, direct_ms, lived, best, paged, newcomer, worked, beside, after, expected,
        found, verified,
    )  # fmt: skip


def row(engine: Engine, read: Select[Any]) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(connection.execute(read).mappings().one())


def values(found: list[Check]) -> dict[str, int]:
    return {check.name: int(check.actual) for check in found}


def median_ms(engine: Engine, read: Select[Any]) -> float:
    times = []
    with engine.connect() as connection:
        for _ in range(WARM_ROUNDS + TIMED_ROUNDS):
            started = time.perf_counter()
            connection.execute(read).one()
            times.append((time.perf_counter() - started) * 1000)
    return median(times[WARM_ROUNDS:])


def show_row(console: Console, numbers: dict[str, int]) -> None:
    table = Table()
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_row(*(f"{number:,}" for number in numbers.values()))
    console.print(table)


def show_pages(console: Console, players: list[Any]) -> None:
    table = Table()
    for heading in ("page", "user", "points"):
        table.add_column(heading, justify="right")
    for index, player in enumerate(players):
        table.add_row(f"{index // PAGE + 1}", f"{player.user_id}", f"{player.points:,}")
    console.print(table)


def main(scale: Scale = 1, dsn: Dsn = None) -> None:
    """Keep users' statistics and a leaderboard, and lay each answer beside the direct one."""
    with told(), place(dsn, SCHEMA, TALLY_SCHEMA, connections=ONLINE + 2) as engine:
        report = run(engine, Console(highlight=False), scale=scale)
    raise typer.Exit(0 if report.is_exact else 1)


if __name__ == "__main__":
    typer.run(main)
