"""What reads of an ordered aggregate cost, with deltas that nothing has folded yet, beside direct queries.

Every range lies between two random moments, so it has a third of the rows on average. The direct queries are the ones
that people write, over the same index. They are planned for their values each time, which is the better plan of those
that PostgreSQL has: a generic one takes every range for a short one, and no second process for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import median
from typing import Any

import psycopg
from sqlalchemy import BigInteger, Column, DateTime, Double, Engine, Select, bindparam, func, select

from tallystick.bench.calls import prepared
from tallystick.bench.figures import Figure, interleaved, ratio
from tallystick.bench.ordered_source import NAMESPACE, Timeline, at_second
from tallystick.bench.place import session

WARM_UP = 20  # calls; PostgreSQL chooses between its plans after five
KEPT_CALLS_PER_ROUND = 10
RANDOM_RANGE = "range between two random moments"

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rows: int
    rows_of_small: int
    few: int  # deltas
    many: int
    batch: int  # ranges
    calls: int
    rounds: int  # of comparisons; direct calls take long


class Readers:
    """Reads of a long timeline, and of a short one where the length matters."""

    def __init__(self, engine: Engine, sizes: Sizes, big: Timeline, small: Timeline) -> None:
        self.engine, self.sizes, self.big, self.small = engine, sizes, big, small
        self.random = Random(2)  # noqa: S311  # seeded data, not secrets

    def few_deltas(self) -> Iterator[Figure]:
        """Against time, length, the direct queries and a batch, with the same deltas in all of it."""
        for timeline in (self.big, self.small):
            timeline.change(self.sizes.few)
        state = f"{self.sizes.few:,} deltas"
        yield from self._times(state, target=1)
        yield from self._growth(state)
        yield from self._times_faster(state)
        yield self._batch(state)
        for timeline in (self.big, self.small):
            timeline.fold()

    def many_deltas(self) -> Iterator[Figure]:
        """Beside the dead rows of those before; the caller sees to it that nothing vacuums."""
        self.big.change(self.sizes.many)
        yield from self._times(f"{self.sizes.many:,} deltas, no vacuum", target=3)
        self.big.fold()

    def _times(self, state: str, target: float) -> Iterator[Figure]:
        for name, read in _kept(self.big).items():
            with session(self.engine) as connection:
                call = prepared(connection, self.engine, read)
                samples = [call(self._range(self.big)) for _ in range(WARM_UP + self.sizes.calls)][WARM_UP:]
            yield Figure(
                f"{name}, {self.big.rows:,} rows, {RANDOM_RANGE}, {state}, time", "ms", samples, target, "under"
            )  # fmt: skip

    def _growth(self, state: str) -> Iterator[Figure]:
        """The same deltas in both; several calls between any two of the other."""
        small, big = f"{self.small.rows:,}", f"{self.big.rows:,}"
        for name in ("count", "rank"):
            with session(self.engine) as connection:
                runs: dict[str, Callable[[], float]] = {}
                for rows, timeline in ((small, self.small), (big, self.big)):
                    call = prepared(connection, self.engine, _kept(timeline)[name])
                    runs[rows] = self._typical(call, timeline)
                interleaved(runs, WARM_UP // KEPT_CALLS_PER_ROUND)
                measured = interleaved(runs, self.sizes.calls // KEPT_CALLS_PER_ROUND + 1)
            yield ratio(f"{name}, time of {big} rows over that of {small}, {state}", measured, small, big, target=1.5)

    def _typical(self, call: Callable[[Values], float], timeline: Timeline) -> Callable[[], float]:
        """The median of some calls."""
        return lambda: median(call(self._range(timeline)) for _ in range(KEPT_CALLS_PER_ROUND))

    def _times_faster(self, state: str) -> Iterator[Figure]:
        """Several kept calls between any two direct ones, one of them of the same range."""
        for name, read in _direct(self.big).items():
            kept: list[float] = []
            direct: list[float] = []
            with session(self.engine) as connection, _planning_each_time(self.engine) as planning:
                call_kept = prepared(connection, self.engine, _kept(self.big)[name])
                call_direct = prepared(planning, self.engine, read)
                for _ in range(WARM_UP):
                    call_kept(self._range(self.big))
                for _ in range(self.sizes.rounds):
                    ranges = [self._range(self.big) for _ in range(KEPT_CALLS_PER_ROUND)]
                    direct.append(call_direct(ranges[0]))
                    kept.append(median(call_kept(values) for values in ranges))
            what = f"{name}, {self.big.rows:,} rows, {RANDOM_RANGE}, {state}, direct time over kept time"
            samples = [theirs / ours for theirs, ours in zip(direct, kept, strict=True)]
            yield Figure(
                what, "ratio", samples, 100, "at least", baseline=median(direct), candidate=median(kept)
            )  # fmt: skip

    def _batch(self, state: str) -> Figure:
        """Each round has ranges of its own, the same in the batch and one by one."""
        many, single = f"count_many of {self.sizes.batch}", "single reads"
        measured: dict[str, list[float]] = {many: [], single: []}
        with session(self.engine) as connection:
            call = prepared(connection, self.engine, _kept(self.big)["count"])
            for _ in range(self.sizes.rounds + 1):
                ranges = [self._range(self.big) for _ in range(self.sizes.batch)]
                batch = prepared(connection, self.engine, self.big.kept.count_many(_queries(ranges)))
                runs = {many: partial(batch, {}), single: partial(_each, call, ranges)}
                for name, times in interleaved(runs, 2).items():
                    measured[name].append(median(times))
        warm = {name: times[1:] for name, times in measured.items()}
        what = f"count_many of {self.sizes.batch} ranges, time over that of as many single reads, {state}"
        return ratio(what, warm, single, many, target=0.333)

    def _range(self, timeline: Timeline) -> dict[str, Any]:
        """Parameters of any read: two moments, an offset between them, and a share."""
        lower, upper = sorted(self.random.randint(1, timeline.rows) for _ in range(2))
        return {
            "lower": at_second(lower),
            "upper": at_second(upper),
            "offset": self.random.randint(0, upper - lower),
            "share": self.random.random(),
        }


@contextmanager
def _planning_each_time(engine: Engine) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with session(engine) as connection:
        connection.execute("SET plan_cache_mode = force_custom_plan")
        yield connection
        connection.execute("RESET plan_cache_mode")


def _queries(ranges: Sequence[Values]) -> list[dict[str, Any]]:
    """As a batch takes them."""
    return [{"namespace": NAMESPACE, "lower": each["lower"], "upper": each["upper"]} for each in ranges]


def _each(call: Callable[[Values], float], ranges: Sequence[Values]) -> float:
    return sum(call(values) for values in ranges)


def _moment(name: str) -> Any:
    return bindparam(name, type_=DateTime(timezone=True))


def _kept(timeline: Timeline) -> dict[str, Select[Any]]:
    kept = timeline.kept
    span = {"lower": _moment("lower"), "upper": _moment("upper")}
    return {
        "count": select(kept.count(NAMESPACE, **span)),
        "sum": select(kept.sum("total", NAMESPACE, **span)),
        "rank": select(kept.rank(NAMESPACE, key=_moment("upper"))),
        "at": kept.at(NAMESPACE, offset=bindparam("offset", type_=BigInteger), **span),
        "percentile": kept.percentile(NAMESPACE, p=bindparam("share", type_=Double), **span),
    }


def _direct(timeline: Timeline) -> dict[str, Select[Any]]:
    event = timeline.table.c
    in_namespace: Any = event.ns == NAMESPACE
    inside = (in_namespace, event.moment.between(_moment("lower"), _moment("upper")))
    item: list[Column[Any]] = [event.ns, event.moment, event.id, event.amount]
    return {
        "count": select(func.count()).select_from(timeline.table).where(*inside),
        "sum": select(func.sum(event.amount)).where(*inside),
        "rank": select(func.count()).select_from(timeline.table).where(in_namespace, event.moment < _moment("upper")),
        "at": select(*item)
        .where(*inside)
        .order_by(event.moment, event.id)
        .offset(bindparam("offset", type_=BigInteger))
        .limit(1),
    }
