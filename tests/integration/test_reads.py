"""Reads of a grouped aggregate, over every kind of connection, in every phase, each beside its direct twin."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, LiteralString

import psycopg
import pytest
from sqlalchemy import (
    URL,
    Dialect,
    Engine,
    Select,
    create_engine,
    event,
    exists,
    func,
    literal,
    make_url,
    select,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column
from sqlalchemy.pool import NullPool

from tallystick import Tally, UsageError, direct_of
from tallystick.declare.reads import GroupReads
from tests.conftest import Connect
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TABLE chat (id integer PRIMARY KEY, title text NOT NULL);
CREATE TABLE message (
    id bigint PRIMARY KEY, chat_id integer, kind text, size integer, price numeric(10, 2), rate double precision,
    at timestamptz, ok boolean
);
INSERT INTO chat SELECT i, 'chat ' || i FROM generate_series(1, 8) AS s (i);
INSERT INTO message
SELECT i, nullif(i % 7, 0), (ARRAY['text', 'image', NULL])[i % 3 + 1], nullif(i % 11, 0), i % 5 + 0.25, i / 3.0,
       timestamptz '2024-01-01 UTC' + i * interval '1 hour', i % 2 = 0
FROM generate_series(1, 140) AS s (i);
"""


class Base(DeclarativeBase):
    """Mapped classes of this module."""


class Message(Base):
    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int | None]
    kind: Mapped[str | None]
    size: Mapped[int | None]
    price: Mapped[Decimal]
    rate: Mapped[float]
    at: Mapped[datetime]
    ok: Mapped[bool]


class Chat(Base):
    __tablename__ = "chat"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


tally = Tally()
by_chat = tally.grouped(
    "by_chat",
    select(
        Message.chat_id,
        func.count().label("messages"),
        func.sum(Message.size).label("bytes"),
        func.avg(Message.price).label("price"),
        func.max(Message.at).label("last"),
        func.avg(Message.rate).label("rate"),
        func.bool_and(Message.ok).label("ok"),
        func.count(Message.kind.distinct()).label("kinds"),
    ).group_by(Message.chat_id),
)
by_kind = tally.grouped(
    "by_kind", "SELECT chat_id, kind, count(*) AS n, sum(size) AS bytes FROM message GROUP BY chat_id, kind"
)
totals = tally.grouped("totals", "SELECT count(*) AS n, sum(size) AS bytes, min(at) AS first FROM message")


class CountedChat(Base):
    __table__ = Chat.__table__

    id: Mapped[int]
    messages: Mapped[int] = column_property(by_chat.value("messages", chat_id=Chat.__table__.c.id))


Rows = list[tuple[Any, ...]]
Read = Callable[[GroupReads], Select[Any]]


def lateral(reads: GroupReads) -> Select[Any]:
    found = reads.lateral(chat_id=Chat.id)
    return select(Chat.title, found.c.messages, found.c.bytes, found.c.ok).join(found, true()).order_by(Chat.id)


def lateral_core(reads: GroupReads) -> Select[Any]:
    chat, found = Chat.__table__, reads.lateral(chat_id=Chat.__table__.c.id)
    return select(chat.c.id, found).select_from(chat.join(found, true())).order_by(found.c.messages.desc(), chat.c.id)


def joined(reads: GroupReads) -> Select[Any]:
    view = reads.table
    return (
        select(Chat.title, view.c.messages, view.c.last)
        .join(view, view.c.chat_id == Chat.id, isouter=True)
        .order_by(Chat.id)
    )


def correlated(reads: GroupReads) -> Select[Any]:
    messages = reads.value("messages", chat_id=Chat.id)
    return (
        select(Chat.id, messages.label("messages"), reads.value("bytes", chat_id=Chat.id).label("bytes"))
        .where(messages > literal(0))
        .order_by(messages.desc(), Chat.id)
    )


