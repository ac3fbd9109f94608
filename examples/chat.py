"""A chat application whose numbers are kept: totals, messages per chat, limits, unread messages, quotas.

1. Totals of chats, messages and users in one read: three *grouped* aggregates without a group key, one statement, one
   snapshot, whatever the tables have grown to.
2. Messages per chat, but for those that are marked as deleted: a *grouped* aggregate with `where`. To mark one and to
   give it back are UPDATEs that cross the condition. A *mirror* copies the number into a column of the chat after each
   fold, for ORDER BY; until then the copy is behind, and the aggregate is not.
3. A limit for each chat, checked before a message is stored, in the same transaction. The number is exact for what is
   committed, and yet no limit: of senders who check at the same time none sees the others' messages, and all pass. To
   make it strict, the chat's row is locked first, in a statement of its own; then they pass one after the other, and
   each check sees what was sent before. This holds at READ COMMITTED; at REPEATABLE READ a check sees its
   transaction's snapshot, which may be older than the lock. SERIALIZABLE is strict without a lock, and makes senders
   try again. Whatever adds messages has to do the same, as what gives a deleted one back.
4. Unread messages of all chats of a user in one statement: the messages behind each member's stored position, by an
   *ordered* aggregate of each chat's messages by time. A position is the time and the id of the last message that was
   read, so that it cuts between two of the same moment; NULL is before all messages. The senders' lock serves here,
   too: a message is given its time behind the lock, so that none comes to stand before what a member has read.
5. A quota of bytes for each user, checked in the same way: the user is read once, with the lock, the sum once.
6. Eight users at once, with all of this; their own count of what they committed is laid beside the kept numbers.

Run it:

    python examples/chat.py                # on the embedded server, about 12 seconds
    python examples/chat.py --scale 0.1    # a tenth of the messages, users and work
    python examples/chat.py --dsn postgresql://user@host/database

It makes the schemas `example_chat` and `example_chat_tally`, and drops them at the end.
"""

from __future__ import annotations

import random
import time
from collections import Counter as Numbers
from dataclasses import dataclass
from datetime import datetime
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
    ForeignKey,
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
from tallystick import Bound, Tally, direct_of
from verification import Check, Step, checks, differing, show, show_steps

SCHEMA = "example_chat"
TALLY_SCHEMA = "example_chat_tally"
CHATS = 30
USERS, MESSAGES = 1_000, 600_000
"""At scale 1. Every user is a member of five chats, and has read nothing in one; of 19 messages one is deleted."""
MEGABYTE = 1_000_000
QUOTA = 100 * MEGABYTE
HOT, READER = 1, 5
"""A chat where everybody writes, and one of its members."""
ROOM = 10
"""Messages that the hot chat has room for, when the users begin."""
ONLINE = 8
TURNS = 100
"""Transactions of each user, at scale 1."""
FOLD_EVERY_S = 0.2
TOP = 3
COMPARED = 20
"""Members whose unread messages are counted from both halves."""
WARM_ROUNDS, TIMED_ROUNDS = 11, 15
"""An application's connections have asked before: from the eleventh time on, no statement is planned any more."""


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class User(Base):
    __tablename__ = "account"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    quota_bytes: Mapped[int] = mapped_column(BigInteger, default=QUOTA)


class Chat(Base):
    """`message_count` is a copy; NULL, before there is one, stands for 0."""

    __tablename__ = "chat"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    message_limit: Mapped[int] = mapped_column(BigInteger)
    message_count: Mapped[int | None] = mapped_column(BigInteger)


class Message(Base):
    __tablename__ = "message"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey(Chat.id))
    author_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    # Not now(), which is when the transaction began: the time is to be taken behind the lock of the chat.
    sent_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.clock_timestamp())
    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class Member(Base):
    """The position is the last message that was read; both columns are NULL before the first."""

    __tablename__ = "member"

    user_id: Mapped[int] = mapped_column(ForeignKey(User.id), primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey(Chat.id), primary_key=True)
    last_read_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    last_read_id: Mapped[int | None] = mapped_column(BigInteger)


class Upload(Base):
    __tablename__ = "upload"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    size_bytes: Mapped[int] = mapped_column(BigInteger)


IS_THERE = Message.deleted_at.is_(None)

Index("chat_by_messages", Chat.message_count.desc())
# What the ordered aggregate walks along; install builds one where there is none.
Index("message_by_time", Message.chat_id, Message.sent_at, Message.id, postgresql_where=IS_THERE)

tally = Tally(schema=TALLY_SCHEMA)

