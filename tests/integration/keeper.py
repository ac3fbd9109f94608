"""Aggregates over a table of the test's own, and the oracle over one connection; used by the tests of values."""

from collections.abc import Iterator
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import URL, Engine, create_engine

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import Oracle, told
from tests.servers import Connection

SETUP: LiteralString = """
CREATE TYPE mood AS ENUM ('sad', 'ok');
CREATE TYPE pair AS (a numeric, b text);
CREATE DOMAIN word AS text CHECK (length(VALUE) < 5000);
CREATE DOMAIN few AS integer[] CHECK (cardinality(VALUE) < 9);
CREATE DOMAIN both_ AS pair;
CREATE DOMAIN price AS numeric(6, 2) CHECK (VALUE >= 0);
CREATE DOMAIN paid AS price CHECK (VALUE < 1000);
CREATE DOMAIN felt AS mood;
CREATE DOMAIN stay AS int4range;
"""


class Keeper:
    """The application's session, and aggregates that must stay exact whatever it writes."""

    def __init__(self, app: Connection, observer: Connection, engine: Engine) -> None:
        self.app, self.engine = app, engine
        self.observer = observer
        self.tally = Tally()
        self._oracle: Oracle | None = None

    def keep(self, *declared: str) -> None:
        for number, query in enumerate(declared):
            self.tally.grouped(f"m{number}", query)
        self.tally.install(self.engine)
        self.tally.backfill(self.engine)
        self._oracle = Oracle(self.observer, self.tally)
        self.check()

    def check(self) -> None:
        assert self._oracle is not None
        found = self._oracle.differences()
        assert not found, told(found)

    def fold(self) -> None:
        self.tally.fold(self.engine)
        self.check()

    def stay_exact(self, *writes: LiteralString | sql.Composed | sql.SQL) -> None:
        """Exact after each write, after the fold of every second one, and after the last."""
        for number, write in enumerate(writes):
            self.app.execute(write)
            self.check()
            if number % 2:
                self.fold()
        self.fold()


@pytest.fixture
def keeper(connect: Connect, database: URL) -> Iterator[Keeper]:
    """A database of the test's own, where nothing is declared yet; folds keep their connection."""
    keeper = Keeper(connect(autocommit=True), connect(autocommit=True), create_engine(database))
    yield keeper
    keeper.engine.dispose()
