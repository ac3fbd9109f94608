"""Adds to a counter wait for nobody and deadlock with nobody; sets, rebalances and folds beside them are exact."""

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import Engine, column, func, select, table, text

from tallystick import Counter, Tally
from tallystick.maintain import schedule
from tallystick.store import events
from tallystick.store.connection import transaction
from tests.conftest import Connect
from tests.isolation.stage import Beside, OpenSession, ok
from tests.isolation.test_writers import BEGINS, LEVELS
from tests.servers import Server

COUNT: LiteralString = "SELECT coalesce((SELECT count FROM tally.clicks WHERE key = 'k'), 0)"
ROWS: LiteralString = "SELECT count(*) FROM tally.counter_shard WHERE key = 'k'"
ADD: LiteralString = "SELECT tally.counter_add('clicks', 'k', 1)"
ADD_L: LiteralString = "SELECT tally.counter_add('clicks', 'l', 1)"
TEN: LiteralString = "SELECT tally.counter_add('clicks', 'k', 10)"
SET_5: LiteralString = "SELECT tally.counter_set('clicks', 'k', 5)"
SET_7: LiteralString = "SELECT tally.counter_set('clicks', 'k', 7)"
RESET: LiteralString = "SELECT tally.counter_set('clicks', 'k', 0)"
REBALANCE: LiteralString = "SELECT tally.counter_rebalance('clicks', 'k')"
ABOVE = LEVELS[1:]


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """An empty database."""
    return server.template("empty")


@pytest.fixture
def tally(engine: Engine) -> Tally:
    tally = Tally()
    tally.counter("clicks", shards=3)
    tally.install(engine)
    return tally


@pytest.fixture
def clicks(tally: Tally) -> Counter:
    return tally.counters["clicks"]