chats = tally.grouped("chats", select(func.count().label("chats")).select_from(Chat))
users = tally.grouped("users", select(func.count().label("users")).select_from(User))
messages = tally.grouped("messages", select(func.count().label("messages")).select_from(Message).where(IS_THERE))
messages_by_chat = tally.grouped(
    "messages_by_chat",
    select(Message.chat_id, func.count().label("messages")).where(IS_THERE).group_by(Message.chat_id),
    mirror={"messages": Chat.message_count},
)
messages_by_time = tally.ordered(
    "messages_by_time", Message, namespace=[Message.chat_id], key=[Message.sent_at], where=IS_THERE
)
uploads_by_user = tally.grouped(
    "uploads_by_user",
    select(Upload.user_id, func.count().label("files"), func.sum(Upload.size_bytes).label("bytes")).group_by(
        Upload.user_id
    ),
)


# What the application reads.


def totals() -> Select[Any]:
    """One row with the size of everything."""
    return select(
        chats.value("chats").label("chats"),
        messages.value("messages").label("messages"),
        users.value("users").label("users"),
    )


def most_messages(k: int) -> Select[int, int | None]:
    """The chats with most messages, by the copy and its index."""
    return select(Chat.id, Chat.message_count).order_by(Chat.message_count.desc().nulls_last(), Chat.id).limit(k)


def unread() -> ColumnElement[int]:
    """Messages behind the position of the member that the query around it reads."""
    position = Bound(Member.last_read_at, Member.last_read_id)
    return messages_by_time.count(Member.chat_id, lower=position, bounds="(]")


def unread_of(user_id: int) -> Select[int, int]:
    """All chats of a user, each with the number of unread messages."""
    return select(Member.chat_id, unread().label("unread")).where(Member.user_id == user_id).order_by(Member.chat_id)


def readings() -> dict[str, tuple[str, ColumnElement[Any]]]:
    """What is compared beside the users at work, by name, each with the kind of its aggregate."""
    of_reader = select(func.sum(unread())).where(Member.user_id == READER).scalar_subquery()
    return {
        "chats": ("grouped", chats.value("chats")),
        "messages": ("grouped", messages.value("messages")),
        "users": ("grouped", users.value("users")),
        "messages in a chat": ("grouped", messages_by_chat.value("messages", chat_id=HOT)),
        "bytes of a user": ("grouped", uploads_by_user.value("bytes", user_id=READER)),
        "unread of a user": ("ordered", of_reader),
    }


# What the application does. Each function is a step of a transaction of its caller's.


def send(connection: Connection, chat_id: int, author_id: int, *, is_strict: bool = True) -> bool:
    """Send a message; whether the chat had room for it.

    Args:
        is_strict: pass one after the other. Without it, those who send at the same time may exceed the limit.
    """
    limit = select(Chat.message_limit).where(Chat.id == chat_id)
    if is_strict:
        # NO KEY: members and messages of the chat, whose foreign keys look at its row, do not wait.
        limit = limit.with_for_update(key_share=True)
    most = connection.scalars(limit).one()
    # A second statement: the snapshot of the first is from before it had the lock.
    if connection.scalars(select(messages_by_chat.value("messages", chat_id=chat_id))).one() >= most:
        return False
    connection.execute(insert(Message).values(chat_id=chat_id, author_id=author_id))
    return True


def mark_deleted(connection: Connection, message_id: int) -> bool:
    """Whether the message was there."""
    one = update(Message).where(Message.id == message_id, IS_THERE).values(deleted_at=func.now())
    return connection.scalar(one.returning(Message.id)) is not None


def give_back(connection: Connection, message_id: int) -> None:
    connection.execute(update(Message).where(Message.id == message_id).values(deleted_at=None))


def mark_read(connection: Connection, chat_id: int, user_id: int) -> None:
    """Move a member's position to the last message of the chat."""
    last = connection.execute(messages_by_time.max(chat_id)).first()
    if last is not None:
        moved = update(Member).where(Member.chat_id == chat_id, Member.user_id == user_id)
        connection.execute(moved.values(last_read_at=last.sent_at, last_read_id=last.id))


def upload(connection: Connection, user_id: int, size_bytes: int) -> bool:
    """Store a file; whether the user's quota had room for it."""
    quota = connection.scalars(select(User.quota_bytes).where(User.id == user_id).with_for_update(key_share=True)).one()
    used = connection.scalars(select(uploads_by_user.value("bytes", user_id=user_id))).one() or 0
    if used + size_bytes > quota:
        return False
    connection.execute(insert(Upload).values(user_id=user_id, size_bytes=size_bytes))
    return True


