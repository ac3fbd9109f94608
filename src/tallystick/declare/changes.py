"""How two definitions of an aggregate differ: keys, measures, conditions and order, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tallystick.declare.ordered import Kept, Ordered, Ordering
from tallystick.declare.sqltext import Measure, Shape


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        part: "kind", "source", "key", "measure", "where", "order", "mirror", or "text" if only the spelling differs.
        name: of the key or measure, else None.
        was: as installed; None if it was added.
        now: as declared; None if it was removed.
    """

    part: str
    name: str | None
    was: str | None
    now: str | None

    def __str__(self) -> str:
        what = self.part if self.name is None else f'{self.part} "{self.name}"'
        if self.was is None:
            return f"{what} added: {self.now}" if self.now is not None else f"{what} changed"
        return f"{what} removed: {self.was}" if self.now is None else f"{what} changed: {self.was} -> {self.now}"


def compare(was: Shape, ordering: Ordering | None, now: Kept) -> list[Change]:
    """All differences between an installed definition and a declared one whose fingerprint is another.

    Args:
        was: the installed query taken apart.
        ordering: of an ordered aggregate.
    """
    found = list(_differences(was, ordering, now))
    if found:
        return found
    # What is copied where is not recorded by column, and equal parts can be spelled in another order.
    return [Change("mirror" if now.mirror is not None else "text", None, None, None)]


def _differences(was: Shape, ordering: Ordering | None, now: Kept) -> Iterator[Change]:
    is_ordered = isinstance(now, Ordered)
    if is_ordered != (ordering is not None):
        kinds = ("grouped", "ordered")
        yield Change("kind", None, kinds[ordering is not None], kinds[is_ordered])
    if was.source != now.shape.source:
        yield Change("source", None, was.source, now.shape.source)
    yield from _by_name("key", *({key.name: key.expression for key in shape.keys} for shape in (was, now.shape)))
    yield from _by_name("measure", *({each.name: told(each) for each in shape.measures} for shape in (was, now.shape)))
    if was.where != now.shape.where:
        yield Change("where", None, was.where, now.shape.where)
    if isinstance(now, Ordered) and ordering is not None and ordering != now.ordering:
        yield Change("order", None, _told_order(was, ordering), _told_order(now.shape, now.ordering))


def _by_name(part: str, was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Change]:
    for name in dict.fromkeys([*was, *now]):
        if was.get(name) != now.get(name):
            yield Change(part, name, was.get(name), now.get(name))


def told(measure: Measure) -> str:
    """A measure as it is written in a query."""
    distinct = "DISTINCT " if measure.distinct else ""
    condition = f" FILTER (WHERE {measure.filter})" if measure.filter is not None else ""
    return f"{measure.function}({distinct}{measure.argument or '*'}){condition}"


def _told_order(shape: Shape, ordering: Ordering) -> str:
    names = [key.name for key in shape.keys]
    order = [
        f"{name} desc" if is_descending else name
        for name, is_descending in zip(names[ordering.namespace :], ordering.descending, strict=True)
    ]
    namespace = f"of ({', '.join(names[: ordering.namespace])}) " if ordering.namespace else ""
    return f"{namespace}by ({', '.join(order)})"
