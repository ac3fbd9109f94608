"""What the commands print: results on stdout, progress and errors on stderr, and with --json one object on stdout."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tallystick.errors import TallyError

UNBROKEN = 200
"""Columns where nobody looks at a terminal: wide enough to keep a table's rows on one line each."""


class Output:
    """Where a command prints. `as_json`: results are one JSON object, and whatever else there is goes to stderr."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(stderr=False)
        self.err = _console(stderr=True)

    def say(self, text: str) -> None:
        """A line for people."""
        (self.err if self.as_json else self.out).print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """A line for people that is no result."""
        self.err.print(Text(text), soft_wrap=True)

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()
    ) -> None:
        """A table for people; the columns in `right` hold numbers."""
        table = Table()
        for column in columns:
            is_number = column in right
            table.add_column(Text(column), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
        for row in rows:
            table.add_row(*(cell if isinstance(cell, Text) else Text(shown(cell)) for cell in row))
        if title:
            self.say(title)
        (self.err if self.as_json else self.out).print(table)

    def json(self, data: Any) -> None:
        """The result, if --json asked for it; decimals and dates are strings, floats are numbers."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain(data), indent=2, ensure_ascii=False) + "\n")

    def fail(self, error: TallyError) -> None:
        """One sentence, and the next step."""
        sentence = Text("Error: ", style="bold red")
        sentence.append(error.message, style="not bold default")
        self.err.print(sentence, soft_wrap=True)
        if error.hint:
            self.note(error.hint)
        self.json({"error": {"message": error.message, "hint": error.hint}})

    @contextmanager
    def steps(self, total: int | None = None) -> Iterator[Steps]:
        """Long work: a bar (or, without a total, a spinner) on a terminal, else a line for each step."""
        if not self.err.is_terminal:
            yield Steps(self)
            return
        columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
        if total is not None:
            columns[2:2] = [BarColumn(bar_width=30), MofNCompleteColumn()]
        with Progress(*columns, console=self.err, transient=True) as bar:
            yield Steps(self, (bar, bar.add_task("", total=total)))


@dataclasses.dataclass(frozen=True)
class Steps:
    """Tells of work as it goes on."""

    output: Output
    bar: tuple[Progress, TaskID] | None = None

    def begin(self, text: str) -> None:
        """What is being done now, to be followed by `done`."""
        if self.bar is not None:
            progress, task = self.bar
            progress.update(task, description=text)

    def done(self, text: str) -> None:
        """What came of it: a line that stays."""
        if self.bar is None:
            self.output.say(text)
            return
        progress, task = self.bar
        if self.output.out.is_terminal:
            progress.console.print(Text(text), soft_wrap=True)  # above the bar, which another console would tear
        else:
            self.output.say(text)
        progress.advance(task)

    def progress(self, text: str, data: dict[str, Any]) -> None:
        """How far it has come: with --json a line of JSON on stderr, else at the bar, if there is one."""
        if self.output.as_json:
            sys.stderr.write(json.dumps(_plain(data), ensure_ascii=False) + "\n")
        elif self.bar is not None:
            self.begin(text)
        else:
            self.output.note(text)

    def passing(self, text: str) -> None:
        """What is being done now, where nothing else will tell."""
        if self.bar is None:
            self.output.say(text)
        self.begin(text)


def named(result: Any) -> dict[str, Any]:
    """What came of something for an aggregate, which has the same key in every object of --json: name."""
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return {"name": values.pop("aggregate"), **values}


def shown(value: Any) -> str:
    """A value in a table."""
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def counted(number: int, what: str) -> str:
    """How many of what, a word in the plural that ends with s."""
    return f"{number:,} {what.removesuffix('s') if number == 1 else what}"


def seconds(elapsed_s: float) -> str:
    return f"{elapsed_s:.2f} s"


def duration(seconds: float) -> str:
    """Of long work, as h:mm:ss."""
    return str(timedelta(seconds=round(seconds)))


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, markup=False, width=None if stream.isatty() else UNBROKEN)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Decimal | date | time | timedelta) else value
