"""Every read of ordered aggregates beside what the model says, and their buckets beside the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from random import Random
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, Select, select

from tallystick import direct_of
from tallystick.declare.names import internal_name
from tests.property.order_model import Item, Model, Place, Rows, Span, nearest_rank

SPANS = 6  # of a namespace, in one check
UNKNOWN = 9  # a namespace that no row is in


@dataclass(frozen=True)
class Held:
    """A cursor that somebody keeps while rows come and go."""

    model: Model
    namespace: Place
    order: str
    cursor: str
    place: Place


@dataclass
class Reader:
    """Asks everything over one connection, in whatever transaction that is."""

    connection: Connection
    models: Sequence[Model]
    held: list[Held] = field(default_factory=list)

    def check(self, rows: Rows, random: Random) -> None:
        """Ask one of the aggregates for everything, and all of them for their buckets."""
        model = random.choice(self.models)
        items = model.items(rows)
        of = random.choice([*items, self._unknown(model)])
        self._values(model, of, items.get(of, []), random)
        self._rows(model, of, items.get(of, []), random)
        self._batches(model, items, random)
        self._every_item(model, items)
        if model.namespace:
            assert self._ask(model.aggregate.namespaces()) == list(items)
        for held in self.held:
            self._go_on(held, held.model.items(rows).get(held.namespace, []), random)
        for model in self.models:
            check = sql.SQL("SELECT * FROM {}() WHERE kept <> direct").format(
                sql.Identifier("tally", internal_name(model.aggregate.name, "check"))
            )
            assert self.connection.exec_driver_sql(check.as_string()).all() == []

    def hold(self, model: Model, rows: Rows, random: Random) -> None:
        """Read a page, check it, and keep the cursor of one of its rows."""
        items = model.items(rows)
        namespace = random.choice([*items, self._unknown(model)])
        order, limit = random.choice(("asc", "desc")), random.randint(1, 5)
        page = self.connection.execute(model.aggregate.page(*namespace, limit=limit, order=order)).all()
        expected = _turned(items.get(namespace, []), order)[:limit]
        assert [tuple(row[:-1]) for row in page] == [item.shown for item in expected]
        if page:
            chosen = random.randrange(len(page))
            self.held.append(Held(model, namespace, order, page[chosen].cursor, expected[chosen].place))

    def _ask(self, statement: Select[Any]) -> list[tuple[Any, ...]]:
        """The answer of the serving half, which the source must give too."""
        kept = [tuple(row) for row in self.connection.execute(statement)]
        assert kept == [tuple(row) for row in self.connection.execute(direct_of(statement))]
        return kept

    def _unknown(self, model: Model) -> Place:
        return (UNKNOWN,) * len(model.namespace)

    def _values(self, model: Model, of: Place, items: Sequence[Item], random: Random) -> None:
        reads, asked, expected = model.aggregate, [], []
        for _ in range(SPANS):
            span = model.some_span(random, items)
            inside = span.of(items)
            asked.append(reads.count(*of, **span.keywords))
            expected.append(len(inside))
            for measure in model.sums:
                asked.append(reads.sum(measure, *of, **span.keywords))
                expected.append(model.total(measure, inside))
        for has_pk in (True, bool(not model.key)):
            for order in ("asc", "desc"):
                key, pk = model.some_place(random, items)
                place = model.places(key, pk if has_pk else None)
                starts = [item.place[: len(place)] for item in items]
                named = {"key": model.key_of(key)} if key else {}
                asked.append(reads.rank(*of, **named, pk=pk if has_pk else None, order=order))
                expected.append(sum(start < place if order == "asc" else start > place for start in starts))
                ranks = {(item.row.part, item.row.id): rank for rank, item in enumerate(_turned(items, order))}
                if pk in ranks:
                    asked.append(reads.rank_of(pk, order=order))
                    expected.append(ranks[pk])
        asked.append(reads.rank_of((0, 0)))  # no row has this primary key
        assert self._ask(select(*asked)) == [(*expected, None)]

    def _rows(self, model: Model, of: Place, items: Sequence[Item], random: Random) -> None:
        reads, span = model.aggregate, model.some_span(random, items)
        inside = [item.shown for item in span.of(items)]
        offset = random.randint(-len(inside) - 2, len(inside) + 1)
        at = [inside[offset]] if -len(inside) <= offset < len(inside) else []
        assert self._ask(reads.at(*of, offset=offset, **span.keywords)) == at, (span, offset)
        assert self._ask(reads.min(*of, **span.keywords)) == inside[:1], span
        assert self._ask(reads.max(*of, **span.keywords)) == inside[-1:], span
        p = random.choice((0, 0.07, 0.25, 0.5, 0.9, 1, random.random()))
        nearest = inside[nearest_rank(p, len(inside)) :][:1]
        assert self._ask(reads.percentile(*of, p=p, **span.keywords)) == nearest, (span, p)
        for half in (reads, reads.direct):
            found = [tuple(row) for row in self.connection.execute(half.random(*of, **span.keywords))]
            assert len(found) == min(len(inside), 1), span
            assert set(found) <= set(inside), span
        self._pages(model, of, span, inside, random)

    def _pages(self, model: Model, of: Place, span: Span, inside: list[Any], random: Random) -> None:
        """Page by page through a range gives all of it, once."""
        order = random.choice(("asc", "desc"))
        limit = max(random.randint(1, 5), len(inside) // 4)
        found: list[Any] = []
        cursor = None
        while True:
            page = self._ask(model.aggregate.page(*of, after=cursor, limit=limit, order=order, **span.keywords))
            found += [row[:-1] for row in page]
            if len(page) < limit:
                break
            cursor = page[-1][-1]
        assert found == _turned(inside, order), span

    def _go_on(self, held: Held, items: Sequence[Item], random: Random) -> None:
        span = held.model.some_span(random, items)
        is_behind = held.place.__lt__ if held.order == "asc" else held.place.__gt__
        expected = [item.shown for item in _turned(span.of(items), held.order) if is_behind(item.place)]
        page = held.model.aggregate.page(
            *held.namespace, after=held.cursor, limit=3, order=held.order, **span.keywords
        )  # fmt: skip
        assert [row[:-1] for row in self._ask(page)] == expected[:3], held

    def _batches(self, model: Model, items: Mapping[Place, Sequence[Item]], random: Random) -> None:
        """One result for each query, in order, the same as one by one."""
        queries: list[dict[str, Any]] = []
        insides: list[list[Item]] = []
        for _ in range(SPANS):
            of = random.choice([*items, self._unknown(model)])
            span = model.some_span(random, items.get(of, []))
            queries.append({**({"namespace": of} if of else {}), **span.keywords})
            insides.append(span.of(items.get(of, [])))
        reads = model.aggregate
        assert self._ask(reads.count_many(queries)) == [(i, len(inside)) for i, inside in enumerate(insides)]
        for measure in model.sums:
            totals = [(i, model.total(measure, inside)) for i, inside in enumerate(insides)]
            assert self._ask(reads.sum_many(measure, queries)) == totals
        offsets = [random.randint(-len(inside) - 1, len(inside)) for inside in insides]
        nothing = (None,) * len(reads.table.c)
        at = [
            (i, *(inside[offset].shown if -len(inside) <= offset < len(inside) else nothing))
            for i, (inside, offset) in enumerate(zip(insides, offsets, strict=True))
        ]
        assert self._ask(
            reads.at_many([{**query, "offset": o} for query, o in zip(queries, offsets, strict=True)])
        ) == at  # fmt: skip

    def _every_item(self, model: Model, items: Mapping[Place, Sequence[Item]]) -> None:
        """The item at the rank of x is x, for all of them; ranks come correlated from the view of the items."""
        reads, c = model.aggregate, model.aggregate.table.c
        of = [c[part.name] for part in model.namespace]
        key = tuple(c[part.name] for part in model.key)
        pk = (c.part, c.id)
        named = {"key": model.key_of(key)} if key else {}
        ranks = select(*c, reads.rank(*of, **named, pk=pk), reads.rank_of(pk, order="desc"))
        expected = {
            (*item.shown, rank, len(there) - 1 - rank) for there in items.values() for rank, item in enumerate(there)
        }
        assert set(self._ask(ranks)) == expected
        queries = [
            {**({"namespace": of} if of else {}), "offset": rank}
            for of, there in items.items()
            for rank in range(len(there))
        ]
        everything = [item.shown for there in items.values() for item in there]
        assert [row[1:] for row in self._ask(reads.at_many(queries))] == everything


def _turned(items: Sequence[Any], order: str) -> list[Any]:
    return list(items) if order == "asc" else list(reversed(items))


def check_buckets(connection: Connection, model: Model, rows: Rows | None, most: int) -> int:
    """The skip list as it is stored: each level is part of the one below, with its totals; returns its height.

    Args:
        rows: committed ones, if all are folded: then each bucket of level 1 has the number of items that it should.
        most: items that a bucket, or what is behind the last one, may have after a fold.
    """
    table = sql.Identifier("tally", internal_name(model.aggregate.name, "bucket"))
    stored = connection.exec_driver_sql(sql.SQL("SELECT * FROM {}").format(table).as_string()).all()
    levels: dict[Place, list[dict[Place, tuple[Any, ...]]]] = {}
    size = len(model.namespace)
    for level, *values in stored:
        of = tuple(part.place(value) for part, value in zip(model.namespace, values, strict=False))
        place = tuple(part.place(value) for part, value in zip(model.position, values[size:], strict=False))
        found = levels.setdefault(of, [{} for _ in range(3)])[level - 1]
        assert place not in found, f"{model.aggregate.name}: two buckets of level {level} end at {place}"
        found[place] = tuple(values[size + len(place) :])
    items = model.items(rows) if rows is not None else {}
    for of, (lowest, *_) in levels.items():
        for below, above in zip(levels[of], levels[of][1:], strict=False):
            assert set(above) <= set(below), f"{model.aggregate.name}: a place without one below it"
            for (low, high), total in _runs(above):
                parts = [found for place, found in below.items() if low < place <= high]
                assert total == tuple(sum(map(Fraction, values)) for values in zip(*parts, strict=True)), (
                    model.aggregate.name,
                    high,
                )
        if rows is not None:
            there = [item.place for item in items.get(of, [])]
            for (low, high), (n, *_) in _runs(lowest):
                assert n == sum(low <= place < high for place in there), (model.aggregate.name, of, high)
                assert n <= most, f"{model.aggregate.name}: a bucket of {n}"
    for of, found_items in items.items():
        lowest = levels[of][0] if of in levels else {}
        tail = [item for item in found_items if not lowest or item.place >= max(lowest)]
        assert len(tail) <= most, f"{model.aggregate.name}: {len(tail)} behind the last bucket"
    return max((level for level, *_ in stored), default=0)


def _runs(level: Mapping[Place, tuple[Any, ...]]) -> list[tuple[tuple[Place, Place], tuple[Any, ...]]]:
    """The buckets of a level in order: where each begins and ends, and its totals."""
    places = sorted(level)
    return [((low, high), level[high]) for low, high in zip([(), *places], places, strict=False)]
