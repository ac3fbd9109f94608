"""What an example checks: both halves of a reading in one snapshot, and steps by what they should have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import ColumnElement, Engine, select

from tallystick import direct_of

Number = int | Decimal


@dataclass(frozen=True, slots=True)
class Check:
    """One reading: `actual` is what readers get, `direct` what the source says."""

    name: str
    kind: str
    actual: Number
    direct: Number

    @property
    def diff(self) -> Number:
        return self.actual - self.direct

    @property
    def is_exact(self) -> bool:
        return self.actual == self.direct


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done, what it should have changed, and what it has changed: a number."""

    done: str
    expected: int
    found: int


def checks(engine: Engine, readings: Mapping[str, tuple[str, ColumnElement[Any]]]) -> list[Check]:
    """Read both halves of all readings in one statement, and so in one snapshot.

    Args:
        readings: a name, with the kind of aggregate and the kept reading.
    """
    kept = [reading for _, reading in readings.values()]
    with engine.connect() as connection:
        row = connection.execute(select(*kept, *map(direct_of, kept))).one()
    halves = zip(row[: len(kept)], row[len(kept) :], strict=True)
    return [Check(name, kind, *half) for (name, (kind, _)), half in zip(readings.items(), halves, strict=True)]


def differing(found: list[Check]) -> str:
    """In words, how many of them drift."""
    number = sum(not check.is_exact for check in found)
    return f"{number} DIFFER" if number else "all equal"


def show(console: Console, found: list[Check]) -> None:
    """The verification table."""
    table = Table("counter/aggregate", "kind")
    for heading in ("actual", "direct", "diff"):
        table.add_column(heading, justify="right")
    table.add_column("status")
    for check in found:
        status = Text("exact", style="green") if check.is_exact else Text("DRIFT", style="bold red")
        table.add_row(check.name, check.kind, f"{check.actual:,}", f"{check.direct:,}", f"{check.diff:+,}", status)
    console.print(table)


def show_steps(console: Console, steps: list[Step]) -> None:
    table = Table("done")
    for heading in ("expected", "found"):
        table.add_column(heading, justify="right")
    for step in steps:
        table.add_row(step.done, f"{step.expected:+,}", f"{step.found:+,}")
    console.print(table)
