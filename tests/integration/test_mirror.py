"""Copies of measures in a parent table: eventual, in short transactions, never in anybody's way."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import (
    URL,
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    create_engine,
    func,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tallystick.declare.names import fold_lock_key
from tallystick.errors import DeclarationError, MissingPrivilege
from tallystick.maintain import mirror
from tallystick.maintain.backfill import Progress
from tests.conftest import Connect
from tests.isolation.stage import Beside
from tests.oracle import assert_exact
from tests.servers import Connection
from tests.stepping import Session

TABLES = """
CREATE TABLE chat (id bigint PRIMARY KEY, title text, message_count integer, bytes numeric, code text UNIQUE);
CREATE TABLE message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat_id bigint REFERENCES chat, size integer, code text
);
INSERT INTO chat (id, title, code) SELECT i, 'chat ' || i, 'c' || i FROM generate_series(1, 9) AS i;
INSERT INTO message (chat_id, size, code) SELECT 1 + i % 7, i, 'c' || i % 3 FROM generate_series(1, 70) AS i;
"""
metadata = MetaData()
chat = Table(
    "chat", metadata,
    Column("id", Integer, primary_key=True), Column("message_count", Integer), Column("bytes", Numeric),
    Column("code", Text), Column("title", Text),
)  # fmt: skip
message = Table(
    "message", metadata,
    Column("id", Integer, primary_key=True), Column("chat_id", ForeignKey("chat.id")), Column("size", Integer),
    Column("code", Text),
)  # fmt: skip
BY_CHAT = (
    select(message.c.chat_id, func.count().label("messages"), func.sum(message.c.size).label("bytes"))
    .group_by(message.c.chat_id)
)  # fmt: skip
STALE = """
SELECT c.id, c.message_count, v.messages, c.bytes, v.bytes
FROM chat AS c LEFT JOIN tally.by_chat AS v ON v.chat_id = c.id
WHERE c.message_count IS DISTINCT FROM coalesce(v.messages, 0) OR c.bytes IS DISTINCT FROM v.bytes
ORDER BY 1
"""
COUNTS: LiteralString = "SELECT message_count FROM chat ORDER BY id"


def declared() -> Tally:
    tally = Tally()
    tally.grouped("by_chat", BY_CHAT, mirror={"messages": chat.c.message_count, "bytes": chat.c.bytes})
    return tally


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(TABLES)
    return connection


@pytest.fixture
def tally(app: Connection, engine: Engine) -> Tally:
    tally = declared()
    tally.install(engine)
    return tally


def stale(app: Connection) -> list[int]:
    """Chats whose copies are not what the view says."""
    return [row[0] for row in app.execute(STALE).fetchall()]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_backfill_fills_the_copies(app: Connection, engine: Engine, tally: Tally, batch_size: int) -> None:
    (result,) = tally.backfill(engine, batch_size=batch_size)
    assert (result.copied, result.passed_over) == (9, 0)
    assert not stale(app)
    assert app.execute("SELECT message_count, bytes FROM chat WHERE id = 9").fetchone() == (0, None)


def test_changes_in_the_middle_of_a_backfill_are_copied(app: Connection, engine: Engine, tally: Tally) -> None:
    """Also to parents that have a value: what changes is copied, whoever has counted it."""
    changes: list[LiteralString] = [
        "UPDATE chat SET message_count = 77, bytes = 1",
        "INSERT INTO message (chat_id, size) VALUES (1, 500)",
        "UPDATE message SET chat_id = 9 WHERE chat_id = 5",
        "DELETE FROM message WHERE chat_id = 3",
    ]

    def told(progress: Progress) -> None:
        if changes and progress.what == "rows":
            app.execute(changes.pop(0))

    tally.backfill(engine, chunk_rows=10, told=told)
    assert stale(app) == [2, 4, 6, 7, 8]  # they had a value already, and their groups did not change
    tally.backfill(engine, skip_existing=False)
    assert stale(app) == []


def test_backfill_leaves_alone_what_has_a_value(app: Connection, engine: Engine, tally: Tally) -> None:
    app.execute("UPDATE chat SET message_count = 77, bytes = 1 WHERE id = 2")
    (result,) = tally.backfill(engine)
    assert (result.copied, stale(app)) == (8, [2])
    tally.backfill(engine, skip_existing=False)
    assert stale(app) == []


def test_folds_keep_the_copies(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    changes: list[LiteralString] = [
        "INSERT INTO message (chat_id, size) VALUES (9, 5), (9, 6), (NULL, 7)",
        "UPDATE message SET chat_id = 8 WHERE chat_id = 1",
        "DELETE FROM message WHERE chat_id = 2",
        "DELETE FROM message WHERE chat_id = 3; DELETE FROM chat WHERE id = 3",
        "INSERT INTO chat (id) VALUES (10); INSERT INTO message (chat_id, size) VALUES (10, 1)",
        "TRUNCATE message",
        "INSERT INTO message (chat_id, size) VALUES (4, 1)",
    ]
    for change in changes:
        app.execute(change)
        tally.fold(engine)
        assert not stale(app), change
        assert app.execute("SELECT count(*) FROM tally.by_chat__mirror").fetchone() == (0,)
        assert_exact(engine, tally)


def test_folds_write_only_what_changed(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    before = app.execute("SELECT id, ctid FROM chat ORDER BY id").fetchall()
    app.execute("INSERT INTO message (chat_id, size) VALUES (5, 1)")
    app.execute("INSERT INTO message (chat_id, size) VALUES (6, 0)")
    app.execute("DELETE FROM message WHERE chat_id = 6 AND size = 0")
    (result,) = tally.fold(engine)
    assert (result.deltas, result.copied) == (3, 2)
    after = app.execute("SELECT id, ctid FROM chat ORDER BY id").fetchall()
    assert [a[0] for a, b in zip(after, sorted(before), strict=True) if a != b] == [5]


def test_a_locked_parent_is_passed_over(
    app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]
) -> None:
    """Nobody waits: not the fold for the user's lock, and not the user for the fold, which has ended."""
    tally.backfill(engine)
    user = session()
    user.run("BEGIN").result()
    user.run("UPDATE chat SET title = 'mine' WHERE id = 1").result()
    app.execute("INSERT INTO message (chat_id, size) SELECT i, 1 FROM generate_series(1, 9) AS i")
    (result,) = tally.fold(engine)
    assert (result.copied, result.passed_over) == (8, 1)
    assert stale(app) == [1]
    assert_exact(engine, tally)
    user.run("UPDATE chat SET title = 'still mine' WHERE id = 2").result()
    user.run("COMMIT").result()
    (result,) = tally.fold(engine)
    assert (result.deltas, result.copied, result.passed_over) == (0, 1, 0)
    assert not stale(app)