def be_online(connection: Connection, chance: random.Random, number: int) -> Numbers[str]:
    """One transaction of a user: what changed, by the names of the readings, and what was refused."""
    kind = chance.random()
    chat_id = HOT if chance.random() < 0.5 else chance.randint(2, CHATS)
    if kind < 0.05:
        connection.execute(insert(Chat).values(message_limit=ROOM))
        return Numbers({"chats": 1})
    if kind < 0.1:
        connection.execute(insert(User))
        return Numbers({"users": 1})
    if kind < 0.2:
        mark_read(connection, chat_id, READER)
        return Numbers()
    if kind < 0.3:
        size_bytes = chance.randint(1, 20) * MEGABYTE
        if not upload(connection, READER, size_bytes):
            return Numbers({"files refused": 1})
        return Numbers({"bytes of a user": size_bytes})
    if kind < 0.4:
        last = connection.execute(messages_by_time.max(chat_id)).first()
        changed = -1 if last is not None and mark_deleted(connection, last.id) else 0
    elif send(connection, chat_id, author_id=number + 1):
        changed = 1
    else:
        return Numbers({"messages refused": 1})
    return Numbers({"messages": changed, "messages in a chat": changed if chat_id == HOT else 0})


OLD_MESSAGES = text("""
    INSERT INTO example_chat.message (chat_id, author_id, sent_at, deleted_at)
    SELECT 1 + (i - 1) % :chats, 1 + i % :users,
           -- two of a chat at a time
           now() - (1 + (:messages - i) / :chats / 2) * interval '1 minute', CASE WHEN i % 19 = 0 THEN now() END
    FROM generate_series(1, :messages) AS i
""")
# Of the messages of a chat, number n has the id n * chats + chat.
OLD_MEMBERS = text("""
    INSERT INTO example_chat.member (user_id, chat_id, last_read_at, last_read_id)
    SELECT u, c, m.sent_at, m.id
    FROM generate_series(1, :users) AS u CROSS JOIN generate_series(1, :chats) AS c
    LEFT JOIN example_chat.message AS m
        ON m.id = (u * 7919 + c * 10427) % (:messages / :chats) * :chats + c AND (u + c) % 30 > 0
    WHERE (u + c) % 6 = 0
""")
OLD_UPLOADS = text("""
    INSERT INTO example_chat.upload (user_id, size_bytes)
    SELECT 1 + i % :users, 1000000 + i % 1000 FROM generate_series(0, 9 * :users) AS i
""")


def fill(engine: Engine, *, scale: float) -> None:
    """Make the data of an application that has been running for a while."""
    counts = {"chats": CHATS, "users": max(round(USERS * scale), COMPARED), "messages": max(round(MESSAGES * scale), 1)}
    with engine.begin() as connection:
        Base.metadata.create_all(connection)
        connection.execute(insert(User), [{}] * counts["users"])
        limit = counts["messages"] // CHATS + ROOM
        connection.execute(insert(Chat), [{"message_limit": limit}] * CHATS)
        connection.execute(OLD_MESSAGES, counts)
        connection.execute(OLD_MEMBERS, counts)
        connection.execute(OLD_UPLOADS, counts)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE example_chat.message, example_chat.member, example_chat.upload"))


def number(engine: Engine, read: ColumnElement[Any]) -> int:
    with engine.connect() as connection:
        return int(connection.scalars(select(read)).one())


def in_chat(engine: Engine) -> int:
    return number(engine, messages_by_chat.value("messages", chat_id=HOT))


def move_a_message(engine: Engine) -> list[Step]:
    """Send a message and move it through all that can happen to it; how the number of its chat changes."""
    steps = []

    def step(done: str, expected: int, change: Any, *, is_committed: bool = True) -> None:
        before = in_chat(engine)
        with engine.connect() as connection:
            change(connection)
            if is_committed:
                connection.commit()
        steps.append(Step(done, expected, in_chat(engine) - before))

    step("sent", 1, lambda connection: send(connection, HOT, 1))
    with engine.connect() as connection:
        sent: int = connection.execute(messages_by_time.max(HOT)).one().id
    step("marked as deleted", -1, lambda connection: mark_deleted(connection, sent))
    step("marked again", 0, lambda connection: mark_deleted(connection, sent))
    step("given back", 1, lambda connection: give_back(connection, sent))
    step("another sent, rolled back", 0, lambda connection: send(connection, HOT, 1), is_committed=False)
    return steps


