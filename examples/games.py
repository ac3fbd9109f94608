"""A game lobby with a global chat moves its statistics from queries over whole tables to kept answers.

The application has data, and players who go on playing through all of it:

1. The system statistics as they were: each reading of them reads whole tables.
2. Install. Readers notice nothing: until the backfill the aggregates answer from the tables.
3. Backfill, while eight players create and complete games and chat, and old messages move to an archive.
4. Verification: counter or aggregate, actual, direct, diff, status.
5. All statistics in one read: one statement, so one round trip and one snapshot.
6. A script that knows nothing of the counter writes to the tables: who drifts, who cannot, and how it is mended.
7. Rollback: readers back on the tables by the update of one row, counters by `direct_of`; and then uninstalled.

Which kind is used for what, and why:

* Games are rows of one table, written from many places, so they are a *grouped* aggregate, which the table feeds
  itself: no place can forget it, and a game that changes its state moves both of its numbers.
* Messages move from the table of the chat to an archive, and all that were ever sent are to be counted. A grouped
  aggregate has one source; a *counter* is written by hand where messages are sent, and its `direct` may be any query,
  here one over both tables: it is what the backfill sets the counter to, and what it is verified against.
* Emotes are shown to the players and stored nowhere, so that only a *counter* can count them; it has no `direct`.

Run it:

    python examples/games.py                # on the embedded server, less than 10 seconds
    python examples/games.py --scale 0.1    # a tenth of the data and of the play
    python examples/games.py --dsn postgresql://user@host/database

It makes the schemas `example_games` and `example_games_tally`, and drops them at the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter as Numbers
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
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from crowd import crowd
from place import Dsn, Scale, place, told
from tallystick import Tally, direct_of
from verification import Check, checks, differing, show

SCHEMA = "example_games"
TALLY_SCHEMA = "example_games_tally"
GAMES, MESSAGES = 50_000, 200_000
"""What the application has when the migration begins, at scale 1; of ten games seven are completed."""
OLD_DAYS = 90
"""Older messages are archived, at scale 1; the oldest are 139 days old."""
PLAYERS = 8
TURNS = 150
"""Transactions of each player at least, at scale 1; they play until the backfill has ended."""
WARM_ROUNDS, TIMED_ROUNDS = 11, 15
"""An application's connections have asked before: from the eleventh time on, no statement is planned any more."""


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Game(Base):
    """Its state is open, playing, completed or cancelled."""

    __tablename__ = "game"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    host: Mapped[str]
    state: Mapped[str]


class Message(Base):
    """Of the global chat; the game itself speaks as "system"."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    author: Mapped[str]
    body: Mapped[str]
    sent_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class ArchivedMessage(Base):
    __tablename__ = "archived_message"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    author: Mapped[str]
    body: Mapped[str]
    sent_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


Index("game_by_host", Game.host, Game.state, Game.id)
Index("message_by_time", Message.sent_at)

# What the application asked before, and what is declared now: the same queries.
games_query = select(
    func.count().label("created"),
    func.count().filter(Game.state == "completed").label("completed"),
    func.count().filter(Game.state == "playing").label("playing"),
)
sent_query = select(
    (
        select(func.count()).select_from(Message).scalar_subquery()
        + select(func.count()).select_from(ArchivedMessage).scalar_subquery()
    ).label("sent")
)

tally = Tally(schema=TALLY_SCHEMA)
games = tally.grouped("games", games_query)
chat_messages = tally.counter("chat_messages", shards=PLAYERS, direct=sent_query)
emotes = tally.counter("emotes", shards=PLAYERS)

TOTAL = ""
"""The key of a counter that has but one."""

Statistics = dict[str, int]
COMMON = 4
"""Statistics, the first of them, that the application's tables know as well."""


def system_statistics() -> Select[Any]:
    """One row with everything that an administrator's page shows."""
    return select(
        games.table.c.created.label("games"),
        games.table.c.completed,
        games.table.c.playing,
        chat_messages.count(TOTAL).label("messages"),
        emotes.count("wave").label("waves"),
    )


def original_statistics() -> Select[Any]:
    """The same from the application's own tables, as it was before; they know no waves."""
    created, completed, playing = games_query.subquery().c
    return select(created.label("games"), completed, playing, sent_query.scalar_subquery().label("messages"))


OLD_GAMES = text("""
    INSERT INTO example_games.game (host, state)
    SELECT 'player ' || i % 1000,
           CASE WHEN i % 10 < 7 THEN 'completed' ELSE (ARRAY['open', 'playing', 'cancelled'])[i % 10 - 6] END
    FROM generate_series(1, :games) AS i
""")
OLD_MESSAGES = text("""
    INSERT INTO example_games.message (author, body, sent_at)
    SELECT 'player ' || i % 1000, 'Good luck!', now() - i * interval '1 minute'
    FROM generate_series(1, :messages) AS i
""")


