"""Many users at once: threads, each with its own connection, and real transactions that end in COMMIT or ROLLBACK."""

from __future__ import annotations

import random
from collections import Counter as Numbers
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

from sqlalchemy import Connection, Engine

ROLLED_BACK = 0.1
"""The share of transactions that are rolled back, as by an application that meets an error."""

Turn = Callable[[Connection, random.Random, int], "Numbers[str]"]
"""Does the work of one transaction, but for its end, as the user of that number; and tells what it has changed."""


@dataclass
class Crowd:
    """Users at work until `stop`."""

    engine: Engine
    turn: Turn
    users: int
    least: int
    _ended: Event = field(default_factory=Event)
    _works: list[Future[Numbers[str]]] = field(default_factory=list)

    def start(self, threads: ThreadPoolExecutor) -> None:
        self._works = [threads.submit(self._work, user) for user in range(self.users)]

    def stop(self) -> Numbers[str]:
        """All that was changed, with `committed` and `rolled back` transactions; it raises what a user met."""
        self.end()
        total: Numbers[str] = Numbers()
        for work in self._works:
            total.update(work.result())
        return total

    def end(self) -> None:
        """Let each user end once it has had its least number of turns."""
        self._ended.set()

    def has_ended(self, *, within_s: float) -> bool:
        """Whether all users have ended, or do so within so many seconds."""
        return not wait(self._works, timeout=within_s).not_done

    def _work(self, user: int) -> Numbers[str]:
        chance, done = random.Random(user), Numbers[str]()
        with self.engine.connect() as connection:
            while done["committed"] < self.least or not self._ended.is_set():
                changed = self.turn(connection, chance, user)
                if chance.random() < ROLLED_BACK:
                    connection.rollback()
                    done["rolled back"] += 1
                else:
                    connection.commit()
                    done["committed"] += 1
                    done.update(changed)
        return done


@contextmanager
def crowd(engine: Engine, turn: Turn, *, users: int, least: int) -> Iterator[Crowd]:
    """Users at work during the block; all have ended at its end, whatever happens in it.

    Args:
        least: transactions that each user commits at least.
    """
    with ThreadPoolExecutor(users) as threads:
        working = Crowd(engine, turn, users, least)
        working.start(threads)
        try:
            yield working
        finally:
            working.end()
