"""Namespaces, ranges, places and cursors that mean nothing: each is refused when the read is built."""

import base64
import enum
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    column,
)

from tallystick import Bound, Tally, UsageError
from tallystick.declare.order_reads import OrderReads
from tests.unit.ordering import by_day, by_name, by_pk, event

Read = Callable[..., Any]


def refused(read: Callable[[], object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        read()
    assert said in caught.value.message
    assert caught.value.hint


def cursor_of(*content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def query_of(*of: object, **span: object) -> dict[str, object]:
    """One query of a batch."""
    return {**({"namespace": of} if of else {}), **span}


READS: dict[str, Read] = {
    "count": lambda reads, *of, **span: reads.count(*of, **span),
    "sum": lambda reads, *of, **span: reads.sum("spent", *of, **span),
    "at": lambda reads, *of, **span: reads.at(*of, offset=0, **span),
    "min": lambda reads, *of, **span: reads.min(*of, **span),
    "max": lambda reads, *of, **span: reads.max(*of, **span),
    "percentile": lambda reads, *of, **span: reads.percentile(*of, p=0.5, **span),
    "random": lambda reads, *of, **span: reads.random(*of, **span),
    "page": lambda reads, *of, **span: reads.page(*of, limit=1, **span),
    "count_many": lambda reads, *of, **span: reads.count_many([query_of(*of, **span)]),
    "sum_many": lambda reads, *of, **span: reads.sum_many("spent", [query_of(*of, **span)]),
    "at_many": lambda reads, *of, **span: reads.at_many([query_of(*of, offset=0, **span)]),
}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "bounds": ({"bounds": "[["}, "bounds='[['"),
    "bounds are no text": ({"bounds": ["[]"]}, "bounds=['[]']"),
    "eq and prefix": ({"eq": ("a", 1), "prefix": "a"}, "both prefix and eq are given"),
    "eq and lower": ({"eq": ("a", 1), "lower": "a"}, "eq is given beside lower, upper or bounds"),
    "prefix and upper": ({"prefix": "a", "upper": "a"}, "prefix is given beside lower, upper or bounds"),
    "eq too short": ({"eq": "a"}, "eq='a', expected the sort key (name, minutes)"),
    "eq too long": ({"eq": ("a", 1, 2)}, "eq=('a', 1, 2), expected values for the leading columns of (name, minutes)"),
    "prefix too long": ({"prefix": ("a", 1, 2)}, "prefix=('a', 1, 2), expected values for the leading columns"),
    "prefix of none": ({"prefix": ()}, "prefix=(), expected values"),
    "lower too long": ({"lower": ("a", 1, "eu", 5)}, "expected values for the leading columns of (name, minutes)"),
    "upper of none": ({"upper": ()}, "upper=(), expected values"),
    "None within": ({"lower": ("a", None)}, "lower=('a', None), expected values"),
    "type of the first": ({"lower": 5}, "name is compared with 5, expected str, got int"),
    "type of the second": ({"upper": ("a", "b")}, "minutes is compared with 'b', expected int, got str"),
    "truth for a number": ({"lower": ("a", True)}, "minutes is compared with True, expected int, got bool"),
    "a list": ({"lower": ["a", 1]}, "expected str, got list"),
    "bound of a short key": ({"lower": Bound("a", ("eu", 1))}, "lower='a', expected the sort key"),
    "bound of a short primary key": ({"lower": Bound(("a", 1), 1)}, "lower=1, expected the primary key (region, id)"),
    "bound of None": ({"upper": Bound(("a", 1), ("eu", None))}, "upper=('eu', None), expected the primary key"),
    "type of the primary key": ({"upper": Bound(("a", 1), ("eu", "1"))}, "id is compared with '1', expected int"),
}  # fmt: skip


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(("span", "said"), BAD.values(), ids=BAD)
def test_bad_ranges(read: Read, span: dict[str, Any], said: str) -> None:
    for reads in (by_name, by_name.direct):
        refused(lambda reads=reads: read(reads, 1, **span), said)  # type: ignore[misc]  # a loop variable is bound


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize(
    ("of", "said"),
    [
        ((), "expected the values of its namespace (user_id) first, got 0"),
        ((None,), "the namespace's user_id is None"),
        (("1",), "user_id is compared with '1', expected int, got str"),
        ((True,), "user_id is compared with True, expected int, got bool"),
    ],
)
def test_bad_namespaces(read: Read, of: tuple[Any, ...], said: str) -> None:
    for reads in (by_name, by_name.direct):
        refused(lambda reads=reads: read(reads, *of), said)  # type: ignore[misc]  # a loop variable is bound


def test_too_many_values_of_a_namespace() -> None:
    refused(lambda: by_name.count(1, 2), "expected the values of its namespace (user_id) first, got 2")
    refused(lambda: by_name.count_many([{"namespace": (1, 2)}]), "user_id is compared with (1, 2), expected int")
    refused(lambda: by_day.count(1), "expected the values of its namespace (user_id, region) first, got 1")
    refused(lambda: by_day.count_many([{"namespace": 1}]), "(user_id, region) first, got 1")
    refused(lambda: by_pk.count(1), "expected the values of its namespace (none) first, got 1")


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_unknown_keyword(read: Read) -> None:
    refused(lambda: read(by_name, 1, lowr="a"), "lowr")


def test_ranks_and_orders() -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: by_name.rank(1), "key=(None,), expected values"),
        (lambda: by_name.rank(1, pk=("eu", 1)), "key=(None,), expected values"),
        (lambda: by_name.rank(1, key="a"), "key='a', expected the sort key"),
        (lambda: by_name.rank(1, key=("a", 1), pk=7), "pk=7, expected the primary key (region, id)"),
        (lambda: by_name.rank(1, key=("a", 1), order="up"), "order='up'"),
        (lambda: by_name.rank(key=("a", 1)), "expected the values of its namespace (user_id) first, got 0"),
        (lambda: by_name.rank_of(7), "pk=7, expected the primary key (region, id)"),
        (lambda: by_name.rank_of(("eu", None)), "expected the primary key"),
        (lambda: by_name.rank_of(("eu", 1), order="down"), "order='down'"),
        (lambda: by_name.page(1, limit=1, order="ASC"), "order='ASC'"),
        (lambda: by_pk.rank(), "rank of no place"),
        (lambda: by_pk.rank(key="eu"), "key='eu', expected the sort key (none: it is ordered by primary key alone)"),
        (lambda: by_pk.count(eq=("eu", 1)), "eq=('eu', 1), expected the sort key (none"),
        (lambda: by_pk.count(lower="eu"), "lower='eu', expected the primary key (region, id)"),
        (lambda: by_pk.count(lower=Bound("a", ("eu", 1))), "it is ordered by primary key alone"),
        (lambda: by_pk.namespaces(), "it has no namespace"),
        (lambda: by_day.count(1, "eu", lower=datetime(2024, 1, 1, tzinfo=UTC)), "expected date, got datetime"),
    ]  # fmt: skip
    for read, said in cases:
        refused(read, said)


