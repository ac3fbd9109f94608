"""Questions to the demo's aggregates, asked of both halves: compared in one snapshot, then timed in turns."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from sqlalchemy import Connection, Engine, Select, select

from tallystick.declare.reads import direct_of
from tallystick.demo import declarations as kept

ROUNDS = 9
WARM_ROUNDS = 11
"""As on a connection that has asked before: psycopg prepares a statement at its sixth execution, and PostgreSQL keeps a
plan for it from the sixth of those on."""


@dataclass(frozen=True, slots=True)
class Question:
    """A read of a kept half; its twin over the source is derived from it. `is_ordered`: it asks for an order."""

    name: str
    read: Select[Any]
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One question: medians in milliseconds, how many times quicker the kept half is, and whether both agree."""

    name: str
    direct_ms: float
    kept_ms: float
    ratio: float
    equal: bool
    rows: int


QUESTIONS = (
    Question("United in January", kept.by_carrier.get(carrier="UA", month=1)),
    Question("all carriers by month", select(*kept.by_carrier.table.c)),
    Question("one route, JFK to LAX", kept.by_route.get(origin="JFK", dest="LAX")),
    Question("10 worst delays by route", kept.by_route.top("worst_delay", 10), is_ordered=True),
    Question("delayed flights of United", kept.delayed.get(carrier="UA")),
    Question("3 carriers most often late", kept.delayed.top("late", 3), is_ordered=True),
    Question("aircraft on New Year's Day", kept.aircraft_per_day.get(month=1, day=1)),
    Question("5 days with most aircraft", kept.aircraft_per_day.top("aircraft", 5), is_ordered=True),
    Question("one aircraft, N725MQ", kept.by_aircraft.get(tailnum="N725MQ")),
    Question("10 aircraft that flew furthest", kept.by_aircraft.top("miles", 10), is_ordered=True),
    Question("totals of all flights", select(*kept.totals.table.c)),
)


def agree(engine: Engine) -> dict[str, bool]:
    """Whether both halves give the same answer, by question, all in one REPEATABLE READ snapshot.

    Values are compared by their own equality; order counts where the question asks for one.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        return {
            question.name: _same(
                question, *(connection.execute(read).fetchall() for read in (direct_of(question.read), question.read))
            )
            for question in QUESTIONS
        }


def answers(engine: Engine) -> Iterator[Answer]:
    """Compare both halves, then time them on one connection, direct and kept in turns; results are fetched wholly."""
    equal = agree(engine)
    with engine.connect() as connection:
        for question in QUESTIONS:
            yield _timed(connection, question, equal[question.name])


def _same(question: Question, direct: Sequence[Any], kept_: Sequence[Any]) -> bool:
    arranged: Callable[[Sequence[Any]], Any] = list if question.is_ordered else Counter
    return bool(arranged([tuple(row) for row in direct]) == arranged([tuple(row) for row in kept_]))


def _timed(connection: Connection, question: Question, equal: bool) -> Answer:
    reads = direct_of(question.read), question.read
    times: tuple[list[float], list[float]] = [], []
    rows = 0
    for round_ in range(WARM_ROUNDS + ROUNDS):
        for read, taken in zip(reads, times, strict=True):
            started = time.perf_counter()
            rows = len(connection.execute(read).fetchall())
            elapsed_ms = (time.perf_counter() - started) * 1000
            if round_ >= WARM_ROUNDS:
                taken.append(elapsed_ms)
    direct_ms, kept_ms = (median(taken) for taken in times)
    return Answer(question.name, round(direct_ms, 3), round(kept_ms, 3), round(direct_ms / kept_ms, 1), equal, rows)
