"""Declarations of ordered aggregates, and their reads as expressions: built without a connection, cached by shape."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Text, func, literal, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tallystick import Bound, DeclarationError, Ordered, Tally, UsageError, direct_of
from tallystick.declare.order_reads import OrderReads
from tests.unit.ordering import by_day, by_name, by_pk, compiled, event, tally

bare = Table("bare", MetaData(), Column("at", Integer))
named = Table("named", MetaData(), Column("id", Integer, primary_key=True), Column("cursor", Text))
c = event.c


class Base(DeclarativeBase):
    """Mapped classes of this module."""


class Animal(Base):
    __tablename__ = "animal"

    id: Mapped[int] = mapped_column(primary_key=True)


class Dog(Animal):
    __tablename__ = "dog"

    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)


def test_declared() -> None:
    assert tally.orders == {"by_name": by_name, "by_day": by_day, "by_pk": by_pk}
    assert tally.kept() == [by_name, by_day, by_pk]
    assert list(tally) == []
    assert isinstance(by_name, Ordered)
    assert (by_name.name, by_name.schema, by_name.ordering.namespace, by_name.ordering.key) == (
        "by_name",
        "tally",
        1,
        2,
    )
    assert by_name.ordering.descending == (False, True, False, False)
    assert by_name.ordering.primary_key == ("region", "id")
    assert repr(by_name).startswith("<Ordered tally.by_name: ")
    with pytest.raises(UsageError, match='"by_name" is not a grouped aggregate'):
        tally["by_name"]


def test_rows_have_namespace_key_primary_key_and_sums() -> None:
    assert by_name.table.c.keys() == ["user_id", "name", "minutes", "region", "id", "spent", "paid"]
    assert by_name.at(1, offset=0).selected_columns.keys() == by_name.table.c.keys()
    assert by_name.page(1, limit=1).selected_columns.keys() == [*by_name.table.c.keys(), "cursor"]
    assert by_name.at_many([]).selected_columns.keys() == ["position", *by_name.table.c.keys()]
    assert by_name.count_many([]).selected_columns.keys() == ["position", "count"]
    assert by_name.sum_many("paid", []).selected_columns.keys() == ["position", "sum"]
    assert by_name.namespaces().selected_columns.keys() == ["user_id"]
    # A column of the primary key that namespace or sort key has already is not there twice.
    assert by_day.table.c.keys() == ["user_id", "region", "day", "id"]
    assert by_pk.table.c.keys() == ["region", "id"]


def declared(source: Any = event, **arguments: Any) -> Callable[[], object]:
    return lambda: Tally().ordered("x", source, **arguments)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "no primary key": (declared(bare), "bare has no primary key"),
    "a string as the source": (declared("event"), "expected a mapped class of one table, or a Table, got 'event'"),
    "no source": (declared(None), "expected a mapped class of one table, or a Table, got None"),
    "a select as the source": (declared(select(event)), "expected a mapped class of one table, or a Table"),
    "a class of two tables": (declared(Dog), "expected a mapped class of one table"),
    "key is one column": (declared(key=c.at), "key is a list of columns"),
    "key is a string": (declared(key="at"), "key is a list of columns, got 'at'"),
    "key is a number": (declared(key=5), "key is a list of columns, got 5"),
    "key has a string": (declared(key=["at"]), "key has 'at', which is no column"),
    "key has None": (declared(key=[c.at, None]), "key has None, which is no column"),
    "namespace is one column": (declared(namespace=c.user_id), "namespace is a list of columns"),
    "namespace has a string": (declared(namespace=["user_id"]), "namespace has 'user_id', which is no column"),
    "namespace descends": (declared(namespace=[c.user_id.desc()]), "has a direction"),
    "nulls first": (declared(key=[c.at.nulls_first()]), "key orders NULLs"),
    "descends, nulls last": (declared(key=[c.at.desc().nulls_last()]), "key orders NULLs"),
    "key without a name": (declared(key=[c.minutes + 1]), "key has the expression event.minutes + "),
    "descends without a name": (declared(key=[(c.minutes + 1).desc()]), "without a name"),
    "key twice": (declared(key=[c.at, c.at]), '"at" names two of its columns'),
    "namespace and key": (declared(namespace=[c.at], key=[c.at]), '"at" names two of its columns'),
    "sum like a key": (declared(key=[c.at], sums={"at": c.minutes}), '"at" names two of its columns'),
    "sum like the primary key": (declared(sums={"id": c.minutes}), '"id" names two of its columns'),
    "label like the primary key": (declared(key=[(c.minutes + 1).label("id")]), '"id" names two of its columns'),
    "sum called cursor": (declared(sums={"cursor": c.minutes}), '"cursor" names two of its columns'),
    "key called cursor": (declared(named, key=[named.c.cursor]), '"cursor" names two of its columns'),
    "sum called as the count": (declared(sums={"count(*)": c.minutes}), '"count(*)" names two of its columns'),
    "sums are a list": (declared(sums=[c.minutes]), "sums is a mapping of names to columns"),
    "sums without a column": (declared(sums={"total": "minutes"}), "sums has 'total': 'minutes'"),
    "sums by number": (declared(sums={1: c.minutes}), "sums has 1: "),
    "window function": (declared(key=[func.row_number().over().label("n")]), "a window function cannot be kept"),
    "column of another table": (declared(key=[bare.c.at]), "a join cannot be kept yet"),
    "subquery": (declared(where=c.id.in_(select(bare.c.at))), "a subquery cannot be kept"),
}  # fmt: skip


@pytest.mark.parametrize(("declare", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(declare: Callable[[], object], said: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare()
    assert caught.value.message.startswith('aggregate "x": ')
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["", "a__b", "aggregate", "counter_set", "n" * 64])
def test_bad_names(name: Any) -> None:
    with pytest.raises(DeclarationError):
        Tally().ordered(name, event)


def test_names_are_taken_once() -> None:
    tally = Tally()
    first = tally.ordered("x", event)
    tally.counter("c")
    tally.grouped("g", "SELECT count(*) AS n FROM t")
    taken: list[Callable[[], object]] = [
        lambda: tally.ordered("x", event), lambda: tally.ordered("c", event), lambda: tally.ordered("g", event),
        lambda: tally.grouped("x", "SELECT count(*) AS n FROM t"), lambda: tally.counter("x"),
    ]  # fmt: skip
    for declare in taken:
        with pytest.raises(DeclarationError, match="is declared twice"):
            declare()
    assert tally.orders == {"x": first}


def test_a_refused_declaration_is_not_registered() -> None:
    tally = Tally()
    with pytest.raises(DeclarationError):
        tally.ordered("x", bare)
    assert not tally.orders


def test_fingerprints_tell_orders_apart() -> None:
    variants: dict[str, dict[str, Any]] = {
        "plain": {"key": [c.at]},
        "descending": {"key": [c.at.desc()]},
        "other column": {"key": [c.day]},
        "two columns": {"key": [c.at, c.day]},
        "other order": {"key": [c.day, c.at]},
        "namespace": {"namespace": [c.user_id], "key": [c.at]},
        "key instead of namespace": {"key": [c.user_id, c.at]},
        "sum": {"key": [c.at], "sums": {"spent": c.minutes}},
        "sum by another name": {"key": [c.at], "sums": {"used": c.minutes}},
        "where": {"key": [c.at], "where": c.gone.is_(False)},
        "collated": {"key": [c.name.collate("C")]},
        "not collated": {"key": [c.name]},
    }
    found = {name: Tally().ordered("x", event, **arguments).fingerprint for name, arguments in variants.items()}
    assert len(set(found.values())) == len(variants)
    assert Tally().ordered("y", event, key=[c.at]).fingerprint == found["plain"]


def test_ascending_may_be_said() -> None:
    assert (
        Tally().ordered("x", event, key=[c.at.asc()]).fingerprint == Tally().ordered("x", event, key=[c.at]).fingerprint
    )


def test_schemas_and_names_are_quoted() -> None:
    odd = Tally(schema="My tally").ordered("Odd name", event, key=[c.at])
    assert str(compiled(select(odd.count()))).startswith('SELECT "My tally"."Odd name_count"(')


Build = Callable[[OrderReads, int, str], Any]
SHAPES: dict[str, Build] = {
    "count": lambda reads, n, _s: select(reads.count(n)),
    "count of a range": lambda reads, n, s: select(reads.count(n, lower=s, upper=(s, n), bounds="[)" if n else "()")),
    "count of a prefix": lambda reads, n, s: select(reads.count(n, prefix=s)),
    "count of one key": lambda reads, n, s: select(reads.count(n, eq=(s, n))),
    "count to a bound": lambda reads, n, s: select(reads.count(n, upper=Bound((s, n), (s, n)))),
    "sum": lambda reads, n, s: select(reads.sum("spent", n, lower=s)),
    "rank": lambda reads, n, s: select(reads.rank(n, key=(s, n), pk=(s, n))),
    "rank_of": lambda reads, n, s: select(reads.rank_of((s, n))),
    "at": lambda reads, n, s: reads.at(n, offset=n, lower=s),
    "min": lambda reads, n, s: reads.min(n, lower=s),
    "max": lambda reads, n, s: reads.max(n, upper=s),
    "percentile": lambda reads, n, _s: reads.percentile(n, p=n / 10),
    "random": lambda reads, n, s: reads.random(n, prefix=s),
    "page": lambda reads, n, _s: reads.page(n, limit=n + 1, order="asc" if n else "desc"),
    "namespaces": lambda reads, _n, _s: reads.namespaces(),
    "count_many": lambda reads, n, s: reads.count_many([{"namespace": n, "lower": s}] * n),
    "sum_many": lambda reads, n, s: reads.sum_many("paid", [{"namespace": n, "upper": s}] * n),
    "at_many": lambda reads, n, _s: reads.at_many([{"namespace": n, "offset": n}] * n),
    "correlated": lambda reads, n, _s: select(event).where(reads.count(c.user_id, upper=c.name) > n),
}  # fmt: skip


def cache_key(statement: Any) -> Any:
    key = statement._generate_cache_key()
    assert key is not None, "SQLAlchemy would compile it each time"
    return key.key


@pytest.mark.parametrize("build", SHAPES.values(), ids=SHAPES)
def test_compiled_once_for_all_values(build: Build) -> None:
    kept, other, direct = build(by_name, 7, "a"), build(by_name, 0, "b"), build(by_name.direct, 7, "a")
    assert cache_key(kept) == cache_key(other)
    assert str(compiled(kept)) == str(compiled(other))
    assert cache_key(kept) != cache_key(direct)
    assert cache_key(direct_of(kept)) == cache_key(direct_of(other)) != cache_key(kept)


@pytest.mark.parametrize("build", SHAPES.values(), ids=SHAPES)
def test_direct_of_is_the_same_read_over_the_source(build: Build) -> None:
    kept = build(by_name, 7, "a")
    before, direct = compiled(kept), compiled(build(by_name.direct, 7, "a"))
    turned = compiled(direct_of(kept))
    assert (str(turned), turned.params) == (str(direct), direct.params)
    assert str(turned) == str(before).replace("false)", "true)")
    assert str(turned) != str(before)
    assert str(compiled(kept)) == str(before), "the read itself stays as it was"


def test_shapes_are_told_apart() -> None:
    reads: list[Any] = [
        select(by_name.count(1)), select(by_name.sum("spent", 1)), select(by_name.sum("paid", 1)),
        select(by_name.rank(1, key=("a", 1))), by_name.min(1), by_name.max(1), by_name.at(1, offset=1),
        by_name.percentile(1, p=0.5), by_name.page(1, limit=1), select(by_day.count(1, "eu")),
        select(by_name.count(c.user_id)), select(by_name.count(literal(1) + 1)),
    ]  # fmt: skip
    assert len({cache_key(read) for read in reads}) == len(reads)


def test_an_end_that_is_left_out_has_the_same_shape() -> None:
    keys = {
        cache_key(select(by_day.count(1, "eu", **span)))
        for span in ({}, {"lower": datetime(2024, 1, 1, tzinfo=UTC).date()}, {"bounds": "()"})
    }  # fmt: skip
    assert len(keys) == 1


def test_type_of_a_foreign_key_whose_other_class_is_mapped_later() -> None:
    """SQLAlchemy takes it from there; a batch, whose values go as arrays, could not be compiled."""
    metadata = MetaData()
    score = Table(
        "score", metadata, Column("id", Integer, primary_key=True), Column("player_id", ForeignKey("player.id"))
    )
    by_player = Tally().ordered("by_player", score, namespace=[score.c.player_id])
    Table("player", metadata, Column("id", Integer, primary_key=True))
    assert "AS INTEGER[])" in str(compiled(by_player.at_many([{"namespace": 7, "offset": 0}])))
    with pytest.raises(UsageError, match="player_id is compared with '7', expected int"):
        by_player.count("7")
