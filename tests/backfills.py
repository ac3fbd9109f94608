"""Backfills that something happens in the middle of."""

from collections.abc import Callable, Sequence
from itertools import count
from threading import Event

import pytest
from sqlalchemy import Engine

from tallystick import Tally
from tallystick.maintain.backfill import Progress

ToldOf = Callable[[Progress], None]


class Stopped(Exception):
    """Stands for Ctrl-C, or whatever ends a worker between two chunks."""


class Noted(Event):
    """What a backfill would wait for, which ends its rests: notes for how long, and waits for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        return False


def after(chunks: int, then: Callable[[], object]) -> ToldOf:
    """Do something after so many chunks, once."""
    calls = count(1)

    def told(_progress: Progress) -> None:
        if next(calls) == chunks:
            then()

    return told


def stop_after(chunks: int, then: Callable[[], object] = lambda: None) -> ToldOf:
    """Do something after so many chunks, and stop."""

    def stop() -> None:
        then()
        raise Stopped

    return after(chunks, stop)


def begin(engine: Engine, tally: Tally, only: Sequence[str] | None = None) -> None:
    """Begin backfills anew and stop each after a chunk of two rows; nobody may be writing at this moment."""
    for name in only or [aggregate.name for aggregate in tally.kept()]:
        with pytest.raises(Stopped):
            tally.backfill(engine, only=[name], force=True, chunk_rows=2, told=stop_after(1))
