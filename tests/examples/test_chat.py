"""examples/chat.py on little data: numbers are counted here as well, in Python from the rows of the tables."""

from collections import Counter as Numbers
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable, SerializationFailure
from rich.console import Console
from sqlalchemy import Engine, delete, event, insert, select, update
from sqlalchemy.exc import OperationalError

import chat
from chat import Chat, Member, Message, Upload, User
from crowd import crowd
from place import own_schemas
from tallystick import direct_of
from verification import Step, checks

SCALE = 0.005


@pytest.fixture
def schemas(engine: Engine) -> Iterator[None]:
    with own_schemas(engine, chat.SCHEMA, chat.TALLY_SCHEMA):
        yield


@pytest.fixture
def chats(engine: Engine, schemas: None) -> None:
    """An application with data, whose numbers are kept."""
    chat.fill(engine, scale=SCALE)
    chat.tally.install(engine)
    chat.tally.backfill(engine)


def rows(engine: Engine, table: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(table.__table__)))


def live(engine: Engine) -> "Numbers[int]":
    """Messages that are there, by chat."""
    return Numbers(each.chat_id for each in rows(engine, Message) if each.deleted_at is None)


def unread(engine: Engine) -> dict[tuple[int, int], int]:
    """Messages behind the position of each member, by user and chat."""
    sent: dict[int, list[tuple[datetime, int]]] = {}
    for each in rows(engine, Message):
        if each.deleted_at is None:
            sent.setdefault(each.chat_id, []).append((each.sent_at, each.id))
    return {
        (each.user_id, each.chat_id): sum(
            each.last_read_at is None or place > (each.last_read_at, each.last_read_id)
            for place in sent.get(each.chat_id, [])
        )
        for each in rows(engine, Member)
    }


def unread_as_kept(engine: Engine) -> dict[tuple[int, int], int]:
    with engine.connect() as connection:
        found = connection.execute(select(Member.user_id, Member.chat_id, chat.unread()))
        return {(user_id, chat_id): number for user_id, chat_id, number in found}