# What the application does. Each function is a step of a transaction of its caller's.


def create_game(connection: Connection, host: str) -> None:
    connection.execute(insert(Game).values(host=host, state="open"))


def move_game(connection: Connection, host: str, before: str, after: str) -> bool:
    """Give one of the host's games the next state; whether there is one."""
    one = select(func.min(Game.id)).where(Game.host == host, Game.state == before).scalar_subquery()
    moved = update(Game).where(Game.id == one).values(state=after).returning(Game.id)
    return connection.scalar(moved) is not None


def send_message(connection: Connection, author: str, body: str) -> None:
    connection.execute(insert(Message).values(author=author, body=body))
    connection.execute(chat_messages.inc(TOTAL))  # in the same transaction: both are committed, or neither


def wave(connection: Connection) -> None:
    connection.execute(emotes.inc("wave"))


def archive_messages(connection: Connection, *, older_than: timedelta) -> int:
    """Move old messages out of the chat; how many. As many were sent as before, so that nothing is counted."""
    columns = [Message.id, Message.author, Message.body, Message.sent_at]
    moved = delete(Message).where(Message.sent_at < func.now() - older_than).returning(*columns).cte("moved")
    archived = insert(ArchivedMessage).from_select([column.key for column in columns], select(moved))
    return connection.execution_options(preserve_rowcount=True).execute(archived).rowcount


def play(connection: Connection, chance: random.Random, number: int) -> Numbers[str]:
    """One transaction of a player: create a game, begin one, complete one, or chat."""
    player, kind = f"player {number}", chance.random()
    if kind < 0.25:
        create_game(connection, player)
        return Numbers({"games": 1})
    if kind < 0.4 and move_game(connection, player, "open", "playing"):
        return Numbers({"playing": 1})
    if kind < 0.6 and move_game(connection, player, "playing", "completed"):
        send_message(connection, "system", f"A game of {player} has ended.")
        return Numbers({"playing": -1, "completed": 1, "messages": 1})
    send_message(connection, player, "Good luck!")
    if kind < 0.8:
        return Numbers({"messages": 1})
    wave(connection)
    return Numbers({"messages": 1, "waves": 1})


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found.

    Attributes:
        expected, found: the statistics by the run's own count of what it committed, and in one read.
        beside, after: both halves of the readings while the players played, and after them.
        drifted, mended: the same after a script that forgot the counter, and after the backfill that mended it.
        verified: every group and key was verified, too, and was exact.
        answers: the statistics by where they came from, during the rollback; all but the last know the waves.
    """

    played: Numbers[str]
    archived: int
    expected: Statistics
    found: Statistics
    beside: list[Check]
    after: list[Check]
    drifted: list[Check]
    mended: list[Check]
    verified: bool
    answers: dict[str, Statistics]

    @property
    def is_exact(self) -> bool:
        """All that was to be exact was, and the drift that was made on purpose was found."""
        exact = all(check.is_exact for check in [*self.beside, *self.after, *self.mended])
        drift = [check.name for check in self.drifted if not check.is_exact]
        same = len({tuple(answer.values())[:COMMON] for answer in self.answers.values()}) == 1
        return exact and self.verified and same and self.found == self.expected and drift == ["chat_messages"]


def fill(engine: Engine, *, scale: float) -> Statistics:
    """Make the data of an application that has been running for a while; its statistics."""
    games_made, messages_made = round(GAMES * scale), round(MESSAGES * scale)
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(OLD_GAMES, {"games": games_made})
        connection.execute(OLD_MESSAGES, {"messages": messages_made})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE example_games.game, example_games.message"))
    return statistics(engine, original_statistics())


def statistics(engine: Engine, read: Select[Any]) -> Statistics:
    """One execution: one round trip, one snapshot."""
    with engine.connect() as connection:
        return dict(connection.execute(read).mappings().one())


def both_halves(engine: Engine) -> list[Check]:
    return checks(
        engine,
        {
            "games": ("grouped", games.value("created")),
            "games completed": ("grouped", games.value("completed")),
            "games playing": ("grouped", games.value("playing")),
            "chat_messages": ("counter", chat_messages.count(TOTAL)),
        },
    )


def forget_the_counter(engine: Engine) -> None:
    """A script of somebody else's: it completes a game and greets, and has never heard of tallystick."""
    with engine.begin() as connection:
        first = select(func.min(Game.id)).where(Game.state == "open").scalar_subquery()
        connection.execute(update(Game).where(Game.id == first).values(state="completed"))
        connection.execute(insert(Message), [{"author": "script", "body": "Hello!"}] * 3)


