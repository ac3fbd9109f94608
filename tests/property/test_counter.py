"""A counter is a dictionary of numbers, whatever is done to it, in whatever transaction, with folds between."""

from collections import Counter as Numbers
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.pool import NullPool

from tallystick import Counter, Tally
from tests.servers import Server

KEYS = st.sampled_from(["", "a", "b", "hot"])
NUMBERS = st.integers(-1000, 1000) | st.integers(-(2**40), 2**40)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["add", "subtract", "set"]), KEYS, NUMBERS),
        st.tuples(st.sampled_from(["inc", "dec", "reset", "rebalance"]), KEYS),
        st.tuples(st.just("add_many"), st.dictionaries(KEYS, NUMBERS)),
        st.tuples(st.sampled_from(["commit", "rollback", "fold", "shards"])),
    ),
    max_size=25,
)
LEVELS = st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])


@pytest.fixture(scope="module")
def engine(server: Server) -> Iterator[Engine]:
    name = server.create_database(server.template("empty"))
    engine = create_engine(server.url(name), poolclass=NullPool)
    yield engine
    server.drop_database(name)


def apply(numbers: "Numbers[str]", step: tuple[object, ...]) -> None:
    match step:
        case ("add", str(key), int(n)):
            numbers[key] += n
        case ("subtract", str(key), int(n)):
            numbers[key] -= n
        case ("inc", str(key)):
            numbers[key] += 1
        case ("dec", str(key)):
            numbers[key] -= 1
        case ("set", str(key), int(n)):
            numbers[key] = n
        case ("reset", str(key)):
            numbers[key] = 0
        case ("add_many", dict(added)):
            for key, n in added.items():
                numbers[key] += n


def check(connection: Connection, counter: Counter, numbers: "Numbers[str]") -> None:
    keys = ["", "a", "b", "hot", "unknown"]
    assert connection.execute(counter.counts(keys)).all() == [(key, numbers[key]) for key in keys]
    assert connection.scalars(counter.keys()).all() == sorted(key for key, n in numbers.items() if n)
    full = select(*(counter.estimate(key, shards_read=100).label(f"k{i}") for i, key in enumerate(keys)))
    assert connection.execute(full).one() == tuple(numbers[key] for key in keys)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, level=LEVELS, shards=st.integers(1, 5))
def test_a_counter_is_a_dictionary(engine: Engine, steps: list[tuple[object, ...]], level: str, shards: int) -> None:
    tally = Tally()
    counter = tally.counter("numbers", shards=shards, shards_for={"hot": 7})
    tally.install(engine)
    fewer = Tally()
    fewer.counter("numbers", shards=2)
    committed: Numbers[str] = Numbers()
    try:
        with engine.connect().execution_options(isolation_level=level) as connection:
            numbers = committed.copy()
            for step in steps:
                if step[0] in ("commit", "rollback", "fold", "shards"):
                    if step[0] == "rollback":
                        connection.rollback()
                        numbers = committed.copy()
                    else:
                        connection.commit()
                        committed = numbers.copy()
                    if step[0] == "fold":
                        tally.fold(engine)
                    elif step[0] == "shards":
                        fewer.install(engine)
                else:
                    name, *arguments = step
                    connection.execute(getattr(counter, str(name))(*arguments))
                    apply(numbers, step)
                check(connection, counter, numbers)
    finally:
        tally.uninstall(engine)
