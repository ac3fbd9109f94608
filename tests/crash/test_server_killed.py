"""kill -9 of the server under load, again and again: nothing committed is lost, and kept equals direct.

`make crash` does it 20 times on each version; TALLY_KILLS says how often.
"""

import os
import random
from collections.abc import Callable, Iterator
from functools import partial

import psutil  # type: ignore[import-untyped]
import pytest
from psycopg import sql
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tests.conftest import RELEASES
from tests.crash import world
from tests.crash.world import Load, Repeated
from tests.servers import DURABLE, Connection, Release, Server, Servers

KILLS = int(os.environ.get("TALLY_KILLS", "3"))
# Checkpoints and vacuums all the time, so that recovery begins anywhere.
SETTINGS = f"""
{DURABLE}
max_wal_size = 32MB
autovacuum_naptime = 1s
"""
Operation = Callable[[Engine, Tally], object]


def _reinstall(engine: Engine, _: Tally) -> None:
    coming = world.coming_and_going()
    coming.install(engine)
    coming.backfill(engine, chunk_rows=20)
    coming.uninstall(engine)


def _repair(engine: Engine, tally: Tally) -> None:
    world.damage(engine)
    tally.repair(engine, only=[*world.DAMAGE])


# What runs again and again, beside folds, when the server is killed: over the aggregates that stay, and one that comes.
OPERATIONS: dict[str, Operation] = {
    "fold": lambda engine, tally: tally.fold(engine),
    "backfill": lambda engine, tally: tally.backfill(engine, force=True, chunk_rows=300, workers=2),
    "verify": lambda engine, tally: tally.verify(engine),
    "install, backfill, uninstall": _reinstall,
    "redefine": lambda engine, _: world.there_and_back(engine),
    "repair": _repair,
}


@pytest.fixture(scope="module", params=RELEASES, ids=lambda release: f"pg{release.major}")
def durable(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of these tests' own, whose commits survive a power cut."""
    release: Release = request.param
    running = Servers(SETTINGS)
    try:
        yield running.get(release)
    finally:
        running.close()


@pytest.fixture
def engine(durable: Server) -> Iterator[Engine]:
    """Over a database of the test's own."""
    engine = create_engine(durable.url(durable.create_database("template1")), poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def connect(durable: Server, engine: Engine) -> Callable[[], Connection]:
    """Open connections to the same."""
    assert engine.url.database is not None
    return partial(durable.connect, engine.url.database)


def kill_a_backend(load: Load) -> None:
    """End the process of one writer; the postmaster ends all others and recovers."""
    psutil.Process(random.choice(load.backends)).kill()


@pytest.mark.slow
def test_killed_under_load(durable: Server, engine: Engine, connect: Callable[[], Connection]) -> None:
    tally = world.build(engine, connect())
    world.narrow.install(engine)
    world.narrow.backfill(engine)
    committed: set[int] = set()
    names = random.sample(list(OPERATIONS), len(OPERATIONS))
    for number in range(KILLS):
        name = names[number % len(names)]
        operation = partial(OPERATIONS[name], engine, tally)
        running, folding = Repeated(operation), Repeated(partial(tally.fold, engine))
        running.until_begun()
        load = Load(connect)
        load.until_committed(random.randint(20, 300))
        if number % 2 == 0:
            world.cut_power(durable.cluster)
        else:
            kill_a_backend(load)
        committed |= load.end()
        folding.stop()
        running.stop()
        durable.cluster.ensure()
        if name == "repair":  # of what was damaged last
            tally.repair(engine, only=[*world.DAMAGE])
        world.check(engine, tally, committed)
        world.check_authors(engine)
        tally.backfill(engine)  # goes on with what was begun
        world.check(engine, tally, committed)
        operation()
        world.check_copies(engine, tally)
        world.check(engine, tally, committed)
        world.check_authors(engine)


def test_prepared_transactions_outlive_the_server(
    durable: Server, engine: Engine, connect: Callable[[], Connection]
) -> None:
    """Their deltas come and go with them, though everything before was folded meanwhile."""
    tally = world.build(engine, connect())
    for name in ("kept", "dropped"):
        with connect() as connection:
            connection.execute("INSERT INTO message (chat_id, author, size) VALUES (1, 'two phases', 1000)")
            connection.execute("DELETE FROM message WHERE size = 49 AND (id %% 2 = 0) = %s", [name == "kept"])
            connection.execute(world.ADD, {"key": "a", "n": 1000})
            connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(name))
    world.cut_power(durable.cluster)
    durable.cluster.ensure()
    world.check(engine, tally, set())
    tally.fold(engine)
    world.check(engine, tally, set())
    with connect() as connection:
        connection.autocommit = True
        connection.execute("COMMIT PREPARED 'kept'")
        connection.execute("ROLLBACK PREPARED 'dropped'")
    world.check(engine, tally, set())
    tally.backfill(engine, force=True, chunk_rows=300)
    world.check(engine, tally, set())
    world.check_copies(engine, tally)
    world.check(engine, tally, set())
