"""The oracle of ordered aggregates: every read beside the items themselves, numbered by plain SQL, in one snapshot.

`OrderOracle` asks the functions that readers call, in one statement for each aggregate; `assert_reads` asks the same of
the reads in Python, and of their direct twins. Neither shares anything with `tally verify`, which is asked as well.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count, product
from typing import Any, LiteralString, cast

import pytest
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal
from sqlalchemy import Connection as SQLAlchemyConnection
from sqlalchemy import Engine, select, text

from tallystick import Bound, Ordered, Tally, direct_of
from tallystick.compiler import buckets
from tallystick.declare.names import internal_name, read_name
from tests.oracle import IS_KEPT, Difference, told
from tests.servers import Connection

NUMBERS = count(1)  # of prepared statements, which outlive an oracle
# At most some 30 of a namespace, others each time that their number has changed.
SAMPLE = SQL("(SELECT * FROM numbered WHERE (its_place + how_many) % greatest(how_many / 30, 1) = 0)")
ITEMS = SQL("{} AS i").format(SAMPLE)
PAGE = SQL("5")
BOUNDS = ("[]", "[)", "(]", "()")
STEP = 3  # items between the ends of a range
FLOATS: LiteralString = """
SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND atttypid IN ('float4'::regtype, 'float8'::regtype)
"""


@contextmanager
def small_buckets(items: int = 2, places: int = 2) -> Iterator[None]:
    """What is installed meanwhile has several levels of buckets with a few rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "ITEMS", items)
        patch.setattr(buckets, "PLACES", places)
        yield


@dataclass
class OrderOracle:
    """What differs, over one connection again and again.

    Args:
        of_view: the items are those of the view, where the declared text cannot be run any more.
        direct: the direct half is asked the same.
    """

    connection: Connection
    tally: Tally
    of_view: bool = False
    direct: bool = False
    _asked: list[Composed] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.connection.prepare_threshold = None  # else psycopg drops prepared statements at each ROLLBACK
        for aggregate, from_source in product(self.tally.orders.values(), (False, True)):
            if from_source and not self.direct:
                continue
            view = Identifier(aggregate.schema, aggregate.name).as_string()
            floats = {name for (name,) in self.connection.execute(FLOATS, [view]).fetchall()}
            name = Identifier(f"order{next(NUMBERS)}")
            question = _Question(aggregate, floats, of_view=self.of_view, from_source=from_source)
            self.connection.execute(SQL("PREPARE {} AS {}").format(name, question.text()))
            self._asked.append(SQL("EXECUTE {}").format(name))

    def differences(self) -> list[Difference]:
        return [row for each in self._asked for row in self.connection.execute(each).fetchall()]

    def check(self) -> None:
        found = self.differences()
        assert not found, told(found)