def copies_behind(engine: Engine) -> int:
    """Chats whose copy is not what is kept."""
    kept = messages_by_chat.value("messages", chat_id=Chat.id)
    behind = select(func.count()).select_from(Chat).where(func.coalesce(Chat.message_count, 0) != kept)
    return number(engine, behind.scalar_subquery())


def set_room(engine: Engine, room: int) -> None:
    """Set the limit of the hot chat to so many messages more than it has."""
    kept = messages_by_chat.value("messages", chat_id=HOT)
    with engine.begin() as connection:
        connection.execute(update(Chat).where(Chat.id == HOT).values(message_limit=kept + room))


def send_at_once(engine: Engine) -> list[Step]:
    """Let several senders meet where there is room for one message: how many messages are sent."""
    set_room(engine, 1)
    before = in_chat(engine)
    with engine.connect() as one, engine.connect() as other:
        for connection in (one, other):
            send(connection, HOT, 1, is_strict=False)
        for connection in (one, other):
            connection.commit()
    steps = [Step("2 senders check, then commit", 2, in_chat(engine) - before)]

    set_room(engine, 1)
    before = in_chat(engine)

    def send_one(connection: Connection, _: random.Random, number: int) -> Numbers[str]:
        send(connection, HOT, number + 1)
        return Numbers()

    with crowd(engine, send_one, users=ONLINE, least=1) as senders:
        senders.end()
        senders.stop()
    return [*steps, Step(f"{ONLINE} senders lock the chat first", 1, in_chat(engine) - before)]


def fill_the_quota(engine: Engine) -> list[Step]:
    """Upload what a quota just allows, and a byte more; in bytes of the user."""
    used = uploads_by_user.value("bytes", user_id=1)
    before = number(engine, used)
    steps = []
    for done, expected, size_bytes in (("all that is left", QUOTA - before, QUOTA - before), ("a byte more", 0, 1)):
        with engine.begin() as connection:
            upload(connection, 1, size_bytes)
        after = number(engine, used)
        steps.append(Step(done, expected, after - before))
        before = after
    return steps


def unread_differs(engine: Engine) -> int:
    """Members, of a few users, whose unread messages the two halves count differently."""
    of_few = Member.user_id <= COMPARED
    differ = select(func.count()).select_from(Member).where(of_few, unread() != direct_of(unread()))
    return number(engine, differ.scalar_subquery())


@dataclass(frozen=True, slots=True)
class Report:
    """What a run found.

    Attributes:
        original, kept: the totals from the tables and as they are kept.
        deletions: messages of a chat, by what happened to one message.
        behind: chats whose copy was behind before and after a fold.
        most, copied: the chats with most messages, each with the number, by the aggregate and then by the copies.
        limits: messages sent where there was room for one.
        unread: the reader's unread messages, by chat.
        unread_differs: members for whom the two halves differ.
        quotas: bytes of a user.
        worked: what the users counted of their committed transactions, by the names of the readings.
        beside, after: both halves of the readings while the users worked, and after them.
        expected, found: the readings after them, by their own count, and as they are kept; nobody counts the unread.
        room: messages that the hot chat had room for at the end.
        verified: every group and every item was verified at the end, too, and was exact.
    """

    original: dict[str, int]
    kept: dict[str, int]
    deletions: list[Step]
    behind: tuple[int, int]
    most: list[tuple[Any, ...]]
    copied: list[tuple[Any, ...]]
    limits: list[Step]
    unread: dict[int, int]
    unread_differs: int
    quotas: list[Step]
    worked: Numbers[str]
    beside: list[Check]
    after: list[Check]
    expected: dict[str, int]
    found: dict[str, int]
    room: int
    verified: bool

    @property
    def is_exact(self) -> bool:
        stepped = all(step.found == step.expected for step in [*self.deletions, *self.limits, *self.quotas])
        same = self.kept == self.original and self.copied == self.most and self.found == self.expected
        compared = all(check.is_exact for check in [*self.beside, *self.after])
        kept_in = self.unread_differs == 0 and self.behind == (1, 0) and self.room >= 0
        return self.verified and stepped and same and compared and kept_in