@pytest.mark.parametrize("limit", [0, -1, None, 1.0, True, "1", 2**63])
def test_bad_limits(limit: Any) -> None:
    refused(lambda: by_name.page(1, limit=limit), f"limit={limit!r}")


@pytest.mark.parametrize("offset", [None, 1.0, True, "1", 2**63, -(2**63)])
def test_bad_offsets(offset: Any) -> None:
    refused(lambda: by_name.at(1, offset=offset), f"offset={offset!r}")
    refused(lambda: by_name.at_many([{"namespace": 1, "offset": offset}]), f"offset={offset!r}")


@pytest.mark.parametrize("p", [-0.01, 1.01, float("nan"), "0.5", None, 2])
def test_bad_percentiles(p: Any) -> None:
    refused(lambda: by_name.percentile(1, p=p), f"p={p!r}")


@pytest.mark.parametrize("measure", ["minutes", "", None, ["spent"]])
def test_unknown_sums(measure: Any) -> None:
    said = f"the sum {measure!r} is unknown (has: spent, paid)"
    refused(lambda: by_name.sum(measure, 1), said)
    refused(lambda: by_name.sum_many(measure, []), said)
    refused(lambda: by_pk.sum("spent"), "the sum 'spent' is unknown (has: none)")


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ({"namespace": 1}, "expected a list of queries"),
        ("namespace", "expected a list of queries"),
        (5, "expected a list of queries"),
        (None, "expected a list of queries"),
        ([3], "the query 3 is no mapping"),
        ([(1, "a")], "the query (1, 'a') is no mapping"),
        ([{"namespace": 1}, None], "the query None is no mapping"),
        ([{}], "expected the values of its namespace (user_id) first, got 0"),
        ([{"namespace": None}], "the namespace's user_id is None"),
        ([{"namespace": 1, "limit": 3}], "unknown in a query: limit"),
        ([{"namespace": 1, 7: 3}], "unknown in a query: 7"),
        ([{"namespace": event.c.user_id}], "a batch takes values, not expressions"),
        ([{"namespace": 1, "lower": event.c.name}], "a batch takes values, not expressions"),
    ],
)
def test_bad_batches(queries: Any, said: str) -> None:
    refused(lambda: by_name.count_many(queries), said)
    refused(lambda: by_name.sum_many("spent", queries), said)
    refused(lambda: by_name.at_many(queries), said)
    refused(lambda: by_name.direct.at_many(queries), said)
    refused(lambda: by_name.count_many([{"namespace": 1, "offset": 0}]), "unknown in a query: offset")


