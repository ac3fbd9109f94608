"""Ordered aggregates in steps: folds that split buckets, beside readers with old snapshots, writers and TRUNCATE."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, Table, create_engine, select
from sqlalchemy.pool import NullPool

from tallystick import FoldLocked, Tally, direct_of
from tests.isolation.stage import Beside, OpenSession, ok
from tests.servers import Connection, Server
from tests.stepping import Session

SNAPSHOT: LiteralString = "BEGIN ISOLATION LEVEL REPEATABLE READ"
SERIALIZABLE: LiteralString = "BEGIN ISOLATION LEVEL SERIALIZABLE"
MANY: LiteralString = "INSERT INTO event SELECT n, 1, n, 1 FROM generate_series(101, 140) AS n"
WITHIN: LiteralString = "INSERT INTO event VALUES (100, 1, 15, 1)"  # in the midst of kept buckets
HALF_WAY: LiteralString = "SELECT FROM tally.by_at__bucket FOR UPDATE"  # catches a fold there
COUNT: LiteralString = "SELECT tally.by_at_count(1)"
BUCKETS: LiteralString = "SELECT count(*) FROM tally.by_at__bucket"
# By both halves: how many, how many after 10, the total, and how far back the last one lies.
READ: LiteralString = (
    "SELECT of, half, tally.by_at_count(of, from_source => half), tally.by_at_count(of, 10, from_source => half),"
    " tally.by_at_sum_spent(of, from_source => half), tally.by_at_rank(of, 25, from_source => half),"
    " (SELECT id FROM tally.by_at_at(of, -1, from_source => half)),"
    " (SELECT id FROM tally.by_at_at(of, 12, from_source => half))"
    " FROM generate_series(1, 2) AS of, unnest(ARRAY[false, true]) AS half ORDER BY of, half"
)
event = Table(
    "event",
    MetaData(),
    Column("id", BigInteger, primary_key=True),
    Column("user_id", Integer),
    Column("at", Integer),
    Column("minutes", Integer),
)
pytestmark = pytest.mark.usefixtures("small_buckets")


def declared() -> Tally:
    tally = Tally()
    tally.ordered("by_at", event, namespace=[event.c.user_id], key=[event.c.at], sums={"spent": event.c.minutes})
    return tally


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with 30 events of one user and 3 of another, in buckets of 4."""

    def build(connection: Connection) -> None:
        connection.execute("CREATE TABLE event (id bigint PRIMARY KEY, user_id integer, at integer, minutes integer)")
        connection.execute("INSERT INTO event SELECT n, 1, n, n FROM generate_series(1, 30) AS n")
        connection.execute("INSERT INTO event SELECT n, 2, n, n FROM generate_series(31, 33) AS n")
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        with pytest.MonkeyPatch.context() as small:
            small.setattr("tallystick.compiler.buckets.ITEMS", 4)
            small.setattr("tallystick.compiler.buckets.PLACES", 3)
            declared().install(engine)
        declared().backfill(engine)

    return server.template("ordered events", build)


@pytest.fixture
def tally() -> Tally:
    return declared()


@pytest.fixture
def small_buckets() -> Iterator[None]:
    """What is installed in a test has buckets as small as the template's."""
    with pytest.MonkeyPatch.context() as small:
        small.setattr("tallystick.compiler.buckets.ITEMS", 4)
        small.setattr("tallystick.compiler.buckets.PLACES", 3)
        yield


def exact(*sessions: Session) -> None:
    """Both halves answer alike, in whatever transaction each session is."""
    for each in sessions:
        rows = ok(each, READ)
        assert [row[2:] for row in rows[::2]] == [row[2:] for row in rows[1::2]]
        assert ok(each, "SELECT * FROM tally.by_at__check() WHERE kept <> direct") == []


def counted(session: Session) -> int:
    ((n,),) = ok(session, COUNT)
    return int(n)


@pytest.mark.parametrize("begin", [SNAPSHOT, SERIALIZABLE])
def test_a_fold_splits_buckets_within_a_reader(
    session: OpenSession, beside: Beside, tally: Tally, begin: LiteralString
) -> None:
    reader, writer = session(), session()
    before = ok(reader, begin, READ)
    ((places,),) = ok(writer, BUCKETS)
    ok(writer, MANY, "DELETE FROM event WHERE id BETWEEN 5 AND 20")
    assert [result.deltas for result in beside.run(tally.fold)] == [56]
    ((now,),) = ok(writer, BUCKETS)
    assert now > places
    assert ok(reader, READ) == before
    exact(reader, writer)
    assert (counted(reader), counted(writer)) == (30, 54)
    ok(reader, "COMMIT")
    exact(reader)
    assert counted(reader) == 54