def several(reads: GroupReads) -> Select[Any]:
    return select(*(reads.value("messages", chat_id=key).label(f"m{key}") for key in (1, 2, 99, None)))


READS: dict[str, Read] = {
    "get": lambda reads: reads.get(chat_id=3),
    "get of NULL": lambda reads: reads.get(chat_id=None),
    "get of none": lambda reads: reads.get(chat_id=99),
    "value": lambda reads: select(reads.value("last", chat_id=2)),
    "value of none": lambda reads: select(reads.value("messages", chat_id=99), reads.value("bytes", chat_id=99)),
    "several values": several,
    "value in SELECT, WHERE and ORDER BY": correlated,
    "table": lambda reads: select(reads.table).order_by(reads.table.c.chat_id),
    "join": joined,
    "aggregate of the aggregate": lambda reads: select(
        func.sum(reads.table.c.messages), func.max(reads.table.c.last)
    ).where(reads.table.c.kinds > 1),
    "exists": lambda reads: select(Chat.id).where(exists().where(reads.table.c.chat_id == Chat.id)).order_by(Chat.id),
    "lateral from entities": lateral,
    "lateral from tables": lateral_core,
    "top": lambda reads: reads.top("bytes", 3),
    "top with ties": lambda reads: reads.top("messages", 5),
    "top of all": lambda reads: reads.top("price", 1000),
    "top of times": lambda reads: reads.top("last"),
    "top of truths": lambda reads: reads.top("ok", 4),
    "top of floats": lambda reads: reads.top("rate", 4),
}
KIND_READS: dict[str, Read] = {
    "get": lambda reads: reads.get(chat_id=3, kind="text"),
    "get with NULL": lambda reads: reads.get(chat_id=3, kind=None),
    "get of NULLs": lambda reads: reads.get(chat_id=None, kind=None),
    "get of none": lambda reads: reads.get(kind="video", chat_id=3),
    "value": lambda reads: select(reads.value("n", chat_id=1, kind="image")),
    "top": lambda reads: reads.top("n", 4),
    "top of sums": lambda reads: reads.top("bytes", 30),
}
TOTAL_READS: dict[str, Read] = {
    "get": lambda reads: reads.get(),
    "values": lambda reads: select(reads.value("n"), reads.value("bytes"), reads.value("first")),
    "top": lambda reads: reads.top("n", 3),
    "lateral": lambda reads: select(Chat.id, found := reads.lateral()).join(found, true()).order_by(Chat.id),
}
ALL = [(by_chat, READS), (by_kind, KIND_READS), (totals, TOTAL_READS)]


def over_connection(url: URL, statements: Sequence[Select[Any]]) -> list[Rows]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return [[tuple(row) for row in connection.execute(statement)] for statement in statements]


def over_session(url: URL, statements: Sequence[Select[Any]]) -> list[Rows]:
    with Session(create_engine(url, poolclass=NullPool)) as session:
        return [[tuple(row) for row in session.execute(statement)] for statement in statements]


async def _executed(on: AsyncConnection | AsyncSession, statements: Sequence[Select[Any]]) -> list[Rows]:
    return [[tuple(row) for row in await on.execute(statement)] for statement in statements]


def over_async_connection(url: URL, statements: Sequence[Select[Any]]) -> list[Rows]:
    async def run() -> list[Rows]:
        async with create_async_engine(url, poolclass=NullPool).connect() as connection:
            return await _executed(connection, statements)

    return asyncio.run(run())


def over_async_session(url: URL, statements: Sequence[Select[Any]]) -> list[Rows]:
    async def run() -> list[Rows]:
        async with AsyncSession(create_async_engine(url, poolclass=NullPool)) as session:
            return await _executed(session, statements)

    return asyncio.run(run())


def over_psycopg(url: URL, statements: Sequence[Select[Any]]) -> list[Rows]:
    """The text alone, as a program in another language would send it."""
    with psycopg.connect(url.set(drivername="postgresql").render_as_string()) as connection:
        found = []
        for statement in statements:
            compiled = statement.compile(dialect=psycopg_dialect())
            found.append(connection.execute(str(compiled), compiled.params).fetchall())
        return found