PLACE = ["a", "1", "eu", "7"]


@pytest.mark.parametrize(
    ("cursor", "said"),
    [
        ("garbage", "'garbage' is no cursor"),
        ("", "'' is no cursor"),
        (5, "5 is no cursor"),
        (b"WyJieV9uYW1lIl0", "is no cursor"),
        ("é", "'é' is no cursor"),
        (cursor_of("by_name", ["1"]), "is no cursor"),
        (cursor_of("by_name", ["1"], PLACE[:3]), "is no cursor"),
        (cursor_of("by_name", ["1", "2"], PLACE), "is no cursor"),
        (cursor_of("by_name", 1, PLACE), "is no cursor"),
        (cursor_of("by_day", ["1"], PLACE), 'the cursor is of the aggregate "by_day"'),
        (cursor_of("by_name", ["2"], PLACE), "the cursor is of the namespace user_id = 2, not 1"),
        (cursor_of("by_name", ["x"], PLACE), "the cursor is of the namespace user_id = x, not 1"),
        (cursor_of("by_name", [None], PLACE), "the cursor is of the namespace user_id = None, not 1"),
        (cursor_of("by_name", [["1"]], PLACE), "the cursor is of the namespace user_id"),
    ],
)
def test_bad_cursors(cursor: Any, said: str) -> None:
    for reads in (by_name, by_name.direct):
        refused(lambda reads=reads: reads.page(1, limit=1, after=cursor), said)  # type: ignore[misc]


def test_a_cursor_of_its_own() -> None:
    assert by_name.page(1, limit=1, after=cursor_of("by_name", ["1"], PLACE)) is not None
    assert by_name.page(column("of"), limit=1, after=cursor_of("by_name", ["1"], PLACE)) is not None


class Kind(enum.StrEnum):
    FAST = "fast"


class Doubled(TypeDecorator[int]):
    impl = Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value * 2


NOON = datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=2)))
SAME: list[tuple[Any, Any, str]] = [
    (Integer, 7, "7"),
    (Numeric(8, 2), Decimal("1.5"), "1.50"),
    (Numeric, 1, "1.000"),
    (Numeric, Decimal("NaN"), "NaN"),
    (Boolean, True, "true"),
    (Uuid, UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
    (DateTime(timezone=True), NOON, "2024-02-29 10:00:00+00"),
    (DateTime, NOON.replace(tzinfo=None), "2024-02-29 12:00:00"),
    (Date, date(2024, 2, 29), "2024-02-29"),
    (Time, time(10, 0, 0, 500_000), "10:00:00.5"),
    (Time(timezone=True), time(10, tzinfo=UTC), "10:00:00+00"),
    (Text, "Ann", "ann"),  # equal by a nondeterministic collation, perhaps
    (Enum(Kind), Kind.FAST, "FAST"),
    (Doubled, 4, "8"),
]
OTHER: list[tuple[Any, Any, str]] = [
    (Integer, 7, "8"),
    (Numeric, Decimal("1.5"), "1.51"),
    (Boolean, True, "false"),
    (Uuid, UUID(int=10), "00000000-0000-0000-0000-00000000000b"),
    (DateTime(timezone=True), NOON, "2024-02-29 12:00:00+00"),
    (DateTime(timezone=True), NOON, "infinity"),
    (Date, date(2024, 2, 29), "2024-02-28"),
    (Date, date(2024, 2, 29), "0044-03-15 BC"),
    (Time, time(10), "10:00:01"),
    (Time, time(0), "24:00:00"),
]


def in_namespaces(type_: Any) -> OrderReads:
    table = Table("t", MetaData(), Column("id", Integer, primary_key=True), Column("of", type_))
    return Tally().ordered("x", table, namespace=[table.c.of])


@pytest.mark.parametrize(("type_", "value", "written"), SAME)
def test_cursors_of_the_same_namespace(type_: Any, value: Any, written: str) -> None:
    """PostgreSQL spells values in its own way; what may be equal is left to it."""
    assert in_namespaces(type_).page(value, limit=1, after=cursor_of("x", [written], ["1"])) is not None


@pytest.mark.parametrize(("type_", "value", "written"), OTHER)
def test_cursors_of_other_namespaces(type_: Any, value: Any, written: str) -> None:
    refused(
        lambda: in_namespaces(type_).page(value, limit=1, after=cursor_of("x", [written], ["1"])),
        f"the cursor is of the namespace of = {written}, not {value}",
    )