def run(engine: Engine, console: Console, *, scale: float = 1) -> Report:
    """The whole example, in its schemas, which exist and are empty."""
    say = partial(console.print, soft_wrap=True)
    fill(engine, scale=scale)
    tally.install(engine)
    tally.backfill(engine)

    original, kept = row(engine, direct_of(totals())), row(engine, totals())
    direct_ms, kept_ms = median_ms(engine, direct_of(totals())), median_ms(engine, totals())
    say(f"[b]1. Totals[/b] in one read, one statement and one snapshot: {kept_ms:.2f} ms, counted {direct_ms:.2f} ms.")
    show_rows(console, [{"": "counted", **original}, {"": "kept", **kept}])

    deletions = move_a_message(engine)
    behind_before = copies_behind(engine)
    tally.fold(engine)
    behind = (behind_before, copies_behind(engine))
    with engine.connect() as connection:
        copied = [tuple(each) for each in connection.execute(most_messages(TOP))]
        most = [tuple(each) for each in connection.execute(messages_by_chat.top("messages", TOP))]
    say("\n[b]2. A message is deleted and given back[/b], and the number of its chat changes:")
    show_steps(console, deletions)
    say(
        f"Copies in the chats that are behind: {behind[0]}, and {behind[1]} after a fold. The {TOP} chats with most"
        f" messages, by the copies and by the aggregate: {'the same' if copied == most else 'THEY DIFFER'}."
    )

    limits = send_at_once(engine)
    say("\n[b]3. Room for one message[/b], and several who send; messages sent:")
    show_steps(console, limits)

    with engine.connect() as connection:
        unread_before = {each.chat_id: each.unread for each in connection.execute(unread_of(READER))}
    unread_ms, unread_direct_ms = median_ms(engine, unread_of(READER)), median_ms(engine, direct_of(unread_of(READER)))
    differs = unread_differs(engine)
    say(
        f"\n[b]4. Unread messages[/b] in {len(unread_before)} chats of a user, in one statement: {unread_ms:.2f} ms,"
        f" counted {unread_direct_ms:.2f} ms. Of all chats of {COMPARED} users,"
        f" {f'{differs} DIFFER' if differs else 'all are equal'}."
    )
    show_rows(console, [{str(chat_id): n for chat_id, n in unread_before.items()}])

    quotas = fill_the_quota(engine)
    say("\n[b]5. A quota[/b], in bytes that are stored:")
    show_steps(console, quotas)

    set_room(engine, ROOM)
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
    counted = [name for name in before if name != "unread of a user"]
    found = {name: values(after)[name] for name in counted}
    expected = {name: before[name] + worked[name] for name in counted}
    room = number(engine, select(Chat.message_limit).where(Chat.id == HOT).scalar_subquery()) - in_chat(engine)
    say(
        f"\n[b]6. {ONLINE} users at once[/b] committed {worked['committed']:,} transactions and rolled back"
        f" {worked['rolled back']:,} in {took_s:.1f} s; {worked['messages refused']:,} messages and"
        f" {worked['files refused']:,} files were refused. Beside them, {len(beside)} answers of both halves were"
        f" compared: {differing(beside)}. Totals by the users' own count:"
        f" {'all equal' if found == expected else 'THEY DIFFER'}."
    )
    show(console, after)
    tally.fold(engine)
    verified = all(report.is_exact for report in tally.verify(engine)) and copies_behind(engine) == 0
    return Report(
        original, kept, deletions, behind, most, copied, limits, unread_before, differs, quotas, worked, beside, after,
        expected, found, room, verified,
    )  # fmt: skip


def row(engine: Engine, read: Select[Any]) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(connection.execute(read).mappings().one())


def values(found: list[Check]) -> dict[str, int]:
    return {check.name: int(check.actual) for check in found}


def median_ms(engine: Engine, read: Select[*tuple[Any, ...]]) -> float:
    times = []
    with engine.connect() as connection:
        for _ in range(WARM_ROUNDS + TIMED_ROUNDS):
            started = time.perf_counter()
            connection.execute(read).all()
            times.append((time.perf_counter() - started) * 1000)
    return median(times[WARM_ROUNDS:])


def show_rows(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table()
    for name in rows[0]:
        table.add_column(name, justify="right" if name else "left")
    for each in rows:
        table.add_row(*(f"{value:,}" if isinstance(value, int) else value for value in each.values()))
    console.print(table)


def main(scale: Scale = 1, dsn: Dsn = None) -> None:
    """Keep the numbers of a chat, check limits and quotas by them, and lay each answer beside the direct one."""
    with told(), place(dsn, SCHEMA, TALLY_SCHEMA, connections=ONLINE + 2) as engine:
        report = run(engine, Console(highlight=False), scale=scale)
    raise typer.Exit(0 if report.is_exact else 1)


if __name__ == "__main__":
    typer.run(main)