def test_a_foreign_key_check_locks_no_one_out(
    app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]
) -> None:
    """The share lock that an INSERT of a child takes on its parent is no reason to pass the parent over."""
    tally.backfill(engine)
    user = session()
    user.run("BEGIN").result()
    user.run("INSERT INTO message (chat_id, size) VALUES (1, 1)").result()
    app.execute("INSERT INTO message (chat_id, size) VALUES (1, 2)")
    (result,) = tally.fold(engine)
    assert (result.copied, result.passed_over) == (1, 0)
    assert not stale(app)
    user.run("COMMIT").result()


def test_old_answers_never_replace_newer_ones(
    app: Connection, engine: Engine, tally: Tally, session: Callable[[], Session]
) -> None:
    """A pass that cannot have the fold's lock leaves its notes to the next."""
    tally.backfill(engine)
    folder = session()
    folder.run("BEGIN").result()
    folder.run("SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.by_chat', 0))").result()
    app.execute("INSERT INTO message (chat_id, size) VALUES (1, 2)")
    with pytest.raises(Exception, match="another session"):
        tally.fold(engine)
    folder.run("ROLLBACK").result()
    tally.fold(engine)
    assert not stale(app)


def test_another_session_folds_in_the_middle(
    app: Connection, database: URL, engine: Engine, tally: Tally, connect: Connect
) -> None:
    """What was counted is kept by then, so copying goes on when that one has ended."""
    tally.backfill(engine)
    app.execute("UPDATE chat SET message_count = NULL")
    mirror.note_parents(engine, "tally", "by_chat", skip_existing=True)
    folder, lock = connect(autocommit=True), "hashtextextended(%s, 0)"
    key = [fold_lock_key("tally", "by_chat")]

    def hold_once(done: int) -> None:
        if done == 1:
            folder.execute(f"SELECT pg_advisory_lock({lock})", key)

    with ExitStack() as opened:
        beside = Beside(database, connect(autocommit=True), opened)
        copying = beside.start(lambda each: mirror.copy(each, "tally", "by_chat", batch_size=1, progress=hold_once))
        copying.until_pausing()
        folder.execute(f"SELECT pg_advisory_unlock({lock})", key)
        assert copying.result() == mirror.Copied(done=9, locked=0)
    assert not stale(app)