def roll_back(engine: Engine) -> dict[str, Statistics]:
    """Every way back, from the quickest to the last; the statistics that readers get after each."""
    answers = {"kept": statistics(engine, system_statistics())}
    # For what the database keeps: one row, and the readers of all programs in all languages are on the tables.
    tally.rollback(engine, only=["games"])
    answers["rolled back"] = statistics(engine, system_statistics())
    tally.resume(engine, only=["games"])
    answers["resumed"] = statistics(engine, system_statistics())
    # For a counter, which has no switch: in the code, any read becomes the same read of the source.
    answers["direct_of(read)"] = statistics(engine, direct_of(system_statistics()))
    # For good. Code that adds has to be rolled back first: it fails where there is no counter. Nothing else holds what
    # the emotes count, so they stay.
    tally.uninstall(engine, only=["games", "chat_messages"])
    answers["uninstalled"] = statistics(engine, original_statistics())
    return answers


def run(engine: Engine, console: Console, *, scale: float = 1) -> Report:
    """The whole migration, in the schemas of this example, which exist and are empty."""
    say = partial(console.print, soft_wrap=True)
    before = fill(engine, scale=scale)
    original_ms = median_ms(engine, original_statistics())
    say("[b]1. As it was.[/b] The statistics read every table:", f"{original_ms:.2f} ms.")
    show_statistics(console, {"original": before})

    installed = tally.install(engine)
    say(f"\n[b]2. Installed[/b]: {', '.join(installed)}. Until the backfill, games are counted in their table.")

    with crowd(engine, play, users=PLAYERS, least=round(TURNS * scale)) as players:
        backfilled = tally.backfill(engine)
        beside = both_halves(engine)
        with engine.begin() as connection:
            archived = archive_messages(connection, older_than=timedelta(days=OLD_DAYS * scale))
        beside += both_halves(engine)
        verified = tally.verify(engine)
        played = players.stop()
    tally.fold(engine)
    took = ", ".join(f"{each.aggregate} in {each.elapsed_s:.2f} s" for each in backfilled)
    say(
        f"\n[b]3. Backfilled[/b]: {took}, while {PLAYERS} players committed {played['committed']:,} transactions and"
        f" rolled back {played['rolled back']:,}, and {archived:,} messages were archived. Beside them, {len(beside)}"
        f" answers of both halves were compared: {differing(beside)}."
    )

    after = both_halves(engine)
    verified += tally.verify(engine)
    say("\n[b]4. Verified[/b], when the players had ended:")
    show(console, after)

    found = statistics(engine, system_statistics())
    expected = {name: before.get(name, 0) + played[name] for name in found}
    kept_ms = median_ms(engine, system_statistics())
    say(f"\n[b]5. In one read[/b], one statement and one snapshot: {kept_ms:.2f} ms, was {original_ms:.2f} ms.")
    show_statistics(console, {"kept": found, "by the players' own count": expected})

    forget_the_counter(engine)
    drifted = both_halves(engine)
    say("\n[b]6. A script completed a game and sent 3 messages[/b], and knew of no counter:")
    show(console, drifted)
    tally.backfill(engine, only=["chat_messages"])
    mended = both_halves(engine)
    say(
        f"The table itself feeds the grouped aggregate. The counter was set from its direct query: {differing(mended)}."
    )

    answers = roll_back(engine)
    say("\n[b]7. Rolled back[/b]:")
    show_statistics(console, answers)
    exact = all(report.is_exact for report in verified)
    return Report(played, archived, expected, found, beside, after, drifted, mended, exact, answers)


def median_ms(engine: Engine, read: Select[Any]) -> float:
    times = []
    with engine.connect() as connection:
        for _ in range(WARM_ROUNDS + TIMED_ROUNDS):
            started = time.perf_counter()
            connection.execute(read).one()
            times.append((time.perf_counter() - started) * 1000)
    return median(times[WARM_ROUNDS:])


def show_statistics(console: Console, answers: dict[str, Statistics]) -> None:
    """A line for each way of asking."""
    table = Table("")
    names = max(answers.values(), key=len)
    for name in names:
        table.add_column(name, justify="right")
    for way, answer in answers.items():
        table.add_row(way, *(f"{answer[name]:,}" if name in answer else "" for name in names))
    console.print(table)


def main(scale: Scale = 1, dsn: Dsn = None) -> None:
    """Move the statistics of a game lobby with a chat from counting tables to kept answers, and back."""
    with told(), place(dsn, SCHEMA, TALLY_SCHEMA, connections=PLAYERS + 2) as engine:
        report = run(engine, Console(highlight=False), scale=scale)
    raise typer.Exit(0 if report.is_exact else 1)


if __name__ == "__main__":
    typer.run(main)