def psycopg_dialect() -> Dialect:
    return make_url("postgresql+psycopg://").get_dialect()()


KINDS = [over_connection, over_session, over_async_connection, over_async_session, over_psycopg]


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(SETUP)
    return connection


def phases(app: Connection, engine: Engine) -> Iterator[str]:
    """One after the other: not backfilled, backfilled with deltas, folded, and switched back."""
    tally.install(engine)
    app.execute("INSERT INTO message SELECT i, 9, 'text', 1, 1, 1, now(), true FROM generate_series(1001, 1003) s (i)")
    yield "building"
    tally.backfill(engine)
    app.execute("INSERT INTO message SELECT i, 1, 'video', 5, 1, 0.1, now(), false FROM generate_series(2001, 2009) i")
    app.execute("DELETE FROM message WHERE chat_id = 4 OR id % 13 = 0")
    app.execute("UPDATE message SET chat_id = 5, size = NULL WHERE chat_id = 6 AND id % 2 = 0")
    yield "unfolded"
    tally.fold(engine)
    yield "folded"
    app.execute("DELETE FROM tally.by_chat__state; UPDATE tally.aggregate SET serving = 'direct'")
    yield "switched"


def typed(rows: Rows) -> list[list[tuple[type, Any]]]:
    return [[(type(value), value) for value in row] for row in rows]


@pytest.mark.parametrize("execute", KINDS)
def test_every_read_equals_its_direct_twins(
    app: Connection, engine: Engine, database: URL, execute: Callable[[URL, Sequence[Select[Any]]], list[Rows]]
) -> None:
    names = [f"{aggregate.name}: {name}" for aggregate, reads in ALL for name in reads]
    kept = [read(aggregate) for aggregate, reads in ALL for read in reads.values()]
    direct = [read(aggregate.direct) for aggregate, reads in ALL for read in reads.values()]
    for phase in phases(app, engine):
        found = dict(zip(names, execute(database, kept), strict=True))
        twins = dict(zip(names, execute(database, direct), strict=True))
        turned = dict(zip(names, execute(database, [direct_of(read) for read in kept]), strict=True))
        for name in names:
            assert typed(found[name]) == typed(twins[name]), (phase, name)
            assert typed(turned[name]) == typed(twins[name]), (phase, name)


def test_get_has_always_one_row(app: Connection, engine: Engine) -> None:
    for _ in phases(app, engine):
        with engine.connect() as connection:
            for half in (by_chat, by_chat.direct):
                absent = connection.execute(half.get(chat_id=99)).one()
                assert tuple(absent) == (99, 0, None, None, None, None, None, 0)
                assert absent._fields == ("chat_id", "messages", "bytes", "price", "last", "rate", "ok", "kinds")
                null = connection.execute(half.get(chat_id=None)).one()
                assert (null.chat_id, null.messages > 0) == (None, True)
                assert connection.execute(half.get(chat_id=3)).one().chat_id == 3
            for pair in (by_kind, by_kind.direct):
                assert tuple(connection.execute(pair.get(chat_id=99, kind=None)).one()) == (99, None, 0, None)


def test_results_have_their_types(app: Connection, engine: Engine) -> None:
    for phase in phases(app, engine):
        with engine.connect() as connection:
            row = connection.execute(by_chat.get(chat_id=3)).one()
        types = [type(value) for value in row]
        assert types == [int, int, int, Decimal, datetime, float, bool, int], phase


def test_several_values_are_one_round_trip(app: Connection, engine: Engine) -> None:
    sent: list[str] = []
    for _ in phases(app, engine):
        sent.clear()
        with engine.connect() as connection:
            event.listen(connection, "before_cursor_execute", lambda *given: sent.append(given[2]))
            row = connection.execute(
                select(
                    by_chat.value("messages", chat_id=1), totals.value("n"), by_kind.value("n", chat_id=1, kind=None)
                )
            ).one()
            assert len(sent) == 1
            assert len(row) == 3
            assert row[1] == connection.scalar(select(func.count()).select_from(Message))