def test_a_failing_copy_is_loud_and_loses_nothing(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    app.execute("ALTER TABLE chat ADD CONSTRAINT few CHECK (message_count < 12)")
    app.execute("INSERT INTO message (chat_id, size) SELECT 1, 1 FROM generate_series(1, 5)")
    with pytest.raises(Exception, match="few"):
        tally.fold(engine)
    assert_exact(engine, tally)
    app.execute("ALTER TABLE chat DROP CONSTRAINT few")
    tally.fold(engine)
    assert not stale(app)


def test_a_rolled_back_aggregate_goes_on_copying(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    app.execute("UPDATE tally.aggregate SET serving = 'direct'")
    app.execute("INSERT INTO message (chat_id, size) VALUES (1, 2)")
    tally.fold(engine)
    assert not stale(app)


def test_backfill_brings_all_copies_up_to_date_later(app: Connection, engine: Engine, tally: Tally) -> None:
    """Deltas that it takes in, and rows that a TRUNCATE took, were once forgotten."""
    tally.backfill(engine)
    app.execute("INSERT INTO message (chat_id, size) VALUES (1, 5), (9, 6)")
    tally.backfill(engine, force=True)
    assert not stale(app)
    app.execute("TRUNCATE message")
    tally.backfill(engine, force=True)
    assert not stale(app)
    app.execute("UPDATE tally.by_chat__state SET n = 5; INSERT INTO message (chat_id, size) VALUES (2, 1)")
    tally.backfill(engine, force=True)
    assert not stale(app)


def test_a_group_that_was_in_deltas_only(app: Connection, engine: Engine, tally: Tally) -> None:
    """Copied before it was folded, then truncated."""
    tally.backfill(engine)
    app.execute("INSERT INTO message (chat_id, size) VALUES (9, 5)")
    app.execute("INSERT INTO tally.by_chat__mirror (k1) VALUES (9)")
    app.execute("SELECT tally.by_chat__copy(0, 100)")
    assert app.execute("SELECT message_count FROM chat WHERE id = 9").fetchone() == (1,)
    app.execute("TRUNCATE message")
    tally.fold(engine)
    assert not stale(app)


def test_a_column_that_takes_no_null(app: Connection, engine: Engine) -> None:
    """The usual counter column: a missing sum is 0 there; a missing extreme would have no value."""
    app.execute("UPDATE chat SET bytes = 0; ALTER TABLE chat ALTER bytes SET NOT NULL")
    tally = declared()
    tally.install(engine)
    tally.backfill(engine, skip_existing=False)
    app.execute("DELETE FROM message WHERE chat_id = 1")
    tally.fold(engine)
    assert app.execute("SELECT message_count, bytes FROM chat WHERE id = 1").fetchone() == (0, 0)
    other = Tally(schema="other")
    query = "SELECT chat_id, max(size) AS greatest FROM message GROUP BY chat_id"
    other.grouped("bests", query, mirror={"greatest": chat.c.bytes})
    with pytest.raises(
        DeclarationError, match=r'column "bytes" of public\.chat takes no NULL, and greatest of a group'
    ):
        other.install(engine)


def test_the_right_to_update_is_asked_for_at_install(
    app: Connection, connect: Connect, database: URL, make_role: Callable[[], str]
) -> None:
    role = make_role()
    name = sql.Identifier(role)
    app.execute(
        sql.SQL("GRANT CREATE, TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(str(database.database)), name)
    )
    app.execute(sql.SQL("ALTER TABLE message OWNER TO {}; GRANT SELECT ON chat TO {}").format(name, name))
    engine = create_engine(database.set(username=role), poolclass=NullPool)
    with pytest.raises(MissingPrivilege, match=r"no right to update public\.chat"):
        declared().plan(engine)


class Base(DeclarativeBase):
    """Of the mapped classes below."""


class Reply(Base):
    """A tree: each reply counts those to it."""

    __tablename__ = "reply"
    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("reply.id"))
    replies: Mapped[int | None]


def test_a_table_can_be_its_own_parent(app: Connection, engine: Engine) -> None:
    app.execute("CREATE TABLE reply (id bigint PRIMARY KEY, parent_id bigint REFERENCES reply, replies bigint)")
    app.execute("INSERT INTO reply SELECT i, nullif(i / 2, 0) FROM generate_series(1, 20) AS i")
    tally = Tally()
    query = select(Reply.parent_id, func.count().label("replies")).group_by(Reply.parent_id)
    tally.grouped("replies", query, mirror={"replies": Reply.replies})
    tally.install(engine)
    tally.backfill(engine)
    app.execute("DELETE FROM reply WHERE id > 15")
    tally.fold(engine)
    wrong = "SELECT id FROM reply AS r WHERE replies <> (SELECT count(*) FROM reply AS c WHERE c.parent_id = r.id)"
    assert app.execute(wrong).fetchall() == []
    assert_exact(engine, tally)


def test_a_foreign_key_names_the_columns(app: Connection, engine: Engine) -> None:
    app.execute("ALTER TABLE message ADD FOREIGN KEY (code) REFERENCES chat (code) NOT VALID")
    tally = Tally()
    query = "SELECT code, count(*) AS messages FROM message GROUP BY code"
    tally.grouped("by_code", query, mirror={"messages": chat.c.message_count})
    tally.install(engine)
    tally.backfill(engine)
    found = app.execute("SELECT code, message_count FROM chat WHERE id < 4 ORDER BY id").fetchall()
    assert found == [("c1", 24), ("c2", 23), ("c3", 0)]


def test_a_changed_mirror_is_another_declaration(engine: Engine, tally: Tally) -> None:
    other = Tally()
    other.grouped("by_chat", BY_CHAT)
    with pytest.raises(DeclarationError, match="another definition"):
        other.install(engine)


def test_uninstall_leaves_the_copies(app: Connection, engine: Engine, tally: Tally) -> None:
    tally.backfill(engine)
    before = app.execute(COUNTS).fetchall()
    tally.uninstall(engine)
    assert app.execute(COUNTS).fetchall() == before
    assert app.execute("SELECT to_regclass('tally.by_chat__mirror')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("query", "mirror", "said"),
    [
        (BY_CHAT, {"messages": Column("message_count", Integer)}, "no table's column"),
        (BY_CHAT, {"mesages": chat.c.message_count}, 'of "mesages", which is no measure (has: messages, bytes)'),
        (BY_CHAT, {"messages": chat.c.bytes, "bytes": chat.c.bytes}, "two measures into one column"),
        (BY_CHAT, {"messages": chat.c.message_count, "bytes": message.c.size}, "into two tables (chat, message)"),
        ("SELECT count(*) AS messages FROM message", {"messages": chat.c.message_count}, "needs a group key"),
    ],
)
def test_refused_when_declared(query: str, mirror: dict[str, object], said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Tally().grouped("by_chat", query, mirror=mirror)
    assert said in caught.value.message


NOWHERE = Table("nowhere", MetaData(), Column("n", Integer))
LACKING = Table("chat", MetaData(), Column("unknown", Integer))


@pytest.mark.parametrize(
    ("query", "target", "said"),
    [
        (BY_CHAT, NOWHERE.c.n, 'table "nowhere" does not exist'),
        (BY_CHAT, LACKING.c.unknown, 'column "unknown" is not on public.chat (has: id, title, message_count'),
        (
            "SELECT chat_id, size, count(*) AS messages FROM message GROUP BY chat_id, size",
            chat.c.message_count, "finds no parent in public.chat: the group keys (chat_id, size) are no foreign key",
        ),
        ("SELECT id, count(*) AS messages FROM message GROUP BY id", message.c.id, "that the declaration reads"),
    ],
)  # fmt: skip
def test_refused_when_planned(app: Connection, engine: Engine, query: str, target: Column[int], said: str) -> None:
    tally = Tally()
    tally.grouped("by_chat", query, mirror={"messages": target})
    with pytest.raises(DeclarationError) as caught:
        tally.plan(engine)
    assert said in caught.value.message