class _Question:
    """One statement: what was asked, and the answer where it is not what the numbered items say."""

    def __init__(self, aggregate: Ordered, floats: set[str], *, of_view: bool, from_source: bool) -> None:
        self.aggregate = aggregate
        self.half = Literal(from_source)
        self.floats = floats
        ordering, keys = aggregate.ordering, [Identifier(key.name) for key in aggregate.shape.keys]
        self.namespace = keys[: ordering.namespace]
        self.key = keys[ordering.namespace : ordering.namespace + ordering.key]
        self.position = keys[ordering.namespace :]
        self.directions = [SQL(" DESC") if down else SQL("") for down in ordering.descending]
        self.sums = [measure.name for measure in aggregate.shape.measures if measure.argument is not None]
        self.columns = [*keys, *map(Identifier, self.sums)]
        self.items: Composable = SQL("({})").format(SQL(aggregate.definition))
        if of_view:
            self.items = Identifier(aggregate.schema, aggregate.name)

    def text(self) -> Composed:
        partition, by = self._partition(self.namespace), self._order(self.position)
        numbered: list[Composable] = [
            SQL("row_number() OVER ({p} ORDER BY {by}) - 1 AS its_place").format(p=partition, by=by),
            SQL("count(*) OVER ({p}) AS how_many").format(p=partition),
        ]
        if self.key:
            of_key = self._partition([*self.namespace, *self.key])
            numbered += [
                SQL("rank() OVER ({p} ORDER BY {k}) - 1 AS smaller").format(p=partition, k=self._order(self.key)),
                SQL("count(*) OVER ({p}) AS ties").format(p=of_key),
            ]
        for number, name in enumerate(self.sums):
            windows = SQL(
                "coalesce(sum({s}) OVER ({p}), 0) AS {all},"
                " coalesce(sum({s}) OVER ({p} ORDER BY {by} ROWS BETWEEN CURRENT ROW AND {n} FOLLOWING), 0) AS {some}"
            )
            names = {"all": Identifier(f"all{number}"), "some": Identifier(f"some{number}")}
            numbered.append(windows.format(s=Identifier(name), p=partition, by=by, n=Literal(STEP), **names))
        known: list[Composable] = [SQL("{} IS NOT NULL").format(name) for name in (*self.namespace, *self.key)]
        asked = SQL("\nUNION ALL ").join([*self._of_items(), *self._of_namespaces(), *self._of_sets(), self._buckets()])
        return SQL(
            "WITH RECURSIVE numbered AS MATERIALIZED (SELECT {columns}, {numbered} FROM {items} AS d WHERE {known}),\n"
            "spaces AS MATERIALIZED (SELECT * FROM numbered WHERE its_place = 0),\n{walks}\n{asked}"
        ).format(
            columns=_listed(self.columns), numbered=_listed(numbered), items=self.items,
            known=SQL(" AND ").join(known or [SQL("true")]), walks=_listed(self._walks()), asked=asked,
        )  # fmt: skip

    def _of_items(self) -> Iterable[Composed]:
        """Some items' ranks and what lies at them, and ranges that begin with them."""
        i, j = self._of("i", self.position), self._of("j", self.position)
        ends = (SQL("i.its_place"), SQL("i.how_many - 1 - i.its_place"))
        for order, place in zip(("asc", "desc"), ends, strict=True):
            yield self._value("rank " + order, self._call("rank", [*i, Literal(order)]), place)
        for offset in (SQL("i.its_place"), SQL("i.its_place - i.how_many")):
            yield self._row("at", [offset, *self._everything()], ITEMS)
        apart = SQL("j.its_place = i.its_place + {}").format(Literal(STEP))
        pairs = SQL("{} JOIN numbered AS j ON {}").format(ITEMS, self._same("i", "j", apart))
        bounds = SQL("(ARRAY['[]', '[)', '(]', '()'])[1 + i.its_place % 4]")
        ends_in = SQL("{} - (ARRAY[0, 1, 1, 2])[1 + i.its_place % 4]").format(Literal(STEP + 1))
        yield self._value("count", self._call("count", [*i, *j, bounds]), ends_in, pairs)
        for number, name in enumerate(self.sums):
            arguments = [*i, *j, Literal("[]")]
            expected = self._expected(name, arguments, Identifier("i", f"some{number}"))
            yield self._value(f"sum of {name}", self._call(f"sum_{name}", arguments), expected, pairs)
        if self.key:
            some: list[Composable] = [*self._of("i", self.key), *[SQL("NULL")] * (len(self.position) - len(self.key))]
            yield self._value("count of key", self._call("count", [*some, *some, Literal("[]")]), SQL("i.ties"))
            yield self._value("rank of key", self._call("rank", [*some, Literal("asc")]), SQL("i.smaller"))
            behind = SQL("i.how_many - i.smaller - i.ties")
            yield self._value("rank of key desc", self._call("rank", [*some, Literal("desc")]), behind)

    def _of_namespaces(self) -> Iterable[Composed]:
        """Totals, ends and the median of each namespace, and what lies outside of it."""
        space, everything = SQL("spaces AS i"), self._everything()
        last = SQL("spaces AS s JOIN numbered AS i ON {}").format(
            self._same("s", "i", SQL("i.its_place = i.how_many - 1"))
        )
        middle = SQL("spaces AS s JOIN numbered AS i ON {}").format(
            self._same("s", "i", SQL("i.its_place = (i.how_many - 1) / 2"))
        )
        yield self._value("count of all", self._call("count", everything), SQL("i.how_many"), space)
        for number, name in enumerate(self.sums):
            expected = self._expected(name, everything, Identifier("i", f"all{number}"))
            yield self._value(f"sum of all {name}", self._call(f"sum_{name}", everything), expected, space)
        yield self._row("min", everything, space)
        yield self._row("max", everything, last)
        yield self._row("percentile", [Literal(0.5), *everything], middle)
        for offset in (SQL("i.how_many"), SQL("-1 - i.how_many")):
            none = SQL("(SELECT count(*) FROM {})").format(self._call("at", [offset, *everything]))
            yield self._value("at nowhere", none, SQL("0"), space)

    def _of_sets(self) -> Iterable[Composed]:
        """Pages and the list of namespaces, as sets of rows with their places."""
        expected = SQL("SELECT {}, its_place FROM numbered").format(_listed(self.columns))
        for name in ("page", "walk", "walk_back"):
            found = SQL("SELECT {}, its_place FROM {}").format(_listed(self.columns), Identifier(name))
            yield from _both_ways(self.aggregate.name, name, found, expected)
        if self.namespace:
            columns = _listed(self.namespace)
            function = Identifier(self.aggregate.schema, read_name(self.aggregate.name, "namespaces"))
            found = SQL("SELECT {} FROM {}({})").format(columns, function, self.half)
            yield from _both_ways(
                self.aggregate.name, "namespaces", found, SQL("SELECT {} FROM spaces").format(columns)
            )

    def _walks(self) -> Iterable[Composed]:
        """All items of one page, and of pages of five by their cursors, from either end."""
        item, everything = _listed(self._of("p", self.columns)), self._everything()
        whole = self._call("page", [Literal(10**6), SQL("NULL"), Literal("asc"), *everything])
        names = [*(Identifier(f"c{number}") for number in range(len(self.columns))), SQL("cursor"), SQL("row_no")]
        numbered = SQL("WITH ORDINALITY AS p ({})").format(_listed([*self.columns, *names[-2:]]))
        yield SQL("page AS (SELECT {item}, row_no - 1 AS its_place FROM spaces AS i, {whole} {numbered})").format(
            item=item, whole=whole, numbered=numbered
        )
        for name, order in (("walk", "asc"), ("walk_back", "desc")):
            place = SQL("row_no - 1") if order == "asc" else SQL("i.how_many - row_no")
            following = SQL("i.its_place + p.row_no") if order == "asc" else SQL("i.its_place - p.row_no")
            begin = self._call("page", [PAGE, SQL("NULL"), Literal(order), *everything])
            on = self._call("page", [PAGE, SQL("i.cursor"), Literal(order), *everything])
            yield SQL(
                "{name} AS (SELECT {item}, {place} AS its_place, p.cursor, row_no FROM spaces AS i,"
                " {begin} {numbered}\n"
                "  UNION ALL SELECT {item}, {following}, p.cursor, p.row_no FROM {name} AS i, {on} {numbered}"
                " WHERE i.row_no = 5)"
            ).format(
                name=Identifier(name), item=item, place=place, following=following, begin=begin, on=on,
                numbered=numbered,
            )  # fmt: skip

    def _buckets(self) -> Composed:
        """In one pass, and each by the index: behind level 0 are all of them.

        While a partition is not counted, nobody is served from the buckets, and they are not what they should be.
        """
        schema, name = self.aggregate.schema, self.aggregate.name
        return SQL(
            "SELECT {title}, c::text FROM (SELECT * FROM {check}() UNION ALL SELECT * FROM {check}(ARRAY['0'])) AS c"
            " WHERE kept <> direct AND {is_kept}"
        ).format(
            title=Literal(f"{name}: bucket"), check=Identifier(schema, internal_name(name, "check")),
            is_kept=IS_KEPT.format(table=Identifier(schema, "aggregate"), name=Literal(name)),
        )  # fmt: skip

    def _expected(self, name: str, arguments: Sequence[Composable], naive: Composable) -> Composable:
        """Sums of floating point depend on the order of rows: for those the direct half is the definition."""
        if name not in self.floats:
            return naive
        return self._call(f"sum_{name}", arguments, half=Literal(True))

    def _value(self, what: str, got: Composable, expected: Composable, table: Composable = ITEMS) -> Composed:
        title = Literal(f"{self.aggregate.name}: {what}")
        return SQL(
            "SELECT {t}, format('%s: %s, expected %s', i, got, expected)"
            " FROM (SELECT i, {got} AS got, {expected} AS expected FROM {table}) AS o"
            " WHERE got IS DISTINCT FROM expected"
        ).format(t=title, got=got, expected=expected, table=table)

    def _row(self, what: str, arguments: Sequence[Composable], table: Composable) -> Composed:
        title = Literal(f"{self.aggregate.name}: {what}")
        call = self._call(what, arguments)
        return SQL(
            "SELECT {t}, format('%s: %s', i, f) FROM {table} LEFT JOIN LATERAL {call} AS f ON true"
            " WHERE ROW({found}) IS DISTINCT FROM ROW({expected})"
        ).format(
            t=title, table=table, call=call, found=_listed(self._of("f", self.columns)),
            expected=_listed(self._of("i", self.columns)),
        )  # fmt: skip

    def _call(self, read: str, arguments: Sequence[Composable], half: Composable | None = None) -> Composed:
        """A function over the namespace of `i`."""
        function = Identifier(self.aggregate.schema, read_name(self.aggregate.name, read))
        given = [*self._of("i", self.namespace), *arguments, half or self.half]
        return SQL("{}({})").format(function, _listed(given))

    def _everything(self) -> list[Composable]:
        return [*[SQL("NULL")] * (2 * len(self.position)), Literal("[]")]

    def _of(self, table: str, columns: Sequence[Identifier]) -> list[Composed]:
        return [SQL("{}.{}").format(SQL(table), column) for column in columns]

    def _same(self, one: str, other: str, *conditions: Composable) -> Composed:
        columns = zip(self._of(one, self.namespace), self._of(other, self.namespace), strict=True)
        return SQL(" AND ").join([*(SQL("{} = {}").format(*pair) for pair in columns), *conditions])

    def _partition(self, columns: Sequence[Identifier]) -> Composable:
        return SQL("PARTITION BY {}").format(_listed(columns)) if columns else SQL("")

    def _order(self, columns: Sequence[Identifier]) -> Composed:
        return _listed([SQL("{}{}").format(*pair) for pair in zip(columns, self.directions, strict=False)])