def test_column_property(app: Connection, engine: Engine) -> None:
    for _ in phases(app, engine):
        with Session(engine) as session:
            found = session.scalars(select(CountedChat).order_by(CountedChat.messages.desc(), CountedChat.id)).all()
            counted = select(Message.chat_id, func.count()).group_by(Message.chat_id)
            expected = dict(session.execute(counted).all())
            assert {chat.id: chat.messages for chat in found} == {key: expected.get(key, 0) for key in range(1, 9)}
            assert [chat.messages for chat in found] == sorted((chat.messages for chat in found), reverse=True)


def test_reads_compose(app: Connection, engine: Engine) -> None:
    """Both halves of one aggregate, and several aggregates, in one statement."""
    for _ in phases(app, engine):
        with engine.connect() as connection:
            both = union_all(select(by_chat.table), select(by_chat.direct.table)).subquery()
            twice = select(both.c.chat_id, func.count()).group_by(both.c.chat_id)
            assert {number for _, number in connection.execute(twice)} == {2}
            share = by_chat.value("messages", chat_id=Chat.id) * Decimal(100) / totals.value("n")
            shares = connection.execute(select(Chat.id, share).order_by(share.desc())).all()
            assert len(shares) == 8
            inner = by_chat.get(chat_id=3).subquery()
            assert connection.scalar(select(inner.c.messages)) == connection.scalar(
                select(by_chat.value("messages", chat_id=3))
            )


def test_top_orders_ties_and_nulls(app: Connection, engine: Engine) -> None:
    tally.install(engine)
    app.execute("DELETE FROM message")
    app.execute(
        "INSERT INTO message (id, chat_id, size) VALUES"
        " (1, 5, 10), (2, 3, 10), (3, 4, 30), (4, 1, NULL), (5, NULL, 10), (6, 2, NULL), (7, 9, -1)"
    )
    expected = [4, 3, 5, None, 9, 1, 2]
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: tally.backfill(engine),
        lambda: app.execute("UPDATE message SET id = -id"),
    ]
    for step in steps:
        step()
        for half in (by_chat, by_chat.direct):
            with engine.connect() as connection:
                for k in (1, 3, 7, 100):
                    found = [row.chat_id for row in connection.execute(half.top("bytes", k))]
                    assert found == expected[:k]
    app.execute("UPDATE message SET size = 10 WHERE chat_id IN (4, 2)")
    for folded in (False, True):
        if folded:
            tally.fold(engine)
        for half in (by_chat, by_chat.direct):
            with engine.connect() as connection:
                assert [row.chat_id for row in connection.execute(half.top("bytes", 9))] == [2, 3, 4, 5, None, 9, 1]


def test_bad_arguments_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(UsageError, match="top of 0 groups"):
        by_chat.top("messages", 0)
    with pytest.raises(UsageError, match='measure "size" is unknown'):
        by_chat.top("size")
    with pytest.raises(UsageError, match='measure "chat_id" is unknown'):
        by_chat.value("chat_id", chat_id=1)


def test_a_writer_reads_its_own_changes(app: Connection, engine: Engine) -> None:
    tally.install(engine)
    tally.backfill(engine)
    with Session(engine) as session:
        before = session.scalar(select(by_chat.value("messages", chat_id=1)))
        assert before is not None
        session.add(
            Message(id=5000, chat_id=1, kind="text", size=1, price=1, rate=1, at=datetime.now().astimezone(), ok=True)
        )
        assert session.scalar(select(by_chat.value("messages", chat_id=1))) == before + 1
        session.rollback()
        assert session.scalar(select(by_chat.value("messages", chat_id=1))) == before