@pytest.mark.parametrize("begin", [1, 100])
@pytest.mark.parametrize("level", LEVELS)
def test_adds_of_open_transactions(session: OpenSession, beside: Beside, tally: Tally, level: str, begin: int) -> None:
    sessions = [session() for _ in range(7)]
    ok(sessions[0], *[ADD] * 3)
    for _ in range(begin // 50 + 1):
        for each in sessions:
            ok(each, BEGINS[level], ADD, TEN, ADD)
        assert ok(sessions[0], COUNT)[0][0] % 12 == 3
        for each in sessions[:5]:
            ok(each, "COMMIT")
        for each in sessions[5:]:
            ok(each, "ROLLBACK")
    [(count,)] = ok(sessions[0], COUNT)
    assert count == 3 + 5 * 12 * (begin // 50 + 1)
    beside.run(tally.fold)
    assert ok(sessions[0], COUNT, ROWS)[0][0] <= 3
    assert ok(sessions[0], COUNT) == [(count,)]


@pytest.mark.parametrize("level", LEVELS)
def test_keys_in_opposite_order(session: OpenSession, tally: Tally, level: str) -> None:
    first, second = session(), session()
    ok(first, ADD, ADD_L)
    ok(first, BEGINS[level], ADD)
    ok(second, BEGINS[level], ADD_L)
    ok(first, ADD_L)
    ok(second, ADD, "COMMIT")
    ok(first, "COMMIT")
    assert ok(first, "SELECT key, count FROM tally.clicks ORDER BY key") == [("k", 3), ("l", 3)]


@pytest.mark.parametrize("level", LEVELS)
def test_an_add_over_rows_changed_since_the_snapshot(session: OpenSession, tally: Tally, level: str) -> None:
    first, second = session(), session()
    ok(second, *[ADD] * 9)
    ok(first, BEGINS[level], "SELECT 1 FROM pg_class LIMIT 1")
    ok(second, *[ADD] * 9, REBALANCE, *[ADD] * 3)
    ok(first, ADD, ADD)
    ok(second, ADD)
    ok(first, "COMMIT")
    assert ok(first, COUNT) == [(24,)]


def test_an_open_transaction_keeps_to_its_row(session: OpenSession, tally: Tally) -> None:
    for begin in (BEGINS["READ COMMITTED"], BEGINS["REPEATABLE READ"]):
        first = session()
        ok(first, RESET, begin, *[ADD] * 20, "SAVEPOINT s", *[ADD] * 3, "ROLLBACK TO s", ADD, "COMMIT")
        assert ok(first, COUNT) == [(21,)]
        assert ok(first, ROWS)[0][0] == 1


@pytest.mark.parametrize("adds_first", [True, False])
@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("ends_first", ["add", "set"])
@pytest.mark.parametrize("statement", [SET_5, RESET])
def test_set_beside_add(
    session: OpenSession, beside: Beside, tally: Tally, statement: LiteralString, ends_first: str, *, adds_first: bool,
    commits: bool,
) -> None:  # fmt: skip
    adder, setter, reader = session(), session(), session()
    ok(reader, *[ADD] * 6)
    ok(adder, "BEGIN")
    ok(setter, "BEGIN")
    for each, what in [(adder, TEN), (setter, statement)][:: 1 if adds_first else -1]:
        ok(each, what)
    n = 5 if statement is SET_5 else 0
    assert ok(setter, COUNT) == [(n,)]
    assert ok(adder, COUNT) == [(16,)]
    end = "COMMIT" if commits else "ROLLBACK"
    if ends_first == "add":
        ok(adder, end)
        assert ok(setter, COUNT) == [(n + 10 * commits,)]
        ok(setter, "COMMIT")
    else:
        ok(setter, "COMMIT")
        assert ok(reader, COUNT) == [(n,)]
        ok(adder, end)
    for _ in range(2):
        assert ok(reader, COUNT) == [(n + 10 * commits,)]
        assert ok(reader, "SELECT count(*) FROM tally.clicks") == [(int(n + 10 * commits > 0),)]
        beside.run(tally.fold)


def test_a_set_that_is_rolled_back(session: OpenSession, tally: Tally) -> None:
    adder, setter = session(), session()
    ok(adder, *[ADD] * 6)
    ok(setter, "BEGIN", SET_5)
    ok(adder, ADD)
    ok(setter, "ROLLBACK")
    assert ok(adder, COUNT) == [(7,)]


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("commits", [True, False])
def test_overlapping_sets(session: OpenSession, tally: Tally, *, is_new: bool, commits: bool) -> None:
    first, second = session(), session()
    if not is_new:
        ok(first, ADD, SET_7, ADD)
    ok(first, "BEGIN", SET_5)
    ok(second, "BEGIN", ADD)
    waits = second.run(SET_7)
    assert waits.waiting
    ok(first, ADD, "COMMIT" if commits else "ROLLBACK")
    waits.result()
    ok(second, TEN, "COMMIT")
    assert ok(first, COUNT) == [(17,)]


@pytest.mark.parametrize("level", ABOVE)
@pytest.mark.parametrize("is_new", [True, False])
def test_overlapping_sets_in_old_snapshots(session: OpenSession, tally: Tally, level: str, *, is_new: bool) -> None:
    first, second = session(), session()
    if not is_new:
        ok(first, SET_7)
    ok(second, BEGINS[level], COUNT)
    ok(first, SET_5)
    with pytest.raises(psycopg.errors.SerializationFailure):
        ok(second, SET_7)
    ok(second, "ROLLBACK", BEGINS[level], SET_7, "COMMIT")
    assert ok(first, COUNT) == [(7,)]


def test_set_in_an_old_snapshot_beside_adds(session: OpenSession, beside: Beside, tally: Tally) -> None:
    first, second = session(), session()
    ok(first, *[ADD] * 4)
    ok(second, BEGINS["REPEATABLE READ"], COUNT)
    ok(first, TEN, REBALANCE)
    ok(second, ADD, SET_7)
    assert ok(second, COUNT) == [(7,)]
    ok(second, ADD, "COMMIT")
    assert ok(first, COUNT) == [(18,)]
    beside.run(tally.fold)
    assert ok(first, COUNT) == [(18,)]


def test_sets_of_different_keys_do_not_meet(session: OpenSession, tally: Tally) -> None:
    first, second = session(), session()
    ok(first, "BEGIN", SET_5)
    ok(second, "BEGIN", "SELECT tally.counter_set('clicks', 'l', 1)", "COMMIT")
    ok(first, "COMMIT")
    assert ok(first, "SELECT key, count FROM tally.clicks ORDER BY key") == [("k", 5), ("l", 1)]


@pytest.mark.parametrize("ends_first", ["add", "rebalance"])
def test_rebalance_beside_add(session: OpenSession, beside: Beside, tally: Tally, ends_first: str) -> None:
    adder, other = session(), session()
    ok(other, SET_7)
    ok(adder, "BEGIN", TEN)
    ok(other, "BEGIN", REBALANCE)
    ok(adder, ADD)
    sessions = [adder, other] if ends_first == "add" else [other, adder]
    ok(sessions[0], "COMMIT")
    ok(sessions[1], "COMMIT")
    assert ok(other, COUNT) == [(18,)]
    ok(other, REBALANCE)
    assert ok(other, "SELECT value::int FROM tally.counter_shard ORDER BY shard") == [(6,), (6,), (6,)]


def test_fold_beside_open_adds_of_every_level(session: OpenSession, beside: Beside, tally: Tally) -> None:
    sessions = [session() for _ in range(6)]
    reader = session()
    ok(reader, *[ADD] * 4)
    for each, level in zip(sessions, LEVELS * 2, strict=True):
        ok(each, BEGINS[level], ADD)
    for each in sessions[:3]:
        ok(each, "COMMIT")
    beside.run(tally.fold)
    assert ok(reader, COUNT) == [(7,)]
    for each in sessions[3:]:
        ok(each, TEN)
        beside.run(tally.fold)
        ok(each, ADD, "COMMIT")
        beside.run(tally.fold)
    assert ok(reader, COUNT) == [(43,)]
    beside.run(tally.fold)
    assert ok(reader, ROWS)[0][0] <= 3


def test_adds_beside_an_open_fold(session: OpenSession, tally: Tally) -> None:
    folder, adder, old = session(), session(), session()
    ok(adder, *[ADD] * 8)
    ok(old, BEGINS["REPEATABLE READ"], COUNT)
    ok(folder, "BEGIN", "SELECT tally.counter_fold('clicks', NULL, 10)")
    ok(adder, ADD, "BEGIN", SET_7)  # rows that the fold holds are offset
    ok(old, ADD, "COMMIT")
    ok(folder, "COMMIT")
    ok(adder, "COMMIT")
    assert ok(adder, COUNT) == [(8,)]
    ok(folder, "SELECT tally.counter_fold('clicks', NULL, 10)")
    assert ok(adder, COUNT) == [(8,)]


def test_fewer_shards_beside_open_adds(session: OpenSession, beside: Beside, tally: Tally) -> None:
    adder, reader = session(), session()
    ok(reader, SET_7)
    ok(adder, "BEGIN", ADD)
    fewer = Tally()
    fewer.counter("clicks", shards=1)
    beside.run(fewer.install)
    ok(reader, ADD)
    beside.run(fewer.fold)
    ok(adder, ADD, "COMMIT")
    assert ok(reader, COUNT) == [(10,)]
    beside.run(fewer.fold)
    assert ok(reader, ROWS) == [(1,)]
    assert ok(reader, COUNT) == [(10,)]


def test_a_writer_that_is_killed(session: OpenSession, connect: Connect, beside: Beside, tally: Tally) -> None:
    victim, reader = connect(), session()
    ok(reader, SET_7)
    victim.execute(ADD)
    victim.execute("SELECT tally.counter_set('clicks', 'l', 9)")
    assert ok(reader, COUNT) == [(7,)]
    reader.run("SELECT pg_terminate_backend(%s, 10000)", [victim.info.backend_pid]).result()
    ok(reader, ADD, "SELECT tally.counter_set('clicks', 'l', 1)", REBALANCE)
    assert ok(reader, "SELECT key, count FROM tally.clicks ORDER BY key") == [("k", 8), ("l", 1)]
    assert ok(reader, ROWS) == [(3,)]


def test_a_prepared_transaction_is_waited_for_by_no_add(session: OpenSession, beside: Beside, tally: Tally) -> None:
    first, second = session(), session()
    ok(first, "BEGIN", ADD, "PREPARE TRANSACTION 'adds'")
    ok(second, ADD, ADD, SET_5)
    beside.run(tally.fold)
    ok(first, "COMMIT PREPARED 'adds'")
    assert ok(second, COUNT) == [(6,)]


def test_backfill_beside_writers_and_sets(session: OpenSession, beside: Beside, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE hit (page text)"))
        connection.execute(text("INSERT INTO hit SELECT 'k' FROM generate_series(1, 6)"))
    hit = table("hit", column("page"))
    tally = Tally()
    tally.counter("clicks", shards=3, direct=select(hit.c.page, func.count()).group_by(hit.c.page))
    tally.install(engine)
    writer, setter = session(), session()
    ok(writer, "BEGIN", "INSERT INTO hit VALUES ('k')", ADD)
    ok(setter, "BEGIN", SET_5)
    backfill = beside.start(tally.backfill).until_settled()
    assert backfill.is_waiting
    ok(setter, "COMMIT")
    assert backfill.result()[0].groups == 1
    assert ok(setter, COUNT) == [(6,)]
    ok(writer, "COMMIT")
    assert ok(setter, COUNT) == [(7,)]
    assert tally.verify(engine)[0].is_exact
    ok(setter, BEGINS["REPEATABLE READ"], COUNT)
    ok(writer, ADD)
    beside.run(tally.backfill)
    with pytest.raises(psycopg.errors.SerializationFailure):
        ok(setter, SET_5)
    assert tally.verify(engine)[0].is_exact


def test_a_drift_is_over_when_the_counter_is_backfilled(engine: Engine, session: OpenSession) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE hit (page text)"))
    hit = table("hit", column("page"))
    tally = Tally()
    tally.counter("clicks", direct=select(hit.c.page, func.count()).group_by(hit.c.page))
    tally.install(engine)
    schedule.add(engine, "tally", "nightly", "0 0 * * *", "verify", "clicks")
    ok(session(), ADD, "UPDATE tally.schedule SET due_at = now()")
    done = schedule.run_if_due(engine, "tally", "nightly")
    assert done is not None
    assert [report.drifted for report in done.reports] == [1]
    with transaction(engine, read_only=True) as cursor:
        assert list(events.drifting(cursor, "tally")) == ["clicks"]
    tally.backfill(engine)
    with transaction(engine, read_only=True) as cursor:
        assert list(events.drifting(cursor, "tally")) == []


def test_32_writers_with_open_transactions(
    session: OpenSession, beside: Beside, tally: Tally, clicks: Counter, engine: Engine
) -> None:
    sessions = [session() for _ in range(32)]
    for number, each in enumerate(sessions):
        order = [ADD, ADD_L] if number % 2 else [ADD_L, ADD]
        ok(each, "BEGIN", *order, *order)
    for number, each in enumerate(sessions):
        ok(each, "ROLLBACK" if number % 4 == 0 else "COMMIT")
    with engine.connect() as connection:
        assert connection.execute(clicks.counts(["k", "l"])).all() == [("k", 48), ("l", 48)]
        [result] = beside.run(tally.fold)
        assert (result.groups, result.deltas >= 40) == (2, True)
        assert connection.execute(clicks.counts(["k", "l"])).all() == [("k", 48), ("l", 48)]
    assert ok(sessions[0], ROWS)[0][0] <= 3


def test_serializable_adds_never_conflict(session: OpenSession, tally: Tally) -> None:
    """They read nothing of the counter, so that no two can depend on each other."""
    sessions = [session() for _ in range(4)]
    ok(sessions[0], SET_7)
    for each in sessions:
        ok(each, BEGINS["SERIALIZABLE"], ADD, ADD_L)
    for each in reversed(sessions):
        ok(each, ADD_L, ADD)
    for each in sessions:
        ok(each, "COMMIT")
    assert ok(sessions[0], COUNT) == [(15,)]


def test_uninstall_waits_for_no_add_and_is_told_of_readers(
    session: OpenSession, beside: Beside, tally: Tally, connect: Callable[..., object]
) -> None:
    adder, reader = session(), session()
    ok(adder, "BEGIN", ADD)
    ok(reader, "BEGIN", COUNT)
    removal = beside.start(tally.uninstall).until_pausing()
    ok(adder, ADD)
    ok(reader, COUNT, "COMMIT")
    assert removal.result() == ["clicks"]
    ok(adder, "COMMIT")
    beside.run(tally.install)
    assert ok(reader, COUNT) == [(0,)]
