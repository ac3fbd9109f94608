"""A table, ordered aggregates over it, and what they are to answer: sorted lists of Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from math import ceil
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, Numeric, SmallInteger, Table, Text

from tallystick import Bound, Ordered, Tally

CREATE = """
CREATE TABLE item (
    part smallint, id bigint, g integer, name text COLLATE "C", at integer, minutes integer, price numeric(8, 2),
    ratio double precision, gone boolean NOT NULL, note text, PRIMARY KEY (part, id)
)
"""
item = Table(
    "item",
    MetaData(),
    Column("part", SmallInteger, primary_key=True),
    Column("id", BigInteger, primary_key=True),
    Column("g", Integer),
    Column("name", Text),
    Column("at", Integer),
    Column("minutes", Integer),
    Column("price", Numeric(8, 2)),
    Column("ratio", Double),
    Column("gone", Boolean, nullable=False),
    Column("note", Text),
)
NAMES = ("", "a", "A", "b", "B", "ä", "é", "Z", "a b")
AGES = tuple(range(8))
PARTS = (0, 1)
GROUPS = (1, 2)
Place = tuple[int, ...]


class Row(NamedTuple):
    """A row of `item`. Its note is of no use to anything."""

    part: int
    id: int
    g: int | None
    name: str | None
    at: int | None
    minutes: int | None
    price: Decimal | None
    ratio: float | None
    gone: bool


Rows = Mapping[tuple[int, int], Row]


class Ranks(NamedTuple):
    """Where each of `NAMES` comes by its collation; names that are equal come at one place."""

    binary: Mapping[str, int]
    nocase: Mapping[str, int]


@dataclass(frozen=True)
class Part:
    """A column of a namespace or of an order: its value in a row, and where a value comes."""

    name: str
    value: Callable[[Row], Any]
    domain: Sequence[Any]
    ranks: Mapping[str, int] | None = None
    down: bool = False

    def place(self, value: Any) -> int:
        at: int = value if self.ranks is None else self.ranks[value]
        return -at if self.down else at


@dataclass(frozen=True)
class Item:
    """A row as it comes in an order."""

    place: Place
    row: Row
    shown: tuple[Any, ...]  # as reads give it


@dataclass(frozen=True)
class Span:
    """A range: keywords of a read, and what is in it."""

    keywords: dict[str, Any]
    lower: Place
    upper: Place
    bounds: str

    def of(self, items: Iterable[Item]) -> list[Item]:
        return [each for each in items if self._is_behind(each.place) and self._is_before(each.place)]

    def _is_behind(self, place: Place) -> bool:
        start = place[: len(self.lower)]
        return start > self.lower or (start == self.lower and self.bounds[0] == "[") or not self.lower

    def _is_before(self, place: Place) -> bool:
        start = place[: len(self.upper)]
        return start < self.upper or (start == self.upper and self.bounds[1] == "]") or not self.upper


@dataclass(frozen=True)
class Model:
    """What one aggregate is to answer.

    Attributes:
        key, rest: columns that items are ordered by: sort key, then what is left of the primary key.
        sums: of each sum, its value in a row, and what its column gives for the total.
    """

    tally: Tally
    aggregate: Ordered
    namespace: tuple[Part, ...]
    key: tuple[Part, ...]
    rest: tuple[Part, ...]
    sums: Mapping[str, tuple[Callable[[Row], Any], Callable[[Iterable[Any]], Any]]]
    is_item: Callable[[Row], bool] = lambda _: True

    @property
    def position(self) -> tuple[Part, ...]:
        return (*self.key, *self.rest)

    def items(self, rows: Rows) -> dict[Place, list[Item]]:
        """All items of each namespace, in order."""
        found: dict[Place, list[Item]] = {}
        for row in rows.values():
            values = [part.value(row) for part in (*self.namespace, *self.position)]
            if None in values or not self.is_item(row):
                continue
            of = tuple(part.place(v) for part, v in zip(self.namespace, values, strict=False))
            place = tuple(
                part.place(v) for part, v in zip(self.position, values[len(self.namespace) :], strict=True)
            )  # fmt: skip
            shown = (*values, *(value(row) for value, _ in self.sums.values()))
            found.setdefault(of, []).append(Item(place, row, shown))
        return {of: sorted(items, key=lambda each: each.place) for of, items in sorted(found.items())}

    def total(self, measure: str, items: Iterable[Item]) -> Any:
        value, added = self.sums[measure]
        return added(v for each in items if (v := value(each.row)) is not None)

    def key_of(self, values: Sequence[Any]) -> Any:
        """As a caller writes it: a scalar for one column, a tuple for several."""
        return values[0] if len(values) == 1 else tuple(values)

    def some_place(self, random: Random, items: Sequence[Item]) -> tuple[list[Any], tuple[int, int]]:
        """Values of the sort key and a primary key: of an item or a neighbour of one, or any at all."""
        near = random.choice(items).row if items and random.random() < 0.8 else None
        key = [
            part.value(near) if near is not None and random.random() < 0.8 else random.choice(part.domain)
            for part in self.key
        ]
        pk = (near.part, near.id + random.choice((-1, 0, 0, 1))) if near is not None else (random.choice(PARTS), 0)
        return key, pk

    def places(self, key: Sequence[Any], pk: tuple[int, int] | None = None) -> Place:
        """Where a key comes, or a key and a primary key."""
        found = tuple(part.place(value) for part, value in zip(self.key, key, strict=False))
        if pk is not None:
            by_name = dict(zip(("part", "id"), pk, strict=True))
            found += tuple(part.place(by_name[part.name]) for part in self.rest)
        return found

    def some_span(self, random: Random, items: Sequence[Item]) -> Span:
        """A range of any kind, also empty and inverted ones."""
        key, _ = self.some_place(random, items)
        kind = random.random()
        if kind < 0.12 and self.key:
            length = random.randint(1, len(self.key))
            place = self.places(key[:length])
            return Span({"prefix": self.key_of(key[:length])}, place, place, "[]")
        if kind < 0.24 and self.key:
            return Span({"eq": self.key_of(key)}, self.places(key), self.places(key), "[]")
        if kind < 0.3:
            return Span({}, (), (), "[]")
        bounds = random.choice(("[]", "[)", "(]", "()"))
        ends = [self._some_end(random, items) for _ in range(2)]
        if random.random() < 0.7:
            ends.sort(key=lambda end: end[1])
        keywords = {
            word: end[0] for word, end in zip(("lower", "upper"), ends, strict=True) if end[0] is not None
        }  # fmt: skip
        return Span({**keywords, "bounds": bounds}, ends[0][1], ends[1][1], bounds)

    def _some_end(self, random: Random, items: Sequence[Item]) -> tuple[Any, Place]:
        key, pk = self.some_place(random, items)
        length = random.randint(0, len(self.key) + 2)
        if length == 0:
            return None, ()
        if not self.key:
            return (pk if length == 1 else Bound((), pk)), self.places((), pk)
        if length == len(self.key) + 2:
            return Bound(self.key_of(key), pk), self.places(key, pk)
        if length == len(self.key) + 1:
            return Bound(self.key_of(key)), self.places(key)
        return self.key_of(key[:length]), self.places(key[:length])


def nearest_rank(p: float, size: int) -> int:
    """Offset of the percentile; a decimal p is meant as it is written."""
    return max(ceil(Decimal(repr(p)) * size) - 1, 0)


def added_floats(values: Iterable[float]) -> float:
    """The exact sum of the shortest decimal texts."""
    return float(sum(map(Fraction, map(repr, values)), Fraction(0)))


def declared(ranks: Ranks) -> list[Model]:
    """Aggregates with and without namespace, sort key, directions, collations and ties, in one registry."""
    tally = Tally()
    part, id_, g = item.c.part, item.c.id, item.c.g
    of_part = Part("part", lambda row: row.part, PARTS)
    of_id = Part("id", lambda row: row.id, (0,))
    of_g = Part("g", lambda row: row.g, GROUPS)
    minutes = (lambda row: row.minutes, sum)
    price = (lambda row: row.price, sum)
    return [
        Model(
            tally, tally.ordered(
                "by_at", item, namespace=[g], key=[item.c.at],
                sums={"spent": item.c.minutes, "paid": item.c.price}, where=item.c.gone.is_(False),
            ),
            (of_g,), (Part("at", lambda row: row.at, AGES),), (of_part, of_id), {"spent": minutes, "paid": price},
            lambda row: not row.gone,
        ),
        Model(
            tally, tally.ordered(
                "by_name", item, namespace=[g], key=[item.c.name.desc(), item.c.at], sums={"spent": item.c.minutes}
            ),
            (of_g,),
            (Part("name", lambda row: row.name, NAMES, ranks.binary, True), Part("at", lambda row: row.at, AGES)),
            (of_part, of_id), {"spent": minutes},
        ),
        Model(
            tally, tally.ordered(
                "by_spelling", item, key=[item.c.name.collate("nocase"), item.c.at.desc()],
                sums={"ratio": item.c.ratio},
            ),
            (),
            (Part("name", lambda row: row.name, NAMES, ranks.nocase), Part("at", lambda row: row.at, AGES, down=True)),
            (of_part, of_id), {"ratio": (lambda row: row.ratio, added_floats)},
        ),
        Model(
            tally, tally.ordered("by_pk", item, namespace=[g], sums={"paid": item.c.price}),
            (of_g,), (), (of_part, of_id), {"paid": price},
        ),
        # A column of the primary key is the namespace, and the other one alone breaks ties.
        Model(
            tally, tally.ordered("by_part", item, namespace=[part], key=[item.c.at.desc()]),
            (of_part,), (Part("at", lambda row: row.at, AGES, down=True),), (of_id,), {},
        ),
        # Nothing but ties.
        Model(
            tally, tally.ordered("ties", item, key=[(id_ * 0).label("tier")], where=g.is_not(None)),
            (), (Part("tier", lambda _: 0, (-1, 0, 1)),), (of_part, of_id), {}, lambda row: row.g is not None,
        ),
    ]  # fmt: skip