def _listed(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def _both_ways(aggregate: str, what: str, found: Composable, expected: Composable) -> Iterable[Composed]:
    for word, one, other in (("has", found, expected), ("lacks", expected, found)):
        yield SQL("SELECT {t}, d::text FROM ({one} EXCEPT ALL {other}) AS d").format(
            t=Literal(f"{aggregate}: {what} {word}"), one=one, other=other
        )


def assert_orders_exact(engine: Engine, tally: Tally, *, of_view: bool = False) -> None:
    """Both halves of every ordered aggregate are exact, as seen in a transaction of our own."""
    with engine.connect() as borrowed:
        connection = cast(Connection, borrowed.connection.driver_connection)
        OrderOracle(connection, tally, of_view=of_view, direct=True).check()


def levels(connection: Connection, aggregate: Ordered) -> int:
    """Levels of buckets that an aggregate has, 0 without a bucket."""
    table = Identifier(aggregate.schema, internal_name(aggregate.name, "bucket"))
    row = connection.execute(SQL("SELECT coalesce(max(level), 0) FROM {}").format(table)).fetchone()
    assert row is not None
    return int(row[0])


def serves_buckets(connection: Connection, aggregate: Ordered) -> bool:
    """Readers are served from the buckets: a change of them that is rolled back shows."""
    table = Identifier(aggregate.schema, internal_name(aggregate.name, "bucket"))
    count = Identifier(aggregate.schema, read_name(aggregate.name, "count"))
    names = [Identifier(key.name) for key in aggregate.shape.keys[: aggregate.ordering.namespace]]
    total = SQL(
        "SELECT sum({f}({names})) FROM (SELECT {names} FROM {view} GROUP BY GROUPING SETS (({names}))) AS s"
    ).format(f=count, names=_listed(names), view=Identifier(aggregate.schema, aggregate.name))
    with connection.transaction(force_rollback=True):
        before = connection.execute(total).fetchone()
        connection.execute(SQL("UPDATE {} SET n = n + 1000").format(table))
        return connection.execute(total).fetchone() != before


def assert_reads(engine: Engine, aggregate: Ordered) -> None:
    """The reads in Python, those of the direct half, and a sorted list of the items agree, in one snapshot."""
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        _Reads(connection, aggregate).check()


class _Reads:
    def __init__(self, connection: SQLAlchemyConnection, aggregate: Ordered) -> None:
        self.connection, self.aggregate = connection, aggregate
        self.names = [key.name for key in aggregate.shape.keys]
        self.sums = [measure.name for measure in aggregate.shape.measures if measure.argument is not None]
        self.before = aggregate.ordering.namespace
        self.behind = self.before + aggregate.ordering.key
        down = (False,) * self.before + aggregate.ordering.descending
        known = SQL(" AND ").join([SQL("true"), *(SQL("{} IS NOT NULL").format(Identifier(n)) for n in
                                                 self.names[: self.behind])])  # fmt: skip
        by = [
            SQL("{}{}").format(Identifier(n), SQL(" DESC" if d else "")) for n, d in zip(self.names, down, strict=True)
        ]
        query = SQL("SELECT {columns} FROM ({items}) AS d WHERE {known} ORDER BY {by}").format(
            columns=_listed(Identifier(c.name) for c in aggregate.table.columns),
            items=SQL(aggregate.definition), known=known, by=_listed(by),
        )  # fmt: skip
        rows = connection.execute(text(query.as_string().replace(":", "\\:"))).all()
        self.spaces: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for row in rows:
            self.spaces.setdefault(tuple(row[: self.before]), []).append(tuple(row))

    def check(self) -> None:
        for space, items in self.spaces.items():
            self._check(space, items)
        if self.before:
            self._same(self.aggregate.namespaces(), list(self.spaces))

    def _check(self, space: tuple[Any, ...], items: list[tuple[Any, ...]]) -> None:
        reads, many = self.aggregate, len(items)
        for low, high in {(0, many - 1), (many // 3, many - 1 - many // 4), (many // 2, many // 2)}:
            ends: dict[str, Any] = {"lower": self._bound(items[low]), "upper": self._bound(items[high])}
            for bounds in BOUNDS:
                inside = items[low + (bounds[0] == "(") : high + (bounds[1] == "]")]
                self._value(reads.count(*space, **ends, bounds=bounds), max(0, len(inside)))
                self._same(reads.page(*space, limit=many + 1, **ends, bounds=bounds), inside)
                self._same(reads.at(*space, offset=0, **ends, bounds=bounds), inside[:1])
                self._same(reads.at(*space, offset=-1, **ends, bounds=bounds), inside[-1:])
                self._same(reads.min(*space, **ends, bounds=bounds), inside[:1])
                self._same(reads.max(*space, **ends, bounds=bounds), inside[-1:])
                for p in (0, 0.3, 0.5, 1):
                    nearest = max(math.ceil(round(p * len(inside), 9)) - 1, 0)
                    self._same(reads.percentile(*space, p=p, **ends, bounds=bounds), inside[nearest : nearest + 1])
                for column, name in enumerate(self.sums, start=len(self.names)):
                    read = reads.sum(name, *space, **ends, bounds=bounds)
                    self._value(read, _sum([item[column] for item in inside if item[column] is not None]))
        for number, item in enumerate(items):
            self._value(reads.rank_of(self._pk(item)), number)
            self._value(reads.rank_of(self._pk(item), order="desc"), many - 1 - number)
            self._same(reads.at(*space, offset=number), [item])
            if self.behind > self.before:
                first = min(n for n, other in enumerate(items) if self._key(other) == self._key(item))
                ties = sum(self._key(other) == self._key(item) for other in items)
                self._value(reads.rank(*space, key=self._key(item)), first)
                self._value(reads.count(*space, eq=self._key(item)), ties)
        queries = [{"namespace": space, "lower": self._bound(item)} for item in items]
        self._same(reads.count_many(queries), [(n, many - n) for n in range(many)])
        for order, ordered in (("asc", items), ("desc", items[::-1])):
            found: list[tuple[Any, ...]] = []
            cursor: str | None = None
            while rows := self.connection.execute(reads.page(*space, after=cursor, limit=3, order=order)).all():
                found += [tuple(row[:-1]) for row in rows]
                cursor = rows[-1].cursor
            assert found == ordered

    def _bound(self, item: tuple[Any, ...]) -> Bound:
        return Bound(self._key(item), self._pk(item))

    def _key(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        return item[self.before : self.behind]

    def _pk(self, item: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(item[self.names.index(name)] for name in self.aggregate.ordering.primary_key)

    def _value(self, read: Any, expected: object) -> None:
        for each in (read, direct_of(read)):
            assert self.connection.scalar(select(each)) == expected, str(each)

    def _same(self, read: Any, expected: Sequence[tuple[Any, ...]]) -> None:
        for each in (read, direct_of(read)):
            rows = self.connection.execute(each).all()
            width = len(expected[0]) if expected else 0
            assert [tuple(row)[:width] for row in rows] == list(expected), str(each)


def _sum(values: list[Any]) -> Any:
    """Floating point is summed up as the shortest decimal texts of the values."""
    if any(isinstance(value, float) for value in values):
        return float(sum(Decimal(repr(value)) for value in values))
    return sum(values)
