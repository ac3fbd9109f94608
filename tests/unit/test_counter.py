"""Declarations of counters, and what is refused before any SQL runs."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text, column, func, select
from sqlalchemy.dialects import postgresql

from tallystick import Counter, DeclarationError, Tally, UsageError

holder = Table("holder", MetaData(), Column("token", Text))
TOTAL = select(func.count()).select_from(holder)
BY_TOKEN = select(holder.c.token, func.count()).group_by(holder.c.token)


def sql(statement: Any) -> str:
    return str(statement.compile(dialect=postgresql.dialect(paramstyle="named")))  # type: ignore[no-untyped-call]


def test_declared() -> None:
    tally = Tally(schema="My tally")
    counter = tally.counter("holders", shards=100, shards_for={"hot": 7}, numeric=True, direct=TOTAL)
    assert tally.counters == {"holders": counter}
    assert (counter.name, counter.schema, counter.shards, counter.shards_for) == (
        "holders",
        "My tally",
        100,
        {"hot": 7},
    )
    assert (counter.is_numeric, counter.is_total, counter.definition) == (
        True, True, "SELECT count(*) AS count_1 \nFROM holder",
    )  # fmt: skip
    assert repr(counter) == "<Counter My tally.holders>"
    plain = tally.counter("plain")
    assert (plain.shards, plain.shards_for, plain.is_numeric, plain.definition, plain.direct) == (
        16, {}, False, None, None,
    )  # fmt: skip
    assert not tally.counter("by", direct=BY_TOKEN).is_total
    assert list(tally) == []


def test_schemas_are_quoted() -> None:
    counter = Tally(schema="My tally").counter("c")
    assert sql(counter.add("k")).startswith('SELECT "My tally"."counter_add"(')
    assert 'FROM "My tally".c' in sql(select(counter.count("k")))


def test_fingerprints_tell_settings_apart() -> None:
    tally = Tally()
    found = {
        tally.counter(name, **settings).fingerprint  # type: ignore[arg-type]  # settings of every kind
        for name, settings in {
            "a": {}, "b": {"shards": 3}, "c": {"shards_for": {"k": 3}}, "d": {"numeric": True}, "e": {"direct": TOTAL},
        }.items()
    }  # fmt: skip
    assert len(found) == 5
    assert tally.counter("f").fingerprint == tally.counters["a"].fingerprint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shards": 0}, 'counter "c": shards is a number from 1 to 10,000, got 0.'),
        ({"shards": -1}, "got -1"),
        ({"shards": 10_001}, "got 10001"),
        ({"shards": 2.0}, "got 2.0"),
        ({"shards": True}, "got True"),
        ({"shards": "4"}, "got '4'"),
        ({"shards_for": {"k": 0}}, r"shards_for\['k'\] is a number from 1"),
        ({"shards_for": {"k": None}}, "got None"),
        ({"shards_for": {5: 1}}, "a key is a string, got 5"),
        ({"shards_for": [("k", 1)]}, "shards_for is a mapping of keys to numbers, got list"),
        ({"numeric": 1}, "numeric is True or False, got 1"),
        ({"direct": "SELECT count(*) FROM holder"}, "direct is a Select, got str"),
        ({"direct": select(holder.c.token, func.count(), func.sum(1))}, "direct has 3 columns"),
    ],
)
def test_bad_declarations(arguments: dict[str, Any], said: str) -> None:
    tally = Tally()
    with pytest.raises(UsageError, match=said) as caught:
        tally.counter("c", **arguments)
    assert caught.value.hint
    assert not tally.counters


@pytest.mark.parametrize(
    "name", ["", "a__b", "counter", "counter_shard", "counter_set", "aggregate", "n" * 64, None, 5]
)
def test_bad_names(name: Any) -> None:
    with pytest.raises(DeclarationError):
        Tally().counter(name)


def test_names_are_taken_once() -> None:
    tally = Tally()
    tally.grouped("m", "SELECT a, count(*) AS n FROM t GROUP BY a")
    tally.counter("c")
    taken: list[Callable[[], object]] = [
        lambda: tally.counter("m"), lambda: tally.counter("c"), lambda: tally.grouped("c", "SELECT count(*) FROM t"),
    ]  # fmt: skip
    for declare in taken:
        with pytest.raises(DeclarationError, match="is declared twice"):
            declare()


@pytest.mark.parametrize("key", [None, 5, b"k", "a\0b", "x" * 2001, "ä" * 1001, "\ud800", ["k"], 1.5])
def test_bad_keys(key: Any) -> None:
    counter = Tally().counter("c")
    calls: list[Callable[[], object]] = [
        lambda: counter.add(key), lambda: counter.subtract(key), lambda: counter.inc(key), lambda: counter.dec(key),
        lambda: counter.set(key, 1), lambda: counter.reset(key), lambda: counter.rebalance(key),
        lambda: counter.count(key), lambda: counter.estimate(key), lambda: counter.counts([key]),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match=r'^counter "c": ') as caught:
            call()
        assert caught.value.hint


@pytest.mark.parametrize("n", [None, 1.0, 1.5, "1", True, Decimal(1), Decimal("0.5"), [1]])
def test_bad_numbers(n: Any) -> None:
    counter = Tally().counter("c")
    calls: list[Callable[[], object]] = [
        lambda: counter.add("k", n), lambda: counter.subtract("k", n), lambda: counter.set("k", n),
        lambda: counter.add_many({"k": n}),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(UsageError, match='counter "c": expected an int, got '):
            call()


@pytest.mark.parametrize("n", [None, 1.5, "1", False, Decimal("NaN"), Decimal("Infinity"), Decimal("sNaN")])
def test_bad_numbers_of_a_numeric_counter(n: Any) -> None:
    counter = Tally().counter("c", numeric=True)
    assert counter.add("k", Decimal("0.5")) is not None
    with pytest.raises(UsageError, match="expected an int or a finite Decimal"):
        counter.subtract("k", n)


@pytest.mark.parametrize("read", [None, 1.0, "3", True])
def test_bad_numbers_of_shards_to_read(read: Any) -> None:
    with pytest.raises(UsageError, match="shards_read is an int"):
        Tally().counter("c").estimate("k", shards_read=read)


def test_other_wrong_use() -> None:
    counter = Tally().counter("c")
    with pytest.raises(UsageError, match="keys='ab' is a string"):
        counter.counts("ab")
    with pytest.raises(UsageError, match="add_many takes a mapping of keys to numbers, got list"):
        counter.add_many([("k", 1)])  # type: ignore[arg-type]
    assert isinstance(counter, Counter)
    assert "CAST" in sql(counter.add(column("k"), column("n")))
