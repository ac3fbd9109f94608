"""Fixtures for stepped tests over `message` and its aggregates."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from sqlalchemy import URL, create_engine
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tests.conftest import Connect
from tests.isolation.stage import TABLE, Beside, declared
from tests.servers import Connection, Server
from tests.stepping import Session


@pytest.fixture
def tally() -> Tally:
    """The aggregates over `message`."""
    return declared()


@pytest.fixture
def beside(database: URL, session: Callable[[], Session], connect: Connect) -> Iterator[Beside]:
    """Run operations of ours beside sessions; asks for `session` so that it is torn down before them."""
    with ExitStack() as opened:
        beside = Beside(database, connect(autocommit=True), opened)
        yield beside
        beside.end_all()


@pytest.fixture(scope="session")
def with_table(server: Server) -> str:
    """Name of a template database with `message`, where nothing is installed."""

    def build(connection: Connection) -> None:
        connection.execute(TABLE)

    return server.template("message", build)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of a template database with `message` and its aggregates, serving their kept half."""

    def build(connection: Connection) -> None:
        connection.execute(TABLE)
        connection.commit()
        engine = create_engine(server.url(connection.info.dbname), poolclass=NullPool)
        tally = declared()
        tally.install(engine)
        tally.backfill(engine)

    return server.template("kept messages", build)