def test_every_answer_is_exact(engine: Engine, schemas: None) -> None:
    report = chat.run(engine, Console(quiet=True), scale=SCALE)
    assert report.is_exact
    assert report.original == {"chats": 30, "messages": 3000 - 3000 // 19, "users": 20}
    assert [step.found for step in report.deletions] == [1, -1, 0, 1, 0]
    assert report.behind == (1, 0)
    assert [step.found for step in report.limits] == [2, 1]
    assert report.worked["committed"] >= chat.ONLINE
    assert len(report.beside) >= len(report.after) == 6

    by_chat, total = live(engine), report.found
    assert total["messages"] == by_chat.total()
    assert total["messages in a chat"] == by_chat[chat.HOT]
    assert total["chats"] == len(rows(engine, Chat))
    assert total["users"] == len(rows(engine, User))
    assert total["bytes of a user"] == sum(
        each.size_bytes for each in rows(engine, Upload) if each.user_id == chat.READER
    )
    assert all((each.message_count or 0) == by_chat[each.id] for each in rows(engine, Chat))
    last = {check.name: check.actual for check in report.after}
    assert last["unread of a user"] == sum(n for (user, _), n in unread(engine).items() if user == chat.READER)


def test_users_who_meet_a_limit_and_a_quota_do_not_pass_them(engine: Engine, chats: None) -> None:
    chat.set_room(engine, chat.ROOM)
    with crowd(engine, chat.be_online, users=chat.ONLINE, least=12) as online:
        online.end()
        worked = online.stop()
    assert worked["messages refused"] > 0
    assert worked["files refused"] > 0
    limits = {each.id: each.message_limit for each in rows(engine, Chat)}
    assert all(number <= limits[chat_id] for chat_id, number in live(engine).items())
    uploads = rows(engine, Upload)
    for each in rows(engine, User):
        assert sum(one.size_bytes for one in uploads if one.user_id == each.id) <= each.quota_bytes
    assert all(check.is_exact for check in checks(engine, chat.readings()))


def test_a_report_of_a_difference_is_not_exact(engine: Engine, schemas: None) -> None:
    report = chat.run(engine, Console(quiet=True), scale=0.001)
    assert report.is_exact
    assert not replace(report, verified=False).is_exact
    assert not replace(report, kept={**report.kept, "chats": -1}).is_exact
    assert not replace(report, copied=report.most[1:]).is_exact
    assert not replace(report, behind=(1, 1)).is_exact
    assert not replace(report, unread_differs=1).is_exact
    assert not replace(report, room=-1).is_exact
    assert not replace(report, expected={**report.expected, "users": -1}).is_exact
    missed = [Step("a step", 1, 0)]
    assert not replace(report, deletions=missed).is_exact
    assert not replace(report, limits=missed).is_exact
    assert not replace(report, quotas=missed).is_exact
    odd = [replace(check, direct=check.direct + 1) for check in report.after]
    assert not replace(report, beside=odd).is_exact
    assert not replace(report, after=odd).is_exact


def test_totals_and_unread_messages_are_one_statement_each(engine: Engine, chats: None) -> None:
    statements: list[str] = []

    def note(*given: object) -> None:
        statements.append(str(given[2]))

    event.listen(engine, "before_cursor_execute", note)
    totals = chat.row(engine, chat.totals())
    with engine.connect() as connection:
        found = {each.chat_id: each.unread for each in connection.execute(chat.unread_of(chat.READER))}
    event.remove(engine, "before_cursor_execute", note)
    assert len(statements) == 2
    assert totals == chat.row(engine, direct_of(chat.totals())) == {"chats": 30, "messages": 2843, "users": 20}
    assert found == {of: n for (user, of), n in unread(engine).items() if user == chat.READER}
    assert len(found) == 5


def test_unread_messages_are_those_behind_each_position(engine: Engine, chats: None) -> None:
    expected = unread(engine)
    assert unread_as_kept(engine) == expected
    positions = {(each.user_id, each.chat_id): each.last_read_at for each in rows(engine, Member)}
    by_chat = live(engine)
    nothing_read = [member for member, position in positions.items() if position is None]
    assert nothing_read
    assert all(expected[member] == by_chat[member[1]] for member in nothing_read)
    assert any(0 < expected[member] < by_chat[member[1]] for member in positions)


def test_a_position_cuts_between_messages_of_one_moment(engine: Engine, chats: None) -> None:
    """Each chat has pairs of messages of one moment; its first two are 1 and 31, of which none is deleted."""
    with engine.begin() as connection:
        first = connection.execute(select(Message.id, Message.sent_at).where(Message.id == 1)).one()
        second = connection.execute(select(Message.id, Message.sent_at).where(Message.id == 31)).one()
        assert first.sent_at == second.sent_at
        one = update(Member).where(Member.user_id == chat.READER, Member.chat_id == chat.HOT)
        counts = []
        for position in (first, second):
            connection.execute(one.values(last_read_at=position.sent_at, last_read_id=position.id))
            counts.append(connection.execute(chat.unread_of(chat.READER)).first())
    total = live(engine)[chat.HOT]
    assert counts == [(chat.HOT, total - 1), (chat.HOT, total - 2)]


def test_reading_and_deleting_change_what_is_unread(engine: Engine, chats: None) -> None:
    member = (chat.READER, chat.HOT)
    before = unread_as_kept(engine)
    with engine.begin() as connection:
        chat.mark_read(connection, chat.HOT, chat.READER)
    assert unread_as_kept(engine) == {**before, member: 0}
    with engine.begin() as connection:
        assert chat.send(connection, chat.HOT, author_id=2)
        assert chat.send(connection, chat.HOT, author_id=2)
        last = connection.execute(chat.messages_by_time.max(chat.HOT)).one()
        assert chat.mark_deleted(connection, last.id)
    assert unread_as_kept(engine)[member] == unread(engine)[member] == 1


def test_reading_a_chat_without_messages_leaves_the_position(engine: Engine, chats: None) -> None:
    with engine.begin() as connection:
        connection.execute(delete(Message).where(Message.chat_id == chat.HOT))
        connection.execute(
            update(Member).where(Member.chat_id == chat.HOT).values(last_read_at=None, last_read_id=None)
        )
        chat.mark_read(connection, chat.HOT, chat.READER)
        assert connection.execute(chat.unread_of(chat.READER)).first() == (chat.HOT, 0)


def test_senders_who_check_at_once_exceed_the_limit_without_a_lock(engine: Engine, chats: None) -> None:
    chat.set_room(engine, 1)
    before = live(engine)[chat.HOT]
    with engine.connect() as one, engine.connect() as other:
        assert chat.send(one, chat.HOT, 1, is_strict=False)
        assert chat.send(other, chat.HOT, 2, is_strict=False)
        one.commit()
        other.commit()
    with engine.begin() as connection:
        assert not chat.send(connection, chat.HOT, 3, is_strict=False)
    assert live(engine)[chat.HOT] == before + 2


def test_a_sender_holds_the_chat_until_the_end_and_members_do_not_wait(engine: Engine, chats: None) -> None:
    locked = select(Chat.id).where(Chat.id == chat.HOT).with_for_update(key_share=True, nowait=True)
    chat.set_room(engine, 1)
    with engine.connect() as sender, engine.connect() as other:
        assert chat.send(sender, chat.HOT, 1)
        other.exec_driver_sql("SET LOCAL lock_timeout = '1ms'")
        other.execute(insert(Member).values(user_id=1, chat_id=chat.HOT))
        with pytest.raises(OperationalError) as refused:
            other.execute(locked)
        assert isinstance(refused.value.orig, LockNotAvailable)
        other.rollback()
        sender.commit()
        assert not chat.send(other, chat.HOT, 2)


def test_serializable_senders_are_strict_without_a_lock(engine: Engine, chats: None) -> None:
    chat.set_room(engine, 1)
    before = live(engine)[chat.HOT]
    serializable = engine.execution_options(isolation_level="SERIALIZABLE")
    with serializable.connect() as one, serializable.connect() as other:
        assert chat.send(one, chat.HOT, 1, is_strict=False)
        assert chat.send(other, chat.HOT, 2, is_strict=False)
        one.commit()
        with pytest.raises(OperationalError) as refused:
            other.commit()
        assert isinstance(refused.value.orig, SerializationFailure)
    assert live(engine)[chat.HOT] == before + 1


def test_a_quota_is_filled_to_the_last_byte(engine: Engine, chats: None) -> None:
    used = sum(each.size_bytes for each in rows(engine, Upload) if each.user_id == 3)
    with engine.begin() as connection:
        assert not chat.upload(connection, 3, chat.QUOTA - used + 1)
        assert chat.upload(connection, 3, chat.QUOTA - used)
        assert not chat.upload(connection, 3, 1)
        connection.execute(delete(Upload).where(Upload.user_id == 3))
        assert chat.upload(connection, 3, chat.QUOTA)
    assert sum(each.size_bytes for each in rows(engine, Upload) if each.user_id == 3) == chat.QUOTA
