"""Many writers at once, with folds and rebalances beside them: nothing is lost, waited for or refused."""

import random
from collections import Counter as Numbers
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import QueuePool

from tallystick import Tally
from tests.servers import Server

WRITERS = 12
TRANSACTIONS = 60
KEYS = ("a", "b", "c")
LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """An empty database."""
    return server.template("empty")


def test_writers_folds_and_rebalances_at_once(engine: Engine) -> None:
    tally = Tally()
    counter = tally.counter("clicks", shards=4)
    tally.install(engine)
    pooled = create_engine(engine.url, poolclass=QueuePool, pool_size=WRITERS + 2)
    done = Event()

    def write(seed: int) -> "Numbers[str]":
        chance, committed = random.Random(seed), Numbers[str]()
        with pooled.connect() as connection:
            for _ in range(TRANSACTIONS):
                connection.execution_options(isolation_level=chance.choice(LEVELS) if seed % 3 == 0 else LEVELS[0])
                added = Numbers[str]()
                for _ in range(chance.randint(1, 4)):
                    key, n = chance.choice(KEYS), chance.randint(-50, 100)
                    # Whoever waits for another's lock fails.
                    connection.execute(text("SET LOCAL lock_timeout = '2s'"))
                    connection.execute(counter.add(key, n))
                    added[key] += n
                if chance.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    committed.update(added)
        return committed

    def mend() -> int:
        rounds = 0
        while not done.is_set():
            tally.fold(engine)
            with pooled.begin() as connection:
                connection.execute(counter.rebalance(KEYS[rounds % 3]))
            rounds += 1
        return rounds

    with ThreadPoolExecutor(max_workers=WRITERS + 1) as threads:
        mending = threads.submit(mend)
        writing = [threads.submit(write, seed) for seed in range(WRITERS)]
        try:
            expected = Numbers[str]()
            for each in writing:
                expected.update(each.result())
        finally:
            done.set()
        assert mending.result() > 0
    tally.fold(engine)
    with pooled.connect() as connection:
        assert connection.execute(counter.counts(KEYS)).all() == [(key, expected[key]) for key in KEYS]
        stored = connection.scalar(
            text("SELECT max(n) FROM (SELECT count(*) AS n FROM tally.counter_shard GROUP BY key) AS f")
        )
        assert stored <= 4
    pooled.dispose()