def test_a_fold_between_two_statements_of_a_reader(session: OpenSession, beside: Beside, tally: Tally) -> None:
    reader, writer = session(), session()
    ok(reader, "BEGIN")
    ok(writer, MANY)
    before = ok(reader, READ)
    beside.run(tally.fold)
    assert ok(reader, READ) == before
    assert counted(reader) == 70
    exact(reader)


def test_writers_append_at_the_end_while_a_fold_runs(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """Nobody waits for anybody: not the writers for each other nor for the fold, which is caught half-way."""
    holder, first, second, reader = session(), session(), session(), session()
    ok(first, MANY, WITHIN)
    ok(holder, "BEGIN", HALF_WAY)
    fold = beside.start(tally.fold).until_settled()
    assert fold.is_waiting
    ok(first, "BEGIN", "INSERT INTO event VALUES (201, 1, 201, 1)")
    ok(second, "BEGIN", "INSERT INTO event VALUES (202, 1, 201, 1)", "COMMIT")
    exact(first, second, reader)
    ok(holder, "COMMIT")
    assert [result.deltas for result in fold.result()] == [41]
    ok(first, "COMMIT")
    exact(first, second, reader)
    assert counted(reader) == 73
    assert [result.deltas for result in beside.run(tally.fold)] == [2]
    exact(reader)


def test_moves_beside_a_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """Primary key and namespace change; the fold passes over what is not committed."""
    writer, other = session(), session()
    ok(writer, "BEGIN", "UPDATE event SET user_id = 2 WHERE id <= 12", "UPDATE event SET id = id + 500 WHERE id > 20")
    ok(other, "INSERT INTO event VALUES (601, 2, 7, 1)")
    assert [result.deltas for result in beside.run(tally.fold)] == [1]
    assert (counted(writer), counted(other)) == (18, 30)
    exact(writer, other)
    ok(writer, "COMMIT")
    exact(writer, other)
    assert counted(other) == 18
    beside.run(tally.fold)
    exact(writer, other)


def test_a_writer_that_commits_after_the_snapshot_of_a_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    holder, long, reader = session(), session(), session()
    ok(long, "BEGIN", "INSERT INTO event VALUES (300, 1, 15, 5)", "DELETE FROM event WHERE id = 3")
    ok(reader, "INSERT INTO event VALUES (301, 1, 16, 6)")
    ok(holder, "BEGIN", HALF_WAY)
    fold = beside.start(tally.fold).until_settled()
    assert fold.is_waiting
    ok(long, "COMMIT")
    ok(holder, "COMMIT")
    assert [result.deltas for result in fold.result()] == [1]
    exact(long, reader)
    assert counted(reader) == 31
    assert [result.deltas for result in beside.run(tally.fold)] == [2]
    exact(long, reader)
    assert counted(reader) == 31


def test_truncate_waits_for_a_reader_who_has_been_in_the_table(
    session: OpenSession, beside: Beside, tally: Tally
) -> None:
    reader, owner, writer = session(), session(), session()
    assert ok(reader, SNAPSHOT, COUNT) == [(30,)]
    truncate = owner.run("TRUNCATE event")
    assert truncate.waiting
    exact(reader)
    ok(reader, "COMMIT")
    truncate.result()
    exact(reader, writer)
    assert counted(writer) == 0
    ok(writer, MANY)
    exact(reader, writer)
    beside.run(tally.fold)
    exact(reader, writer)
    assert counted(writer) == 40


def test_an_older_snapshot_finds_an_emptied_table(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """As PostgreSQL has it: TRUNCATE empties the table for snapshots from before, too. The kept half follows."""
    reader, owner = session(), session()
    ok(reader, SNAPSHOT, "SELECT 1")
    ok(owner, "TRUNCATE event", "INSERT INTO event VALUES (1, 1, 1, 1)")
    exact(reader, owner)
    assert (counted(reader), counted(owner)) == (0, 1)
    beside.run(tally.fold)
    exact(reader, owner)
    assert (counted(reader), counted(owner)) == (0, 1)


def test_an_open_truncate_keeps_reader_and_fold_waiting(session: OpenSession, beside: Beside, tally: Tally) -> None:
    owner, reader = session(), session()
    ok(owner, "BEGIN", "TRUNCATE event", "INSERT INTO event VALUES (1, 1, 1, 1), (2, 1, 2, 2)")
    exact(owner)
    read = reader.run(COUNT)
    fold = beside.start(tally.fold).until_settled()
    assert (read.waiting, fold.is_waiting) == (True, True)
    ok(owner, "COMMIT")
    assert fold.result() != []
    # Its snapshot is from before, when the table had 30 rows; they are gone all the same.
    assert read.result() == [(0,)]
    exact(owner, reader)
    assert counted(reader) == 2


def test_verify_waits_for_an_open_truncate(session: OpenSession, beside: Beside, tally: Tally) -> None:
    owner = session()
    ok(owner, MANY)
    beside.run(tally.fold)
    ok(owner, "BEGIN", "TRUNCATE event", "INSERT INTO event VALUES (1, 1, 1, 1)")
    verify = beside.start(tally.verify).until_settled()
    assert verify.is_waiting
    ok(owner, "COMMIT")
    assert [report.status for report in verify.result()] == ["exact"]


def test_a_truncate_that_is_rolled_back(session: OpenSession, beside: Beside, tally: Tally) -> None:
    owner, reader = session(), session()
    ok(owner, MANY, "BEGIN", "TRUNCATE event")
    exact(owner)
    assert counted(owner) == 0
    ok(owner, "ROLLBACK")
    exact(owner, reader)
    beside.run(tally.fold)
    exact(owner, reader)
    assert counted(reader) == 70


def test_truncate_waits_for_a_fold(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """The fold has the source locked before its snapshot is taken."""
    holder, owner, writer = session(), session(), session()
    ok(writer, MANY, WITHIN)
    ok(holder, "BEGIN", HALF_WAY)
    fold = beside.start(tally.fold).until_settled()
    truncate = owner.run("TRUNCATE event")
    assert (fold.is_waiting, truncate.waiting) == (True, True)
    ok(holder, "COMMIT")
    fold.result()
    truncate.result()
    exact(owner, writer)
    assert counted(owner) == 0


def test_two_folds_at_once(session: OpenSession, beside: Beside, tally: Tally) -> None:
    holder, writer = session(), session()
    ok(writer, MANY, WITHIN)
    ok(holder, "BEGIN", HALF_WAY)
    first = beside.start(tally.fold).until_settled()
    assert first.is_waiting
    with pytest.raises(FoldLocked, match="by_at"):
        beside.run(tally.fold)
    exact(writer)
    ok(holder, "COMMIT")
    assert [result.deltas for result in first.result()] == [41]
    assert [result.deltas for result in beside.run(tally.fold)] == [0]
    exact(writer)


def test_a_backfill_beside_writers(session: OpenSession, beside: Beside, tally: Tally) -> None:
    """It waits for nobody, and what commits after its snapshot is neither lost nor counted twice."""
    long, short = session(), session()
    ok(long, "BEGIN", "INSERT INTO event VALUES (300, 1, 15, 5)", "UPDATE event SET at = 40 WHERE id < 9")
    ok(short, MANY)
    beside.run(lambda engine: tally.backfill(engine, force=True))
    exact(long, short)
    assert (counted(long), counted(short)) == (71, 70)
    ok(long, "DELETE FROM event WHERE id BETWEEN 110 AND 120", "COMMIT")
    exact(long, short)
    assert counted(short) == 60
    beside.run(tally.fold)
    exact(long, short)
    assert counted(short) == 60


@pytest.mark.parametrize("folds", [False, True])
def test_serializable_readers_conflict_over_what_they_counted(
    session: OpenSession, beside: Beside, tally: Tally, folds: bool
) -> None:
    """Each writes because of what it has counted; of two such, one fails."""
    first, second = session(), session()
    count: LiteralString = "SELECT tally.by_at_count(2)"
    assert ok(first, SERIALIZABLE, count) == ok(second, SERIALIZABLE, count) == [(3,)]
    ok(first, "INSERT INTO event VALUES (401, 2, 50, 1)", "COMMIT")
    if folds:
        beside.run(tally.fold)
    with pytest.raises(psycopg.errors.SerializationFailure):
        ok(second, "INSERT INTO event VALUES (402, 2, 50, 1)", "COMMIT")
    ok(second, "ROLLBACK")
    exact(first, second)
    assert ok(second, count) == [(4,)]


def test_values_of_both_halves_are_of_one_snapshot(session: OpenSession, engine: Engine, tally: Tally) -> None:
    writer = session()
    count = tally.orders["by_at"].count(1)
    with engine.connect() as connection:
        ok(writer, "BEGIN", MANY)
        assert connection.execute(select(count, direct_of(count))).one() == (30, 30)
        ok(writer, "COMMIT")
        assert connection.execute(select(count, direct_of(count))).one() == (70, 70)
